//! What a profile says of its cluster: how many nodes, their labels, the Kubernetes version.

use super::component::Draft;
use super::load::{Loader, version};
use super::resolved::ResolvedCluster;
use super::template::references;

/// The most nodes of one environment.
const MAX_NODES: u64 = 9;

impl Loader<'_> {
    /// The cluster, checked.
    pub(super) fn cluster(&mut self) -> ResolvedCluster {
        let said = self.nodes();
        let nodes = self.request.nodes.or(said).unwrap_or(1);
        if self.request.nodes.or(said.filter(|_| !self.is_guessed())).is_some() {
            let last = nodes.saturating_sub(1);
            for (number, written) in self.merged.node_labels.iter().filter(|(number, _)| **number > last) {
                let message = format!("there is no node {number}: they are counted from 0, and the last one is {last}");
                self.problems.push(written.origin.key_problem(message));
            }
        }
        let mut kubernetes = "auto".to_owned();
        if let Some(written) = &self.merged.kubernetes
            && let Some(value) = self.text(&written.value, &written.origin)
        {
            kubernetes = value;
            if kubernetes != "auto" && version(&kubernetes).is_none() {
                let message = format!("expected auto or a version such as 1.34, found `{kubernetes}`");
                self.problems.push(written.origin.problem(message));
            }
        }
        let labels = self.merged.node_labels.iter();
        let labels = labels.map(|(number, written)| (*number, written.value.clone())).collect();
        ResolvedCluster { nodes, kubernetes, labels }
    }

    /// How many nodes the profile says; `None` where that is wrong or not known yet.
    fn nodes(&mut self) -> Option<u8> {
        let Some(written) = &self.merged.nodes else { return Some(1) };
        let value = self.known(&written.value, &written.origin)?;
        let nodes = value.as_u64().filter(|count| (1..=MAX_NODES).contains(count));
        if nodes.is_none() {
            let message = format!("expected a whole number from 1 to {MAX_NODES}, found {value}");
            self.problems.push(written.origin.problem(message));
        }
        nodes.and_then(|nodes| u8::try_from(nodes).ok())
    }

    /// Whether the number of nodes follows from a parameter that nobody has set.
    fn is_guessed(&self) -> bool {
        let open = |name: &String| {
            let parameter = self.merged.parameters.get(name);
            parameter.is_some_and(|parameter| parameter.value.default.is_none())
                && !self.request.settings.iter().any(|(set, _)| set == name)
        };
        self.merged.nodes.as_ref().is_some_and(|written| references(&written.value).iter().any(open))
    }

    /// A version that the profile names must be one that every component works with; one that devstack chooses is held
    /// against them when it is known.
    pub(super) fn check_kubernetes(&mut self, wanted: &str, drafts: &[Draft]) {
        let Some(written) = self.merged.kubernetes.as_ref().filter(|_| wanted != "auto") else { return };
        for draft in drafts {
            if let Some(range) = draft.file.kubernetes.as_ref().filter(|range| range.contains(wanted) == Some(false)) {
                let message = format!(
                    "the component `{}` works with Kubernetes {range}, not with {wanted}; `auto` chooses one that fits",
                    draft.instance
                );
                self.problems.push(written.origin.problem(message));
            }
        }
    }
}
