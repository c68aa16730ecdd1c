//! Where connections to Services lead until kube-proxy has made the ways that stay.
//!
//! Whatever starts with its node, before kube-proxy, dials Services that nothing in the node knows: its packets leave the
//! node. Where they are lost, a client waits; one of Go's gives up after thirty seconds. CoreDNS dials the API server so,
//! and all that asks it waits as long; others crash and sit out their back-off. Where a gateway answers for every
//! address, as transparent proxies do, a client that keeps its connection talks to a stranger for good.

use crate::ports::Engine;
use crate::ports::engine::{Container, EngineError};

/// The addresses of Services; kind's own default.
pub const SERVICE_SUBNET: &str = "10.96.0.0/16";

/// The address of the Service `kubernetes`: the first of [`SERVICE_SUBNET`].
const API: &str = "10.96.0.1";

/// The chain in each node's table `nat`. kube-proxy puts its own before it, and from then on nothing comes here.
const WAY: &str = "DEVSTACK-API";

/// The chain in each node's table `filter`: what still has a Service's address there was led nowhere.
const NO_WAY: &str = "DEVSTACK-SERVICES";

/// Leads connections to the Service `kubernetes` to the control plane and refuses those to Services that nothing leads
/// anywhere yet, in every node that does not do so already. A node that was started anew has empty tables.
///
/// # Errors
/// What the engine answers. A node without iptables does without: its pods ask where nobody, or a stranger, answers.
pub async fn build(engine: &dyn Engine, nodes: &[Container], control_plane: &str) -> Result<(), EngineError> {
    let server = nodes.iter().find(|node| node.name == control_plane).and_then(|node| node.addresses.values().next());
    let Some(server) = server.filter(|address| address.is_ipv4()) else { return Ok(()) };
    let rules = format!(
        "*nat\n:{WAY} - [0:0]\n-A {WAY} -d {API}/32 -p tcp --dport 443 -j DNAT --to-destination {server}:6443\n\
         -A PREROUTING -j {WAY}\n-A OUTPUT -j {WAY}\nCOMMIT\n\
         *filter\n:{NO_WAY} - [0:0]\n-A {NO_WAY} -d {SERVICE_SUBNET} -j REJECT --reject-with icmp-port-unreachable\n\
         -A FORWARD -j {NO_WAY}\n-A OUTPUT -j {NO_WAY}\nCOMMIT\n"
    );
    let built = nodes.iter().map(|node| async {
        let known = engine.exec(&node.id, &["iptables", "-w", "-C", "OUTPUT", "-j", NO_WAY], None).await?;
        if known.status != 0 {
            let rules = futures::stream::iter([Ok(rules.clone().into())]);
            engine.exec(&node.id, &["iptables-restore", "-w", "--noflush"], Some(Box::pin(rules))).await?;
        }
        Ok::<_, EngineError>(())
    });
    futures::future::try_join_all(built).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::ports::engine::ExecOutput;
    use crate::ports::fake::FakeEngine;

    /// The rules that two nodes get, of which `known` is what looking for them ends with.
    async fn rules(known: i64, control_plane: &str) -> Vec<String> {
        let engine = FakeEngine::default();
        let sent: Arc<Mutex<Vec<String>>> = Arc::default();
        engine.on_exec(&["iptables"], move |_, _, _| ExecOutput { status: known, ..ExecOutput::default() });
        let rules = sent.clone();
        engine.on_exec(&["iptables-restore"], move |_, _, input| {
            rules.lock().unwrap().push(String::from_utf8_lossy(input).into_owned());
            ExecOutput::default()
        });
        engine.create_network("n", &std::collections::BTreeMap::new()).await.unwrap();
        engine.add_kind_node("c", 0, "n", &[]);
        engine.add_kind_node("c", 1, "n", &[]);
        let nodes = engine.containers(None).await.unwrap();
        build(&engine, &nodes, control_plane).await.unwrap();
        let sent = sent.lock().unwrap().clone();
        let server = nodes.iter().find(|node| node.name == "c-control-plane").unwrap().addresses["n"];
        sent.into_iter().map(|rules| rules.replace(&server.to_string(), "SERVER")).collect()
    }

    #[tokio::test]
    async fn every_node_that_has_no_way_gets_one_to_the_control_plane() {
        let rules = rules(1, "c-control-plane").await;
        assert_eq!(rules.len(), 2);
        let way = "-d 10.96.0.1/32 -p tcp --dport 443 -j DNAT --to-destination SERVER:6443\n";
        let no_way = "-d 10.96.0.0/16 -j REJECT --reject-with icmp-port-unreachable\n";
        assert!(rules.iter().all(|rules| rules.contains(way) && rules.contains(no_way)), "{rules:?}");
    }

    #[tokio::test]
    async fn a_way_that_is_there_is_left() {
        assert!(rules(0, "c-control-plane").await.is_empty());
        assert!(rules(1, "nobody").await.is_empty(), "there is nothing to lead to");
    }
}
