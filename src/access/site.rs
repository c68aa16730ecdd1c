//! What goes into a bucket: a file or a directory of the host, as objects with their digests.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::hex;

/// The object that is written last and read first: its content is [`Site::digest`], so that a pod which can read it
/// has key, bucket and content.
pub const MARKER: &str = ".devstack/ready";

/// Bytes of an object: in a file, or at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A file of the host.
    File(PathBuf),
    /// At hand.
    Bytes(Bytes),
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key, with `/` between parts.
    pub key: String,
    /// Its bytes.
    pub body: Body,
    /// Their number.
    pub size: u64,
    /// Their SHA-256 in hexadecimal.
    pub sha256: String,
    /// The media type by the key's ending.
    pub media_type: String,
}

/// A site: what a bucket shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The objects, by key.
    pub objects: Vec<Object>,
    /// SHA-256 of what a browser opens first: the file, or the index of a directory.
    pub sha256: String,
}

/// Why a file or directory is no site.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// A directory without an index: the first page would be a listing or an error.
    #[error("{} has no index.html", .0.display())]
    NoIndex(PathBuf),
    /// A link leads out of the directory.
    #[error("{} leads out of {}", .link.display(), .root.display())]
    Escapes {
        /// The link.
        link: PathBuf,
        /// The directory.
        root: PathBuf,
    },
    /// A name that is not UTF-8 cannot be a key.
    #[error("{} is not a UTF-8 name", .0.display())]
    Name(PathBuf),
}

impl crate::error::Advise for SiteError {
    fn hint(&self) -> Option<String> {
        Some("name a file, or a directory with an index.html: `devstack up s3www --set site=PATH`".to_owned())
    }

    fn exit(&self) -> crate::error::ExitCode {
        crate::error::ExitCode::Usage
    }
}

impl Site {
    /// Reads a file or directory; every byte is hashed, none is kept.
    ///
    /// # Errors
    /// See [`SiteError`].
    pub fn of_path(path: &Path) -> Result<Self, SiteError> {
        let fail = |source| SiteError::Io { path: path.to_path_buf(), source };
        if std::fs::metadata(path).map_err(fail)?.is_dir() {
            return Self::of_directory(path);
        }
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| SiteError::Name(path.into()))?;
        Ok(Self::of_file(object(name.to_owned(), Body::File(path.to_path_buf())).map_err(fail)?))
    }

    /// A site of one file that devstack carries.
    pub fn of_bytes(name: &str, bytes: &'static [u8]) -> Self {
        let bytes = Bytes::from_static(bytes);
        Self::of_file(describe(
            name.to_owned(),
            bytes.len() as u64,
            hex::encode(&Sha256::digest(&bytes)),
            Body::Bytes(bytes),
        ))
    }

    /// A site of one file: the file, and a page that shows it.
    fn of_file(file: Object) -> Self {
        let sha256 = file.sha256.clone();
        let page = (file.key != "index.html").then(|| Bytes::from(page(&file.key, &file.media_type)));
        let mut objects = vec![file];
        if let Some(page) = page {
            let digest = hex::encode(&Sha256::digest(&page));
            objects.push(describe("index.html".to_owned(), page.len() as u64, digest, Body::Bytes(page)));
        }
        Self { objects, sha256 }
    }

    fn of_directory(root: &Path) -> Result<Self, SiteError> {
        let whole = root.canonicalize().map_err(|source| SiteError::Io { path: root.to_path_buf(), source })?;
        let mut objects = Vec::new();
        let mut open = vec![root.to_path_buf()];
        while let Some(dir) = open.pop() {
            let fail = |source| SiteError::Io { path: dir.clone(), source };
            for entry in std::fs::read_dir(&dir).map_err(fail)? {
                let path = entry.map_err(fail)?.path();
                let fail = |source| SiteError::Io { path: path.clone(), source };
                if !path.canonicalize().map_err(fail)?.starts_with(&whole) {
                    return Err(SiteError::Escapes { link: path, root: root.to_path_buf() });
                }
                // A linked directory may lead back to its parent.
                if std::fs::symlink_metadata(&path).map_err(fail)?.is_dir() {
                    open.push(path);
                } else if std::fs::metadata(&path).map_err(fail)?.is_file() {
                    let relative = path.strip_prefix(root).unwrap_or(&path);
                    let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
                    let key = parts.ok_or_else(|| SiteError::Name(path.clone()))?.join("/");
                    objects.push(object(key, Body::File(path.clone())).map_err(fail)?);
                }
            }
        }
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        let index = objects.iter().find(|object| object.key == "index.html");
        let index = index.ok_or_else(|| SiteError::NoIndex(root.to_path_buf()))?;
        let sha256 = index.sha256.clone();
        Ok(Self { objects, sha256 })
    }

    /// A digest over all keys and contents.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for object in &self.objects {
            hash.update(format!("{}\0{}\0", object.key, object.sha256));
        }
        hex::encode(&hash.finalize())
    }

    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }
}

fn object(key: String, body: Body) -> io::Result<Object> {
    let (size, sha256) = match &body {
        Body::Bytes(bytes) => (bytes.len() as u64, hex::encode(&Sha256::digest(bytes))),
        Body::File(path) => {
            let mut file = std::fs::File::open(path)?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 256 << 10];
            let mut size = 0;
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break (size, hex::encode(&hash.finalize()));
                }
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    };
    Ok(describe(key, size, sha256, body))
}

fn describe(key: String, size: u64, sha256: String, body: Body) -> Object {
    let media_type = mime_guess::from_path(&key).first_or_octet_stream().essence_str().to_owned();
    Object { key, body, size, sha256, media_type }
}

/// A page that shows one file.
fn page(name: &str, media_type: &str) -> String {
    let text = name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let shown = if media_type.starts_with("image/") {
        format!("<img src=\"{text}\" alt=\"{text}\">")
    } else {
        format!("<a href=\"{text}\">{text}</a>")
    };
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{text}</title>\n\
         <style>body{{margin:0;min-height:100vh;display:grid;place-items:center;background:#0b1020;color:#cde}}\
         img{{max-width:100%}}a{{color:inherit}}</style>\n{shown}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_served_under_its_name_beside_a_page_that_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cat.gif"), b"GIF89a").unwrap();
        let site = Site::of_path(&dir.path().join("cat.gif")).unwrap();
        assert_eq!(site.objects.len(), 2);
        assert_eq!(site.objects[0].media_type, "image/gif");
        assert_eq!(site.sha256, hex::encode(&Sha256::digest(b"GIF89a")));
        let Body::Bytes(page) = &site.objects[1].body else { panic!("a page at hand") };
        assert!(String::from_utf8_lossy(page).contains("<img src=\"cat.gif\""));
    }

    #[test]
    fn a_directory_is_served_by_its_index_and_digested_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("css")).unwrap();
        std::fs::write(dir.path().join("css/a.css"), "a{}").unwrap();
        std::fs::write(dir.path().join("index.html"), "<p>hi").unwrap();
        let site = Site::of_path(dir.path()).unwrap();
        let keys: Vec<&str> = site.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(keys, ["css/a.css", "index.html"]);
        let before = site.digest();
        std::fs::write(dir.path().join("css/a.css"), "b{}").unwrap();
        assert_ne!(Site::of_path(dir.path()).unwrap().digest(), before);
    }

    #[test]
    fn a_directory_without_an_index_or_with_a_link_out_of_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("site");
        std::fs::create_dir(&root).unwrap();
        assert!(matches!(Site::of_path(&root), Err(SiteError::NoIndex(_))));
        std::fs::write(root.join("index.html"), "x").unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("leak")).unwrap();
        assert!(matches!(Site::of_path(&root), Err(SiteError::Escapes { .. })));
    }
}
