//! The one thing that writes to the terminal.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::confirm::{self, Question};
use super::log::RunLog;
use super::plain::Plain;
use super::tty::Tty;
use super::{Style, json, steps};
use crate::error::{ExitCode, Failure};
use crate::event::{Event, EventSink};
use crate::redact::Redactor;

/// How often time is looked at while steps run. A terminal is redrawn at most this often.
const TICK: Duration = Duration::from_millis(50);

/// What standard output carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// JSON lines, each with a `type`.
    Json,
}

/// How to render; decided once, at the edge.
#[derive(Debug)]
pub struct Setup {
    /// What standard output carries.
    pub format: Format,
    /// Colours of standard output.
    pub out_style: Style,
    /// Colours of standard error.
    pub err_style: Style,
    /// Whether standard error is a terminal on which lines can be redrawn.
    pub live: bool,
    /// `-v`.
    pub verbose: bool,
    /// `--yes`.
    pub yes: bool,
    /// Whether a person can be asked.
    pub interactive: bool,
    /// Whether this account is root.
    pub root: bool,
    /// The secrets that no line shows.
    pub redactor: Redactor,
    /// Fires on an interruption, which ends a question as well.
    pub cancel: CancellationToken,
    /// The log, for commands that change things.
    pub log: Option<RunLog>,
}

/// Renders events and results. Cheap to clone.
#[derive(Clone)]
pub struct Ui(Arc<Shared>);

struct Shared {
    setup: Setup,
    state: Mutex<State>,
}

struct State {
    renderer: Renderer,
    log: Option<RunLog>,
    ticking: bool,
}

enum Renderer {
    Json,
    Plain(Plain),
    Tty(Tty),
}

impl Ui {
    /// A user interface on the process's standard streams.
    pub fn new(mut setup: Setup) -> Self {
        let log = setup.log.take();
        let renderer = match setup.format {
            Format::Json => Renderer::Json,
            Format::Text if setup.live => {
                Renderer::Tty(Tty::new(setup.err_style, setup.verbose, setup.redactor.clone()))
            }
            Format::Text => Renderer::Plain(Plain::new(setup.err_style, setup.verbose)),
        };
        Self(Arc::new(Shared { setup, state: Mutex::new(State { renderer, log, ticking: false }) }))
    }

    /// What standard output carries.
    pub fn format(&self) -> Format {
        self.0.setup.format
    }

    /// The colours of standard output, for text that is passed to [`Ui::result`].
    pub fn style(&self) -> Style {
        self.0.setup.out_style
    }

    /// Where logic emits its events.
    pub fn sink(&self) -> EventSink {
        let ui = self.clone();
        EventSink::new(move |event| ui.event(&event))
    }

    /// Prints a command's result: `text` for people, else the object `value` as a line of type `result`.
    ///
    /// # Errors
    /// Standard output cannot be written; see [`Failure::of_output`].
    pub fn result(&self, value: Value, text: &str) -> Result<(), Failure> {
        let event = Event::Result(value);
        let line = json::event(&event);
        self.lock().record(&event, &self.redact(&line));
        match self.format() {
            Format::Json => self.out(&format!("{line}\n")),
            Format::Text => self.out(text),
        }
    }

    /// Prints a JSON object under a type of its own (`status` prints type `status`), or `text` for people.
    ///
    /// # Errors
    /// As [`Ui::result`].
    pub fn object(&self, kind: &str, mut value: Value, text: &str) -> Result<(), Failure> {
        match self.format() {
            Format::Text => self.out(text),
            Format::Json => {
                if !value.is_object() {
                    value = serde_json::json!({ "value": value });
                }
                value["type"] = kind.into();
                self.out(&format!("{value}\n"))
            }
        }
    }

    /// Prints text that is the result itself, such as a completion script; in JSON as `{"type":"text","text":…}`.
    ///
    /// # Errors
    /// As [`Ui::result`].
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        self.object("text", serde_json::json!({ "text": text }), text)
    }

    /// Gets consent, or fails with exit code 5 and nothing changed.
    ///
    /// `--yes` answers everything but a privilege on an account that is not root.
    ///
    /// # Errors
    /// The answer is no, or there is nobody to ask.
    pub fn confirm(&self, question: &Question) -> Result<(), Failure> {
        let setup = &self.0.setup;
        if setup.yes && (!question.privilege || setup.root) {
            return Ok(());
        }
        if !setup.interactive || setup.format == Format::Json {
            let hint = if question.privilege && !setup.root {
                "run it on a terminal, where it can ask, or as root with --yes"
            } else {
                "answer with --yes, or run it on a terminal"
            };
            return Err(question.refusal(hint));
        }
        let state = self.lock();
        let mut next = || read_line(&setup.cancel);
        let answer = state.renderer.suspend(|| confirm::ask(question, &mut next, &mut io::stderr().lock()));
        drop(state);
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(question.refusal("answer y to go on")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::interrupted(false)),
            Err(error) => Err(Failure::of_output(&error)),
        }
    }

    /// Prints a failure: for people on standard error, and with `-o json` as a line of type `error` as well.
    pub fn failure(&self, failure: &Failure) {
        let mut state = self.lock();
        if let Renderer::Tty(tty) = &mut state.renderer {
            tty.finish();
        }
        let failure = failure.clone().log(state.log.as_ref().and_then(RunLog::path));
        let line = self.redact(&json::failure(&failure));
        if let Some(log) = &mut state.log {
            log.line(jiff::Timestamp::now(), &line);
        }
        if self.format() == Format::Json {
            let _ = write_out(&format!("{line}\n"));
        }
        let text = self.redact(&failure.render());
        let rest = text.strip_prefix("error:").unwrap_or(&text);
        let _ = write_err(&format!("{}{rest}", self.0.setup.err_style.bad("error:")));
    }

    /// The log of this run, where there is one.
    pub fn log_path(&self) -> Option<PathBuf> {
        self.lock().log.as_ref().and_then(RunLog::path).map(std::path::Path::to_path_buf)
    }

    /// Ends the log of this run and removes all logs; see [`RunLog::discard`].
    pub fn discard_logs(&self) {
        if let Some(log) = &mut self.lock().log {
            log.discard();
        }
    }

    fn event(&self, event: &Event) {
        let line = self.redact(&json::event(event));
        let mut state = self.lock();
        state.record(event, &line);
        let now = Instant::now();
        match &mut state.renderer {
            Renderer::Json => drop(write_out(&format!("{line}\n"))),
            Renderer::Plain(plain) => {
                let text = plain.event(now, event) + &plain.tick(now);
                let _ = write_err(&self.redact(&text));
            }
            Renderer::Tty(tty) => tty.event(now, event),
        }
        if let (Event::Plan { summary, settings, changes }, Format::Text) = (event, self.format()) {
            let text = steps::plan(summary, settings, changes, self.0.setup.verbose, self.0.setup.out_style);
            let _ = state.renderer.suspend(|| write_out(&self.redact(&text)));
        }
        if matches!(event, Event::StepStarted { .. }) && self.format() == Format::Text && !state.ticking {
            state.ticking = true;
            tick_while_alive(Arc::downgrade(&self.0));
        }
    }

    fn tick(&self) {
        let mut state = self.lock();
        match &mut state.renderer {
            Renderer::Json => {}
            Renderer::Plain(plain) => {
                let text = plain.tick(Instant::now());
                let _ = write_err(&self.redact(&text));
            }
            Renderer::Tty(tty) => tty.tick(Instant::now()),
        }
    }

    fn out(&self, text: &str) -> Result<(), Failure> {
        let state = self.lock();
        match state.renderer.suspend(|| write_out(&self.redact(text))) {
            // A reader that went away (`devstack … | head`) keeps nothing from its end, and changes no exit code.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::of_output(&error)),
            _ => Ok(()),
        }
    }

    fn redact(&self, text: &str) -> String {
        self.0.setup.redactor.apply(text)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renderer {
    /// Writes something else to the terminal without a moving line in its way.
    fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Json | Self::Plain(_) => write(),
            Self::Tty(tty) => tty.suspend(write),
        }
    }
}

impl State {
    fn record(&mut self, event: &Event, line: &str) {
        if let Some(log) = &mut self.log {
            log.event(jiff::Timestamp::now(), event, line);
        }
    }
}

/// Lets time pass for the renderer until the user interface is gone.
fn tick_while_alive(shared: Weak<Shared>) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(TICK);
            match shared.upgrade() {
                Some(shared) => Ui(shared).tick(),
                None => return,
            }
        }
    });
}

/// One line of standard input, `None` at its end. An interruption ends the wait for it; the thread that reads is left
/// to the end of the process, since a read of a terminal cannot be called back.
fn read_line(cancel: &CancellationToken) -> io::Result<Option<String>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let result = io::stdin().read_line(&mut line).map(|count| (count > 0).then_some(line));
        // Nobody waits for it any more after an interruption.
        let _ = sender.send(result);
    });
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(result) => return result,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if cancel.is_cancelled() => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn write_err(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    io::stderr().lock().write_all(text.as_bytes())
}

/// Prints a failure that happened before there was a [`Ui`].
pub fn early_failure(failure: &Failure, format: Format) -> ExitCode {
    if format == Format::Json {
        let _ = write_out(&format!("{}\n", json::failure(failure)));
    }
    let _ = write_err(&failure.render());
    failure.exit
}
