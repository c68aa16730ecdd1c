//! A profile's components and routes as a picture in text: Mermaid or DOT. Arrows lead to what is needed.

use std::fmt::Write as _;

use super::resolved::Resolved;

/// The language of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Mermaid, which code hosts render.
    Mermaid,
    /// DOT, for Graphviz.
    Dot,
}

/// Draws a profile.
pub fn draw(resolved: &Resolved, language: Language) -> String {
    let mut text = String::new();
    let title = format!("{} · {}", resolved.name, nodes(resolved.cluster.nodes));
    // Writing to a String cannot fail.
    let _ = match language {
        Language::Mermaid => mermaid(resolved, &title, &mut text),
        Language::Dot => dot(resolved, &title, &mut text),
    };
    text
}

fn nodes(count: u8) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

/// What a route's arrow ends at: the component whose namespace its service is in.
fn behind<'a>(resolved: &'a Resolved, namespace: &str) -> Option<&'a str> {
    resolved.components.iter().find(|component| component.namespace == namespace).map(|component| &*component.name)
}

/// Mermaid takes no dash in an identifier where it could be an arrow.
fn id(name: &str) -> String {
    name.replace(['-', '.'], "_")
}

fn mermaid(resolved: &Resolved, title: &str, text: &mut String) -> std::fmt::Result {
    writeln!(text, "graph TD")?;
    writeln!(text, "  subgraph cluster[\"{title}\"]")?;
    for component in &resolved.components {
        writeln!(text, "    {}[\"{}\"]", id(&component.name), component.name)?;
    }
    writeln!(text, "  end")?;
    for component in &resolved.components {
        for required in &component.requires {
            writeln!(text, "  {} --> {}", id(&component.name), id(required))?;
        }
    }
    for route in &resolved.routes {
        writeln!(text, "  route_{}([\"{}\"])", id(&route.name), route.host)?;
        if let Some(component) = behind(resolved, &route.namespace) {
            writeln!(text, "  route_{} --> {}", id(&route.name), id(component))?;
        }
    }
    Ok(())
}

fn dot(resolved: &Resolved, title: &str, text: &mut String) -> std::fmt::Result {
    writeln!(text, "digraph \"{}\" {{", resolved.name)?;
    writeln!(text, "  node [shape=box];")?;
    writeln!(text, "  subgraph cluster_environment {{")?;
    writeln!(text, "    label=\"{title}\";")?;
    for component in &resolved.components {
        writeln!(text, "    \"{}\";", component.name)?;
    }
    writeln!(text, "  }}")?;
    for component in &resolved.components {
        for required in &component.requires {
            writeln!(text, "  \"{}\" -> \"{required}\";", component.name)?;
        }
    }
    for route in &resolved.routes {
        writeln!(text, "  \"route {}\" [label=\"{}\", shape=oval];", route.name, route.host)?;
        if let Some(component) = behind(resolved, &route.namespace) {
            writeln!(text, "  \"route {}\" -> \"{component}\";", route.name)?;
        }
    }
    writeln!(text, "}}")
}
