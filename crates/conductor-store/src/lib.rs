//! Keeps Conductor's notifications. One engine so far: SQLite, which needs nothing but a file.

mod audit_file;
mod migrate;
mod room;
mod sqlite;

pub use audit_file::{AuditFault, AuditFile, AuditFileError, AuditVerdict};
pub use migrate::MigrateError;
pub use room::Room;
pub use sqlite::{
    Contents, Copied, CopyError, Inspection, OpenError, Soundness, SqliteStore, back_up, inspect, look_through, restore,
};
