//! Kubernetes versions, as far as choosing an image needs them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `1.MINOR` or `1.MINOR.PATCH`; without a patch every patch of the minor is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KubeVersion {
    /// The second number.
    pub minor: u16,
    /// The third number, where it matters.
    pub patch: Option<u16>,
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no Kubernetes version such as 1.34 or 1.34.11")]
pub struct NotAVersion(String);

impl FromStr for KubeVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no = || NotAVersion(text.chars().take(40).collect());
        let rest = text.strip_prefix('v').unwrap_or(text).strip_prefix("1.").ok_or_else(no)?;
        let (minor, patch) = rest.split_once('.').map_or((rest, None), |(minor, patch)| (minor, Some(patch)));
        let number = |text: &str| -> Option<u16> {
            (text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty()).then(|| text.parse().ok())?
        };
        Ok(Self {
            minor: number(minor).ok_or_else(no)?,
            patch: patch.map(|patch| number(patch).ok_or_else(no)).transpose()?,
        })
    }
}

impl TryFrom<String> for KubeVersion {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KubeVersion> for String {
    fn from(version: KubeVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

/// From one version to another, both included; an end that is left out is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeRange {
    /// The first that is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<KubeVersion>,
    /// The last that is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<KubeVersion>,
}

impl KubeRange {
    /// One version, or one minor with all its patches.
    pub fn only(version: KubeVersion) -> Self {
        Self { from: Some(version), to: Some(version) }
    }

    /// Whether a version is in.
    pub fn contains(&self, version: KubeVersion) -> bool {
        let at_least = |from: KubeVersion| match (from.patch, version.patch) {
            (Some(a), Some(b)) if from.minor == version.minor => b >= a,
            _ => version.minor >= from.minor,
        };
        let at_most = |to: KubeVersion| match (to.patch, version.patch) {
            (Some(a), Some(b)) if to.minor == version.minor => b <= a,
            _ => version.minor <= to.minor,
        };
        self.from.is_none_or(at_least) && self.to.is_none_or(at_most)
    }

    /// Whether some version can be in both.
    pub fn meets(&self, other: &Self) -> bool {
        let below = |from: Option<KubeVersion>, to: Option<KubeVersion>| match (from, to) {
            (Some(from), Some(to)) => from.minor <= to.minor,
            _ => true,
        };
        below(self.from, other.to) && below(other.from, self.to)
    }
}

/// `auto` for any version, or one version.
impl FromStr for KubeRange {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::default()) } else { text.parse().map(Self::only) }
    }
}

impl fmt::Display for KubeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (None, None) => f.write_str("any"),
            (Some(from), Some(to)) if from == to => write!(f, "{from}"),
            (Some(from), Some(to)) => write!(f, "{from} to {to}"),
            (Some(from), None) => write!(f, "{from} or newer"),
            (None, Some(to)) => write!(f, "{to} or older"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> KubeVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("v1.34.11"), KubeVersion { minor: 34, patch: Some(11) });
        assert_eq!(version("1.34").to_string(), "1.34");
        for bad in ["", "1", "2.3", "1.", "1.34.", "1.+4", "1.34.1.2", "1.99999", "latest"] {
            assert!(bad.parse::<KubeVersion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_hold_versions() {
        let range = KubeRange { from: Some(version("1.31")), to: Some(version("1.34.4")) };
        for (text, inside) in
            [("1.30.9", false), ("1.31.0", true), ("1.34.4", true), ("1.34.5", false), ("1.34", true), ("1.35", false)]
        {
            assert_eq!(range.contains(version(text)), inside, "{text}");
        }
        assert!("auto".parse::<KubeRange>().unwrap().contains(version("1.99")));
        assert!("1.36".parse::<KubeRange>().unwrap().contains(version("1.36.4")));
        assert!(!"1.36.3".parse::<KubeRange>().unwrap().contains(version("1.36.4")));
        assert!(range.meets(&KubeRange { from: Some(version("1.34")), to: None }));
        assert!(!range.meets(&KubeRange { from: Some(version("1.35")), to: None }));
    }
}
