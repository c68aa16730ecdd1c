//! `docs/cli.md` is made of the command line's own help and is always current.

use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let expected = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/cli.md is not what --help says; UPDATE_DOCS=1 cargo test --test cli writes it");
}

fn reference() -> String {
    let mut root = devstack::cli::Cli::command().term_width(100);
    root.build();
    let mut text = String::from(
        "# Commands\n\nMade of `devstack --help`; `UPDATE_DOCS=1 cargo test --test cli` writes it anew. The global options \
         work with every command and are listed once.\n",
    );
    section(&root, "devstack", &mut text);
    text
}

fn section(command: &Command, path: &str, text: &mut String) {
    let level = if path == "devstack" { "##" } else { "###" };
    let shown = if path == "devstack" { command.clone() } else { command.clone().mut_args(hide_global) };
    let help = shown.bin_name(path).term_width(100).render_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n{level} `{path}`\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        section(verb, &format!("{path} {}", verb.get_name()), text);
    }
}

fn hide_global(arg: Arg) -> Arg {
    let global = arg.is_global_set() || arg.get_id() == "help";
    if global { arg.hide(true) } else { arg }
}
