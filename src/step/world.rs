//! The world of one environment.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::cluster::Provider;
use crate::cluster::guard::Identity;
use crate::context::Context;
pub use crate::environments::reserved_name;
use crate::image::Images;
use crate::journal::Journal;
use crate::kube::client::KubeClient;
use crate::ports::docker::DockerEngine;
use crate::ports::engine::{Container, EngineError, KIND_CLUSTER_LABEL, OWNER_LABEL};
use crate::ports::kube::KubeError;
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
    /// Where its cluster comes from.
    pub provider: Provider,
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
    /// The world of an environment on this machine: the engine that docker's CLI would use, real processes, the provider
    /// that its journal names. Nothing is asked yet.
    pub fn real(ctx: &Context, environment: &str) -> Self {
        let engine = Arc::new(DockerEngine::find(&ctx.vars, &ctx.dirs.home));
        let world = Self::new(ctx, environment, engine, Arc::new(ProcessRunner::new(ctx.cancel.clone(), environment)));
        let recorded = world.journal().and_then(|journal| journal.provider());
        world.on(recorded.unwrap_or_default())
    }

    /// The world of an environment on an engine.
    pub fn new(ctx: &Context, environment: &str, engine: Arc<dyn Engine>, runner: Arc<dyn Runner>) -> Self {
        Self {
            ctx: ctx.clone(),
            environment: environment.to_owned(),
            dir: ctx.dirs.environment(environment),
            provider: Provider::default(),
            engine,
            runner,
            images: None,
            kube: Arc::default(),
            open: None,
        }
    }

    /// Has its cluster from this provider.
    #[must_use]
    pub fn on(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// What can be read of the environment's journal; damage is told of by whoever opens it to go on with it. `None`
    /// where nothing can be read.
    pub(crate) fn journal(&self) -> Option<Journal> {
        Journal::salvage(&self.dir, self.ctx.fs.clone()).ok().map(|(journal, _)| journal)
    }

    /// The cluster that the environment is bound to; `None` before its first API server answered.
    pub fn identity(&self) -> Option<Identity> {
        self.journal()?.cluster()
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

    /// The container of a kind cluster's control plane, which is also its node's name.
    pub fn control_plane(&self) -> String {
        format!("{}-control-plane", self.reserved_name())
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
    /// Whatever the attempt says; trying again later is up to the caller. [`KubeError::OtherCluster`] where it is not
    /// the cluster that the environment is bound to; then the connection is not kept.
    pub async fn connect(&self, kubeconfig: &str) -> Result<(), KubeError> {
        let kube: Arc<dyn Kube> = match &self.open {
            Some(open) => open(kubeconfig),
            None => Arc::new(KubeClient::of_kubeconfig(kubeconfig, None, &self.ctx.vars).await?),
        };
        Identity::read(&*kube).await?.expect(self.identity().as_ref())?;
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
        if self.provider != Provider::Kind {
            return Ok(None);
        }
        let label = format!("{OWNER_LABEL}={}", self.environment);
        let networks = self.engine.networks(Some(&label)).await?;
        let network = networks.into_iter().find(|network| network.name == self.reserved_name());
        Ok(network.and_then(|network| pool_of(network.subnets.first()?)))
    }

    /// The node containers of the environment's kind cluster, by name; none where its cluster is no kind cluster, and
    /// then the engine is not asked.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn nodes(&self) -> Result<Vec<Container>, EngineError> {
        if self.provider != Provider::Kind {
            return Ok(Vec::new());
        }
        self.engine.containers(Some(&format!("{KIND_CLUSTER_LABEL}={}", self.reserved_name()))).await
    }
}
