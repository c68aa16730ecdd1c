//! Talking to registries: one host is greeted once, and one that does not answer is not asked again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tokio::sync::OnceCell;

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::error::RegistryError;
use crate::image::mirror::Mirrors;
use crate::image::reference::{DEFAULT_REGISTRY, Reference};
use crate::oci::{Digest, media};
use crate::ports::engine::Login;
use crate::ports::{Clock, Runner};

/// How patient the client is.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For a whole answer that is small: a greeting, a token, a manifest.
    pub answer: Duration,
    /// Between two pieces of a blob.
    pub stall: Duration,
    /// Failures in a row after which a blob is given up.
    pub attempts: u32,
    /// Before the second attempt; doubled before each further one.
    pub backoff: Duration,
    /// The longest that a registry's `Retry-After` is followed.
    pub longest_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            attempts: 5,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
        }
    }
}

/// What a repository is asked to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

impl Access {
    /// The scope that a token is asked for.
    fn scope(self, reference: &Reference) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        };
        format!("repository:{}:{actions}", reference.repository())
    }
}

/// Larger than any manifest that registries accept.
const MAX_DOCUMENT: usize = 4 << 20;

/// A client for all registries of a run.
pub struct Client {
    secure: reqwest::Client,
    plain: reqwest::Client,
    mirrors: Mirrors,
    credentials: Credentials,
    runner: Arc<dyn Runner>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
}

#[derive(Default)]
struct Host {
    greeting: OnceCell<Result<Challenge, RegistryError>>,
    login: OnceCell<Option<Login>>,
    /// Tokens by scope.
    tokens: tokio::sync::Mutex<HashMap<String, String>>,
}

/// A manifest or index as it came, its digest computed and checked.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Client {
    /// A client; `None` of its parts is asked before it is needed.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(
        mirrors: Mirrors,
        credentials: Credentials,
        runner: Arc<dyn Runner>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, RegistryError> {
        // Another part of the process may have installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("devstack/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.connect)
        };
        let broken =
            |error: reqwest::Error| RegistryError::Protocol { host: "TLS".to_owned(), reason: innermost(&error) };
        Ok(Self {
            secure: builder().https_only(true).build().map_err(broken)?,
            plain: builder().no_proxy().build().map_err(broken)?,
            mirrors,
            credentials,
            runner,
            hosts: Mutex::default(),
            clock,
            limits,
        })
    }

    /// Fetches what a reference names, without following an index.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn document(&self, reference: &Reference) -> Result<Document, RegistryError> {
        let host = reference.registry();
        let version = reference.version();
        let what = format!("{}:{version}", reference.repository()).replace(":sha256:", "@sha256:");
        let path = format!("{}/manifests/{version}", reference.repository());
        let accept = [media::INDEX, media::MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST].join(", ");
        let prepare = |request: RequestBuilder| request.header(ACCEPT, &accept).timeout(self.limits.answer);
        let response = self.request(Access::Pull, Method::GET, reference, &path, &what, &prepare).await?;
        let media_type = header(response.headers(), CONTENT_TYPE.as_str())
            .map(|text| text.split(';').next().unwrap_or_default().trim().to_owned())
            .unwrap_or_default();
        let bytes = self.small_body(host, response).await?;
        let digest = Digest::of(&bytes);
        match reference.digest() {
            Some(expected) if *expected != digest => Err(RegistryError::DigestMismatch {
                host: host.to_owned(),
                expected: expected.to_string(),
                actual: digest.to_string(),
            }),
            _ => Ok(Document { media_type, digest, bytes }),
        }
    }

    /// Opens a blob from an offset; the answer is 206 where the registry can begin there, else 200.
    pub(super) async fn open_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        offset: u64,
    ) -> Result<Response, RegistryError> {
        let what = format!("{}@{digest}", reference.repository());
        let prepare = |request: RequestBuilder| match offset {
            0 => request,
            offset => request.header(RANGE, format!("bytes={offset}-")),
        };
        let path = format!("{}/blobs/{digest}", reference.repository());
        let open = self.request(Access::Pull, Method::GET, reference, &path, &what, &prepare);
        let host = reference.registry();
        tokio::time::timeout(self.limits.stall, open).await.unwrap_or_else(|_| Err(slow(host, self.limits.stall)))
    }

    /// A small blob, its digest checked.
    pub(super) async fn small_blob(&self, reference: &Reference, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let host = reference.registry();
        let response = self.open_blob(reference, digest, 0).await?;
        let bytes = self.small_body(host, response).await?;
        let actual = Digest::of(&bytes);
        if actual == *digest {
            return Ok(bytes);
        }
        let (expected, actual) = (digest.to_string(), actual.to_string());
        Err(RegistryError::DigestMismatch { host: host.to_owned(), expected, actual })
    }

    async fn small_body(&self, host: &str, mut response: Response) -> Result<Vec<u8>, RegistryError> {
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(host, &error))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > MAX_DOCUMENT {
                    let reason = format!("a document is larger than {MAX_DOCUMENT} bytes");
                    return Err(RegistryError::Protocol { host: host.to_owned(), reason });
                }
            }
            Ok(bytes)
        };
        tokio::time::timeout(self.limits.answer, read).await.unwrap_or_else(|_| Err(slow(host, self.limits.answer)))
    }

    /// Asks for `/v2/PATH`, or a whole URL of the same host, with whatever login the host wants. A token that ran out
    /// is renewed once. A login is never sent to another host than the reference's.
    pub(super) async fn request(
        &self,
        access: Access,
        method: Method,
        reference: &Reference,
        path: &str,
        what: &str,
        prepare: &(dyn Fn(RequestBuilder) -> RequestBuilder + Send + Sync),
    ) -> Result<Response, RegistryError> {
        let name = reference.registry();
        let host = self.host(name);
        let mut challenge = host.greeting.get_or_init(|| self.greet(name)).await.clone()?;
        let base = self.base(name);
        let url = if path.contains("://") { path.to_owned() } else { format!("{base}/v2/{path}") };
        let ours = url.starts_with(&format!("{base}/"));
        let mut renewed = false;
        loop {
            let mut request = prepare(self.http(name).request(method.clone(), &url));
            match &challenge {
                _ if !ours => {}
                Challenge::Open => {}
                Challenge::Basic => {
                    if let Some(Login::Password { user, password }) = self.login(&host, name).await {
                        request = request.basic_auth(user, Some(password));
                    }
                }
                Challenge::Bearer { realm, service } => {
                    let token = self.token(&host, access, reference, realm, service.as_deref()).await?;
                    request = request.header(AUTHORIZATION, format!("Bearer {token}"));
                }
            }
            let response = request.send().await.map_err(|error| self.failed(name, &error))?;
            if response.status() == StatusCode::UNAUTHORIZED && ours && !renewed {
                renewed = true;
                match &challenge {
                    // A registry may greet everybody and keep some repositories to those who log in.
                    Challenge::Open => {
                        if let Some(asked) = challenge_of(&response) {
                            challenge = asked;
                            continue;
                        }
                    }
                    Challenge::Bearer { .. } => {
                        host.tokens.lock().await.remove(&access.scope(reference));
                        continue;
                    }
                    Challenge::Basic => {}
                }
            }
            return accept(name, what, response);
        }
    }

    /// Asks a host how it wants to be spoken to; that it answers at all is what later requests rely on.
    async fn greet(&self, host: &str) -> Result<Challenge, RegistryError> {
        let request = self.http(host).get(format!("{}/v2/", self.base(host))).timeout(self.limits.answer);
        let response = request.send().await.map_err(|error| self.failed(host, &error))?;
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                let reason = "it wants a kind of login that devstack does not know".to_owned();
                challenge_of(&response).ok_or(RegistryError::Protocol { host: host.to_owned(), reason })
            }
            StatusCode::TOO_MANY_REQUESTS => Err(rate_limited(host, response.headers())),
            status if status.is_server_error() => Err(unavailable(host, status)),
            // Some registries have no greeting page and need no login.
            _ => Ok(Challenge::Open),
        }
    }

    async fn token(
        &self,
        host: &Host,
        access: Access,
        reference: &Reference,
        realm: &str,
        service: Option<&str>,
    ) -> Result<String, RegistryError> {
        let scope = access.scope(reference);
        let mut tokens = host.tokens.lock().await;
        if let Some(token) = tokens.get(&scope) {
            return Ok(token.clone());
        }
        let name = reference.registry();
        let login = self.login(host, name).await;
        let token = match self.fetch_token(&scope, reference, realm, service, login.as_ref()).await {
            // A login that ran out does not keep anybody from what is public.
            Err(RegistryError::Unauthorized { .. }) if login.is_some() => {
                self.fetch_token(&scope, reference, realm, service, None).await?
            }
            other => other?,
        };
        tokens.insert(scope, token.clone());
        Ok(token)
    }

    async fn fetch_token(
        &self,
        scope: &str,
        reference: &Reference,
        realm: &str,
        service: Option<&str>,
        login: Option<&Login>,
    ) -> Result<String, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let host = reference.registry();
        let protocol = |reason: &str| RegistryError::Protocol { host: host.to_owned(), reason: reason.to_owned() };
        let mut fields = vec![("scope", scope), ("client_id", "devstack")];
        fields.extend(service.map(|service| ("service", service)));
        let url = |fields: &[(&str, &str)]| {
            reqwest::Url::parse_with_params(realm, fields).map_err(|_| protocol("its token service is no URL"))
        };
        let request = match login {
            Some(Login::Identity(token)) => {
                fields.extend([("grant_type", "refresh_token"), ("refresh_token", token.as_str())]);
                let body = url(&fields)?.query().unwrap_or_default().to_owned();
                let form = "application/x-www-form-urlencoded";
                self.http(host).post(url(&[])?).header(CONTENT_TYPE, form).body(body)
            }
            Some(Login::Password { user, password }) => {
                self.http(host).get(url(&fields)?).basic_auth(user, Some(password))
            }
            None => self.http(host).get(url(&fields)?),
        };
        let response = request.timeout(self.limits.answer).send().await.map_err(|error| self.failed(host, &error))?;
        let response = accept(host, &format!("a token for {}", reference.repository()), response)?;
        let bytes = self.small_body(host, response).await?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|_| protocol("its token service answers no token"))?;
        answer.token.or(answer.access_token).ok_or_else(|| protocol("its token service answers no token"))
    }

    /// The user's login for a host; its helper is asked once.
    pub(in crate::image) async fn login_for(&self, name: &str) -> Option<Login> {
        self.login(&self.host(name), name).await
    }

    async fn login(&self, host: &Host, name: &str) -> Option<Login> {
        host.login.get_or_init(|| self.credentials.find(name, self.runner.as_ref())).await.clone()
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(name.to_owned()).or_default())
    }

    fn http(&self, host: &str) -> &reqwest::Client {
        if self.mirrors.is_plain(host) { &self.plain } else { &self.secure }
    }

    fn base(&self, host: &str) -> String {
        match host {
            DEFAULT_REGISTRY => "https://registry-1.docker.io".to_owned(),
            host if self.mirrors.is_plain(host) => format!("http://{host}"),
            host => format!("https://{host}"),
        }
    }

    /// What a failed request means.
    pub(super) fn failed(&self, host: &str, error: &reqwest::Error) -> RegistryError {
        let host = host.to_owned();
        if error.is_connect() {
            let reason = match error.is_timeout() {
                true => format!("no connection within {} s", self.limits.connect.as_secs()),
                false => innermost(error),
            };
            return RegistryError::Unreachable { host, reason };
        }
        if error.is_timeout() {
            return slow(&host, self.limits.answer);
        }
        RegistryError::Protocol { host, reason: innermost(error) }
    }
}

/// How an answer says that it wants to be logged in to.
fn challenge_of(response: &Response) -> Option<Challenge> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE);
    headers.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse)
}

/// Turns a status into an error where it is one.
fn accept(host: &str, what: &str, response: Response) -> Result<Response, RegistryError> {
    let (host_name, what) = (host.to_owned(), what.to_owned());
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(RegistryError::NotFound { host: host_name, what }),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(RegistryError::Unauthorized { host: host_name, what, status: status.as_u16() })
        }
        StatusCode::TOO_MANY_REQUESTS => Err(rate_limited(host, response.headers())),
        status if status.is_server_error() => Err(unavailable(host, status)),
        status => Err(RegistryError::Protocol { host: host_name, reason: format!("it answered {status}") }),
    }
}

fn unavailable(host: &str, status: StatusCode) -> RegistryError {
    RegistryError::Unavailable { host: host.to_owned(), status: status.as_u16() }
}

fn rate_limited(host: &str, headers: &HeaderMap) -> RegistryError {
    // The other form, a date, is not in use among registries.
    let retry_after = header(headers, RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    RegistryError::RateLimited { host: host.to_owned(), retry_after }
}

pub(super) fn slow(host: &str, after: Duration) -> RegistryError {
    RegistryError::Slow { host: host.to_owned(), seconds: after.as_secs() }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The innermost cause of an error; the outer ones repeat the URL and that something failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
