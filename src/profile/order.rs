//! Components in the order of their requirements.

use std::collections::{BTreeMap, BTreeSet};

/// Sorts names so that each comes after what it requires, otherwise in the order given.
///
/// # Errors
/// The names of a circle, its first one again at the end.
pub(super) fn sort(
    names: &[String],
    requires: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<String>, Vec<String>> {
    let mut done = Vec::with_capacity(names.len());
    let mut trail = Vec::new();
    for name in names {
        visit(name, requires, &mut done, &mut trail)?;
    }
    Ok(done)
}

fn visit(
    name: &str,
    requires: &BTreeMap<String, BTreeSet<String>>,
    done: &mut Vec<String>,
    trail: &mut Vec<String>,
) -> Result<(), Vec<String>> {
    if done.iter().any(|known| known == name) {
        return Ok(());
    }
    if let Some(start) = trail.iter().position(|known| known == name) {
        let mut circle = trail[start..].to_vec();
        circle.push(name.to_owned());
        return Err(circle);
    }
    trail.push(name.to_owned());
    for required in requires.get(name).into_iter().flatten() {
        visit(required, requires, done, trail)?;
    }
    trail.pop();
    done.push(name.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(edges: &[(&str, &[&str])]) -> Result<String, String> {
        let names: Vec<_> = edges.iter().map(|(name, _)| (*name).to_owned()).collect();
        let requires = edges
            .iter()
            .map(|(name, needs)| ((*name).to_owned(), needs.iter().map(|need| (*need).to_owned()).collect()))
            .collect();
        sort(&names, &requires).map(|names| names.join(" ")).map_err(|circle| circle.join(" → "))
    }

    #[test]
    fn requirements_come_first() {
        assert_eq!(sorted(&[("a", &["c"]), ("b", &[]), ("c", &["b"])]), Ok("b c a".to_owned()));
        assert_eq!(sorted(&[("b", &[]), ("a", &[])]), Ok("b a".to_owned()));
    }

    #[test]
    fn a_circle_is_named() {
        assert_eq!(sorted(&[("x", &["a"]), ("a", &["b"]), ("b", &["a"])]), Err("a → b → a".to_owned()));
        assert_eq!(sorted(&[("a", &["a"])]), Err("a → a".to_owned()));
    }
}
