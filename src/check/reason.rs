//! Why an object is not ready yet, typed, and as the one line that a wait shows.

use std::fmt;

use serde::Serialize;

/// Where a pod's start hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// No node was found for it.
    Scheduling,
    /// A volume or claim is not there.
    Storage,
    /// An image cannot be had.
    Image,
    /// A Secret, ConfigMap or setting is missing or wrong.
    Configuration,
    /// The container is being made.
    Creating,
    /// An init container runs.
    Initialising,
    /// A container ended and is started again.
    Crashing,
    /// A container runs and its probe does not pass yet.
    Readiness,
    /// The object has no pod.
    Absent,
    /// Something else that the cluster has to give, such as an address.
    Cluster,
}

/// What an object waits for, as far as the API and the logs tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Where it hangs.
    pub stage: Stage,
    /// The pod's phase, such as `Pending`; empty for other objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// The container, where one is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The container's waiting or ending reason as Kubernetes names it, such as `ImagePullBackOff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The image, where it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How often the container ended badly.
    pub crashes: u64,
    /// Its last exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The last line of its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_log: Option<String>,
    /// The last event that tells something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<String>,
}

impl Reason {
    /// A reason of which only the stage is known.
    pub fn at(stage: Stage) -> Self {
        Self {
            stage,
            phase: String::new(),
            container: None,
            state: None,
            image: None,
            crashes: 0,
            exit_code: None,
            last_log: None,
            last_event: None,
        }
    }
}

impl fmt::Display for Reason {
    /// One line, such as `crashed twice, exit code 127: "Fatal glibc error: …"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = || self.last_event.as_deref().map(|event| short(event, 140));
        match self.stage {
            Stage::Scheduling => match event() {
                Some(event) => write!(f, "no node takes it: {event}"),
                None => f.write_str("waits for a node"),
            },
            Stage::Storage => match event() {
                Some(event) => write!(f, "waits for its volume: {event}"),
                None => f.write_str("waits for its volume"),
            },
            Stage::Image => {
                let state = self.state.as_deref().unwrap_or("pulling");
                write!(f, "image {} ({state})", self.image.as_deref().unwrap_or("unknown"))?;
                event().map_or(Ok(()), |event| write!(f, ": {event}"))
            }
            Stage::Configuration => match event() {
                Some(event) => f.write_str(&event),
                None => f.write_str(self.state.as_deref().unwrap_or("wrong configuration")),
            },
            Stage::Creating => match event() {
                Some(event) => write!(f, "its container is being made: {event}"),
                None => f.write_str("its container is being made"),
            },
            Stage::Initialising => {
                write!(f, "init container {} runs", self.container.as_deref().unwrap_or("unknown"))?;
                self.last_log.as_deref().map_or(Ok(()), |line| write!(f, ": \"{}\"", short(line, 100)))
            }
            Stage::Crashing => {
                let times = match self.crashes {
                    0 | 1 => "crashed".to_owned(),
                    2 => "crashed twice".to_owned(),
                    times => format!("crashed {times} times"),
                };
                f.write_str(&times)?;
                self.exit_code.map_or(Ok(()), |code| write!(f, ", exit code {code}"))?;
                self.last_log.as_deref().map_or(Ok(()), |line| write!(f, ": \"{}\"", short(line, 120)))
            }
            Stage::Readiness => match event() {
                Some(event) => write!(f, "{event}: normal while it starts"),
                None => f.write_str("runs, not ready yet: normal while it starts"),
            },
            Stage::Absent => match event() {
                Some(event) => write!(f, "no pod: {event}"),
                None => f.write_str("no pod yet"),
            },
            Stage::Cluster => match event() {
                Some(event) => f.write_str(&event),
                None => f.write_str("waits for the cluster"),
            },
        }
    }
}

/// The first line, cut to `limit` characters.
pub(super) fn short(text: &str, limit: usize) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    match line.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_says_why() {
        let glibc = "Fatal glibc error: CPU does not support x86-64-v2";
        let table = [
            (Reason::at(Stage::Scheduling), "waits for a node"),
            (
                Reason {
                    crashes: 2,
                    exit_code: Some(127),
                    last_log: Some(glibc.to_owned()),
                    ..Reason::at(Stage::Crashing)
                },
                "crashed twice, exit code 127: \"Fatal glibc error: CPU does not support x86-64-v2\"",
            ),
            (
                Reason { last_event: Some("readiness 503".to_owned()), ..Reason::at(Stage::Readiness) },
                "readiness 503: normal while it starts",
            ),
            (
                Reason {
                    image: Some("a:b".to_owned()),
                    state: Some("ErrImagePull".to_owned()),
                    ..Reason::at(Stage::Image)
                },
                "image a:b (ErrImagePull)",
            ),
        ];
        for (reason, line) in table {
            assert_eq!(reason.to_string(), line);
        }
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(short("äöü", 2), "äö…");
        assert_eq!(short("\n  one\ntwo", 10), "one");
    }
}
