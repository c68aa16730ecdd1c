//! The components that a profile uses: which are switched on, in which order, and what they wait for.

use std::collections::{BTreeMap, BTreeSet};

use super::component::{BALANCER, Draft, Surroundings};
use super::condition;
use super::error::ProfileError;
use super::load::{Loader, Settings};
use super::order;
use super::parameter;
use super::resolved::{Ready, ReadyKind};
use super::scope::Scope;
use super::source::Library;
use super::template::references;
use super::world::{Bindings, Env};

impl Loader<'_> {
    /// Reads the components, leaves out those that are switched off, and works out what follows from their parameters.
    pub(super) fn components(&mut self, settings: &BTreeMap<&str, Settings<'_>>) -> Result<Vec<Draft>, ProfileError> {
        let mut drafts = self.read()?;
        // Whoever gives addresses away is asked for by what the machine can do, all others by what there is then.
        self.switch(&mut drafts, Draft::balances);
        self.settle_balancer(&drafts);
        self.switch(&mut drafts, |draft| !draft.balances());
        let instances = self.merged.components.iter().map(|used| used.instance.clone());
        let names: Vec<String> = instances.filter(|name| drafts.contains_key(name)).collect();
        let requires = self.requirements(&mut drafts);
        let sorted = match order::sort(&names, &requires) {
            Ok(sorted) => sorted,
            Err(circle) => {
                let message = format!("components require one another in a circle: {}", circle.join(" → "));
                let used = self.merged.components.iter().find(|used| used.instance == circle[0]);
                self.problems.extend(used.map(|used| used.origin.problem(message)));
                names
            }
        };
        let mut made = Vec::new();
        for name in sorted {
            let (Some(mut draft), Some(used)) =
                (drafts.remove(&name), self.merged.components.iter().find(|used| used.instance == name))
            else {
                continue;
            };
            let settings = settings.get(&*name).cloned().unwrap_or_default();
            let surroundings = Surroundings { request: self.request, used, settings: &settings };
            draft.fill(&surroundings, &mut self.world, &mut self.problems)?;
            made.push(draft);
        }
        Ok(made)
    }

    /// Reads the components' files.
    fn read(&mut self) -> Result<BTreeMap<String, Draft>, ProfileError> {
        let mut drafts = BTreeMap::new();
        for used in &self.merged.components {
            let Some((file, place)) = self.library.component(&used.component, &self.merged.places)? else {
                let known = Library::component_names();
                let message = parameter::unknown("component", &used.component, known.iter().map(String::as_str));
                self.problems.push(used.origin.below(&["use"]).problem(message));
                continue;
            };
            let Some(draft) = Draft::read(&self.library, used, &file, place, &mut self.problems)? else { continue };
            self.world.components.insert(used.instance.clone(), draft.frame());
            drafts.insert(used.instance.clone(), draft);
        }
        Ok(drafts)
    }

    /// Takes out those of some components that are switched off.
    fn switch(&mut self, drafts: &mut BTreeMap<String, Draft>, some: impl Fn(&Draft) -> bool) {
        for used in &self.merged.components {
            if !drafts.get(&used.instance).is_some_and(&some) {
                continue;
            }
            let (none, late) = (Bindings::new(), Scope::new());
            let when = used.when.as_ref();
            match condition::holds(when.map(|when| &when.value), Env::new(&self.world, None, &none, &late)) {
                Ok(Some(false)) => {
                    self.world.off.insert(used.instance.clone());
                    self.world.components.remove(&used.instance);
                    drafts.remove(&used.instance);
                }
                Ok(Some(true) | None) => {}
                Err(error) => {
                    let origin = when.map_or(&used.origin, |when| &when.origin);
                    self.problems.push(origin.problem(error.to_string()));
                }
            }
        }
    }

    /// That an address could be dialled gives none away: where neither the cluster nor a component does that, no
    /// Service gets one.
    fn settle_balancer(&mut self, drafts: &BTreeMap<String, Draft>) {
        if drafts.values().any(Draft::balances) || self.is_there(BALANCER) {
            return;
        }
        if let Some(fact) = self.world.facts.as_mut().and_then(|facts| facts.get_mut("loadBalancer")) {
            *fact = false.into();
        }
    }

    /// What each component comes after: what it requires, and what the values given to it refer to.
    fn requirements(&mut self, drafts: &mut BTreeMap<String, Draft>) -> BTreeMap<String, BTreeSet<String>> {
        let providers: BTreeMap<String, Vec<String>> =
            drafts.iter().map(|(name, draft)| (name.clone(), draft.provides().map(str::to_owned).collect())).collect();
        let mut all = BTreeMap::new();
        for (name, draft) in drafts.iter_mut() {
            let mut before = BTreeSet::new();
            for (index, required) in draft.file.requires.iter().enumerate() {
                let provided: Vec<_> = providers
                    .iter()
                    .filter(|(other, abilities)| *other != name && abilities.contains(required))
                    .map(|(other, _)| other.clone())
                    .collect();
                if provided.is_empty() && !self.is_there(required) {
                    let off = if self.world.off.contains(required) { " (it is switched off here)" } else { "" };
                    let used = self.merged.components.iter().find(|used| used.instance == *name);
                    let at = draft.origin.below(&["requires", &index.to_string()]).problem("");
                    self.problems.extend(used.map(|used| {
                        used.origin.problem(format!(
                            "`{name}` requires `{required}` and nothing in the profile provides it{off} \
                             (said in {})",
                            at.source_name
                        ))
                    }));
                }
                before.extend(provided);
            }
            let used = self.merged.components.iter().find(|used| used.instance == *name);
            for value in used.iter().flat_map(|used| used.with.values()) {
                let heads = references(&value.value);
                let heads = heads.iter().filter_map(|reference| reference.split(['.', '[']).next());
                before.extend(heads.filter(|head| *head != name && providers.contains_key(*head)).map(str::to_owned));
            }
            draft.requires.clone_from(&before);
            all.insert(name.clone(), before);
        }
        all
    }

    /// Whether the cluster has an ability by itself (`facts.provides`); a component that would bring it is then left out.
    fn is_there(&self, ability: &str) -> bool {
        let provides = self.world.facts.as_ref().and_then(|facts| facts["provides"].as_array());
        provides.is_some_and(|provides| provides.iter().any(|one| one == ability))
    }

    /// Notes which Services' addresses are waited for. What is wrong already may be why one is not, and so may be what
    /// was guessed.
    pub(super) fn addresses(&mut self, drafts: &[Draft]) {
        if !self.problems.is_empty() || self.request.guessed {
            return;
        }
        let awaited = drafts.iter().flat_map(|draft| draft.ready.iter().map(move |ready| (draft, ready)));
        let awaited = awaited.filter(|(_, ready)| ready.kind == ReadyKind::ServiceAddress);
        let named =
            |(draft, ready): (&Draft, &Ready)| (format!("{}/{}", ready.namespace, ready.name), draft.instance.clone());
        self.world.addresses = Some(awaited.map(named).collect());
    }

    /// Refuses components that would wait for each other's addresses, or for their own.
    pub(super) fn check_awaited(&mut self, drafts: &[Draft]) {
        if drafts.iter().all(|draft| draft.addresses.is_empty()) {
            return;
        }
        let names: Vec<String> = drafts.iter().map(|draft| draft.instance.clone()).collect();
        let before = |draft: &Draft| {
            let awaited = draft.awaits(&self.world).map(|(_, of)| of.clone());
            (draft.instance.clone(), draft.requires.iter().cloned().chain(awaited).collect())
        };
        if let Err(circle) = order::sort(&names, &drafts.iter().map(before).collect()) {
            let message =
                format!("components wait for addresses of one another's Services in a circle: {}", circle.join(" → "));
            let used = self.merged.components.iter().find(|used| used.instance == circle[0]);
            self.problems.extend(used.map(|used| used.origin.problem(message)));
        }
    }
}
