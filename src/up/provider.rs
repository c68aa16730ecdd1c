//! Which provider an `up` is about: what the command line says, what the environment was opened with.

use crate::cluster::{Provider, minikube};
use crate::context::Context;
use crate::error::Failure;
use crate::journal::Opened;
use crate::ports::Engine;
use crate::ports::engine::EngineError;
use crate::up::Desired;

/// The provider of an environment; `None` where neither the command line nor the environment says one.
///
/// # Errors
/// A usage failure where the command line contradicts itself or the environment.
pub(super) fn settle(
    environment: &str,
    desired: &Desired,
    opened: Option<&Opened>,
) -> Result<Option<Provider>, Failure> {
    let wanted = match (desired.provider, &desired.context) {
        (None, Some(_)) => Some(Provider::Existing),
        (Some(provider), Some(_)) if provider != Provider::Existing => {
            return Err(Failure::usage(format!("--context chooses a cluster that is there, and {provider} makes one"))
                .hint("--provider existing --context CONTEXT"));
        }
        (wanted, _) => wanted,
    };
    let recorded = opened.and_then(|opened| opened.provider.parse::<Provider>().ok());
    let provider = match (wanted, recorded) {
        (Some(wanted), Some(recorded)) if wanted != recorded => {
            return Err(Failure::usage(format!("the environment {environment} is on {recorded}, not on {wanted}"))
                .hint(format!("devstack down --env {environment}, or another --env")));
        }
        (wanted, recorded) => wanted.or(recorded),
    };
    if desired.driver.is_some() && provider != Some(Provider::Minikube) {
        return Err(Failure::usage("--driver is minikube's").hint("--provider minikube --driver DRIVER"));
    }
    if provider == Some(Provider::Existing) && desired.nodes.is_some() {
        return Err(Failure::usage("--nodes is for clusters that devstack makes; this one has the nodes it has"));
    }
    Ok(provider)
}

/// Chooses a provider where nobody did, and says why: kind where an engine answers, else minikube where it is
/// installed.
///
/// # Errors
/// There is neither; an engine that is there and refuses this account, which is to be told and not to be got round.
pub(super) async fn auto(ctx: &Context, engine: &dyn Engine) -> Result<Provider, Failure> {
    let error = match engine.info().await {
        Ok(info) => {
            ctx.events.note(format!("provider kind: an engine answers at {}", info.endpoint));
            return Ok(Provider::Kind);
        }
        Err(error) => error,
    };
    if matches!(error, EngineError::Permission { .. }) {
        return Err(error.into());
    }
    match minikube::on_path(ctx.vars.get("PATH")) {
        Some(program) => {
            ctx.events.note(format!("provider minikube: no engine answers, and there is {}", program.display()));
            Ok(Provider::Minikube)
        }
        None => {
            Err(Failure::from(error)
                .hint("in a cluster that is there: devstack up --provider existing --context CONTEXT"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Vars;
    use crate::event::EventSink;
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs};

    fn settled(
        provider: Option<Provider>,
        context: Option<&str>,
        recorded: Option<&str>,
    ) -> Result<Option<Provider>, String> {
        let desired = Desired { provider, context: context.map(str::to_owned), ..Desired::default() };
        let opened = recorded.map(|provider| Opened { provider: provider.to_owned(), ..Opened::default() });
        settle("demo", &desired, opened.as_ref()).map_err(|failure| failure.message.clone())
    }

    #[test]
    fn an_environment_stays_where_it_is() {
        use Provider::{Existing, Kind};
        assert_eq!(settled(None, None, None), Ok(None));
        assert_eq!(settled(None, None, Some("existing")), Ok(Some(Existing)));
        assert_eq!(settled(Some(Existing), None, Some("existing")), Ok(Some(Existing)));
        assert_eq!(settled(None, Some("work"), None), Ok(Some(Existing)));
        assert!(settled(Some(Kind), Some("work"), None).unwrap_err().starts_with("--context chooses"));
        let moved = settled(Some(Existing), None, Some("kind")).unwrap_err();
        assert_eq!(moved, "the environment demo is on kind, not on existing");
        assert!(settled(None, Some("work"), Some("kind")).is_err());
    }

    #[test]
    fn nodes_are_not_made_in_a_cluster_that_is_there() {
        let desired = Desired { provider: Some(Provider::Existing), nodes: Some(2), ..Desired::default() };
        assert_eq!(settle("demo", &desired, None).unwrap_err().exit.code(), 2);
    }

    #[test]
    fn a_driver_is_for_minikube() {
        let desired = |provider| Desired { provider, driver: Some("kvm2".to_owned()), ..Desired::default() };
        assert_eq!(settle("demo", &desired(Some(Provider::Minikube)), None).unwrap(), Some(Provider::Minikube));
        assert_eq!(settle("demo", &desired(None), None).unwrap_err().exit.code(), 2);
    }

    #[tokio::test]
    async fn what_is_there_decides_and_is_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let bin = tempfile::tempdir().unwrap();
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let sink = told.clone();
        ctx.events = EventSink::new(move |event| sink.lock().unwrap().push(format!("{event:?}")));
        ctx.vars = Vars::from([("PATH", bin.path().to_str().unwrap())]);
        let engine = FakeEngine::default();
        assert_eq!(auto(&ctx, &engine).await.unwrap(), Provider::Kind);
        assert!(told.lock().unwrap()[0].contains("an engine answers"));
        engine.set_down(true);
        let failure = auto(&ctx, &engine).await.unwrap_err();
        assert!(format!("{failure:?}").contains("--provider existing --context"), "{failure:?}");
        let program = bin.path().join("minikube");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(auto(&ctx, &engine).await.unwrap(), Provider::Minikube);
        assert!(told.lock().unwrap()[1].contains("no engine answers"));
    }
}
