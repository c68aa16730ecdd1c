//! A profile as a program wants to see it.

use serde_json::{Value, json};

use super::resolved::Resolved;
use super::schema::ParameterType;

/// A profile as JSON: parameters with their values, cluster, components in their order, routes, requests. Values of
/// secrets are left out.
pub fn to_json(resolved: &Resolved) -> Value {
    let parameters: Vec<_> = resolved
        .definitions
        .iter()
        .map(|(name, parameter)| {
            json!({
                "name": name,
                "type": parameter.kind.unwrap_or(ParameterType::String),
                "help": parameter.help,
                "value": resolved.parameters.get(name),
            })
        })
        .collect();
    let components: Vec<_> = resolved
        .components
        .iter()
        .map(|component| {
            json!({
                "name": component.name,
                "component": component.component,
                "namespace": component.namespace,
                "requires": component.requires,
                "images": component.images,
                "content": component.content,
                "ready": component.ready,
                "memory": component.memory,
                "disk": component.disk,
            })
        })
        .collect();
    json!({
        "name": resolved.name,
        "summary": resolved.summary,
        "parameters": parameters,
        "cluster": resolved.cluster,
        "components": components,
        "off": resolved.off,
        "routes": resolved.routes,
        "verify": resolved.verify_preview(),
    })
}
