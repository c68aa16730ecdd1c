//! Images from layers: configuration and manifest, the same bytes for the same inputs.

use serde::Serialize;

use super::error::OciError;
use super::store::{Store, StoredImage};
use super::types::{Descriptor, Manifest, Platform, RunConfig, media};

/// What an image shall be.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// Its reference.
    pub reference: String,
    /// Its platform.
    pub platform: Platform,
    /// How containers of it run.
    pub config: RunConfig,
    /// Its uncompressed layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// The configuration as written; the creation time is fixed, since it is part of the image's identity.
#[derive(Serialize)]
struct ConfigDocument<'a> {
    architecture: &'a str,
    config: &'a RunConfig,
    created: &'static str,
    history: Vec<History>,
    os: &'a str,
    rootfs: RootFs<'a>,
}

#[derive(Serialize)]
struct History {
    created: &'static str,
    created_by: &'static str,
}

#[derive(Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<&'a super::types::Digest>,
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Writes configuration and manifest of an image and tags it. The layers are uncompressed and in the store.
///
/// # Errors
/// Where the store cannot be written or a layer is not in it.
pub fn assemble(store: &Store, spec: &ImageSpec) -> Result<StoredImage, OciError> {
    let document = ConfigDocument {
        architecture: &spec.platform.architecture,
        config: &spec.config,
        created: EPOCH,
        history: spec.layers.iter().map(|_| History { created: EPOCH, created_by: "devstack" }).collect(),
        os: &spec.platform.os,
        rootfs: RootFs { kind: "layers", diff_ids: spec.layers.iter().map(|layer| &layer.digest).collect() },
    };
    let json = |what: &str, source| OciError::Json { what: format!("the {what} of {}", spec.reference), source };
    let config = serde_json::to_vec(&document).map_err(|source| json("configuration", source))?;
    let (digest, size) = store.put_bytes(&config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        config: Descriptor::new(media::CONFIG, digest, size),
        layers: spec.layers.clone(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|source| json("manifest", source))?;
    let (digest, size) = store.put_bytes(&bytes)?;
    store.tag(&spec.reference, &spec.platform, &Descriptor::new(media::MANIFEST, digest, size))
}

#[cfg(test)]
mod tests {
    use super::super::layer::{Layer, Source};
    use super::*;

    fn build(name: &str) -> (tempfile::TempDir, StoredImage) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut layer = Layer::new();
        layer.file("bin/app", Source::Bytes(name.as_bytes().to_vec()), 0o755).unwrap();
        let config = RunConfig {
            entrypoint: vec!["/bin/app".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            ..RunConfig::default()
        };
        let layers = vec![layer.store(&store).unwrap()];
        let spec = ImageSpec {
            reference: "devstack.local/app:1".to_owned(),
            platform: Platform::linux("amd64"),
            config,
            layers,
        };
        let image = assemble(&store, &spec).unwrap();
        (dir, image)
    }

    #[test]
    fn the_same_inputs_give_the_same_image() {
        let (_one, first) = build("app");
        let (_two, second) = build("app");
        assert_eq!(first, second);
        let (_three, third) = build("other");
        assert_ne!(first.manifest.digest, third.manifest.digest);
    }

    #[test]
    fn an_image_needs_its_layers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let spec = ImageSpec {
            reference: "a:1".to_owned(),
            platform: Platform::linux("amd64"),
            config: RunConfig::default(),
            layers: vec![Descriptor::new(media::LAYER, super::super::Digest::of(b"gone"), 4)],
        };
        let error = assemble(&store, &spec).unwrap_err();
        assert_eq!(error.to_string(), "a:1 is incomplete: a blob of it is missing");
        assert_eq!(store.references().unwrap(), []);
    }
}
