//! Colours, and whether there shall be any.

use crate::context::Vars;

/// How many columns a text takes on a terminal, one for each character.
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Paints text, or leaves it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    color: bool,
}

impl Style {
    /// No colours.
    pub const PLAIN: Self = Self { color: false };
    /// Colours.
    pub const COLOR: Self = Self { color: true };

    /// Decides for one stream: `--no-color` and `NO_COLOR` say no, `CLICOLOR_FORCE` says yes, else a terminal that
    /// is not `dumb` gets colours.
    pub fn of(vars: &Vars, no_color: bool, terminal: bool) -> Self {
        if no_color || vars.get("NO_COLOR").is_some() {
            return Self::PLAIN;
        }
        if vars.get("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
            return Self::COLOR;
        }
        Self { color: terminal && vars.get("TERM") != Some("dumb") }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// For what went well.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// For what failed.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// For warnings.
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// For what matters most in a line.
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// For what matters least.
    pub fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_conventions() {
        let color = |vars: Vars, flag, terminal| Style::of(&vars, flag, terminal) == Style::COLOR;
        assert!(color(Vars::from([("TERM", "xterm")]), false, true));
        assert!(!color(Vars::from([("TERM", "xterm")]), false, false));
        assert!(!color(Vars::from([("TERM", "dumb")]), false, true));
        assert!(!color(Vars::from([("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), false, true));
        assert!(color(Vars::from([("CLICOLOR_FORCE", "1")]), false, false));
        assert!(!color(Vars::from([("CLICOLOR_FORCE", "0")]), false, false));
        assert!(!color(Vars::from([("CLICOLOR_FORCE", "1")]), true, true));
    }
}
