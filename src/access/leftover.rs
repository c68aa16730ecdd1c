//! What a devstack that was killed in the middle of a write left beside the files that it writes: the user's
//! kubeconfig, the hosts file, and those of the environment's own directory.

use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::ports::hostfs::abandoned;

/// The files that are left. A directory that cannot be read has none that anybody could tell.
pub fn find(ctx: &Context, dir: &Path) -> Vec<PathBuf> {
    let beside = |file: &Path| {
        let target = ctx.fs.resolve(file).ok()?;
        abandoned(&*ctx.fs, target.parent()?, target.file_name()?.to_str()).ok()
    };
    let shared = [ctx.user_kubeconfig(), ctx.hosts_file()];
    let mut left: Vec<PathBuf> = shared.iter().filter_map(|file| beside(file)).flatten().collect();
    left.extend(abandoned(&*ctx.fs, dir, None).unwrap_or_default());
    left
}

/// Removes them, as far as this account may: what is beside the system's hosts file is root's. What stays is named by
/// [`find`].
pub fn sweep(ctx: &Context, dir: &Path) {
    for path in find(ctx, dir) {
        let _ = ctx.fs.remove(&path);
    }
}
