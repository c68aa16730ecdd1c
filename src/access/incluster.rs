//! Requests to a service inside the cluster, over a port-forward to one of its pods.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::kube::ready::serves;
use crate::ports::Kube;
use crate::ports::kube::ObjectKey;

/// The domain of services, as clusters of kind and minikube have it.
pub const DOMAIN: &str = ".svc.cluster.local";

/// How long an answer may take, its body included.
const ANSWER: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The pod that answered, with its address where it has one.
    pub pod: String,
    /// Its address.
    pub address: Option<IpAddr>,
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Asks `http://SERVICE.NAMESPACE.svc.cluster.local[:PORT]/PATH`.
///
/// # Errors
/// Where the chain service → pod → port → answer broke, in one line.
pub async fn get(kube: &dyn Kube, url: &url::Url) -> Result<Answer, String> {
    let host = url.host_str().unwrap_or_default();
    let name = host.strip_suffix(DOMAIN).and_then(|name| name.split_once('.'));
    let (service, namespace) = name.ok_or_else(|| format!("{host} names no service"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let key = ObjectKey {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        namespace: Some(namespace.to_owned()),
        name: service.to_owned(),
    };
    let found = kube.get(&key).await.map_err(|error| error.to_string())?;
    let found = found.ok_or_else(|| format!("there is no service {namespace}/{service}"))?;
    let target = target_port(&found, port).ok_or_else(|| format!("{namespace}/{service} has no port {port}"))?;
    let selector = found.pointer("/spec/selector").and_then(Value::as_object).map(|labels| {
        let pairs = labels.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
        pairs.collect::<Vec<_>>().join(",")
    });
    let selector = selector.ok_or_else(|| format!("{namespace}/{service} selects no pods"))?;
    let pods = kube.list("v1", "Pod", Some(namespace), &selector).await.map_err(|error| error.to_string())?;
    let pod = pods.iter().find(|pod| serves(pod)).ok_or_else(|| format!("no pod of {namespace}/{service} is ready"))?;
    let pod_name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let target = match target {
        Target::Number(number) => number,
        Target::Name(name) => {
            container_port(pod, &name).ok_or_else(|| format!("pod {namespace}/{pod_name} has no port {name}"))?
        }
    };
    let stream = kube.port_forward(namespace, pod_name, target).await.map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(ANSWER, request(stream, host, url)).await;
    let (status, body) =
        answer.map_err(|_| format!("{namespace}/{pod_name} did not answer within {} s", ANSWER.as_secs()))??;
    let address = pod.pointer("/status/podIP").and_then(|address| address.as_str()?.parse().ok());
    Ok(Answer { pod: format!("{namespace}/{pod_name}"), address, status, body })
}

async fn request(
    stream: Box<dyn crate::ports::kube::Duplex>,
    host: &str,
    url: &url::Url,
) -> Result<(u16, Bytes), String> {
    let broke = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    tokio::spawn(async move {
        // A broken connection shows in the request.
        let _ = connection.await;
    });
    let target = &url[url::Position::BeforePath..];
    let request = Request::get(target).header(http::header::HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(broke)?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await.map_err(broke)?.to_bytes()))
}

enum Target {
    Number(u16),
    Name(String),
}

fn target_port(service: &Value, port: u16) -> Option<Target> {
    let ports = service.pointer("/spec/ports")?.as_array()?;
    let entry = ports.iter().find(|entry| entry["port"] == port)?;
    Some(match entry.get("targetPort") {
        Some(Value::String(name)) => Target::Name(name.clone()),
        Some(Value::Number(number)) => Target::Number(u16::try_from(number.as_u64()?).ok()?),
        _ => Target::Number(port),
    })
}

fn container_port(pod: &Value, name: &str) -> Option<u16> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let ports = containers.iter().filter_map(|container| container.get("ports")?.as_array()).flatten();
    let number = ports.filter(|port| port["name"] == name).find_map(|port| port["containerPort"].as_u64())?;
    u16::try_from(number).ok()
}
