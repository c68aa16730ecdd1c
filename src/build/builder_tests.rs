use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::super::error::Unmet;
use super::super::needs::{host_platform, this_machine};
use super::super::prune::{Pruner, Scope};
use super::super::recipe::Id;
use super::super::recipes::Recipes;
use super::*;
use crate::context::{Dirs, Options, Vars};
use crate::event::EventSink;
use crate::oci::{ImageSpec, Layer, RunConfig, Source, assemble};
use crate::ports::runner::{Cmd, OnLine, Output as Ran, RunError};

/// A machine with Go: `go build` writes what it was called with into its output.
#[derive(Default)]
struct Machine {
    go: Option<&'static str>,
    /// A package that does not compile.
    broken: &'static str,
    /// A package whose build does not end.
    endless: &'static str,
    /// Told when that has begun.
    begun: tokio::sync::Notify,
    /// What the file of `go env -w` has.
    experiments: &'static str,
    builds: Mutex<Vec<String>>,
}

#[async_trait]
impl Runner for Machine {
    async fn stream(&self, cmd: &Cmd, _: OnLine<'_>) -> Result<Ran, RunError> {
        let words: Vec<String> = cmd.args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let Some(version) = self.go else { return Err(RunError::NotFound { program: "go".to_owned() }) };
        if words[0] == "version" {
            return Ok(Ran {
                stdout: format!("go version go{version} linux/amd64\n").into_bytes(),
                stderr: Vec::new(),
            });
        }
        if words[0] == "env" {
            return Ok(Ran { stdout: format!("{}\n", self.experiments).into_bytes(), stderr: Vec::new() });
        }
        let package = words.last().cloned().unwrap_or_default();
        if package == self.endless {
            self.begun.notify_one();
            std::future::pending::<()>().await;
        }
        if package == self.broken {
            return Err(RunError::Failed {
                line: cmd.line(),
                code: Some(1),
                signal: None,
                stdout: String::new(),
                stderr: "undefined: x".to_owned(),
            });
        }
        let (here, experiments) = (host_platform(), if self.experiments.is_empty() { "" } else { "," });
        for (name, value) in [
            ("GOFLAGS", "-mod=readonly"),
            ("GOOS", &here.os),
            ("GOARCH", &here.architecture),
            ("GOAMD64", "v1"),
            ("GOARM64", "v8.0"),
            ("GOFIPS140", "off"),
            ("GOEXPERIMENT", experiments),
            ("CGO_CFLAGS", ""),
        ] {
            let last = cmd.env.iter().rev().find(|(known, _)| known == name);
            assert_eq!(last.map(|(_, value)| value.as_os_str()), Some(value.as_ref()), "{name}");
        }
        assert!(cmd.cwd.as_ref().is_some_and(|dir| dir.join("go.sum").is_file()), "it runs beside go.sum");
        let output = words.iter().position(|word| word == "-o").map(|at| PathBuf::from(&words[at + 1])).unwrap();
        fs::write(output, &package).unwrap();
        self.builds.lock().unwrap().push(package);
        Ok(Ran::default())
    }
}

fn go(name: &str) -> String {
    let seconds = if name == "two" { 120 } else { 90 };
    format!(
        "apiVersion: devstack/v1\nkind: Recipe\nname: {name}\nversion: v1\nlicense: MIT\n\
         go: {{toolchain: '1.24', binaries: {{{name}: example.org/{name}}}}}\nexpect: {{seconds: {seconds}, bytes: 10}}\n"
    )
}

/// Two programs and an image of both.
fn recipes(module: &str) -> Recipes {
    let mut recipes = Recipes::default();
    for name in ["one", "two"] {
        let files = [("recipe.yaml", go(name)), ("go.mod", module.to_owned()), ("go.sum", String::new())];
        recipes.insert(name, files.map(|(path, text)| (path.to_owned(), text.into_bytes())).into()).unwrap();
    }
    let image = "apiVersion: devstack/v1\nkind: Recipe\nname: both\nversion: v1\nlicense: MIT\n\
                 layers: {files: [{to: /one, binary: one/one}, {to: /two, binary: two/two}]}\n";
    recipes.insert("both", BTreeMap::from([("image.yaml".to_owned(), image.as_bytes().to_vec())])).unwrap();
    recipes
}

fn machine(go: Option<&'static str>, broken: &'static str) -> Arc<Machine> {
    Arc::new(Machine { go, broken, ..Machine::default() })
}

fn context(dir: &Path) -> Context {
    let dirs = Dirs { state: dir.join("state"), cache: dir.join("cache"), home: dir.join("home") };
    Context::real(dirs, Vars::default(), EventSink::null(), Options::default())
}

fn builder(dir: &Path, machine: &Arc<Machine>, recipes: Recipes) -> Builder {
    Builder::with_recipes(&context(dir), machine.clone(), host_platform(), recipes).unwrap()
}

fn pruner(dir: &Path, recipes: Recipes) -> Result<Pruner, BuildError> {
    Pruner::with_recipes(&context(dir), machine(None, ""), host_platform(), recipes)
}

fn built(machine: &Machine) -> Vec<String> {
    let mut builds = machine.builds.lock().unwrap().clone();
    builds.sort();
    builds
}

/// Names below the builds of a cache, hidden ones included.
fn builds(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("cache").join("builds")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_image_is_built_once_with_all_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(Some("1.26.8"), "");
    let builder = builder(dir.path(), &machine, recipes("module x"));
    assert_eq!(builder.expected_seconds(&[Id::image("both")]).unwrap(), 210);
    let first = builder.image("both", "test").await.unwrap();
    assert_eq!(*machine.builds.lock().unwrap(), ["example.org/two", "example.org/one"], "the longest first");
    assert_eq!(built(&machine), ["example.org/one", "example.org/two"]);
    assert_eq!(builder.image("both", "test").await.unwrap(), first);
    assert_eq!(built(&machine).len(), 2, "the second time nothing runs");
    assert_eq!(builder.expected_seconds(&[Id::image("both")]).unwrap(), 0);
}

#[tokio::test]
async fn what_was_finished_before_a_failure_is_kept_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let failing = machine(Some("1.26.8"), "example.org/two");
    let error = builder(dir.path(), &failing, recipes("module x")).image("both", "test").await.unwrap_err();
    assert!(matches!(&error, BuildError::Tool { recipe, .. } if recipe == "two"), "{error:?}");
    let left = builds(dir.path());
    assert!(left.iter().all(|name| name.starts_with("one-")), "{left:?}");
    let working = machine(Some("1.26.8"), "");
    builder(dir.path(), &working, recipes("module x")).image("both", "test").await.unwrap();
    assert!(built(&working).len() + left.len() == 2, "the second run goes on where the first one stopped");
}

#[tokio::test]
async fn what_a_machine_lacks_is_said_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    for (go, lack, cure) in [
        (Some("1.21.3"), "Go 1.21.3 is older than 1.24", "install Go 1.24 or newer"),
        (None, "go is not installed", "install go: see https://go.dev/doc/install"),
    ] {
        let machine = machine(go, "");
        let builder = builder(dir.path(), &machine, recipes("module x"));
        let error = builder.image("both", "test").await.unwrap_err();
        assert_eq!(error.to_string(), format!("both (image) cannot be built here: {lack}"));
        assert_eq!(crate::error::Advise::hint(&error).unwrap(), cure);
        assert!(built(&machine).is_empty() && builds(dir.path()).is_empty());
    }
    let machine = machine(Some("1.26.8"), "");
    let mut other = builder(dir.path(), &machine, recipes("module x"));
    other.platform = Platform::linux("riscv64");
    let unmet = other.needs(&[Id::image("both")]).await.unwrap();
    assert!(matches!(unmet.as_slice(), [Unmet::Platform { .. }]), "{unmet:?}");
}

#[tokio::test]
async fn a_tool_from_a_bundle_needs_no_go() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let maker = builder(here.path(), &machine(Some("1.26.8"), ""), recipes("module x"));
    let image = maker.tool_image("one", "test").await.unwrap();
    let file = here.path().join("bundle");
    let go_on = tokio_util::sync::CancellationToken::new();
    crate::bundle::create(maker.store(), "x", &host_platform(), &[image], &file, &go_on).unwrap();

    let user = builder(there.path(), &machine(None, ""), recipes("module x"));
    assert!(!user.has_tool("one").unwrap());
    crate::bundle::load(user.store(), &file, &host_platform(), &go_on).unwrap();
    assert!(user.has_tool("one").unwrap());
    let tool = user.tool("one", "test").await.unwrap();
    assert_eq!(fs::read_to_string(&tool).unwrap(), "example.org/one");
    assert_eq!(user.tool("one", "test").await.unwrap(), tool);
}

#[tokio::test]
async fn a_tool_of_another_system_is_carried_on_and_not_run() {
    let dir = tempfile::tempdir().unwrap();
    // What a bundle brought, and an earlier devstack unpacked, on a machine of another system.
    let mut builder = builder(dir.path(), &machine(Some("1.26.8"), ""), recipes("module x"));
    builder.platform = Platform { os: "plan9".to_owned(), ..host_platform() };
    let (path, platform) = (dir.path().join("one"), builder.platform.clone());
    fs::write(&path, "a program").unwrap();
    let mut layer = Layer::new();
    layer.file("one", Source::File(path), 0o755).unwrap();
    let layers = vec![layer.store(&builder.store).unwrap()];
    let recipe = builder.recipes.get(&Id::parts("one")).unwrap();
    let (reference, place) = (builder.tool_reference(recipe).unwrap(), builder.place(recipe).unwrap());
    fs::create_dir_all(place.join("bin")).unwrap();
    fs::write(place.join("bin/one"), "a program").unwrap();
    let image = assemble(&builder.store, &ImageSpec { reference, platform, config: RunConfig::default(), layers });

    assert!(!builder.has_tool("one").unwrap());
    let error = builder.tool("one", "test").await.unwrap_err();
    let told = format!("one is made for {} only, and this is {}", builder.platform, this_machine());
    assert_eq!(error.to_string(), format!("one cannot be built here: {told}"));
    assert_eq!(crate::error::Advise::hint(&error).unwrap(), "install one and put it on PATH");
    assert_eq!(builder.tool_image("one", "test").await.unwrap(), image.unwrap());
}

#[tokio::test]
async fn pruning_takes_what_recipes_no_longer_lead_to_or_everything() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(Some("1.26.8"), "");
    builder(dir.path(), &machine, recipes("module old")).image("both", "test").await.unwrap();
    let new = builder(dir.path(), &machine, recipes("module new"));
    let image = new.image("both", "test").await.unwrap();
    new.store().tag("docker.io/library/pulled:1", &image.platform, &image.manifest).unwrap();
    drop(new);

    let pruned = pruner(dir.path(), recipes("module new")).unwrap().prune(Scope::Stale).unwrap();
    assert_eq!((pruned.images, pruned.builds), (1, 2));
    let new = builder(dir.path(), &machine, recipes("module new"));
    assert_eq!(new.image("both", "test").await.unwrap(), image);
    assert_eq!(new.store().references().unwrap().len(), 2);
    drop(new);

    let pruned = pruner(dir.path(), recipes("module new")).unwrap().prune(Scope::Everything).unwrap();
    assert_eq!((pruned.images, pruned.builds), (2, 2));
    assert!(pruned.bytes > image.size, "{pruned:?}");
    let store = Store::open(&dir.path().join("cache")).unwrap();
    assert!(builds(dir.path()).is_empty() && store.references().unwrap().is_empty());
    assert_eq!(store.prune_older_than(Duration::ZERO).unwrap().blobs, 0);
}

#[tokio::test]
async fn pruning_keeps_the_image_of_a_tool_until_its_recipe_changes() {
    let dir = tempfile::tempdir().unwrap();
    builder(dir.path(), &machine(Some("1.26.8"), ""), recipes("module x")).tool_image("one", "test").await.unwrap();
    // A bundle brings no more than the image.
    fs::remove_dir_all(dir.path().join("cache").join("builds")).unwrap();
    let pruned = pruner(dir.path(), recipes("module x")).unwrap().prune(Scope::Stale).unwrap();
    assert_eq!(pruned.images, 0);
    builder(dir.path(), &machine(None, ""), recipes("module x")).tool("one", "test").await.unwrap();
    let pruned = pruner(dir.path(), recipes("module y")).unwrap().prune(Scope::Stale).unwrap();
    assert_eq!((pruned.images, pruned.builds), (1, 1));
}

#[tokio::test]
async fn pruning_waits_for_nobody_and_takes_nothing_from_who_works() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Arc::new(Machine { go: Some("1.26.8"), endless: "example.org/two", ..Machine::default() });
    let busy = builder(dir.path(), &machine, recipes("module x"));
    // One works within the other, as a build does in an `up`.
    let inner = builder(dir.path(), &machine, recipes("module x"));
    let ids = [Id::parts("two")];
    let mut build = Box::pin(inner.build(&ids, "test"));
    tokio::select! {
        _ = &mut build => panic!("it does not end"),
        () = machine.begun.notified() => {}
    }
    let before = builds(dir.path());
    assert!(before.iter().any(|name| name.starts_with(".two-")), "{before:?}");
    let Err(error) = pruner(dir.path(), recipes("module x")) else { panic!("it prunes") };
    let cache = dir.path().join("cache");
    assert_eq!(error.to_string(), format!("another devstack works with the cache {}", cache.display()));
    let hint = crate::error::Advise::hint(&error).unwrap();
    assert!(hint.starts_with("run it again when it has ended"), "{hint}");
    assert_eq!(builds(dir.path()), before);
    drop(build);
    drop(inner);
    assert!(pruner(dir.path(), recipes("module x")).is_err(), "one is left");
    drop(busy);
    let pruner = pruner(dir.path(), recipes("module x")).unwrap();
    pruner.prune(Scope::Everything).unwrap();
}

#[tokio::test]
async fn a_build_that_was_interrupted_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let endless = Arc::new(Machine { go: Some("1.26.8"), endless: "example.org/two", ..Machine::default() });
    let interrupted = builder(dir.path(), &endless, recipes("module x"));
    let interrupt = async {
        endless.begun.notified().await;
        interrupted.ctx.cancel.cancel();
    };
    let (result, ()) = tokio::join!(interrupted.image("both", "test"), interrupt);
    assert!(matches!(result, Err(BuildError::Cancelled)), "{result:?}");
    let left = builds(dir.path());
    assert!(left.iter().all(|name| name.starts_with("one-")), "{left:?}");
    let working = machine(Some("1.26.8"), "");
    builder(dir.path(), &working, recipes("module x")).image("both", "test").await.unwrap();
    assert_eq!(built(&working).len() + left.len(), 2);
}

#[tokio::test]
async fn what_is_there_and_not_whole_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(Some("1.26.8"), "");
    let builder = builder(dir.path(), &machine, recipes("module x"));
    let id = Id::parts("one");
    let place = builder.place(builder.recipes.get(&id).unwrap()).unwrap();
    let binary = place.join("bin").join("one");
    let shapes: [fn(&Path); 3] = [
        // What was removed in part.
        |place| fs::remove_dir_all(place.join("bin")).unwrap(),
        // What a power cut leaves of a file that was not synced.
        |place| fs::write(place.join("bin").join("one"), "").unwrap(),
        |place| {
            fs::remove_dir_all(place).unwrap();
            fs::write(place, "no directory").unwrap();
        },
    ];
    builder.tool_image("one", "test").await.unwrap();
    for (count, shape) in shapes.iter().enumerate() {
        shape(&place);
        builder.build(std::slice::from_ref(&id), "test").await.unwrap();
        assert_eq!(fs::read_to_string(&binary).unwrap(), "example.org/one");
        assert_eq!(built(&machine).len(), count + 2);
    }
    for shape in shapes {
        shape(&place);
        assert_eq!(builder.tool("one", "test").await.unwrap(), binary, "from its image");
        assert_eq!(fs::read_to_string(&binary).unwrap(), "example.org/one");
    }
    assert_eq!(built(&machine).len(), 4);
    assert_eq!(builds(dir.path()), [place.file_name().unwrap().to_str().unwrap()], "nothing is left beside it");
}

#[tokio::test]
async fn who_was_slower_takes_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(Some("1.26.8"), "");
    let builder = builder(dir.path(), &machine, recipes("module x"));
    let id = Id::parts("one");
    let recipe = builder.recipes.get(&id).unwrap();
    let scratch = builder.scratch(recipe).unwrap();
    fs::write(scratch.dir("result/bin").unwrap().join("one"), "later").unwrap();
    builder.build(std::slice::from_ref(&id), "test").await.unwrap();
    let place = builder.keep(recipe, &scratch).await.unwrap();
    assert_eq!(fs::read_to_string(place.join("bin").join("one")).unwrap(), "example.org/one");
}

#[tokio::test]
async fn experiments_of_the_callers_go_are_none_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Arc::new(Machine { go: Some("1.26.8"), experiments: "fieldtrack", ..Machine::default() });
    // The machine looks at what it is called with.
    builder(dir.path(), &machine, recipes("module x")).image("both", "test").await.unwrap();
    assert_eq!(built(&machine).len(), 2);
}
