use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::cluster::ClusterFacts;
use crate::image::{Images, Limits};
use crate::plan::{Ground, Inputs, Shared, plan};
use crate::ports::engine::EngineImage;
use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeKube, FakeRunner};
use crate::profile::{self, ProfileSource};
use crate::step::Step;

const NEW: &str = "docker.io/pgsty/silo:RELEASE.2026-09-16T00-00-00Z";
const STATIC: &str = "docker.io/pgsty/silo:RELEASE.2026-09-16T00-00-00Z-distroless";
const MC: &str = "docker.io/pgsty/mc:RELEASE.2026-09-16T00-00-00Z";
const MC_OLD: &str = "docker.io/minio/mc:RELEASE.2025-08-13T08-35-41Z-cpuv1";

/// A node with the labels by which a cluster shows that a CPU has AVX, hence level 2.
fn node(name: &str, architecture: &str, avx: bool) -> Value {
    let mut labels = json!({"kubernetes.io/arch": architecture});
    if avx {
        labels["feature.node.kubernetes.io/cpu-cpuid.AVX"] = json!("true");
    }
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

async fn existing(nodes: &[Value]) -> Existing {
    let kube = FakeKube::default();
    kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}));
    nodes.iter().for_each(|node| kube.put(node.clone()));
    let read = Existing::read(&kube, "work", "text").await.unwrap();
    Existing { version: "v1.34.4".to_owned(), storage_class: Some("standard".to_owned()), ..read }
}

/// What is chosen for a profile of the object store where the engine, and nothing else, has these images.
async fn choices(
    existing: &Existing,
    images: &[(&str, &str)],
    component: &str,
) -> Result<(Resolved, Vec<Choice>), Failure> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.yaml");
    std::fs::write(
        &file,
        format!("apiVersion: devstack/v1\nkind: Profile\nname: demo\ncomponents: [{{use: {component}}}]\n"),
    )
    .unwrap();
    let store = directory.path().join("components/anywhere");
    std::fs::create_dir_all(&store).unwrap();
    let text = "apiVersion: devstack/v1\nkind: Component\nname: anywhere\nimages: {server: object-store}\n";
    std::fs::write(store.join("component.yaml"), text).unwrap();
    let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    ctx.dirs.cache = directory.path().join("cache");
    let engine = FakeEngine::default();
    for (reference, architecture) in images {
        engine.put_image(
            reference,
            EngineImage { platforms: vec![format!("linux/{architecture}")], ..EngineImage::default() },
        );
    }
    let (engine, runner) = (Arc::new(engine), Arc::new(FakeRunner::default()));
    let world = World::new(&ctx, "demo", engine.clone(), runner.clone());
    let world = world.with_images(Images::open(&ctx, Some(engine), runner, Limits::default()).unwrap());
    let facts = ClusterFacts::existing(existing).to_value();
    let source = ProfileSource::of(file.to_str().unwrap());
    let profile = profile::load(&profile::Request::new(&source, &[], &facts)).unwrap();
    let choices = choose(&world, &profile, existing, true).await?;
    Ok((profile, choices))
}

/// The images that are chosen, and the terms that the component's pods are held to.
async fn planned(
    nodes: &[Value],
    images: &[(&str, &str)],
    component: &str,
) -> Result<(Vec<String>, Option<Value>), String> {
    let existing = existing(nodes).await;
    let (profile, choices) = choices(&existing, images, component)
        .await
        .map_err(|failure| failure.render().lines().next().unwrap().to_owned())?;
    let chosen = choices.iter().map(|choice| choice.reference.clone()).collect();
    let inputs = Inputs {
        environment: "demo",
        profile: &profile,
        ground: Ground::Shared(Box::new(Shared { existing, instance: "i".to_owned(), delivery: None })),
        choices,
        ports: (0, 0),
        credentials: BTreeMap::new(),
        sites: BTreeMap::new(),
        begun: false,
        before: BTreeMap::new(),
        kubeconfig: "/kubeconfig".into(),
        hosts: None,
    };
    let plan = plan(&inputs).unwrap();
    let step = plan.graph.nodes().iter().find(|node| node.id == component).unwrap();
    let Step::Component(step) = &step.step else { panic!("{component} is no component") };
    Ok((chosen, step.held.clone().map(|held| held.terms.into())))
}

fn term(architecture: &str, flag: Option<&str>) -> Value {
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let flag = flag.map(|flag| is(&format!("feature.node.kubernetes.io/cpu-cpuid.{flag}"), "true"));
    let all: Vec<Value> = std::iter::once(is("kubernetes.io/arch", architecture)).chain(flag).collect();
    json!({"matchExpressions": all})
}

#[tokio::test]
async fn the_better_release_goes_to_the_nodes_that_run_it() {
    let nodes = [node("old", "amd64", false), node("new-1", "amd64", true), node("new-2", "amd64", true)];
    let all = [NEW, STATIC, MC, MC_OLD].map(|image| (image, "amd64"));
    let (chosen, terms) = planned(&nodes, &all, "minio").await.unwrap();
    assert_eq!(chosen, [MC, NEW]);
    let terms = terms.unwrap();
    assert_eq!(terms[0], term("amd64", Some("AVX")));
    // A component that says nothing runs everywhere, and what runs everywhere is taken for it.
    let (chosen, terms) = planned(&nodes, &all, "anywhere").await.unwrap();
    assert_eq!((chosen, terms), (vec![STATIC.to_owned()], None));
}

#[tokio::test]
async fn nodes_that_are_alike_hold_nothing() {
    let nodes = [node("a", "amd64", true), node("b", "amd64", true)];
    let (chosen, terms) = planned(&nodes, &[(NEW, "amd64"), (MC, "amd64")], "minio").await.unwrap();
    assert_eq!((chosen, terms), (vec![MC.to_owned(), NEW.to_owned()], None));
}

#[tokio::test]
async fn of_several_architectures_the_one_that_most_nodes_have_is_taken() {
    let nodes = [node("x", "amd64", false), node("arm-1", "arm64", false), node("arm-2", "arm64", false)];
    let (chosen, terms) = planned(&nodes, &[(NEW, "arm64"), (MC, "arm64")], "minio").await.unwrap();
    assert_eq!((chosen, terms), (vec![MC.to_owned(), NEW.to_owned()], Some(json!([term("arm64", None)]))));
    // Only the smaller group can get it.
    let (_, terms) = planned(&nodes, &[(STATIC, "amd64"), (MC_OLD, "amd64")], "minio").await.unwrap();
    assert_eq!(terms, Some(json!([term("amd64", None)])));
    let refused = planned(&nodes, &[(NEW, "arm64")], "anywhere").await.unwrap_err();
    assert_eq!(refused, "error: the nodes have several architectures: amd64 (x), arm64 (arm-1, arm-2)");
}

#[test]
fn the_catalog_decides_then_the_number_of_nodes_and_data_stays_where_it_is() {
    let choice = |reference: &str, architecture: &str| -> Vec<Choice> {
        let version = reference.rsplit(':').next().unwrap().trim_end_matches("-distroless");
        vec![
            serde_json::from_value(json!({
                "role": "object-store", "version": version, "reference": reference, "source": {"from": "nodes"},
                "platform": format!("linux/{architecture}"), "cpu": "x86-64-v1", "why": "",
            }))
            .unwrap(),
        ]
    };
    let catalog = Catalog::builtin().unwrap();
    let of = |groups: &[(&str, &str)], before: Option<&str>| {
        let chosen = groups.iter().map(|(reference, architecture)| choice(reference, architecture)).collect();
        let before = before.map(Platform::linux);
        let chosen = best(&catalog, chosen, before.as_ref()).unwrap().remove(0);
        (chosen.reference, chosen.platform.architecture)
    };
    let is = |reference: &str, architecture: &str| (reference.to_owned(), architecture.to_owned());
    assert_eq!(of(&[(STATIC, "amd64"), (NEW, "amd64")], None), is(NEW, "amd64"));
    assert_eq!(of(&[(NEW, "arm64"), (NEW, "amd64")], None), is(NEW, "arm64"));
    assert_eq!(of(&[(NEW, "arm64"), (STATIC, "amd64")], Some("amd64")), is(STATIC, "amd64"));
    assert_eq!(of(&[(NEW, "arm64")], Some("amd64")), is(NEW, "arm64"));
}
