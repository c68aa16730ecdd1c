//! Which loopback ports the ingress is published on: 80 and 443 where free and permitted, else 8080 and 8443, else
//! the next pair that is free.
//!
//! A port is free long after an `up` chose it: nobody listens there before kind has made the control plane. So that
//! two `up`s at a time do not choose the same pair, each reserves its own for as long as it runs (see [`Reservation`]).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
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

/// A pair of ports that no other `up` on this machine chooses as long as this lives.
///
/// The mark is a UDP socket on the port's number, which nothing else of devstack uses: the kernel gives it to one
/// process only, whatever account and state directory it works with, takes it back when the process ends, also by a
/// kill, and leaves no trace of it. TCP ports are another space, so that the engine can publish the port meanwhile.
#[derive(Debug)]
pub struct Reservation {
    /// The ports: HTTP and HTTPS.
    pub ports: (u16, u16),
    _marks: [UdpSocket; 2],
}

impl Reservation {
    /// Reserves a pair; `None` where somebody else has it.
    fn take(ports: (u16, u16)) -> Option<Self> {
        Some(Self { ports, _marks: [mark(ports.0)?, mark(ports.1)?] })
    }
}

/// Where the mark of a port below 1024 is, which an ordinary account cannot bind.
const LOW_MARKS: u16 = 64_000;

fn mark(port: u16) -> Option<UdpSocket> {
    let port = if port < 1024 { LOW_MARKS + port } else { port };
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// Reserves the first pair of ports that is free on `127.0.0.1`, is reserved by no other `up` and is not in `taken`:
/// what environments have that do not run now.
///
/// # Errors
/// There is none.
pub fn choose(facts: &Facts, taken: &BTreeSet<u16>) -> Result<Reservation, PortsError> {
    let privileged = facts.engine.as_ref().is_some_and(binds_low_ports);
    let look = |port| if taken.contains(&port) { Probe::Busy } else { probe(port) };
    pick(privileged, &look, Reservation::take).ok_or(PortsError)
}

/// Reserves a pair that is known already, such as that of an earlier `up`; `None` where it is not free any more.
pub fn keep(facts: &Facts, ports: (u16, u16)) -> Option<Reservation> {
    let reservation = Reservation::take(ports)?;
    let privileged = facts.engine.as_ref().is_some_and(binds_low_ports);
    let usable = |port| match probe(port) {
        Probe::Free => true,
        Probe::Denied => privileged,
        Probe::Busy => false,
    };
    (usable(ports.0) && usable(ports.1)).then_some(reservation)
}

/// Whether the engine itself may publish ports below 1024: a rootful one on this host's kernel, and those that bring
/// a privileged forwarder with them.
pub(crate) fn binds_low_ports(engine: &EngineFacts) -> bool {
    !engine.rootless
        && match engine.kind {
            EngineKind::DockerDesktop | EngineKind::OrbStack => true,
            EngineKind::DockerEngine => engine.shares_host_kernel,
            _ => false,
        }
}

/// What `reserve` gives for the first usable pair; `privileged` says whether ports below 1024 can be published at all.
///
/// A pair is reserved before it is looked at: an `up` that gives a pair free has published it by then.
pub fn pick<T>(privileged: bool, probe: &dyn Fn(u16) -> Probe, reserve: impl Fn((u16, u16)) -> Option<T>) -> Option<T> {
    let low = |port| probe(port) != Probe::Busy;
    let free = |port| probe(port) == Probe::Free;
    let pair = |ports: (u16, u16), usable: &dyn Fn(u16) -> bool| {
        let reserved = reserve(ports)?;
        (usable(ports.0) && usable(ports.1)).then_some(reserved)
    };
    let high = || (0..PAIRS).find_map(|step| pair((HIGH.0 + step, HIGH.1 + step), &free));
    privileged.then(|| pair(LOW, &low)).flatten().or_else(high)
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
            assert_eq!(pick(privileged, &with(busy, denied), Some), Some(expected), "{busy:?} {denied:?}");
        }
        assert_eq!(pick(true, &|_| Probe::Busy, Some), None);
        let reserved = |ports| (ports != LOW && ports != HIGH).then_some(ports);
        assert_eq!(pick(true, &with(&[], &[]), reserved), Some((8081, 8444)));
    }

    #[test]
    fn those_that_choose_at_the_same_moment_get_different_pairs() {
        let start = std::sync::Barrier::new(8);
        let choose_now = || {
            start.wait();
            choose(&Facts::default(), &BTreeSet::new()).unwrap()
        };
        let chosen: Vec<Reservation> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(choose_now)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let pairs: BTreeSet<(u16, u16)> = chosen.iter().map(|one| one.ports).collect();
        assert_eq!(pairs.len(), 8, "{pairs:?}");
    }

    #[test]
    fn a_pair_is_free_again_when_its_up_has_ended_and_nobody_listens_there() {
        let facts = Facts::default();
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let ports = (free(), free());
        let first = keep(&facts, ports).unwrap();
        assert!(keep(&facts, ports).is_none(), "another up has it");
        drop(first);
        let kept = keep(&facts, ports).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.0)).unwrap();
        drop(kept);
        assert!(keep(&facts, ports).is_none(), "a program listens there");
        drop(listener);
        let chosen = choose(&facts, &BTreeSet::new()).unwrap().ports;
        let other = choose(&facts, &BTreeSet::from([chosen.1])).unwrap();
        assert_ne!(other.ports, chosen, "a stopped environment has it");
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
