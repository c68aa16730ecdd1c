use super::*;
use crate::oci::{ImageSpec, Layer, RunConfig, Source, assemble, scratch_store};

fn amd64() -> Platform {
    Platform::linux("amd64")
}

fn go_on() -> CancellationToken {
    CancellationToken::new()
}

fn interrupted() -> CancellationToken {
    let cancel = go_on();
    cancel.cancel();
    cancel
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn image(store: &Store, reference: &str) -> StoredImage {
    let mut layer = Layer::new();
    layer.file("name", Source::Bytes(reference.repeat(2000).into_bytes()), 0o644).unwrap();
    let layers = vec![layer.store(store).unwrap()];
    let config = RunConfig::default();
    assemble(store, &ImageSpec { reference: reference.to_owned(), platform: amd64(), config, layers }).unwrap()
}

fn bundle(dir: &Path, store: &Store) -> PathBuf {
    let path = dir.join("s3www.bundle");
    let images = [image(store, "devstack.local/b:1"), image(store, "devstack.local/a:1")];
    create(store, "s3www", &amd64(), &images, &path, &go_on()).unwrap();
    path
}

#[test]
fn what_was_packed_is_unpacked() {
    let (dir, store) = scratch_store();
    let path = bundle(dir.path(), &store);
    let first = fs::read(&path).unwrap();
    assert_eq!(fs::read(bundle(dir.path(), &store)).unwrap(), first, "equal images give equal bytes");
    let inspected = inspect(&path).unwrap();
    let names: Vec<&str> = inspected.images.iter().map(|item| item.reference.as_str()).collect();
    assert_eq!(names, ["devstack.local/a:1", "devstack.local/b:1"]);
    let (_other, fresh) = scratch_store();
    let (manifest, images) = load(&fresh, &path, &amd64(), &go_on()).unwrap();
    assert_eq!(manifest, inspected);
    assert_eq!(images.len(), 2);
    assert_eq!(fresh.references().unwrap().len(), 2);
    assert_eq!(files(dir.path()), ["lock", "s3www.bundle", "store"]);
}

#[test]
fn a_file_beside_a_bundle_is_nobody_elses() {
    let (dir, store) = scratch_store();
    let images = [image(&store, "devstack.local/a:1")];
    let path = dir.path().join("x");
    let theirs = ["x.partial".to_owned(), format!(".devstack-bundle-{}-0.partial", std::process::id())];
    for name in &theirs {
        fs::write(dir.path().join(name), "kept").unwrap();
    }
    create(&store, "x", &amd64(), &images, &path, &go_on()).unwrap();
    let whole = fs::read(&path).unwrap();
    // One that fails leaves what was there, and nothing of its own.
    create(&store, "x", &amd64(), &images, &path, &interrupted()).unwrap_err();
    let mut gone = images.clone();
    gone[0].layers[0].digest = Digest::of(b"gone");
    create(&store, "x", &amd64(), &gone, &path, &go_on()).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), whole);
    for name in &theirs {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"kept", "{name}");
    }
    assert_eq!(files(dir.path()).len(), 5, "{:?}", files(dir.path()));
}

#[test]
fn an_interrupted_load_leaves_nothing() {
    let (dir, store) = scratch_store();
    let path = bundle(dir.path(), &store);
    let (other, fresh) = scratch_store();
    let error = load(&fresh, &path, &amd64(), &interrupted()).unwrap_err();
    assert!(matches!(error, BundleError::Oci(OciError::Stream { .. })), "{error}");
    assert_eq!(files(&other.path().join("store/tmp")), Vec::<String>::new());
    assert_eq!(files(&other.path().join("store/blobs/sha256")), Vec::<String>::new());
}

#[test]
fn a_stranger_says_nothing_to_the_terminal() {
    let item = |reference: &str| Item { reference: reference.to_owned(), digest: Digest::of(b""), bytes: 1 };
    let honest = Manifest {
        api_version: "devstack/v1".to_owned(),
        kind: "Bundle".to_owned(),
        profile: "s3www".to_owned(),
        platform: amd64(),
        devstack: env!("CARGO_PKG_VERSION").to_owned(),
        images: vec![
            item("docker.io/library/traefik:v3.7.13"),
            item("devstack.local/tools/kind:v0.33.0-0123456789ab"),
            item(&format!("imported@{}", Digest::of(b""))),
        ],
    };
    let text = |manifest: &Manifest| serde_json::to_string(manifest).unwrap();
    assert_eq!(parse(text(&honest).as_bytes()).unwrap(), honest);
    let evil = "\u{1b}]0;owned\u{7}\r\u{9b}2K";
    let mut cases = vec![text(&honest).replacen("\"profile\"", "\"\\u001b[2J\":1,\"profile\"", 1)];
    for change in [
        Manifest { profile: evil.to_owned(), ..honest.clone() },
        Manifest { profile: String::new(), ..honest.clone() },
        Manifest { devstack: format!("0.1.0{evil}"), ..honest.clone() },
        Manifest { images: vec![item(&format!("devstack.local/a:1{evil}"))], ..honest.clone() },
    ] {
        cases.push(text(&change));
    }
    for case in cases {
        let error = parse(case.as_bytes()).unwrap_err();
        assert!(matches!(error, BundleError::NotABundle { .. }), "{error}");
        assert!(!error.to_string().chars().any(char::is_control), "{:?}", error.to_string());
    }
}

#[test]
fn damage_anywhere_is_refused_and_changes_nothing() {
    let (dir, store) = scratch_store();
    let path = bundle(dir.path(), &store);
    let whole = fs::read(&path).unwrap();
    let (_other, fresh) = scratch_store();
    let blob = whole.windows(20).position(|bytes| bytes == b"devstack.local/b:1de").unwrap();
    let digest = whole.windows(7).position(|bytes| bytes == b"sha256:").unwrap() + 7;
    for at in [blob, digest, whole.len() / 2] {
        let mut bytes = whole.clone();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        fs::write(&path, bytes).unwrap();
        let error = load(&fresh, &path, &amd64(), &go_on()).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert_eq!(fresh.references().unwrap(), [], "{at}: {error}");
    }
    for length in [0, 100, blob, whole.len() * 3 / 4] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(load(&fresh, &path, &amd64(), &go_on()).is_err(), "cut at {length}");
        assert_eq!(fresh.references().unwrap(), []);
    }
}

#[test]
fn what_is_no_bundle_is_named() {
    let (dir, store) = scratch_store();
    let path = dir.path().join("file");
    fs::write(&path, "hello, I am a text file, and of more than one tar block".repeat(20)).unwrap();
    assert_eq!(inspect(&path).unwrap_err().to_string(), "this is no devstack bundle: it is no tar archive");
    let file = File::create(&path).unwrap();
    archive::write(&store, &[image(&store, "a:1")], ArchiveFormat::Oci, &[], file).unwrap();
    let error = load(&store, &path, &amd64(), &go_on()).unwrap_err();
    assert_eq!(error.to_string(), "this is no devstack bundle: its first file is not a bundle's");
    assert_eq!(error.exit(), ExitCode::Usage);
}

#[test]
fn an_image_that_the_manifest_does_not_name_is_refused() {
    let (dir, store) = scratch_store();
    let path = bundle(dir.path(), &store);
    let manifest = inspect(&path).unwrap();
    let images = [image(&store, "devstack.local/a:1"), image(&store, "devstack.local/evil:1")];
    let text = serde_json::to_vec(&manifest).unwrap();
    let file = File::create(&path).unwrap();
    archive::write(&store, &images, ArchiveFormat::Oci, &[(MANIFEST, &text)], file).unwrap();
    let (_other, fresh) = scratch_store();
    let error = load(&fresh, &path, &amd64(), &go_on()).unwrap_err();
    assert!(matches!(error, BundleError::Disagrees { .. }), "{error}");
    assert_eq!(fresh.references().unwrap(), []);
}

#[test]
fn a_bundle_is_for_one_platform() {
    let (dir, store) = scratch_store();
    let path = bundle(dir.path(), &store);
    let (arm64, images) = (Platform::linux("arm64"), [image(&store, "a:1")]);
    let error = load(&store, &path, &arm64, &go_on()).unwrap_err();
    assert_eq!(error.to_string(), "the bundle is for nodes of linux/amd64, and nodes here are linux/arm64");
    let error = create(&store, "x", &arm64, &images, &dir.path().join("y"), &go_on()).unwrap_err();
    assert!(matches!(error, BundleError::Mixed { .. }), "{error}");
}
