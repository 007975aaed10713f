//! The configuration: three JSON files and the environment, become one [`Configuration`].

pub mod model;

pub use model::{CallbackConfig, ChannelConfig, CommonOptions, Configuration, TenantConfig};
