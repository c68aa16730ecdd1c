//! A proxy in front of the registry that breaks what a test tells it to break. One request a connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// The first byte of a client that speaks TLS.
const TLS_HANDSHAKE: u8 = 22;

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The proxy answers by itself: status and headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The proxy answers 200 with a JSON body.
    Json(String),
    /// The body ends after so many bytes.
    Truncate(usize),
    /// Nothing comes after so many bytes of the body.
    Stall(usize),
    /// The last byte of the body is another one.
    Corrupt,
    /// No answer at all.
    Hang,
}

struct Rule {
    part: String,
    unless: Option<String>,
    fault: Fault,
    times: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    log: Vec<String>,
}

/// The proxy; it stops when it is dropped.
pub struct Proxy {
    /// `127.0.0.1:PORT`.
    pub host: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts on a free port in front of a Unix socket.
    pub async fn start(upstream: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (state, upstream) = (Arc::clone(&shared), upstream.clone());
                connections.spawn(async move {
                    // A client that goes away is what some tests are about.
                    let _ = serve(client, &upstream, &state).await;
                });
            }
        });
        Self { host, state, task }
    }

    /// Breaks the next `times` requests whose line and headers contain `part`.
    pub fn fault(&self, part: &str, times: usize, fault: Fault) {
        let rule = Rule { part: part.to_owned(), unless: None, fault, times };
        self.state.lock().unwrap().rules.push(rule);
    }

    /// Breaks all requests that contain `part` and not `unless`.
    pub fn fault_unless(&self, part: &str, unless: &str, fault: Fault) {
        let rule = Rule { part: part.to_owned(), unless: Some(unless.to_owned()), fault, times: usize::MAX };
        self.state.lock().unwrap().rules.push(rule);
    }

    /// The requests so far, as `METHOD PATH [range]`, that contain `part`.
    pub fn seen(&self, part: &str) -> Vec<String> {
        self.state.lock().unwrap().log.iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.state.lock().unwrap().log.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, upstream: &PathBuf, state: &Mutex<State>) -> std::io::Result<()> {
    let (head, rest) = match read_head(&mut client).await {
        // An engine tries TLS first, and goes on without it where this is the answer.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return client.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        }
        head => head?,
    };
    let lines: Vec<&str> = head.lines().collect();
    let value = |name: &str| {
        let found =
            lines.iter().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.to_owned())
    };
    let fault = {
        let mut state = state.lock().unwrap();
        let request = lines[0].trim_end_matches(" HTTP/1.1");
        let range = value("range").map(|range| format!(" {range}")).unwrap_or_default();
        state.log.push(format!("{request}{range}"));
        let matches = |rule: &&mut Rule| {
            rule.times > 0 && head.contains(&rule.part) && rule.unless.as_ref().is_none_or(|part| !head.contains(part))
        };
        state.rules.iter_mut().find(matches).map(|rule| {
            rule.times -= usize::from(rule.times != usize::MAX);
            rule.fault.clone()
        })
    };
    match &fault {
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Status(status, headers)) => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let answer = format!("HTTP/1.1 {status} Said\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n");
            return client.write_all(answer.as_bytes()).await;
        }
        Some(Fault::Json(body)) => {
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            return client.write_all(answer.as_bytes()).await;
        }
        _ => {}
    }
    let mut body = rest;
    let length: usize = value("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut missing = vec![0; length.saturating_sub(body.len())];
    client.read_exact(&mut missing).await?;
    body.append(&mut missing);

    let mut registry = UnixStream::connect(upstream).await?;
    let kept = lines[1..].iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
    registry.write_all(format!("{}\r\n{kept}connection: close\r\n\r\n", lines[0]).as_bytes()).await?;
    registry.write_all(&body).await?;
    let (head, mut body) = read_head(&mut registry).await?;
    registry.read_to_end(&mut body).await?;
    if matches!(fault, Some(Fault::Corrupt))
        && let Some(last) = body.last_mut()
    {
        *last ^= 1;
    }
    let end = match fault {
        Some(Fault::Truncate(bytes) | Fault::Stall(bytes)) => bytes.min(body.len()),
        _ => body.len(),
    };
    client.write_all(head.as_bytes()).await?;
    client.write_all(b"\r\n\r\n").await?;
    client.write_all(&body[..end]).await?;
    client.flush().await?;
    if matches!(fault, Some(Fault::Stall(_))) {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Reads to the empty line; gives the head without it, and what came after it.
async fn read_head(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            bytes.truncate(end);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if from.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
}
