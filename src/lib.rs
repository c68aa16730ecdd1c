//! devstack brings up a whole local Kubernetes environment with one command and cleans it up without a trace.
//!
//! The library holds everything but argument parsing and rendering of a terminal; `main.rs` is a thin shell.
//! Dependencies point one way: `cli → executor → step → {cluster, kube, image, access, check} → ports`.

pub mod access;
pub mod assets;
pub mod build;
pub mod bundle;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod doctor;
pub mod down;
pub mod environments;
pub mod error;
pub mod event;
pub mod executor;
pub mod facts;
pub mod graph;
pub mod hex;
pub mod image;
pub mod journal;
pub mod kill;
pub mod kube;
pub mod oci;
pub mod plan;
pub mod ports;
pub mod profile;
pub mod redact;
pub mod secrets;
pub mod stall;
pub mod status;
pub mod step;
pub mod step_ids;
pub mod ui;
pub mod undo;
pub mod up;
pub mod yaml;
