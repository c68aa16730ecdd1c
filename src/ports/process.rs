//! Processes of this machine, known by their numbers.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A process, told from a later one of the same number. As text, `PID:STARTED:SESSION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it was started, in ticks since the machine was.
    pub started: u64,
    /// Its session. Daemons have one of their own; other children keep their parent's.
    pub session: i32,
}

impl Process {
    /// This process; `None` on systems without `/proc`.
    pub fn own() -> Option<Self> {
        Self::read(Path::new("/proc"), i32::try_from(std::process::id()).ok()?)
    }

    /// What `proc` (`/proc`) tells of a process; `None` where there is none, or one that has ended and is not reaped.
    pub fn read(proc: &Path, pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
        // Fields are counted after the program's name, which may hold spaces and parentheses (proc_pid_stat(5)).
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let session = fields.nth(2)?.parse().ok()?;
        Some(Self { pid, started: fields.nth(15)?.parse().ok()?, session })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.started, self.session)
    }
}

/// A text is not of the form `PID:STARTED:SESSION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAProcess;

impl FromStr for Process {
    type Err = NotAProcess;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':');
        let (Some(pid), Some(started), Some(session), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAProcess);
        };
        Ok(Self {
            pid: pid.parse().map_err(|_| NotAProcess)?,
            started: started.parse().map_err(|_| NotAProcess)?,
            session: session.parse().map_err(|_| NotAProcess)?,
        })
    }
}

/// Whether a process with this id is there, whoever owns it. On systems where that cannot be asked, one always is.
#[cfg(unix)]
pub fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // EPERM: it is there and somebody else's.
    pid.is_some_and(|pid| !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

/// Whether a process with this id is there, whoever owns it. On systems where that cannot be asked, one always is.
#[cfg(not(unix))]
pub fn is_alive(_pid: u32) -> bool {
    true
}
