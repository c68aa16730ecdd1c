use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::error::Advise as _;

fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn s3www(pairs: &[(&str, &str)], reachable: bool) -> Result<Resolved, ProfileError> {
    let facts = crate::cluster::ClusterFacts::own(crate::cluster::Provider::Kind, reachable, None).to_value();
    load(&Request::new(&ProfileSource::Builtin("s3www".to_owned()), &settings(pairs), &facts))
}

/// Late values as core fills them in.
fn scope() -> Scope {
    let mut scope = Scope::new();
    scope.set("environment.name", "demo");
    scope.set("network.pool", "172.18.255.200-172.18.255.250");
    for role in ["metallb-controller", "metallb-speaker", "traefik", "object-store", "mc", "s3www"] {
        scope.set(&format!("images.{role}"), json!({"ref": format!("{role}:1"), "version": "1", "manifests": "v0.13"}));
    }
    for id in ["metallb.memberlist", "minio.root", "minio.readers.s3www"] {
        let pair = json!({"username": format!("user-{id}"), "password": format!("password-{id}")});
        scope.set(&format!("credentials.{id}"), pair);
    }
    scope.set(
        "routes.site",
        json!({
            "url": "http://s3www.localhost:8080/site.gif",
            "host": "s3www.localhost",
            "hosts": ["s3www.localhost", "s3www.test"],
        }),
    );
    scope.set("content.site.sha256", "00".repeat(32));
    scope
}

fn component<'a>(resolved: &'a Resolved, name: &str) -> &'a ResolvedComponent {
    resolved.components.iter().find(|component| component.name == name).unwrap()
}

fn render(resolved: &Resolved, name: &str) -> Vec<Vec<Value>> {
    component(resolved, name).render(&scope()).unwrap()
}

fn object(waves: &[Vec<Value>], kind: &str, name: &str) -> Value {
    let found = waves.iter().flatten().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}")).clone()
}

fn names(waves: &[Vec<Value>]) -> String {
    let name = |object: &Value| {
        format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    let wave = |wave: &Vec<Value>| wave.iter().map(name).collect::<Vec<_>>().join(", ");
    waves.iter().map(wave).collect::<Vec<_>>().join("\n")
}

#[test]
fn s3www_where_addresses_are_reachable() {
    let resolved = s3www(&[], true).unwrap();
    let order: Vec<_> = resolved.components.iter().map(|component| &*component.name).collect();
    assert_eq!(order, ["metallb", "traefik", "minio", "s3www"]);
    assert_eq!(component(&resolved, "s3www").requires.iter().collect::<Vec<_>>(), ["minio", "traefik"]);
    let credentials: Vec<_> = resolved.components.iter().flat_map(|component| &component.credentials).collect();
    assert_eq!(credentials, ["metallb.memberlist", "minio.root", "minio.readers.s3www"]);
    assert_eq!(resolved.memory(), (128 + 128 + 512 + 64) << 20);
    assert_eq!(resolved.disk(), 1 << 30);
    insta::assert_snapshot!(names(&render(&resolved, "traefik")), @"
    Namespace traefik
    ServiceAccount traefik, ClusterRole traefik, ClusterRoleBinding traefik, IngressClass traefik, Deployment traefik, Service traefik
    ");
    insta::assert_snapshot!(names(&render(&resolved, "minio")), @"
    Namespace minio
    Secret minio-root, Service minio, StatefulSet minio, ConfigMap minio-setup, ConfigMap minio-policy-site, Secret minio-reader-s3www, Job bucket-site-s3www
    ");
    insta::assert_snapshot!(names(&render(&resolved, "s3www")), @"
    Namespace s3www
    Secret s3www-reader, Deployment s3www, Service s3www, Ingress s3www.localhost, Ingress s3www.test
    ");
    let ready = |name: &str| serde_json::to_string(&component(&resolved, name).ready).unwrap();
    insta::assert_snapshot!(ready("traefik"), @r#"[{"kind":"deployment","name":"traefik","namespace":"traefik"},{"kind":"service-address","name":"traefik","namespace":"traefik"}]"#);
    insta::assert_snapshot!(ready("minio"), @r#"[{"kind":"stateful-set","name":"minio","namespace":"minio"},{"kind":"job","name":"bucket-site-s3www","namespace":"minio"}]"#);
}

#[test]
fn metallb_has_its_pool_before_anything_can_refuse_it() {
    let resolved = s3www(&[], true).unwrap();
    let mut scope = scope();
    for (manifests, webhooks) in [("v0.13", false), ("v0.16", true)] {
        let image = json!({"ref": "controller:1", "version": "1", "manifests": manifests});
        scope.set("images.metallb-controller", image);
        let waves = component(&resolved, "metallb").render(&scope).unwrap();
        assert_eq!(
            object(&waves, "IPAddressPool", "devstack")["spec"]["addresses"],
            json!(["172.18.255.200-172.18.255.250"])
        );
        let wave = |kind: &str| waves.iter().position(|wave| wave.iter().any(|object| object["kind"] == kind));
        assert!(wave("CustomResourceDefinition") < wave("IPAddressPool"));
        assert!(wave("Secret") < wave("DaemonSet"));
        assert_eq!(wave("Namespace"), Some(0));
        let text = serde_json::to_string(&waves).unwrap();
        assert!(!text.contains("caBundle"));
        // Whoever turns webhooks off leaves nothing behind that the API server would ask.
        assert_eq!(wave("ValidatingWebhookConfiguration").is_some(), webhooks);
        assert_eq!(text.contains("webhook-service"), webhooks);
        assert_eq!(text.contains("--webhook-mode=disabled"), !webhooks);
        if webhooks {
            assert!(wave("IPAddressPool") < wave("ValidatingWebhookConfiguration"));
        }
    }
}

#[test]
fn s3www_where_only_loopback_is() {
    let resolved = s3www(&[], false).unwrap();
    assert_eq!(resolved.off.iter().collect::<Vec<_>>(), ["metallb"]);
    let traefik = render(&resolved, "traefik");
    assert_eq!(object(&traefik, "Service", "traefik")["spec"]["type"], "ClusterIP");
    assert!(component(&resolved, "traefik").ready.iter().all(|ready| ready.kind != ReadyKind::ServiceAddress));
}

#[test]
fn objects_carry_labels_and_namespaces() {
    let resolved = s3www(&[], false).unwrap();
    let waves = render(&resolved, "traefik");
    insta::assert_snapshot!(object(&waves, "Namespace", "traefik")["metadata"], @r#"{"labels":{"app.kubernetes.io/managed-by":"devstack","app.kubernetes.io/part-of":"s3www","dev.devstack.component":"traefik","dev.devstack.environment":"demo"},"name":"traefik"}"#);
    insta::assert_snapshot!(object(&waves, "ClusterRole", "traefik")["metadata"], @r#"{"labels":{"app.kubernetes.io/managed-by":"devstack","app.kubernetes.io/part-of":"s3www","dev.devstack.component":"traefik","dev.devstack.environment":"demo"},"name":"traefik"}"#);
    insta::assert_snapshot!(object(&waves, "Deployment", "traefik")["spec"]["template"]["metadata"]["labels"], @r#"{"app.kubernetes.io/name":"traefik","dev.devstack.component":"traefik","dev.devstack.environment":"demo"}"#);
    assert_eq!(object(&waves, "Service", "traefik")["metadata"]["namespace"], "traefik");
    let minio = render(&resolved, "minio");
    let claim = &object(&minio, "StatefulSet", "minio")["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["metadata"]["labels"]["dev.devstack.environment"], "demo");
}

#[test]
fn the_root_key_stays_in_minios_namespace() {
    let resolved = s3www(&[], true).unwrap();
    let own = serde_json::to_string(&render(&resolved, "s3www")).unwrap();
    assert!(own.contains("password-minio.readers.s3www"));
    assert!(!own.contains("minio.root"), "{own}");
    let minio = render(&resolved, "minio");
    let secret = object(&minio, "Secret", "minio-reader-s3www");
    assert_eq!(secret["stringData"]["username"], "user-minio.readers.s3www");
    let script = &object(&minio, "ConfigMap", "minio-setup")["data"]["setup.sh"];
    assert!(!script.as_str().unwrap().contains("${"), "{script}");
}

#[test]
fn requests_are_known_late() {
    let resolved = s3www(&[], true).unwrap();
    let preview = serde_json::to_string(&resolved.verify_preview()).unwrap();
    insta::assert_snapshot!(preview, @r#"[{"url":"${routes.site.url}","status":200,"sha256":"${content.site.sha256}","contains":null},{"url":"http://minio.minio.svc.cluster.local:9000/site/site.gif","status":403,"sha256":null,"contains":null}]"#);
    let verify = resolved.verify(&scope()).unwrap();
    assert_eq!(verify[0].url, "http://s3www.localhost:8080/site.gif");
    assert_eq!(verify[1].url, "http://minio.minio.svc.cluster.local:9000/site/site.gif");
    let error = resolved.verify(&Scope::new()).unwrap_err();
    insta::assert_snapshot!(error, @"profiles/s3www.yaml:23: ${routes.site.url} is not known yet");
}

#[test]
fn settings_are_recorded_as_they_mean_the_same_in_any_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("public")).unwrap();
    let facts = crate::cluster::ClusterFacts::own(crate::cluster::Provider::Kind, true, None).to_value();
    let source = ProfileSource::Builtin("s3www".to_owned());
    let recorded = |given: &[(&str, &str)]| {
        let given = settings(given);
        load(&Request { cwd: dir.path(), ..Request::new(&source, &given, &facts) }).unwrap().settings
    };
    let path = dir.path().join("public").display().to_string();
    let given = [("site", "builtin:site.gif"), ("minio.size", "2Gi"), ("site", "./public")];
    assert_eq!(recorded(&given), settings(&[given[0], given[1], ("site", &path)]));
    assert_eq!(recorded(&[("site", &path)]), settings(&[("site", &path)]));
}

#[test]
fn settings_change_parameters() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("my cat.gif"), b"GIF89a").unwrap();
    let file = dir.path().join("my cat.gif").display().to_string();
    let resolved = s3www(
        &[
            ("site", &file),
            ("nodes", "3"),
            ("s3www.replicas", "2"),
            ("minio.image", "registry.example/minio:1"),
            ("minio.image.client", "registry.example/mc:1"),
        ],
        true,
    )
    .unwrap();
    assert_eq!(resolved.cluster.nodes, 3);
    assert_eq!(object(&render(&resolved, "s3www"), "Deployment", "s3www")["spec"]["replicas"], 2);
    assert_eq!(resolved.routes[0].path, "/my%20cat.gif");
    let minio = component(&resolved, "minio");
    assert_eq!(minio.content[0].source, ContentSource::File(PathBuf::from(&file)));
    assert_eq!((&*minio.content[0].key, minio.content[0].size), ("my cat.gif", Some(6)));
    assert_eq!(
        serde_json::to_value(&minio.image_overrides).unwrap(),
        json!({"client": "registry.example/mc:1", "server": "registry.example/minio:1"})
    );

    let resolved = s3www(&[("site", &dir.path().display().to_string())], true).unwrap();
    let content = &component(&resolved, "minio").content[0];
    assert_eq!((&*content.path, &*content.key, content.size), ("/", "index.html", None));
    std::fs::write(dir.path().join("index.html"), b"<p>").unwrap();
    let resolved = s3www(&[("site", &dir.path().display().to_string())], true).unwrap();
    let content = &component(&resolved, "minio").content[0];
    assert_eq!(content.size, Some(3));
    let resolved = s3www(&[("site", &dir.path().join("index.html").display().to_string())], true).unwrap();
    let content = &component(&resolved, "minio").content[0];
    assert_eq!((&*content.path, &*content.key), ("/", "index.html"), "the server redirects /index.html");
}

#[test]
fn a_value_with_a_reference_in_it_stays_text() {
    let resolved = s3www(&[("minio.storageClass", "${credentials.root.password}")], false).unwrap();
    let claim = &object(&render(&resolved, "minio"), "StatefulSet", "minio")["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["spec"]["storageClassName"], "${credentials.root.password}");
}

#[test]
fn wrong_settings_are_refused() {
    let cases: &[((&str, &str), &str)] = &[
        (("sites", "x"), "--set sites: unknown parameter `sites`, did you mean `site`?"),
        (("nodes", "many"), "--set nodes: expected a whole number, found `many`"),
        (("nodes", "10"), "--set nodes: expected a whole number from 1 to 9, found 10"),
        (("site", "/nowhere/at/all"), "--set site: /nowhere/at/all does not exist"),
        (("site", "/dev/null"), "--set site: /dev/null is neither a file nor a directory"),
        (("site", ""), "--set site: expected a path, found nothing"),
        (("host", "UPPER"), "--set host: `UPPER` is no host name: lower-case letters, digits, dashes and dots"),
        (("mino.size", "1Gi"), "--set mino.size: unknown component `mino`, did you mean `minio`?"),
        (("minio.sise", "1Gi"), "--set minio.sise: unknown parameter `sise`, did you mean `size`?"),
        (("minio.size", "big"), "--set minio.size: `big` does not match [0-9]+(Mi|Gi|Ti)"),
        (
            ("minio.buckets", "[{name: site, reader: []}]"),
            "--set minio.buckets: 0.reader: unknown key `reader`, did you mean `readers`?",
        ),
        (("metallb.image", "x"), "--set metallb.image: say which image: controller, speaker"),
        (("traefik.loadBalancer", "yes"), "--set traefik.loadBalancer: expected true or false, found `yes`"),
        (("s3www.credentials", "hunter2"), "--set s3www.credentials: expected a mapping, found text"),
    ];
    for ((name, value), message) in cases {
        match s3www(&[(name, value)], true) {
            Ok(_) => panic!("--set {name}={value} is accepted"),
            Err(error) => {
                assert_eq!(error.to_string(), *message);
                assert_eq!(error.exit().code(), 2);
            }
        }
    }
}

#[test]
fn an_unknown_profile_lists_what_there_is() {
    let error = load(&Request::of_files(&ProfileSource::of("s3ww"))).unwrap_err();
    assert_eq!(error.to_string(), "no profile is called `s3ww`, did you mean `s3www`?");
    assert!(error.hint().unwrap().contains("s3www"));
    let error = load(&Request::of_files(&ProfileSource::of("./nowhere.yaml"))).unwrap_err();
    assert_eq!(error.to_string(), "./nowhere.yaml does not exist");
}

#[test]
fn a_profile_extends_another() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "devstack.yaml",
        "apiVersion: devstack/v1
kind: Profile
name: mine
extends: s3www
parameters:
  site: {default: site}
  host: {default: home}
  motto: {type: secret, default: hunter2hunter2}
components:
  - use: minio
    with: {size: 2Gi}
  - use: notes
    with: {text: \"${motto}\"}
routes:
  - {name: site, host: \"${host}\", service: s3www/s3www, port: 80, path: /about.html}
",
    );
    std::fs::create_dir_all(dir.path().join("site")).unwrap();
    std::fs::create_dir_all(dir.path().join("components/notes")).unwrap();
    write(
        "components/notes/component.yaml",
        "apiVersion: devstack/v1
kind: Component
name: notes
parameters: {text: {type: secret}}
manifests: [{file: notes.yaml}]
",
    );
    write(
        "components/notes/notes.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {text: \"${text}\", raw: \"$${text}\"}\n",
    );
    let source = ProfileSource::of(&dir.path().display().to_string());
    assert_eq!(ProfileSource::of(&source.recorded()), source);
    let facts = crate::cluster::ClusterFacts::own(crate::cluster::Provider::Kind, false, None).to_value();
    let resolved = load(&Request::new(&source, &[], &facts)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(resolved.name, "mine");
    let order: Vec<_> = resolved.components.iter().map(|component| &*component.name).collect();
    assert_eq!(order, ["traefik", "minio", "s3www", "notes"]);
    assert_eq!(resolved.routes.len(), 1);
    assert_eq!((&*resolved.routes[0].host, &*resolved.routes[0].path), ("home", "/about.html"));
    assert_eq!(resolved.disk(), 2 << 30);
    let content = &component(&resolved, "minio").content[0];
    assert_eq!(content.source, ContentSource::Directory(dir.path().join("site")));
    let notes = object(&render(&resolved, "notes"), "ConfigMap", "notes");
    assert_eq!(notes["data"], json!({"text": "hunter2hunter2", "raw": "${text}"}));
    assert_eq!(notes["metadata"]["labels"]["app.kubernetes.io/part-of"], "mine");
    assert!(!to_json(&resolved).to_string().contains("hunter2"), "secrets are not shown");
}

#[test]
fn an_address_is_waited_for_only_where_something_gives_it_away() {
    let dir = tempfile::tempdir().unwrap();
    let own = crate::cluster::ClusterFacts::own(crate::cluster::Provider::Kind, true, None).to_value();
    let on = |components: &str, facts: &Value| {
        let text = format!("apiVersion: devstack/v1\nkind: Profile\nname: own\ncomponents: {components}\n");
        std::fs::write(dir.path().join("devstack.yaml"), text).unwrap();
        let resolved = load(&Request::new(&ProfileSource::Dir(dir.path().to_path_buf()), &[], facts)).unwrap();
        let waits = component(&resolved, "traefik").ready.iter().any(|ready| ready.kind == ReadyKind::ServiceAddress);
        (waits, resolved.off.into_iter().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(on("[{use: traefik}]", &own), (false, String::new()));
    assert_eq!(on("[{use: traefik}, {use: metallb}]", &own), (true, String::new()));
    assert_eq!(on("[{use: traefik}, {use: metallb, when: \"${facts.reachable}\"}]", &own), (true, String::new()));
    assert_eq!(on("[{use: metallb, when: \"${facts.loadBalancer}\"}, {use: traefik}]", &own), (true, String::new()));
    let off = on("[{use: metallb, when: \"!${facts.reachable}\"}, {use: traefik}]", &own);
    assert_eq!(off, (false, "metallb".to_owned()));
    let more = on("[{use: minio, when: \"${facts.loadBalancer}\"}, {use: traefik}]", &own);
    assert_eq!(more, (false, "minio".to_owned()));
    let mut there = own;
    there["provides"] = json!(["load-balancer"]);
    assert_eq!(on("[{use: traefik}]", &there), (true, String::new()));
}

/// Reads objects as the API's types and writes them again: a key that the type does not know is lost on the way.
fn as_the_api_knows_it(object: &Value) -> Value {
    use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};
    use k8s_openapi::api::{networking::v1 as networking, rbac::v1 as rbac};
    fn through<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
        serde_json::to_value(typed).unwrap()
    }
    match object["kind"].as_str().unwrap() {
        "ClusterRole" => through::<rbac::ClusterRole>(object),
        "ClusterRoleBinding" => through::<rbac::ClusterRoleBinding>(object),
        "ConfigMap" => through::<core::ConfigMap>(object),
        "DaemonSet" => through::<apps::DaemonSet>(object),
        "Deployment" => through::<apps::Deployment>(object),
        "Ingress" => through::<networking::Ingress>(object),
        "IngressClass" => through::<networking::IngressClass>(object),
        "Job" => through::<batch::Job>(object),
        "Namespace" => through::<core::Namespace>(object),
        "Role" => through::<rbac::Role>(object),
        "RoleBinding" => through::<rbac::RoleBinding>(object),
        "Secret" => through::<core::Secret>(object),
        "Service" => through::<core::Service>(object),
        "ServiceAccount" => through::<core::ServiceAccount>(object),
        "StatefulSet" => through::<apps::StatefulSet>(object),
        _ => object.clone(),
    }
}

/// The paths of `object` that are not in `other` as well.
fn lost(object: &Value, other: &Value, path: &str, found: &mut Vec<String>) {
    match (object, other) {
        (Value::Object(fields), Value::Object(others)) => {
            for (key, value) in fields {
                match others.get(key) {
                    Some(other) => lost(value, other, &format!("{path}/{key}"), found),
                    None => found.push(format!("{path}/{key}")),
                }
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            items.iter().zip(others).enumerate().for_each(|(i, (a, b))| lost(a, b, &format!("{path}/{i}"), found));
        }
        (object, other) if object == other => {}
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_object_is_as_the_api_knows_it() {
    let mut scope = scope();
    let mut found = Vec::new();
    for (reachable, manifests) in [(true, "v0.13"), (true, "v0.16"), (false, "v0.13")] {
        let image = json!({"ref": "controller:1", "version": "1", "manifests": manifests});
        scope.set("images.metallb-controller", image);
        let resolved = s3www(&[], reachable).unwrap();
        for component in &resolved.components {
            for object in component.render(&scope).unwrap().iter().flatten() {
                let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
                lost(object, &as_the_api_knows_it(object), &name, &mut found);
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn graphs_are_drawn() {
    let resolved = s3www(&[], true).unwrap();
    insta::assert_snapshot!(graph::draw(&resolved, graph::Language::Mermaid), @r#"
    graph TD
      subgraph cluster["s3www · 1 node"]
        metallb["metallb"]
        traefik["traefik"]
        minio["minio"]
        s3www["s3www"]
      end
      s3www --> minio
      s3www --> traefik
      route_site(["s3www"])
      route_site --> s3www
    "#);
    insta::assert_snapshot!(graph::draw(&resolved, graph::Language::Dot), @r#"
    digraph "s3www" {
      node [shape=box];
      subgraph cluster_environment {
        label="s3www · 1 node";
        "metallb";
        "traefik";
        "minio";
        "s3www";
      }
      "s3www" -> "minio";
      "s3www" -> "traefik";
      "route site" [label="s3www", shape=oval];
      "route site" -> "s3www";
    }
    "#);
}
