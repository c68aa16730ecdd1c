//! One context of the user's kubeconfig as a file of its own.
//!
//! What devstack does in a cluster that it did not make goes through a copy of that one context, with its cluster and
//! its user: nothing then depends on which context is the current one, or on the file at all. Users of every kind are
//! copied as they are; one that asks a program for its credentials (`exec`) goes on asking it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{KubeconfigError, item, load};
use crate::ports::HostFs;

/// A context, cut out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The context's name in the user's kubeconfig.
    pub context: String,
    /// A kubeconfig with this context alone, which is its current one.
    pub text: String,
}

/// Members that name files, beside the file that names them unless absolute, by the list they are in.
const FILES: [(&str, &[&str]); 2] =
    [("cluster", &["certificate-authority"]), ("user", &["client-certificate", "client-key", "tokenFile"])];

/// Cuts the context `wanted`, the current one when absent, out of the user's kubeconfig files and gives it under `name`.
/// As kubectl does, the first file that has a context, a cluster or a user decides it.
///
/// # Errors
/// A file that cannot be used; [`KubeconfigError::NoContext`] with the contexts there are.
pub fn extract(
    fs: &dyn HostFs,
    files: &[PathBuf],
    wanted: Option<&str>,
    name: &str,
) -> Result<Extracted, KubeconfigError> {
    let mut configs = Vec::new();
    for file in files {
        configs.push((file.as_path(), load(fs, file)?.1));
    }
    let current =
        || configs.iter().find_map(|(_, config)| config["current-context"].as_str().filter(|at| !at.is_empty()));
    let known = || {
        let names = configs.iter().flat_map(|(_, config)| config["contexts"].as_array().into_iter().flatten());
        names.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let missing = |what: String| KubeconfigError::NoContext { what, known: known() };
    let context = wanted.or_else(current).ok_or_else(|| missing("current context".to_owned()))?.to_owned();
    let find = |list: &str, name: &str| {
        configs.iter().find_map(|(file, config)| Some((*file, item(config, list, name)?.clone())))
    };
    let (_, found) = find("contexts", &context).ok_or_else(|| missing(format!("context {context}")))?;
    let part = |list: &str, member: &str| {
        let named = found["context"][member].as_str().unwrap_or_default();
        let (file, item) =
            find(list, named).ok_or_else(|| missing(format!("{member} {named:?} of context {context}")))?;
        Ok::<_, KubeconfigError>(absolute(file, member, item[member].clone()))
    };
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": part("clusters", "cluster")?}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": part("users", "user")?}],
    });
    Ok(Extracted { context, text: format!("{text:#}\n") })
}

/// Makes paths absolute that are meant beside `file`.
fn absolute(file: &Path, part: &str, mut value: Value) -> Value {
    let beside = |path: &str| file.parent().unwrap_or(Path::new("/")).join(path).display().to_string();
    for (_, members) in FILES.iter().filter(|(list, _)| *list == part) {
        for member in *members {
            if let Some(path) = value[*member].as_str().filter(|path| !path.is_empty()).map(beside) {
                value[*member] = path.into();
            }
        }
    }
    // A program by its bare name is looked for in PATH.
    if let Some(program) = value.pointer("/exec/command").and_then(Value::as_str).filter(|name| name.contains('/')) {
        let program = beside(program);
        value["exec"]["command"] = program.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeFs;

    const WORK: &str = "current-context: work\ncontexts:\n- name: work\n  context: {cluster: c, user: u, namespace: team}\nclusters:\n- name: c\n  cluster: {server: 'https://k.example:6443', certificate-authority: pki/ca.crt, tls-server-name: k}\n";

    fn files(fs: &FakeFs) -> Vec<PathBuf> {
        fs.put("/h/.kube/config", WORK, 0o600);
        fs.put(
            "/h/more/users",
            "contexts: [{name: other, context: {cluster: gone, user: u}}]\nusers:\n- name: u\n  user:\n    exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login, args: [token], env: null}\n- name: c\n  user: {token: abc}\n",
            0o600,
        );
        vec!["/h/.kube/config".into(), "/h/more/users".into(), "/h/not-there".into()]
    }

    #[test]
    fn a_context_is_cut_out_with_all_that_its_user_needs() {
        let fs = FakeFs::default();
        let files = files(&fs);
        let found = extract(&fs, &files, None, "devstack-x").unwrap();
        assert_eq!(found.context, "work");
        let config = crate::yaml::parse_value("own", &found.text).unwrap().to_value();
        assert_eq!(config["current-context"], "devstack-x");
        assert_eq!(
            config["clusters"],
            json!([{"name": "devstack-x", "cluster": {
                "server": "https://k.example:6443", "certificate-authority": "/h/.kube/pki/ca.crt", "tls-server-name": "k",
            }}])
        );
        assert_eq!(config["users"][0]["user"]["exec"]["command"], "/h/more/./login");
        assert_eq!(config["users"][0]["user"]["exec"]["args"], json!(["token"]));
        // kube reads what devstack writes.
        kube::config::Kubeconfig::from_yaml(&found.text).unwrap();
        assert_eq!(extract(&fs, &files, Some("work"), "devstack-x").unwrap(), found);
    }

    #[test]
    fn what_is_not_there_is_named_with_what_there_is() {
        let fs = FakeFs::default();
        let files = files(&fs);
        let error = extract(&fs, &files, Some("wrok"), "n").unwrap_err();
        assert_eq!(error.to_string(), "the kubeconfig has no context wrok; it has work, other");
        let error = extract(&fs, &files, Some("other"), "n").unwrap_err().to_string();
        assert!(error.contains("no cluster \"gone\" of context other"), "{error}");
        let error = extract(&fs, &["/nothing".into()], None, "n").unwrap_err().to_string();
        assert_eq!(error, "the kubeconfig has no current context; it has no contexts");
    }
}
