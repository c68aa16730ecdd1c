//! A running environment whose profile changes: what differs is told, done in place where that is possible, and asked
//! for where data goes.

use std::path::Path;

use crate::harness::{Ended, Phases, Running, World, sha256};

/// A component of the user's own.
const COMPONENT: &str = "apiVersion: devstack/v1
kind: Component
name: notes
parameters: {text: {type: string, default: one}}
manifests: [{file: objects.yaml, wave: 0}]
";

/// Objects of it.
pub const CONFIG: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data: {text: \"${text}\"}
---
";

/// One more.
pub const MORE: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: more}
---
";

/// One that holds data.
pub const VOLUME: &str = "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
";

/// What a profile says that uses the component.
pub const USES: &str = "components: [{use: notes}]\n";

/// Writes a profile that extends `s3www`, and the component with these objects.
pub fn write(directory: &Path, component: &str, objects: &[&str]) {
    let notes = directory.join("components/notes");
    std::fs::create_dir_all(&notes).unwrap();
    std::fs::write(notes.join("component.yaml"), COMPONENT).unwrap();
    std::fs::write(notes.join("objects.yaml"), objects.concat()).unwrap();
    let profile = format!(
        "apiVersion: devstack/v1\nkind: Profile\nname: mine\nsummary: s3www and notes\nextends: s3www\n{component}"
    );
    std::fs::write(directory.join("devstack.yaml"), profile).unwrap();
}

#[test]
fn a_changed_profile_is_told_and_asks_where_data_goes() {
    let mut phases = Phases::of("change");
    let world = World::new("change");
    let directory = world.aside.join("mine");
    let profile = directory.display().to_string();
    write(&directory, USES, &[CONFIG, MORE, VOLUME]);
    phases.run("up with a component of the user's own", || world.up(&[&profile]));
    // Of the components: the cluster's own DNS server may still be on its way from one pod to the next.
    let pods =
        || world.kubectl(&["get", "pods", "-A", "-l", "dev.devstack.component", "-o=custom-columns=U:.metadata.uid"]);
    let before = pods();
    phases.run("a parameter changes in place", || {
        let ended = world.run(&["up", &profile, "--set", "notes.text=two", "--dry-run"]).expect(0);
        let setting = serde_json::json!([{"name": "notes.text", "before": null, "after": "two"}]);
        assert_eq!(ended.last("plan")["settings"], setting);
        let changes = ended.changes();
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].ends_with(r#"ConfigMap notes/notes differs: data.text is "one", not "two""#), "{changes:?}");
        world.up(&[&profile, "--set", "notes.text=two"]);
        assert_eq!(world.kubectl(&["get", "configmap", "-n", "notes", "notes", "-o=jsonpath={.data.text}"]), "two");
        assert_eq!(pods(), before, "a pod was made anew");
    });
    phases.run("what is never changed in place is told with its price", || {
        let seen = world.look();
        let refused = world.run(&["up", &profile, "--set", "minio.size=2Gi"]).expect(1);
        let error = refused.last("error").to_string();
        assert!(error.contains("spec.volumeClaimTemplates[0].spec.resources.requests.storage"), "{}", refused.story());
        assert!(error.contains("volume minio/data-minio-0 (1Gi)"), "{}", refused.story());
        assert_eq!(world.changed(&seen), Vec::<String>::new());
    });
    phases.run("an object that is asked for no more goes", || {
        write(&directory, USES, &[CONFIG, VOLUME]);
        let changes = world.dry_run(&[]);
        assert!(changes == ["prune remove 1 object ConfigMap notes/more is asked for no more"], "{changes:?}");
        world.up(&[]);
        let left = world.kubectl(&["get", "configmap", "-n", "notes", "-o=name"]);
        assert!(left.contains("configmap/notes") && !left.contains("configmap/more"), "{left}");
        assert_eq!(world.dry_run(&[]), Vec::<String>::new());
    });
    phases.run("data goes only with consent", || {
        write(&directory, "", &[CONFIG, VOLUME]);
        let seen = world.look();
        let refused = without_yes(&world, &[&profile]);
        assert!(refused.last("error").to_string().contains("volume notes/data (1Mi)"), "{}", refused.story());
        assert_eq!(world.changed(&seen), Vec::<String>::new());
        world.kubectl(&["get", "pvc", "-n", "notes", "data"]);
        let refused = without_yes(&world, &[&profile, "--nodes", "2"]);
        let plan = refused.last("plan")["changes"].to_string();
        assert!(plan.contains("volume minio/data-minio-0 ("), "{plan}");
        assert_eq!(world.changed(&seen), Vec::<String>::new());
    });
    phases.run("a component that is asked for no more goes", || {
        let ended = world.up(&[&profile]);
        assert!(ended.changes().iter().any(|change| change.starts_with("prune remove component notes, 3 objects")));
        let left = world.kubectl(&["get", "namespace", "-o=name"]);
        assert!(!left.contains("namespace/notes"), "{left}");
        assert_eq!(world.dry_run(&[]), Vec::<String>::new());
        assert_eq!(pods(), before, "a pod was made anew");
    });
    phases.run("what is on this machine is not looked for behind a proxy", || {
        let mut command = world.command(&["status"]);
        command.env("HTTPS_PROXY", "http://127.0.0.1:1").env_remove("NO_PROXY").env_remove("no_proxy");
        Running::start(command).end().expect(0);
    });
    phases.run("files of the user's own are found from any directory, and told when they change", || {
        let index = world.aside.join("site/index.html");
        std::fs::create_dir_all(index.parent().unwrap()).unwrap();
        std::fs::write(&index, "one").unwrap();
        let mut command = world.command(&["up", &profile, "--set", "site=./site"]);
        command.current_dir(&world.aside);
        world.check(&Running::start(command).end().expect(0));
        assert_eq!(world.dry_run(&[]), Vec::<String>::new());
        std::fs::write(&index, "two").unwrap();
        let changes = world.dry_run(&[]);
        assert!(changes.len() == 1 && changes[0].starts_with("content.site repair bucket site: 1 objects, 3 bytes "));
        let ended = world.up(&[]);
        assert_eq!(ended.last("result")["endpoints"][0]["sha256"], sha256(b"two"));
        // One file, and one that the server redirects to its directory.
        let ended = world.up(&["--set", &format!("site={}", index.display())]);
        assert_eq!(ended.last("result")["endpoints"][0]["sha256"], sha256(b"two"));
    });
    phases.run("down leaves nothing", || world.down());
    phases.end();
}

/// `up` by somebody who is not there to be asked: it is refused for want of consent.
fn without_yes(world: &World, args: &[&str]) -> Ended {
    let args = [&["up"], args, &["-o", "json", "--env", &world.env]].concat();
    Running::start(world.bare(&args)).end().expect(5)
}
