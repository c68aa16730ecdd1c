//! From a source and settings to a [`Resolved`] profile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::ports::HostFs;
use crate::ports::hostfs::RealFs;
use crate::yaml::YamlError;

use super::error::ProfileError;
use super::merge::{self, Merged, Written};
use super::parameter::{self, Base};
use super::resolved::{Resolved, ResolvedRoute, plain};
use super::schema::{Parameter, ParameterType, Route};
use super::scope::{Scope, SubstituteError};
use super::secret::is_secret;
use super::source::{Library, Origin, Place, ProfileSource, builtin_names, is_name};
use super::world::{Bindings, Env, World, cluster_value};

/// What to load.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The profile.
    pub source: &'a ProfileSource,
    /// `--set` as name and value, in the order given; a later one wins.
    pub settings: &'a [(String, String)],
    /// `--nodes`.
    pub nodes: Option<u8>,
    /// What `${facts.…}` reads, such as `{"reachable": true}`. Without it facts count as known later.
    pub facts: Option<&'a Value>,
    /// Where relative paths of settings begin; `.` is the working directory.
    pub cwd: &'a Path,
    /// The host's files.
    pub fs: &'a dyn HostFs,
    /// Whether only the files are checked: parameters without a default get a stand-in.
    pub check_only: bool,
    /// Whether the facts are no more than a guess: that nothing waits for an address is no mistake then.
    pub guessed: bool,
}

impl<'a> Request<'a> {
    /// A profile of this machine with settings and facts.
    pub fn new(source: &'a ProfileSource, settings: &'a [(String, String)], facts: &'a Value) -> Self {
        Self { facts: Some(facts), settings, check_only: false, ..Self::of_files(source) }
    }

    /// Only the files of a profile: no settings, no facts.
    pub fn of_files(source: &'a ProfileSource) -> Self {
        Self {
            source,
            settings: &[],
            nodes: None,
            facts: None,
            cwd: Path::new("."),
            fs: &RealFs,
            check_only: true,
            guessed: false,
        }
    }
}

/// The built-in profiles as name and summary, sorted by name.
pub fn builtins() -> Vec<(String, String)> {
    let library = Library { fs: &RealFs };
    let summary = |name: &String| {
        let merged = merge::read(&library, &ProfileSource::Builtin(name.clone()), &mut Vec::new());
        merged.map(|merged| merged.summary).unwrap_or_default()
    };
    builtin_names().into_iter().map(|name| (name.clone(), summary(&name))).collect()
}

/// Loads a profile with its components and checks all of it.
///
/// # Errors
/// [`ProfileError`]; of mistakes in files all that were found are given at once.
pub fn load(request: &Request<'_>) -> Result<Resolved, ProfileError> {
    let library = Library { fs: request.fs };
    let mut problems = Vec::new();
    let merged = merge::read(&library, request.source, &mut problems)?;
    if !problems.is_empty() {
        return Err(ProfileError::Invalid { problems });
    }
    let mut loader = Loader { library, request, merged: &merged, problems, world: World::default() };
    let (own, of_components) = loader.split_settings()?;
    loader.parameters(&own)?;
    loader.world.profile.clone_from(&merged.name);
    loader.world.facts = request.facts.cloned();
    loader.world.routes = merged.routes.iter().map(|route| route.value.name.clone()).collect();
    let cluster = loader.cluster();
    loader.world.cluster = Some(cluster_value(cluster.nodes, &cluster.kubernetes));
    let mut drafts = loader.components(&of_components)?;
    loader.check_kubernetes(&cluster.kubernetes, &drafts);
    for draft in &drafts {
        draft.check_outputs(&loader.world, &mut loader.problems);
    }
    loader.addresses(&drafts);
    let routes = loader.routes();
    loader.check_verify();
    for draft in &mut drafts {
        draft.check_manifests(&loader.world, &mut loader.problems);
    }
    loader.check_awaited(&drafts);
    if !loader.problems.is_empty() {
        let mut problems = loader.problems;
        loader.world.secrets.hide(&mut problems);
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert(problem.to_string()));
        return Err(ProfileError::Invalid { problems });
    }
    let is_public = |parameter: &Parameter| !is_secret(parameter);
    let own = merged.parameters.iter().filter(|(_, parameter)| is_public(&parameter.value));
    let of_components = drafts.iter().flat_map(|draft| {
        let public = draft.file.parameters.iter().filter(|(_, parameter)| is_public(parameter));
        public.map(|(name, _)| format!("{}.{name}", draft.instance))
    });
    let public: BTreeSet<String> = own.map(|(name, _)| name.clone()).chain(of_components).collect();
    let parameters = loader.world.parameters.iter().filter(|(name, _)| public.contains(*name));
    let parameters = parameters.map(|(name, value)| (name.clone(), value.clone())).collect();
    let settings = request.settings.iter().map(|(name, text)| {
        let of_component = || {
            let (instance, name) = name.split_once('.')?;
            drafts.iter().find(|draft| draft.instance == instance)?.file.parameters.get(name)
        };
        let parameter = merged.parameters.get(name).map(|parameter| &parameter.value).or_else(of_component);
        let text = parameter.map_or_else(|| text.clone(), |known| parameter::anchored(known, text, request.cwd));
        (name.clone(), text)
    });
    let settings = settings.collect();
    let world = Arc::new(loader.world);
    Ok(Resolved {
        name: merged.name.clone(),
        summary: merged.summary.clone(),
        parameters,
        public,
        settings,
        definitions: merged.parameters.iter().map(|(name, written)| (name.clone(), written.value.clone())).collect(),
        cluster,
        components: drafts.into_iter().map(|draft| draft.finish(&world)).collect(),
        off: world.off.clone(),
        routes,
        verify: merged
            .verify
            .iter()
            .map(|verify| {
                let at = verify.origin.problem("");
                (verify.value.clone(), format!("{}:{}", at.source_name, at.line))
            })
            .collect(),
        world,
    })
}

pub(super) struct Loader<'a> {
    pub(super) library: Library<'a>,
    pub(super) request: &'a Request<'a>,
    pub(super) merged: &'a Merged,
    pub(super) problems: Vec<YamlError>,
    pub(super) world: World,
}

pub(super) type Settings<'a> = BTreeMap<&'a str, &'a str>;

impl<'a> Loader<'a> {
    /// The settings of the profile's own parameters, and those of each component.
    fn split_settings(&self) -> Result<(Settings<'a>, BTreeMap<&'a str, Settings<'a>>), ProfileError> {
        let mut own = Settings::new();
        let mut of_components: BTreeMap<&str, Settings<'_>> = BTreeMap::new();
        for (name, value) in self.request.settings {
            if self.merged.parameters.contains_key(name) {
                own.insert(name, value);
                continue;
            }
            let instances = self.merged.components.iter().map(|used| &*used.instance);
            match name.split_once('.') {
                Some((instance, parameter)) if instances.clone().any(|known| known == instance) => {
                    of_components.entry(instance).or_default().insert(parameter, value);
                }
                Some((instance, _)) => {
                    return Err(setting(name, parameter::unknown("component", instance, instances)));
                }
                None => {
                    let known = self.merged.parameters.keys().map(String::as_str);
                    return Err(setting(name, parameter::unknown("parameter", name, known)));
                }
            }
        }
        Ok((own, of_components))
    }

    fn parameters(&mut self, settings: &Settings<'_>) -> Result<(), ProfileError> {
        for (name, parameter) in &self.merged.parameters {
            let value = match (settings.get(&**name), &parameter.value.default) {
                (Some(text), _) => set(name, &parameter.value, text, self.request.cwd)?,
                (None, Some(default)) => {
                    let mut mistakes = Vec::new();
                    let at = base(&parameter.place);
                    let value = parameter::check(&parameter.value, default, at, false, &mut Vec::new(), &mut mistakes);
                    for (path, message) in mistakes {
                        self.problems.push(parameter.origin.below(&["default"]).below(&path).problem(message));
                    }
                    value
                }
                (None, None) if self.request.check_only => {
                    self.world.parameters.insert(name.clone(), stand_in(&parameter.value));
                    continue;
                }
                (None, None) => {
                    return Err(ProfileError::Unset {
                        profile: self.merged.name.clone(),
                        name: name.clone(),
                        help: parameter.value.help.clone(),
                    });
                }
            };
            self.world.secrets.add(&parameter.value, &value);
            if is_secret(&parameter.value) {
                self.world.secrets.parameters.insert(name.clone());
            }
            self.world.parameters.insert(name.clone(), value);
        }
        Ok(())
    }

    fn routes(&mut self) -> Vec<ResolvedRoute> {
        self.merged.routes.iter().filter_map(|route| self.route(route)).collect()
    }

    fn route(&mut self, written: &Written<Route>) -> Option<ResolvedRoute> {
        let Written { value: route, origin, .. } = written;
        let host = self.text(&route.host, &origin.below(&["host"]));
        let service = self.text(&route.service, &origin.below(&["service"]));
        let path = self.text(route.path.as_deref().unwrap_or("/"), &origin.below(&["path"]));
        let port = self.known(&route.port, &origin.below(&["port"]));
        let (host, service, path, port) = (host?, service?, path?, port?);
        if !host.split('.').all(is_name) {
            self.problems.push(origin.below(&["host"]).problem(format!("`{host}` is no host name")));
        }
        let named = service.split_once('/').filter(|(namespace, name)| is_name(namespace) && is_name(name));
        if named.is_none() {
            let message = format!("expected a service as namespace/name, found `{service}`");
            self.problems.push(origin.below(&["service"]).problem(message));
        }
        let number = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        if number.is_none() {
            let message = format!("expected a port from 1 to 65535, found {port}");
            self.problems.push(origin.below(&["port"]).problem(message));
        }
        if !path.starts_with('/') {
            self.problems.push(origin.below(&["path"]).problem(format!("`{path}` does not begin with /")));
        }
        let (namespace, service) = named?;
        Some(ResolvedRoute {
            name: route.name.clone(),
            host,
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port: number?,
            path,
        })
    }

    fn check_verify(&mut self) {
        for Written { value: verify, origin, .. } in &self.merged.verify {
            let texts = [
                ("get", Some(&verify.get)),
                ("sha256", verify.sha256.as_ref()),
                ("contains", verify.contains.as_ref()),
            ];
            for (key, text) in texts {
                let Some(text) = text else { continue };
                let at = origin.below(&[key]);
                let known = self.known(&Value::String(text.clone()), &at).map(plain);
                match (key, known) {
                    ("get", Some(url)) if !url.starts_with("http://") && !url.starts_with("https://") => {
                        self.problems.push(at.problem(format!("expected a URL, found `{url}`")));
                    }
                    ("sha256", Some(sum)) if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()) => {
                        self.problems.push(at.problem(format!("expected 64 hexadecimal digits, found `{sum}`")));
                    }
                    _ => {}
                }
            }
            if !(100..=599).contains(&verify.status) {
                let message = format!("expected an HTTP status, found {}", verify.status);
                self.problems.push(origin.below(&["status"]).problem(message));
            }
        }
    }

    pub(super) fn text(&mut self, text: &str, origin: &Origin) -> Option<String> {
        self.known(&Value::String(text.to_owned()), origin).map(plain)
    }

    /// A value of the profile; `None` where it is late, or wrong (then the problem is noted).
    pub(super) fn known(&mut self, value: &Value, origin: &Origin) -> Option<Value> {
        let (none, late) = (Bindings::new(), Scope::new());
        match Env::new(&self.world, None, &none, &late).known(value) {
            Ok(value) => value,
            Err(error) => {
                self.problems.push(problem(origin, &error));
                None
            }
        }
    }
}

/// A substitution's failure at its place in a file.
pub(super) fn problem(origin: &Origin, error: &SubstituteError) -> YamlError {
    origin.below(error.path()).problem(error.to_string())
}

/// Where relative paths of a file begin.
pub(super) fn base(place: &Place) -> Base<'_> {
    match place {
        Place::Builtin(_) => Base::Binary,
        Place::Host(dir) => Base::Dir(dir),
    }
}

/// A `--set` value in its final form.
pub(super) fn set(name: &str, parameter: &Parameter, text: &str, cwd: &Path) -> Result<Value, ProfileError> {
    let value = parameter::from_text(parameter, text).map_err(|reason| setting(name, reason))?;
    let mut mistakes = Vec::new();
    let value = parameter::check(parameter, &value, Base::Dir(cwd), false, &mut Vec::new(), &mut mistakes);
    match mistakes.into_iter().next() {
        None => Ok(value),
        Some((path, reason)) if path.is_empty() => Err(setting(name, reason)),
        Some((path, reason)) => Err(setting(name, format!("{}: {reason}", path.join(".")))),
    }
}

pub(super) fn setting(name: &str, reason: impl Into<String>) -> ProfileError {
    ProfileError::Setting { setting: name.to_owned(), reason: reason.into() }
}

/// A value of the parameter's type, for checking files whose parameters nobody has set.
pub(super) fn stand_in(parameter: &Parameter) -> Value {
    if let Some(value) = parameter.values.as_ref().and_then(|values| values.first()) {
        return value.clone();
    }
    match parameter.kind.unwrap_or(ParameterType::String) {
        ParameterType::Integer => json!(parameter.min.or(parameter.max).unwrap_or(1)),
        ParameterType::Boolean => json!(true),
        ParameterType::Path => json!("builtin:site.gif"),
        ParameterType::String | ParameterType::Hostname | ParameterType::Secret => json!("example"),
        ParameterType::List => json!([]),
        ParameterType::Object => json!({}),
    }
}

/// Major and minor of `1.34` or `1.34.2`.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    match (parts.next(), parts.next()) {
        (None | Some(Some(_)), None) => Some((major, minor)),
        _ => None,
    }
}
