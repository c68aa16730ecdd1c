use super::*;
use crate::ports::fake::{FakeFs, Fault};

const FILE: &str = "/home/u/.kube/config";
const NAME: &str = "devstack-demo";

const OWN: &str = "apiVersion: v1\nkind: Config\ncurrent-context: kind-x\npreferences: {}\n\
    clusters:\n- name: kind-x\n  cluster:\n    server: https://127.0.0.1:4242\n    certificate-authority-data: Q0E=\n\
    contexts:\n- name: kind-x\n  context:\n    cluster: kind-x\n    user: admin\n\
    users:\n- name: admin\n  user:\n    client-key-data: S0VZ\n    token: \"yes\"\n";

const USERS_OWN_FILE: &str = "# mine, do not touch
apiVersion: v1
kind: Config
clusters:
# the office
- cluster:
    server: https://office.example:6443   # behind the VPN
    x-unknown: {a: 1}
  name: office
- name: lab
  cluster:
    server: https://lab.example

contexts:
  - context: {cluster: office, user: me, namespace: web}
    name: office
current-context: office
preferences: {}
users:
- name: me
  user:
    exec:
      args:
      - --token
      - |
        several
        lines
      command: login
x-mine:
  - 1
";

fn with(text: &str) -> FakeFs {
    let fs = FakeFs::default();
    fs.put(FILE, text, 0o640);
    fs
}

fn file() -> &'static Path {
    Path::new(FILE)
}

#[test]
fn a_file_of_a_person_keeps_every_byte() {
    let fs = with(USERS_OWN_FILE);
    assert_eq!(state(&fs, file(), NAME, OWN).unwrap(), State::Absent);
    assert!(add(&fs, file(), NAME, OWN).unwrap());
    assert!(!add(&fs, file(), NAME, OWN).unwrap());
    assert_eq!(state(&fs, file(), NAME, OWN).unwrap(), State::Present);
    assert_eq!(fs.mode(file()).unwrap(), Some(0o640));
    let text = fs.text(FILE).unwrap();
    insta::assert_snapshot!(text, @r#"
    # mine, do not touch
    apiVersion: v1
    kind: Config
    clusters:
    # the office
    - cluster:
        server: https://office.example:6443   # behind the VPN
        x-unknown: {a: 1}
      name: office
    - name: lab
      cluster:
        server: https://lab.example
    - cluster:
        certificate-authority-data: Q0E=
        server: https://127.0.0.1:4242
      name: devstack-demo

    contexts:
      - context: {cluster: office, user: me, namespace: web}
        name: office
      - context:
          cluster: devstack-demo
          user: devstack-demo
        name: devstack-demo
    current-context: office
    preferences: {}
    users:
    - name: me
      user:
        exec:
          args:
          - --token
          - |
            several
            lines
          command: login
    - name: devstack-demo
      user:
        client-key-data: S0VZ
        token: "yes"
    x-mine:
      - 1
    "#);
    assert!(remove(&fs, file(), NAME).unwrap());
    assert!(!remove(&fs, file(), NAME).unwrap());
    assert_eq!(fs.text(FILE).unwrap(), USERS_OWN_FILE);
}

#[test]
fn a_changed_item_is_brought_back() {
    let fs = with(USERS_OWN_FILE);
    add(&fs, file(), NAME, OWN).unwrap();
    let good = fs.text(FILE).unwrap();
    fs.put(FILE, good.replace("127.0.0.1:4242", "127.0.0.1:1"), 0o640);
    assert_eq!(state(&fs, file(), NAME, OWN).unwrap(), State::Differs);
    assert!(add(&fs, file(), NAME, OWN).unwrap());
    assert_eq!(fs.text(FILE).unwrap(), good);
}

#[test]
fn a_file_that_devstack_made_goes_with_its_last_context() {
    let fs = FakeFs::default();
    assert!(add(&fs, file(), NAME, OWN).unwrap());
    assert_eq!(fs.mode(file()).unwrap(), Some(0o600));
    insta::assert_snapshot!(fs.text(FILE).unwrap(), @r#"
    apiVersion: v1
    extensions:
    - extension: {}
      name: dev.devstack/made
    kind: Config
    clusters:
    - cluster:
        certificate-authority-data: Q0E=
        server: https://127.0.0.1:4242
      name: devstack-demo
    contexts:
    - context:
        cluster: devstack-demo
        user: devstack-demo
      name: devstack-demo
    users:
    - name: devstack-demo
      user:
        client-key-data: S0VZ
        token: "yes"
    "#);
    add(&fs, file(), "devstack-two", OWN).unwrap();
    assert!(contains(&fs, file(), NAME).unwrap());
    remove(&fs, file(), NAME).unwrap();
    assert!(!contains(&fs, file(), NAME).unwrap());
    remove(&fs, file(), "devstack-two").unwrap();
    assert_eq!(fs.snapshot(), std::collections::BTreeMap::new());
    assert_eq!(fs.list(Path::new("/home/u")).unwrap(), Vec::<String>::new());
}

#[test]
fn the_current_context_changes_only_with_its_end() {
    let fs = with("current-context: devstack-demo # chosen\nclusters: []\ncontexts: null\n");
    add(&fs, file(), NAME, OWN).unwrap();
    assert!(fs.text(FILE).unwrap().starts_with("current-context: devstack-demo # chosen\n"));
    remove(&fs, file(), NAME).unwrap();
    assert_eq!(fs.text(FILE).unwrap(), "current-context: \"\"\nclusters: []\ncontexts: []\nusers: []\n");
}

#[test]
fn every_style_of_yaml_keeps_its_content() {
    for text in [
        "",
        "\n# nothing\n",
        "{}",
        r#"{"clusters":[{"name":"a","cluster":{"server":"https://a"}}],"current-context":"a"}"#,
        "clusters: [{name: a, cluster: {server: \"https://a\"}}]\nusers:\n",
        "clusters:\n-\n  name: a\n  cluster: {server: https://a}\n",
        "clusters:\n  - name: a\n    cluster:\n      server: https://a\n# end",
        "clusters:\r\n- name: a\r\n  cluster:\r\n    server: https://a\r\n",
    ] {
        let fs = with(text);
        let (_, before) = load(&fs, file()).unwrap();
        add(&fs, file(), NAME, OWN).unwrap();
        assert_eq!(state(&fs, file(), NAME, OWN).unwrap(), State::Present, "{text:?}");
        remove(&fs, file(), NAME).unwrap();
        let (_, after) = load(&fs, file()).unwrap();
        assert_eq!(after["current-context"], before["current-context"], "{text:?}");
        let rest = |config: &Value| config["clusters"].as_array().cloned().unwrap_or_default();
        assert_eq!(rest(&after), rest(&before), "{text:?}");
    }
}

#[test]
fn what_is_no_kubeconfig_is_refused_with_its_place() {
    for (text, message) in [
        ("clusters:\n- name: [a\n", "/home/u/.kube/config:"),
        ("clusters: 3\n", "`clusters` is no list"),
        ("- a\n", "it is no mapping"),
        ("a: 1\n---\nb: 2\n", "several documents"),
        ("\u{0}\u{1}", "binary"),
    ] {
        let fs = with(text);
        for result in [add(&fs, file(), NAME, OWN), remove(&fs, file(), NAME), contains(&fs, file(), NAME)] {
            let chain = crate::error::chain(&result.unwrap_err());
            assert!(chain.contains(message), "{text:?}: {chain}");
        }
        assert_eq!((fs.text(FILE).unwrap().as_str(), fs.writes()), (text, 0));
    }
}

#[test]
fn links_are_followed_and_locks_respected() {
    let fs = FakeFs::default();
    fs.put("/dotfiles/kube", USERS_OWN_FILE, 0o600);
    fs.link(FILE, "/dotfiles/kube");
    let lock = "/dotfiles/kube.lock";
    fs.put(lock, "devstack 4294967294", 0o600);
    assert!(add(&fs, file(), NAME, OWN).unwrap(), "the lock of a dead devstack is no obstacle");
    assert_eq!(fs.resolve(file()).unwrap(), Path::new("/dotfiles/kube"));
    assert!(fs.text("/dotfiles/kube").unwrap().contains(NAME));
    assert_eq!(fs.text(lock), None);
    fs.put(lock, "", 0o000);
    let error = remove(&fs, file(), NAME).unwrap_err();
    assert!(matches!(error, KubeconfigError::Locked { .. }), "{error:?}");
    assert_eq!(fs.text(lock).as_deref(), Some(""));
}

#[test]
fn what_the_holder_of_the_lock_wrote_is_kept() {
    let fs = with(USERS_OWN_FILE);
    let lock = format!("{FILE}.lock");
    // kubectl's lock is empty.
    fs.put(&lock, "", 0o000);
    let other = fs.clone();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(LOCK_PAUSE * 4);
        other.put(FILE, USERS_OWN_FILE.replace("namespace: web", "namespace: shop"), 0o640);
        other.remove(Path::new(&lock)).unwrap();
    });
    assert!(add(&fs, file(), NAME, OWN).unwrap());
    holder.join().unwrap();
    let text = fs.text(FILE).unwrap();
    assert!(text.contains("namespace: shop") && text.contains(NAME), "{text}");
    assert_eq!(fs.text(format!("{FILE}.lock")), None);
}

#[test]
fn a_lock_that_nobody_may_read_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    std::fs::write(&file, USERS_OWN_FILE).unwrap();
    // Root may read everything; a directory, nobody.
    let lock = dir.path().join("config.lock");
    std::fs::create_dir(&lock).unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(LOCK_PAUSE * 4);
        std::fs::remove_dir(&lock).unwrap();
    });
    assert!(add(&crate::ports::hostfs::RealFs, &file, NAME, OWN).unwrap());
    holder.join().unwrap();
}

#[test]
fn a_full_disk_changes_nothing() {
    for nth in 0..3 {
        let fs = with(USERS_OWN_FILE);
        fs.break_at(nth, Fault::Full);
        let result = add(&fs, file(), NAME, OWN);
        let text = fs.text(FILE).unwrap();
        assert_eq!(result.is_ok(), text != USERS_OWN_FILE, "{nth}: {result:?}");
        fs.repair();
        add(&fs, file(), NAME, OWN).unwrap();
        assert_eq!(state(&fs, file(), NAME, OWN).unwrap(), State::Present);
    }
}
