//! Which engine docker's own CLI would talk to.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::context::Vars;
use crate::hex;

/// The address that docker's own CLI would use, such as `unix:///var/run/docker.sock`: `DOCKER_HOST`, else the context
/// named by `DOCKER_CONTEXT` or by `currentContext` of `~/.docker/config.json`, else the default socket, else a rootless
/// one.
pub(super) fn find(vars: &Vars, home: &Path) -> String {
    if let Some(host) = vars.get("DOCKER_HOST") {
        return host.to_owned();
    }
    let config = vars.get("DOCKER_CONFIG").map_or_else(|| home.join(".docker"), Into::into);
    let named = vars.get("DOCKER_CONTEXT").map(str::to_owned).or_else(|| {
        let text = std::fs::read(config.join("config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(config.get("currentContext")?.as_str()?.to_owned())
    });
    if let Some(name) = named.filter(|name| name != "default")
        && let Some(host) = context_host(&config, &name)
    {
        return host;
    }
    let default = "/var/run/docker.sock";
    if !Path::new(default).exists()
        && let Some(runtime) = vars.get("XDG_RUNTIME_DIR")
    {
        let rootless = Path::new(runtime).join("docker.sock");
        if rootless.exists() {
            return format!("unix://{}", rootless.display());
        }
    }
    format!("unix://{default}")
}

/// An address with the links of a socket's path followed: one path may lead to the sockets of several engines, in turn,
/// and several paths to one.
pub(super) fn followed(endpoint: &str) -> String {
    let path = endpoint.strip_prefix("unix://").and_then(|path| Path::new(path).canonicalize().ok());
    path.map_or_else(|| endpoint.to_owned(), |path| format!("unix://{}", path.display()))
}

/// Docker keeps a context's metadata in a directory named by the SHA-256 of the context's name.
fn context_host(config: &Path, name: &str) -> Option<String> {
    let id = hex::encode(&Sha256::digest(name));
    let text = std::fs::read(config.join("contexts/meta").join(id).join("meta.json")).ok()?;
    let meta: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(meta.pointer("/Endpoints/docker/Host")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_engine_is_found_as_dockers_cli_finds_it() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join(".docker");
        write(&config.join("config.json"), r#"{"currentContext": "colima"}"#);
        // sha256("colima"), as docker names the directory.
        let id = "f24fd3749c1368328e2b149bec149cb6795619f244c5b584e844961215dadd16";
        write(
            &config.join("contexts/meta").join(id).join("meta.json"),
            r#"{"Name": "colima", "Endpoints": {"docker": {"Host": "unix:///home/u/.colima/docker.sock"}}}"#,
        );
        let found = |vars: Vars| find(&vars, home.path());
        assert_eq!(found(Vars::from([])), "unix:///home/u/.colima/docker.sock");
        assert_eq!(found(Vars::from([("DOCKER_CONTEXT", "default")])), "unix:///var/run/docker.sock");
        assert_eq!(found(Vars::from([("DOCKER_HOST", "tcp://127.0.0.1:2375")])), "tcp://127.0.0.1:2375");
        assert_eq!(found(Vars::from([("DOCKER_HOST", "")])), "unix:///home/u/.colima/docker.sock");
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_is_told_by_where_its_path_leads() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        write(&root.join("real/docker.sock"), "");
        std::os::unix::fs::symlink(root.join("real"), root.join("run")).unwrap();
        let real = format!("unix://{}/real/docker.sock", root.display());
        assert_eq!(followed(&format!("unix://{}/run/docker.sock", root.display())), real);
        for as_it_is in ["tcp://127.0.0.1:2375", "unix:///nonexistent/docker.sock"] {
            assert_eq!(followed(as_it_is), as_it_is);
        }
    }
}
