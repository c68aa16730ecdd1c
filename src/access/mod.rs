//! How an environment is reached: routes, names, ports, the user's kubeconfig.

pub mod hosts;
pub mod kubeconfig;
pub mod ports;
