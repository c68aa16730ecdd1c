//! Which provider an `up` is about: what the command line says, what the environment was opened with.

use crate::cluster::Provider;
use crate::error::Failure;
use crate::journal::Opened;
use crate::up::Desired;

/// The provider of an environment.
///
/// # Errors
/// A usage failure where the command line contradicts itself or the environment.
pub(super) fn settle(environment: &str, desired: &Desired, opened: Option<&Opened>) -> Result<Provider, Failure> {
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
        (wanted, recorded) => wanted.or(recorded).unwrap_or_default(),
    };
    if provider == Provider::Existing && desired.nodes.is_some() {
        return Err(Failure::usage("--nodes is for clusters that devstack makes; this one has the nodes it has"));
    }
    Ok(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(provider: Option<Provider>, context: Option<&str>, recorded: Option<&str>) -> Result<Provider, String> {
        let desired = Desired { provider, context: context.map(str::to_owned), ..Desired::default() };
        let opened = recorded.map(|provider| Opened {
            version: 1,
            devstack: String::new(),
            environment: "demo".to_owned(),
            profile: "s3www".to_owned(),
            sets: Vec::new(),
            provider: provider.to_owned(),
            nodes: None,
            context: None,
            instance: None,
            ports: std::collections::BTreeMap::new(),
            at: String::new(),
        });
        settle("demo", &desired, opened.as_ref()).map_err(|failure| failure.message.clone())
    }

    #[test]
    fn an_environment_stays_where_it_is() {
        use Provider::{Existing, Kind};
        assert_eq!(settled(None, None, None), Ok(Kind));
        assert_eq!(settled(None, None, Some("existing")), Ok(Existing));
        assert_eq!(settled(Some(Existing), None, Some("existing")), Ok(Existing));
        assert_eq!(settled(None, Some("work"), None), Ok(Existing));
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
}
