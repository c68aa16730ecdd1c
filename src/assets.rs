//! The data that travels in the binary: `profiles/` with its components, catalog, recipes and content.

use include_dir::{Dir, include_dir};

/// Everything below `profiles/`.
pub static PROFILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/profiles");
