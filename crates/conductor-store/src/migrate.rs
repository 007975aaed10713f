//! Numbered SQL files, each applied once, forward only, all that are missing in one transaction: one that fails half-way
//! leaves the file as it was. That is why no copy is made before: it could only serve the way back to an older program,
//! for which it would have to be restored before the newer one accepts anything. Whoever wants it makes a backup first.

use ring::digest::{SHA256, digest};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};

use crate::sqlite::is_damage;

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
    include_str!("../migrations/sqlite/0007_audit.sql"),
    include_str!("../migrations/sqlite/0008_callbacks.sql"),
    include_str!("../migrations/sqlite/0009_bytes.sql"),
    include_str!("../migrations/sqlite/0010_trace.sql"),
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
    /// A migration could not be applied. The file is as it was.
    #[error("migration {0} could not be applied, and nothing was changed: {1}")]
    Failed(u32, #[source] rusqlite::Error),
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

/// How many migrations a file of Conductor's has; none means that nothing is in it yet. Refuses one whose migrations are
/// not this program's. Only reads.
pub(crate) fn version(connection: &Connection) -> Result<u32, MigrateError> {
    version_by(connection, MIGRATIONS)
}

/// Applies the migrations that are missing to a file that is new or Conductor's.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), MigrateError> {
    migrate_by(connection, MIGRATIONS)
}

/// How many migrations this program knows.
pub(crate) fn known() -> u32 {
    number_of(MIGRATIONS)
}

fn version_by(connection: &Connection, migrations: &[&str]) -> Result<u32, MigrateError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'migration'";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(0);
    }
    let found = connection.query_row("SELECT count(*) FROM migration", [], |row| row.get(0))?;
    let known = number_of(migrations);
    if found > known {
        return Err(MigrateError::Newer { found, known });
    }
    for (number, sql) in (1..=found).zip(migrations) {
        let applied: Option<Vec<u8>> = connection
            .query_row("SELECT checksum FROM migration WHERE number = ?1", [number], |row| row.get(0))
            .optional()?;
        if applied.as_deref() != Some(digest(&SHA256, sql.as_bytes()).as_ref()) {
            return Err(MigrateError::Changed(number));
        }
    }
    Ok(found)
}

fn migrate_by(connection: &mut Connection, migrations: &[&str]) -> Result<(), MigrateError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version_by(&transaction, migrations)?;
    if found == number_of(migrations) {
        return Ok(());
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS migration (number INTEGER NOT NULL PRIMARY KEY, checksum BLOB NOT NULL) STRICT",
    )?;
    for (number, sql) in (1u32..).zip(migrations).skip_while(|(number, _)| *number <= found) {
        let failed = |error: rusqlite::Error| match is_damage(&error) {
            true => MigrateError::Engine(error),
            false => MigrateError::Failed(number, error),
        };
        transaction.execute_batch(sql).map_err(failed)?;
        let checksum = digest(&SHA256, sql.as_bytes());
        transaction
            .execute("INSERT INTO migration (number, checksum) VALUES (?1, ?2)", (number, checksum.as_ref()))
            .map_err(failed)?;
    }
    transaction.commit()?;
    if found > 0 {
        tracing::info!(from = found, to = number_of(migrations), "The store's tables were brought up to date");
    }
    Ok(())
}

fn number_of(migrations: &[&str]) -> u32 {
    u32::try_from(migrations.len()).unwrap_or(u32::MAX)
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
        assert_eq!(version(&connection).unwrap(), known());
        let known = known();
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
    /// Every table, index and view, and every row, as text.
    fn dump(connection: &Connection) -> Vec<String> {
        let lines = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            let columns = statement.column_count();
            let line = |row: &rusqlite::Row<'_>| {
                let values = (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column));
                Ok(format!("{:?}", values.collect::<Result<Vec<_>, _>>()?))
            };
            statement.query_map([], line).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let mut all = lines("SELECT type, name, sql FROM sqlite_schema ORDER BY name");
        for table in ["migration", "meta", "notification"] {
            all.extend(lines(&format!("SELECT * FROM {table}")));
        }
        all
    }

    /// A store of the first version with something in it.
    fn first_version() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate_by(&mut connection, &MIGRATIONS[..1]).unwrap();
        connection.execute_batch("INSERT INTO meta VALUES ('stopped_cleanly', 1)").unwrap();
        connection
    }

    #[test]
    fn a_migration_that_fails_leaves_the_store_as_it_was() {
        let mut connection = first_version();
        let before = dump(&connection);
        let good = "CREATE TABLE more (x); INSERT INTO meta VALUES ('more', 2); DELETE FROM meta WHERE name <> 'more'";
        let bad = "CREATE TABLE still_more (x); INSERT INTO nowhere VALUES (1)";
        let failed = migrate_by(&mut connection, &[MIGRATIONS[0], good, bad]).unwrap_err();
        assert!(matches!(failed, MigrateError::Failed(3, _)), "{failed:?}");
        assert!(failed.to_string().contains("nothing was changed"), "{failed}");
        assert_eq!(dump(&connection), before);
        migrate_by(&mut connection, &[MIGRATIONS[0], good]).unwrap();
        assert_ne!(dump(&connection), before);
        assert_eq!(version_by(&connection, &[MIGRATIONS[0], good]).unwrap(), 2);
    }

    #[test]
    fn a_disk_that_fills_up_during_a_migration_leaves_the_store_as_it_was() {
        let mut connection = first_version();
        let before = dump(&connection);
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let _: i64 = connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0)).unwrap();
        let large = "CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99) \
                     SELECT randomblob(1000) AS x FROM n";
        let failed = migrate_by(&mut connection, &[MIGRATIONS[0], large]).unwrap_err();
        assert!(matches!(failed, MigrateError::Failed(2, _)), "{failed:?}");
        assert_eq!(dump(&connection), before);
    }

    #[test]
    fn every_older_version_is_brought_up_to_this_one() {
        let mut newest = Connection::open_in_memory().unwrap();
        migrate(&mut newest).unwrap();
        for older in 0..MIGRATIONS.len() {
            let mut connection = Connection::open_in_memory().unwrap();
            migrate_by(&mut connection, &MIGRATIONS[..older]).unwrap();
            migrate(&mut connection).unwrap();
            assert_eq!(dump(&connection), dump(&newest), "from {older}");
        }
    }

    #[test]
    fn a_gap_in_the_migrations_is_no_version_of_this_program() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection.execute_batch("DELETE FROM migration WHERE number = 2").unwrap();
        assert!(matches!(version(&connection), Err(MigrateError::Changed(2))));
    }

    #[test]
    fn what_waits_in_an_older_store_is_weighed() {
        let connection = Connection::open_in_memory().unwrap();
        let before = MIGRATIONS.iter().position(|sql| sql.contains("ADD COLUMN bytes")).unwrap();
        MIGRATIONS[..before].iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        let notification = "INSERT INTO notification (id, tenant, channel, channel_id, target, message, title, priority, \
                            format, data, metadata, key, fallback, accepted_at, expires_at) VALUES ";
        let small = "(x'01', x'02', 'log', x'03', NULL, 'ü', NULL, 'low', 'text', NULL, NULL, NULL, NULL, 1, 2)";
        let full = r#"(x'04', x'02', 'log', x'03', 'to', 'abc', 'title', 'low', 'text', '{"a":1}', '{"b":"c"}', 'key',
                      '[]', 1, 2)"#;
        let pending = "INSERT INTO pending (notification, ordinal, tenant, channel_id, lane, priority, due_at, expires_at, \
                       attempts, failures, next_fallback, held, claimed, lost) VALUES \
                       (x'01', 0, x'02', x'03', 0, 'low', 1, 2, 0, 0, 0, 0, 0, 0), \
                       (x'04', 1, x'02', x'03', 0, 'low', 1, 2, 0, 0, 0, 0, 0, 0)";
        connection.execute_batch(&format!("{notification} {small}, {full}; {pending}")).unwrap();
        MIGRATIONS[before..].iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        let bytes = |id: u8| {
            let sql = "SELECT bytes FROM pending WHERE notification = ?1";
            connection.query_row(sql, [vec![id]], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(bytes(1), 2);
        assert_eq!(bytes(4), i64::try_from(r#"toabctitle{"a":1}{"b":"c"}key[]"#.len()).unwrap());
    }
}
