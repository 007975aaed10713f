//! SQLite as an engine under test, and what is peculiar to its files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{ManualClock, NotificationId, Store};
use conductor_store::{MigrateError, OpenError, SqliteStore};
use tempfile::TempDir;

use crate::harness::{Engine, draft, id_at, new, start};

pub(crate) struct Sqlite(TempDir);

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Where its files lie.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The files that make up a database. The index of the write-ahead log dies with the process.
const FILES: [&str; 2] = ["conductor.db", "conductor.db-wal"];

#[async_trait]
impl Engine for Sqlite {
    fn elsewhere(&self) -> Box<dyn Engine> {
        Box::new(Self::new())
    }

    async fn open(&self, clock: Arc<ManualClock>) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(self.0.path(), clock).unwrap())
    }

    /// Puts the files back to what they were in the last moment of the store's life, so that nothing counts which it
    /// wrote while it was dropped: a killed process would not have.
    async fn crash(&self, store: Arc<dyn Store>) {
        let directory = self.0.path();
        let aside = directory.join("aside");
        copy(directory, &aside);
        drop(store);
        for file in ["conductor.db", "conductor.db-wal", "conductor.db-shm"] {
            remove(&directory.join(file));
        }
        copy(&aside, directory);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in FILES {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        } else {
            remove(&to.join(file));
        }
    }
}

fn remove(file: &Path) {
    if file.exists() {
        std::fs::remove_file(file).unwrap();
    }
}

async fn accept_plain(store: &SqliteStore) -> NotificationId {
    let id = id_at(start(), 1);
    store.accept(new(draft(id, start()))).await.unwrap();
    id
}

fn open(directory: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(directory, Arc::new(ManualClock::at(start())))
}

#[tokio::test]
async fn a_second_process_is_refused_as_long_as_the_first_lives() {
    let directory = TempDir::new().unwrap();
    let first = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Locked(_))));
    first.close().await;
    let second = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Locked(_))));
    drop(second);
    open(directory.path()).unwrap();
}

#[test]
fn a_store_that_is_dropped_without_being_closed_counts_as_dead() {
    let directory = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Arc::new(ManualClock::at(start()));
    runtime.block_on(async {
        let store = SqliteStore::open(directory.path(), clock.clone()).unwrap();
        accept_plain(&store).await;
        drop(store);
        let store = SqliteStore::open(directory.path(), clock.clone()).unwrap();
        assert!(store.arrivals(10).await.unwrap().iter().all(|queued| queued.suspect));
        store.close().await;
        let store = SqliteStore::open(directory.path(), clock).unwrap();
        let left = store.arrivals(10).await.unwrap();
        assert_eq!(left.len(), 1);
        assert!(!left[0].suspect);
    });
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let store = open(directory.path()).unwrap();
    accept_plain(&store).await;
    for file in ["conductor.db", "conductor.db-wal", "conductor.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("conductor.db");
    let text = "Dear diary, this is certainly no database. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    assert_refused(directory.path(), &path);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("conductor.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_refused(directory.path(), &path);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

fn assert_refused(directory: &Path, path: &Path) {
    let error = open(directory).err().unwrap();
    assert!(matches!(&error, OpenError::Migrate(named, MigrateError::Foreign) if named == path), "{error:?}");
    assert!(error.to_string().contains("conductor.db"), "{error}");
    let again = open(directory).err().unwrap();
    assert!(matches!(again, OpenError::Migrate(..)), "the refused one holds no lock: {again:?}");
}

#[tokio::test]
async fn an_old_store_is_opened_where_it_lies() {
    let directory = TempDir::new().unwrap();
    let nested = directory.path().join("data").join("store");
    let store = open(&nested).unwrap();
    let id = accept_plain(&store).await;
    store.close().await;
    let store = open(&nested).unwrap();
    assert_eq!(store.latest(), Some(id));
    tokio::time::timeout(Duration::from_secs(5), store.arrived()).await.unwrap();
}
