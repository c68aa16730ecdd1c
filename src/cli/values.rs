//! Values of flags that need more than a type: durations and environment names.

use std::time::Duration;

/// The longest name of an environment, so that `devstack-NAME-control-plane` stays a host name.
const LONGEST_NAME: usize = 32;

/// The longest `--timeout`.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A name that can be part of host names, container names and labels: an RFC 1123 label of at most 32 characters.
///
/// # Errors
/// What is wrong with it.
pub fn environment_name(text: &str) -> Result<String, String> {
    let edge = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    if text.is_empty() {
        return Err("a name has at least one character".to_owned());
    }
    if text.chars().count() > LONGEST_NAME {
        return Err(format!("a name has at most {LONGEST_NAME} characters"));
    }
    if let Some(wrong) = text.chars().find(|&character| !edge(character) && character != '-') {
        return Err(format!("{wrong:?} is not allowed; a name is made of a-z, 0-9 and -"));
    }
    if !text.starts_with(edge) || !text.ends_with(edge) {
        return Err("a name begins and ends with a letter or a digit".to_owned());
    }
    Ok(text.to_owned())
}

/// A duration such as `30s`, `5m` or `1h30m`.
///
/// # Errors
/// What is wrong with it.
pub fn timeout(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write 30s, 5m or 1h30m";
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| FORM.to_owned())?;
    let duration = Duration::try_from(parsed).map_err(|_| format!("it is negative; {FORM}"))?;
    if duration.is_zero() {
        return Err(format!("it is zero; {FORM}"));
    }
    if duration > LONGEST_TIMEOUT {
        return Err("it is longer than a day".to_owned());
    }
    Ok(duration)
}

/// `NAME=VALUE`; the value may be empty and may contain further equals signs.
///
/// # Errors
/// Where there is no equals sign or no name.
pub fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for good in ["a", "s3www", "my-env-2", &"x".repeat(32)] {
            assert_eq!(environment_name(good).as_deref(), Ok(good));
        }
        for (bad, why) in [
            ("", "at least one"),
            (&"x".repeat(33), "at most 32"),
            ("My", "'M' is not allowed"),
            ("a b", "' ' is not allowed"),
            ("a\nb", "'\\n' is not allowed"),
            ("../x", "'.' is not allowed"),
            ("ä", "'ä' is not allowed"),
            ("-a", "begins and ends"),
            ("a-", "begins and ends"),
        ] {
            let error = environment_name(bad).unwrap_err();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
    }

    #[test]
    fn timeouts_have_units() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1h 30m", 5400), ("24h", 86400)] {
            assert_eq!(timeout(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "30", "s", "-5m", "0s", "25h", "5 parsecs", "1d"] {
            assert!(timeout(bad).is_err(), "{bad}: {:?}", timeout(bad));
        }
    }
}
