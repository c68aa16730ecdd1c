//! The [`Kube`] port over kube-rs. Objects stay JSON: devstack applies what profiles declare, of any kind.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client};
use serde_json::Value;

use super::proxy;
use crate::context::Vars;
use crate::error::chain;
use crate::ports::kube::{Duplex, FIELD_MANAGER, Kube, KubeError, ObjectKey};

/// How long a stream to a pod may take to open; once it is open it may be silent for as long as its user lets it.
const OPENING: Duration = Duration::from_secs(30);

/// A connected API server. What kinds it serves is asked once per group and version.
pub struct KubeClient {
    client: Client,
    /// As `client`, for connections that may be silent for as long as they like: while an image is sent, nothing comes
    /// back.
    streams: Client,
    server: String,
    kinds: Mutex<HashMap<String, Vec<APIResource>>>,
}

impl KubeClient {
    /// Connects with one context of a kubeconfig, its current context when `context` is `None`; `vars` may name a proxy.
    ///
    /// # Errors
    /// [`KubeError::Config`] where the kubeconfig does not parse or lacks the context, [`KubeError::Proxy`] where the
    /// proxy to its server cannot be used. No request is made.
    pub async fn of_kubeconfig(text: &str, context: Option<&str>, vars: &Vars) -> Result<Self, KubeError> {
        let refuse = |reason: String| KubeError::Config { reason };
        let kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| refuse(error.to_string()))?;
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let stated = proxy::stated(&kubeconfig, context);
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| match &error {
                KubeconfigError::ParseProxyUrl(_) | KubeconfigError::ParseNoProxy(_) => {
                    KubeError::Proxy { reason: chain(&error) }
                }
                _ => refuse(error.to_string()),
            })?;
        // kube-rs sends servers of this machine through the proxy of the environment, and holds NO_PROXY against the
        // proxy instead of the server.
        config.proxy_url = proxy::to(&config.cluster_url, stated.as_deref(), vars)?;
        config.connect_timeout = Some(Duration::from_secs(3));
        let mut patient = config.clone();
        patient.read_timeout = None;
        config.read_timeout = Some(Duration::from_secs(30));
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| refuse(error.to_string()))?;
        let streams = Client::try_from(patient).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { client, streams, server, kinds: Mutex::default() })
    }

    fn explain(&self, what: impl Into<String>, error: kube::Error) -> KubeError {
        let what = what.into();
        match error {
            kube::Error::Api(status) => KubeError::Refused { what, code: status.code, reason: status.message.clone() },
            kube::Error::HyperError(_) | kube::Error::Service(_) => {
                KubeError::Unreachable { server: self.server.clone(), reason: chain(&error) }
            }
            other => KubeError::Other { what, reason: chain(&other) },
        }
    }

    async fn kind(&self, api_version: &str, kind: &str) -> Result<APIResource, KubeError> {
        let known =
            |kinds: &[APIResource]| kinds.iter().find(|one| one.kind == kind && !one.name.contains('/')).cloned();
        if let Some(found) = lock(&self.kinds).get(api_version).and_then(|kinds| known(kinds)) {
            return Ok(found);
        }
        let what = || format!("look up {api_version} {kind}");
        let list = if api_version.contains('/') {
            self.client.list_api_group_resources(api_version).await
        } else {
            self.client.list_core_api_resources(api_version).await
        };
        let unknown = || KubeError::UnknownKind { what: what(), kind: format!("{api_version}/{kind}") };
        let kinds = match list {
            Ok(list) => list.resources,
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(unknown()),
            Err(error) => return Err(self.explain(what(), error)),
        };
        let found = known(&kinds).ok_or_else(unknown)?;
        lock(&self.kinds).insert(api_version.to_owned(), kinds);
        Ok(found)
    }

    async fn path(&self, key: &ObjectKey) -> Result<String, KubeError> {
        let resource = self.kind(&key.api_version, &key.kind).await?;
        let base = base(&key.api_version);
        Ok(match &key.namespace {
            Some(namespace) if resource.namespaced => {
                format!("{base}/namespaces/{namespace}/{}/{}", resource.name, key.name)
            }
            _ => format!("{base}/{}/{}", resource.name, key.name),
        })
    }

    async fn send(&self, what: String, method: Method, path: &str, body: Option<&Value>) -> Result<Value, KubeError> {
        let content = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content)
            .body(bytes)
            .map_err(|error| KubeError::Other { what: what.clone(), reason: error.to_string() })?;
        self.client.request::<Value>(request).await.map_err(|error| self.explain(what, error))
    }

    async fn patch(&self, object: &Value, suffix: &str) -> Result<Value, KubeError> {
        let key = ObjectKey::of(object).ok_or_else(|| KubeError::Other {
            what: "apply an object".to_owned(),
            reason: "it lacks apiVersion, kind or metadata.name".to_owned(),
        })?;
        let path = self.path(&key).await?;
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force=true{suffix}");
        self.send(format!("apply {key}"), Method::PATCH, &path, Some(object)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn base(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}

fn encode(selector: &str) -> String {
    selector.replace(',', "%2C").replace('=', "%3D").replace(' ', "%20")
}

#[async_trait]
impl Kube for KubeClient {
    fn server(&self) -> String {
        self.server.clone()
    }

    async fn version(&self) -> Result<String, KubeError> {
        let info = self.client.apiserver_version().await;
        Ok(info.map_err(|error| self.explain("read the server's version", error))?.git_version)
    }

    async fn apply(&self, object: &Value) -> Result<Value, KubeError> {
        self.patch(object, "").await
    }

    async fn apply_dry_run(&self, object: &Value) -> Result<Value, KubeError> {
        self.patch(object, "&dryRun=All").await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, KubeError> {
        let found = match self.path(key).await {
            Ok(path) => self.send(format!("read {key}"), Method::GET, &path, None).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(object) => Ok(Some(object)),
            Err(KubeError::Refused { code: 404, .. } | KubeError::UnknownKind { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, KubeError> {
        let resource = match self.kind(api_version, kind).await {
            Ok(resource) => resource,
            Err(KubeError::UnknownKind { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let base = base(api_version);
        let mut path = match namespace {
            Some(namespace) if resource.namespaced => format!("{base}/namespaces/{namespace}/{}", resource.name),
            _ => format!("{base}/{}", resource.name),
        };
        if !selector.is_empty() {
            path = format!("{path}?labelSelector={}", encode(selector));
        }
        let mut list = self.send(format!("list {kind}"), Method::GET, &path, None).await?;
        let items = match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        // Items of a list carry no type of their own.
        Ok(items
            .into_iter()
            .map(|mut item| {
                if let Some(fields) = item.as_object_mut() {
                    fields.insert("apiVersion".to_owned(), api_version.into());
                    fields.insert("kind".to_owned(), kind.into());
                }
                item
            })
            .collect())
    }

    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), KubeError> {
        let mut options = serde_json::json!({"propagationPolicy": "Foreground"});
        if let Some(uid) = uid {
            options["preconditions"] = serde_json::json!({"uid": uid});
        }
        let deleted = match self.path(key).await {
            Ok(path) => self.send(format!("delete {key}"), Method::DELETE, &path, Some(&options)).await,
            Err(error) => Err(error),
        };
        match deleted {
            Ok(_) | Err(KubeError::Refused { code: 404, .. } | KubeError::UnknownKind { .. }) => Ok(()),
            // What has the name now is another object.
            Err(KubeError::Refused { code: 409, .. }) if uid.is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: i64,
        previous: bool,
    ) -> Result<String, KubeError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let options = kube::api::LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(lines),
            previous,
            ..kube::api::LogParams::default()
        };
        let text = pods.logs(pod, &options).await;
        text.map_err(|error| self.explain(format!("read the log of {namespace}/{pod} {container}"), error))
    }

    async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<Box<dyn Duplex>, KubeError> {
        let what = || format!("forward to port {port} of {namespace}/{pod}");
        let pods: Api<Pod> = Api::namespaced(self.streams.clone(), namespace);
        let forwarder = tokio::time::timeout(OPENING, pods.portforward(pod, &[port])).await.map_err(|_| {
            KubeError::Unreachable { server: self.server.clone(), reason: format!("{} did not open", what()) }
        })?;
        let mut forwarder = forwarder.map_err(|error| self.explain(what(), error))?;
        let stream = forwarder
            .take_stream(port)
            .ok_or_else(|| KubeError::Other { what: what(), reason: "the server opened no stream".to_owned() })?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_behind_a_proxy_is_asked_for_through_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = |more: &str| {
            format!(
                "{{clusters: [{{name: c, cluster: {{server: 'https://k8s.example.com:6443'{more}}}}}], \
                 contexts: [{{name: a, context: {{cluster: c}}}}], current-context: a}}"
            )
        };
        let stated = kubeconfig(&format!(", proxy-url: '{proxy}'"));
        for (text, vars) in [(stated, Vars::default()), (kubeconfig(""), Vars::from([("HTTPS_PROXY", &*proxy)]))] {
            let kube = KubeClient::of_kubeconfig(&text, None, &vars).await.unwrap();
            let asked = tokio::spawn(async move { kube.version().await.is_err() });
            let accepted = tokio::time::timeout(Duration::from_secs(10), listener.accept()).await;
            let (stream, _) = accepted.expect("it is asked for without the proxy").unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await.unwrap();
            assert_eq!(line.trim_end(), "CONNECT k8s.example.com:6443 HTTP/1.1");
            asked.abort();
        }
    }
}
