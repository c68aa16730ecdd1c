//! Which loopback ports the ingress is published on: 80 and 443 where free and permitted, else 8080 and 8443, else
//! the next pair that is free.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::error::{Advise, ExitCode};
use crate::facts::{EngineFacts, EngineKind, Facts};

/// The pair that a browser needs no port for.
const LOW: (u16, u16) = (80, 443);

/// The first pair that needs no privilege; the next ones are 8081 and 8444, and so on.
const HIGH: (u16, u16) = (8080, 8443);

/// How many pairs are tried from [`HIGH`] on.
const PAIRS: u16 = 100;

/// What a look at a port says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// This account can listen there.
    Free,
    /// This account may not listen there, and nobody else does; the engine may.
    Denied,
    /// Somebody listens there.
    Busy,
}

/// No pair of ports is free.
#[derive(Debug, thiserror::Error)]
#[error(
    "no pair of loopback ports is free: neither {}/{} nor any from {}/{} to {}/{}",
    LOW.0, LOW.1, HIGH.0, HIGH.1, HIGH.0 + PAIRS - 1, HIGH.1 + PAIRS - 1
)]
pub struct PortsError;

impl Advise for PortsError {
    fn hint(&self) -> Option<String> {
        Some("see who listens: ss -ltnp (Linux), lsof -iTCP -sTCP:LISTEN (macOS)".to_owned())
    }

    fn exit(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// The first pair of ports that is free on `127.0.0.1`.
///
/// # Errors
/// None is.
pub fn choose(facts: &Facts) -> Result<(u16, u16), PortsError> {
    let privileged = facts.engine.as_ref().is_some_and(binds_low_ports);
    pick(privileged, &probe).ok_or(PortsError)
}

/// Whether the engine itself may publish ports below 1024: a rootful one on this host's kernel, and those that bring
/// a privileged forwarder with them.
fn binds_low_ports(engine: &EngineFacts) -> bool {
    !engine.rootless
        && match engine.kind {
            EngineKind::DockerDesktop | EngineKind::OrbStack => true,
            EngineKind::DockerEngine => engine.shares_host_kernel,
            _ => false,
        }
}

/// The first usable pair; `privileged` says whether ports below 1024 can be published at all.
pub fn pick(privileged: bool, probe: &dyn Fn(u16) -> Probe) -> Option<(u16, u16)> {
    let low = |port| probe(port) != Probe::Busy;
    if privileged && low(LOW.0) && low(LOW.1) {
        return Some(LOW);
    }
    let free = |port| probe(port) == Probe::Free;
    (0..PAIRS).map(|step| (HIGH.0 + step, HIGH.1 + step)).find(|&(http, https)| free(http) && free(https))
}

/// Looks at a port of `127.0.0.1`: somebody may answer there although binding works (a wildcard listener on macOS, a
/// forwarder of WSL2), so both are tried.
pub fn probe(port: u16) -> Probe {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
        return Probe::Busy;
    }
    match TcpListener::bind(address) {
        Ok(_) => Probe::Free,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Probe::Denied,
        Err(_) => Probe::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_tried_in_order() {
        let with = |busy: &'static [u16], denied: &'static [u16]| {
            move |port: u16| match port {
                _ if busy.contains(&port) => Probe::Busy,
                _ if denied.contains(&port) => Probe::Denied,
                _ => Probe::Free,
            }
        };
        type Case = (bool, &'static [u16], &'static [u16], (u16, u16));
        let table: [Case; 7] = [
            (true, &[], &[], (80, 443)),
            (true, &[], &[80, 443], (80, 443)),
            (false, &[], &[], (8080, 8443)),
            (true, &[443], &[], (8080, 8443)),
            (true, &[80], &[], (8080, 8443)),
            (false, &[8080], &[], (8081, 8444)),
            (false, &[8080, 8444], &[8082], (8083, 8446)),
        ];
        for (privileged, busy, denied, expected) in table {
            assert_eq!(pick(privileged, &with(busy, denied)), Some(expected), "{busy:?} {denied:?}");
        }
        assert_eq!(pick(true, &|_| Probe::Busy), None);
    }

    #[test]
    fn only_engines_that_can_get_low_ports() {
        let engine = |kind, rootless, shares_host_kernel| {
            binds_low_ports(&EngineFacts { kind, rootless, shares_host_kernel, ..EngineFacts::default() })
        };
        assert!(engine(EngineKind::DockerEngine, false, true));
        assert!(!engine(EngineKind::DockerEngine, true, true));
        assert!(!engine(EngineKind::DockerEngine, false, false));
        assert!(engine(EngineKind::DockerDesktop, false, false));
        assert!(!engine(EngineKind::Colima, false, false));
    }

    #[test]
    fn a_listener_makes_a_port_busy() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(probe(listener.local_addr().unwrap().port()), Probe::Busy);
        let wildcard = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert_eq!(probe(wildcard.local_addr().unwrap().port()), Probe::Busy);
    }

    #[test]
    fn the_error_names_what_was_tried() {
        insta::assert_snapshot!(PortsError, @"no pair of loopback ports is free: neither 80/443 nor any from 8080/8443 to 8179/8542");
    }
}
