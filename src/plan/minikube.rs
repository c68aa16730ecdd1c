//! The plan on a cluster that minikube makes.

use serde_json::Value;

use super::{Base, Inputs, id, label, needs, node};
use crate::cluster::minikube::{self, MinikubeSpec};
use crate::graph::When::Done;
use crate::step::{KubeContextStep, MinikubeLoadStep, MinikubeStep, ObtainStep, Step};

/// The steps that components stand on.
pub(super) fn base(inputs: &Inputs<'_>, spec: &MinikubeSpec) -> Base {
    let choices = inputs.choices.clone();
    let name = spec.name.clone();
    let steps = vec![
        node(id::CLUSTER, &[], Step::Minikube(MinikubeStep { spec: spec.clone() })),
        node(id::IMAGES, &[], Step::Obtain(ObtainStep { choices: choices.clone() })),
        node(
            id::LOAD,
            &[(id::CLUSTER, Done), (id::IMAGES, Done)],
            Step::MinikubeLoad(MinikubeLoadStep { spec: spec.clone(), choices }),
        ),
        node(
            id::CONTEXT,
            &[(id::CLUSTER, Done)],
            Step::KubeContext(KubeContextStep { file: inputs.kubeconfig.clone(), name }),
        ),
    ];
    let before = needs(&[(id::CLUSTER, Done), (id::LOAD, crate::graph::When::Started)]);
    let mut base = Base { steps, before, images: id::LOAD, placed: Value::Null, claim: None };
    label(inputs, &mut base, id::CLUSTER, |number| minikube::node_name(&spec.name, number));
    base
}
