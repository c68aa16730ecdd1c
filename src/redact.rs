//! Keeps secrets out of everything that is printed or logged.

use std::sync::{Arc, PoisonError, RwLock};

/// Shorter values are not treated as secrets: they would blank out ordinary words.
const SHORTEST: usize = 6;

/// Knows the secret values of a run and replaces them in text. Clones share what they know.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Vec<String>>>);

impl Redactor {
    /// What stands where a secret was.
    pub const MASK: &'static str = "<redacted>";

    /// Remembers a secret value. Its form inside a JSON string and each of its lines count too.
    pub fn register(&self, secret: &str) {
        let escaped = serde_json::to_string(secret).unwrap_or_default();
        let escaped = escaped.get(1..escaped.len().saturating_sub(1)).unwrap_or_default();
        let forms = std::iter::once(secret).chain(std::iter::once(escaped)).chain(secret.lines());
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for form in forms.map(str::trim).filter(|form| form.len() >= SHORTEST) {
            if !known.iter().any(|other| other == form) {
                known.push(form.to_owned());
            }
        }
        // The longest first, or a secret that contains another one would be replaced in part only.
        known.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// The text without the secrets.
    pub fn apply(&self, text: &str) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = text.to_owned();
        for secret in known.iter() {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), Self::MASK);
            }
        }
        text
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_in_every_form() {
        let redactor = Redactor::default();
        redactor.register("hunter22");
        redactor.register("hunter22-and-more");
        redactor.register("with \"quotes\"");
        redactor.register("-----BEGIN KEY-----\nMIIabcdef\n-----END KEY-----");
        redactor.register("short");
        let shared = redactor.clone();
        assert_eq!(shared.apply("key=hunter22-and-more, hunter22"), "key=<redacted>, <redacted>");
        assert_eq!(shared.apply(r#"{"m":"with \"quotes\""}"#), r#"{"m":"<redacted>"}"#);
        assert_eq!(shared.apply("line MIIabcdef of it"), "line <redacted> of it");
        assert_eq!(shared.apply("a short word"), "a short word");
        assert!(!format!("{redactor:?}").contains("hunter"));
    }
}
