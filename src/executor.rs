//! Runs a graph of steps: as parallel as its edges allow, journalled, cancellable.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::watch;

use crate::context::Context;
use crate::event::Event;
use crate::graph::{Graph, When};
use crate::journal::{Journal, JournalError, Record};
use crate::step::{Applied, Step, StepError, World};

/// Why a run stopped. What was done stays; a second `up` resumes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunFailure {
    /// A step failed.
    #[error("{step} failed")]
    Step {
        /// The step.
        step: String,
        /// Why.
        source: Box<StepError>,
    },
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Waiting,
    Started,
    Done,
    Failed,
}

/// What the steps of one run share: the world they change, the journal, and what earlier steps gave.
pub struct Run<'a> {
    /// The context of the command.
    pub ctx: &'a Context,
    /// The environment's world: engine, cluster, directories.
    pub world: &'a World,
    /// The environment's journal.
    pub journal: &'a Journal,
    /// Whether every step was just seen to have nothing to do: what was compared whole need not be applied.
    pub settled: bool,
    outputs: Mutex<BTreeMap<String, Value>>,
    progress: BTreeMap<String, watch::Sender<Progress>>,
}

impl Run<'_> {
    /// What a step gave; `Null` before it ended.
    pub fn output(&self, step: &str) -> Value {
        self.outputs().get(step).cloned().unwrap_or_default()
    }

    /// What every ended step gave, by step id.
    pub fn outputs(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Value>> {
        self.outputs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Records that `step` is about to change something.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn intend(&self, step: &str, undo: Vec<crate::journal::Undo>) -> Result<(), JournalError> {
        self.journal.append(Record::Intent { step: step.to_owned(), undo })
    }

    /// Waits in the middle of a step until another one has ended. `false` where it failed.
    pub async fn ended(&self, step: &str) -> bool {
        match self.progress.get(step) {
            Some(sender) => reached(sender.subscribe(), Progress::Done).await,
            None => true,
        }
    }

    /// Whether a step has failed; lets one that watches another stop waiting.
    pub fn has_failed(&self, step: &str) -> bool {
        self.progress.get(step).is_some_and(|sender| *sender.borrow() == Progress::Failed)
    }

    /// Tells steps that wait for the beginning of this one that what an earlier `up` left is out of their way. Called by
    /// the steps that [`Step::clears`] names; of others their start tells it.
    pub fn begun(&self, step: &str) {
        if let Some(sender) = self.progress.get(step) {
            sender.send_replace(Progress::Started);
        }
    }

    /// Tells why a step waits.
    pub fn waiting(&self, step: &str, reason: impl Into<String>) {
        self.ctx.events.emit(Event::StepWaiting { step: step.to_owned(), reason: reason.into() });
    }
}

#[cfg(test)]
impl<'a> Run<'a> {
    /// The run of one step after others that gave these outputs.
    pub fn after(ctx: &'a Context, world: &'a World, journal: &'a Journal, outputs: BTreeMap<String, Value>) -> Self {
        Self { ctx, world, journal, settled: false, outputs: Mutex::new(outputs), progress: BTreeMap::new() }
    }
}

async fn reached(mut receiver: watch::Receiver<Progress>, wanted: Progress) -> bool {
    match receiver.wait_for(|progress| *progress >= wanted).await {
        Ok(progress) => *progress != Progress::Failed,
        Err(_) => false,
    }
}

/// Runs every step and gives their outputs by step id; `settled` as [`Run::settled`]. Stops at the first failure: steps
/// that run are dropped (their children stop with them), and what they began is in the journal.
///
/// # Errors
/// [`RunFailure`].
pub async fn run(
    ctx: &Context,
    world: &World,
    journal: &Journal,
    graph: &Graph<Step>,
    settled: bool,
) -> Result<BTreeMap<String, Value>, RunFailure> {
    let progress = graph.nodes().iter().map(|node| (node.id.clone(), watch::Sender::new(Progress::Waiting))).collect();
    let run = Run { ctx, world, journal, settled, outputs: Mutex::default(), progress };
    let mut running: FuturesUnordered<_> = graph
        .nodes()
        .iter()
        .map(|node| {
            let run = &run;
            async move {
                for need in &node.needs {
                    let wanted = if need.when == When::Done { Progress::Done } else { Progress::Started };
                    if !reached(run.progress[&need.step].subscribe(), wanted).await {
                        return Ok(());
                    }
                }
                one(run, &node.id, &node.step).await.map_err(|source| (node.id.clone(), source))
            }
        })
        .collect();
    loop {
        tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => return Err(RunFailure::Interrupted),
            next = running.next() => match next {
                None => break,
                Some(Ok(())) => {}
                Some(Err((step, source))) => {
                    // A child that was stopped by Ctrl-C fails its step; the interruption is the reason.
                    if ctx.cancel.is_cancelled() {
                        return Err(RunFailure::Interrupted);
                    }
                    return Err(RunFailure::Step { step, source: Box::new(source) });
                }
            },
        }
    }
    drop(running);
    Ok(run.outputs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

async fn one(run: &Run<'_>, id: &str, step: &Step) -> Result<(), StepError> {
    let began = Instant::now();
    let progress = &run.progress[id];
    run.ctx.events.emit(Event::StepStarted { step: id.to_owned() });
    crate::kill::point("step.before", id);
    if !step.clears() {
        run.begun(id);
    }
    let result = step.apply(run, id).await;
    let seconds = began.elapsed().as_secs_f64();
    match result {
        Ok(Applied { outputs, detail, changed }) => {
            crate::kill::point("step.after", id);
            if changed {
                run.journal.append(Record::Done { step: id.to_owned(), outputs: outputs.clone() })?;
            }
            run.outputs().insert(id.to_owned(), outputs);
            run.ctx.events.emit(Event::StepDone { step: id.to_owned(), detail, changed, seconds });
            progress.send_replace(Progress::Done);
            Ok(())
        }
        Err(error) => {
            run.ctx.events.emit(Event::StepFailed { step: id.to_owned(), error: crate::error::chain(&error), seconds });
            progress.send_replace(Progress::Failed);
            Err(error)
        }
    }
}
