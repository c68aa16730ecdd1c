//! Proof that an endpoint serves what it promises, seen from the host: name → address → port → status → body.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::access::incluster;
use crate::context::Context;
use crate::hex;
use crate::ports::Kube;

/// What a URL promises.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The endpoint's name; unique in an environment.
    pub name: String,
    /// The URL as a person types it.
    pub url: String,
    /// The status it answers with.
    pub status: u16,
    /// SHA-256 of the body in hexadecimal, where it is known.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Text that the body contains.
    #[serde(default)]
    pub contains: Option<String>,
    /// The address to dial where the name cannot be looked up on this host, `ADDRESS:PORT`.
    #[serde(default)]
    pub dial: Option<SocketAddr>,
    /// Whether a person is shown the URL; a mere proof, such as a refused anonymous read, is not.
    #[serde(default)]
    pub shown: bool,
}

/// What a URL was seen to do. The JSON form is public.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The promise's name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// The address that was dialled.
    pub address: Option<String>,
    /// The status it answered with.
    pub http_status: Option<u16>,
    /// Whether the promise was kept.
    pub ok: bool,
    /// SHA-256 of the body it answered with.
    pub sha256: Option<String>,
    /// Where the chain broke, and how; absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// No endpoint answers with more than this; a larger body is hashed all the same, but not searched for text.
const SEARCHED: usize = 1 << 20;

/// One request may take this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The file of an environment's promises, in its directory.
const PROMISES: &str = "promises.json";

/// Records what an environment promises, for `status` and `doctor`.
///
/// # Errors
/// What the file system said.
pub fn record(ctx: &Context, dir: &Path, promises: &[Promise]) -> std::io::Result<()> {
    if recorded(ctx, dir) == promises {
        return Ok(());
    }
    let text = serde_json::to_vec_pretty(promises)?;
    ctx.fs.write(&dir.join(PROMISES), &text, 0o600)
}

/// What an environment promised at the end of its newest `up`; nothing where that cannot be read.
pub fn recorded(ctx: &Context, dir: &Path) -> Vec<Promise> {
    let text = ctx.fs.read(&dir.join(PROMISES)).ok().flatten();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Fetches a URL once. One of a service inside the cluster is asked over a port-forward, with `kube`.
pub async fn fetch(ctx: &Context, kube: Option<&dyn Kube>, promise: &Promise) -> Endpoint {
    let mut seen = Endpoint { name: promise.name.clone(), url: promise.url.clone(), ..Endpoint::default() };
    match attempt(ctx, kube, promise, &mut seen).await {
        Ok(()) => seen.ok = true,
        Err(reason) => seen.reason = Some(reason),
    }
    seen
}

/// Fetches a URL until it keeps its promise or the time is over; `waiting` is told each new reason.
pub async fn fetch_until(
    ctx: &Context,
    kube: Option<&dyn Kube>,
    promise: &Promise,
    patience: Duration,
    waiting: impl Fn(&str),
) -> Endpoint {
    let began = Instant::now();
    let mut told = String::new();
    loop {
        let seen = fetch(ctx, kube, promise).await;
        if seen.ok || began.elapsed() > patience {
            return seen;
        }
        let reason = seen.reason.as_deref().unwrap_or_default();
        if reason != told {
            waiting(reason);
            reason.clone_into(&mut told);
        }
        ctx.clock.sleep(Duration::from_millis(100)).await;
    }
}

async fn attempt(ctx: &Context, kube: Option<&dyn Kube>, promise: &Promise, seen: &mut Endpoint) -> Result<(), String> {
    let url: url::Url = promise.url.parse().map_err(|error| format!("not a URL: {error}"))?;
    let host = url.host_str().ok_or("the URL has no host")?.to_owned();
    let (status, sha256, start) = if host.ends_with(incluster::DOMAIN) {
        let kube = kube.ok_or("the cluster cannot be asked")?;
        let answer = incluster::get(kube, &url).await?;
        seen.address = answer.address.map(|address| address.to_string());
        (answer.status, hex::encode(&Sha256::digest(&answer.body)), answer.body.to_vec())
    } else {
        from_host(ctx, promise, &host, url, seen).await?
    };
    seen.http_status = Some(status);
    seen.sha256 = Some(sha256.clone());
    if status != promise.status {
        return Err(format!("it answers {status} instead of {}{}", promise.status, first_line(&start)));
    }
    if promise.sha256.as_ref().is_some_and(|wanted| *wanted != sha256) {
        return Err("it answers other bytes than those that were put there".to_owned());
    }
    if let Some(text) = &promise.contains
        && !String::from_utf8_lossy(&start).contains(text.as_str())
    {
        return Err(format!("its answer does not contain {text:?}"));
    }
    Ok(())
}

/// Name → address → port → answer; gives status, digest of the body, and the body's start.
async fn from_host(
    ctx: &Context,
    promise: &Promise,
    host: &str,
    url: url::Url,
    seen: &mut Endpoint,
) -> Result<(u16, String, Vec<u8>), String> {
    let port = url.port_or_known_default().ok_or("the URL has no port")?;
    let address = match promise.dial {
        Some(address) => address,
        None => SocketAddr::new(address_of(ctx, host).await?, port),
    };
    seen.address = Some(address.to_string());
    let dialled = tokio::time::timeout(Duration::from_secs(3), tokio::net::TcpStream::connect(address)).await;
    match dialled {
        Err(_) => return Err(format!("{address} does not answer")),
        Ok(Err(error)) => return Err(format!("{address} refuses the connection: {error}")),
        // A connection that says nothing would keep a server busy that serves one at a time.
        Ok(Ok(knock)) => drop(knock),
    }
    let client = reqwest::Client::builder()
        .resolve(host, address)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST_TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let response = client.get(url).send().await.map_err(|error| format!("no answer: {}", root(&error)))?;
    let status = response.status().as_u16();
    let mut hash = Sha256::new();
    let mut start = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| format!("the answer broke off: {}", root(&error)))?;
        hash.update(&chunk);
        if start.len() < SEARCHED {
            start.extend_from_slice(&chunk);
        }
    }
    Ok((status, hex::encode(&hash.finalize()), start))
}

/// The address of a name as the host's own programs find it: literal, `localhost` and below it always loopback
/// (RFC 6761 §6.3), the managed hosts file, then the system's resolver.
async fn address_of(ctx: &Context, host: &str) -> Result<IpAddr, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(address);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let hosts = ctx.fs.read(&ctx.hosts_file()).ok().flatten().unwrap_or_default();
    if let Some(address) = in_hosts(&String::from_utf8_lossy(&hosts), host) {
        return Ok(address);
    }
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|_| format!("the name {host} is not known"))?;
    found.map(|address| address.ip()).next().ok_or_else(|| format!("the name {host} has no address"))
}

fn in_hosts(text: &str, host: &str) -> Option<IpAddr> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then(|| address.parse().ok())?
    })
}

fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() && !line.starts_with('<') => {
            format!(" ({})", line.chars().take(80).collect::<String>())
        }
        _ => String::new(),
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_as_the_resolver_reads_it() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 s3www.test\n172.18.255.201\ts3www.test S3WWW.demo.test # ours\n";
        assert_eq!(in_hosts(text, "s3www.test"), Some("172.18.255.201".parse().unwrap()));
        assert_eq!(in_hosts(text, "s3www.demo.test"), Some("172.18.255.201".parse().unwrap()));
        assert_eq!(in_hosts(text, "other.test"), None);
    }
}
