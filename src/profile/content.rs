//! What fills a bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::assets;

use super::resolved::{ContentSource, ContentSpec};

/// What answers for a directory.
const INDEX: &str = "index.html";

/// What fills a bucket from a `path` parameter's value; the fields about pods are the caller's.
pub(super) fn content_spec(source: &str, bucket: String) -> ContentSpec {
    let single = |source: ContentSource, name: &str, size: Option<u64>| {
        // `http.FileServer` redirects `/index.html` to `/`.
        let path = if name == INDEX { "/".to_owned() } else { format!("/{}", url_segment(name)) };
        (source, name.to_owned(), path, size)
    };
    let (source, key, path, size) = if let Some(name) = source.strip_prefix("builtin:") {
        let file = assets::PROFILES.get_file(Path::new("content").join(name));
        let size = file.map(|file| file.contents().len() as u64);
        single(ContentSource::Builtin(name.to_owned()), name, size)
    } else {
        let path = PathBuf::from(source);
        if path.is_dir() {
            let index = std::fs::metadata(path.join(INDEX)).ok().filter(std::fs::Metadata::is_file);
            let size = index.as_ref().map(std::fs::Metadata::len);
            (ContentSource::Directory(path), INDEX.to_owned(), "/".to_owned(), size)
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let size = std::fs::metadata(&path).ok().map(|metadata| metadata.len());
            single(ContentSource::File(path), &name, size)
        }
    };
    ContentSpec {
        bucket,
        source,
        key,
        path,
        size,
        namespace: String::new(),
        pods: BTreeMap::new(),
        port: 0,
        credentials: String::new(),
    }
}

/// A name as one segment of a URL's path.
fn url_segment(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
