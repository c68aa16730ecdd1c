//! Fetching a blob: it goes on where it was broken off, and what arrives is checked against its digest.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use super::client::{Client, slow};
use super::error::RegistryError;
use crate::image::reference::Reference;
use crate::oci::Descriptor;

type Body = Pin<Box<dyn Stream<Item = Result<Bytes, reqwest::Error>> + Send>>;

/// This much between two failures shows that the connection is worth keeping up.
const PROGRESS: u64 = 1 << 20;

/// A blob on its way.
struct Fetch<'a> {
    client: &'a Client,
    reference: &'a Reference,
    blob: &'a Descriptor,
    body: Option<Body>,
    /// Bytes handed on.
    done: u64,
    /// Bytes of the current answer that were handed on before.
    skip: u64,
    failures: u32,
    /// `done` at the last failure.
    failed_at: u64,
}

impl Client {
    /// A blob's bytes. Errors of the stream carry a [`RegistryError`]; the caller checks the digest.
    pub fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        blob: &'a Descriptor,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'a {
        let fetch = Fetch { client: self, reference, blob, body: None, done: 0, skip: 0, failures: 0, failed_at: 0 };
        futures::stream::try_unfold(fetch, |mut fetch| async move {
            let piece = fetch.next().await.map_err(io::Error::other)?;
            Ok(piece.map(|piece| (piece, fetch)))
        })
    }
}

impl Fetch<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.done < self.blob.size {
            match self.piece().await {
                Ok(piece) => {
                    self.done += piece.len() as u64;
                    if self.done > self.blob.size {
                        let reason = format!("{} is longer than its {} bytes", self.blob.digest, self.blob.size);
                        return Err(RegistryError::Protocol { host: self.host(), reason });
                    }
                    return Ok(Some(piece));
                }
                Err(error) => self.wait_after(error).await?,
            }
        }
        Ok(None)
    }

    /// The next bytes that were not handed on yet.
    async fn piece(&mut self) -> Result<Bytes, RegistryError> {
        let stall = self.client.limits.stall;
        loop {
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let response = self.client.open_blob(self.reference, &self.blob.digest, self.done).await?;
                    self.skip = if response.status() == reqwest::StatusCode::PARTIAL_CONTENT { 0 } else { self.done };
                    self.body.insert(response.bytes_stream().boxed())
                }
            };
            let next = tokio::time::timeout(stall, body.next()).await;
            let mut piece = match next {
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(_)) | None) => return Err(self.truncated()),
                Err(_) => return Err(slow(&self.host(), stall)),
            };
            let skipped = self.skip.min(piece.len() as u64);
            self.skip -= skipped;
            let piece = piece.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
            if !piece.is_empty() {
                return Ok(piece);
            }
        }
    }

    /// Waits before the next attempt; gives the error back where there shall be none.
    async fn wait_after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.body = None;
        if self.done >= self.failed_at + PROGRESS {
            self.failures = 0;
        }
        self.failed_at = self.done;
        self.failures += 1;
        let limits = &self.client.limits;
        if !error.is_transient() || self.failures >= limits.attempts {
            return Err(error);
        }
        let wait = match &error {
            RegistryError::RateLimited { retry_after: Some(seconds), .. } => Duration::from_secs(*seconds),
            _ => limits.backoff * 2_u32.saturating_pow(self.failures - 1),
        };
        if wait > limits.longest_wait {
            return Err(error);
        }
        self.client.clock.sleep(wait).await;
        Ok(())
    }

    fn truncated(&self) -> RegistryError {
        RegistryError::Truncated {
            host: self.host(),
            what: self.blob.digest.to_string(),
            got: self.done,
            size: self.blob.size,
        }
    }

    fn host(&self) -> String {
        self.reference.registry().to_owned()
    }
}
