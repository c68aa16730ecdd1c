//! Children that outlived a killed devstack: found by the marks that every child carries, stopped before anything else
//! is done, so that nothing is raced. What a child leaves to run on purpose, such as the virtual machine of a minikube
//! node, carries them too; it is told by the session of its own that daemons have.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::ports::engine::EngineError;
use crate::ports::process::Process;
use crate::ports::runner::{OWNER_VARIABLE, PARENT_VARIABLE};
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

/// Ends every process of this user that is marked as a child of a devstack for `owner` which is gone, waits until it is
/// gone and until the engine has what they asked it for: it goes on with that by itself. Gives how many there were. On
/// systems without `/proc` there is nothing to look at.
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

/// The processes below `proc` whose environment carries both marks, and whose devstack is gone; those of other users
/// cannot be read and are not ours.
fn marked(proc: &Path, owner: &str) -> Vec<Orphan> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let is_orphan = |pid: i32| {
        let environ = std::fs::read(proc.join(pid.to_string()).join("environ")).ok()?;
        let value = |name: &str| {
            let find = |one: &&[u8]| Some(one.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec());
            environ.split(|byte| *byte == 0).find_map(|one| find(&one))
        };
        let parent: Process = std::str::from_utf8(&value(PARENT_VARIABLE)?).ok()?.parse().ok()?;
        let ours = value(OWNER_VARIABLE)? == owner.as_bytes();
        let orphan = Process::read(proc, parent.pid) != Some(parent);
        let daemon = Process::read(proc, pid)?.session != parent.session;
        Some(ours && orphan && !daemon)
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| is_orphan(*pid).unwrap_or_default())
        .map(|pid| {
            let cmdline = std::fs::read(proc.join(pid.to_string()).join("cmdline"));
            Orphan { pid, makes: made_by(&cmdline.unwrap_or_default()) }
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
    fn only_children_of_a_devstack_that_is_gone_are_found() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, session: i32, environ: &str| {
            let dir = proc.path().join(pid);
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("environ"), environ).unwrap();
            let rest = "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0";
            std::fs::write(dir.join("stat"), format!("{pid} (a) b) S 1 {pid} {session} {rest} 77 0 0")).unwrap();
        };
        let marks =
            |owner: &str, parent: &str| format!("HOME=/root\0DEVSTACK_OWNER={owner}\0DEVSTACK_PARENT={parent}\0");
        process("50", 9, "");
        process("100", 9, &marks("demo", "40:77:9"));
        process("101", 9, &marks("demo2", "40:77:9"));
        process("102", 9, &marks("demo", "50:77:9"));
        process("103", 9, &marks("demo", "50:76:9"));
        process("104", 104, &marks("demo", "40:77:9"));
        process("105", 9, "X=DEVSTACK_OWNER=demo\0DEVSTACK_PARENT=40:77:9\0");
        process("106", 9, "DEVSTACK_OWNER=demo\0DEVSTACK_PARENT=no\0");
        let mut found: Vec<i32> = marked(proc.path(), "demo").iter().map(|orphan| orphan.pid).collect();
        found.sort_unstable();
        // Of 102 the parent lives, 103's number is another process's by now, and 104 has made itself a daemon.
        assert_eq!(found, [100, 103]);
        std::fs::remove_dir_all(proc.path().join("103")).unwrap();
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
        // As if a devstack that is gone had started it.
        let gone = Process { pid: i32::MAX, ..Process::own().unwrap() };
        let cmd = crate::ports::runner::Cmd::new("env").arg(format!("{PARENT_VARIABLE}={gone}")).args(["sleep", "60"]);
        let child = tokio::spawn(async move { runner.run(&cmd).await });
        while marked(Path::new("/proc"), &owner).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(stop(&owner).await.len(), 1);
        assert!(child.await.unwrap().is_err(), "the child was ended by a signal");
        assert!(marked(Path::new("/proc"), &owner).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_child_of_a_living_devstack_is_not() {
        use crate::ports::Runner as _;
        let owner = format!("child-test-{}", std::process::id());
        let cancel = tokio_util::sync::CancellationToken::new();
        let runner = crate::ports::runner::ProcessRunner::new(cancel.clone(), &owner);
        let script = "tr '\\0' '\\n' < /proc/$$/environ | grep DEVSTACK_; exec sleep 60";
        let cmd = crate::ports::runner::Cmd::new("sh").args(["-c", script]);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let child = tokio::spawn(async move {
            let on_line = |_, line: &str| drop(tell.send(line.to_owned()));
            runner.stream(&cmd, &on_line).await.map(drop)
        });
        let mut marks = [told.recv().await.unwrap(), told.recv().await.unwrap()];
        marks.sort();
        let own = Process::own().unwrap();
        assert_eq!(
            marks.map(|mark| mark.trim().to_owned()),
            [format!("{OWNER_VARIABLE}={owner}"), format!("{PARENT_VARIABLE}={own}")]
        );
        assert!(marked(Path::new("/proc"), &owner).is_empty());
        cancel.cancel();
        assert!(child.await.unwrap().is_err());
    }
}
