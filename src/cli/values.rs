//! Values of flags that need more than a type: durations and settings.

use std::time::Duration;

pub use crate::environments::environment_name;

/// The longest `--timeout`.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

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
