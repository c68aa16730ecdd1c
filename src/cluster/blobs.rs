//! Image layers that a kind node takes without a copy.
//!
//! A directory of the environment is mounted into every node, read-only. It holds hard links to the layers in
//! devstack's store, so that neither `image prune` nor a removed cache takes them from under a running cluster. A node
//! gets a link to each in its containerd's content store and tells containerd of it: `ctr content ingest` with a digest
//! that the store has already moves no bytes (containerd's `shared` content policy, its default). Streaming the same
//! layers costs some 25 s of two busy cores for 400 MB a node.
//!
//! Nothing depends on it: what a node could not link is streamed to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::facts::{EngineFacts, EngineKind};
use crate::oci::{Digest, Store};
use crate::ports::Engine;

/// Where the directory is in a node.
pub const MOUNT: &str = "/kind/devstack";

/// Prints the hexadecimal digest of each blob that containerd has now. The label keeps containerd, which cleans up when it
/// starts, from removing what no image refers to yet. Arguments: the mount, then `DIGEST:BYTES` each.
/// The first directory is that of devstack's own node image, the second that of kind's.
const LINK: &str = r#"
from=$1
shift
for root in /kind/containerd /var/lib/containerd; do
  blobs=$root/io.containerd.content.v1.content/blobs/sha256
  test -d "$blobs" && break
done
test -d "$blobs" || exit 0
for blob; do
  digest=${blob%:*} size=${blob#*:}
  test "$(stat -c %s "$from/$digest" 2>/dev/null)" = "$size" || continue
  test -e "$blobs/$digest" || ln -s "$from/$digest" "$blobs/$digest" || continue
  ctr -n k8s.io content ingest --expected-digest "sha256:$digest" --expected-size "$size" "devstack-$digest" \
    <"$from/$digest" \
    && ctr -n k8s.io content label "sha256:$digest" containerd.io/gc.root=devstack >/dev/null && echo "$digest"
done
exit 0
"#;

/// Those of the blobs that a node's containerd still has: kind restarts it while a cluster is made.
pub async fn kept(engine: &dyn Engine, node: &str, blobs: &BTreeSet<Digest>) -> BTreeSet<Digest> {
    if blobs.is_empty() {
        return BTreeSet::new();
    }
    let Ok(output) = engine.exec(node, &["ctr", "-n", "k8s.io", "content", "ls", "-q"], None).await else {
        return BTreeSet::new();
    };
    let text = output.text();
    let there: BTreeSet<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("sha256:")).collect();
    blobs.iter().filter(|digest| there.contains(digest.hex())).cloned().collect()
}

/// Whether a directory of this host can be mounted into the engine's containers: only where the engine certainly
/// shares its file system. Desktop products share some directories under rules of their own; an engine elsewhere
/// would make an empty directory there.
pub fn can_mount(engine: &EngineFacts) -> bool {
    engine.shares_host_kernel && matches!(engine.kind, EngineKind::DockerEngine | EngineKind::Podman)
}

/// Puts hard links to the blobs into the mounted directory; gives those that are there now. Those of another file
/// system cannot be.
pub fn offer(store: &Store, blobs: &BTreeMap<Digest, u64>, directory: &Path) -> BTreeMap<Digest, u64> {
    let offered = |digest: &Digest| match std::fs::hard_link(store.blob_path(digest), directory.join(digest.hex())) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::AlreadyExists,
    };
    blobs.iter().filter(|(digest, _)| offered(digest)).map(|(digest, size)| (digest.clone(), *size)).collect()
}

/// Links blobs that were offered into a node's containerd; gives those that it has now. What cannot be linked, for
/// whatever reason, is not among them.
pub async fn link(engine: &dyn Engine, node: &str, blobs: &BTreeMap<Digest, u64>) -> BTreeSet<Digest> {
    if blobs.is_empty() {
        return BTreeSet::new();
    }
    let words: Vec<String> = blobs.iter().map(|(digest, size)| format!("{}:{size}", digest.hex())).collect();
    let argv: Vec<&str> = ["sh", "-c", LINK, "sh", MOUNT].into_iter().chain(words.iter().map(String::as_str)).collect();
    let Ok(output) = engine.exec(node, &argv, None).await else { return BTreeSet::new() };
    let text = output.text();
    let linked: BTreeSet<&str> = text.lines().map(str::trim).collect();
    blobs.keys().filter(|digest| linked.contains(digest.hex())).cloned().collect()
}
