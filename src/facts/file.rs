//! Facts as one document: what `devstack facts` prints and `--facts FILE` reads.

use serde::{Deserialize, Serialize};

use super::engine::{EngineFacts, Reachability, reachable};
use super::host::{HostFacts, Wsl};
use super::node::{Common, MixedArchitectures, NodeFacts, common};
use crate::error::{Advise, ExitCode};

/// Everything that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Document")]
pub struct Facts {
    /// Where the facts come from, such as `synthetic: macOS with Docker Desktop`; absent for facts just read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The laptop.
    pub host: HostFacts,
    /// The engine; absent where none answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineFacts>,
    /// The environment's nodes; empty without an environment.
    pub nodes: Vec<NodeFacts>,
}

/// [`Facts`] as they are written: `-o json` tags its lines with a type, which a file may keep.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "type", default)]
    _type: serde::de::IgnoredAny,
    #[serde(default)]
    source: Option<String>,
    host: HostFacts,
    #[serde(default)]
    engine: Option<EngineFacts>,
    #[serde(default)]
    nodes: Vec<NodeFacts>,
}

impl From<Document> for Facts {
    fn from(document: Document) -> Self {
        let Document { _type: _, source, host, engine, nodes } = document;
        Self { source, host, engine, nodes }
    }
}

/// A facts document that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the facts in {name} cannot be read: {reason}")]
pub struct FactsError {
    /// The file.
    pub name: String,
    /// What is wrong, with line and column.
    pub reason: String,
}

impl Advise for FactsError {
    fn hint(&self) -> Option<String> {
        Some("print a document of the right shape with `devstack facts -o json`".to_owned())
    }

    fn exit(&self) -> ExitCode {
        ExitCode::Usage
    }
}

/// Parses a facts document; `name` is the file's, for messages.
///
/// # Errors
/// Where the text is not JSON of the right shape; unknown fields are errors.
pub fn parse(name: &str, text: &str) -> Result<Facts, FactsError> {
    let deserializer = &mut serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(deserializer)
        .map_err(|error| FactsError { name: name.to_owned(), reason: error.to_string() })
}

impl Facts {
    /// Whether container addresses answer on the host; not without an engine.
    pub fn reachable(&self) -> Reachability {
        match &self.engine {
            Some(engine) => reachable(&self.host, engine),
            None => Reachability { reachable: false, why: "no engine answers".to_owned() },
        }
    }

    /// What programs have to run on: the nodes, where there are any, else what the engine's containers run on.
    ///
    /// # Errors
    /// Nodes of several architectures.
    pub fn target(&self) -> Result<Common, MixedArchitectures> {
        let engine = self.engine.as_ref();
        let platform = engine.map(|engine| engine.platform.clone());
        Ok(match common(&self.nodes)? {
            Some(nodes) => Common { platform: nodes.platform.or(platform), ..nodes },
            None => Common { platform, level: engine.and_then(EngineFacts::level), why: None },
        })
    }

    /// The lines that a person reads.
    pub fn lines(&self) -> Vec<String> {
        let Self { source, host, engine, nodes } = self;
        let mut lines: Vec<String> = source.iter().map(|source| format!("source  {source}")).collect();
        let mut place = format!("{} {} · kernel {}", host.os, host.architecture, or_unknown(&host.kernel));
        match (host.wsl, &host.wsl_networking) {
            (Wsl::None, _) => {}
            (Wsl::V1, _) => place.push_str(" · WSL 1"),
            (Wsl::V2, None) => place.push_str(" · WSL 2"),
            (Wsl::V2, Some(mode)) => place = format!("{place} · WSL 2, {mode} networking"),
        }
        lines.push(format!("host    {place}"));
        let level = host.cpu.level.map_or("no x86-64 level", |level| level.as_str());
        let available = match host.memory_available {
            0 => String::new(),
            bytes => format!(", {} available", size(bytes)),
        };
        let (cpus, model, memory) = (host.cpu.cpus, quoted(&host.cpu.model), size(host.memory));
        lines.push(format!("        {cpus} CPUs, {level}{model} · {memory} of memory{available}"));
        for (role, disk) in &host.disks {
            let path = disk.path.display();
            lines.push(format!("        {role} disk {} free of {} ({path})", size(disk.free), size(disk.total)));
        }
        for sign in &host.container {
            lines.push(format!("        looks like a container: {sign}"));
        }
        match engine {
            None => lines.push("engine  none answers".to_owned()),
            Some(engine) => lines.extend(engine_lines(engine)),
        }
        let way = self.reachable();
        if engine.is_some() {
            let word = if way.reachable { "reachable" } else { "not reachable" };
            lines.push(format!("        container addresses are {word}: {}", way.why));
        }
        for node in nodes {
            let level = node.cpu.level.map_or("no x86-64 level", |level| level.as_str());
            let cgroup = node.cgroup.map_or("unknown".to_owned(), |version| format!("v{version}"));
            lines.push(format!(
                "node    {} · {} · {level} · {} of memory · {} free · cgroup {cgroup} · containerd {}",
                node.name,
                node.cpu.architecture,
                size(node.memory),
                size(node.disk_free),
                or_unknown(&node.containerd),
            ));
            let (kernel, network) = (or_unknown(&node.kernel), or_unknown(&node.network));
            lines.push(format!("        kernel {kernel} · network {network} · {}", node.network_policy.words()));
        }
        match self.target() {
            Ok(target) => lines.extend(target.why.map(|why| format!("        {why}"))),
            Err(mixed) => lines.push(format!("        {mixed}")),
        }
        lines
    }
}

fn engine_lines(engine: &EngineFacts) -> Vec<String> {
    let info = &engine.info;
    let rootless = if engine.rootless { ", rootless" } else { "" };
    let (name, version, endpoint) = (engine.kind.name(), or_unknown(&info.version), or_unknown(&info.endpoint));
    let level = match (&engine.cpu, engine.level()) {
        (_, Some(level)) => level.as_str(),
        (Some(_), None) => "no x86-64 level",
        (None, None) => "CPU level unknown",
    };
    let mut lines = vec![
        format!("engine  {name} {version}{rootless} · {} · {endpoint}", or_unknown(&info.operating_system)),
        format!(
            "        {} · {} CPUs, {level} · {} of memory · cgroup v{} · API {} · {}",
            or_unknown(&engine.platform),
            info.cpus,
            size(info.memory),
            or_unknown(&info.cgroup_version),
            or_unknown(&info.api_version),
            or_unknown(&info.storage_driver),
        ),
    ];
    if !engine.missing_capabilities.is_empty() {
        lines.push(format!("        cannot give {}", engine.missing_capabilities.join(", ")));
    }
    lines
}

fn quoted(model: &str) -> String {
    if model.is_empty() { String::new() } else { format!(" ({model})") }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// Bytes in the unit that reads best, binary: `24.7 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(25_281_970_176), "23.5 GiB");
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn what_json_output_printed_is_read_again() {
        let mut line = serde_json::to_value(Facts::default()).unwrap();
        line["type"] = "facts".into();
        assert_eq!(parse("f.json", &line.to_string()).unwrap(), Facts::default());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = parse("f.json", r#"{"host": {"os": "linux", "kernal": "6"}}"#).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("f.json") && text.contains("host") && text.contains("kernal"), "{text}");
        assert!(text.contains("line 1"), "{text}");
        assert!(parse("f.json", "").is_err());
    }
}
