//! Questions: what will be done is shown, and nothing happens without an answer.

use std::io::{self, Write};

use crate::error::{ExitCode, Failure};

/// Something that needs consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What will be done, one line a thing.
    pub what: Vec<String>,
    /// The question, without its question mark: `Change the hosts file with sudo`.
    pub ask: String,
    /// Why it is needed and what happens otherwise; shown on `e`.
    pub explain: String,
    /// Whether it is about a privilege, which `--yes` grants only to an account that has it anyway.
    pub privilege: bool,
}

impl Question {
    /// The failure of a command that did not get its answer.
    pub fn refusal(&self, reason: &str) -> Failure {
        let mut failure = Failure::new(ExitCode::Consent, format!("consent is missing: {}", self.ask));
        for what in &self.what {
            failure = failure.cause(what.clone());
        }
        failure.hint(reason).kept("nothing changed")
    }
}

/// Asks until there is an answer; the end of input, where `next` gives no line, is a no.
///
/// # Errors
/// The terminal cannot be read or written, or the question was interrupted.
pub fn ask(
    question: &Question,
    next: &mut dyn FnMut() -> io::Result<Option<String>>,
    output: &mut dyn Write,
) -> io::Result<bool> {
    for what in &question.what {
        writeln!(output, "  {what}")?;
    }
    loop {
        write!(output, "{}? [y/N/e(xplain)] ", question.ask)?;
        output.flush()?;
        let Some(answer) = next()? else {
            writeln!(output)?;
            return Ok(false);
        };
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "e" | "explain" | "?" => writeln!(output, "  {}", question.explain.replace('\n', "\n  "))?,
            "" | "n" | "no" => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            what: vec!["hosts file: + s3www.test 127.0.0.1".into()],
            ask: "Change /etc/hosts with sudo".into(),
            explain: "A name in the hosts file opens in every browser.\nWithout it: http://s3www.localhost:8080".into(),
            privilege: true,
        }
    }

    fn answer(typed: &str) -> (bool, String) {
        let mut shown = Vec::new();
        let mut lines = typed.lines().map(str::to_owned);
        let yes = ask(&question(), &mut || Ok(lines.next()), &mut shown).unwrap();
        (yes, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn only_yes_is_yes() {
        for (typed, yes) in [
            ("y\n", true),
            ("YES\n", true),
            ("n\n", false),
            ("\n", false),
            ("", false),
            ("yess\n", false),
            ("x\ny\n", true),
        ] {
            assert_eq!(answer(typed).0, yes, "{typed:?}");
        }
    }

    #[test]
    fn the_question_shows_what_and_explains_why() {
        insta::assert_snapshot!(answer("e\ny\n").1, @"
          hosts file: + s3www.test 127.0.0.1
        Change /etc/hosts with sudo? [y/N/e(xplain)]   A name in the hosts file opens in every browser.
          Without it: http://s3www.localhost:8080
        Change /etc/hosts with sudo? [y/N/e(xplain)]
        ");
        insta::assert_snapshot!(question().refusal("answer with --yes").render(), @"
        error: consent is missing: Change /etc/hosts with sudo
          cause hosts file: + s3www.test 127.0.0.1
          hint  answer with --yes
          kept  nothing changed
        ");
    }
}
