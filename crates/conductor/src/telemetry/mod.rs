//! What the server tells about itself.

pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod process;
pub mod traces;
