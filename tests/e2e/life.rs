//! One environment on one node: made, proven, left alone, damaged in every way, repaired, taken down.

use std::cell::RefCell;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use crate::harness::{Ended, Phases, Running, World, docker, output, tell};
use crate::replaced::replaced;

#[test]
fn an_environment_lives_through_everything() {
    let mut phases = Phases::of("life");
    let world = World::new("life");
    // Somebody else has the ports that everybody wants.
    let taken: Vec<TcpListener> =
        [80, 8080].iter().filter_map(|port| TcpListener::bind(("127.0.0.1", *port)).ok()).collect();
    let cold = phases.run("up from nothing, on other ports, one devstack at a time", || first(&world));
    drop(taken);
    let Some(cold) = cold else {
        phases.run("down", || world.down());
        return phases.end();
    };
    phases.run("status", || status_is(&world, "ready"));
    phases.run("env and kubeconfig", || account(&world));
    phases.run("the bucket is private and s3www can only read", || private(&world));
    phases.run("a Service that is not there is refused", || refused(&world));
    phases.run("a node may read every claim of a volume, and no other's Secret", || claims(&world));
    phases.run("up again changes nothing", || no_op(&world));
    drifts(&world, &mut phases);
    let repair = phases.run("a stopped node", || stopped(&world));
    let again = phases.run("a removed cluster", || removed(&world));
    phases.run("another cluster under the reserved name is refused", || replaced(&world));
    phases.run("down leaves nothing", || eprintln!("    down {:.1} s", world.down().seconds));
    let seconds = |ended: &Option<Ended>| ended.as_ref().map_or(f64::NAN, |ended| ended.seconds);
    tell(&format!(
        "measured: cold up {:.1} s, stopped node {:.1} s, removed cluster {:.1} s",
        cold.seconds,
        seconds(&repair),
        seconds(&again)
    ));
    phases.end();
}

fn first(world: &World) -> Ended {
    assert!(!world.dry_run(&[]).is_empty(), "a dry run of everything has no change");
    let mut running = world.start(&["up"]);
    assert!(running.until(|event| event["type"] == "step-started"), "no step was begun");
    for verb in ["up", "down"] {
        let refused = world.run(&[verb]).expect(1);
        let message = refused.last("error")["message"].as_str().unwrap().to_owned();
        let holder = running.id().to_string();
        assert!(refused.last("error").to_string().contains(&holder), "the holder {holder} is not named: {message}");
    }
    let ended = running.end().expect(0);
    world.check(&ended);
    world.serves_the_gif(&ended);
    for endpoint in ended.last("result")["endpoints"].as_array().unwrap() {
        let url = endpoint["url"].as_str().unwrap();
        assert!(!url.contains(".localhost/") && !url.contains(":8080"), "{url} is somebody else's port");
        eprintln!("    {url}");
    }
    eprintln!("    up {:.1} s, at most {:.1} MiB", ended.seconds, ended.peak_kib as f64 / 1024.0);
    ended
}

/// What nothing leads anywhere must not leave the node, neither from it nor from a pod: a stranger may answer.
fn refused(world: &World) {
    let ask = "curl -s -m 5 http://10.96.255.254:9000/";
    let pod = format!("ip netns exec $(ip netns list | head -n 1 | cut -d ' ' -f 1) {ask}");
    for ask in [ask, &pod] {
        let told = docker(&["exec", &world.node(), "sh", "-c", &format!("{ask}; echo $?")]);
        assert_eq!(told.trim(), "7", "`{ask}` did not fail to connect");
    }
}

/// The API server's authorizer of nodes alone refuses what it does not know the node to need.
fn claims(world: &World) {
    for (resource, answer) in [("persistentvolumeclaims", "yes"), ("secrets", "no")] {
        // It ends with 1 where the answer is no.
        let ask = format!(
            "kubectl --kubeconfig /etc/kubernetes/admin.conf auth can-i get {resource} -n default \
             --as system:node:another --as-group system:nodes || true"
        );
        let told = docker(&["exec", &world.node(), "sh", "-c", &ask]);
        // What follows a no is the reason.
        assert_eq!(told.split_whitespace().next(), Some(answer), "{resource}: {told}");
    }
}

/// The environment's state as `status` tells it; gives everything that it says.
#[track_caller]
fn status_is(world: &World, state: &str) -> Value {
    let ended = world.run(&["status"]).expect(i32::from(state != "ready"));
    let status = ended.last("status").clone();
    assert_eq!(status["state"], state, "{status}");
    status
}

fn account(world: &World) {
    let text = output(&mut world.bare(&["env", "--env", &world.env]));
    let file =
        text.lines().find_map(|line| line.strip_prefix("export KUBECONFIG=")).unwrap_or_else(|| panic!("{text}"));
    let nodes = output(
        Command::new("sh")
            .args(["-c", "eval \"$1\"; kubectl get nodes -o name", "sh", &text])
            .env("HOME", world.aside.join("home")),
    );
    assert_eq!(nodes.trim(), format!("node/{}", world.node()), "with {file}");
    let mut kubectl = Command::new("kubectl");
    let current = output(kubectl.env("KUBECONFIG", world.kubeconfig()).args(["config", "current-context"]));
    assert_eq!(current.trim(), "work");
    world.kubectl(&["get", "namespaces"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(world.kubeconfig()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// Says what each of several requests to the object store came to, from a pod beside it.
const REQUESTS: &str = r#"
try() { name=$1; shift; if "$@" >/tmp/out 2>&1; then echo "$name done"; else echo "$name refused"; fi; }
try anonymous-list mc ls anonymous/site
try anonymous-read mc cat anonymous/site/site.gif
try list mc ls reader/site
try read mc cat reader/site/site.gif
try write mc cp /etc/passwd reader/site/passwd
try remove mc rm reader/site/site.gif
try make-bucket mc mb reader/other
try list-other mc ls reader/private
try users mc admin user list reader
echo end
"#;

fn private(world: &World) {
    let secret = |name: &str, namespace: &str, key: &str| {
        let path = format!("-o=go-template={{{{index .data \"{key}\" | base64decode}}}}");
        world.kubectl(&["-n", namespace, "get", "secret", name, &path])
    };
    let (root, root_key) = (secret("minio-root", "minio", "username"), secret("minio-root", "minio", "password"));
    let (reader, reader_key) =
        (secret("s3www-reader", "s3www", "username"), secret("s3www-reader", "s3www", "password"));
    assert_ne!((&root, &root_key), (&reader, &reader_key));
    // Whatever the pod can see: its specification, its Secrets, its processes' environment and arguments.
    let mut pod = world.kubectl(&["-n", "s3www", "get", "pods,secrets,configmaps", "-o", "json"]);
    let named = "labels.\"io.kubernetes.container.name\"==s3www";
    let id = world.in_node(&["ctr", "-n", "k8s.io", "containers", "ls", "-q", named]);
    let tasks = world.in_node(&["ctr", "-n", "k8s.io", "tasks", "ls"]);
    let process =
        tasks.lines().find(|line| line.starts_with(id.trim())).and_then(|line| line.split_whitespace().nth(1));
    let process = process.unwrap_or_else(|| panic!("{id} runs in none of {tasks}"));
    for file in ["environ", "cmdline"] {
        pod.push_str(&world.in_node(&["cat", &format!("/proc/{process}/{file}")]));
    }
    for value in [&root_key, &BASE64_STANDARD.encode(&root_key)] {
        assert!(!pod.contains(value.as_str()), "s3www's pod can see the root key");
    }
    let image = world.kubectl(&[
        "-n",
        "minio",
        "get",
        "jobs",
        "-o=jsonpath={.items[0].spec.template.spec.containers[0].image}",
    ]);
    // A bucket that is not the reader's, so that a refusal is not just an absence.
    let script = format!("mc mb -q root/private >/dev/null\n{REQUESTS}");
    let host = |user: &str, key: &str| format!("http://{user}:{key}@minio.minio:9000");
    // Not attached: what a short-lived pod said before the connection stood would be lost.
    world.kubectl(&[
        "-n",
        "minio",
        "run",
        "requests",
        "--restart=Never",
        "--image-pull-policy=Never",
        "--image",
        &image,
        "--env",
        &format!("MC_HOST_root={}", host(&root, &root_key)),
        "--env",
        &format!("MC_HOST_reader={}", host(&reader, &reader_key)),
        "--env",
        "MC_HOST_anonymous=http://minio.minio:9000",
        "--env",
        "HOME=/tmp",
        "--env",
        "MC_CONFIG_DIR=/tmp/mc",
        "--command",
        "--",
        "/bin/sh",
        "-c",
        &script,
    ]);
    world.kubectl(&[
        "-n",
        "minio",
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/requests",
        "--timeout=120s",
    ]);
    let answers = world.kubectl(&["-n", "minio", "logs", "requests"]);
    world.kubectl(&["-n", "minio", "delete", "pod", "requests", "--now"]);
    let answers: Vec<&str> = answers.lines().map(str::trim).collect();
    assert_eq!(
        answers,
        [
            "anonymous-list refused",
            "anonymous-read refused",
            "list done",
            "read done",
            "write refused",
            "remove refused",
            "make-bucket refused",
            "list-other refused",
            "users refused",
            "end",
        ]
    );
}

/// Identity and version of everything that devstack applied: what a person changes shows in the generation, or, of
/// things that no controller writes to, in the resource version.
fn objects(world: &World) -> String {
    let columns = |version: &str| {
        format!(
            "-o=custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,U:.metadata.uid,V:.metadata.{version}"
        )
    };
    let written = "deployments,daemonsets,statefulsets,jobs,customresourcedefinitions";
    let plain = "namespaces,secrets,configmaps,services,ingresses,serviceaccounts,clusterroles,clusterrolebindings";
    let mut all = world.kubectl(&["get", written, "-A", &columns("generation")]);
    all.push_str(&world.kubectl(&["get", plain, "-A", &columns("resourceVersion")]));
    // The service account controllers and leaders write to these all the time.
    all.lines().filter(|line| !line.contains("kube-system")).collect::<Vec<_>>().join("\n")
}

fn no_op(world: &World) {
    let (before, machine) = (objects(world), world.look());
    let journal = world.state().join("environments").join(&world.env).join("journal.jsonl");
    let recorded = std::fs::read(&journal).unwrap();
    let ended = world.up(&[]);
    world.serves_the_gif(&ended);
    assert_eq!(ended.changes(), Vec::<String>::new());
    let changed: Vec<&Value> = ended.lines.iter().filter(|line| line["changed"] == true).collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_eq!(before, objects(world));
    assert_eq!(recorded, std::fs::read(&journal).unwrap(), "the journal grew");
    let difference = world.changed(&machine);
    assert!(difference.is_empty(), "{difference:#?}");
    assert_eq!(world.dry_run(&[]), Vec::<String>::new());
    let best = (0..3).map(|_| world.up(&[]).seconds).fold(f64::INFINITY, f64::min);
    eprintln!("    no-op up {best:.2} s");
}

fn drifts(world: &World, phases: &mut Phases) {
    let damage = |what: &str, step: &'static str, named: String, break_it: &dyn Fn(), phases: &mut Phases| {
        phases.run(what, || {
            break_it();
            let status = catch_unwind(AssertUnwindSafe(|| status_is(world, "degraded")));
            // The repair comes before the verdict on what was told of it, so that the next damage finds a whole world.
            let told = catch_unwind(AssertUnwindSafe(|| world.dry_run(&[])));
            let doctor = world.run(&["doctor"]);
            let ended = world.up(&[]);
            world.serves_the_gif(&ended);
            let changes = told.unwrap_or_else(|panic| resume_unwind(panic));
            let found = changes.iter().any(|change| change.starts_with(step) && change.contains(&named));
            assert!(found, "the dry run did not name {named} of {step}: {changes:#?}");
            let status = status.unwrap_or_else(|panic| resume_unwind(panic));
            assert!(status.to_string().contains(&named), "status does not name {named}: {status}");
            let findings = doctor.expect(3).last("result")["findings"].to_string();
            assert!(findings.contains(&named), "doctor does not name {named}: {findings}");
            assert_eq!(world.dry_run(&[]), Vec::<String>::new(), "after the repair");
            status_is(world, "ready");
            eprintln!("    repaired in {:.1} s", ended.seconds);
        });
    };
    let kubectl = |args: &[&str]| drop(world.kubectl(args));
    damage(
        "a deleted Deployment",
        "s3www",
        "s3www".to_owned(),
        &|| kubectl(&["-n", "s3www", "delete", "deployment", "s3www", "--wait", "--cascade=foreground"]),
        phases,
    );
    damage(
        "a deleted Secret",
        "minio",
        "minio-root".to_owned(),
        &|| kubectl(&["-n", "minio", "delete", "secret", "minio-root"]),
        phases,
    );
    damage(
        "a deleted namespace",
        "s3www",
        "s3www".to_owned(),
        &|| kubectl(&["delete", "namespace", "s3www", "--wait"]),
        phases,
    );
    damage(
        "a changed Deployment",
        "s3www",
        "s3www".to_owned(),
        &|| {
            kubectl(&["-n", "s3www", "scale", "deployment", "s3www", "--replicas=0"]);
            // Until the controller has seen it, it still serves, and a status may say so.
            kubectl(&["-n", "s3www", "rollout", "status", "deployment", "s3www", "--timeout=60s"]);
        },
        phases,
    );
    let hosts = world.hosts();
    let original = b"#127.0.0.1 s3www.test".as_slice();
    damage(
        "a removed hosts block",
        "hosts",
        ".test".to_owned(),
        &|| {
            let text = std::fs::read(&hosts).unwrap();
            let end = text.windows(original.len()).position(|window| window == original).unwrap() + original.len();
            assert!(end < text.len(), "there is no block");
            std::fs::write(&hosts, &text[..end]).unwrap();
        },
        phases,
    );
    damage(
        "an edited hosts block",
        "hosts",
        ".test".to_owned(),
        &|| {
            let text = std::fs::read(&hosts).unwrap();
            let at = text.windows(original.len()).position(|window| window == original).unwrap() + original.len();
            let block = String::from_utf8(text[at..].to_vec()).unwrap();
            let edited_line = format!("127.9.9.9 s3www.{}.test", world.env);
            let edited = block
                .lines()
                .map(|line| if line.contains(".test") && !line.starts_with('#') { edited_line.as_str() } else { line });
            let edited = edited.collect::<Vec<_>>().join("\n") + "\n";
            std::fs::write(&hosts, [&text[..at], edited.as_bytes()].concat()).unwrap();
        },
        phases,
    );
    let config = world.kubeconfig();
    let context = world.name();
    let recorded = RefCell::new(Vec::new());
    damage(
        "a lost kubeconfig context",
        "kube-context",
        context.clone(),
        &|| {
            *recorded.borrow_mut() = std::fs::read(&config).unwrap();
            for kind in ["delete-context", "delete-cluster", "delete-user"] {
                output(Command::new("kubectl").env("KUBECONFIG", &config).args(["config", kind, &context]));
            }
        },
        phases,
    );
    // kubectl wrote the file in its own way; what was there is put back, so that its bytes can be compared at the end.
    if !recorded.borrow().is_empty() {
        std::fs::write(&config, &*recorded.borrow()).unwrap();
    }
    let path = "-o=jsonpath={.spec.template.spec.containers[0].image}";
    let image =
        phases.run("the image of s3www", || world.kubectl(&["-n", "s3www", "get", "deployment", "s3www", path]));
    if let Some(image) = image {
        let take = || drop(world.in_node(&["ctr", "-n", "k8s.io", "images", "rm", "--sync", &image]));
        let named = image.rsplit('/').next().unwrap().to_owned();
        damage("an image taken from the node", "load", named, &take, phases);
    }
}

fn stopped(world: &World) -> Ended {
    docker(&["stop", "-t", "1", &world.node()]);
    let status = status_is(world, "degraded");
    assert_eq!(status["nodes"][0]["state"], "exited", "{status}");
    let changes = world.dry_run(&[]);
    assert!(
        changes.iter().any(|change| change.starts_with("cluster") && change.contains(&world.node())),
        "{changes:#?}"
    );
    // Nothing is asked again that was agreed to when it was made, though nodes that are stopped do not tell.
    let ended = Running::start(world.bare(&["up", "-o", "json", "--env", &world.env])).end().expect(0);
    world.check(&ended);
    world.serves_the_gif(&ended);
    status_is(world, "ready");
    ended
}

fn removed(world: &World) -> Ended {
    docker(&["rm", "-fv", &world.node()]);
    status_is(world, "degraded");
    let changes = world.dry_run(&[]);
    assert!(changes.iter().any(|change| change.starts_with("cluster create")), "{changes:#?}");
    let ended = world.up(&[]);
    world.serves_the_gif(&ended);
    let text = String::from_utf8_lossy(&std::fs::read(Path::new(&world.kubeconfig())).unwrap()).into_owned();
    assert!(text.contains("current-context: work"), "{text}");
    ended
}
