//! The registry of the registry's own tests.
#![allow(dead_code, reason = "what those tests do with it is not done here")]

#[path = "../registry/proxy.rs"]
pub mod proxy;
#[path = "../registry/world.rs"]
pub mod world;
