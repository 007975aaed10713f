//! Keeps Conductor's notifications. One engine so far: SQLite, which needs nothing but a file.

mod audit_file;
mod migrate;
mod sqlite;

pub use audit_file::{AuditFault, AuditFile, AuditFileError, AuditVerdict};
pub use migrate::MigrateError;
pub use sqlite::{OpenError, SqliteStore};
