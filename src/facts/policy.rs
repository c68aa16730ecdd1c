//! Whether NetworkPolicies have an effect in a cluster: the API server takes them anywhere, only some network plugins
//! act on them.

use serde::{Deserialize, Serialize};

/// Whether NetworkPolicies have an effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkPolicy {
    /// The network plugin is not known.
    #[default]
    Unknown,
    /// The plugin acts on them.
    Enforced,
    /// They are taken and do nothing.
    NotEnforced,
}

/// The date of the first `kindnetd` that acts on NetworkPolicies (kind v0.24): its images are named by date.
const KINDNETD: u32 = 20_240_723;

/// Plugins that act on NetworkPolicies, by a part of their configuration's name.
const ENFORCING: [&str; 7] = ["calico", "canal", "cilium", "antrea", "kube-router", "weave", "ovn"];

/// Plugins that are known not to.
const PASSIVE: [&str; 4] = ["flannel", "bridge", "ptp", "podman"];

impl NetworkPolicy {
    /// By the name of the plugin in force; `kindnetd` is `kindnetd:vDATE` as kind's node image has it.
    pub fn of(plugin: &str, kindnetd: &str) -> Self {
        let has = |names: &[&str]| names.iter().any(|name| plugin.contains(name));
        if plugin.contains("kindnet") {
            let digits = kindnetd.trim().rsplit_once(":v").and_then(|(_, date)| date.parse::<u32>().ok());
            return match digits {
                Some(date) if date >= KINDNETD => Self::Enforced,
                Some(_) => Self::NotEnforced,
                None => Self::Unknown,
            };
        }
        match (has(&ENFORCING), has(&PASSIVE)) {
            (true, _) => Self::Enforced,
            (false, true) => Self::NotEnforced,
            (false, false) => Self::Unknown,
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unknown => "whether NetworkPolicies have an effect is not known",
            Self::Enforced => "NetworkPolicies have an effect",
            Self::NotEnforced => "NetworkPolicies have no effect",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_and_what_they_do() {
        let table = [
            ("kindnet", "kindnetd:v20260708\n", NetworkPolicy::Enforced),
            ("kindnet", "kindnetd:v20240202", NetworkPolicy::NotEnforced),
            ("kindnet", "", NetworkPolicy::Unknown),
            ("calico", "kindnetd:v20240202", NetworkPolicy::Enforced),
            ("cilium", "", NetworkPolicy::Enforced),
            ("flannel", "", NetworkPolicy::NotEnforced),
            ("crio-bridge", "", NetworkPolicy::NotEnforced),
            ("own", "", NetworkPolicy::Unknown),
            ("", "", NetworkPolicy::Unknown),
        ];
        for (plugin, kindnetd, expected) in table {
            assert_eq!(NetworkPolicy::of(plugin, kindnetd), expected, "{plugin} {kindnetd}");
        }
    }
}
