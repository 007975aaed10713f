//! The configuration: three JSON files and the environment, become one [`Configuration`].

mod callbacks;
mod channels;
mod document;
pub mod edit;
mod enabled;
pub mod environment;
pub mod first_run;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hopeless;
mod list_file;
mod load;
pub mod model;
mod otel;
mod readings;
pub mod report;
mod resolve;
pub mod schema;
pub mod settings;
pub mod sha256;
mod shape;
mod source;
mod tenants;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unreachable;
mod values;
mod variables;
mod visible;

pub use environment::{Environment, Lookup};
pub use load::load;
pub use model::{CallbackConfig, ChannelConfig, CommonOptions, Configuration, Lasting, TenantConfig};
pub use readings::Readings;
pub use report::{Fault, Place, Position, Report, Severity};
pub use source::{Loaded, Source};
pub use tenants::{ADMIN_KEY_VARIABLE, KEY_MIN_CHARS, KEY_MIN_DISTINCT, NEXT_SUFFIX};
pub(crate) use values::parse_duration;
pub(crate) use visible::name_or_stars;
