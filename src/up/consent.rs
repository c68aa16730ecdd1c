//! What `up` asks before it does it.

use crate::cluster::registry;
use crate::error::Failure;
use crate::event::{Action, Change};
use crate::image::{Choice, Source};
use crate::plan::id;
use crate::up::names::Sudo;
use crate::up::{Gathered, choose};

/// A source build that takes longer than this, in seconds, is asked for.
const LONG_BUILD: u64 = 60;

/// How a person is asked: gets what needs consent, one line each; refuses with exit code 5.
pub type Ask<'a> = &'a (dyn Fn(Vec<String>) -> Result<(), Failure> + Sync);

/// What an `up` asks.
#[derive(Clone, Copy)]
pub struct Asks<'a> {
    /// For consent to what the plan does.
    pub consent: Ask<'a>,
    /// For the names in the hosts file, where only sudo may write it.
    pub sudo: Sudo<'a>,
}

/// Everything in a plan that needs consent (`design.md`, "Consent"): the first change to a cluster that devstack did not
/// make, a substitute for an upstream image, a long source build, the loss of data.
pub(super) fn reasons(gathered: &Gathered, changes: &[Change]) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(change) = changes.iter().find(|change| change.step == id::JOIN && change.action == Action::Adopt) {
        let mut made: Vec<String> =
            gathered.profile.components.iter().map(|component| component.namespace.clone()).collect();
        if changes.iter().any(|change| change.step == id::REGISTRY) {
            made.push(registry::namespace(&gathered.world.environment));
        }
        let used = change.why.as_deref().map(|why| format!("; {why}")).unwrap_or_default();
        reasons.push(format!(
            "{} is not devstack's own and gets the namespaces {}{used}",
            change.what,
            made.join(", ")
        ));
    }
    // What is on the nodes already was consented to when it got there.
    let fetched: Vec<_> = gathered.all_choices().filter(|choice| choice.source != Source::Nodes).collect();
    // So was what an earlier `up` recorded, whose nodes may be stopped now and tell nothing.
    let known = choose::recorded_choices(&gathered.world);
    let is_known =
        |choice: &Choice| known.iter().any(|known| known.role == choice.role && known.reference == choice.reference);
    reasons.extend(substitutes(fetched.iter().copied().filter(|choice| !is_known(choice))));
    reasons.extend(long_build(fetched.iter().copied()));
    for change in changes.iter().filter(|change| !change.loses.is_empty()) {
        let why = change.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        reasons.push(format!("{}{why}; lost for good: {}", change.what, change.loses.join(", ")));
    }
    reasons
}

/// What stands in for upstream's programs among some choices.
pub fn substitutes<'a>(choices: impl Iterator<Item = &'a Choice>) -> Vec<String> {
    let told = |choice: &Choice| {
        format!("{} is played by {}, which is not upstream's: {}", choice.role, choice.reference, choice.why)
    };
    choices.filter(|choice| choice.substitute).map(told).collect()
}

/// The source builds among some choices, where they take long.
pub fn long_build<'a>(choices: impl Iterator<Item = &'a Choice>) -> Option<String> {
    let builds: Vec<_> = choices.filter(|choice| matches!(choice.source, Source::Build { .. })).collect();
    let seconds: u64 = builds.iter().filter_map(|choice| choice.expect_seconds).sum();
    let names: Vec<&str> = builds.iter().map(|choice| choice.role.as_str()).collect();
    let (verb, minutes) = (if names.len() == 1 { "is" } else { "are" }, seconds.div_ceil(60));
    (seconds > LONG_BUILD).then(|| format!("{} {verb} built from source, about {minutes} minutes", names.join(", ")))
}
