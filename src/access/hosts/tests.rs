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
async fn a_helper_that_changed_nothing_is_not_believed() {
    let (ctx, fs, runner) = world();
    fs.deny(FILE);
    runner.prints(&["sudo"], "");
    let error = set(&ctx, &runner, Path::new(FILE), "s3www", &entries()).await.unwrap_err();
    assert!(matches!(error, HostsError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn without_sudo_there_is_no_way() {
    let (mut ctx, fs, runner) = world();
    fs.deny(FILE);
    let file = Path::new(FILE);
    assert_eq!(access(&ctx, &runner, file).await, Access::Unavailable);
    runner.fails(&["sudo"], 1, "sudo: a password is required");
    assert_eq!(access(&ctx, &runner, file).await, Access::Unavailable);
    ctx.options.interactive = true;
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
