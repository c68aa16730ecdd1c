//! Two environments of one profile side by side.

use crate::harness::{Ended, Phases, World, full, get, gif, sha256};

#[test]
fn two_environments_do_not_know_of_each_other() {
    if !full() {
        eprintln!("- two environments side by side: only in the full set");
        return;
    }
    let mut phases = Phases::of("sides");
    let (one, other) = (World::new("one"), World::new("other"));
    let ups = (phases.run("up one", || one.up(&[])), phases.run("up the other", || other.up(&[])));
    if let (Some(first), Some(second)) = &ups {
        phases.run("both serve, each under its own names", || {
            one.serves_the_gif(first);
            other.serves_the_gif(second);
            let (names, others) = (urls(first), urls(second));
            assert!(names.iter().all(|name| !others.contains(name)), "{names:?} {others:?}");
        });
    }
    phases.run("down one", || one.run(&["down"]).expect(0));
    if let Some(second) = &ups.1 {
        phases.run("the other still serves", || {
            for url in urls(second) {
                assert_eq!(get(&url, &other.hosts()).unwrap().sha256, sha256(&gif()), "{url}");
            }
        });
    }
    phases.run("down the other", || other.down());
    phases.end();
}

fn urls(ended: &Ended) -> Vec<String> {
    let endpoints = ended.last("result")["endpoints"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint["url"].as_str().unwrap().to_owned()).collect()
}
