//! From bollard's models to the port's, and back where it asks.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models as api;

use crate::ports::engine::{Container, Network};

pub(super) fn label_filter(label: Option<&str>) -> HashMap<String, Vec<String>> {
    label.map(|label| HashMap::from([("label".to_owned(), vec![label.to_owned()])])).unwrap_or_default()
}

pub(super) fn sorted(labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    labels.unwrap_or_default().into_iter().collect()
}

pub(super) fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

pub(super) fn network(from: api::Network) -> Network {
    let mut subnets: Vec<String> =
        from.ipam.and_then(|ipam| ipam.config).unwrap_or_default().into_iter().filter_map(|one| one.subnet).collect();
    subnets.sort_by_key(|subnet| subnet.contains(':'));
    Network {
        id: from.id.unwrap_or_default(),
        name: from.name.unwrap_or_default(),
        labels: sorted(from.labels),
        subnets,
    }
}

pub(super) fn container(from: api::ContainerSummary) -> Container {
    let name = from.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    let addresses = from
        .network_settings
        .and_then(|settings| settings.networks)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(network, settings)| Some((network, settings.ip_address?.parse::<IpAddr>().ok()?)))
        .collect();
    Container {
        id: from.id.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
        labels: sorted(from.labels),
        state: from.state.map(|state| state.to_string()).unwrap_or_default(),
        image: from.image.unwrap_or_default(),
        addresses,
        ports: from
            .ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| Some((port.private_port, port.ip.unwrap_or_default(), port.public_port?)))
            .collect(),
        volumes: from.mounts.unwrap_or_default().into_iter().filter_map(|mount| mount.name).collect(),
    }
}
