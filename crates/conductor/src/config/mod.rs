//! The configuration: three JSON files and the environment, become one [`Configuration`].

pub mod edit;
pub mod first_run;
pub mod model;
pub mod settings;

pub use model::{CallbackConfig, ChannelConfig, CommonOptions, Configuration, TenantConfig};
