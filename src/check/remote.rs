//! Whether the engine is on this machine.

use std::net::IpAddr;

use super::inputs::Inputs;
use super::model::{Finding, Severity};
use super::preflight::Outcome;
use super::rules::{either, engine, found, pass};

/// The ports that an engine publishes on its loopback address are only there on its own machine.
pub(super) fn engine_is_here(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        let (endpoint, name) = (engine.info.endpoint.as_str(), engine.info.name.as_str());
        let finding = |cause: &str| {
            let cause = format!("the engine {cause}: what it publishes on its loopback address does not lead here");
            Finding { cause, ..Finding::error("engine.remote", "").evidence(format!("{name} at {endpoint}")) }
        };
        if is_elsewhere(endpoint) {
            return found(
                finding("is on another machine")
                    .remedy("run devstack on the machine of the engine")
                    .remedy("an engine of this machine: docker context use default, or unset DOCKER_HOST"),
            );
        }
        if inputs.host.is_container() && !engine.shares_host_kernel {
            let finding = finding("may be outside of this container");
            return found(
                Finding { severity: Severity::Warning, ..finding }
                    .remedy("give this container the network of its host: docker run --network host")
                    .remedy("or an engine of its own: docker-in-docker"),
            );
        }
        pass(name)
    }))
}

/// Whether an endpoint names another machine than this one. A socket that leads there by other means is not seen.
fn is_elsewhere(endpoint: &str) -> bool {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return false };
    if matches!(scheme, "unix" | "npipe") {
        return false;
    }
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let loopback = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    !(loopback || name.is_empty() || name == "localhost" || name == "host.docker.internal")
}
