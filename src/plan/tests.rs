use std::path::Path;

use super::*;
use crate::profile::{self, ProfileSource};

/// The plan of a kind cluster with components of which each waits for the address of its Service `web`.
fn planned(components: &[(&str, &str)]) -> Plan {
    planned_on("{}", components)
}

/// As [`planned`], with what the profile says of its cluster.
fn planned_on(cluster: &str, components: &[(&str, &str)]) -> Plan {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &Path, text: String| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let mut uses = String::new();
    for (name, more) in components {
        uses.push_str(&format!("  - use: {name}\n"));
        let place = dir.path().join("components").join(name);
        let text = format!(
            "apiVersion: devstack/v1\nkind: Component\nname: {name}\nready: [{{service-address: web}}]\n\
             outputs: {{at: \"${{services.{name}.web.address}}\"}}\nmanifests: [{{file: objects.yaml}}]\n{more}"
        );
        write(&place.join("component.yaml"), text);
        let at = if *name == "web" { "none" } else { "${web.at}" };
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\ndata: {{at: \"{at}\"}}\n");
        write(&place.join("objects.yaml"), text);
    }
    let text = format!("apiVersion: devstack/v1\nkind: Profile\nname: demo\ncluster: {cluster}\ncomponents:\n{uses}");
    write(&dir.path().join("devstack.yaml"), text);
    let source = ProfileSource::Dir(dir.path().to_path_buf());
    let profile = profile::load(&profile::Request::new(&source, &[], &json!({}))).unwrap();
    let node = serde_json::from_value(json!({
        "role": "node", "version": "v1.34.4", "reference": "kindest/node:v1.34.4", "source": {"from": "nodes"},
        "platform": "linux/amd64", "cpu": "x86-64-v1", "why": "",
    }));
    let ground = KindGround { node: node.unwrap(), nodes: 1, adaptation: Adaptation::default(), blobs: None };
    let inputs = Inputs {
        environment: "demo",
        profile: &profile,
        ground: Ground::Kind(Box::new(ground)),
        choices: Vec::new(),
        ports: (8080, 8443),
        credentials: BTreeMap::new(),
        sites: BTreeMap::new(),
        begun: false,
        before: BTreeMap::new(),
        kubeconfig: "/kubeconfig".into(),
        hosts: Some("/etc/hosts".into()),
    };
    plan(&inputs).unwrap()
}

#[test]
fn nothing_is_named_where_nothing_is_routed() {
    let plan = planned(&[("web", "provides: [ingress]\n")]);
    assert!(plan.graph.nodes().iter().all(|node| node.id != id::HOSTS));
}

#[test]
fn names_lead_to_the_ingress_whatever_else_has_an_address() {
    let web = ("web", "provides: [ingress]\n");
    let ingress = Some(("web/web".to_owned(), "web.ready".to_owned()));
    assert_eq!(planned(&[web, ("other", "")]).ingress_address, ingress);
    assert_eq!(planned(&[("web", ""), ("other", "")]).ingress_address, None);
}

#[test]
fn what_holds_an_address_comes_after_it_was_seen() {
    let plan = planned(&[("app", ""), ("web", "")]);
    let app = plan.graph.nodes().iter().find(|node| node.id == "app").unwrap();
    assert!(app.needs.contains(&Need { step: "web.ready".to_owned(), when: When::Done }), "{:?}", app.needs);
}

#[test]
fn components_come_after_the_labels_of_nodes() {
    let labelled = planned_on("{nodes: 3, nodeLabels: {0: {disk: fast}, 2: {disk: slow}}}", &[("web", "")]);
    let labels = labelled.graph.nodes().iter().find(|node| node.id == id::NODE_LABELS).unwrap();
    let Step::Labels(step) = &labels.step else { panic!("{labels:?}") };
    let names: Vec<&String> = step.labels.keys().collect();
    assert_eq!(names, ["devstack-demo-control-plane", "devstack-demo-worker2"]);
    let web = labelled.graph.nodes().iter().find(|node| node.id == "web").unwrap();
    assert!(web.needs.contains(&Need { step: id::NODE_LABELS.to_owned(), when: When::Done }), "{:?}", web.needs);
    let plain = planned(&[("web", "")]);
    assert!(plain.graph.nodes().iter().all(|node| node.id != id::NODE_LABELS));
}
