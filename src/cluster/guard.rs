//! The context guard: an environment is bound to one cluster, and no verb touches another one, or takes it for gone
//! where it only looks into another engine.
//!
//! A cluster is known by the UID of its namespace `kube-system`, which lives exactly as long as the cluster does.
//! Names, contexts, addresses and ports may be given to another cluster; that UID is not.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::kubeconfig;
use crate::cluster::Provider;
use crate::ports::Kube;
use crate::ports::engine::{Container, EngineError};
use crate::ports::kube::{KubeError, ObjectKey};
use crate::step::{StepError, World, admin_kubeconfig};

/// Which cluster an environment is bound to. Part of the journal: fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The UID of the namespace `kube-system`.
    pub uid: String,
    /// The URL under which it was found.
    pub server: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.server, self.uid)
    }
}

impl Identity {
    /// Reads which cluster answers.
    ///
    /// # Errors
    /// What the server said; [`KubeError::Unreachable`] while it has no namespaces yet.
    pub async fn read(kube: &dyn Kube) -> Result<Self, KubeError> {
        let namespace = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            namespace: None,
            name: "kube-system".to_owned(),
        };
        let server = kube.server();
        let Some(found) = kube.get(&namespace).await? else {
            return Err(KubeError::Unreachable { server, reason: "it is still starting".to_owned() });
        };
        let uid = found.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { uid, server })
    }

    /// Refuses another cluster than the one that is expected.
    ///
    /// # Errors
    /// [`KubeError::OtherCluster`], which names both.
    pub fn expect(&self, expected: Option<&Self>) -> Result<(), KubeError> {
        match expected {
            Some(expected) if expected.uid != self.uid => {
                Err(KubeError::OtherCluster { found: self.to_string(), expected: expected.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// Refuses to take a cluster for gone that is in another engine than the one in use, which has no nodes of it: Docker's
/// context or `DOCKER_HOST` has changed since. Where no engine is recorded, there is none to be told from this one.
///
/// # Errors
/// [`EngineError::Another`], which names both; what the engine says.
pub async fn at_home(world: &World, nodes: &[Container]) -> Result<(), EngineError> {
    if world.provider != Provider::Kind || !nodes.is_empty() {
        return Ok(());
    }
    let Some(journal) = world.journal() else { return Ok(()) };
    let Some(made_in) = journal.opened().and_then(|opened| opened.engine) else { return Ok(()) };
    if !journal.pending().iter().any(|(_, undo)| undo.is_cluster()) {
        return Ok(());
    }
    let here = world.engine.info().await?.identity;
    match made_in.is(&here) {
        true => Ok(()),
        false => Err(EngineError::Another { endpoint: here.endpoint, made_in: made_in.endpoint }),
    }
}

/// Connects to the environment's cluster where there is one that answers, and refuses to go on where the one that
/// answers is another than the environment's. A cluster that does not answer is left to whoever needs it.
///
/// # Errors
/// [`KubeError::OtherCluster`], [`EngineError::Another`]; what the engine says.
pub async fn meet(world: &World) -> Result<(), StepError> {
    if world.provider.is_shared() {
        return match enter(world).await {
            Err(error @ KubeError::OtherCluster { .. }) => Err(error.into()),
            _ => Ok(()),
        };
    }
    if world.provider == Provider::Kind {
        // A cluster that is not there, or not complete, has nothing to be looked at.
        let nodes = world.nodes().await?;
        at_home(world, &nodes).await?;
        if !nodes.iter().any(|node| node.state == "running") {
            return Ok(());
        }
    }
    match world.reconnect().await {
        Ok(()) => return Ok(()),
        Err(error @ KubeError::OtherCluster { .. }) => return Err(error.into()),
        Err(_) if world.provider != Provider::Kind || world.identity().is_none() => return Ok(()),
        Err(_) => {}
    }
    // The nodes may be those of a cluster that somebody made anew under the reserved name: it has another port and
    // other certificates than the recorded kubeconfig says.
    let Ok(fresh) = admin_kubeconfig(world).await else { return Ok(()) };
    match world.connect(&fresh).await {
        Err(error @ KubeError::OtherCluster { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Connects to a cluster that devstack did not make: with the environment's own copy of the user's credentials, and
/// where they do not work any more, with those that the user's kubeconfig has now.
///
/// # Errors
/// What the first attempt said; [`KubeError::OtherCluster`] where either leads to another cluster.
pub async fn enter(world: &World) -> Result<(), KubeError> {
    let stale = match world.reconnect().await {
        Ok(()) => return Ok(()),
        Err(error @ KubeError::OtherCluster { .. }) => return Err(error),
        Err(error) => error,
    };
    // Without a binding nothing tells whether it is the right one.
    let context = world.journal().and_then(|journal| journal.opened()?.context);
    let (Some(context), Some(_)) = (context, world.identity()) else { return Err(stale) };
    let files = world.ctx.user_kubeconfigs();
    let fresh = kubeconfig::extract(&*world.ctx.fs, &files, Some(&context), &world.reserved_name());
    let Ok(fresh) = fresh else { return Err(stale) };
    match world.connect(&fresh.text).await {
        Err(error) if !matches!(error, KubeError::OtherCluster { .. }) => Err(stale),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use crate::ports::fake::FakeKube;
    use serde_json::json;

    fn system(uid: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}})
    }

    #[tokio::test]
    async fn another_cluster_is_refused_and_both_are_named() {
        let kube = FakeKube::default();
        assert!(matches!(Identity::read(&kube).await, Err(KubeError::Unreachable { .. })));
        kube.put(system("ignored"));
        let found = Identity::read(&kube).await.unwrap();
        found.expect(None).unwrap();
        found.expect(Some(&Identity { server: "https://elsewhere:6443".to_owned(), ..found.clone() })).unwrap();
        let expected = Identity { uid: "4711".to_owned(), server: "https://10.0.0.1:6443".to_owned() };
        let failure = Failure::from(found.expect(Some(&expected)).unwrap_err());
        assert_eq!(failure.exit.code(), 1);
        for part in ["https://fake:6443", &found.uid, "https://10.0.0.1:6443", "4711"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
}
