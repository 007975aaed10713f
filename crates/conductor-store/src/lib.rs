//! Keeps Conductor's notifications. One engine so far: SQLite, which needs nothing but a file.

mod migrate;
mod sqlite;

pub use migrate::MigrateError;
pub use sqlite::{OpenError, SqliteStore};
