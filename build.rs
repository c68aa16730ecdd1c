//! The profiles travel in the binary; a changed one makes another binary.

fn main() {
    println!("cargo::rerun-if-changed=profiles");
}
