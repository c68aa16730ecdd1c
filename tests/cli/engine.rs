//! A container engine as far as doctor asks it: canned answers on a loopback port.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::Receiver;

/// Answers on a port until the test ends.
pub struct CannedEngine(String);

impl CannedEngine {
    /// An engine without containers, networks and volumes.
    pub fn start() -> Self {
        Self::on("x86_64")
    }

    /// As [`CannedEngine::start`], on a machine as its kernel names it.
    pub fn on(machine: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(&stream, machine));
            }
        });
        Self(host)
    }

    /// What `DOCKER_HOST` has to be.
    pub fn host(&self) -> &str {
        &self.0
    }
}

/// An engine that takes every question and answers none.
pub struct SilentEngine {
    host: String,
    asked: Receiver<TcpStream>,
}

impl SilentEngine {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        let (sender, asked) = std::sync::mpsc::channel();
        std::thread::spawn(move || listener.incoming().flatten().try_for_each(|stream| sender.send(stream)));
        Self { host, asked }
    }

    /// What `DOCKER_HOST` has to be.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Waits until it is asked something, and keeps the question open as long as the result is there.
    pub fn asked(&self) -> TcpStream {
        self.asked.recv_timeout(std::time::Duration::from_secs(30)).unwrap()
    }
}

fn answer(mut stream: &TcpStream, machine: &str) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let path = request.split_whitespace().nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let info = format!(
            r#"{{"OSType":"linux","Architecture":"{machine}","ServerVersion":"29.0.0","NCPU":8,"MemTotal":34359738368,"CgroupVersion":"2"}}"#
        );
        let body = match path.rsplit_once('/').map_or(path, |(_, last)| last) {
            "version" => r#"{"Version":"29.0.0","ApiVersion":"1.47","Os":"linux","Arch":"amd64"}"#,
            "info" => info.as_str(),
            "json" | "networks" => "[]",
            "volumes" => r#"{"Volumes":[]}"#,
            _ => "{}",
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nApi-Version: 1.47\r\n";
        if write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).is_err() {
            return;
        }
    }
}
