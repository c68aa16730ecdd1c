//! The few S3 calls that fill a bucket, over any byte stream to the server: a port-forward, as there is no route from
//! the host to a pod that works everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::site::{Body, Object};
use crate::ports::kube::Duplex;
use crate::stall::unless_stalled;

type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// How long a signed request is good for.
const VALID: Duration = Duration::from_secs(3600);

/// How long nothing may move on a connection: of a node that froze nobody says that it is gone.
const STALL: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum S3Error {
    /// The connection broke.
    #[error("the connection to the object store broke: {0}")]
    Connection(String),
    /// The server refused.
    #[error("the object store answered {status} to {what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// The status.
        status: StatusCode,
        /// The message of the answer's XML.
        message: String,
    },
    /// The request cannot be made.
    #[error("{0}")]
    Request(String),
}

/// One connection to an object store, on one bucket.
pub struct S3 {
    bucket: Bucket,
    credentials: Credentials,
    host: String,
    sender: http1::SendRequest<RequestBody>,
}

/// An answer, its body read.
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl S3 {
    /// Speaks HTTP over a stream; `host` is the name that requests carry and signatures cover.
    ///
    /// # Errors
    /// [`S3Error::Connection`], [`S3Error::Request`].
    pub async fn connect(
        stream: Box<dyn Duplex>,
        host: &str,
        bucket: &str,
        key: &str,
        secret: &str,
    ) -> Result<Self, S3Error> {
        let endpoint =
            format!("http://{host}").parse().map_err(|error| S3Error::Request(format!("{host}: {error}")))?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), "us-east-1")
            .map_err(|error| S3Error::Request(error.to_string()))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| S3Error::Connection(error.to_string()))?;
        tokio::spawn(async move {
            // A broken connection shows in the request that is under way.
            let _ = connection.await;
        });
        Ok(Self { bucket, credentials: Credentials::new(key, secret), host: host.to_owned(), sender })
    }

    /// Whether the bucket is there.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn has_bucket(&mut self) -> Result<bool, S3Error> {
        let url = self.bucket.head_bucket(Some(&self.credentials)).sign(VALID);
        let answer = self.send(Method::HEAD, &url, &[], empty()).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused("look at the bucket", &answer)),
        }
    }

    /// Makes the bucket; one that is there is no error.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn create_bucket(&mut self) -> Result<(), S3Error> {
        let url = self.bucket.create_bucket(&self.credentials).sign(VALID);
        let answer = self.send(Method::PUT, &url, &[], empty()).await?;
        if answer.status.is_success() || answer.status == StatusCode::CONFLICT {
            return Ok(());
        }
        Err(refused("make the bucket", &answer))
    }

    /// The bytes of a small object; `None` where object or bucket are not there.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn get(&mut self, key: &str) -> Result<Option<Bytes>, S3Error> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(VALID);
        let answer = self.send(Method::GET, &url, &[], empty()).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(&format!("read {key}"), &answer)),
        }
    }

    /// Size and recorded SHA-256 of an object; `None` where it is not there.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn head(&mut self, key: &str) -> Result<Option<(u64, String)>, S3Error> {
        let url = self.bucket.head_object(Some(&self.credentials), key).sign(VALID);
        let answer = self.send(Method::HEAD, &url, &[], empty()).await?;
        let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match answer.status {
            StatusCode::OK => {
                Ok(Some((text("content-length").parse().unwrap_or_default(), text(SHA256_HEADER).to_owned())))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(&format!("look at {key}"), &answer)),
        }
    }

    /// Writes an object, streamed; `progress` gets each number of bytes as it is sent.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn put(
        &mut self,
        object: &Object,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<(), S3Error> {
        let mut action = self.bucket.put_object(Some(&self.credentials), &object.key);
        // Signed headers must be part of the signature.
        action.headers_mut().insert(SHA256_HEADER, &object.sha256);
        let url = action.sign(VALID);
        let body = match &object.body {
            Body::Bytes(bytes) => full(bytes.clone()),
            Body::File(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| S3Error::Request(format!("{}: {error}", path.display())))?;
                let chunks = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
                StreamBody::new(
                    chunks.inspect_ok(move |chunk| progress(chunk.len() as u64)).map_ok(Frame::data).boxed(),
                )
                .boxed_unsync()
            }
        };
        let headers = [
            ("content-length", object.size.to_string()),
            ("content-type", object.media_type.clone()),
            (SHA256_HEADER, object.sha256.clone()),
        ];
        let answer = self.send(Method::PUT, &url, &headers, body).await?;
        if answer.status.is_success() { Ok(()) } else { Err(refused(&format!("write {}", object.key), &answer)) }
    }

    /// Removes an object; a missing one is no error.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn delete(&mut self, key: &str) -> Result<(), S3Error> {
        let url = self.bucket.delete_object(Some(&self.credentials), key).sign(VALID);
        let answer = self.send(Method::DELETE, &url, &[], empty()).await?;
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(refused(&format!("remove {key}"), &answer))
    }

    async fn send(
        &mut self,
        method: Method,
        url: &url::Url,
        headers: &[(&str, String)],
        body: RequestBody,
    ) -> Result<Answer, S3Error> {
        let target = &url[url::Position::BeforePath..];
        let mut request = Request::builder().method(method).uri(target).header(http::header::HOST, &self.host);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let body = body.map_frame(move |frame| {
            count.fetch_add(1, Ordering::Relaxed);
            frame
        });
        let request = request.body(body.boxed_unsync()).map_err(|error| S3Error::Request(error.to_string()))?;
        let broke = |error: hyper::Error| S3Error::Connection(error.to_string());
        let work = async {
            self.sender.ready().await.map_err(broke)?;
            let response = self.sender.send_request(request).await.map_err(broke)?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(broke)?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        let stalled = || Err(S3Error::Connection(format!("nothing moved on it for {} s", STALL.as_secs())));
        unless_stalled(STALL, &sent, work).await.unwrap_or_else(stalled)
    }
}

/// Where an object's digest is kept with it.
const SHA256_HEADER: &str = "x-amz-meta-sha256";

fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> RequestBody {
    full(Bytes::new())
}

fn refused(what: &str, answer: &Answer) -> S3Error {
    let text = String::from_utf8_lossy(&answer.body);
    let between = |open: &str, close: &str| Some(text.split_once(open)?.1.split_once(close)?.0.to_owned());
    let message = between("<Message>", "</Message>").unwrap_or_else(|| "no reason given".to_owned());
    S3Error::Refused { what: what.to_owned(), status: answer.status, message }
}
