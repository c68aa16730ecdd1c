use std::sync::Arc;

use super::*;
use crate::context::Context;
use crate::executor;
use crate::graph::{Graph, Need, Node, When};
use crate::journal::Journal;
use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeKube, FakeRunner};
use crate::profile::{self, ProfileSource};
use crate::step::Step;

/// The step of a profile's component `app`, of these files beside the profile's own.
fn step(profile: &str, files: &[(&str, &str)], sets: &[(&str, &str)]) -> ComponentStep {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("apiVersion: devstack/v1\nkind: Profile\nname: demo\n{profile}");
    std::fs::write(dir.path().join("devstack.yaml"), text).unwrap();
    for (name, text) in files {
        let path = dir.path().join("components").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let head = if name.ends_with("component.yaml") { "apiVersion: devstack/v1\nkind: Component\n" } else { "" };
        std::fs::write(path, format!("{head}{text}")).unwrap();
    }
    let source = ProfileSource::Dir(dir.path().to_path_buf());
    let sets: Vec<_> = sets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let profile = profile::load(&profile::Request::new(&source, &sets, &json!({}))).unwrap();
    let component = profile.components.iter().find(|component| component.name == "app").unwrap().clone();
    let mut scope = Scope::new();
    scope.set("environment.name", "demo");
    let addresses = component.addresses.iter().map(|(service, of)| (service.clone(), step_ids::ready(of))).collect();
    ComponentStep {
        component,
        scope,
        images: step_ids::LOAD.to_owned(),
        placed: Value::Null,
        before: Vec::new(),
        claim: None,
        addresses,
        held: None,
    }
}

/// A world that is connected to a cluster.
pub(in crate::step) async fn world(kube: &FakeKube) -> (Context, World) {
    let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}));
    let opened: Arc<dyn Kube> = Arc::new(kube.clone());
    let world = World::new(&ctx, "demo", Arc::new(FakeEngine::default()), Arc::new(FakeRunner::default()))
        .with_kube(Arc::new(move |_| opened.clone()));
    world.connect("").await.unwrap();
    (ctx, world)
}

#[tokio::test]
async fn neither_the_old_nor_the_new_value_of_a_secret_is_told() {
    let of = |token: &str| {
        let profile = "parameters: {token: {type: secret}}\ncomponents: [{use: app, with: {text: \"${token}\"}}]\n";
        let component = "name: app\nparameters: {text: {type: string}}\nmanifests: [{file: notes.yaml}]\n";
        let notes = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {text: \"${text}\"}\n";
        step(profile, &[("app/component.yaml", component), ("app/notes.yaml", notes)], &[("token", token)])
    };
    let kube = FakeKube::default();
    let (_, world) = world(&kube).await;
    for object in of("old").render(&Late::default()).unwrap().waves.iter().flatten() {
        kube.put(object.clone());
    }
    let observed = of("new").observe(&world).await.unwrap();
    assert_eq!(observed.why.unwrap(), "ConfigMap app/notes differs: data.text");
}

#[tokio::test]
async fn an_address_is_filled_in_once_its_service_has_one() {
    let profile = "components: [{use: proxy}, {use: app}]\n";
    let files = [
        (
            "proxy/component.yaml",
            "name: proxy\nready: [{service-address: proxy}]\noutputs: {at: \"${services.proxy.proxy.address}\"}\n",
        ),
        ("app/component.yaml", "name: app\nmanifests: [{file: notes.yaml}]\n"),
        (
            "app/notes.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {at: \"http://${proxy.at}:80\"}\n",
        ),
    ];
    let step = step(profile, &files, &[]);
    assert_eq!(step.addresses, BTreeMap::from([("proxy/proxy".to_owned(), "proxy.ready".to_owned())]));
    let kube = FakeKube::default();
    let (ctx, world) = world(&kube).await;
    let observed = step.observe(&world).await.unwrap();
    assert_eq!((observed.action, step.keys(Late::default()).unwrap().len()), (Action::Later, 2));
    kube.put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "proxy", "namespace": "proxy"},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.7"}]}},
    }));
    assert_eq!(step.observe(&world).await.unwrap().action, Action::Create);
    let ready = ReadyStep {
        cluster: step_ids::CLUSTER.to_owned(),
        component: "proxy".to_owned(),
        namespaces: Vec::new(),
        ready: vec![Ready { kind: ReadyKind::ServiceAddress, name: "proxy".to_owned(), namespace: "proxy".to_owned() }],
    };
    let need = Need { step: "proxy.ready".to_owned(), when: When::Done };
    let graph = Graph::new(vec![
        Node { id: need.step.clone(), needs: [].into(), step: Step::Ready(ready) },
        Node { id: "app".to_owned(), needs: [need].into(), step: Step::Component(Box::new(step)) },
    ]);
    let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
    executor::run(&ctx, &world, &journal, &graph.unwrap(), false).await.unwrap();
    let notes = ObjectKey {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: Some("app".to_owned()),
        name: "notes".to_owned(),
    };
    assert_eq!(kube.get(&notes).await.unwrap().unwrap()["data"]["at"], "http://10.0.0.7:80");
}
