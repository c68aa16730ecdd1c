//! `devstack profile list|show|validate|graph|schema`.

use serde_json::{Value, json};

use super::Session;
use crate::error::{ExitCode, Failure};
use crate::profile::{self, ProfileError, ProfileSource, Request, Resolved, Scope, graph, parse_setting, schema};
use crate::ui::{Format, Table};
use crate::yaml::YamlError;

/// Arguments of `devstack profile`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the built-in profiles
    List,
    /// Show a profile: parameters, components, routes, and what must be answered before it is ready
    Show {
        /// A built-in profile's name, a file or a directory
        profile: String,
        /// Give a parameter of the profile, or of a component as COMPONENT.NAME
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
        sets: Vec<(String, String)>,
    },
    /// Check profiles and all components they use; every mistake is named with its line
    Validate {
        /// Built-in profiles' names, files or directories; all built-in profiles when none is given
        profiles: Vec<String>,
    },
    /// Draw a profile's components and routes as Mermaid
    Graph {
        /// A built-in profile's name, a file or a directory
        profile: String,
        /// Draw as DOT, for Graphviz
        #[arg(long)]
        dot: bool,
    },
    /// Print the JSON Schema of profile or component files, for editors
    Schema {
        /// Of which files
        #[arg(value_enum, default_value_t)]
        of: SchemaOf,
    },
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum SchemaOf {
    #[default]
    Profile,
    Component,
}

/// Runs the verb.
///
/// # Errors
/// The profile cannot be used, or the output cannot be written.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    match &args.verb {
        Verb::List => list(session),
        Verb::Show { profile, sets } => {
            let source = ProfileSource::of(profile);
            let resolved = profile::load(&Request { settings: sets, ..Request::of_files(&source) })?;
            // A URL may hold one.
            resolved.secrets(&Scope::new()).iter().for_each(|secret| session.ctx.redactor.register(secret));
            session.ui.result(profile::to_json(&resolved), &shown(&resolved))?;
            Ok(ExitCode::Done)
        }
        Verb::Validate { profiles } => validate(session, profiles),
        Verb::Graph { profile, dot } => {
            let resolved = profile::load(&Request::of_files(&ProfileSource::of(profile)))?;
            let (name, language) =
                if *dot { ("dot", graph::Language::Dot) } else { ("mermaid", graph::Language::Mermaid) };
            let text = graph::draw(&resolved, language);
            session.ui.result(json!({"language": name, "graph": text}), &text)?;
            Ok(ExitCode::Done)
        }
        Verb::Schema { of } => {
            let schema = match of {
                SchemaOf::Profile => schema::profile_schema(),
                SchemaOf::Component => schema::component_schema(),
            };
            let text = format!("{schema:#}\n");
            session.ui.result(json!({"schema": schema}), &text)?;
            Ok(ExitCode::Done)
        }
    }
}

fn list(session: &Session) -> Result<ExitCode, Failure> {
    let profiles = profile::builtins();
    let mut table = Table::new(["PROFILE", "SUMMARY"]);
    for (name, summary) in &profiles {
        table.row([name, summary]);
    }
    let profiles: Vec<_> = profiles.iter().map(|(name, summary)| json!({"name": name, "summary": summary})).collect();
    session.ui.result(json!({"profiles": profiles}), &table.render())?;
    Ok(ExitCode::Done)
}

fn validate(session: &Session, profiles: &[String]) -> Result<ExitCode, Failure> {
    let builtins = || profile::builtins().into_iter().map(|(name, _)| name).collect();
    let profiles: Vec<String> = if profiles.is_empty() { builtins() } else { profiles.to_vec() };
    let mut wrong = 0;
    for name in &profiles {
        match profile::load(&Request::of_files(&ProfileSource::of(name))) {
            Ok(_) if session.ui.format() == Format::Text => session.ui.text(&format!("✓ {name}\n"))?,
            Ok(_) => {}
            Err(ProfileError::Invalid { problems }) => {
                wrong += problems.len();
                for problem in &problems {
                    session.ui.object("problem", problem_json(problem), &problem_text(problem))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if wrong > 0 {
        let plural = if wrong == 1 { "" } else { "s" };
        return Err(Failure::usage(format!("{wrong} mistake{plural} in {}", profiles.join(", "))));
    }
    if session.ui.format() == Format::Json {
        session.ui.result(json!({"valid": profiles}), "")?;
    }
    Ok(ExitCode::Done)
}

fn problem_json(problem: &YamlError) -> Value {
    json!({
        "file": problem.source_name,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
    })
}

fn problem_text(problem: &YamlError) -> String {
    let excerpt = problem.hint().map(|excerpt| format!("  {}\n", excerpt.replace('\n', "\n  ")));
    format!("{problem}\n{}", excerpt.unwrap_or_default())
}

fn shown(resolved: &Resolved) -> String {
    let mut text = format!("{}  {}\n", resolved.name, resolved.summary);
    let mut parameters = Table::new(["PARAMETER", "VALUE", "HELP"]);
    for (name, parameter) in &resolved.definitions {
        let value = match resolved.parameters.get(name) {
            Some(Value::String(value)) => value.clone(),
            Some(value) => value.to_string(),
            None => "(secret)".to_owned(),
        };
        parameters.row([name, &value, parameter.help.as_deref().unwrap_or_default()]);
    }
    let mut components = Table::new(["COMPONENT", "NAMESPACE", "AFTER", "IMAGES"]);
    for component in &resolved.components {
        let join = |names: Vec<&str>| names.join(", ");
        components.row([
            component.name.clone(),
            component.namespace.clone(),
            join(component.requires.iter().map(String::as_str).collect()),
            join(component.images.values().map(String::as_str).collect()),
        ]);
    }
    let mut routes = Table::new(["ROUTE", "HOST", "SERVICE", "PATH"]);
    for route in &resolved.routes {
        let service = format!("{}/{}:{}", route.namespace, route.service, route.port);
        routes.row([&route.name, &route.host, &service, &route.path]);
    }
    let mut verify = Table::new(["GET", "STATUS", "SHA-256"]);
    for one in resolved.verify_preview() {
        verify.row([one.url, one.status.to_string(), one.sha256.unwrap_or_default()]);
    }
    for table in [parameters, components, routes, verify].iter().filter(|table| !table.is_empty()) {
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}
