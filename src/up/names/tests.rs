use std::sync::{Arc, Mutex};

use super::*;
use crate::event::{Event, EventSink};
use crate::journal::{Opened, Record};
use crate::ports::fake::FakeRunner;
use crate::up::machines::{decide, machines};

/// An ordinary user's laptop, where only sudo may write the hosts file.
struct Laptop {
    gathered: Gathered,
    journal: Journal,
    sudo: FakeRunner,
    told: Arc<Mutex<Vec<String>>>,
    _cache: tempfile::TempDir,
}

impl Laptop {
    async fn new(passwordless: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cache = tempfile::tempdir().unwrap();
        let (mut gathered, _) = decide(&machines()["linux-docker"], cache.path()).await.unwrap();
        let (sudo, told) = (FakeRunner::default(), Arc::new(Mutex::new(Vec::new())));
        gathered.world.runner = Arc::new(sudo.clone());
        let heard = told.clone();
        gathered.world.ctx.events = EventSink::new(move |event| {
            if let Event::Note { message } = event {
                heard.lock().unwrap().push(message);
            }
        });
        gathered.hosts = Access::Sudo { passwordless };
        let journal = Journal::open(&gathered.world.dir, gathered.world.ctx.fs.clone()).unwrap();
        Self { gathered, journal, sudo, told, _cache: cache }
    }

    /// What is done in the hosts file of what the plan wants there.
    async fn decide(&self, action: Action, sudo: Sudo<'_>) -> Result<Vec<String>, Failure> {
        let what = "/etc/hosts: + s3www.test".to_owned();
        let mut changes = vec![Change { step: id::HOSTS.to_owned(), action, what, why: None, loses: Vec::new() }];
        settle(&self.gathered, &self.journal, sudo, &mut changes);
        ask(&self.gathered, sudo, &mut changes).await?;
        Ok(changes.into_iter().map(|change| change.what).collect())
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    fn becomes_ready(&self) {
        self.journal.append(Record::Opened(Opened { version: 1, ..Opened::default() })).unwrap();
        self.journal.append(Record::Ready { at: String::new() }).unwrap();
    }
}

const NOTHING: Vec<String> = Vec::new();
const LEFT_OUT: &str = "left out: /etc/hosts: + s3www.test, with sudo; to have it, on a terminal, or where sudo \
                        needs no password: devstack up --env s3www --sudo";

fn no() -> Failure {
    Failure::new(ExitCode::Consent, "no")
}

#[tokio::test]
async fn sudo_asks_for_its_password_before_anything_is_changed() {
    let laptop = Laptop::new(false).await;
    laptop.sudo.prints(&["sudo"], "");
    let asked = Mutex::new(Vec::new());
    let yes = |what: Vec<String>| {
        assert_eq!(laptop.sudo.lines(), NOTHING);
        asked.lock().unwrap().extend(what);
        Ok(())
    };
    let done = laptop.decide(Action::Create, Sudo::Ask(&yes)).await.unwrap();
    assert_eq!((&done, done.len()), (&*asked.lock().unwrap(), 1));
    assert_eq!(done, ["/etc/hosts: + s3www.test, with sudo"]);
    assert_eq!(laptop.sudo.lines(), ["sudo -v", "sudo -n true"]);
    assert!(laptop.sudo.calls()[0].terminal && !laptop.sudo.calls()[1].terminal);
    assert_eq!(laptop.told(), NOTHING);
}

#[tokio::test]
async fn without_an_answer_or_a_password_the_names_are_left_out() {
    let laptop = Laptop::new(false).await;
    laptop.sudo.fails(&["sudo"], 1, "sudo: 3 incorrect password attempts");
    assert_eq!(laptop.decide(Action::Create, Sudo::Ask(&|_| Ok(()))).await.unwrap(), NOTHING);
    assert_eq!((laptop.sudo.lines().len(), laptop.told()), (1, vec![LEFT_OUT.to_owned()]));
    assert_eq!(laptop.decide(Action::Create, Sudo::Ask(&|_| Err(no()))).await.unwrap(), NOTHING);
    assert_eq!((laptop.sudo.lines().len(), laptop.told()), (1, vec![LEFT_OUT.to_owned()]));
    let interrupted = laptop.decide(Action::Create, Sudo::Ask(&|_| Err(Failure::interrupted(false)))).await;
    assert_eq!(interrupted.unwrap_err().exit, ExitCode::Interrupted);
    // A sudo that asks each time would ask in the middle.
    laptop.sudo.prints(&["sudo", "-v"], "");
    laptop.sudo.fails(&["sudo", "-n"], 1, "sudo: a password is required");
    assert_eq!(laptop.decide(Action::Create, Sudo::Ask(&|_| Ok(()))).await.unwrap(), NOTHING);
}

#[tokio::test]
async fn no_account_becomes_root_unasked() {
    let mut laptop = Laptop::new(true).await;
    assert_eq!(laptop.decide(Action::Create, Sudo::Nobody).await.unwrap(), NOTHING);
    assert_eq!(laptop.told(), [LEFT_OUT]);
    assert_eq!(laptop.decide(Action::Create, Sudo::Allowed).await.unwrap().len(), 1);
    assert_eq!(laptop.decide(Action::Leave, Sudo::Nobody).await.unwrap(), ["/etc/hosts: + s3www.test"]);
    assert_eq!((laptop.sudo.lines(), laptop.told()), (NOTHING, NOTHING));
    // Where the password can be typed it is asked for, and nothing else is.
    laptop.gathered.hosts = Access::Sudo { passwordless: false };
    laptop.sudo.prints(&["sudo"], "");
    assert_eq!(laptop.decide(Action::Create, Sudo::Allowed).await.unwrap().len(), 1);
    laptop.gathered.world.ctx.options.interactive = false;
    assert_eq!(laptop.decide(Action::Create, Sudo::Allowed).await.unwrap(), NOTHING);
    assert_eq!(laptop.told(), [LEFT_OUT]);
}

#[tokio::test]
async fn who_went_without_the_names_is_asked_no_more() {
    let laptop = Laptop::new(true).await;
    laptop.becomes_ready();
    let never = |_: Vec<String>| -> Result<(), Failure> { panic!("asked once more") };
    assert_eq!(laptop.decide(Action::Create, Sudo::Ask(&never)).await.unwrap(), NOTHING);
    assert_eq!(laptop.decide(Action::Create, Sudo::Nobody).await.unwrap(), NOTHING);
    assert_eq!(laptop.told(), NOTHING);
    assert_eq!(laptop.decide(Action::Create, Sudo::Allowed).await.unwrap().len(), 1);
    assert_eq!(laptop.told(), [] as [&str; 0]);
    // Who had them is.
    assert_eq!(laptop.decide(Action::Repair, Sudo::Ask(&|_| Ok(()))).await.unwrap().len(), 1);
    laptop.journal.append(Record::Done { step: id::HOSTS.to_owned(), outputs: serde_json::Value::Null }).unwrap();
    assert_eq!(laptop.decide(Action::Create, Sudo::Ask(&|_| Ok(()))).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_of_ones_own_takes_no_question_and_one_out_of_reach_gets_no_names() {
    let mut laptop = Laptop::new(true).await;
    for (access, names) in [(Access::Direct, 1), (Access::Unavailable, 0)] {
        laptop.gathered.hosts = access;
        assert_eq!(laptop.decide(Action::Create, Sudo::Nobody).await.unwrap().len(), names, "{access:?}");
    }
    assert_eq!((laptop.sudo.lines(), laptop.told()), (NOTHING, NOTHING));
}
