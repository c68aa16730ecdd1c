//! Another cluster in the place of the environment's own, under the reserved name.

use crate::harness::{Foreign, World};

/// Somebody deletes the environment's cluster with kind, and makes another one of the same name: no verb touches it.
pub fn replaced(world: &World) {
    let stranger = Foreign::in_place_of(world);
    let (objects, machine) = (stranger.objects(), world.look());
    for verb in ["up", "status", "down"] {
        let ended = world.run(&[verb]).expect(1);
        let error = ended.last("error").to_string();
        assert!(error.contains("another cluster answers than the environment's own"), "{}", ended.story());
        assert!(error.contains(&stranger.uid()), "the other cluster is not named: {error}");
    }
    let difference = stranger.difference(&objects);
    assert!(difference.is_empty(), "the other cluster was changed: {difference:#?}");
    let difference = world.changed(&machine);
    assert!(difference.is_empty(), "{difference:#?}");
}
