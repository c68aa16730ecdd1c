//! Children that outlived a killed devstack: found by the mark that every child carries, stopped before anything else
//! is done, so that nothing is raced.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::ports::engine::EngineError;
use crate::ports::runner::OWNER_VARIABLE;
use crate::ports::{Clock, Engine};

/// How long a child may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);

/// How often an engine is asked for what a child that was stopped had asked it for, and after which time; about three
/// seconds in all.
const LOOKS: u32 = 30;
const BETWEEN: Duration = Duration::from_millis(100);

/// A process that a killed devstack left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Orphan {
    pid: i32,
    /// The container that it had the engine make.
    makes: Option<String>,
}

/// Ends every process of this user that is marked as a child of a devstack for `owner`, waits until it is gone and
/// until the engine has what they asked it for: it goes on with that by itself. Gives how many there were. On systems
/// without `/proc` there is nothing to look at.
///
/// The caller holds the environment's lock, so that no living devstack's child can be among them.
///
/// # Errors
/// What the engine says.
pub async fn end(engine: &dyn Engine, clock: &dyn Clock, owner: &str) -> Result<usize, EngineError> {
    let found = stop(owner).await;
    let made: Vec<&str> = found.iter().filter_map(|orphan| orphan.makes.as_deref()).collect();
    appear(engine, clock, &made).await?;
    Ok(found.len())
}

/// Waits until the engine shows all these containers. One that never comes was refused, or given up with the one who
/// asked for it; an engine does not tell what it works on.
async fn appear(engine: &dyn Engine, clock: &dyn Clock, names: &[&str]) -> Result<(), EngineError> {
    if names.is_empty() {
        return Ok(());
    }
    for _ in 0..LOOKS {
        let there = engine.containers(None).await?;
        if names.iter().all(|name| there.iter().any(|container| container.name == *name)) {
            break;
        }
        clock.sleep(BETWEEN).await;
    }
    Ok(())
}

async fn stop(owner: &str) -> Vec<Orphan> {
    let proc = Path::new("/proc");
    let found = marked(proc, owner);
    #[cfg(unix)]
    {
        signal(&found, rustix::process::Signal::TERM);
        let began = Instant::now();
        loop {
            let left = marked(proc, owner);
            if left.is_empty() || began.elapsed() > GRACE * 2 {
                break;
            }
            if began.elapsed() > GRACE {
                signal(&left, rustix::process::Signal::KILL);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    found
}

#[cfg(unix)]
fn signal(orphans: &[Orphan], signal: rustix::process::Signal) {
    for pid in orphans.iter().filter_map(|orphan| rustix::process::Pid::from_raw(orphan.pid)) {
        // One that has ended in the meantime is what was wanted.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The processes below `proc` whose environment carries the mark; those of other users cannot be read and are not
/// ours.
fn marked(proc: &Path, owner: &str) -> Vec<Orphan> {
    let mark = format!("{OWNER_VARIABLE}={owner}");
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let process = proc.join(pid.to_string());
            let environ = std::fs::read(process.join("environ")).ok()?;
            let carries = environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes());
            let makes = || made_by(&std::fs::read(process.join("cmdline")).unwrap_or_default());
            carries.then(|| Orphan { pid, makes: makes() })
        })
        .collect()
}

/// The container that a command line has an engine make: kind calls `docker run --name NODE …`.
fn made_by(cmdline: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(cmdline);
    let words: Vec<&str> = text.split('\0').collect();
    let engine = Path::new(words.first()?).file_name()?.to_str()?;
    let makes = matches!(engine, "docker" | "podman" | "nerdctl") && matches!(*words.get(1)?, "run" | "create");
    let name = || words.iter().skip_while(|word| **word != "--name").nth(1);
    makes.then(name).flatten().map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::{FakeClock, FakeEngine};

    #[test]
    fn only_processes_with_the_whole_mark_are_found() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, environ: &str| {
            std::fs::create_dir(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("environ"), environ).unwrap();
        };
        process("100", "HOME=/root\0DEVSTACK_OWNER=demo\0");
        process("101", "DEVSTACK_OWNER=demo2\0");
        process("102", "X=DEVSTACK_OWNER=demo\0");
        process("self", "DEVSTACK_OWNER=demo\0");
        assert_eq!(marked(proc.path(), "demo"), [Orphan { pid: 100, makes: None }]);
        let cmdline = "/usr/bin/docker\0run\0--detach\0--name\0devstack-demo-control-plane\0kindest/node:v1\0";
        std::fs::write(proc.path().join("100/cmdline"), cmdline).unwrap();
        assert_eq!(marked(proc.path(), "demo")[0].makes.as_deref(), Some("devstack-demo-control-plane"));
        for other in ["kind\0create\0cluster\0--name\0devstack-demo\0", "docker\0ps\0--name\0x\0", "docker\0", ""] {
            assert_eq!(made_by(other.as_bytes()), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn what_the_engine_still_makes_is_waited_for_and_not_for_ever() {
        let (engine, clock) = (FakeEngine::default(), FakeClock::default());
        let began = clock.now();
        appear(&engine, &clock, &[]).await.unwrap();
        engine.add_kind_node("devstack-demo", 0, "bridge", &[]);
        appear(&engine, &clock, &["devstack-demo-control-plane"]).await.unwrap();
        assert_eq!(clock.now(), began, "nothing is waited for that is there");
        let late = async {
            tokio::task::yield_now().await;
            engine.add_kind_node("devstack-demo", 1, "bridge", &[]);
        };
        tokio::join!(appear(&engine, &clock, &["devstack-demo-worker"]), late).0.unwrap();
        assert!(clock.now().duration_since(began) < jiff::SignedDuration::from_secs(1));
        appear(&engine, &clock, &["devstack-demo-worker2"]).await.unwrap();
        assert!(clock.now().duration_since(began) < jiff::SignedDuration::from_secs(5));
        engine.set_down(true);
        assert!(appear(&engine, &clock, &["x"]).await.is_err());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_child_left_behind_is_ended() {
        use crate::ports::Runner as _;
        let owner = format!("orphan-test-{}", std::process::id());
        let runner = crate::ports::runner::ProcessRunner::new(tokio_util::sync::CancellationToken::new(), &owner);
        let cmd = crate::ports::runner::Cmd::new("sleep").arg("60");
        let child = tokio::spawn(async move { runner.run(&cmd).await });
        while marked(Path::new("/proc"), &owner).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(stop(&owner).await.len(), 1);
        assert!(child.await.unwrap().is_err(), "the child was ended by a signal");
        assert!(marked(Path::new("/proc"), &owner).is_empty());
    }
}
