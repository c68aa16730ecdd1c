use std::sync::Arc;

use super::*;
use crate::ports::fake::{self, FakeClock, FakeFs, FakeRunner};

const FILE: &str = "/etc/hosts";

fn world() -> (Context, FakeFs, FakeRunner) {
    let fs = FakeFs::default();
    fs.put(FILE, "127.0.0.1 localhost\n", 0o644);
    (fake::context(&fs, &FakeClock::default()), fs, FakeRunner::default())
}

fn entries() -> Vec<Entry> {
    vec!["127.0.0.1 s3www.test".parse().unwrap()]
}

/// What `sudo … hosts write-block` does: root has the right that the caller lacks.
fn sudo(runner: &FakeRunner, fs: &FakeFs) {
    runner.prints(&["sudo", "-n", "true"], "");
    let root = FakeFs::default();
    let disk = fs.clone();
    runner.on(&["sudo", "-n", "--"], move |cmd| {
        root.put(FILE, disk.text(FILE).unwrap(), 0o644);
        let ctx = fake::context(&root, &FakeClock::default());
        let lines = (!cmd.args.iter().any(|arg| arg == "--remove")).then(|| String::from_utf8_lossy(&cmd.stdin));
        write_block(&ctx, Path::new(FILE), "s3www", lines.as_deref(), true).unwrap();
        disk.put(FILE, root.text(FILE).unwrap(), 0o644);
        Ok(crate::ports::runner::Output::default())
    });
}

#[tokio::test]
async fn a_writable_file_is_written_once_and_restored() {
    let (ctx, fs, runner) = world();
    let file = Path::new(FILE);
    let before = fs.text(FILE).unwrap();
    assert_eq!(access(&ctx, &runner, file).await, Access::Direct);
    assert!(set(&ctx, &runner, file, "s3www", &entries()).await.unwrap());
    assert!(!set(&ctx, &runner, file, "s3www", &entries()).await.unwrap());
    assert_eq!(fs.writes(), 1);
    assert!(remove(&ctx, &runner, file, "s3www").await.unwrap());
    assert!(!remove(&ctx, &runner, file, "s3www").await.unwrap());
    assert_eq!(fs.text(FILE).unwrap(), before);
    assert_eq!(runner.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn sudo_writes_what_this_account_may_not() {
    let (ctx, fs, runner) = world();
    fs.deny(FILE);
    sudo(&runner, &fs);
    let file = Path::new(FILE);
    let before = fs.text(FILE).unwrap();
    assert!(set(&ctx, &runner, file, "s3www", &entries()).await.unwrap());
    assert!(fs.text(FILE).unwrap().contains("127.0.0.1 s3www.test\n"));
    let call = runner.calls().pop().unwrap();
    assert_eq!(call.stdin, b"127.0.0.1 s3www.test\n");
    assert!(call.line().ends_with("hosts write-block --env s3www --file /etc/hosts"), "{}", call.line());
    assert!(remove(&ctx, &runner, file, "s3www").await.unwrap());
    assert_eq!(fs.text(FILE).unwrap(), before);
}

#[tokio::test]
async fn the_password_is_asked_for_before_names_are_taken_out_and_only_then() {
    let (mut ctx, fs, runner) = world();
    fs.deny(FILE);
    runner.fails(&["sudo", "-n"], 1, "sudo: a password is required");
    runner.prints(&["sudo", "-v"], "");
    let asked = || runner.calls().iter().filter(|call| call.terminal).count();
    let names = ["s3www".to_owned()];
    for (interactive, text, times) in [
        (true, "127.0.0.1 localhost\n", 0),
        (false, "# devstack s3www begin\n", 0),
        (true, "# devstack s3www begin\n", 1),
    ] {
        ctx.options.interactive = interactive;
        fs.put(FILE, text, 0o644);
        unlock(&ctx, &runner, &names).await;
        assert_eq!(asked(), times, "{interactive} {text:?}");
    }
}

#[tokio::test]
async fn a_helper_that_changed_nothing_is_not_believed() {
    let (ctx, fs, runner) = world();
    fs.deny(FILE);
    runner.prints(&["sudo"], "");
    let error = set(&ctx, &runner, Path::new(FILE), "s3www", &entries()).await.unwrap_err();
    assert!(matches!(error, HostsError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn what_another_environment_writes_at_the_same_time_is_no_failure() {
    let (ctx, fs, runner) = world();
    fs.deny(FILE);
    runner.prints(&["sudo", "-n", "true"], "");
    let disk = fs.clone();
    runner.on(&["sudo", "-n", "--"], move |_| {
        let text = with_block(disk.text(FILE).unwrap().as_bytes(), "s3www", &entries());
        let other = ["127.0.0.1 other.test".parse().unwrap()];
        disk.put(FILE, with_block(&text, "other", &other), 0o644);
        Ok(crate::ports::runner::Output::default())
    });
    assert!(set(&ctx, &runner, Path::new(FILE), "s3www", &entries()).await.unwrap());
}

#[test]
fn environments_that_write_at_the_same_time_keep_each_others_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts");
    let before = "127.0.0.1 localhost\n# mine";
    std::fs::write(&file, before).unwrap();
    let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    ctx.fs = Arc::new(crate::ports::hostfs::RealFs);
    ctx.vars = crate::context::Vars::from([("DEVSTACK_HOSTS_FILE", file.to_str().unwrap())]);
    std::thread::scope(|scope| {
        for environment in ["a", "b", "c"] {
            let (ctx, file) = (&ctx, &file);
            scope.spawn(move || {
                let line = format!("127.0.0.1 {environment}.test\n");
                let entries: Vec<Entry> = vec![line.trim().parse().unwrap()];
                for _ in 0..20 {
                    assert!(write_block(ctx, file, environment, Some(&line), false).unwrap());
                    assert_eq!(state(&read(ctx, file).unwrap(), environment, &entries), State::Present);
                    assert!(write_block(ctx, file, environment, None, false).unwrap(), "{environment}: it was lost");
                }
            });
        }
    });
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
}

#[tokio::test]
async fn without_sudo_there_is_no_way() {
    let (ctx, fs, runner) = world();
    fs.deny(FILE);
    let file = Path::new(FILE);
    assert_eq!(access(&ctx, &runner, file).await, Access::Unavailable);
    runner.fails(&["sudo"], 1, "anna is not in the sudoers file.");
    assert_eq!(access(&ctx, &runner, file).await, Access::Unavailable);
    runner.fails(&["sudo"], 1, "sudo: a password is required");
    assert_eq!(access(&ctx, &runner, file).await, Access::Sudo { passwordless: false });
    let error = set(&ctx, &runner, file, "s3www", &entries()).await.unwrap_err();
    assert_eq!(error.exit(), ExitCode::Consent);
    assert_eq!(fs.writes(), 0);
    // Root privilege is never used for another file.
    fs.deny("/fake/hosts");
    runner.prints(&["sudo"], "");
    assert_eq!(access(&ctx, &runner, Path::new("/fake/hosts")).await, Access::Unavailable);
}

#[test]
fn the_helper_checks_everything_again() {
    let (mut ctx, fs, _) = world();
    fs.put("/fake/hosts", "", 0o644);
    let own = Path::new("/fake/hosts");
    let refused =
        |ctx: &Context, file: &Path, lines, elevated| write_block(ctx, file, "e", Some(lines), elevated).is_err();
    let good = "127.0.0.1 a.test\n";
    assert!(refused(&ctx, Path::new("/etc/passwd"), good, true));
    assert!(refused(&ctx, Path::new("/etc/../etc/hosts"), good, true));
    assert!(refused(&ctx, own, good, false));
    ctx.vars = crate::context::Vars::from([("DEVSTACK_HOSTS_FILE", "/fake/hosts")]);
    assert!(refused(&ctx, own, good, true));
    for bad in ["8.8.8.8 a.test\n", "127.0.0.1 example.com\n", "127.0.0.1 a.test\n\n", "# devstack f end\n"] {
        assert!(refused(&ctx, Path::new(FILE), bad, true), "{bad:?}");
    }
    assert_eq!(fs.writes(), 0);
    assert!(write_block(&ctx, own, "e", Some(good), false).unwrap());
    assert!(write_block(&ctx, Path::new(FILE), "e", Some(good), true).unwrap());
    assert!(!write_block(&ctx, Path::new(FILE), "f", None, true).unwrap());
}
