//! Children that outlived a killed devstack: found by the mark that every child carries, stopped before anything else
//! is done, so that nothing is raced.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::ports::runner::OWNER_VARIABLE;

/// How long a child may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);

/// How long an engine may go on with what a child that was stopped had asked it for, such as a container that is
/// being made.
pub const SETTLE: Duration = Duration::from_secs(3);

/// Ends every process of this user that is marked as a child of a devstack for `owner`, and waits until it is gone.
/// Gives their ids. On systems without `/proc` there is nothing to look at, and the list is empty.
///
/// The caller holds the environment's lock, so that no living devstack's child can be among them.
pub async fn stop(owner: &str) -> Vec<i32> {
    let found = marked(Path::new("/proc"), owner);
    #[cfg(unix)]
    {
        signal(&found, rustix::process::Signal::TERM);
        let began = Instant::now();
        while !marked(Path::new("/proc"), owner).is_empty() {
            if began.elapsed() > GRACE {
                signal(&marked(Path::new("/proc"), owner), rustix::process::Signal::KILL);
            }
            if began.elapsed() > GRACE * 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    found
}

#[cfg(unix)]
fn signal(pids: &[i32], signal: rustix::process::Signal) {
    for pid in pids.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
        // One that has ended in the meantime is what was wanted.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Ids of the processes below `proc` whose environment carries the mark; those of other users cannot be read and are
/// not ours.
fn marked(proc: &Path, owner: &str) -> Vec<i32> {
    let mark = format!("{OWNER_VARIABLE}={owner}");
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read(proc.join(pid.to_string()).join("environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(marked(proc.path(), "demo"), [100]);
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
