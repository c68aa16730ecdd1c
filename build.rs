//! The profiles travel in the binary; a changed one makes another binary.

#![expect(clippy::print_stdout, reason = "how a build script speaks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=profiles");
}
