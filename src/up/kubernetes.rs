//! The Kubernetes versions that a profile's components work with, held against a cluster's before anything changes.

use crate::error::{ExitCode, Failure};
use crate::image::{KubeRange, KubeVersion};
use crate::profile::{Resolved, ResolvedComponent};

/// The versions that a cluster of the profile may have: the one that it names, else those that all of its components
/// work with.
///
/// # Errors
/// The profile names no version; no version fits two of the components.
pub fn wanted(profile: &Resolved) -> Result<KubeRange, Failure> {
    match profile.cluster.kubernetes.as_str() {
        "auto" => common(&profile.components),
        wanted => wanted.parse().map_err(|_| Failure::usage(format!("{wanted} is not a Kubernetes version"))),
    }
}

fn common(components: &[ResolvedComponent]) -> Result<KubeRange, Failure> {
    let mut common = KubeRange::default();
    let (mut lowest, mut highest) = (None, None);
    for component in components {
        let Some(range) = &component.kubernetes else { continue };
        let end = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<KubeVersion>().ok());
        let (from, to) = (end(&range.min), end(&range.max));
        if from.is_some_and(|from| common.from.is_none_or(|known| from > known)) {
            (common.from, lowest) = (from, Some(component));
        }
        if to.is_some_and(|to| common.to.is_none_or(|known| to < known)) {
            (common.to, highest) = (to, Some(component));
        }
    }
    match (common.from, common.to, lowest, highest) {
        (Some(from), Some(to), Some(lowest), Some(highest)) if from.minor > to.minor => Err(Failure::usage(format!(
            "no Kubernetes version fits both {} ({from} or newer) and {} ({to} or older)",
            lowest.name, highest.name
        ))
        .hint("leave one of them out of the profile, or give it a condition: when")
        .kept("nothing was changed")),
        _ => Ok(common),
    }
}

/// Refuses a cluster whose version one of the components does not work with. `hint` is how to get another cluster.
///
/// # Errors
/// The failure that names component, range and version.
pub(super) fn refuse(profile: &Resolved, version: &str, hint: &str) -> Result<(), Failure> {
    let unfit = profile.components.iter().find_map(|component| {
        let range = component.kubernetes.as_ref()?;
        (range.contains(version) == Some(false)).then_some((component, range))
    });
    let Some((component, range)) = unfit else { return Ok(()) };
    let message = format!("the component {} works with Kubernetes {range}, not with {version}", component.name);
    Err(Failure::new(ExitCode::Failed, message).hint(hint).kept("nothing was changed"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::profile::{self, ProfileSource};

    /// A profile with the components `old` and `new`, which work with these versions.
    pub(in crate::up) fn profile(kubernetes: &str, old: &str, new: &str) -> Result<Resolved, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, range) in [("old", old), ("new", new)] {
            let place = dir.path().join("components").join(name);
            std::fs::create_dir_all(&place).unwrap();
            let text = format!("apiVersion: devstack/v1\nkind: Component\nname: {name}\nkubernetes: {range}\n");
            std::fs::write(place.join("component.yaml"), text).unwrap();
        }
        let path = dir.path().join("profile.yaml");
        let text = format!(
            "apiVersion: devstack/v1\nkind: Profile\nname: demo\ncluster:\n  kubernetes: {kubernetes}\n\
             components:\n  - use: old\n  - use: new\n"
        );
        std::fs::write(&path, text).unwrap();
        let facts = crate::cluster::ClusterFacts::own(crate::cluster::Provider::Kind, false, None).to_value();
        let source = ProfileSource::of(path.to_str().unwrap());
        profile::load(&profile::Request::new(&source, &[], &facts)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_version_is_chosen_that_every_component_works_with() {
        let range = |old, new| wanted(&profile("auto", old, new).unwrap()).map(|range| range.to_string());
        assert_eq!(range("{}", "{}").unwrap(), "any");
        assert_eq!(range("{max: '1.33'}", "{min: '1.25'}").unwrap(), "1.25 to 1.33");
        assert_eq!(range("{min: '1.29', max: '1.34'}", "{min: '1.25', max: '1.33'}").unwrap(), "1.29 to 1.33");
        let refusal = range("{max: '1.28'}", "{min: '1.31'}").unwrap_err();
        assert_eq!(refusal.exit, ExitCode::Usage);
        assert_eq!(refusal.message, "no Kubernetes version fits both new (1.31 or newer) and old (1.28 or older)");
    }

    #[test]
    fn a_version_that_the_profile_names_is_held_against_every_component_with_line_and_column() {
        assert_eq!(wanted(&profile("'1.30'", "{max: '1.33'}", "{}").unwrap()).unwrap().to_string(), "1.30");
        let refusal = profile("'1.34'", "{max: '1.33'}", "{}").unwrap_err();
        assert!(refusal.contains("profile.yaml:5:"), "{refusal}");
        let told =
            "the component `old` works with Kubernetes 1.33 or older, not with 1.34; `auto` chooses one that fits";
        assert!(refusal.contains(told), "{refusal}");
    }

    #[test]
    fn a_cluster_of_another_version_is_refused_before_anything_changes() {
        let profile = profile("auto", "{min: '1.29', max: '1.33'}", "{}").unwrap();
        for fits in ["v1.29.0", "1.33.11", "v1.33.4+k3s1", "v1.30.1-gke.100", "no version"] {
            refuse(&profile, fits, "").unwrap();
        }
        for (version, exit) in [("v1.28.9", ExitCode::Failed), ("v1.34.0+k3s1", ExitCode::Failed)] {
            assert_eq!(refuse(&profile, version, "").unwrap_err().exit, exit, "{version}");
        }
        insta::assert_snapshot!(refuse(&profile, "v1.34.4", "devstack up --context CONTEXT").unwrap_err().render(), @"
        error: the component old works with Kubernetes 1.29 to 1.33, not with v1.34.4
          hint  devstack up --context CONTEXT
          kept  nothing was changed
        ");
    }
}
