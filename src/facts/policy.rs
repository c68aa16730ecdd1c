//! Whether NetworkPolicies have an effect in a cluster: the API server takes them anywhere, only some network plugins
//! act on them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
            let date = kindnetd.trim().rsplit_once(":v").map(|(_, tag)| tag.split('-').next().unwrap_or_default());
            let digits = date.and_then(|date| date.parse::<u32>().ok());
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

    /// By the DaemonSets of a cluster whose nodes' files cannot be read: network plugins run as one. Gives the name of the
    /// plugin's too, empty where none is known.
    pub fn of_daemon_sets(sets: &[Value]) -> (String, Self) {
        let policy = |set: &Value| {
            let name = set.pointer("/metadata/name").and_then(Value::as_str)?;
            let image = set.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str);
            Some((name.to_owned(), Self::of(name, image.unwrap_or_default())))
        };
        let known = sets.iter().filter_map(policy).filter(|(_, policy)| *policy != Self::Unknown);
        // An enforcing plugin next to a passive one is there for its policies, as in Canal.
        known.max_by_key(|(_, policy)| *policy == Self::Enforced).unwrap_or_default()
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
    fn a_plugin_is_known_by_its_daemon_set() {
        let set = |name: &str, image: &str| {
            serde_json::json!({
                "metadata": {"name": name}, "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
            })
        };
        let of = |sets: &[Value]| NetworkPolicy::of_daemon_sets(sets);
        let kindnet = set("kindnet", "docker.io/kindest/kindnetd:v20260708-1");
        assert_eq!(of(&[set("kube-proxy", "p:1"), kindnet]).1, NetworkPolicy::Enforced);
        let both = of(&[set("calico-node", "c:1"), set("kube-flannel-ds", "f:1")]);
        assert_eq!(both, ("calico-node".to_owned(), NetworkPolicy::Enforced));
        assert_eq!(of(&[set("kube-flannel-ds", "f:1")]).1, NetworkPolicy::NotEnforced);
        assert_eq!(of(&[set("kube-proxy", "p:1")]), (String::new(), NetworkPolicy::Unknown));
    }

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
