//! Profiles as files: every built-in is right, every mistake is named with its place.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;

use devstack::profile::{ProfileError, ProfileSource, Request, builtins, load, schema};
use devstack::yaml;

#[test]
fn mistakes_are_named_with_their_place() {
    let dir = Path::new("tests/profiles/invalid");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let mut text = String::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let error = match load(&Request::of_files(&ProfileSource::File(file.clone()))) {
            Ok(_) => format!("{} is accepted", file.display()),
            Err(ProfileError::Invalid { problems }) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            }
            Err(other) => format!("{other:?}"),
        };
        let cwd = std::env::current_dir().unwrap().display().to_string();
        let error = error.replace("tests/profiles/invalid/", "").replace(&cwd, "CWD");
        text.push_str(&format!("# {name}\n{error}\n"));
    }
    insta::assert_snapshot!(text, @"
    # address
    address.yaml:8:11: ${services.caller.other.address} is never known: no component has the Service caller/other as `service-address` in `ready`
    components/caller/objects.yaml:4:17: ${services.caller.caller.address} is never known: no component has the Service caller/caller as `service-address` in `ready`
    address.yaml:6:5: components wait for addresses of one another's Services in a circle: narcissus → narcissus
    # bad-name
    bad-name.yaml:3:7: `My_Profile` is no name: lower-case letters, digits and dashes
    # bad-pattern
    bad-pattern.yaml:5:42: not a regular expression: error: unclosed group
    # binary
    binary.yaml:3:1: this is binary data, not YAML
    # broken-component
    components/broken/component.yaml:3:7: the name is `broke` and the directory is called `broken`
    components/broken/component.yaml:22:19: expected a version such as 1.34, found `new`
    components/broken/objects.yaml:10:11: an object needs the text `metadata.name`
    components/broken/component.yaml:14:12: there is no file `missing.yaml` beside it
    components/broken/component.yaml:15:12: there is no file `../minio/service.yaml` beside it
    components/broken/loop.yaml:1:1: an object needs the text `kind`
    components/broken/component.yaml:5:31: expected a whole number, found `many`
    # circle
    circle.yaml:5:5: components require one another in a circle: hen → egg → hen
    # cluster
    cluster.yaml:4:18: expected a whole number from 1 to 9, found 12
    cluster.yaml:4:34: expected auto or a version such as 1.34, found `latest`
    # component-syntax
    components/unreadable/component.yaml:4:1: unknown key `manifest`, did you mean `manifests`?
    # condition
    condition.yaml:6:11: a condition is true, false, ${x}, !${x}, ${x} == y or ${x} != y
    # default-enum
    default-enum.yaml:5:30: expected one of `a`, `b`, found `c`
    # default-range
    default-range.yaml:5:31: expected a whole number from 1 to 9, found 12
    # default-type
    default-type.yaml:5:31: expected true or false, found `yes`
    # duplicate-key
    duplicate-key.yaml:5:1: the key `summary` is given twice (first in line 4)
    # embedded-list
    embedded-list.yaml:8:26: ${hosts} is a list and cannot be part of a text
    # empty
    empty.yaml:1:1: the file is empty
    # extends-itself
    extends-itself.yaml:4:10: more than 8 profiles extend one another
    # extends-unknown
    extends-unknown.yaml:4:10: unknown profile `s3ww`, did you mean `s3www`?
    # hostname
    hostname.yaml:5:35: `My Host` is no host name: lower-case letters, digits, dashes and dots
    # kind
    kind.yaml:2:7: unknown value `Component` (known: Profile)
    # misplaced-min
    misplaced-min.yaml:5:38: `min` is only for integers
    # missing-builtin
    missing-builtin.yaml:5:31: devstack has no built-in file `cat.gif`
    # missing-name
    missing-name.yaml:1:1: the key `name` is missing
    # missing-path
    missing-path.yaml:5:31: CWD/nowhere does not exist
    # nested-field
    nested-field.yaml:8:32: unknown key `reader`, did you mean `readers`?
    nested-field.yaml:9:11: the key `name` is missing
    nested-field.yaml:10:18: `Big` does not match [a-z0-9][a-z0-9-]{1,61}[a-z0-9]
    # no-type
    no-type.yaml:5:6: the key `type` is missing
    # node-labels
    node-labels.yaml:5:59: there is no node 2: they are counted from 0, and the last one is 1
    # parameter-missing
    parameter-missing.yaml:7:5: `s3www` needs a value for `credentials` below `with` (a key that can read the bucket, such as ${minio.readers.s3www})
    # parameter-type
    parameter-type.yaml:7:21: expected true or false, found `maybe`
    parameter-type.yaml:8:17: expected one of `DEBUG`, `INFO`, `WARN`, `ERROR`, found `LOUD`
    # requirement-off
    requirement-off.yaml:8:5: `s3www` requires `minio` and nothing in the profile provides it (it is switched off here) (said in profiles/components/s3www/component.yaml)
    requirement-off.yaml:9:39: expected a mapping, found text
    # requirement
    requirement.yaml:6:5: `s3www` requires `ingress` and nothing in the profile provides it (said in profiles/components/s3www/component.yaml)
    requirement.yaml:7:39: expected a mapping, found text
    # reserved
    reserved.yaml:5:3: a parameter cannot be called `facts`: ${facts…} means something else
    reserved.yaml:6:3: a parameter cannot be called `traefik`: ${traefik…} means something else
    # routes
    routes.yaml:6:5: the route `x` is there twice
    routes.yaml:7:12: `Y` is no name: lower-case letters, digits and dashes
    # step-name
    step-name.yaml:6:9: a component cannot be called `ready`, which is a step of devstack's own; give it another name with `as`
    step-name.yaml:7:24: a component cannot be called `registry`, which is a step of devstack's own; give it another name with `as`
    # twice
    twice.yaml:6:5: the component `traefik` is used twice; give one of them a name with `as`
    # two-documents
    two-documents.yaml:5:1: a second document begins here; one file holds one document
    # unclosed-reference
    unclosed-reference.yaml:6:18: `${x` is not closed by a }
    # unknown-component
    unknown-component.yaml:5:10: unknown component `traefic`, did you mean `traefik`?
    # unknown-key
    unknown-key.yaml:4:1: unknown key `component`, did you mean `components`?
    # unknown-late
    unknown-late.yaml:6:18: unknown reference ${network.pol}, did you mean ${network.pool}?
    # unknown-output
    unknown-output.yaml:7:11: unknown reference ${minio.endpont}, did you mean ${minio.endpoint}?
    # unknown-parameter
    unknown-parameter.yaml:6:12: unknown parameter `bucket`, did you mean `buckets`?
    # unknown-reference
    unknown-reference.yaml:10:17: unknown reference ${sit}, did you mean ${site}?
    # unknown-type
    unknown-type.yaml:5:13: unknown value `int` (known: string, integer, boolean, path, hostname, secret, list, object)
    # verify
    verify.yaml:5:11: expected a URL, found `www`
    verify.yaml:5:38: expected 64 hexadecimal digits, found `abc`
    verify.yaml:5:26: expected an HTTP status, found 99
    # version
    version.yaml:1:13: unknown value `devstack/v2`, did you mean `devstack/v1`?
    ");
}

#[test]
fn every_built_in_profile_is_right() {
    let profiles = builtins();
    assert!(profiles.iter().any(|(name, _)| name == "s3www"), "{profiles:?}");
    for (name, summary) in profiles {
        assert!(!summary.is_empty(), "{name} says what it is");
        if let Err(error) = load(&Request::of_files(&ProfileSource::Builtin(name.clone()))) {
            panic!("{name}: {error}");
        }
    }
}

/// The files of the repository that a schema is for.
fn files(pattern: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("profiles").unwrap() {
        let path = entry.unwrap().path();
        if pattern == "profile" && path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    if pattern == "component" {
        for entry in std::fs::read_dir("profiles/components").unwrap() {
            found.push(entry.unwrap().path().join("component.yaml"));
        }
    }
    assert!(!found.is_empty());
    found
}

/// Run with `DEVSTACK_WRITE_SCHEMA=1` to write the files anew.
#[test]
fn the_schemas_are_current_and_hold() {
    for (name, schema) in [("profile", schema::profile_schema()), ("component", schema::component_schema())] {
        let path = format!("profiles/schema/{name}.json");
        let text = format!("{schema:#}\n");
        if std::env::var_os("DEVSTACK_WRITE_SCHEMA").is_some() {
            std::fs::create_dir_all("profiles/schema").unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{path} is out of date");
        let validator = jsonschema::validator_for(&schema).unwrap();
        for file in files(name) {
            let text = std::fs::read_to_string(&file).unwrap();
            let value = yaml::parse_value(&file.display().to_string(), &text).unwrap().to_value();
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", file.display());
        }
        let wrong = serde_json::json!({"apiVersion": "devstack/v1", "kind": "Profile", "name": "a", "colour": "red"});
        assert!(!validator.is_valid(&wrong), "unknown keys are refused");
    }
}

#[test]
fn no_advice_removes_nodes_that_are_stopped_or_their_data() {
    fn walk(path: &Path, found: &mut Vec<String>) {
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), found));
        } else if let Ok(text) = std::fs::read_to_string(path) {
            let prunes = ["system", "container", "volume", "network"].map(|what| format!("docker {what} prune"));
            let said = prunes.iter().filter(|prune| text.contains(&**prune));
            found.extend(said.map(|prune| format!("{}: {prune}", path.display())));
        }
    }
    let mut found = Vec::new();
    for place in ["profiles", "src", "scripts", "docs", "README.md"] {
        walk(Path::new(place), &mut found);
    }
    assert_eq!(found, [""; 0]);
}
