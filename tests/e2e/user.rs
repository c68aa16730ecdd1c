//! An ordinary account in group docker: without sudo, with it, and one that may not even use the engine.

use std::path::{Path, PathBuf};
use std::process::Command;

use devstack::context::{Dirs, Vars};

use crate::harness::{Ended, Options, Phases, World, output, tell};

/// An account for as long as the test runs.
struct Account {
    name: String,
    sudoers: Option<PathBuf>,
}

impl Account {
    fn new(name: &str, groups: &str) -> Self {
        let name = format!("dse2e{name}");
        let _ = Command::new("userdel").args(["--remove", &name]).output();
        output(Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", "--groups", groups, &name]));
        Self { name, sudoers: None }
    }

    /// Lets the account use sudo without a password.
    fn may_sudo(&mut self) {
        let file = PathBuf::from(format!("/etc/sudoers.d/{}", self.name));
        std::fs::write(&file, format!("{} ALL=(ALL) NOPASSWD: ALL\n", self.name)).unwrap();
        output(Command::new("chmod").arg("0440").arg(&file));
        self.sudoers = Some(file);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(file) = &self.sudoers {
            let _ = std::fs::remove_file(file);
        }
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}

/// A copy of the cache that the account owns: directories of its own, files shared with the real one, which are only
/// ever replaced and never written to.
fn cache(account: &str, at: &Path) {
    let real = Dirs::of(&Vars::of_process()).unwrap().cache;
    std::fs::create_dir_all(at).unwrap();
    for part in ["store", "builds"] {
        let from = real.join(part);
        if from.exists() && !Command::new("cp").arg("-rl").arg(&from).arg(at).status().unwrap().success() {
            output(Command::new("cp").arg("-r").arg(&from).arg(at));
        }
    }
    for part in ["store/lock", "store/index.json"] {
        let file = at.join(part);
        if let Ok(bytes) = std::fs::read(&file) {
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, bytes).unwrap();
            output(Command::new("chown").arg(account).arg(&file));
        }
    }
    output(Command::new("find").arg(at).args(["-type", "d", "-exec", "chown", account, "{}", "+"]));
}

/// A directory beside the real cache, so that files can be shared.
fn beside() -> tempfile::TempDir {
    let real = Dirs::of(&Vars::of_process()).unwrap().cache;
    let place = if real.starts_with("/root") { PathBuf::from("/var/tmp") } else { real.parent().unwrap().to_owned() };
    let directory = tempfile::Builder::new().prefix("devstack-e2e-cache-").tempdir_in(place).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).unwrap();
    directory
}

fn names(ended: &Ended) -> Vec<String> {
    let endpoints = ended.last("result")["endpoints"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint["url"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_ordinary_account_needs_no_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("- an ordinary account: this test makes one, which takes root");
        return;
    }
    let mut phases = Phases::of("user");
    phases.run("an account that may not use the engine", || {
        let account = Account::new("none", "nogroup");
        let world = World::with("none", Options { account: Some(account.name.clone()), ..Options::default() });
        let ended = world.run(&["up"]).expect(5);
        let error = ended.last("error").to_string();
        assert!(error.contains("docker"), "{error}");
        world.is_clean();
    });
    let mut account = Account::new("docker", "docker");
    let directory = beside();
    cache(&account.name, directory.path());
    let options =
        Options { account: Some(account.name.clone()), cache: Some(directory.path().to_owned()), system_hosts: false };
    let world = World::with("user", options.clone());
    phases.run("without sudo: only names below localhost", || {
        let ended = world.up(&[]);
        world.serves_the_gif(&ended);
        let names = names(&ended);
        assert!(names.iter().all(|name| name.contains(".localhost")), "{names:?}");
        let owner = output(Command::new("find").arg(world.state()).args(["!", "-user", &account.name]));
        assert_eq!(owner, "", "files of another account");
    });
    phases.run("down", || world.down());
    drop(world);
    if Command::new("sudo").arg("-V").output().is_err() {
        tell("skipped: an ordinary account with sudo (it is not installed)");
    } else {
        account.may_sudo();
        let world = World::with("sudo", Options { system_hosts: true, ..options });
        phases.run("with sudo, but not unasked", || {
            let ended = world.up(&[]);
            let names = names(&ended);
            assert!(names.iter().all(|name| name.contains(".localhost")), "{names:?}");
            let told = ended.lines.iter().any(|line| line["type"] == "note" && line.to_string().contains("--sudo"));
            assert!(told, "{}", ended.story());
            assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains(&world.env));
        });
        phases.run("with --sudo: a name in the system's hosts file", || {
            let ended = world.up(&["--sudo"]);
            world.serves_the_gif(&ended);
            let names = names(&ended);
            assert!(names.iter().any(|name| name.contains(".test")), "{names:?}");
            assert!(std::fs::read_to_string("/etc/hosts").unwrap().contains(&format!("{}.test", world.env)));
        });
        phases.run("down, with sudo", || world.down());
    }
    phases.end();
}
