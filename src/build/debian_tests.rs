use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::sync::Arc;

use super::super::needs::host_platform;
use super::super::recipe::{Id, Kind};
use super::super::recipes::Recipes;
use super::*;
use crate::context::{Context, Dirs, Options, Vars};
use crate::event::EventSink;
use crate::ports::fake::FakeRunner;
use crate::ports::runner::Output as Ran;

/// A machine with apt, on which files belong to whoever unpacks them: never to root.
fn machine() -> FakeRunner {
    let runner = FakeRunner::default();
    runner.on(&["apt-get", "download"], |cmd| {
        fs::write(cmd.cwd.as_ref().unwrap().join("busybox-static.deb"), "").unwrap();
        Ok(Ran::default())
    });
    runner.on(&["dpkg-deb", "-x"], |cmd| {
        let bin = PathBuf::from(&cmd.args[2]).join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("busybox"), "a program").unwrap();
        fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() {
            for path in [bin.join("busybox"), bin] {
                chown(path, Some(1000), Some(100)).unwrap();
            }
        }
        Ok(Ran::default())
    });
    runner.prints(&["dpkg-deb", "-W"], "busybox-static 1:1.35.0-4\n");
    runner
}

fn builder(dir: &Path, runner: &FakeRunner) -> Builder {
    let recipe = "apiVersion: devstack/v1\nkind: Recipe\nname: busybox\nversion: bookworm\nlicense: GPL-2.0-only\n\
                  debian: {packages: [busybox-static], links: {bin/sh: busybox}}\n";
    let mut recipes = Recipes::default();
    recipes.insert("busybox", [("recipe.yaml".to_owned(), recipe.as_bytes().to_vec())].into()).unwrap();
    let dirs = Dirs { state: dir.join("state"), cache: dir.join("cache"), home: dir.join("home") };
    let ctx = Context::real(dirs, Vars::default(), EventSink::null(), Options::default());
    Builder::with_recipes(&ctx, Arc::new(runner.clone()), host_platform(), recipes).unwrap()
}

async fn layer(builder: &Builder) -> Descriptor {
    let recipe = builder.recipes.get(&Id::parts("busybox")).unwrap();
    let Kind::Debian(debian) = &recipe.kind else { panic!("it is a Debian recipe") };
    match build(builder, recipe, debian).await.unwrap() {
        Output::Layer(layer) => layer,
        other => panic!("it gives a layer, not {other:?}"),
    }
}

#[tokio::test]
async fn what_is_only_unpacked_belongs_to_root_whoever_unpacks_it() {
    let dir = tempfile::tempdir().unwrap();
    let builder = builder(dir.path(), &machine());
    let layer = layer(&builder).await;
    let file = fs::File::open(builder.store.blob_path(&layer.digest)).unwrap();
    let seen: Vec<String> = tar::Archive::new(file)
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let (uid, gid, mode) = (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap());
            format!("{uid}:{gid} {mode:o} {}", entry.path().unwrap().display())
        })
        .collect();
    assert_eq!(seen, ["0:0 755 bin/", "0:0 755 bin/busybox", "0:0 777 bin/sh"]);
}

#[tokio::test]
async fn a_layer_that_is_lost_or_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let runner = machine();
    let builder = builder(dir.path(), &runner);
    let recipe = builder.recipes.get(&Id::parts("busybox")).unwrap();
    let first = layer(&builder).await;
    let blob = builder.store.blob_path(&first.digest);
    let whole = fs::read(&blob).unwrap();
    let damages: [fn(&Path); 2] = [|blob| fs::write(blob, "short").unwrap(), |blob| fs::remove_file(blob).unwrap()];
    for damage in damages {
        assert_eq!(builder.present(recipe).unwrap(), Some(Output::Layer(first.clone())));
        damage(&blob);
        assert_eq!(builder.present(recipe).unwrap(), None);
        assert_eq!(layer(&builder).await, first, "the same packages give the same bytes");
        assert_eq!(fs::read(&blob).unwrap(), whole);
    }
    assert_eq!(packages(&builder.place(recipe).unwrap())["busybox-static"], "1:1.35.0-4");
}
