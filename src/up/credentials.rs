//! The credentials of an environment, and everything else that must not be shown.

use std::collections::BTreeMap;

use crate::context::Context;
use crate::error::Failure;
use crate::profile::{Resolved, Scope};
use crate::secrets::{self, Credential};
use crate::up::Gathered;

/// What a dry run has in the place of credentials that are yet to be made.
const LATER: &str = "made-by-up";

/// Has the profile's secrets replaced in everything that is printed or logged.
pub(super) fn hide(ctx: &Context, profile: &Resolved, scope: &Scope) {
    profile.secrets(scope).iter().filter(|secret| *secret != LATER).for_each(|secret| ctx.redactor.register(secret));
}

impl Gathered {
    /// The credentials of the profile, generated where they are not there yet.
    ///
    /// # Errors
    /// What the file system said.
    pub fn credentials(&self, ctx: &Context) -> Result<BTreeMap<String, Credential>, Failure> {
        let names = self.profile.components.iter().flat_map(|component| component.credentials.iter().cloned());
        let credentials = secrets::ensure(&*ctx.fs, &self.world.dir.join("secrets.json"), names)?;
        for credential in credentials.values() {
            ctx.redactor.register(&credential.password);
        }
        Ok(credentials)
    }

    /// The credentials that are there already; a dry run makes none, and has something in their place that shows what
    /// is made with them.
    ///
    /// # Errors
    /// What the file system said.
    pub fn known_credentials(&self, ctx: &Context) -> Result<BTreeMap<String, Credential>, Failure> {
        let mut known = secrets::read(&*ctx.fs, &self.world.dir.join("secrets.json"))?;
        known.values().for_each(|credential| ctx.redactor.register(&credential.password));
        for name in self.profile.components.iter().flat_map(|component| &component.credentials) {
            let later = || Credential { username: LATER.to_owned(), password: LATER.to_owned() };
            known.entry(name.clone()).or_insert_with(later);
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;
    use crate::up::machines::{decide, machines};

    #[tokio::test]
    async fn a_look_knows_the_passwords_of_the_environment_too() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cache = tempfile::tempdir().unwrap();
        let (gathered, _) = decide(&machines()["linux-docker"], cache.path()).await.unwrap();
        let ctx = gathered.world.ctx.clone();
        let password = gathered.credentials(&ctx).unwrap()["minio.root"].password.clone();
        let fresh = Context { redactor: Redactor::default(), ..ctx };
        let known = gathered.known_credentials(&fresh).unwrap();
        assert_eq!(known["minio.root"].password, password);
        assert_eq!(fresh.redactor.apply(&password), "<redacted>");
        assert_eq!(fresh.redactor.apply(LATER), LATER);
    }
}
