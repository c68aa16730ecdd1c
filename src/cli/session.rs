//! One run of devstack: what a verb gets to work with, its runtime, and how it ends.

use std::io::IsTerminal as _;
#[cfg(unix)]
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::{Cli, Global};
use crate::context::{Context, Dirs, Options, Vars};
use crate::environments;
use crate::error::{ExitCode, Failure};
use crate::ports::HostFs;
use crate::redact::Redactor;
use crate::ui::handle::{Setup, early_failure};
use crate::ui::log::RunLog;
use crate::ui::{Format, Style, Ui};

/// What a verb works with.
pub struct Session {
    /// Directories, ports, events, cancellation.
    pub ctx: Context,
    /// Results and questions.
    pub ui: Ui,
    /// The flags of every verb.
    pub global: Global,
    changes: bool,
}

/// Which runtime a verb needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// One thread: verbs that ask a few questions.
    Small,
    /// Threads for every core: verbs that move data or run steps.
    Parallel,
}

impl Session {
    /// Runs a verb that waits for things. An interruption fires `ctx.cancel`; a verb that changes nothing is dropped
    /// at once, another one ends by itself. A second interruption ends the process.
    ///
    /// # Errors
    /// What the verb fails with, or that it was interrupted.
    pub fn block_on(
        &self,
        runtime: Runtime,
        verb: impl Future<Output = Result<ExitCode, Failure>>,
    ) -> Result<ExitCode, Failure> {
        let mut builder = match runtime {
            Runtime::Small => tokio::runtime::Builder::new_current_thread(),
            Runtime::Parallel => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder
            .enable_all()
            .build()
            .map_err(|error| Failure::new(ExitCode::Failed, "cannot start the runtime").cause(error.to_string()))?;
        // Another part of the process may have chosen the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        watch_signals(self.ctx.cancel.clone(), &*self.ctx.fs)?;
        let result = runtime.block_on(async {
            tokio::select! {
                biased;
                result = verb => result,
                () = self.ctx.cancel.cancelled(), if !self.changes => Err(Failure::interrupted(false)),
            }
        });
        // What still runs in the background has nobody waiting for it.
        runtime.shutdown_background();
        match result {
            // Who was interrupted before a change says so.
            Err(failure) if self.ctx.cancel.is_cancelled() && failure.exit != ExitCode::Interrupted => {
                Err(Failure::interrupted(self.changes))
            }
            other => other,
        }
    }

    /// The environment that the verb is about: `--env`, else the only one there is.
    ///
    /// # Errors
    /// There is none, or there are several to choose from.
    pub fn environment(&self) -> Result<String, Failure> {
        let chosen = environments::choose(&self.ctx, self.global.env.as_deref())?;
        chosen.ok_or_else(|| Failure::usage("there is no environment").hint("devstack up"))
    }

    /// The names of all environments that have state, sorted.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn environments(&self) -> Result<Vec<String>, Failure> {
        environments::list(&self.ctx)
    }
}

/// Builds the session and runs the verb.
pub fn run(cli: &Cli) -> ExitCode {
    let global = &cli.global;
    let vars = Vars::of_process();
    let Some(dirs) = Dirs::of(&vars) else {
        let failure = Failure::new(ExitCode::Failed, "there is no home directory").hint("set HOME");
        return early_failure(&failure, global.output);
    };
    let (input, out, err) =
        (std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
    let changes = cli.command.changes();
    let redactor = Redactor::default();
    let log = changes.then(|| RunLog::new(&dirs.state.join("logs"), jiff::Timestamp::now(), std::process::id()));
    let cancel = CancellationToken::new();
    let ui = Ui::new(Setup {
        format: global.output,
        out_style: Style::of(&vars, global.no_color, out),
        err_style: Style::of(&vars, global.no_color, err),
        live: err && vars.get("CI").is_none() && vars.get("TERM").is_none_or(|term| term != "dumb"),
        verbose: global.verbose,
        yes: global.yes,
        interactive: input && err,
        root: is_root(),
        redactor: redactor.clone(),
        cancel: cancel.clone(),
        log,
    });
    let options = Options {
        yes: global.yes,
        interactive: input && err && global.output == Format::Text,
        verbose: global.verbose,
        timeout: global.timeout,
    };
    let mut ctx = Context::real(dirs, vars, ui.sink(), options);
    ctx.redactor = redactor;
    ctx.cancel = cancel;
    let session = Session { ctx, ui, global: global.clone(), changes };
    match cli.command.run(&session) {
        Ok(exit) => exit,
        Err(failure) => {
            session.ui.failure(&failure);
            failure.exit
        }
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Turns the first SIGINT, SIGTERM or SIGHUP into a cancellation and ends the process on the second. It has a thread
/// and a runtime of its own, so that a verb that is busy cannot keep a person from stopping it.
fn watch_signals(cancel: CancellationToken, fs: &dyn HostFs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(ExitCode::Failed, "cannot watch for interruptions").cause(error.to_string())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = runtime.block_on(async { Signals::new(fs) }).map_err(failed)?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            cancel.cancel();
            signals.next().await;
            stop_at_once();
        });
    });
    Ok(())
}

/// Ends the process without waiting for anything; the journal is made for it.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "the person asked twice")]
fn stop_at_once() {
    std::process::exit(i32::from(ExitCode::Interrupted.code()));
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// The terminal was closed; `None` where that is no reason to stop.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new(fs: &dyn HostFs) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if outlives_terminal(fs) { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether this process was started to outlive its terminal (`nohup`): it was given a SIGHUP that is ignored. Where the
/// system does not tell, nohup's other mark counts: standard error is no terminal.
#[cfg(unix)]
fn outlives_terminal(fs: &dyn HostFs) -> bool {
    let status = fs.read(Path::new("/proc/self/status")).ok().flatten();
    status.map_or_else(|| !std::io::stderr().is_terminal(), |status| ignores_hangup(&String::from_utf8_lossy(&status)))
}

/// Whether the first bit is set, SIGHUP's, of the signals that the kernel says are ignored.
#[cfg(unix)]
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "the Unix form can fail")]
    fn new(_fs: &dyn HostFs) -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // Without a handler there is nothing to wait for; the process ends as the system does it.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_shall_outlive_its_terminal_is_known() {
        for (mask, ignored) in [("0000000000000001", true), ("0000000000001001", true), ("0000000000001000", false)] {
            assert_eq!(ignores_hangup(&format!("SigBlk:\t0000000000000001\nSigIgn:\t{mask}\n")), ignored, "{mask}");
        }
        assert!(!ignores_hangup("Name:\tdevstack\n"));
    }
}
