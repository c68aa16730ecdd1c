//! What a profile may ask of its cluster (`${facts.…}`), by provider.

use serde_json::{Value, json};

use crate::cluster::Provider;
use crate::cluster::existing::Existing;

/// What is known of the cluster before it is there, or of one that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFacts {
    provider: Provider,
    /// Whether addresses of the environment's own network can be dialled from the host.
    reachable: bool,
    architecture: Option<String>,
    /// Whether Services of type LoadBalancer get an address; on a cluster of devstack's own, if a component gives them.
    balancer: bool,
    storage_class: String,
    /// An ingress controller that is there and is used.
    ingress_class: Option<String>,
    /// Whether nobody has looked yet.
    guessed: bool,
}

/// The StorageClass of kind's and minikube's clusters.
const OWN_STORAGE: &str = "standard";

/// The IngressClass of devstack's own controller.
const OWN_INGRESS: &str = "traefik";

impl ClusterFacts {
    /// A cluster of devstack's own. `reachable`: addresses of its network can be dialled from the host, so that a load
    /// balancer in it is of use.
    pub fn own(provider: Provider, reachable: bool, architecture: Option<String>) -> Self {
        let reachable = reachable && provider == Provider::Kind;
        Self {
            provider,
            reachable,
            architecture,
            balancer: reachable,
            storage_class: OWN_STORAGE.to_owned(),
            ingress_class: None,
            guessed: false,
        }
    }

    /// What is taken for granted before the machine is looked at.
    pub fn guess() -> Self {
        Self { guessed: true, ..Self::own(Provider::Kind, false, None) }
    }

    /// Whether they are no more than a guess.
    pub fn is_guess(&self) -> bool {
        self.guessed
    }

    /// A cluster that is there.
    pub fn existing(found: &Existing) -> Self {
        Self {
            provider: Provider::Existing,
            reachable: false,
            architecture: found.common.platform.clone(),
            balancer: found.balancer,
            storage_class: found.storage_class.clone().unwrap_or_default(),
            ingress_class: found.ingress_class.clone(),
            guessed: false,
        }
    }

    /// As profiles read it.
    pub fn to_value(&self) -> Value {
        let shared = self.provider.is_shared();
        // The way in ends on the control plane of a cluster of kind's; elsewhere no host port is taken.
        let published = self.provider == Provider::Kind;
        let ingress = json!({
            "install": self.ingress_class.is_none(),
            "class": self.ingress_class.as_deref().unwrap_or(OWN_INGRESS),
            "default": if shared { "false" } else { "true" },
            "httpPort": if published { 80 } else { 0 },
            "httpsPort": if published { 443 } else { 0 },
            "nodes": if published { json!({"node-role.kubernetes.io/control-plane": ""}) } else { json!({}) },
            "service": if published { "ClusterIP" } else { "NodePort" },
        });
        let provided = [("ingress", self.ingress_class.is_some()), ("load-balancer", shared && self.balancer)];
        let provides: Vec<&str> = provided.iter().filter(|(_, is)| *is).map(|(ability, _)| *ability).collect();
        json!({
            "provider": self.provider.as_str(),
            "shared": shared,
            "reachable": self.reachable,
            "architecture": self.architecture,
            "loadBalancer": self.balancer,
            "storageClass": self.storage_class,
            "ingress": ingress,
            "provides": provides,
        })
    }
}
