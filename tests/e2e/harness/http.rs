//! An HTTP client of the test's own: one GET over one connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::tools::hex;

/// What a URL answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// The body's length in bytes.
    pub length: usize,
    /// The body's digest.
    pub sha256: String,
}

/// Gets a page as a browser on this host would: names below `localhost` are the loopback address, others are looked up
/// in `hosts`.
pub fn get(url: &str, hosts: &Path) -> Result<Page, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} is not plain HTTP"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let address = if host.ends_with("localhost") { "127.0.0.1".to_owned() } else { look_up(host, hosts)? };
    let address: SocketAddr = format!("{address}:{port}").parse().map_err(|error| format!("{address}: {error}"))?;
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(3)).map_err(|error| format!("{address}: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let path = if path.is_empty() { "/" } else { path };
    // HTTP/1.0: the body ends with the connection, and nothing is chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: */*\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let (mut head, mut digest, mut length) = (Vec::new(), Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    let mut in_body = false;
    loop {
        let read = stream.read(&mut buffer).map_err(|error| format!("{url}: {error}"))?;
        if read == 0 {
            break;
        }
        let mut body = &buffer[..read];
        if !in_body {
            head.extend_from_slice(body);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            in_body = true;
            let start = read - (head.len() - end - 4);
            body = &buffer[start..read];
            head.truncate(end);
        }
        length += body.len();
        digest.update(body);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| format!("{url} answers no HTTP: {head:?}"))?;
    Ok(Page { status, length, sha256: hex(&digest.finalize()) })
}

fn look_up(host: &str, hosts: &Path) -> Result<String, String> {
    let text = String::from_utf8_lossy(&std::fs::read(hosts).map_err(|error| error.to_string())?).into_owned();
    let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    let found = lines.find_map(|mut words| {
        let address = words.next()?;
        words.any(|name| name == host).then(|| address.to_owned())
    });
    found.ok_or_else(|| format!("{host} is not in {}", hosts.display()))
}
