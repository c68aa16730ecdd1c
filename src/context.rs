//! What every command works with: directories, ports, the event sink, cancellation. Built once, at the edge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::event::EventSink;
use crate::ports::clock::SystemClock;
use crate::ports::hostfs::RealFs;
use crate::ports::{Clock, HostFs};
use crate::redact::Redactor;

/// The environment variables of the process, read once; logic looks here and never at `std::env`.
#[derive(Debug, Clone, Default)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// The variables of this process; those that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// A variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Vars {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Where devstack keeps things on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// State: one directory an environment. `DEVSTACK_HOME`, else the XDG state directory.
    pub state: PathBuf,
    /// Caches: blobs, builds, tools. The XDG cache directory; `DEVSTACK_CACHE` overrides it.
    pub cache: PathBuf,
    /// The user's home directory.
    pub home: PathBuf,
}

impl Dirs {
    /// The directories of this process; `None` where there is no home directory.
    pub fn of(vars: &Vars) -> Option<Self> {
        let base = directories::BaseDirs::new()?;
        let project = directories::ProjectDirs::from("dev", "devstack", "devstack")?;
        let state = vars
            .get("DEVSTACK_HOME")
            .map_or_else(|| project.state_dir().unwrap_or_else(|| project.data_local_dir()).to_path_buf(), absolute);
        let cache = vars.get("DEVSTACK_CACHE").map_or_else(|| project.cache_dir().to_path_buf(), absolute);
        Some(Self { state, cache, home: base.home_dir().to_path_buf() })
    }

    /// The directory of one environment.
    pub fn environment(&self, name: &str) -> PathBuf {
        self.state.join("environments").join(name)
    }
}

/// What the user said on the command line that concerns every command.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--yes`: every question but one about privilege is answered.
    pub yes: bool,
    /// Whether a person can be asked (standard input and error are terminals).
    pub interactive: bool,
    /// `-v`.
    pub verbose: bool,
    /// `--timeout`, the deadline of each wait; a default of the wait's own when absent.
    pub timeout: Option<std::time::Duration>,
}

/// What every command works with.
#[derive(Clone)]
pub struct Context {
    /// Directories.
    pub dirs: Dirs,
    /// Variables of the process.
    pub vars: Vars,
    /// Where events go.
    pub events: EventSink,
    /// Where secret values are registered, so that no event or message shows them.
    pub redactor: Redactor,
    /// Fires on Ctrl-C, SIGTERM and the end of the terminal.
    pub cancel: CancellationToken,
    /// Small files.
    pub fs: Arc<dyn HostFs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Command-line options.
    pub options: Options,
}

impl Context {
    /// A context on the real machine.
    pub fn real(dirs: Dirs, vars: Vars, events: EventSink, options: Options) -> Self {
        Self {
            dirs,
            vars,
            events,
            redactor: Redactor::default(),
            cancel: CancellationToken::new(),
            fs: Arc::new(RealFs),
            clock: Arc::new(SystemClock),
            options,
        }
    }

    /// The user's own kubeconfig file, the first of [`Context::user_kubeconfigs`].
    pub fn user_kubeconfig(&self) -> PathBuf {
        self.listed_kubeconfigs().next().unwrap_or_else(|| self.default_kubeconfig())
    }

    /// All of the user's kubeconfig files, in kubectl's order: those of `KUBECONFIG`, else `~/.kube/config`. What
    /// `devstack env` has put there is an environment's own file and not the user's.
    pub fn user_kubeconfigs(&self) -> Vec<PathBuf> {
        let listed: Vec<PathBuf> = self.listed_kubeconfigs().collect();
        if listed.is_empty() { vec![self.default_kubeconfig()] } else { listed }
    }

    fn listed_kubeconfigs(&self) -> impl Iterator<Item = PathBuf> {
        let listed = std::env::split_paths(self.vars.get("KUBECONFIG").unwrap_or_default());
        let listed = listed.filter(|path| !path.as_os_str().is_empty()).map(absolute);
        listed.filter(|path| !path.starts_with(&self.dirs.state))
    }

    fn default_kubeconfig(&self) -> PathBuf {
        self.dirs.home.join(".kube").join("config")
    }

    /// The hosts file to manage: `DEVSTACK_HOSTS_FILE`, else the system's.
    pub fn hosts_file(&self) -> PathBuf {
        self.vars.get("DEVSTACK_HOSTS_FILE").map_or_else(|| Path::new("/etc/hosts").to_path_buf(), absolute)
    }
}

/// A path of a variable as it means the same in any working directory: what is recorded of it is read in others.
fn absolute(path: impl AsRef<Path>) -> PathBuf {
    std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::{self, FakeClock, FakeFs};

    #[test]
    fn the_kubeconfig_of_an_environment_is_not_the_users() {
        let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let own = ctx.dirs.environment("a").join("kubeconfig").display().to_string();
        let home = ctx.dirs.home.join(".kube/config");
        let mut files = |list: &str| {
            ctx.vars = Vars::from([("KUBECONFIG", list)]);
            assert_eq!(ctx.user_kubeconfigs().first(), Some(&ctx.user_kubeconfig()));
            ctx.user_kubeconfigs()
        };
        assert_eq!(files(""), std::slice::from_ref(&home));
        assert_eq!(files(&own), [home], "as after eval \"$(devstack env)\"");
        assert_eq!(files(&format!("{own}::/work:/lab")), [Path::new("/work"), Path::new("/lab")]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(files("./config:lab"), [here.join("config"), here.join("lab")], "recorded, and read elsewhere");
    }

    #[test]
    fn paths_of_variables_do_not_follow_the_working_directory() {
        let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let here = std::env::current_dir().unwrap();
        let vars = [("DEVSTACK_HOME", "state"), ("DEVSTACK_CACHE", "./cache"), ("DEVSTACK_HOSTS_FILE", "hosts")];
        ctx.vars = Vars::from(vars);
        assert_eq!(ctx.hosts_file(), here.join("hosts"));
        let dirs = Dirs::of(&ctx.vars).unwrap();
        assert_eq!((dirs.state, dirs.cache), (here.join("state"), here.join("cache")));
    }
}
