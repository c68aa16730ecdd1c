//! Events as JSON lines.

use crate::error::Failure;
use crate::event::Event;

/// One event as one line.
pub fn event(event: &Event) -> String {
    match event {
        // A result that is no object has no place for its type.
        Event::Result(value) if !value.is_object() => serde_json::json!({"type": "result", "value": value}).to_string(),
        other => serde_json::to_string(other).unwrap_or_else(|error| {
            serde_json::json!({"type": "warning", "message": format!("an event has no JSON form: {error}")}).to_string()
        }),
    }
}

/// A failure as one line of type `error`.
pub fn failure(failure: &Failure) -> String {
    let mut value = serde_json::json!(failure);
    value["type"] = "error".into();
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_a_type() {
        let lines = [
            event(&Event::StepDone {
                step: "cluster".into(),
                detail: "1/1 Ready".into(),
                changed: true,
                seconds: 19.5,
            }),
            event(&Event::Result(serde_json::json!({"undone": 14, "leftovers": []}))),
            event(&Event::Result(serde_json::json!([1]))),
            failure(&Failure::usage("no such profile").hint("devstack profile list")),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"type":"step-done","step":"cluster","detail":"1/1 Ready","changed":true,"seconds":19.5}
        {"type":"result","leftovers":[],"undone":14}
        {"type":"result","value":[1]}
        {"causes":[],"exit":2,"hints":["devstack profile list"],"message":"no such profile","type":"error"}
        "#);
        assert!(!lines.iter().any(|line| line.contains('\n')));
    }
}
