//! Small helpers: child processes of the test, digests, files.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use devstack::build::{self, BuildError};
use devstack::context::{Context, Dirs, Options, Vars};
use devstack::event::EventSink;
use devstack::ports::runner::ProcessRunner;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// Runs a command and gives what it wrote; panics with both streams where it fails.
pub fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?} ended with {}:\n{out}{err}", done.status);
    out.into_owned()
}

/// Tells a person something, also where the test passes, whose other words are swallowed then. `scripts/test` repeats
/// lines that begin with `skipped: `, `matrix: ` or `measured: `.
pub fn tell(line: &str) {
    // One test at a time: the name of this one stands before, on a line that has not ended.
    let _ = writeln!(std::io::stderr(), "\n{line}");
}

/// Runs docker's CLI.
pub fn docker(args: &[&str]) -> String {
    output(Command::new("docker").args(args))
}

/// A program that devstack builds from its module for itself.
pub fn tool(name: &str) -> Result<PathBuf, BuildError> {
    let vars = Vars::of_process();
    let ctx = Context::real(Dirs::of(&vars).unwrap(), vars, EventSink::null(), Options::default());
    let runner = Arc::new(ProcessRunner::new(CancellationToken::new(), "e2e"));
    runtime().block_on(build::tool(&ctx, runner, name, name))
}

/// What runs one future of the library's.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Whether no container may have `CAP_SYS_RESOURCE` here: it is not in the bounding set.
pub fn lacks_sys_resource() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    (u64::from_str_radix(set.trim(), 16).unwrap() >> 24) & 1 == 0
}

/// A digest in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The project's GIF as it is in the repository.
pub fn gif() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/content/site.gif")).unwrap()
}

/// Writes a file of `size` bytes that no compression makes smaller, and gives its digest.
pub fn noise(path: &Path, size: usize) -> String {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut digest = Sha256::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left = size;
    while left > 0 {
        let mut block = Vec::with_capacity(1 << 16);
        while block.len() < (1 << 16).min(left) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        block.truncate(left);
        digest.update(&block);
        file.write_all(&block).unwrap();
        left -= block.len();
    }
    file.flush().unwrap();
    hex(&digest.finalize())
}
