//! Files that are not as they were written: told before anything is promised, and never passed over.

use std::fs;
use std::os::unix::fs::FileExt as _;

use conductor_core::ManualClock;
use tempfile::TempDir;

use super::fault_tests::{NOW, accept, claim, open};
use super::*;
use rusqlite::Connection;

const PAGE: u64 = 4_096;
/// Enough that the tables have leaves of their own.
const MANY: u8 = 200;

fn open_in(directory: &TempDir) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(directory.path(), Arc::new(ManualClock::at(NOW)))
}

/// Opens it, and expects to be told of damage with these words.
#[track_caller]
fn expect_damage(directory: &TempDir, words: &str) {
    let before = files(directory);
    match open_in(directory) {
        Err(error @ OpenError::Damaged(..)) => {
            let text = error.to_string();
            assert!(text.contains(FILE) && text.contains(words), "{words:?} not in {text:?}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was opened as if nothing had happened"),
    }
    assert!(files(directory) == before, "what is damaged is left as it is");
}

/// The two files that hold everything; none where there is nothing in it.
fn files(directory: &TempDir) -> [Option<Vec<u8>>; 2] {
    let read = |name| fs::read(directory.path().join(name)).ok().filter(|content| !content.is_empty());
    [FILE, "conductor.db-wal"].map(read)
}

fn write_files(directory: &TempDir, [database, log]: &[Option<Vec<u8>>; 2]) {
    for (name, content) in [(FILE, database), ("conductor.db-wal", log)] {
        let path = directory.path().join(name);
        let _ = fs::remove_file(&path);
        content.as_ref().map(|content| fs::write(path, content)).transpose().unwrap();
    }
    let _ = fs::remove_file(directory.path().join("conductor.db-shm"));
}

async fn filled() -> (SqliteStore, TempDir) {
    let (store, directory) = open();
    for number in 1..=MANY {
        accept(&store, number).await.unwrap();
    }
    (store, directory)
}

/// The pages of a table, its root first.
fn pages(directory: &TempDir, table: &str) -> Vec<u64> {
    let connection = Connection::open(directory.path().join(FILE)).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let root: i64 = connection.query_row(sql, [table], |row| row.get(0)).unwrap();
    let root = u64::try_from(root).unwrap();
    let mut page = vec![0; usize::try_from(PAGE).unwrap()];
    let file = fs::File::open(directory.path().join(FILE)).unwrap();
    file.read_exact_at(&mut page, (root - 1) * PAGE).unwrap();
    // An inner page of an index: its cells begin with the number of the page below.
    assert_eq!(page[0], 2, "{table} has one page only");
    let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
    let below = (0..cells).map(|cell| {
        let at = usize::from(u16::from_be_bytes([page[12 + 2 * cell], page[13 + 2 * cell]]));
        u64::from(u32::from_be_bytes(page[at..at + 4].try_into().unwrap()))
    });
    std::iter::once(root).chain(below).collect()
}

fn overwrite(directory: &TempDir, page: u64) {
    let file = fs::File::options().write(true).open(directory.path().join(FILE)).unwrap();
    file.write_all_at(&[0xa5; PAGE as usize], (page - 1) * PAGE).unwrap();
}

#[tokio::test]
async fn a_page_that_was_overwritten_is_told_at_the_start() {
    let (store, directory) = filled().await;
    store.close().await;
    drop(store);
    let sound = files(&directory);
    for table in ["notification", "pending", "feed"] {
        for page in pages(&directory, table).into_iter().take(2) {
            overwrite(&directory, page);
            expect_damage(&directory, "damaged");
            write_files(&directory, &sound);
        }
    }
    assert!(open_in(&directory).is_ok());
}

#[tokio::test]
async fn a_file_that_lacks_its_end_is_told_at_the_start() {
    let (store, directory) = filled().await;
    store.close().await;
    drop(store);
    let [database, _] = files(&directory);
    let whole = database.unwrap();
    for length in [whole.len() / 2, whole.len() - 100, whole.len() - usize::try_from(PAGE).unwrap(), 5_000] {
        write_files(&directory, &[Some(whole[..length].to_vec()), None]);
        expect_damage(&directory, "damaged");
    }
}

#[tokio::test]
async fn a_log_that_was_overwritten_is_told_at_the_start_and_a_last_write_that_was_torn_is_not() {
    let (store, directory) = filled().await;
    let killed = files(&directory);
    drop(store);
    let log = killed[1].clone().unwrap();
    let frame = usize::try_from(PAGE).unwrap() + 24;
    assert!(log.len() > 20 * frame, "all is in the log yet");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut log = log.clone();
        change(&mut log);
        write_files(&directory, &[killed[0].clone(), Some(log)]);
    };
    for place in [0, 5, 20, 30] {
        with(&|log| log[place] ^= 0x5a);
        expect_damage(&directory, "has no valid header");
    }
    with(&|log| log.fill(0xa5));
    expect_damage(&directory, "has no valid header");
    // A frame's header, its salt, its page.
    for place in [2, 12, 2_000] {
        with(&|log| log[32 + 5 * frame + place] ^= 0x5a);
        expect_damage(&directory, "is damaged in the middle");
    }
    with(&|log| log[32 + 3 * frame..32 + 9 * frame].fill(0));
    expect_damage(&directory, "is damaged in the middle");
    write_files(&directory, &[None, Some(log.clone())]);
    expect_damage(&directory, "missing or empty");
    write_files(&directory, &[Some(Vec::new()), Some(log.clone())]);
    expect_damage(&directory, "missing or empty");

    let waiting = |directory: &TempDir| open_in(directory).unwrap().waiting(ChannelId::from_bytes([2; 16]));
    with(&|_| {});
    assert_eq!(waiting(&directory), u64::from(MANY), "the log as it was");
    with(&|log| log.truncate(log.len() - 100));
    assert!(waiting(&directory) >= u64::from(MANY) - 1, "the last transaction only");
    let end = log.len();
    with(&|log| log[end - 3_000..].fill(0));
    assert!(waiting(&directory) >= u64::from(MANY) - 1, "the last transaction only");
}

#[tokio::test]
async fn damage_that_is_met_later_ends_all_promises_and_holds_up_nobody_else() {
    let (store, directory) = filled().await;
    store.close().await;
    drop(store);
    let store = open_in(&directory).unwrap();
    while !store.arrivals(BATCH_MAX).await.unwrap().is_empty() {}
    assert_eq!(store.ping().await, Ok(()));
    let first = *pages(&directory, "notification").get(1).unwrap();
    overwrite(&directory, first);
    let key = |number| DeliveryKey { notification: NotificationId::from_bytes([number; 16]), ordinal: 0 };
    let claims = [1, MANY].map(|number| Claim { key: key(number), suspect: false });
    let claimed = store.claim(&claims, NOW).await.unwrap();
    assert!(matches!(claimed[..], [Claimed::Gone, Claimed::Leased(_)]), "{claimed:?}");
    assert!(matches!(accept(&store, MANY + 1).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.ping().await, Err(StoreError::Failed(_))));
    assert!(store.is_running(), "a new start would not mend it");
    assert!(matches!(claim(&store, key(MANY - 1)).await, Ok(Claimed::Leased(_))), "what can be read is sent");
    assert_eq!(store.waiting(ChannelId::from_bytes([2; 16])), u64::from(MANY), "nothing has ended");
    store.close().await;
    drop(store);
    expect_damage(&directory, "damaged");
}
