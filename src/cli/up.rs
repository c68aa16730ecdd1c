//! `devstack up [PROFILE]`.

use std::fmt::Write as _;

use super::Session;
use super::session::Runtime;
use crate::error::{ExitCode, Failure};
use crate::ui::confirm::Question;
use crate::up::{self, Asks, Desired, Sudo};

/// Arguments of `devstack up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A built-in profile, a file or a directory; the recorded one, ./devstack.yaml or s3www unless given
    pub profile: Option<String>,
    /// Where the cluster comes from; auto unless given: the environment's own, else kind where an engine answers, else
    /// minikube where it is installed
    #[arg(long, value_name = "PROVIDER", value_parser = ["auto", "kind", "minikube", "existing"])]
    pub provider: Option<String>,
    /// A context of your kubeconfig, for a cluster that is there (implies --provider existing)
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The driver that minikube uses; its own choice unless given
    #[arg(long, value_name = "DRIVER")]
    pub driver: Option<String>,
    /// How many nodes, 1 to 9; the profile says how many unless given
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: Option<u8>,
    /// Set a parameter of the profile, or COMPONENT.PARAMETER of a component
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = super::values::setting)]
    pub sets: Vec<(String, String)>,
    /// Ask no registry
    #[arg(long)]
    pub offline: bool,
    /// Let sudo add the names to the hosts file; otherwise you are asked, and without a terminal they are left out
    #[arg(long)]
    pub sudo: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Brings the environment up and prints what was proven.
///
/// # Errors
/// Whatever keeps it from working.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let desired = Desired {
        environment: session.global.env.clone(),
        profile: args.profile.clone(),
        sets: args.sets.clone(),
        nodes: args.nodes,
        provider: args.provider.as_deref().and_then(|provider| provider.parse().ok()),
        context: args.context.clone(),
        driver: args.driver.clone(),
        offline: args.offline,
        dry_run: args.dry_run,
    };
    let ask = |what: Vec<String>| {
        session.ui.confirm(&Question {
            what,
            ask: "Go on".to_owned(),
            explain: "Substitutes and source builds stand in for images that cannot be had here. Lost data cannot be \
                      brought back. In a cluster that is not devstack's own, everything that is made carries a mark \
                      and is recorded, and `devstack down` takes away just that. Nothing is changed before you say \
                      yes."
                .to_owned(),
            privilege: false,
        })
    };
    let ask_sudo = |what: Vec<String>| {
        session.ui.confirm(&Question {
            what,
            ask: "Change the hosts file with sudo".to_owned(),
            explain: "Only root may write the file. devstack runs itself with sudo for this one change and checks \
                      every line again before it writes. Without the names every *.localhost URL works all the same."
                .to_owned(),
            privilege: true,
        })
    };
    let sudo = match args.sudo {
        true => Sudo::Allowed,
        false if session.ctx.options.interactive => Sudo::Ask(&ask_sudo),
        false => Sudo::Nobody,
    };
    session.block_on(Runtime::Parallel, async {
        if let Some(upped) = up::up(&session.ctx, &desired, Asks { consent: &ask, sudo }).await? {
            session.ui.result(up::result(&upped), &text(&upped))?;
        }
        Ok(ExitCode::Done)
    })
}

fn text(upped: &up::Upped) -> String {
    let mut text = format!("READY {:.0}s", upped.seconds);
    for endpoint in &upped.endpoints {
        let _ = write!(text, "   {}", endpoint.url);
    }
    let name = &upped.environment;
    text.push_str(&format!("\nnext   eval \"$(devstack env --env {name})\" · devstack status · devstack down\n"));
    text
}
