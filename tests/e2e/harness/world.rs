//! A world for one test: an account's home, state, kubeconfig and hosts file in a temporary directory, one environment,
//! and the promise that the machine is afterwards what it was before.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use devstack::context::{Dirs, Vars};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Page, get};
use super::tools::{output, sha256};
use super::{Ended, Machine, Running, docker, gif};

/// A kubeconfig as somebody keeps it: comments, an order of its own, a current context.
const KUBECONFIG: &str = "# kept by hand\napiVersion: v1\nkind: Config\ncurrent-context: work\ncontexts:\n- name: work   # do not touch\n  context: {cluster: work, user: \"me\", namespace: team-a}\nclusters:\n- name: work\n  cluster:\n    server: https://kubernetes.example.com:6443\n    insecure-skip-tls-verify: true\nusers:\n- name: \"me\"\n  user:\n    token: abc\npreferences: {}\n";

/// A hosts file with everything that editors and systems leave in one, and no newline at its end.
const HOSTS: &[u8] = b"127.0.0.1\tlocalhost\r\n::1 localhost ip6-localhost\n\n# caf\xe9, not UTF-8\n  10.0.0.7   printer.example.com printer # by hand\n#127.0.0.1 s3www.test";

/// How a world differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The account that runs devstack; the test's own when absent.
    pub account: Option<String>,
    /// The cache; the one that devstack uses without a test when absent.
    pub cache: Option<PathBuf>,
    /// Whether the system's hosts file is managed, and not one of the world's own.
    pub system_hosts: bool,
}

/// A world.
pub struct World {
    /// The environment's name.
    pub env: String,
    /// Everything that devstack may write to outside the cache.
    pub root: PathBuf,
    /// What the test itself needs, where devstack writes nothing.
    pub aside: PathBuf,
    options: Options,
    binary: PathBuf,
    before: Machine,
    ports: RefCell<BTreeSet<u16>>,
    _directory: TempDir,
}

impl World {
    /// A world of the test's own account.
    pub fn new(name: &str) -> Self {
        Self::with(name, Options::default())
    }

    /// A world.
    pub fn with(name: &str, options: Options) -> Self {
        // Another run on the same engine has its own.
        let env = format!("e2e-{name}-{:x}", std::process::id());
        let directory = tempfile::Builder::new().prefix("devstack-e2e-").tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (root, aside) = (directory.path().join("root"), directory.path().join("aside"));
        for dir in [root.join("home/.kube"), aside.join("home")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(root.join("home/.kube/config"), KUBECONFIG).unwrap();
        std::fs::set_permissions(root.join("home/.kube/config"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(root.join("hosts"), HOSTS).unwrap();
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_devstack"));
        if let Some(account) = &options.account {
            // Another account reads neither the build directory nor files of this one.
            let copy = aside.join("devstack");
            std::fs::copy(&binary, &copy).unwrap();
            binary = copy;
            output(Command::new("chown").args(["-R", account]).arg(&root));
            // The hosts file stays root's, as the system's is.
            output(Command::new("chown").arg("root").arg(root.join("hosts")));
        }
        sweep(&env);
        let before = Machine::look(&root, &env);
        Self { env, root, aside, options, binary, before, ports: RefCell::default(), _directory: directory }
    }

    /// The hosts file that devstack manages.
    pub fn hosts(&self) -> PathBuf {
        if self.options.system_hosts { PathBuf::from("/etc/hosts") } else { self.root.join("hosts") }
    }

    /// The user's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("home/.kube/config")
    }

    /// devstack's state.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The name of everything of the environment.
    pub fn name(&self) -> String {
        format!("devstack-{}", self.env)
    }

    /// The container of the control plane.
    pub fn node(&self) -> String {
        format!("{}-control-plane", self.name())
    }

    /// devstack with these arguments, `-o json --yes` and the environment's name, in this world.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.args(["-o", "json", "--yes", "--env", &self.env]);
        command
    }

    /// devstack with just these arguments, in this world.
    pub fn bare(&self, args: &[&str]) -> Command {
        let vars = Vars::of_process();
        let mut command = match &self.options.account {
            None => Command::new(&self.binary),
            Some(account) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", account, "--regid", account, "--init-groups", "--"]).arg(&self.binary);
                command
            }
        };
        let cache = self.options.cache.clone().unwrap_or_else(|| Dirs::of(&vars).unwrap().cache);
        command.args(args).current_dir(&self.root);
        command.env("HOME", self.root.join("home")).env("DEVSTACK_HOME", self.state()).env("DEVSTACK_CACHE", cache);
        command.env("KUBECONFIG", self.kubeconfig());
        if !self.options.system_hosts {
            command.env("DEVSTACK_HOSTS_FILE", self.hosts());
        }
        if vars.get("DOCKER_HOST").is_none() {
            // The engine's address may come from the account's docker contexts, which this home does not have.
            let host = docker(&["context", "inspect", "-f", "{{.Endpoints.docker.Host}}"]);
            command.env("DOCKER_HOST", host.trim());
        }
        for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts devstack.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Runs devstack to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.start(args).end()
    }

    /// Brings the environment up and gives the result after seeing every endpoint of it from outside.
    #[track_caller]
    pub fn up(&self, args: &[&str]) -> Ended {
        let ended = self.run(&[&["up"], args].concat()).expect(0);
        self.check(&ended);
        ended
    }

    /// Whether every endpoint that devstack calls proven really is so.
    #[track_caller]
    pub fn check(&self, ended: &Ended) {
        let result = ended.last("result");
        assert_eq!(result["environment"], self.env.as_str());
        let endpoints = result["endpoints"].as_array().unwrap();
        assert!(!endpoints.is_empty(), "{result}");
        for endpoint in endpoints {
            let url = endpoint["url"].as_str().unwrap();
            assert_eq!(
                (&endpoint["ok"], &endpoint["http_status"]),
                (&Value::Bool(true), &Value::from(200)),
                "{endpoint}"
            );
            for field in ["name", "address", "sha256"] {
                assert!(endpoint[field].is_string(), "{field} of {endpoint}");
            }
            let page = get(url, &self.hosts()).unwrap();
            assert_eq!((page.status, Some(page.sha256.as_str())), (200, endpoint["sha256"].as_str()), "{url}");
            let port = url.split(':').nth(2).and_then(|rest| rest.split('/').next()?.parse().ok()).unwrap_or(80);
            if url.contains(".localhost") {
                self.ports.borrow_mut().insert(port);
            }
        }
        assert!(endpoints.iter().any(|one| one["url"].as_str().unwrap().contains(".localhost")), "{result}");
    }

    /// The GIF's page, as an endpoint of an `up` that ended serves it.
    #[track_caller]
    pub fn serves_the_gif(&self, ended: &Ended) {
        let gif = gif();
        let wanted = Page { status: 200, length: gif.len(), sha256: sha256(&gif) };
        for endpoint in ended.last("result")["endpoints"].as_array().unwrap() {
            let url = endpoint["url"].as_str().unwrap();
            assert_eq!(get(url, &self.hosts()).unwrap(), wanted, "{url}");
        }
    }

    /// The plan of a dry run, which must change nothing: every change that is not to leave things as they are.
    #[track_caller]
    pub fn dry_run(&self, args: &[&str]) -> Vec<String> {
        let before = self.look();
        let ended = self.run(&[&["up", "--dry-run"], args].concat()).expect(0);
        let difference = self.difference(&before);
        assert!(difference.is_empty(), "a dry run changed something: {difference:#?}");
        ended.changes()
    }

    /// The machine as it is.
    pub fn look(&self) -> Machine {
        Machine::look(&self.root, &self.env).without_logs()
    }

    /// What is different now. What is different only for a moment is somebody else's: a container's volume is there
    /// before the container can be seen.
    pub fn difference(&self, before: &Machine) -> Vec<String> {
        let mut difference = before.difference(&self.look());
        for _ in 0..3 {
            if difference.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
            let later = before.difference(&self.look());
            difference.retain(|line| later.contains(line));
        }
        difference
    }

    /// As [`World::difference`], the lock aside: who worked on the environment last is devstack's own book-keeping.
    pub fn changed(&self, before: &Machine) -> Vec<String> {
        let mut difference = self.difference(before);
        difference.retain(|line| !line.ends_with("/lock"));
        difference
    }

    /// Fails unless the machine is what it was before the test, logs of devstack's runs aside.
    #[track_caller]
    pub fn is_clean(&self) {
        let mut difference = self.difference(&self.before);
        let listening = Machine::listening();
        difference.extend(
            self.ports.borrow().iter().filter(|port| listening.contains(port)).map(|port| format!("left: port {port}")),
        );
        assert!(difference.is_empty(), "the machine is not what it was: {difference:#?}");
    }

    /// Takes the environment down and fails unless the machine is what it was before the test.
    #[track_caller]
    pub fn down(&self) -> Ended {
        let ended = self.run(&["down"]).expect(0);
        assert_eq!(ended.last("result")["leftovers"], serde_json::json!([]), "{}", ended.story());
        self.is_clean();
        ended
    }

    /// Runs kubectl against the environment, through the context in the user's kubeconfig.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        command.env("HOME", self.aside.join("home")).env("KUBECONFIG", self.kubeconfig());
        output(command.args(["--context", &self.name()]).args(args))
    }

    /// Runs a command in a node.
    #[track_caller]
    pub fn in_node(&self, args: &[&str]) -> String {
        docker(&[&["exec", &self.node()], args].concat())
    }
}

/// Kills children of a devstack that worked for the environment and removes what is left of it in the engine, without
/// devstack.
fn sweep(env: &str) {
    let mark = format!("DEVSTACK_OWNER={env}");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let clusters = format!("label=io.x-k8s.kind.cluster=devstack-{env}");
    let owner = format!("label=dev.devstack.environment={env}");
    for filter in [&clusters, &owner] {
        for id in docker(&["ps", "-aq", "--filter", filter]).split_whitespace() {
            let _ = Command::new("docker").args(["rm", "-fv", id]).output();
        }
    }
    for id in docker(&["network", "ls", "-q", "--filter", &owner]).split_whitespace() {
        let _ = Command::new("docker").args(["network", "rm", id]).output();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if Path::new(&self.state()).exists() || std::thread::panicking() {
            let _ = self.command(&["down"]).output();
        }
        sweep(&self.env);
    }
}
