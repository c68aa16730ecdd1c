//! Signatures: known failures by what programs say, as data in `profiles/signatures/`.
//!
//! Order is meaning: files by name, entries by place, the first that matches a line claims it. Specific ones therefore
//! come before general ones, and each carries a fixture that a test holds it to.

use std::sync::{LazyLock, OnceLock};

use regex::{Regex, RegexSet};
use serde::Deserialize;

use super::model::{Finding, Severity};
use crate::assets;
use crate::yaml::{self, YamlError};

/// The longest part of a line that is looked at, in bytes; logs may hold lines of megabytes.
const LONGEST_LINE: usize = 8 * 1024;

/// One known failure.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// `category.name`, stable.
    pub id: String,
    /// A regular expression over one line.
    pub pattern: String,
    /// Why, in one line; `${1}` and `${name}` are the pattern's groups.
    pub cause: String,
    /// What to do; groups as in `cause`.
    pub remedy: Vec<String>,
    /// A line that it matches and no earlier signature does.
    pub fixture: String,
    /// How bad it is.
    #[serde(default = "error")]
    pub severity: Severity,
    /// Whether the same program will fail again whatever one waits for.
    #[serde(default)]
    pub hopeless: bool,
    /// Whether it is only a symptom: another match in the same text is the better answer.
    #[serde(default)]
    pub umbrella: bool,
}

fn error() -> Severity {
    Severity::Error
}

/// A signature file that cannot be used; a fault of the files, never of what is read with them.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The YAML is wrong.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A pattern is wrong.
    #[error("the pattern of signature {id} is wrong")]
    Pattern {
        /// The signature.
        id: String,
        /// Why.
        source: Box<regex::Error>,
    },
}

/// All signatures, in order.
#[derive(Debug, Default)]
pub struct Signatures {
    entries: Vec<(Signature, OnceLock<Option<Regex>>)>,
    set: RegexSet,
}

/// A line that a signature claims.
#[derive(Debug, Clone)]
pub struct Match<'a> {
    /// The signature.
    pub signature: &'a Signature,
    /// The line, trimmed.
    pub line: String,
    /// The cause with its groups filled in.
    pub cause: String,
    /// The remedies with their groups filled in.
    pub remedy: Vec<String>,
}

impl Match<'_> {
    /// The finding that this match is, bound to nothing yet.
    pub fn finding(&self) -> Finding {
        Finding {
            remedy: self.remedy.clone(),
            ..Finding::new(&self.signature.id, self.signature.severity, self.cause.clone())
        }
        .evidence(self.line.clone())
    }
}

static BUILTIN: LazyLock<Result<Signatures, SignatureError>> = LazyLock::new(|| {
    let mut files: Vec<_> = assets::PROFILES
        .get_dir("signatures")
        .map(|dir| dir.files().filter_map(|file| Some((file.path().display().to_string(), file.contents_utf8()?))))
        .into_iter()
        .flatten()
        .collect();
    files.sort();
    Signatures::load(files.iter().map(|(name, text)| (name.as_str(), *text)))
});

impl Signatures {
    /// The signatures that travel in the binary.
    ///
    /// # Errors
    /// Where a shipped file is wrong, which a test rules out.
    pub fn builtin() -> Result<&'static Self, &'static SignatureError> {
        BUILTIN.as_ref()
    }

    /// Loads files of (name, text), in their order.
    ///
    /// # Errors
    /// The first file or pattern that is wrong.
    pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SignatureError> {
        let mut signatures = Vec::new();
        for (name, text) in files {
            signatures.extend(yaml::parse::<Vec<Signature>>(name, text)?);
        }
        let set = RegexSet::new(signatures.iter().map(|signature| &signature.pattern)).map_err(|source| {
            let guilty = signatures.iter().find(|signature| Regex::new(&signature.pattern).is_err());
            let id = guilty.map(|signature| signature.id.clone()).unwrap_or_default();
            SignatureError::Pattern { id, source: Box::new(source) }
        })?;
        Ok(Self { entries: signatures.into_iter().map(|signature| (signature, OnceLock::new())).collect(), set })
    }

    /// All signatures, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Signature> {
        self.entries.iter().map(|(signature, _)| signature)
    }

    /// The signature that claims a line.
    pub fn first_match(&self, line: &str) -> Option<Match<'_>> {
        let line = cut(line.trim());
        let (signature, regex) = self.entries.get(self.set.matches(line).iter().next()?)?;
        // The set finds; only what was found is compiled once more, for its groups.
        let regex = regex.get_or_init(|| Regex::new(&signature.pattern).ok());
        let groups = regex.as_ref()?.captures(line)?;
        let fill = |template: &str| {
            let mut text = String::new();
            groups.expand(template, &mut text);
            text
        };
        Some(Match {
            signature,
            line: line.to_owned(),
            cause: fill(&signature.cause),
            remedy: signature.remedy.iter().map(|remedy| fill(remedy)).collect(),
        })
    }

    /// Every signature found in a text, once each: real causes in the order of the text, then mere symptoms.
    pub fn diagnose(&self, text: &str) -> Vec<Match<'_>> {
        let mut matches: Vec<Match<'_>> = Vec::new();
        for found in text.lines().filter_map(|line| self.first_match(line)) {
            if !matches.iter().any(|earlier| earlier.signature.id == found.signature.id) {
                matches.push(found);
            }
        }
        matches.sort_by_key(|found| found.signature.umbrella);
        matches
    }

    /// [`Signatures::diagnose`] as findings.
    pub fn findings(&self, text: &str) -> Vec<Finding> {
        let hopeless = |found: Match<'_>| Finding { hopeless: found.signature.hopeless, ..found.finding() };
        self.diagnose(text).into_iter().map(hopeless).collect()
    }
}

fn cut(line: &str) -> &str {
    let mut end = line.len().min(LONGEST_LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fixture_is_claimed_by_its_own_signature() {
        let signatures = Signatures::builtin().unwrap();
        let mut wrong = Vec::new();
        for signature in signatures.iter() {
            match signatures.first_match(&signature.fixture) {
                Some(found) if found.signature.id == signature.id => {}
                Some(found) => wrong.push(format!("{} is claimed by {}", signature.id, found.signature.id)),
                None => wrong.push(format!("{} does not match its own fixture", signature.id)),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn signatures_are_complete() {
        let signatures = Signatures::builtin().unwrap();
        assert!(signatures.iter().count() >= 100, "{}", signatures.iter().count());
        let mut ids = BTreeSet::new();
        for signature in signatures.iter() {
            let Signature { id, cause, remedy, .. } = signature;
            assert!(ids.insert(id), "{id} is there twice");
            assert!(
                id.split_once('.').is_some_and(|(category, name)| !category.is_empty() && !name.is_empty()),
                "{id}"
            );
            assert!(!remedy.is_empty(), "{id} has no remedy");
            assert!(cause.len() > 10 && !cause.ends_with('.') && !cause.contains('\n'), "{id}: {cause}");
            let found = signatures.first_match(&signature.fixture).unwrap();
            let texts = found.remedy.iter().chain([&found.cause]);
            for text in texts {
                assert!(!text.contains("${") && !text.contains("  "), "{id}: {text}");
            }
        }
    }

    #[test]
    fn groups_are_filled_in() {
        let signatures = Signatures::builtin().unwrap();
        let found = signatures.first_match("  Fatal glibc error: CPU does not support x86-64-v3\r").unwrap();
        assert_eq!(found.cause, "the node's CPU lacks x86-64-v3, which this image was built for");
        assert_eq!(found.line, "Fatal glibc error: CPU does not support x86-64-v3");
        let found = signatures.first_match("open /home/x/.docker/config.json: permission denied").unwrap();
        assert_eq!(found.remedy, ["sudo chown -R \"$USER\" ~/.docker"]);
    }

    #[test]
    fn a_cause_comes_before_its_symptoms() {
        let text = "ERROR: failed to create cluster: failed to init node with kubeadm: x\n\
            [kubelet-check] The kubelet is not running\n\
            kubelet: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported\n\
            kubelet: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported\n";
        let ids: Vec<_> =
            Signatures::builtin().unwrap().diagnose(text).iter().map(|found| found.signature.id.clone()).collect();
        assert_eq!(ids, ["host.cgroup-v1", "cluster.kubeadm-init", "cluster.kubelet-down"]);
    }

    #[test]
    fn ordinary_lines_match_nothing() {
        let signatures = Signatures::builtin().unwrap();
        for line in [
            "",
            "time=\"2026-11-21T09:00:00Z\" level=info msg=\"Configuration loaded from flags.\"",
            "API: http://10.244.0.7:9000  http://127.0.0.1:9000",
            "GET / 200 12ms",
            "successfully pulled image in 1.2s",
        ] {
            assert!(signatures.first_match(line).is_none(), "{line}");
        }
        // A line of many megabytes is cut, inside a character too.
        let long = format!("{}exec format error", "ä".repeat(1 << 20));
        assert!(signatures.first_match(&long).is_none());
    }

    #[test]
    fn broken_files_are_errors_with_their_place() {
        let error = Signatures::load([("bad.yaml", "- id: a.b\n  patern: x\n")]).unwrap_err();
        assert!(error.to_string().starts_with("bad.yaml:2:"), "{error}");
        let text = "- {id: a.b, pattern: '(', cause: c, remedy: [r], fixture: f}\n";
        assert!(matches!(Signatures::load([("bad.yaml", text)]), Err(SignatureError::Pattern { .. })));
    }
}
