use super::*;

fn builtin() -> Catalog {
    Catalog::builtin().unwrap()
}

fn images(catalog: &Catalog) -> Vec<(&Entry, &Release, &Image)> {
    let releases = catalog.0.values().flat_map(|entry| entry.releases.iter().map(move |release| (entry, release)));
    releases.flat_map(|(entry, release)| release.images.iter().map(move |image| (entry, release, image))).collect()
}

#[test]
fn the_shipped_catalog_has_every_role() {
    let catalog = builtin();
    let roles: Vec<&str> = catalog.roles().collect();
    let wanted =
        ["mc", "metallb-controller", "metallb-speaker", "node", "object-store", "registry", "s3www", "traefik"];
    for role in wanted {
        assert!(roles.contains(&role), "{role}");
    }
    for file in PROFILES.get_dir("catalog").unwrap().files() {
        let stem = file.path().file_stem().unwrap().to_str().unwrap();
        assert_eq!(catalog.entry(stem).map(|entry| entry.role.as_str()), Ok(stem), "the file is named after its role");
    }
}

/// Data lint: images that do not exist, or no longer, must never be offered.
#[test]
fn the_shipped_catalog_offers_nothing_that_is_known_to_be_gone() {
    for (entry, release, image) in images(&builtin()) {
        let name = image.reference.to_string();
        let tag = image.reference.tag().unwrap();
        let owner = image.reference.repository().split('/').next().unwrap();
        assert!(!matches!(owner, "bitnami" | "bitnamilegacy" | "chainguard"), "{name}: unpinned or frozen");
        assert!(!tag.contains("latest") && !tag.contains(".hotfix."), "{name}: a moving or single-platform tag");
        if owner == "minio" {
            assert!(release.mirror_only, "{name}: MinIO's repositories are deleted");
            let date = tag.trim_start_matches("RELEASE.");
            assert!(date < "2025-09-08" || entry.role == "mc", "{name}: no image was ever published after 2025-09-07");
        }
        if image.reference.repository() == "y4m4/s3www" {
            let minor: u32 = tag.trim_start_matches("v0.").split('.').next().unwrap().parse().unwrap_or(99);
            assert!(minor >= 5, "{name}: before v0.5.0 the image is for amd64 only");
            assert!(!tag.ends_with("-amd64") && !tag.ends_with("-arm64"), "{name}: a single-platform tag");
        }
        assert!(!name.contains("ingress-nginx"), "{name}: retired");
    }
}

/// Data lint: both platforms that people have must end in something obtainable, on the oldest CPU too.
#[test]
fn every_role_ends_in_something_that_runs_everywhere() {
    for entry in builtin().0.values() {
        for architecture in ["amd64", "arm64"] {
            let platform = Platform::linux(architecture);
            let can = |release: &Release| {
                let image = release.images.iter().any(|image| {
                    !release.mirror_only && image.cpu == CpuLevel::V1 && image.platforms.contains(&platform)
                });
                image || release.build.as_ref().is_some_and(|build| build.platforms.contains(&platform))
            };
            assert!(entry.releases.iter().any(can), "{} on {platform}", entry.role);
        }
    }
}

#[test]
fn newer_nodes_say_that_they_need_cgroup_v2_and_are_pinned() {
    let catalog = builtin();
    for release in &catalog.entry(NODE).unwrap().releases {
        let needs = release.node_version().unwrap().minor >= 35;
        assert_eq!(release.cgroup, needs.then_some(2), "{}", release.version);
        assert!(release.images.iter().all(|image| image.digest.is_some()), "{}", release.version);
    }
}

#[test]
fn roles_of_a_group_agree_on_versions_and_manifests() {
    let catalog = builtin();
    let shape = |role: &str| -> Vec<(String, Option<String>)> {
        let releases = &catalog.entry(role).unwrap().releases;
        releases.iter().map(|release| (release.version.clone(), release.manifests.clone())).collect()
    };
    assert_eq!(shape("metallb-controller"), shape("metallb-speaker"));
}

#[test]
fn what_is_not_upstream_says_so() {
    let catalog = builtin();
    for entry in catalog.0.values() {
        for release in entry.releases.iter().filter(|release| release.substitute || release.mirror_only) {
            assert!(release.note.is_some(), "{} {}", entry.role, release.version);
        }
    }
    let last = catalog.entry("s3www").unwrap().releases.last().unwrap();
    assert!(last.substitute && last.images.is_empty());
}

#[test]
fn every_recipe_that_is_named_is_there_and_builds_the_version_it_is_offered_as() {
    let recipes = crate::build::Recipes::builtin().unwrap();
    for entry in builtin().0.values() {
        for release in &entry.releases {
            let Some(build) = &release.build else { continue };
            let recipe = recipes.get(&crate::build::Id::image(&build.recipe)).unwrap();
            // What has no releases any more is offered as `source`.
            if release.version != "source" {
                assert_eq!(release.version, recipe.version, "{}", entry.role);
            }
        }
    }
}

#[test]
fn broken_entries_say_where() {
    let entry = |body: &str| {
        let text = format!("apiVersion: devstack/v1\nkind: Catalog\nrole: r\nsummary: s\nreleases:\n{body}");
        Catalog::parse([("r.yaml".to_owned(), text)]).unwrap_err().to_string()
    };
    let image = "images: [{ref: a/b:1, platforms: [linux/amd64]}]";
    insta::assert_snapshot!(entry("  - {version: v1, imagse: []}\n"), @"
    r.yaml:6:19: unknown key `imagse`, did you mean `images`?
    ");
    insta::assert_snapshot!(entry("  - {version: v1}\n"), @"
    r.yaml: the release v1 has neither an image nor a recipe
    ");
    insta::assert_snapshot!(entry("  - {version: v1, images: [{ref: a/b, platforms: [linux/amd64]}]}\n"), @"
    r.yaml: docker.io/a/b:latest needs a tag that says a version; its digest has a key
    ");
    insta::assert_snapshot!(entry("  - {version: v1, images: [{ref: A/b:1, platforms: [linux/amd64]}]}\n"), @"
    r.yaml:6:34: `A/b:1` is no image reference: its repository may hold small letters, digits, `.`, `_`, `-` and `/` only
    ");
    insta::assert_snapshot!(entry("  - {version: v1, images: [{ref: a/b:1, platforms: [linux]}]}\n"), @r#"
    r.yaml:6:53: "linux" is no platform such as linux/amd64
    "#);
    insta::assert_snapshot!(entry("  - {version: v1, images: [{ref: a/b:1, platforms: [], cpu: v2}]}\n"), @"
    r.yaml:6:61: unknown value `v2` (known: x86-64-v1, x86-64-v2, x86-64-v3, x86-64-v4)
    ");
    insta::assert_snapshot!(entry(&format!("  - {{version: v1, {image}}}\n  - {{version: v1, {image}}}\n")), @"
    r.yaml: the release v1 is there twice
    ");
    insta::assert_snapshot!(builtin().entry("s3ww").unwrap_err(), @"
    the catalog has no role `s3ww`; did you mean `s3www`?
    ");
    insta::assert_snapshot!(builtin().entry("zzzzz").unwrap_err(), @"
    the catalog has no role `zzzzz` (it has mc, metallb-controller, metallb-speaker, node, object-store, registry, s3www, traefik)
    ");
}
