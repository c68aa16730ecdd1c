//! The world of one environment.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::image::Images;
use crate::kube::client::KubeClient;
use crate::ports::docker::DockerEngine;
use crate::ports::engine::{Container, EngineError, KIND_CLUSTER_LABEL, OWNER_LABEL};
use crate::ports::kube::{KubeError, ObjectKey};
use crate::ports::runner::ProcessRunner;
use crate::ports::{Engine, Kube, Runner};
use crate::step::StepError;
use crate::step::network::pool_of;

/// Opens an API server by the text of a kubeconfig; a fake one in tests.
pub type OpenKube = Arc<dyn Fn(&str) -> Arc<dyn Kube> + Send + Sync>;

/// What the steps of an environment change: its engine, its cluster, its directory on the host.
#[derive(Clone)]
pub struct World {
    /// The command's context.
    pub ctx: Context,
    /// The environment's name.
    pub environment: String,
    /// The environment's directory.
    pub dir: PathBuf,
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// Child processes, marked with the environment.
    pub runner: Arc<dyn Runner>,
    /// Images and the places they come from; `None` for verbs that need none.
    pub images: Option<Arc<Images>>,
    kube: Arc<Mutex<Option<Arc<dyn Kube>>>>,
    open: Option<OpenKube>,
}

impl World {
    /// The world of an environment on this machine: the engine that docker's CLI would use, real processes. Nothing is
    /// asked yet.
    pub fn real(ctx: &Context, environment: &str) -> Self {
        let engine = Arc::new(DockerEngine::find(&ctx.vars, &ctx.dirs.home));
        Self::new(ctx, environment, engine, Arc::new(ProcessRunner::new(ctx.cancel.clone(), environment)))
    }

    /// The world of an environment on an engine.
    pub fn new(ctx: &Context, environment: &str, engine: Arc<dyn Engine>, runner: Arc<dyn Runner>) -> Self {
        Self {
            ctx: ctx.clone(),
            environment: environment.to_owned(),
            dir: ctx.dirs.environment(environment),
            engine,
            runner,
            images: None,
            kube: Arc::default(),
            open: None,
        }
    }

    /// Takes images from these places.
    #[must_use]
    pub fn with_images(mut self, images: Images) -> Self {
        self.images = Some(Arc::new(images));
        self
    }

    /// Images and the places they come from.
    ///
    /// # Errors
    /// Where the verb was not given any; a defect.
    pub fn images(&self) -> Result<&Images, StepError> {
        self.images.as_deref().ok_or_else(|| StepError::message("no place to take images from"))
    }

    /// Opens API servers through `open`.
    #[must_use]
    pub fn with_kube(mut self, open: OpenKube) -> Self {
        self.open = Some(open);
        self
    }

    /// The reserved name of everything of this environment: its cluster, network and kubeconfig context.
    pub fn reserved_name(&self) -> String {
        reserved_name(&self.environment)
    }

    /// devstack's own kubeconfig file for the environment.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The API server that [`World::connect`] found.
    ///
    /// # Errors
    /// [`KubeError::Config`] before a connection was made.
    pub fn kube(&self) -> Result<Arc<dyn Kube>, KubeError> {
        let kube = self.kube.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kube.clone().ok_or_else(|| KubeError::Config { reason: "the cluster is not there yet".to_owned() })
    }

    /// Connects with the text of a kubeconfig and keeps the connection for the steps that follow, once the server
    /// answers and lets this user read namespaces (kubeadm grants that a moment after the server starts).
    ///
    /// # Errors
    /// Whatever the attempt says; trying again later is up to the caller.
    pub async fn connect(&self, kubeconfig: &str) -> Result<(), KubeError> {
        let kube: Arc<dyn Kube> = match &self.open {
            Some(open) => open(kubeconfig),
            None => Arc::new(KubeClient::of_kubeconfig(kubeconfig, None).await?),
        };
        let namespace = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            namespace: None,
            name: "kube-system".to_owned(),
        };
        if kube.get(&namespace).await?.is_none() {
            return Err(KubeError::Unreachable { server: kube.server(), reason: "it is still starting".to_owned() });
        }
        *self.kube.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(kube);
        Ok(())
    }

    /// Connects with devstack's own kubeconfig file of a cluster that was made before.
    ///
    /// # Errors
    /// As [`World::connect`]; [`KubeError::Config`] where there is no such file.
    pub async fn reconnect(&self) -> Result<(), KubeError> {
        let path = self.kubeconfig();
        let text = self.ctx.fs.read(&path).map_err(|error| KubeError::Config { reason: error.to_string() })?;
        let text = text.ok_or_else(|| KubeError::Config { reason: format!("{} is not there", path.display()) })?;
        self.connect(&String::from_utf8_lossy(&text)).await
    }

    /// The addresses that a load balancer of the environment may hand out; `None` before its network is there.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn pool(&self) -> Result<Option<String>, EngineError> {
        let label = format!("{OWNER_LABEL}={}", self.environment);
        let networks = self.engine.networks(Some(&label)).await?;
        let network = networks.into_iter().find(|network| network.name == self.reserved_name());
        Ok(network.and_then(|network| pool_of(network.subnets.first()?)))
    }

    /// The node containers of the environment's kind cluster, by name.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn nodes(&self) -> Result<Vec<Container>, EngineError> {
        self.engine.containers(Some(&format!("{KIND_CLUSTER_LABEL}={}", self.reserved_name()))).await
    }
}

/// The reserved name of everything of an environment.
pub fn reserved_name(environment: &str) -> String {
    format!("devstack-{environment}")
}
