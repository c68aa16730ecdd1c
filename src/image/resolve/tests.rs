use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;
use crate::facts::CpuLevel;
use crate::image::{InEngine, Mirrors, RecipeState, Reference, RegistryError, Remote, Stored, Target};
use crate::oci::{Digest, Platform};

const CATALOG: &[(&str, &str)] = &[
    (
        "node.yaml",
        "role: node\nsummary: s\nreleases:
  - {version: v1.37.0, cgroup: 2, images: [{ref: 'r.example/node:v1.37.0', platforms: [linux/amd64, linux/arm64]}]}
  - {version: v1.34.11, images: [{ref: 'r.example/node:v1.34.11', platforms: [linux/amd64, linux/arm64]}]}
  - {version: v1.34.4, build: {recipe: node, platforms: [linux/amd64, linux/arm64]}}",
    ),
    (
        "store.yaml",
        "role: store\nsummary: s\nreleases:
  - version: '2'
    images:
      - {ref: 'r.example/store:2', platforms: [linux/amd64, linux/arm64], cpu: x86-64-v2}
      - {ref: 'r.example/store:2-static', platforms: [linux/amd64, linux/arm64]}
  - {version: '1', mirrorOnly: true, note: gone, images: [{ref: 'gone.example/store:1', platforms: [linux/amd64]}]}
  - {version: source, substitute: true, build: {recipe: image-store, platforms: [linux/amd64]}}",
    ),
    (
        "left.yaml",
        "role: left\nsummary: s\ngroup: pair\nreleases:
  - {version: v2, manifests: v2, images: [{ref: 'r.example/left:v2', platforms: [linux/amd64]}]}
  - {version: v1, manifests: v1, images: [{ref: 'r.example/left:v1', platforms: [linux/amd64]}]}",
    ),
    (
        "right.yaml",
        "role: right\nsummary: s\ngroup: pair\nreleases:
  - {version: v2, manifests: v2, images: [{ref: 'q.example/right:v2', platforms: [linux/amd64]}]}
  - {version: v1, manifests: v1, images: [{ref: 'q.example/right:v1', platforms: [linux/amd64]}]}",
    ),
    (
        "old.yaml",
        "role: old\nsummary: s\nreleases:
  - {version: v2, kubernetes: {from: '1.35'}, images: [{ref: 'r.example/old:v2', platforms: [linux/amd64]}]}
  - {version: v1, kubernetes: {to: '1.34'}, images: [{ref: 'r.example/old:v1', platforms: [linux/amd64]}]}",
    ),
];

fn catalog() -> Catalog {
    let file =
        |(name, body): &(&str, &str)| ((*name).to_owned(), format!("apiVersion: devstack/v1\nkind: Catalog\n{body}\n"));
    Catalog::parse(CATALOG.iter().map(file)).unwrap()
}

fn request(roles: &[&str]) -> Request {
    Request {
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        target: Target {
            platform: Platform::linux("amd64"),
            cpu: Some(CpuLevel::V3),
            kubernetes: KubeRange::default(),
            cgroup: Some(2),
        },
        named: BTreeMap::new(),
        recorded: Vec::new(),
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A world in which the registries have these and nothing else.
fn registries(have: &[&str]) -> Availability {
    let mut world = Availability::default();
    let all = CATALOG.iter().flat_map(|(_, body)| body.split("ref: '").skip(1));
    for name in all.filter_map(|rest| rest.split('\'').next()) {
        let answer = if have.contains(&name) {
            Ok(Remote { digest: Digest::of(name.as_bytes()), bytes: 1000 })
        } else {
            Err(RegistryError::NotFound { host: reference(name).registry().to_owned(), what: name.to_owned() })
        };
        world.remote.insert(reference(name), answer);
    }
    for recipe in ["node", "image-store"] {
        let state = RecipeState { reference: format!("devstack.local/{recipe}:1"), unmet: vec![], seconds: Some(90) };
        world.recipes.insert(recipe.to_owned(), state);
    }
    world
}

fn show(answer: &Result<Vec<Choice>, Unresolvable>) -> String {
    let mut text = String::new();
    let rejected = |text: &mut String, all: &[Rejected]| {
        for item in all {
            let _ = writeln!(text, "  not {} ({:?}): {}", item.reference, item.kind, item.reason);
        }
    };
    match answer {
        Ok(choices) => {
            for choice in choices {
                let source = choice.source.word();
                let _ = writeln!(text, "{} = {} from {source}: {}", choice.role, choice.reference, choice.why);
                rejected(&mut text, &choice.rejected);
            }
        }
        Err(error) => {
            let _ = writeln!(text, "{error}\nhint: {}", error.hint().unwrap_or_default());
            if let Unresolvable::Roles(roles) = error {
                for role in roles {
                    let _ = writeln!(text, "{}", role.role);
                    rejected(&mut text, &role.rejected);
                }
            }
        }
    }
    text
}

fn answer(request: &Request, world: &Availability) -> String {
    let first = resolve(&catalog(), request, world);
    assert_eq!(first, resolve(&catalog(), request, world), "equal questions get equal answers");
    show(&first)
}

#[test]
fn the_first_release_that_a_registry_has_is_taken() {
    let world = registries(&["r.example/store:2", "r.example/store:2-static"]);
    insta::assert_snapshot!(answer(&request(&["store"]), &world), @"
    store = r.example/store:2 from registry: the registry r.example has it
    ");
}

#[test]
fn an_old_or_unknown_cpu_takes_what_runs_on_it() {
    let world = registries(&["r.example/store:2", "r.example/store:2-static"]);
    let mut old = request(&["store"]);
    old.target.cpu = Some(CpuLevel::V1);
    insta::assert_snapshot!(answer(&old, &world), @"
    store = r.example/store:2-static from registry: the registry r.example has it
      not r.example/store:2 (Cpu): it needs a CPU of level x86-64-v2, this one has x86-64-v1
    ");
    old.target.cpu = None;
    insta::assert_snapshot!(answer(&old, &world), @"
    store = r.example/store:2-static from registry: the registry r.example has it
      not r.example/store:2 (Cpu): it needs a CPU of level x86-64-v2, and the level here is not known
    ");
    old.target.platform = Platform::linux("arm64");
    insta::assert_snapshot!(answer(&old, &world), @"
    store = r.example/store:2 from registry: the registry r.example has it
    ");
}

#[test]
fn the_nearest_source_wins_and_the_order_is_fixed() {
    let name = "r.example/store:2";
    let mirrored = reference("m.example/store:2");
    let mut world = registries(&[name]);
    let word = |world: &Availability| {
        let choices = resolve(&catalog(), &request(&["store"]), world).unwrap();
        choices[0].source.word().to_owned()
    };
    assert_eq!(word(&world), "registry");
    world.mirrors = Mirrors::parse_variable("m.example").unwrap();
    world.remote.insert(mirrored, Ok(Remote { digest: Digest::of(b"m"), bytes: 1 }));
    assert_eq!(word(&world), "mirror");
    let engine = InEngine { platforms: vec![Platform::linux("amd64")], pulled_by: vec![] };
    world.engine.insert(name.to_owned(), engine);
    assert_eq!(word(&world), "engine");
    world.store.insert(name.to_owned(), Stored { digest: Digest::of(b"s"), pulled_by: None });
    assert_eq!(word(&world), "store");
    world.nodes.insert(name.to_owned());
    assert_eq!(word(&world), "nodes");
}

#[test]
fn the_engines_copy_must_be_for_the_platform() {
    let mut world = registries(&[]);
    let arm = InEngine { platforms: vec![Platform::linux("arm64")], pulled_by: vec![] };
    world.engine.insert("r.example/store:2".to_owned(), arm);
    insta::assert_snapshot!(answer(&request(&["store"]), &world), @"
    store = devstack.local/image-store:1 from build: it can be built from source here
      not r.example/store:2 (Platform): the engine's copy is for linux/arm64
      not r.example/store:2 (NotFound): r.example does not have r.example/store:2
      not r.example/store:2-static (NotFound): r.example does not have r.example/store:2-static
      not gone.example/store:1 (MirrorOnly): its registry has deleted it, and no mirror is configured
    ");
}

#[test]
fn an_engine_may_have_a_name_for_several_platforms_or_for_none() {
    let (amd, arm) = (Platform::linux("amd64"), Platform::linux("arm64"));
    let said = |platforms: Vec<Platform>| {
        let mut world = Availability::default();
        world.engine.insert("r.example/store:2".to_owned(), InEngine { platforms, pulled_by: vec![] });
        world.locally("r.example/store:2", None, &amd).map(|found| found.map(|found| found.source))
    };
    assert_eq!(said(vec![arm.clone(), amd.clone()]), Ok(Some(Source::Engine)));
    assert_eq!(said(vec![arm]), Err((Obstacle::Platform, "the engine's copy is for linux/arm64".to_owned())));
    assert_eq!(said(vec![]), Err((Obstacle::Platform, "the engine has its name and no content".to_owned())));
}

#[test]
fn an_engines_copy_that_was_pulled_by_another_digest_is_not_the_pinned_image() {
    let pinned = Digest::of(b"pinned");
    let mut request = request(&["store"]);
    request.named.insert("store".to_owned(), reference(&format!("r.example/own:1@{pinned}")));
    let mut world = Availability::default();
    for (pulled_by, taken) in [(vec![], true), (vec![pinned.clone()], true), (vec![Digest::of(b"other")], false)] {
        let copy = InEngine { platforms: vec![Platform::linux("amd64")], pulled_by };
        world.engine.insert(format!("r.example/own@{pinned}"), copy);
        assert_eq!(resolve(&catalog(), &request, &world).is_ok(), taken, "{:?}", world.engine);
    }
}

#[test]
fn a_pin_is_not_met_by_another_image_of_the_same_tag() {
    let (pinned, other) = (Digest::of(b"pinned"), Digest::of(b"other"));
    let platform = Platform::linux("amd64");
    let name = "r.example/own:1";
    let look = |world: &Availability| {
        world.locally(name, Some(&pinned), &platform).map(|found| found.map(|found| (found.source, found.digest)))
    };
    let mut world = Availability::default();
    let mut stored = |pulled_by: Option<&Digest>| {
        let stored = Stored { digest: Digest::of(b"manifest"), pulled_by: pulled_by.cloned() };
        world.store.insert(name.to_owned(), stored);
        look(&world)
    };
    let refused = Err((Obstacle::Digest, format!("the store's copy is not {pinned}")));
    assert_eq!(stored(Some(&other)), refused);
    assert_eq!(stored(Some(&pinned)), Ok(Some((Source::Store, Some(pinned.clone())))));
    let unknown = Ok(Some((Source::Store, Some(Digest::of(b"manifest")))));
    assert_eq!(stored(None), unknown, "what it is not known to be is not claimed");
    // The engine has the pinned one beside another that has the tag.
    stored(Some(&other)).unwrap_err();
    for (name, digest) in [(name.to_owned(), other), (format!("r.example/own@{pinned}"), pinned.clone())] {
        world.engine.insert(name, InEngine { platforms: vec![platform.clone()], pulled_by: vec![digest] });
    }
    assert_eq!(look(&world), Ok(Some((Source::Engine, Some(pinned.clone())))));
    world.nodes.insert(name.to_owned());
    assert_eq!(look(&world), Ok(Some((Source::Nodes, None))), "nodes tell no digest");
}

#[test]
fn another_pin_of_the_same_tag_is_another_choice() {
    let named = |pin: &str| {
        let mut request = request(&["store"]);
        request.named.insert("store".to_owned(), reference(&format!("r.example/own:1@{}", Digest::of(pin.as_bytes()))));
        request
    };
    let world = |request: &Request| {
        let pull = request.named["store"].on_nodes();
        let remote = Ok(Remote { digest: pull.digest().unwrap().clone(), bytes: 1 });
        Availability { remote: [(pull, remote)].into(), ..Availability::default() }
    };
    let first = named("a");
    let chosen = resolve(&catalog(), &first, &world(&first)).unwrap();
    assert_eq!(chosen[0].reference, format!("r.example/own@{}", Digest::of(b"a")));
    assert_eq!(chosen[0].version, "1");
    let nodes = [chosen[0].reference.clone()].into();
    let again = Request { recorded: chosen.clone(), ..first };
    assert!(keep_recorded(&again, &nodes).is_some());
    let other = Request { recorded: chosen, ..named("b") };
    assert_eq!(keep_recorded(&other, &nodes), None);
    assert_eq!(resolve(&catalog(), &other, &world(&other)).unwrap()[0].digest, Some(Digest::of(b"b")));
}

#[test]
fn without_registries_a_build_is_the_last_resort_and_says_so() {
    let mut world = registries(&[]);
    let gone = RegistryError::Unreachable { host: "r.example".to_owned(), reason: "no such host".to_owned() };
    for answer in world.remote.values_mut() {
        *answer = Err(gone.clone());
    }
    insta::assert_snapshot!(answer(&request(&["store", "node"]), &world), @"
    store = devstack.local/image-store:1 from build: it can be built from source here
      not r.example/store:2 (Unreachable): r.example cannot be reached: no such host
      not r.example/store:2-static (Unreachable): r.example cannot be reached: no such host
      not gone.example/store:1 (MirrorOnly): its registry has deleted it, and no mirror is configured
    node = devstack.local/node:1 from build: it can be built from source here
      not r.example/node:v1.37.0 (Unreachable): r.example cannot be reached: no such host
      not r.example/node:v1.34.11 (Unreachable): r.example cannot be reached: no such host
    ");
    let choices = resolve(&catalog(), &request(&["store"]), &world).unwrap();
    assert!(choices[0].substitute);
    assert_eq!(choices[0].expect_seconds, Some(90));
}

#[test]
fn what_a_build_lacks_is_the_reason() {
    let mut world = registries(&[]);
    for state in world.recipes.values_mut() {
        state.unmet = vec!["Go 1.25 is not installed".to_owned()];
    }
    insta::assert_snapshot!(answer(&request(&["store"]), &world), @"
    no image can be had for store
    hint: provide what the build needs (Go 1.25 is not installed); or name a mirror: DEVSTACK_MIRROR=HOST[/PREFIX]; or name an image yourself: --set COMPONENT.image=REFERENCE
    store
      not r.example/store:2 (NotFound): r.example does not have r.example/store:2
      not r.example/store:2-static (NotFound): r.example does not have r.example/store:2-static
      not gone.example/store:1 (MirrorOnly): its registry has deleted it, and no mirror is configured
      not recipe image-store (BuildNeeds): it cannot be built here: Go 1.25 is not installed
    ");
}

#[test]
fn offline_nobody_is_asked() {
    let mut world = registries(&[]);
    world.remote.clear();
    world.offline = true;
    insta::assert_snapshot!(answer(&request(&["store"]), &world), @"
    no image can be had for store
    hint: run it again without --offline; or name a mirror: DEVSTACK_MIRROR=HOST[/PREFIX]; or name an image yourself: --set COMPONENT.image=REFERENCE
    store
      not r.example/store:2 (Offline): r.example was not asked (offline)
      not r.example/store:2-static (Offline): r.example was not asked (offline)
      not gone.example/store:1 (MirrorOnly): its registry has deleted it, and no mirror is configured
      not recipe image-store (Offline): it is not built yet, and a build fetches sources (offline)
    ");
    world.store.insert("devstack.local/image-store:1".to_owned(), Stored { digest: Digest::of(b"s"), pulled_by: None });
    assert!(answer(&request(&["store"]), &world).starts_with(
        "store = devstack.local/image-store:1 from store: built from source earlier, devstack's store has it\n"
    ));
}

#[test]
fn nodes_follow_the_cgroup_version_and_the_wish() {
    let world = registries(&["r.example/node:v1.37.0", "r.example/node:v1.34.11"]);
    let mut request = request(&["node"]);
    assert!(answer(&request, &world).starts_with("node = r.example/node:v1.37.0 "));
    request.target.cgroup = Some(1);
    insta::assert_snapshot!(answer(&request, &world), @"
    node = r.example/node:v1.34.11 from registry: the registry r.example has it
      not r.example/node:v1.37.0 (Cgroup): it needs cgroup v2, the engine has v1
    ");
    request.target.cgroup = Some(2);
    request.target.kubernetes = "1.34".parse().unwrap();
    insta::assert_snapshot!(answer(&request, &world), @"
    node = r.example/node:v1.34.11 from registry: the registry r.example has it
      not r.example/node:v1.37.0 (Kubernetes): Kubernetes 1.34 is wanted
    ");
    request.target.kubernetes = "1.34.4".parse().unwrap();
    assert!(answer(&request, &world).starts_with("node = devstack.local/node:1 from build"));
}

#[test]
fn other_roles_follow_the_nodes_version() {
    let world = registries(&["r.example/node:v1.34.11", "r.example/old:v2", "r.example/old:v1"]);
    insta::assert_snapshot!(answer(&request(&["old", "node"]), &world), @"
    old = r.example/old:v1 from registry: the registry r.example has it
      not r.example/old:v2 (Kubernetes): it works with Kubernetes 1.35 or newer, not 1.34.11
    node = r.example/node:v1.34.11 from registry: the registry r.example has it
      not r.example/node:v1.37.0 (NotFound): r.example does not have r.example/node:v1.37.0
    ");
}

#[test]
fn a_group_is_taken_in_one_version() {
    let world = registries(&["r.example/left:v2", "r.example/left:v1", "q.example/right:v1"]);
    insta::assert_snapshot!(answer(&request(&["left", "right"]), &world), @"
    left = r.example/left:v1 from registry: the registry r.example has it
      not r.example/left:v2 (Group): right cannot be had in this version
    right = q.example/right:v1 from registry: the registry q.example has it
      not q.example/right:v2 (NotFound): q.example does not have q.example/right:v2
    ");
    let choices = resolve(&catalog(), &request(&["left", "right"]), &world).unwrap();
    assert!(choices.iter().all(|choice| choice.manifests.as_deref() == Some("v1")));
    let world = registries(&["r.example/left:v2", "q.example/right:v1"]);
    insta::assert_snapshot!(answer(&request(&["left", "right"]), &world), @"
    no image can be had for left, right
    hint: name an image yourself: --set COMPONENT.image=REFERENCE
    left
      not r.example/left:v2 (Group): right cannot be had in this version
      not r.example/left:v1 (NotFound): r.example does not have r.example/left:v1
    right
      not q.example/right:v2 (NotFound): q.example does not have q.example/right:v2
      not q.example/right:v1 (Group): left cannot be had in this version
    ");
}

#[test]
fn an_image_that_the_user_named_is_taken_or_nothing_is() {
    let mut request = request(&["store"]);
    request.named.insert("store".to_owned(), reference("r.example/own:1"));
    let mut world = registries(&["r.example/store:2"]);
    insta::assert_snapshot!(answer(&request, &world), @"
    no image can be had for store
    hint: name an image yourself: --set COMPONENT.image=REFERENCE
    store
      not r.example/own:1 (NotAsked): r.example was not asked
    ");
    world.remote.insert(reference("r.example/own:1"), Ok(Remote { digest: Digest::of(b"o"), bytes: 1 }));
    insta::assert_snapshot!(answer(&request, &world), @"
    store = r.example/own:1 from registry: you named it, and the registry r.example has it
    ");
}

#[test]
fn a_mirror_can_have_what_its_registry_deleted() {
    let mut world = registries(&[]);
    world.recipes.clear();
    world.mirrors = Mirrors::parse_variable("gone.example=m.example/legacy").unwrap();
    let answer_of_mirror = Ok(Remote { digest: Digest::of(b"m"), bytes: 1 });
    world.remote.insert(reference("m.example/legacy/store:1"), answer_of_mirror);
    insta::assert_snapshot!(answer(&request(&["store"]), &world), @"
    store = gone.example/store:1 from mirror: the mirror m.example has it
      not r.example/store:2 (NotFound): r.example does not have r.example/store:2
      not r.example/store:2-static (NotFound): r.example does not have r.example/store:2-static
    ");
}

#[test]
fn what_was_chosen_before_is_kept_while_it_can_be_had() {
    let before = resolve(&catalog(), &request(&["store"]), &registries(&["r.example/store:2-static"])).unwrap();
    let mut again = request(&["store"]);
    again.recorded = before;
    let both = registries(&["r.example/store:2", "r.example/store:2-static"]);
    insta::assert_snapshot!(answer(&again, &both), @"
    store = r.example/store:2-static from registry: chosen before, and the registry r.example has it
    ");
    let only_newer = registries(&["r.example/store:2"]);
    assert!(answer(&again, &only_newer).contains("store = r.example/store:2 from registry"));

    let built = resolve(&catalog(), &request(&["store"]), &registries(&[])).unwrap();
    again.recorded = built;
    assert!(answer(&again, &both).starts_with("store = devstack.local/image-store:1 from build: chosen before"));
}

#[test]
fn recorded_choices_on_the_nodes_need_no_question() {
    let mut again = request(&["store", "node"]);
    let have = ["r.example/store:2", "r.example/node:v1.37.0"];
    again.recorded = resolve(&catalog(), &again, &registries(&have)).unwrap();
    let nodes = have.iter().map(|name| (*name).to_owned()).collect();
    let kept = keep_recorded(&again, &nodes).unwrap();
    assert!(kept.iter().all(|choice| choice.source == Source::Nodes && choice.download_bytes.is_none()));
    assert_eq!(kept[0].digest, again.recorded[0].digest);

    assert_eq!(keep_recorded(&again, &std::collections::BTreeSet::new()), None, "the nodes lost it");
    let mut named = again.clone();
    named.named.insert("store".to_owned(), reference("r.example/own:1"));
    assert_eq!(keep_recorded(&named, &nodes), None, "the user names another image");
    let mut slower = again.clone();
    slower.target.cpu = Some(CpuLevel::V1);
    assert_eq!(keep_recorded(&slower, &nodes), None, "the CPU no longer carries it");
    let mut other = again.clone();
    other.target.kubernetes = "1.30".parse().unwrap();
    assert_eq!(keep_recorded(&other, &nodes), None, "another Kubernetes is wanted");
    other.target.kubernetes = "1.37".parse().unwrap();
    assert!(keep_recorded(&other, &nodes).is_some());
    let mut more = again.clone();
    more.roles.push("left".to_owned());
    assert_eq!(keep_recorded(&more, &nodes), None, "a role is new");
}

#[test]
fn a_choice_survives_its_record() {
    let choices = resolve(&catalog(), &request(&["store", "node"]), &registries(&[])).unwrap();
    let json = serde_json::to_string(&choices).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Choice>>(&json).unwrap(), choices);
}
