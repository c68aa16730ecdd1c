//! One component of a profile, from its file to its resolved form.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::yaml::YamlError;

use super::condition;
use super::document::{Document, objects};
use super::error::ProfileError;
use super::load::{Request, problem, version};
use super::merge::MergedUse;
use super::parameter::check_definition;
use super::resolved::{ContentSpec, ManifestTemplate, Ready, ResolvedComponent};
use super::schema::{ComponentFile, Manifest};
use super::scope::Scope;
use super::source::{Library, Origin, Place, SourceFile, is_name};
use super::world::{Bindings, Env, Frame, Trace, World};

/// The ability to give Services of type LoadBalancer an address.
pub(super) const BALANCER: &str = "load-balancer";

/// A component on its way.
pub(super) struct Draft {
    pub(super) file: ComponentFile,
    pub(super) origin: Origin,
    pub(super) requires: BTreeSet<String>,
    /// Whether its parameters are wrong, so that what follows from them would only repeat that.
    pub(super) wrong: bool,
    pub(super) instance: String,
    pub(super) namespace: String,
    pub(super) place: Place,
    pub(super) manifests: Vec<Document>,
    pub(super) image_overrides: BTreeMap<String, String>,
    pub(super) credentials: Vec<String>,
    pub(super) content: Vec<ContentSpec>,
    pub(super) ready: Vec<Ready>,
    /// The Services whose addresses its objects hold, as `namespace/name`.
    pub(super) addresses: BTreeSet<String>,
    pub(super) memory: u64,
    pub(super) disk: u64,
}

/// What the profile says about a component.
pub(super) struct Surroundings<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) used: &'a MergedUse,
    pub(super) settings: &'a BTreeMap<&'a str, &'a str>,
}

impl Draft {
    /// Reads the component's files; `None` where they are too wrong to go on.
    pub(super) fn read(
        library: &Library<'_>,
        used: &MergedUse,
        source: &SourceFile,
        place: Place,
        problems: &mut Vec<YamlError>,
    ) -> Result<Option<Self>, ProfileError> {
        let file: ComponentFile = match source.to_type() {
            Ok(file) => file,
            Err(problem) => {
                problems.push(problem);
                return Ok(None);
            }
        };
        let origin = source.origin::<&str>(&[]);
        if file.name != used.component {
            let message = format!("the name is `{}` and the directory is called `{}`", file.name, used.component);
            problems.push(origin.below(&["name"]).problem(message));
        }
        let namespace = file.namespace.clone().unwrap_or_else(|| used.instance.clone());
        if !is_name(&namespace) {
            problems.push(origin.below(&["namespace"]).problem(format!("`{namespace}` is no namespace")));
        }
        for (name, parameter) in &file.parameters {
            let mut mistakes = Vec::new();
            check_definition(parameter, &mut Vec::new(), &mut mistakes);
            let at = origin.below(&["parameters", name]);
            problems.extend(mistakes.into_iter().map(|(path, message)| at.below(&path).problem(message)));
        }
        if let Some(range) = &file.kubernetes {
            for (key, text) in [("min", &range.min), ("max", &range.max)] {
                if let Some(text) = text.as_ref().filter(|text| version(text).is_none()) {
                    let at = origin.below(&["kubernetes", key]);
                    problems.push(at.problem(format!("expected a version such as 1.34, found `{text}`")));
                }
            }
        }
        let mut manifests = Vec::new();
        for (index, manifest) in file.manifests.iter().enumerate() {
            let at = origin.below(&["manifests", &index.to_string(), "file"]);
            match library.manifest(&place, &manifest.file) {
                Ok(Some((source, documents))) => {
                    documents.into_iter().for_each(|marked| objects(index, &source, marked, &mut manifests, problems));
                }
                Ok(None) => problems.push(at.problem(format!("there is no file `{}` beside it", manifest.file))),
                Err(ProfileError::Invalid { problems: found }) => problems.extend(found),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Self {
            origin,
            requires: BTreeSet::new(),
            wrong: false,
            instance: used.instance.clone(),
            namespace,
            place,
            manifests,
            image_overrides: BTreeMap::new(),
            credentials: Vec::new(),
            content: Vec::new(),
            ready: Vec::new(),
            addresses: BTreeSet::new(),
            memory: 0,
            disk: 0,
            file,
        }))
    }

    /// What it counts as for those that require it.
    pub(super) fn provides(&self) -> impl Iterator<Item = &str> {
        [&*self.instance, &*self.file.name].into_iter().chain(self.file.provides.iter().map(String::as_str))
    }

    /// Whether it gives Services of type LoadBalancer an address.
    pub(super) fn balances(&self) -> bool {
        self.provides().any(|ability| ability == BALANCER)
    }

    /// What is known of it before its parameters are.
    pub(super) fn frame(&self) -> Frame {
        Frame {
            namespace: self.namespace.clone(),
            images: self.file.images.clone(),
            outputs: self.file.outputs.clone(),
            ..Frame::default()
        }
    }

    /// Checks outputs, whose late values stay open. Whether the addresses in them are ever known counts where they are
    /// used.
    pub(super) fn check_outputs(&self, world: &World, problems: &mut Vec<YamlError>) {
        if self.wrong {
            return;
        }
        let (none, late) = (Bindings::new(), Scope::new());
        let env = Env::new(world, Some(&self.instance), &none, &late);
        for (name, template) in &self.file.outputs {
            if let Err(error) = env.lenient(template) {
                problems.push(problem(&self.origin.below(&["outputs", name]), &error));
            }
        }
    }

    /// Checks manifests, whose late values stay open, and finds the addresses of Services that they hold.
    pub(super) fn check_manifests(&mut self, world: &World, problems: &mut Vec<YamlError>) {
        if self.wrong {
            return;
        }
        let (none, late, trace) = (Bindings::new(), Scope::new(), Trace::default());
        let env = Env { trace: Some(&trace), ..Env::new(world, Some(&self.instance), &none, &late) };
        for (index, Manifest { when, loops, .. }) in self.file.manifests.iter().enumerate() {
            let at = self.origin.below(&["manifests", &index.to_string()]);
            let rounds = match condition::rounds(loops, env, true) {
                Ok(rounds) => rounds,
                Err(error) => {
                    problems.push(problem(&at.below(&["for"]), &error));
                    continue;
                }
            };
            for bindings in rounds {
                let env = Env { bindings: &bindings, ..env };
                match condition::holds(when.as_ref(), env) {
                    Ok(Some(false)) => continue,
                    Ok(_) => {}
                    Err(error) => problems.push(at.below(&["when"]).problem(error.to_string())),
                }
                for document in self.manifests.iter().filter(|document| document.index == index) {
                    if let Err(error) = env.lenient(&document.object) {
                        let path: Vec<_> = error.path().iter().map(String::as_str).collect();
                        problems.push(document.problem(&path, error.to_string()));
                    }
                }
            }
        }
        self.addresses = trace.addresses.into_inner();
    }

    /// The components whose Services' addresses its objects hold.
    pub(super) fn awaits<'a>(&'a self, world: &'a World) -> impl Iterator<Item = (&'a String, &'a String)> {
        self.addresses.iter().filter_map(move |service| Some((service, world.addresses.as_ref()?.get(service)?)))
    }

    /// The resolved form.
    pub(super) fn finish(self, world: &Arc<World>) -> ResolvedComponent {
        let addresses = self.awaits(world).map(|(service, of)| (service.clone(), of.clone())).collect();
        let mut waves: BTreeMap<u8, Vec<ManifestTemplate>> = BTreeMap::new();
        for document in self.manifests {
            let manifest = &self.file.manifests[document.index];
            waves.entry(manifest.wave).or_default().push(ManifestTemplate {
                place: format!("{}:{}", document.source.name, document.marked.place.line),
                object: document.object,
                when: manifest.when.clone(),
                loops: manifest.loops.clone(),
            });
        }
        ResolvedComponent {
            name: self.instance,
            component: self.file.name,
            namespace: self.namespace,
            requires: self.requires,
            provides: self.file.provides,
            images: self.file.images,
            image_overrides: self.image_overrides,
            credentials: self.credentials,
            content: self.content,
            waves: waves.into_values().collect(),
            ready: self.ready,
            addresses,
            outputs: self.file.outputs,
            memory: self.memory,
            disk: self.disk,
            kubernetes: self.file.kubernetes,
            placement: self.file.placement,
            world: Arc::clone(world),
        }
    }
}
