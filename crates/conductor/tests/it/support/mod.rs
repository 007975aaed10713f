//! What the system tests share: a real server on a free port, and a scripted provider.

pub(crate) mod client;
pub(crate) mod description;
pub(crate) mod latency;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod receipts;
pub(crate) mod server;
pub(crate) mod skip;
pub(crate) mod wire;
