//! The way from this host to an ingress that no loopback port leads to.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::executor::Run;
use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::{KubeError, ObjectKey};
use crate::step::{Applied, StepError};

/// How long a controller may take to give an address.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an address that is there may take to let a connection in, before it counts as out of reach.
const SETTLE: Duration = Duration::from_secs(10);

/// How long one attempt to connect may take.
const DIAL: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(500);

/// Finds an address and port of the ingress that this host can connect to.
#[derive(Debug, Clone)]
pub struct ReachStep {
    /// The Service of devstack's own ingress controller, as `namespace/name`; `None` where the cluster's own is used,
    /// which puts its address on the Ingresses.
    pub service: Option<String>,
    /// What an earlier `up` found.
    pub before: Value,
}

/// A place that may lead to the ingress, and what it is.
type Place = (SocketAddr, String);

impl ReachStep {
    /// Gives `ingress` and `port`, or `unreachable` with the reason: then no URL can be fetched from this host, and the
    /// proof goes through the API server.
    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let kube = run.world.kube()?;
        let patience = run.ctx.options.timeout.unwrap_or(PATIENCE);
        let began = Instant::now();
        let mut seen: Option<Instant> = None;
        let (outputs, detail) = loop {
            let places = match self.places(&*kube, &run.world.environment).await {
                Ok(places) => places,
                Err(error) if error.is_transient() => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let places = self.known_first(places);
            if let Some((address, what)) = first_open(&places).await {
                let outputs = json!({"ingress": address.ip().to_string(), "port": address.port(), "by": what});
                break (outputs, format!("{address}, {what}"));
            }
            if !places.is_empty() {
                seen.get_or_insert_with(Instant::now);
            }
            if seen.is_some_and(|seen| seen.elapsed() > SETTLE.min(patience)) || began.elapsed() > patience {
                let tried: Vec<String> = places.iter().map(|(address, what)| format!("{address} ({what})")).collect();
                let reason = if tried.is_empty() {
                    "the ingress was given no address".to_owned()
                } else {
                    format!("this host cannot connect to {}", tried.join(", "))
                };
                break (json!({"unreachable": reason}), reason);
            }
            run.waiting(id, "the address of the ingress");
            run.ctx.clock.sleep(POLL).await;
        };
        let changed = outputs != self.before;
        Ok(Applied { detail, outputs, changed })
    }

    /// The place that an earlier `up` found comes first, so that names do not move without a reason.
    fn known_first(&self, mut places: Vec<Place>) -> Vec<Place> {
        places.sort_by_key(|(address, _)| self.before["ingress"] != address.ip().to_string());
        places
    }

    async fn places(&self, kube: &dyn Kube, environment: &str) -> Result<Vec<Place>, KubeError> {
        let Some((namespace, name)) = self.service.as_deref().and_then(|service| service.split_once('/')) else {
            let own = format!("{OWNER_LABEL}={environment}");
            let ingresses = kube.list("networking.k8s.io/v1", "Ingress", None, &own).await?;
            let mut places = Vec::new();
            for ingress in &ingresses {
                places.extend(given(ingress).await.into_iter().map(|ip| at(ip, 80, "the cluster's ingress")));
            }
            return Ok(places);
        };
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        };
        let Some(service) = kube.get(&key).await? else { return Ok(Vec::new()) };
        let nodes = kube.list("v1", "Node", None, "").await?;
        Ok(places_of(&service, &given(&service).await, &nodes))
    }
}

/// Where a Service can be: its LoadBalancer's addresses, then its node port on each node, addresses that are meant for
/// the outside first.
fn places_of(service: &Value, given: &[IpAddr], nodes: &[Value]) -> Vec<Place> {
    let mut places: Vec<Place> = given.iter().map(|ip| at(*ip, 80, "load balancer")).collect();
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let web = ports.into_iter().flatten().find(|port| port["port"] == 80);
    let node_port = web.and_then(|port| u16::try_from(port["nodePort"].as_u64()?).ok());
    if let Some(port) = node_port {
        for kind in ["ExternalIP", "InternalIP"] {
            let addresses = nodes.iter().filter_map(|node| node.pointer("/status/addresses")?.as_array()).flatten();
            let of_kind = addresses.filter(|address| address["type"] == kind);
            let ips = of_kind.filter_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok());
            places.extend(ips.map(|ip| at(ip, port, "node port")));
        }
    }
    places
}

fn at(ip: IpAddr, port: u16, what: &str) -> Place {
    (SocketAddr::new(ip, port), what.to_owned())
}

/// The addresses that a Service or an Ingress was given. Some load balancers have a name, whose address may change; one
/// that this host does not know counts for nothing.
async fn given(object: &Value) -> Vec<IpAddr> {
    let given = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    let mut addresses = Vec::new();
    for one in given.into_iter().flatten() {
        match (one["ip"].as_str().and_then(|ip| ip.parse().ok()), one["hostname"].as_str()) {
            (Some(address), _) => addresses.push(address),
            (None, Some(name)) => {
                let found = tokio::net::lookup_host((name, 80)).await;
                addresses.extend(found.into_iter().flatten().map(|address| address.ip()).find(IpAddr::is_ipv4));
            }
            (None, None) => {}
        }
    }
    addresses
}

async fn first_open(places: &[Place]) -> Option<Place> {
    for place in places {
        if let Ok(Ok(_)) = tokio::time::timeout(DIAL, tokio::net::TcpStream::connect(place.0)).await {
            return Some(place.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_load_balancer_comes_before_nodes_and_outside_addresses_before_inner_ones() {
        let service = json!({
            "spec": {"ports": [{"port": 443, "nodePort": 30443}, {"port": 80, "nodePort": 30080}]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb.invalid"}, {"ip": "10.0.0.9"}]}},
        });
        let node = |address: &str, kind: &str| json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": kind, "address": address}]}});
        let nodes = [node("172.18.0.2", "InternalIP"), node("203.0.113.7", "ExternalIP")];
        let places: Vec<String> = places_of(&service, &given(&service).await, &nodes)
            .into_iter()
            .map(|(at, what)| format!("{at} {what}"))
            .collect();
        assert_eq!(places, ["10.0.0.9:80 load balancer", "203.0.113.7:30080 node port", "172.18.0.2:30080 node port"]);
        assert!(places_of(&json!({"spec": {"ports": [{"port": 80}]}}), &[], &nodes).is_empty());
    }

    #[tokio::test]
    async fn only_a_place_that_lets_connections_in_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let places = [(closed, "closed".to_owned()), (open, "open".to_owned())];
        assert_eq!(first_open(&places).await.unwrap().0, open);
        assert!(first_open(&places[..1]).await.is_none());
    }
}
