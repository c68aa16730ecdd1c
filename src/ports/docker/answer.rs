//! From bollard's models to the port's, and back where it asks.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::auth::DockerCredentials;
use bollard::models as api;

use crate::ports::engine::{Container, EngineImage, Login, Network};

pub(super) fn label_filter(label: Option<&str>) -> HashMap<String, Vec<String>> {
    label.map(|label| HashMap::from([("label".to_owned(), vec![label.to_owned()])])).unwrap_or_default()
}

fn sorted(labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    labels.unwrap_or_default().into_iter().collect()
}

pub(super) fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

pub(super) fn credentials(login: &Login) -> DockerCredentials {
    match login {
        Login::Password { user, password } => {
            DockerCredentials { username: Some(user.clone()), password: Some(password.clone()), ..Default::default() }
        }
        Login::Identity(token) => DockerCredentials { identitytoken: Some(token.clone()), ..Default::default() },
    }
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

pub(super) fn image(from: api::ImageInspect) -> EngineImage {
    let platforms = match from.manifests {
        Some(manifests) => manifests.into_iter().filter_map(platform).collect(),
        None => {
            from.architecture.filter(|architecture| !architecture.is_empty()).map_or_else(Vec::new, |architecture| {
                let os = from.os.filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".to_owned());
                vec![format!("{os}/{architecture}")]
            })
        }
    };
    EngineImage {
        id: from.id.unwrap_or_default(),
        platforms,
        size: unsigned(from.size),
        repo_digests: from.repo_digests.unwrap_or_default(),
        labels: sorted(from.config.and_then(|config| config.labels)),
    }
}

/// The platform of a manifest, where it is an image's and the engine has its content.
fn platform(manifest: api::ImageManifestSummary) -> Option<String> {
    if !manifest.available || manifest.kind != Some(api::ImageManifestSummaryKindEnum::IMAGE) {
        return None;
    }
    let platform = manifest.image_data?.platform;
    Some(format!("{}/{}", platform.os?, platform.architecture?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(json: serde_json::Value) -> EngineImage {
        image(serde_json::from_value(json).unwrap())
    }

    fn manifest(kind: &str, architecture: &str, available: bool) -> serde_json::Value {
        let size = serde_json::json!({"Content": 1, "Total": 1});
        let platform = serde_json::json!({"os": "linux", "architecture": architecture});
        let data = serde_json::json!({"Platform": platform, "Containers": [], "Size": {"Unpacked": 1}});
        serde_json::json!({
            "ID": "sha256:a", "Descriptor": {}, "Available": available, "Size": size, "Kind": kind, "ImageData": data,
        })
    }

    #[test]
    fn an_image_has_the_platforms_whose_content_is_there() {
        let json = serde_json::json!({"Architecture": "amd64", "Os": "linux"});
        assert_eq!(inspected(json).platforms, ["linux/amd64"], "an engine that knows no manifests");
        let json = serde_json::json!({"Architecture": "", "Os": ""});
        assert_eq!(inspected(json).platforms, [""; 0]);
        let manifests = [
            manifest("image", "arm64", true),
            manifest("image", "amd64", false),
            manifest("attestation", "unknown", true),
        ];
        let json = serde_json::json!({"Architecture": "arm64", "Os": "linux", "Manifests": manifests});
        assert_eq!(inspected(json).platforms, ["linux/arm64"]);
    }
}
