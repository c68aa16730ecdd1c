use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Thing {
    name: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    parts: Vec<Part>,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Part {
    size: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Slow,
}

fn problem(text: &str) -> String {
    parse::<Thing>("t.yaml", text).unwrap_err().to_string()
}

#[test]
fn a_good_file_becomes_the_type() {
    let thing: Thing = parse(
        "t.yaml",
        "---\nname: yes\nport: 0x1F\nparts:\n  - &p {size: 18446744073709551615}\n  - *p\nmode: fast\n",
    )
    .unwrap();
    assert_eq!(thing.name, "yes", "yes is text in YAML 1.2");
    assert_eq!(thing.port, 31);
    assert_eq!(thing.parts, [Part { size: u64::MAX }, Part { size: u64::MAX }]);
    assert_eq!(thing.mode, Some(Mode::Fast));
}

#[test]
fn every_mistake_says_where_it_is() {
    let deep = format!("name: {}", "[".repeat(100));
    let cases: &[(&str, &str)] = &[
        ("", "t.yaml:1:1: the file is empty"),
        ("# only a comment\n", "t.yaml:1:1: the file is empty"),
        ("---\n...\n", "t.yaml:1:1: the file is empty"),
        ("name: a\n---\nname: b\n", "t.yaml:3:1: a second document begins here; one file holds one document"),
        ("name: a\nname: b\n", "t.yaml:2:1: the key `name` is given twice (first in line 1)"),
        ("nmae: a\n", "t.yaml:1:1: unknown key `nmae`, did you mean `name`?"),
        ("name: a\nzzz: 1\n", "t.yaml:2:1: unknown key `zzz` (known: name, port, parts, mode, labels)"),
        (
            "name: a\nparts:\n  - {size: 1}\n  - {size: 1, sise: 2}\n",
            "t.yaml:4:15: unknown key `sise`, did you mean `size`?",
        ),
        ("name: a\nport: many\n", "t.yaml:2:7: expected a whole number from 0 to 65535, found string \"many\""),
        ("name: a\nport: 70000\n", "t.yaml:2:7: expected a whole number from 0 to 65535, found integer `70000`"),
        ("name: [a]\n", "t.yaml:1:7: expected text, found a list"),
        ("name:\n", "t.yaml:1:5: expected text, found nothing"),
        ("port: 1\n", "t.yaml:1:1: the key `name` is missing"),
        ("name: a\nparts:\n  - {}\n", "t.yaml:3:5: the key `size` is missing"),
        ("name: a\nmode: fats\n", "t.yaml:2:7: unknown value `fats`, did you mean `fast`?"),
        ("name: a\nlabels: {a: 1}\n", "t.yaml:2:13: expected text, found integer `1`"),
        ("just text\n", "t.yaml:1:1: expected a mapping, found string \"just text\""),
        ("name: 0644\n", "t.yaml:1:7: `0644` is octal in YAML 1.1 and decimal in YAML 1.2; write 0o644 or quote it"),
        (
            "name: 99999999999999999999999\n",
            "t.yaml:1:7: the number 99999999999999999999999 is too big; quote it if it is text",
        ),
        ("name: .nan\n", "t.yaml:1:7: `.nan` cannot be used as a number here; quote it if it is text"),
        (
            "a: &x {b: 1}\n<<: *x\n",
            "t.yaml:2:1: merge keys (<<) are not part of YAML 1.2; repeat the keys or use an alias",
        ),
        ("name: &a [*a]\n", "t.yaml:1:11: this alias refers to a node that contains it"),
        ("name: !secret x\n", "t.yaml:1:7: the tag !secret is not supported"),
        ("name: !!int x\n", "t.yaml:1:7: `x` is no int"),
        ("? [a]\n: b\n", "t.yaml:1:3: a key must be text; quote values that begin with { or ["),
        (&deep, "t.yaml:1:70: nested deeper than 64 levels"),
        ("name: {a\n", "t.yaml:2:1: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'"),
        ("name: a\n\tport: 1\n", "t.yaml:2:1: tabs cannot indent YAML; use spaces"),
        ("name: \"a\n", "t.yaml:1:7: not valid YAML: while scanning a quoted scalar, found unexpected end of stream"),
    ];
    let wrong: Vec<_> =
        cases.iter().map(|(text, want)| (problem(text), *want)).filter(|(got, want)| got != want).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn binary_is_named_as_such() {
    let message = |bytes: &[u8]| text("t.yaml", bytes).unwrap_err().to_string();
    assert_eq!(message(b"name: a\n\x7fELF\x00"), "t.yaml:2:5: this is binary data, not YAML");
    assert_eq!(message(b"GIF89a\xff\xfe"), "t.yaml:1:7: this is not text in UTF-8, and so not YAML");
    assert_eq!(text("t.yaml", "\u{feff}name: a".as_bytes()).unwrap(), "name: a");
}

#[test]
fn aliases_cannot_explode() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    let error = parse_value("t.yaml", &bomb).unwrap_err();
    assert!(error.message.starts_with("the file holds too much data"), "{error}");

    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..200 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    let error = parse_value("t.yaml", &chain).unwrap_err();
    assert_eq!(error.to_string(), "t.yaml:64:12: nested deeper than 64 levels");
}

#[test]
fn the_hint_shows_the_line() {
    let error = parse::<Thing>("t.yaml", "name: a\nport: many\n").unwrap_err();
    insta::assert_snapshot!(error.hint().unwrap(), @r"
    2 | port: many
      |       ^
    ");
}

#[test]
fn documents_keep_their_places() {
    let documents = parse_documents("t.yaml", "a: 1\n---\n---\nb:\n  - c: 2\n").unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[1].place_of(&["b", "0", "c"]), Place { line: 5, column: 8 });
    assert_eq!(documents[1].place_of(&["b", "7"]), Place { line: 5, column: 3 });
    assert_eq!(documents[1].to_value(), serde_json::json!({"b": [{"c": 2}]}));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[-a-z0-9:{}\\[\\]&*!|>'\"\n\t #?,.<~%@`]{0,80}") {
        let _ = parse::<Thing>("t.yaml", &text);
    }

    #[test]
    fn json_is_yaml(text in "[ -~äß]{0,40}", number: i64) {
        let value = serde_json::json!({"text": text, "list": [number, null, true]});
        let parsed = parse_value("t.yaml", &value.to_string()).unwrap().to_value();
        proptest::prop_assert_eq!(parsed, value);
    }
}
