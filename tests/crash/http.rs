//! HTTP on both sides of the cluster: the object store behind a port-forward, and the site on the host.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::cluster::Cluster;
use crate::death::Death;

/// Objects by path, `/bucket/key`: content and recorded digest. A bucket is an object without a key.
pub type Bucket = BTreeMap<String, (Vec<u8>, String)>;

/// Serves one connection to the object store.
pub async fn object_store(stream: DuplexStream, bucket: Arc<Mutex<Bucket>>, death: Death) {
    let mut stream = tokio::io::BufReader::new(stream);
    while let Some((method, target, headers)) = request(&mut stream).await {
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let path = path.trim_end_matches('/').to_owned();
        let digest = headers.get("x-amz-meta-sha256").cloned().unwrap_or_default();
        let known = bucket.lock().unwrap().get(&path).cloned();
        let (status, body, digest) = match (query.contains("X-Amz-Signature="), method.as_str(), known) {
            (false, ..) => (403, Vec::new(), String::new()),
            (true, "GET" | "HEAD", Some((bytes, digest))) => (200, bytes, digest),
            (true, "PUT", _) => {
                death.reach(&format!("before put {path}")).await;
                bucket.lock().unwrap().insert(path.clone(), (body, digest));
                death.reach(&format!("after put {path}")).await;
                (200, Vec::new(), String::new())
            }
            (true, "DELETE", _) => {
                bucket.lock().unwrap().remove(&path);
                (204, Vec::new(), String::new())
            }
            _ => (404, Vec::new(), String::new()),
        };
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nx-amz-meta-sha256: {digest}\r\n\r\n", body.len());
        let body = if method == "HEAD" { Vec::new() } else { body };
        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
    }
}

async fn request(
    stream: &mut tokio::io::BufReader<DuplexStream>,
) -> Option<(String, String, BTreeMap<String, String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let header =
        |line: &String| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Some((method, target, lines.iter().skip(1).filter_map(header).collect()))
}

/// Serves the site on the host for as long as the test program runs, and gives its address.
pub fn site(address: SocketAddr, cluster: Arc<Mutex<Option<Cluster>>>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for stream in listener.incoming().flatten() {
            // One that says nothing is not waited for.
            stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            // One that only knocks says nothing.
            let Some(line) = lines.next() else { continue };
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let cluster = cluster.lock().unwrap().clone();
            let found = cluster.filter(|cluster| runtime.block_on(cluster.serves())).and_then(|cluster| {
                let bucket = cluster.bucket.lock().unwrap();
                bucket.get(&format!("/site{path}")).map(|(bytes, _)| bytes.clone())
            });
            let (status, body) = found.map_or((503, Vec::new()), |body| (200, body));
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
        }
    });
    Ok(address)
}
