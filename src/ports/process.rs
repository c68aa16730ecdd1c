//! Processes of this machine that are not devstack's children.

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
