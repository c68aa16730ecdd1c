use std::io::Write as _;

use super::super::{ArchiveFormat, export};
use super::*;
use crate::oci::{ImageSpec, Layer, RunConfig, Source, assemble, scratch_store};

fn image(store: &Store, reference: &str) -> StoredImage {
    let mut layer = Layer::new();
    layer.file("content", Source::Bytes(vec![7; 300_000]), 0o644).unwrap();
    let spec = ImageSpec {
        reference: reference.to_owned(),
        platform: Platform::linux("amd64"),
        config: RunConfig { env: vec!["A=b".to_owned()], ..RunConfig::default() },
        layers: vec![layer.store(store).unwrap()],
    };
    assemble(store, &spec).unwrap()
}

async fn bytes_of(store: &Store, images: &[StoredImage], format: ArchiveFormat) -> Vec<u8> {
    let mut reader = StreamReader::new(export(store, images, format));
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    read.await.unwrap().unwrap()
}

/// An archive of the test's own: (name, content or link).
enum Item<'a> {
    File(&'a str, Vec<u8>),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Fifo(&'a str),
}

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let (name, kind, content, target) = match item {
            Item::File(name, content) => (name, tar::EntryType::Regular, content.as_slice(), ""),
            Item::Link(name, target) => (name, tar::EntryType::Symlink, &[][..], *target),
            Item::Hard(name, target) => (name, tar::EntryType::Link, &[][..], *target),
            Item::Fifo(name) => (name, tar::EntryType::Fifo, &[][..], ""),
        };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        // The writer of tar refuses hostile names, so they are written into the header as they are.
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn state(store: &Store) -> Vec<(String, u64)> {
    let root = store.blob_path(&Digest::of(b"")).parent().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let mut pending = vec![root];
    let mut files = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                files.push((entry.path().display().to_string(), entry.metadata().unwrap().len()));
            }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn what_is_exported_is_imported_again() {
    let (_from_dir, from) = scratch_store();
    let images = [image(&from, "devstack.local/a:1"), image(&from, "devstack.local/b:2")];
    for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
        let bytes = bytes_of(&from, &images, format).await;
        assert!(bytes.len() < 400_000, "the shared layer is there once: {}", bytes.len());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        for bytes in [bytes, gzip.finish().unwrap()] {
            let (_to_dir, to) = scratch_store();
            assert_eq!(import_reader(&to, bytes.as_slice()).unwrap(), images);
            assert_eq!(to.image("devstack.local/b:2", &Platform::linux("amd64")).unwrap().as_ref(), Some(&images[1]));
        }
    }
}

#[tokio::test]
async fn every_single_damaged_byte_of_a_blob_is_noticed_and_nothing_changes() {
    let (_from_dir, from) = scratch_store();
    let whole = bytes_of(&from, &[image(&from, "a:1")], ArchiveFormat::Oci).await;
    let (_to_dir, to) = scratch_store();
    import_reader(&to, bytes_of(&from, &[image(&from, "kept:1")], ArchiveFormat::Oci).await.as_slice()).unwrap();
    let before = state(&to);
    let inside_layer = whole.windows(64).position(|window| window == [7; 64]).unwrap();
    for change in [inside_layer, inside_layer + 250_000] {
        let mut bytes = whole.clone();
        bytes[change] ^= 1;
        let error = import_reader(&to, bytes.as_slice()).unwrap_err();
        assert!(matches!(error, OciError::Damaged { .. }), "{error}");
        assert_eq!(state(&to), before);
    }
    for length in [1000, inside_layer, whole.len() - 20_000] {
        assert!(import_reader(&to, &whole[..length]).is_err(), "cut at {length}");
        assert_eq!(state(&to), before);
    }
}

#[test]
fn hostile_archives_are_refused() {
    let text = || b"x".to_vec();
    let cases: [(&str, Vec<Item<'_>>, &str); 8] = [
        ("parent", vec![Item::File("../evil", text())], "reaches outside the archive"),
        ("absolute", vec![Item::File("/etc/passwd", text())], "reaches outside the archive"),
        ("inner parent", vec![Item::File("a/../../evil", text())], "reaches outside the archive"),
        ("link out", vec![Item::Link("layer.tar", "../../etc/shadow")], "links outside the archive"),
        ("absolute link", vec![Item::Link("layer.tar", "/etc/shadow")], "links outside the archive"),
        ("hard link", vec![Item::Hard("layer.tar", "/etc/shadow")], "is neither file nor directory"),
        ("fifo", vec![Item::Fifo("layer.tar")], "is neither file nor directory"),
        ("twice", vec![Item::File("index.json", text()), Item::File("./index.json", text())], "is there twice"),
    ];
    let (_dir, store) = scratch_store();
    let before = state(&store);
    for (name, items, reason) in cases {
        let error = import_reader(&store, archive(&items).as_slice()).unwrap_err();
        assert!(matches!(error, OciError::Hostile { .. }) && error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(state(&store), before, "{name}");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let bomb = {
        let mut json = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        json.resize(usize::try_from(MAX_JSON).unwrap() + 1, b' ');
        json
    };
    let index = |digest: &Digest| {
        format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":3}}]}}"#).into_bytes()
    };
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("empty", Vec::new(), "neither index.json nor manifest.json is in it"),
        ("text", b"hello, I am no archive".to_vec(), "cannot read the archive"),
        ("no images", archive(&[Item::File("manifest.json", b"[]".to_vec())]), "no image is in it"),
        ("broken", archive(&[Item::File("index.json", b"{".to_vec())]), "index.json of the archive is not valid"),
        ("oversized", archive(&[Item::File("index.json", bomb)]), "index.json of the archive is larger than"),
        ("missing", archive(&[Item::File("index.json", index(&Digest::of(b"gone")))]), "is missing"),
    ];
    let (_dir, store) = scratch_store();
    let before = state(&store);
    for (name, bytes, message) in cases {
        let error = import_reader(&store, bytes.as_slice()).unwrap_err();
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert_eq!(state(&store), before, "{name}");
    }
}

/// How an index names something.
fn entries(count: usize, digest: &Digest, name: impl Fn(usize) -> String) -> Vec<u8> {
    let entry = |number| format!(r#"{{"digest":"{digest}","size":1{}}}"#, name(number));
    let entries: Vec<String> = (0..count).map(entry).collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).into_bytes()
}

/// An archive of some index and the blobs that it leads to.
fn layout(index: Vec<u8>, blobs: &[&[u8]]) -> Vec<u8> {
    let names: Vec<String> = blobs.iter().map(|blob| format!("blobs/sha256/{}", Digest::of(blob).hex())).collect();
    let mut items: Vec<Item<'_>> =
        names.iter().zip(blobs).map(|(name, blob)| Item::File(name, blob.to_vec())).collect();
    items.push(Item::File("index.json", index));
    archive(&items)
}

#[test]
fn documents_that_name_each_other_without_end_are_refused() {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let manifest = |padding: usize, layers: &str| {
        let (config, size) = (Digest::of(&config), config.len());
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":{size}}},"layers":[{layers}]{}}}"#,
            " ".repeat(padding)
        );
        text.into_bytes()
    };
    let plain = manifest(0, "");
    let unnamed = |_| String::new();
    let named =
        |number: usize| format!(r#","annotations":{{"io.containerd.image.name":"docker.io/library/x:{number}"}}"#);
    // 80 000 times 80 000 ways to one manifest, and 80 000 names of an image.
    let inner = entries(80_000, &Digest::of(&plain), unnamed);
    let wide = entries(80_000, &Digest::of(&inner), unnamed);
    // Few entries of much text: each name reads the document once more.
    let padded = manifest(7_000_000, "");
    let costly = entries(4000, &Digest::of(&padded), named);
    // Few names of many layers each.
    let layer = format!(r#"{{"digest":"{}","size":{}}}"#, Digest::of(&config), config.len());
    let layered = manifest(0, &vec![layer; 1000].join(","));
    let tall = entries(4000, &Digest::of(&layered), named);
    let tags: Vec<String> = (0..80_000).map(|number| format!("\"x:{number}\"")).collect();
    let tags = format!(r#"[{{"Config":"c.json","RepoTags":[{}],"Layers":[]}}]"#, tags.join(","));
    let docker = archive(&[Item::File("c.json", config.clone()), Item::File("manifest.json", tags.into_bytes())]);
    let cases = [
        ("wide", layout(wide, &[&inner, &plain, &config]), "names too many images"),
        ("names", layout(entries(5000, &Digest::of(&plain), named), &[&plain, &config]), "names too many images"),
        ("costly", layout(costly, &[&padded, &config]), "what the archive says of its images is larger than"),
        ("tall", layout(tall, &[&layered, &config]), "names too many layers"),
        ("docker", docker, "names too many images"),
    ];
    let (_dir, store) = scratch_store();
    let before = state(&store);
    for (name, bytes, reason) in cases {
        let error = import_reader(&store, bytes.as_slice()).unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(state(&store), before, "{name}");
    }
    // What is named twice is looked at once.
    let twice = entries(2, &Digest::of(&plain), |_| named(1));
    assert_eq!(import_reader(&store, layout(twice, &[&plain, &config]).as_slice()).unwrap().len(), 1);
}

#[test]
fn what_an_archive_calls_itself_is_told_without_control_characters() {
    let name = |_| r#","annotations":{"io.containerd.image.name":"a\u001b[2J:1"}"#.to_owned();
    let (_dir, store) = scratch_store();
    for blob in [&b"{"[..], b"{}"] {
        let bytes = layout(entries(1, &Digest::of(blob), name), &[blob]);
        let error = import_reader(&store, bytes.as_slice()).unwrap_err().to_string();
        assert!(error.contains("a [2J:1") && !error.chars().any(char::is_control), "{error:?}");
    }
}

#[test]
fn a_layer_that_is_named_often_is_unpacked_once() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&vec![0; 8 << 20]).unwrap();
    let (layer, diff) = (gzip.finish().unwrap(), Digest::of(&vec![0; 8 << 20]));
    let diffs = vec![format!("\"{diff}\""); 2000].join(",");
    let config =
        format!(r#"{{"architecture":"arm64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{diffs}]}}}}"#);
    let layers = vec!["\"l\""; 2000].join(",");
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["x:1"],"Layers":[{layers}]}}]"#);
    let bytes = archive(&[
        Item::File("l", layer),
        Item::File("c.json", config.into_bytes()),
        Item::File("manifest.json", manifest.into_bytes()),
    ]);
    let (_dir, store) = scratch_store();
    let began = std::time::Instant::now();
    assert_eq!(import_reader(&store, bytes.as_slice()).unwrap()[0].layers.len(), 2000);
    // 16 GB take minutes.
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn links_between_layers_of_docker_save_are_followed() {
    let layer = b"layer bytes".to_vec();
    let diff = Digest::of(&layer);
    let config = format!(
        r#"{{"architecture":"arm64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff}","{diff}"]}}}}"#
    );
    let manifest = r#"[{"Config":"c.json","RepoTags":["old:1","old:2"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let items = |layer: Vec<u8>| {
        archive(&[
            Item::File("one/layer.tar", layer),
            Item::Link("two/layer.tar", "../one/layer.tar"),
            Item::File("c.json", config.clone().into_bytes()),
            Item::File("manifest.json", manifest.as_bytes().to_vec()),
        ])
    };
    let (_dir, store) = scratch_store();
    let images = import_reader(&store, items(layer).as_slice()).unwrap();
    let names: Vec<&str> = images.iter().map(|image| image.reference.as_str()).collect();
    assert_eq!(names, ["old:1", "old:2"]);
    assert_eq!(images[0].platform, Platform::linux("arm64"));
    assert_eq!(images[0].layers.len(), 2);
    let error = import_reader(&store, items(b"other bytes".to_vec()).as_slice()).unwrap_err();
    assert!(matches!(error, OciError::Damaged { .. }), "{error}");
}

#[test]
fn platforms_that_an_engine_did_not_save_are_passed_over() {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":{}}},"layers":[]}}"#,
        Digest::of(&config),
        config.len()
    )
    .into_bytes();
    let platforms = format!(
        r#"{{"schemaVersion":2,"manifests":[
            {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"arm64"}}}},
            {{"digest":"{}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}},
            {{"digest":"{}","size":{},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        Digest::of(b"arm64"),
        Digest::of(b"attestation"),
        Digest::of(&manifest),
        manifest.len()
    )
    .into_bytes();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{},"annotations":{{
            "io.containerd.image.name":"docker.io/library/x:1","org.opencontainers.image.ref.name":"1"}}}}]}}"#,
        Digest::of(&platforms),
        platforms.len()
    );
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let bytes = archive(&[
        Item::File(&name(&config), config.clone()),
        Item::File(&name(&manifest), manifest.clone()),
        Item::File(&name(&platforms), platforms.clone()),
        Item::File("index.json", index.into_bytes()),
    ]);
    let (_dir, store) = scratch_store();
    let images = import_reader(&store, bytes.as_slice()).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].reference, "docker.io/library/x:1");
    assert_eq!(images[0].manifest.digest, Digest::of(&manifest));
}
