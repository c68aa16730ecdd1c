//! The user's docker credentials: `config.json` and the credential helpers that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::context::Context;
use crate::ports::Runner;
use crate::ports::engine::Login;
use crate::ports::runner::Cmd;

/// What `config.json` says. Other keys are docker's own business.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// The user's credentials.
#[derive(Default)]
pub struct Credentials {
    config: DockerConfig,
}

/// The user name with which helpers mark a secret that is an identity token.
const TOKEN_USER: &str = "<token>";

impl Credentials {
    /// Reads docker's `config.json` (`DOCKER_CONFIG`, else `~/.docker`). One that is broken is warned of and left out.
    pub fn load(ctx: &Context) -> Self {
        let dir = ctx.vars.get("DOCKER_CONFIG").map_or_else(|| ctx.dirs.home.join(".docker"), PathBuf::from);
        let path = dir.join("config.json");
        match ctx.fs.read(&path) {
            Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(config) => Self { config },
                Err(error) => {
                    ctx.events.warn(format!("{} is left out: it is broken ({error})", path.display()));
                    Self::default()
                }
            },
            Ok(None) => Self::default(),
            Err(error) => {
                ctx.events.warn(format!("{} is left out: {error}", path.display()));
                Self::default()
            }
        }
    }

    /// The login for a registry; `None` where there is none or where its helper has none.
    pub async fn find(&self, host: &str, runner: &dyn Runner) -> Option<Login> {
        let keys = keys_of(host);
        let helper = keys.iter().find_map(|key| self.config.cred_helpers.get(key));
        if let Some(helper) = helper.or(self.config.creds_store.as_ref()) {
            for key in &keys {
                if let Some(login) = ask_helper(helper, key, runner).await {
                    return Some(login);
                }
            }
        }
        keys.iter().filter_map(|key| self.config.auths.get(key)).find_map(Auth::login)
    }
}

impl Auth {
    fn login(&self) -> Option<Login> {
        let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = present(&self.identitytoken) {
            return Some(Login::Identity(token));
        }
        if let (Some(user), Some(password)) = (present(&self.username), present(&self.password)) {
            return Some(Login::Password { user, password });
        }
        let decoded = STANDARD.decode(present(&self.auth)?.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.split_once(':')?;
        // Docker once padded with NUL bytes.
        Some(Login::Password { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() })
    }
}

/// The keys under which docker keeps the login for a host.
fn keys_of(host: &str) -> Vec<String> {
    if host == super::super::reference::DEFAULT_REGISTRY {
        return ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"]
            .map(str::to_owned)
            .to_vec();
    }
    vec![host.to_owned(), format!("https://{host}"), format!("https://{host}/v1/"), format!("https://{host}/v2/")]
}

async fn ask_helper(helper: &str, key: &str, runner: &dyn Runner) -> Option<Login> {
    let honest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if helper.is_empty() || !helper.chars().all(honest) {
        return None;
    }
    let cmd = Cmd::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(key.as_bytes())
        .timeout(Duration::from_secs(10));
    // A helper that fails has no login for this key; which of its words mean that is not specified.
    let output = runner.run(&cmd).await.ok()?;
    let helped: Helped = serde_json::from_slice(&output.stdout).ok()?;
    Some(match helped.username.as_str() {
        TOKEN_USER => Login::Identity(helped.secret),
        _ => Login::Password { user: helped.username, password: helped.secret },
    })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::ports::runner::{OnLine, Output, RunError};

    /// A helper that knows one key.
    struct Helper(&'static str);

    #[async_trait]
    impl Runner for Helper {
        async fn stream(&self, cmd: &Cmd, _: OnLine<'_>) -> Result<Output, RunError> {
            assert_eq!(cmd.line(), "docker-credential-desktop get");
            if cmd.stdin == self.0.as_bytes() {
                let stdout = br#"{"ServerURL":"x","Username":"<token>","Secret":"t0k"}"#.to_vec();
                return Ok(Output { stdout, stderr: Vec::new() });
            }
            let program = "docker-credential-desktop".to_owned();
            Err(RunError::NotFound { program })
        }
    }

    fn credentials(text: &str) -> Credentials {
        Credentials { config: serde_json::from_str(text).unwrap() }
    }

    fn password(user: &str, password: &str) -> Login {
        Login::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[tokio::test]
    async fn logins_are_found_where_docker_keeps_them() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="},"r.example:5000":{"username":"a",
            "password":"b"},"https://i.example":{"identitytoken":"t"},"bad.example":{"auth":"%%"},"e.example":{}},
            "HttpHeaders":{"x":"y"}}"#;
        let found = credentials(text);
        for (host, login) in [
            ("docker.io", Some(password("u", "p:q"))),
            ("r.example:5000", Some(password("a", "b"))),
            ("i.example", Some(Login::Identity("t".to_owned()))),
            ("bad.example", None),
            ("e.example", None),
            ("other.example", None),
        ] {
            assert_eq!(found.find(host, &Helper("")).await, login, "{host}");
        }
    }

    #[tokio::test]
    async fn helpers_are_asked_first() {
        let text = r#"{"auths":{"r.example":{"auth":"dTpw"}},"credsStore":"desktop"}"#;
        let found = credentials(text);
        assert_eq!(found.find("r.example", &Helper("r.example")).await, Some(Login::Identity("t0k".to_owned())));
        assert_eq!(found.find("r.example", &Helper("")).await, Some(password("u", "p")), "the file stays valid");
        let hostile = credentials(r#"{"credHelpers":{"r.example":"../../bin/sh"}}"#);
        assert_eq!(hostile.find("r.example", &Helper("")).await, None);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", password("u", "hidden")).contains("hidden"));
        assert!(!format!("{:?}", Login::Identity("hidden".to_owned())).contains("hidden"));
    }
}
