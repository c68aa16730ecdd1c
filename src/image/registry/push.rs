//! Sending to a registry, by the OCI distribution specification ("Pushing a blob in chunks" aside: blobs go whole).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt as _;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Method, RequestBuilder};
use tokio_util::io::ReaderStream;

use super::client::{Access, Client, slow};
use super::error::RegistryError;
use crate::image::reference::Reference;
use crate::oci::Descriptor;
use crate::stall::unless_stalled;

impl Client {
    /// Sends a blob from a file, unless the repository has it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_blob(&self, to: &Reference, blob: &Descriptor, file: &Path) -> Result<(), RegistryError> {
        let what = format!("{}@{}", to.repository(), blob.digest);
        let plain = |request: RequestBuilder| request.timeout(self.limits.answer);
        let path = format!("{}/blobs/{}", to.repository(), blob.digest);
        match self.request(Access::Push, Method::HEAD, to, &path, &what, &plain).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let path = format!("{}/blobs/uploads/", to.repository());
        let empty = |request: RequestBuilder| plain(request).header(CONTENT_LENGTH, 0);
        let begun = self.request(Access::Push, Method::POST, to, &path, &what, &empty).await?;
        let protocol = |reason: &str| RegistryError::Protocol {
            host: to.registry().to_owned(),
            reason: format!("{what}: {reason}"),
        };
        let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        // Relative ones are allowed, and meant against the request.
        let mut location = location
            .and_then(|location| begun.url().join(location).ok())
            .ok_or_else(|| protocol("it does not say where to send it"))?;
        location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let sent = Arc::new(AtomicU64::new(0));
        let send = |request: RequestBuilder| {
            let open = tokio::fs::File::open(file.to_path_buf());
            let body = futures::stream::once(open).map_ok(ReaderStream::new).try_flatten();
            let count = Arc::clone(&sent);
            let body = body.inspect_ok(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, blob.size)
                .body(reqwest::Body::wrap_stream(body))
        };
        let put = self.request(Access::Push, Method::PUT, to, location.as_str(), &what, &send);
        let stalled = || Err(slow(to.registry(), self.limits.stall));
        unless_stalled(self.limits.stall, &sent, put).await.unwrap_or_else(stalled).map(drop)
    }

    /// Sends a manifest under the reference's tag; the repository has its blobs already.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_manifest(&self, to: &Reference, media_type: &str, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let what = format!("{}:{}", to.repository(), to.version());
        let path = format!("{}/manifests/{}", to.repository(), to.version());
        let send = |request: RequestBuilder| {
            request.timeout(self.limits.answer).header(CONTENT_TYPE, media_type).body(bytes.clone())
        };
        self.request(Access::Push, Method::PUT, to, &path, &what, &send).await.map(drop)
    }
}
