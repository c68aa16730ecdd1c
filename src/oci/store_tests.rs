use super::super::{Layer, Source};
use super::*;
use crate::oci::{ImageSpec, RunConfig, assemble};

/// A store in a directory of its own, which goes with the first of the two.
pub(crate) fn scratch_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn image(store: &Store, reference: &str, content: &str) -> StoredImage {
    let mut layer = Layer::new();
    layer.file("content", Source::Bytes(content.as_bytes().to_vec()), 0o644).unwrap();
    let spec = ImageSpec {
        reference: reference.to_owned(),
        platform: Platform::linux("amd64"),
        config: RunConfig::default(),
        layers: vec![layer.store(store).unwrap()],
    };
    assemble(store, &spec).unwrap()
}

#[tokio::test]
async fn a_blob_is_kept_only_with_the_right_digest() {
    let (_dir, store) = scratch_store();
    let right = Digest::of(b"content");
    assert_eq!(store.put_blob(Some(&right), &b"content"[..]).await.unwrap(), (right.clone(), 7));
    let wrong = Digest::of(b"other");
    let error = store.put_blob(Some(&wrong), &b"content"[..]).await.unwrap_err();
    assert!(matches!(error, OciError::Damaged { .. }), "{error}");
    assert!(store.has(&right) && !store.has(&wrong));
    assert_eq!(fs::read_dir(store.root.join("tmp")).unwrap().count(), 0, "nothing is left beside the blobs");
}

#[test]
fn tags_are_per_platform_and_the_last_one_wins() {
    let (_dir, store) = scratch_store();
    let (amd64, arm64) = (Platform::linux("amd64"), Platform::linux("arm64"));
    let first = image(&store, "a:1", "one");
    let second = image(&store, "a:1", "two");
    assert_eq!(store.image("a:1", &amd64).unwrap(), Some(second.clone()));
    assert_eq!(store.image("a:1", &arm64).unwrap(), None);
    store.tag("a:1", &arm64, &first.manifest).unwrap();
    assert_eq!(store.references().unwrap().len(), 2);
    store.untag("a:1", &amd64).unwrap();
    store.untag("a:1", &amd64).unwrap();
    assert_eq!(store.references().unwrap(), [("a:1".to_owned(), arm64)]);
}

#[test]
fn an_image_with_a_lost_or_short_blob_is_not_there() {
    let (_dir, store) = scratch_store();
    let image = image(&store, "a:1", "one");
    let path = store.blob_path(&image.layers[0].digest);
    fs::write(&path, "short").unwrap();
    assert_eq!(store.image("a:1", &image.platform).unwrap(), None);
    fs::remove_file(&path).unwrap();
    assert_eq!(store.image("a:1", &image.platform).unwrap(), None);
}

#[test]
fn a_damaged_manifest_is_an_error() {
    let (_dir, store) = scratch_store();
    let image = image(&store, "a:1", "one");
    fs::write(store.blob_path(&image.manifest.digest), "{}").unwrap();
    assert!(matches!(store.image("a:1", &image.platform), Err(OciError::Damaged { .. })));
}

#[test]
fn prune_keeps_what_is_named_or_young() {
    let (_dir, store) = scratch_store();
    let kept = image(&store, "a:1", "one");
    let gone = image(&store, "b:1", "two");
    store.untag("b:1", &gone.platform).unwrap();
    assert_eq!(store.prune().unwrap(), Freed::default());
    let freed = store.prune_older_than(Duration::ZERO).unwrap();
    assert_eq!(freed.blobs, 3);
    assert_eq!(freed.bytes, gone.size);
    assert_eq!(store.image("a:1", &kept.platform).unwrap(), Some(kept));
}

#[test]
fn a_blob_that_is_not_as_long_as_it_should_be_is_not_there() {
    let (_dir, store) = scratch_store();
    let image = image(&store, "a:1", "one");
    let layer = &image.layers[0];
    assert!(store.has_whole(layer));
    fs::write(store.blob_path(&layer.digest), "short").unwrap();
    assert!(!store.has_whole(layer), "as the image says");
    fs::remove_file(store.blob_path(&layer.digest)).unwrap();
    assert!(!store.has_whole(layer));
}

#[test]
fn a_cache_is_open_to_many_or_to_one_alone() {
    let (dir, store) = scratch_store();
    let (second, clone) = (Store::open(dir.path()).unwrap(), store.clone());
    for one in [store, second, clone] {
        assert!(Store::open_alone(dir.path()).unwrap().is_none());
        drop(one);
    }
    let alone = Store::open_alone(dir.path()).unwrap().unwrap();
    assert!(Store::open_alone(dir.path()).unwrap().is_none());
    let path = dir.path().to_owned();
    let waiting = std::thread::spawn(move || Store::open(&path).unwrap().references().unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished(), "it waits");
    drop(alone);
    assert_eq!(waiting.join().unwrap(), []);
}
