//! How an environment is reached: routes, names, ports, the user's kubeconfig, content, proof.

pub mod hosts;
pub mod incluster;
pub mod kubeconfig;
pub mod leftover;
pub mod limits;
pub mod ports;
pub mod privilege;
pub mod s3;
pub mod site;
pub mod tunnel;
pub mod verify;
