//! Child processes that are only told of.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::ports::Runner;
use crate::ports::runner::{Cmd, OnLine, Output, RunError, Stream};

type Script = (Vec<String>, Answer);
type Answer = Arc<dyn Fn(&Cmd) -> Result<Output, RunError> + Send + Sync>;

/// Answers commands as scripted and remembers them. Clones share everything. A command without a script is a program
/// that is not installed.
#[derive(Clone, Default)]
pub struct FakeRunner {
    answers: Arc<Mutex<Vec<Script>>>,
    calls: Arc<Mutex<Vec<Cmd>>>,
}

impl FakeRunner {
    /// Answers every command whose words (the program by its file name) begin with `prefix`. The last one that fits
    /// counts. The answer may change other fakes, as a real child changes the world.
    pub fn on(&self, prefix: &[&str], answer: impl Fn(&Cmd) -> Result<Output, RunError> + Send + Sync + 'static) {
        let prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((prefix, Arc::new(answer)));
    }

    /// Answers with this standard output.
    pub fn prints(&self, prefix: &[&str], stdout: &str) {
        let stdout = stdout.as_bytes().to_vec();
        self.on(prefix, move |_| Ok(Output { stdout: stdout.clone(), stderr: Vec::new() }));
    }

    /// Answers with this status and standard error.
    pub fn fails(&self, prefix: &[&str], code: i32, stderr: &str) {
        let stderr = stderr.to_owned();
        self.on(prefix, move |cmd| {
            Err(RunError::Failed {
                line: cmd.line(),
                code: Some(code),
                signal: None,
                stdout: String::new(),
                stderr: stderr.clone(),
            })
        });
    }

    /// Every command so far.
    pub fn calls(&self) -> Vec<Cmd> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every command so far, as a person would type it.
    pub fn lines(&self) -> Vec<String> {
        self.calls().iter().map(Cmd::line).collect()
    }
}

fn words(cmd: &Cmd) -> Vec<String> {
    let program = cmd.program.file_name().unwrap_or(cmd.program.as_os_str());
    std::iter::once(program)
        .chain(cmd.args.iter().map(AsRef::as_ref))
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

#[async_trait]
impl Runner for FakeRunner {
    async fn stream(&self, cmd: &Cmd, on_line: OnLine<'_>) -> Result<Output, RunError> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(cmd.clone());
        let words = words(cmd);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer =
            answers.iter().rev().find(|(prefix, _)| words.starts_with(prefix)).map(|(_, answer)| answer.clone());
        drop(answers);
        let answer = answer.ok_or_else(|| RunError::NotFound { program: words[0].clone() })?;
        let output = answer(cmd)?;
        for (stream, bytes) in [(Stream::Stdout, &output.stdout), (Stream::Stderr, &output.stderr)] {
            String::from_utf8_lossy(bytes).lines().for_each(|line| on_line(stream, line));
        }
        Ok(output)
    }
}
