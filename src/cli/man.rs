//! `devstack man`.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::{Cli, Session};
use crate::error::{ExitCode, Failure};

/// Arguments of `devstack man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page per verb to this directory instead of printing the main page
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the main page, or writes all pages.
///
/// # Errors
/// The pages cannot be written.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    match &args.dir {
        Some(dir) => write(session, dir)?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| Failure::of_output(&error))?;
            session.ui.text(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(ExitCode::Done)
}

fn write(session: &Session, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir)).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot write manual pages to {}", dir.display()))
            .cause(error.to_string())
    })?;
    let text = format!("{}\n", dir.display());
    session.ui.result(serde_json::json!({ "directory": dir }), &text)
}
