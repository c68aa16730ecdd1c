//! A place where devstack finds nothing of this machine: no variables, directories of its own, no program on `PATH`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use assert_cmd::Command;

pub struct TestEnvironment {
    dir: tempfile::TempDir,
    vars: BTreeMap<String, String>,
}

impl TestEnvironment {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap().to_owned();
        let vars = [
            ("HOME", root.clone()),
            ("XDG_STATE_HOME", format!("{root}/xdg-state")),
            ("XDG_CACHE_HOME", format!("{root}/xdg-cache")),
            ("XDG_CONFIG_HOME", format!("{root}/xdg-config")),
            ("DEVSTACK_HOME", format!("{root}/state")),
            ("DEVSTACK_CACHE", format!("{root}/cache")),
            ("DEVSTACK_HOSTS_FILE", format!("{root}/hosts")),
            ("DOCKER_HOST", "unix:///nonexistent/docker.sock".to_owned()),
            ("PATH", "/nonexistent".to_owned()),
            ("COLUMNS", "100".to_owned()),
        ];
        Self { dir, vars: vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.vars.insert(name.to_owned(), value.to_owned());
    }

    pub fn path(&self, relative: &str) -> String {
        self.dir.path().join(relative).to_str().unwrap().to_owned()
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.dir.path().join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn read(&self, relative: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(relative)).unwrap()
    }

    /// Every file and directory, relative to the root.
    pub fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.display().to_string());
                if path.is_dir() {
                    walk(&path, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        found
    }

    /// Runs devstack and gives its exit code, output and errors in one text, with this place's paths replaced.
    pub fn run(&self, args: &[&str]) -> String {
        self.run_with_input(args, "")
    }

    pub fn run_with_input(&self, args: &[&str], input: &str) -> String {
        let output = self.command(args).write_stdin(input).output().unwrap();
        let mut text = format!("exit {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            if !bytes.is_empty() {
                text.push_str(&format!("--- {name}\n{}", String::from_utf8(bytes).unwrap()));
            }
        }
        text.replace(self.dir.path().to_str().unwrap(), "[ROOT]")
    }

    /// Runs devstack, interrupts it when `begun` says so, and gives its exit code and standard error.
    pub fn interrupt(&self, args: &[&str], begun: impl Fn() -> bool) -> (Option<i32>, String) {
        #[expect(clippy::disallowed_methods, reason = "assert_cmd waits for what it starts")]
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_devstack"));
        let child = command.args(args).env_clear().envs(&self.vars).stderr(Stdio::piped());
        let mut child = child.stdout(Stdio::null()).spawn().unwrap();
        while !begun() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be interrupted");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text.replace(self.dir.path().to_str().unwrap(), "[ROOT]"))
    }

    /// The exit code and standard error of a run whose standard output nobody reads.
    pub fn run_into_closed_pipe(&self, args: &[&str]) -> (Option<i32>, String) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = self.child(env!("CARGO_BIN_EXE_devstack"), args);
        let output = command.stdout(writer).spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// A program that is started here and goes on while the test does something else. Its standard error can be read.
    pub fn child(&self, program: &str, args: &[&str]) -> std::process::Command {
        #[expect(clippy::disallowed_methods, reason = "assert_cmd waits for the child and reads what it writes")]
        let mut command = std::process::Command::new(program);
        command.args(args).env_clear().envs(&self.vars).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
        command.args(args).env_clear().envs(&self.vars).current_dir(self.dir.path());
        command
    }
}
