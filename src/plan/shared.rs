//! The plan on a cluster that devstack did not make: bound to instead of created, its images brought by registries, its
//! ingress looked for instead of published.

use std::net::IpAddr;

use serde_json::Value;

use super::{Base, Ground, Inputs, id, needs, node};
use crate::cluster::existing::Existing;
use crate::facts::{self, Held};
use crate::graph::{Need, Node, When};
use crate::image::{Choice, Publish};
use crate::profile::{Placement, ResolvedComponent};
use crate::step::{Claim, JoinStep, ObtainStep, PublishStep, ReachStep, RegistryStep, Step};

/// What a step that found the way to the ingress calls its address.
pub(super) const INGRESS: &str = "ingress";

/// A cluster that devstack did not make.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The cluster as it was found.
    pub existing: Existing,
    /// What marks the environment's objects there.
    pub instance: String,
    /// Images that nodes cannot get by themselves; `None` where there are none.
    pub delivery: Option<Delivery>,
}

/// Images that devstack brings to a cluster that it did not make.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The images.
    pub choices: Vec<Choice>,
    /// The registry that they go through.
    pub via: Via,
}

/// A registry that nodes pull from.
#[derive(Debug, Clone)]
pub enum Via {
    /// The user's.
    Registry(Publish),
    /// The environment's own in the cluster, of this image.
    Own(Box<Choice>),
}

/// The steps that components stand on.
pub(super) fn base(inputs: &Inputs<'_>, shared: &Shared) -> Base {
    use When::Done;
    let claim = Claim { instance: shared.instance.clone() };
    let join = JoinStep { existing: shared.existing.clone() };
    let mut steps = vec![node(id::JOIN, &[], Step::Join(Box::new(join)))];
    let mut before = needs(&[(id::JOIN, Done)]);
    let last = inputs.before.get(id::PUBLISH).cloned().unwrap_or_default();
    let mut placed = Value::Null;
    if let Some(Delivery { choices, via }) = &shared.delivery {
        placed = last.clone();
        if let Some(names) = placed.get_mut("images").and_then(Value::as_object_mut) {
            // What is no longer brought has its own name again.
            names.retain(|role, _| choices.iter().any(|choice| choice.role == *role));
        }
        steps.push(node(id::IMAGES, &[], Step::Obtain(ObtainStep { choices: choices.clone() })));
        let mut after = needs(&[(id::JOIN, Done), (id::IMAGES, Done)]);
        let registry = match via {
            Via::Registry(publish) => Some(publish.clone()),
            Via::Own(choice) => {
                let environment = inputs.environment.to_owned();
                let step = RegistryStep { environment, image: choice.reference.clone(), claim: claim.clone() };
                steps.push(node(id::REGISTRY, &[(id::JOIN, Done)], Step::Registry(step)));
                after.extend(needs(&[(id::REGISTRY, Done)]));
                None
            }
        };
        let step = PublishStep { choices: choices.clone(), registry, before: last };
        steps.push(Node { id: id::PUBLISH.to_owned(), needs: after, step: Step::Publish(step) });
        // Only then is it known under which name nodes pull an image.
        before.extend(needs(&[(id::PUBLISH, Done)]));
    }
    Base { steps, before, images: id::PUBLISH, placed, claim: Some(claim) }
}

/// The nodes that a component's images run on, where it allows that its pods are held to them and they do not run on all.
pub(super) fn held_to(inputs: &Inputs<'_>, component: &ResolvedComponent) -> Option<Held> {
    let Ground::Shared(shared) = &inputs.ground else { return None };
    let own = |choice: &&Choice| component.images.values().any(|role| *role == choice.role);
    let choices: Vec<&Choice> = inputs.choices.iter().filter(own).collect();
    let level = choices.iter().map(|choice| choice.cpu).max()?;
    let architecture = &choices.first()?.platform.architecture;
    let held = || facts::held_to(&shared.existing.nodes, architecture, level);
    (component.placement == Placement::Fitting).then(held)?
}

/// The way to the ingress, once everything that it leads to is there.
pub(super) fn reach(inputs: &Inputs<'_>) -> Node<Step> {
    let components = &inputs.profile.components;
    let controller = components.iter().find(|component| component.component == "traefik");
    let service = controller.map(|controller| format!("{}/traefik", controller.namespace));
    let after = components.iter().map(|component| {
        let own = controller.is_some_and(|controller| controller.name == component.name);
        Need { step: if own { id::ready(&component.name) } else { component.name.clone() }, when: When::Done }
    });
    let before = inputs.before.get(id::REACH).cloned().unwrap_or_default();
    Node { id: id::REACH.to_owned(), needs: after.collect(), step: Step::Reach(ReachStep { service, before }) }
}

/// The address of the ingress as an earlier `up` found it.
pub(super) fn known_address(inputs: &Inputs<'_>) -> Option<IpAddr> {
    inputs.before.get(id::REACH)?.get(INGRESS).and_then(Value::as_str)?.parse().ok()
}
