//! Numbered SQL files, each applied once, forward only, all that are missing in one transaction.

use ring::digest::{SHA256, digest};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};

/// Marks a file as Conductor's: "CNDR".
const APPLICATION_ID: i32 = 0x434e_4452;

/// The migrations in their order; number 1 is the first.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/0001_init.sql"),
    include_str!("../migrations/sqlite/0002_progress.sql"),
    include_str!("../migrations/sqlite/0003_retention.sql"),
    include_str!("../migrations/sqlite/0004_replays.sql"),
    include_str!("../migrations/sqlite/0005_receipts.sql"),
    include_str!("../migrations/sqlite/0006_pauses.sql"),
    include_str!("../migrations/sqlite/0009_trace.sql"),
];

/// Why the store's tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The file belongs to another program, or is no database at all.
    #[error("the file is no store of Conductor's")]
    Foreign,
    /// The file was written by a newer version.
    #[error("the store has version {found}; this program knows versions up to {known}: use the newer program")]
    Newer {
        /// The file's version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A migration that was applied is not the one that this program has.
    #[error("migration {0} of the store is not the one of this program")]
    Changed(u32),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] rusqlite::Error),
}

/// Refuses a file that is not Conductor's. Only reads, so that such a file stays as it is.
pub(crate) fn refuse_foreign(connection: &Connection) -> Result<(), MigrateError> {
    let read = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let foreign = read("PRAGMA application_id").and_then(|application| {
        Ok(application != i64::from(APPLICATION_ID) && read("SELECT count(*) FROM sqlite_schema")? > 0)
    });
    match foreign {
        Ok(false) => Ok(()),
        Ok(true) => Err(MigrateError::Foreign),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Err(MigrateError::Foreign),
        Err(error) => Err(error.into()),
    }
}

/// Applies the migrations that are missing to a file that is new or Conductor's.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), MigrateError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS migration (number INTEGER NOT NULL PRIMARY KEY, checksum BLOB NOT NULL) STRICT",
    )?;
    let found: u32 = transaction.query_row("SELECT count(*) FROM migration", [], |row| row.get(0))?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(MigrateError::Newer { found, known });
    }
    for (number, sql) in (1u32..).zip(MIGRATIONS) {
        let checksum = digest(&SHA256, sql.as_bytes());
        let applied: Option<Vec<u8>> = transaction
            .query_row("SELECT checksum FROM migration WHERE number = ?1", [number], |row| row.get(0))
            .optional()?;
        match applied {
            Some(applied) if applied == checksum.as_ref() => {}
            Some(_) => return Err(MigrateError::Changed(number)),
            None => {
                transaction.execute_batch(sql)?;
                transaction
                    .execute("INSERT INTO migration (number, checksum) VALUES (?1, ?2)", (number, checksum.as_ref()))?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_migrated_once_and_refused_when_it_is_newer_changed_or_foreign() {
        let mut connection = Connection::open_in_memory().unwrap();
        refuse_foreign(&connection).unwrap();
        migrate(&mut connection).unwrap();
        refuse_foreign(&connection).unwrap();
        migrate(&mut connection).unwrap();
        let known = u32::try_from(MIGRATIONS.len()).unwrap();
        connection.execute("INSERT INTO migration VALUES (?1, x'00')", [known + 1]).unwrap();
        let newer = migrate(&mut connection).unwrap_err();
        assert!(matches!(newer, MigrateError::Newer { found, known: k } if found == known + 1 && k == known));
        connection.execute("DELETE FROM migration WHERE number > ?1", [known]).unwrap();
        connection.execute_batch("UPDATE migration SET checksum = x'00'").unwrap();
        assert!(matches!(migrate(&mut connection), Err(MigrateError::Changed(1))));
        let other = Connection::open_in_memory().unwrap();
        other.execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(matches!(refuse_foreign(&other), Err(MigrateError::Foreign)));
    }
}
