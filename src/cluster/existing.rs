//! A cluster that devstack did not make: what is there and is used, read without changing anything.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::guard::Identity;
use crate::facts::{Common, NetworkPolicy, NodeFacts, common, read_labels};
use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::KubeError;

/// The annotations that make a class the cluster's default.
const DEFAULT_INGRESS: &str = "ingressclass.kubernetes.io/is-default-class";
const DEFAULT_STORAGE: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// A cluster that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// The context in the user's kubeconfig.
    pub context: String,
    /// A kubeconfig with that context alone, under the environment's reserved name.
    pub kubeconfig: String,
    /// Which cluster it is.
    pub identity: Identity,
    /// The server's version, such as `v1.34.4`.
    pub version: String,
    /// Its nodes, by what their objects say.
    pub nodes: Vec<NodeFacts>,
    /// What the nodes have in common.
    pub common: Common,
    /// The class of an ingress controller that is there and works.
    pub ingress_class: Option<String>,
    /// The class that volumes are of; `None` where there is none to take.
    pub storage_class: Option<String>,
    /// Whether Services of type LoadBalancer get an address: one of somebody else has one.
    pub balancer: bool,
    /// The images that every node has, as far as the nodes tell: the kubelet names the largest fifty.
    pub images: BTreeSet<String>,
    /// What of this is used, one line each, as a person reads it.
    pub adopted: Vec<String>,
}

impl Existing {
    /// Reads the cluster behind `kube`. What an environment of devstack's made is not taken for something that was there:
    /// it goes with its environment.
    ///
    /// # Errors
    /// What the server said; a cluster without nodes.
    pub async fn read(kube: &dyn Kube, context: &str, kubeconfig: &str) -> Result<Self, KubeError> {
        let foreign = |object: &Value| object["metadata"]["labels"][OWNER_LABEL].is_null();
        let (identity, version, nodes, daemons, classes, ingresses, storage, services) = futures::try_join!(
            Identity::read(kube),
            kube.version(),
            kube.list("v1", "Node", None, ""),
            kube.list("apps/v1", "DaemonSet", None, ""),
            kube.list("networking.k8s.io/v1", "IngressClass", None, ""),
            kube.list("networking.k8s.io/v1", "Ingress", None, ""),
            kube.list("storage.k8s.io/v1", "StorageClass", None, ""),
            kube.list("v1", "Service", None, ""),
        )?;
        let images = on_every(&nodes);
        let (network, network_policy) = NetworkPolicy::of_daemon_sets(&daemons);
        let nodes: Vec<NodeFacts> = nodes
            .iter()
            .map(|node| NodeFacts { network: network.clone(), network_policy, ..read_labels(node) })
            .collect();
        let odd = |reason: String| KubeError::Other { what: format!("use {}", kube.server()), reason };
        let common = match common(&nodes) {
            Ok(common) => common.ok_or_else(|| odd("it has no nodes".to_owned()))?,
            // Whether that matters depends on what the profile allows.
            Err(error) => Common { platform: None, level: None, why: Some(error.to_string()) },
        };
        let classes: Vec<Value> = classes.into_iter().filter(foreign).collect();
        let ingresses: Vec<Value> = ingresses.into_iter().filter(foreign).collect();
        let ingress = working_class(&classes, &ingresses);
        let storage_class = storage_class(&storage);
        let balancer = services.iter().filter(|service| foreign(service)).any(has_address);
        let mut adopted = Vec::new();
        if let Some((name, why)) = &ingress {
            adopted.push(format!("IngressClass {name}, {why}"));
        }
        adopted.extend(storage_class.iter().map(|name| format!("StorageClass {name}")));
        if balancer {
            adopted.push("the load balancer".to_owned());
        }
        Ok(Self {
            context: context.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            identity,
            version,
            nodes,
            common,
            ingress_class: ingress.map(|(name, _)| name),
            storage_class,
            balancer,
            images,
            adopted,
        })
    }
}

/// The images that all nodes name.
fn on_every(nodes: &[Value]) -> BTreeSet<String> {
    let named = nodes.iter().map(|node| {
        let images = node.pointer("/status/images").and_then(Value::as_array);
        let names = images.into_iter().flatten().filter_map(|image| image["names"].as_array()).flatten();
        names.filter_map(|name| name.as_str().map(str::to_owned)).collect::<BTreeSet<_>>()
    });
    named.reduce(|one, other| one.intersection(&other).cloned().collect()).unwrap_or_default()
}

fn name(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name").and_then(Value::as_str)
}

fn annotated(object: &Value, annotation: &str) -> bool {
    object["metadata"]["annotations"][annotation] == "true"
}

/// Whether a Service or an Ingress was given an address.
fn has_address(object: &Value) -> bool {
    let given = object.pointer("/status/loadBalancer/ingress/0");
    given.is_some_and(|given| given["ip"].is_string() || given["hostname"].is_string())
}

/// An ingress class whose controller is seen to work, or which the cluster's owner made the default one, and why it is
/// taken. A class alone proves nothing: it stays when its controller goes.
fn working_class(classes: &[Value], ingresses: &[Value]) -> Option<(String, &'static str)> {
    let mut names: Vec<&str> = classes.iter().filter_map(name).collect();
    names.sort_unstable();
    let default = classes.iter().filter(|class| annotated(class, DEFAULT_INGRESS)).filter_map(name).min();
    if let Some(default) = default {
        return Some((default.to_owned(), "the cluster's default"));
    }
    let serves = |class: &&&str| {
        ingresses.iter().any(|ingress| ingress["spec"]["ingressClassName"] == **class && has_address(ingress))
    };
    names.iter().find(serves).map(|class| ((*class).to_owned(), "whose controller gives addresses"))
}

/// The default class, else the only one.
fn storage_class(classes: &[Value]) -> Option<String> {
    let is_default = |class: &&Value| DEFAULT_STORAGE.iter().any(|annotation| annotated(class, annotation));
    let default = classes.iter().filter(is_default).filter_map(name).min();
    let only = if let [only] = classes { name(only) } else { None };
    default.or(only).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeKube;
    use serde_json::json;

    fn cluster() -> FakeKube {
        let kube = FakeKube::default();
        kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}));
        kube.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"kubernetes.io/arch": "amd64"}}}));
        kube
    }

    fn class(kind: &str, name: &str, annotation: Option<&str>, owner: Option<&str>) -> Value {
        let group = if kind == "StorageClass" { "storage.k8s.io/v1" } else { "networking.k8s.io/v1" };
        let mut object =
            json!({"apiVersion": group, "kind": kind, "metadata": {"name": name, "labels": {}, "annotations": {}}});
        if let Some(annotation) = annotation {
            object["metadata"]["annotations"][annotation] = json!("true");
        }
        if let Some(owner) = owner {
            object["metadata"]["labels"][OWNER_LABEL] = json!(owner);
        }
        object
    }

    async fn read(kube: &FakeKube) -> Existing {
        Existing::read(kube, "work", "text").await.unwrap()
    }

    #[tokio::test]
    async fn a_bare_cluster_offers_nothing_but_its_nodes() {
        let found = read(&cluster()).await;
        assert_eq!(
            (found.common.platform.as_deref(), found.common.level, found.nodes.len()),
            (Some("linux/amd64"), None, 1)
        );
        assert_eq!(found.nodes[0].network_policy, NetworkPolicy::Unknown);
        assert_eq!((found.ingress_class, found.storage_class, found.balancer), (None, None, false));
        assert!(found.adopted.is_empty());
    }

    #[tokio::test]
    async fn an_ingress_class_is_used_only_where_something_shows_that_it_works() {
        let kube = cluster();
        kube.put(class("IngressClass", "nginx", None, None));
        assert_eq!(read(&kube).await.ingress_class, None);
        kube.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "namespace": "n"},
            "spec": {"ingressClassName": "nginx"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}},
        }));
        assert_eq!(read(&kube).await.ingress_class.as_deref(), Some("nginx"));
        kube.put(class("IngressClass", "traefik", Some(DEFAULT_INGRESS), None));
        assert_eq!(read(&kube).await.adopted, ["IngressClass traefik, the cluster's default"]);
    }

    #[tokio::test]
    async fn what_the_environment_made_itself_is_not_adopted() {
        let kube = cluster();
        kube.put(class("IngressClass", "traefik", Some(DEFAULT_INGRESS), Some("demo")));
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n", "labels": {}},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}},
        });
        service["metadata"]["labels"][OWNER_LABEL] = json!("demo");
        kube.put(service.clone());
        assert_eq!(read(&kube).await.adopted, [""; 0]);
        service["metadata"]["labels"] = json!({});
        kube.put(service);
        assert!(read(&kube).await.balancer);
    }

    #[tokio::test]
    async fn volumes_are_of_the_default_class_or_the_only_one() {
        let kube = cluster();
        kube.put(class("StorageClass", "slow", None, None));
        assert_eq!(read(&kube).await.storage_class.as_deref(), Some("slow"));
        kube.put(class("StorageClass", "fast", None, None));
        assert_eq!(read(&kube).await.storage_class, None);
        kube.put(class("StorageClass", "best", Some(DEFAULT_STORAGE[0]), None));
        assert_eq!(read(&kube).await.storage_class.as_deref(), Some("best"));
    }

    #[tokio::test]
    async fn only_an_image_that_every_node_names_is_there() {
        let node = |name: &str, images: Value| {
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"kubernetes.io/arch": "amd64"}},
                "status": {"images": images},
            })
        };
        let kube = cluster();
        kube.put(node(
            "a",
            json!([{"names": ["r.example/a@sha256:1", "r.example/a:1"]}, {"names": ["r.example/b:1"]}]),
        ));
        kube.put(node("b", json!([{"names": ["r.example/a:1"]}, {}])));
        assert_eq!(read(&kube).await.images, BTreeSet::from(["r.example/a:1".to_owned()]));
        kube.put(node("c", json!(null)));
        assert!(read(&kube).await.images.is_empty());
    }

    #[tokio::test]
    async fn nodes_of_several_architectures_have_no_platform_in_common() {
        let kube = cluster();
        kube.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b", "labels": {"kubernetes.io/arch": "arm64"}}}));
        let common = read(&kube).await.common;
        let why = "the nodes have several architectures: amd64 (a), arm64 (b)".to_owned();
        assert_eq!(common, Common { platform: None, level: None, why: Some(why) });
    }
}
