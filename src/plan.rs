//! Profile, facts and journal make a plan: the graph of steps that brings an environment up, and the URLs that it
//! promises at its end.

mod minikube;
mod shared;

pub use crate::step_ids as id;
pub use shared::{Delivery, Shared, Via};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::access::site::Site;
use crate::cluster::kind::{Adaptation, KindSpec, node_name};
use crate::cluster::minikube::MinikubeSpec;
use crate::graph::{Graph, GraphError, Need, Node, When};
use crate::image::Choice;
use crate::ports::kube::ObjectKey;
use crate::profile::{ContentSource, ReadyKind, Resolved, Scope};
use crate::secrets::Credential;
use crate::step::{
    AddonsStep, ApiStep, Claim, ClusterStep, ComponentStep, ContentStep, HostsStep, KubeContextStep, LabelsStep,
    LoadStep, NetworkStep, NodeImageStep, NodesStep, ObtainStep, PruneStep, ReadyStep, Secret, Step,
};

/// What the cluster is.
#[derive(Debug)]
pub enum Ground {
    /// A kind cluster of the environment's own.
    Kind(Box<KindGround>),
    /// A cluster that minikube makes for the environment.
    Minikube(MinikubeSpec),
    /// A cluster that devstack did not make.
    Shared(Box<Shared>),
}

/// What a kind cluster is made of.
#[derive(Debug)]
pub struct KindGround {
    /// The node image.
    pub node: Choice,
    /// Number of nodes.
    pub nodes: u8,
    /// What the engine cannot give.
    pub adaptation: Adaptation,
    /// The directory that nodes may link image layers from, where the engine can mount it.
    pub blobs: Option<PathBuf>,
}

/// What a plan is made of. Everything was validated; nothing was changed.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The environment's name.
    pub environment: &'a str,
    /// The profile.
    pub profile: &'a Resolved,
    /// The cluster.
    pub ground: Ground,
    /// Workload images by role.
    pub choices: Vec<Choice>,
    /// Loopback ports of the ingress of a kind cluster.
    pub ports: (u16, u16),
    /// Credentials by name.
    pub credentials: BTreeMap<String, Credential>,
    /// Sites by bucket.
    pub sites: BTreeMap<String, Site>,
    /// Whether an earlier run began to make the cluster, and nothing has taken it back.
    pub begun: bool,
    /// Outputs of an earlier run's steps.
    pub before: BTreeMap<String, Value>,
    /// The user's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The hosts file and whether names may be added to it.
    pub hosts: Option<PathBuf>,
}

/// A plan.
#[derive(Debug)]
pub struct Plan {
    /// The steps.
    pub graph: Graph<Step>,
    /// Every value that is known before the cluster.
    pub scope: Scope,
    /// The service whose LoadBalancer address the ingress has, as `namespace/name`, and the step that gives it.
    pub ingress_address: Option<(String, String)>,
}

/// Names under which a route is reached: the host as given, with the environment's name where that is not the
/// profile's.
pub fn route_host(environment: &str, profile: &str, host: &str) -> String {
    if environment == profile { host.to_owned() } else { format!("{host}.{environment}") }
}

/// The scope of everything known before the cluster.
pub fn scope(inputs: &Inputs<'_>) -> Scope {
    let mut scope = Scope::new();
    scope.set("environment.name", inputs.environment);
    for choice in &inputs.choices {
        scope.set(
            &format!("images.{}", choice.role),
            json!({"ref": choice.reference, "version": choice.version, "manifests": choice.manifests}),
        );
    }
    for (name, credential) in &inputs.credentials {
        let value = json!({"username": credential.username, "password": credential.password});
        scope.set(&format!("credentials.{name}"), value);
    }
    for (bucket, site) in &inputs.sites {
        scope.set(&format!("content.{bucket}.sha256"), site.sha256.clone());
    }
    for route in &inputs.profile.routes {
        let host = route_host(inputs.environment, &inputs.profile.name, &route.host);
        let hosts = json!([format!("{host}.localhost"), format!("{host}.test")]);
        let url = match &inputs.ground {
            Ground::Kind(_) => url(&format!("{host}.localhost"), inputs.ports.0, &route.path),
            // Its port is known once the way to the ingress is.
            Ground::Minikube(_) | Ground::Shared(_) => url(&format!("{host}.test"), 80, &route.path),
        };
        scope.set(&format!("routes.{}", route.name), json!({"url": url, "host": host, "hosts": hosts}));
    }
    scope
}

/// A URL, with its port where that must be said.
pub fn url(host: &str, port: u16, path: &str) -> String {
    let port = if port == 80 { String::new() } else { format!(":{port}") };
    format!("http://{host}{port}{path}")
}

fn needs(list: &[(&str, When)]) -> BTreeSet<Need> {
    list.iter().map(|(step, when)| Need { step: (*step).to_owned(), when: *when }).collect()
}

fn node(id: impl Into<String>, list: &[(&str, When)], step: Step) -> Node<Step> {
    Node { id: id.into(), needs: needs(list), step }
}

/// What components stand on: the steps that give them a cluster and images.
struct Base {
    steps: Vec<Node<Step>>,
    /// What each component waits for.
    before: BTreeSet<Need>,
    /// The step whose end means that pods find their images.
    images: &'static str,
    /// What that step gave when it last ran, of the images that are still its.
    placed: Value,
    claim: Option<Claim>,
}

fn kind(inputs: &Inputs<'_>, ground: &KindGround) -> Base {
    use When::{Done, Started};
    let name = crate::step::reserved_name(inputs.environment);
    let cluster = KindSpec {
        name: name.clone(),
        image: ground.node.reference.clone(),
        kubernetes: ground.node.version.parse().ok(),
        nodes: ground.nodes,
        http: inputs.ports.0,
        https: inputs.ports.1,
        adaptation: ground.adaptation,
        labels: inputs.profile.cluster.labels.clone(),
        blobs: ground.blobs.clone(),
    };
    let before = inputs.before.get(id::CLUSTER);
    let started =
        inputs.before.get(id::READY).and_then(|before| serde_json::from_value(before["started"].clone()).ok());
    let addresses =
        before.and_then(|before| serde_json::from_value(before["addresses"].clone()).ok()).unwrap_or_default();
    let steps = vec![
        node(id::NETWORK, &[], Step::Network(NetworkStep { name: name.clone() })),
        node(id::NODE_IMAGE, &[], Step::NodeImage(NodeImageStep { choice: ground.node.clone() })),
        node(
            id::CLUSTER,
            &[(id::NETWORK, Done), (id::NODE_IMAGE, Done)],
            Step::Cluster(ClusterStep {
                spec: cluster,
                node_image: id::NODE_IMAGE.to_owned(),
                complete: before.is_some(),
                begun: inputs.begun,
                made_of: before.and_then(|before| before["image"].as_str()).map(str::to_owned),
                started: started.unwrap_or_default(),
                addresses,
            }),
        ),
        node(
            id::NODES,
            &[(id::CLUSTER, Started)],
            Step::Nodes(NodesStep { cluster: id::CLUSTER.to_owned(), nodes: ground.nodes }),
        ),
        node(id::API, &[(id::NODES, Done)], Step::Api(ApiStep { cluster: id::CLUSTER.to_owned() })),
        node(id::ADDONS, &[(id::API, Done)], Step::Addons(AddonsStep { cluster: id::CLUSTER.to_owned() })),
        node(id::IMAGES, &[], Step::Obtain(ObtainStep { choices: inputs.choices.clone() })),
        node(
            id::LOAD,
            &[(id::NODES, Done), (id::IMAGES, Done)],
            Step::Load(LoadStep { choices: inputs.choices.clone(), blobs: ground.blobs.clone() }),
        ),
        node(
            id::CONTEXT,
            &[(id::API, Done)],
            Step::KubeContext(KubeContextStep { file: inputs.kubeconfig.clone(), name: name.clone() }),
        ),
    ];
    let before = needs(&[(id::API, Done), (id::NETWORK, Done), (id::LOAD, Started)]);
    let mut base = Base { steps, before, images: id::LOAD, placed: Value::Null, claim: None };
    label(inputs, &mut base, id::API, |number| node_name(&name, number));
    base
}

/// Has components wait until the nodes have their labels, where the profile asks for any: a pod that asks for one is
/// given up on otherwise.
fn label(inputs: &Inputs<'_>, base: &mut Base, after: &str, name: impl Fn(u8) -> String) {
    let labels = &inputs.profile.cluster.labels;
    if labels.is_empty() {
        return;
    }
    let labels = labels.iter().map(|(number, labels)| (name(*number), labels.clone())).collect();
    let step = Step::Labels(LabelsStep { cluster: id::CLUSTER.to_owned(), labels });
    base.steps.push(node(id::NODE_LABELS, &[(after, When::Done)], step));
    base.before.extend(needs(&[(id::NODE_LABELS, When::Done)]));
}

/// What each component made so far, in the order in which it was made.
fn made(inputs: &Inputs<'_>) -> BTreeMap<String, Vec<ObjectKey>> {
    let of = |(step, outputs): (&String, &Value)| {
        Some((id::applied_by(step)?.to_owned(), serde_json::from_value(outputs.clone()).ok()?))
    };
    inputs.before.iter().filter_map(of).collect()
}

/// Makes the plan.
///
/// # Errors
/// [`GraphError`], which is a defect: profiles were validated.
pub fn plan(inputs: &Inputs<'_>) -> Result<Plan, GraphError> {
    use When::Done;
    let scope = scope(inputs);
    let Base { steps: mut nodes, before, images, placed, claim } = match &inputs.ground {
        Ground::Kind(ground) => kind(inputs, ground),
        Ground::Minikube(spec) => minikube::base(inputs, spec),
        Ground::Shared(ground) => shared::base(inputs, ground),
    };
    let made = made(inputs);
    let mut components = Vec::new();
    let mut ingress_address = None;
    for component in &inputs.profile.components {
        let mut after = before.clone();
        after.extend(component.requires.iter().map(|name| Need { step: name.clone(), when: Done }));
        let addresses: BTreeMap<String, String> =
            component.addresses.iter().map(|(service, of)| (service.clone(), id::ready(of))).collect();
        after.extend(addresses.values().map(|ready| Need { step: ready.clone(), when: Done }));
        let step = ComponentStep {
            component: component.clone(),
            scope: scope.clone(),
            images: images.to_owned(),
            placed: placed.clone(),
            before: made.get(&component.name).cloned().unwrap_or_default(),
            claim: claim.clone(),
            addresses,
            held: shared::held_to(inputs, component),
        };
        components.push(step.clone());
        let step = Step::Component(Box::new(step));
        nodes.push(Node { id: component.name.clone(), needs: after, step });
        let ready = id::ready(&component.name);
        // Names lead to the ingress, whatever else has an address.
        if component.provides.iter().any(|ability| ability == "ingress")
            && let Some(service) = component.ready.iter().find(|ready| ready.kind == ReadyKind::ServiceAddress)
        {
            ingress_address = Some((format!("{}/{}", service.namespace, service.name), ready.clone()));
        }
        nodes.push(node(
            ready,
            &[(&component.name, Done)],
            Step::Ready(ReadyStep {
                cluster: id::CLUSTER.to_owned(),
                component: component.name.clone(),
                namespaces: vec![component.namespace.clone()],
                ready: component.ready.clone(),
            }),
        ));
        for content in &component.content {
            let (Some(site), Some(credential)) =
                (inputs.sites.get(&content.bucket), inputs.credentials.get(&content.credentials))
            else {
                continue;
            };
            let step = id::content(&content.bucket);
            let before = inputs.before.get(&step).and_then(|outputs| serde_json::from_value(outputs.clone()).ok());
            nodes.push(node(
                step,
                &[(&component.name, Done)],
                Step::Content(ContentStep {
                    site: site.clone(),
                    bucket: content.bucket.clone(),
                    namespace: content.namespace.clone(),
                    selector: content
                        .pods
                        .iter()
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect::<Vec<_>>()
                        .join(","),
                    port: content.port,
                    key: credential.username.clone(),
                    secret: Secret(credential.password.clone()),
                    before,
                }),
            ));
        }
    }
    if !made.is_empty() {
        // After them, so that what has moved from one component to another is in nobody's way.
        let mut after = before;
        after.extend(components.iter().map(|step| Need { step: step.component.name.clone(), when: Done }));
        let step = Step::Prune(PruneStep { recorded: made, components, claim });
        nodes.push(Node { id: id::PRUNE.to_owned(), needs: after, step });
    }
    // What was ready once may have crashed since, as what runs before its network does; only all at once is ready.
    let components = &inputs.profile.components;
    let mut each: Vec<String> = components.iter().map(|component| id::ready(&component.name)).collect();
    // When nodes were started is known once the cluster is.
    each.extend(nodes.iter().find(|node| node.id == id::CLUSTER).map(|node| node.id.clone()));
    nodes.push(node(
        id::READY,
        &each.iter().map(|step| (step.as_str(), Done)).collect::<Vec<_>>(),
        Step::Ready(ReadyStep {
            cluster: id::CLUSTER.to_owned(),
            component: id::READY.to_owned(),
            namespaces: components.iter().map(|component| component.namespace.clone()).collect(),
            ready: components.iter().flat_map(|component| component.ready.clone()).collect(),
        }),
    ));
    // Without routes there is nothing to reach by name; names of an earlier `up` are still looked after.
    let has_names = !inputs.profile.routes.is_empty() || inputs.before.contains_key(id::HOSTS);
    // Only kind publishes the ingress on this host.
    if has_names && !matches!(inputs.ground, Ground::Kind(_)) {
        nodes.push(shared::reach(inputs));
        ingress_address = Some((shared::INGRESS.to_owned(), id::REACH.to_owned()));
    }
    if let Some(file) = inputs.hosts.as_ref().filter(|_| has_names) {
        let names = inputs
            .profile
            .routes
            .iter()
            .map(|route| format!("{}.test", route_host(inputs.environment, &inputs.profile.name, &route.host)));
        let after: Vec<(&str, When)> = match &ingress_address {
            Some((_, step)) => vec![(step.as_str(), Done)],
            None => Vec::new(),
        };
        nodes.push(node(
            id::HOSTS,
            &after,
            Step::Hosts(HostsStep {
                file: file.clone(),
                names: names.collect(),
                address: ingress_address.clone(),
                before: shared::known_address(inputs),
            }),
        ));
    }
    Ok(Plan { graph: Graph::new(nodes)?, scope, ingress_address })
}

/// The site of a profile's content.
///
/// # Errors
/// [`crate::access::site::SiteError`].
pub fn site_of(source: &ContentSource) -> Result<Site, crate::access::site::SiteError> {
    match source {
        ContentSource::Builtin(name) => {
            let path = format!("content/{name}");
            match crate::assets::PROFILES.get_file(&path) {
                Some(file) => Ok(Site::of_bytes(name, file.contents())),
                None => Err(crate::access::site::SiteError::Io {
                    path: path.into(),
                    source: std::io::ErrorKind::NotFound.into(),
                }),
            }
        }
        ContentSource::File(path) | ContentSource::Directory(path) => Site::of_path(path),
    }
}

#[cfg(test)]
mod tests;
