//! What devstack advises must be what it understands.

use std::path::Path;

use clap::CommandFactory as _;
use regex::Regex;

use super::Cli;
use crate::check::Signatures;

/// What is no verb and no flag of the commands of devstack's that a text names. A command begins the text, is quoted,
/// or follows a colon, `&&`, `|` or `then`; elsewhere the word is a name.
fn unknown(text: &str) -> Vec<String> {
    let mut root = Cli::command();
    root.build();
    let mut unknown = Vec::new();
    let words: Vec<&str> = text.split_whitespace().collect();
    for (at, word) in words.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| words[at]);
        let begins = before.is_none_or(|word| word.ends_with(':') || ["&&", "|", "then"].contains(&word));
        if *word != "`devstack" && !(*word == "devstack" && begins) {
            continue;
        }
        let mut command = &root;
        for word in &words[at + 1..] {
            let bare = word.trim_matches(['`', ',', ';', ':']);
            if let Some(flag) = bare.strip_prefix("--") {
                let name = flag.split('=').next();
                if !command.get_arguments().any(|argument| argument.get_long() == name) {
                    unknown.push(format!("--{flag} in: {text}"));
                }
            } else if command.is_subcommand_required_set() {
                match command.find_subcommand(bare) {
                    Some(found) => command = found,
                    None => {
                        unknown.push(format!("{bare} in: {text}"));
                        break;
                    }
                }
            }
            if ["&&", "|"].contains(word) || bare != *word {
                break;
            }
        }
    }
    unknown
}

/// The texts of remedies and hints in the sources below a directory.
fn advised(directory: &Path, literal: &Regex, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            advised(&path, literal, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(literal.captures_iter(&text).map(|groups| groups[1].to_owned()));
        }
    }
}

#[test]
fn every_command_that_is_advised_is_there() {
    let mut texts: Vec<String> = Vec::new();
    texts.extend(Signatures::builtin().unwrap().iter().flat_map(|signature| signature.remedy.clone()));
    let literal = Regex::new(r#"(?:remedy|hint|Some)\(\s*(?:format!\(\s*)?"((?:[^"\\]|\\.)*)""#).unwrap();
    advised(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &literal, &mut texts);
    assert!(texts.iter().filter(|text| text.starts_with("devstack ")).count() > 40, "{}", texts.len());
    let wrong: Vec<String> = texts.iter().flat_map(|text| unknown(text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_is_not_there_is_found() {
    for (text, wrong) in [
        ("devstack resume --env {}", "resume"),
        ("if the data may go: devstack down && devstack upp", "upp"),
        ("run `devstack image solve` first", "solve"),
        ("devstack up --nods 2", "--nods"),
        ("devstack profile list --env a, then devstack uq", "uq"),
    ] {
        assert_eq!(unknown(text), [format!("{wrong} in: {text}")]);
    }
    for text in ["ask somebody; devstack did not make it", "leave it to devstack: auto", "devstack doctor --log -"] {
        assert_eq!(unknown(text), Vec::<String>::new());
    }
}
