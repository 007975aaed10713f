//! Copies of a store in one file, and the way back: whole or not at all, also while the store is in use.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conductor_core::store::{Accepted, Claim};
use conductor_core::{ManualClock, NotificationId, Settlement, Store as _};
use conductor_store::{
    Copied, CopyError, MigrateError, OpenError, Soundness, SqliteStore, back_up, inspect, look_through, restore,
};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::harness::{CHANNEL, DAY, TENANT, draft, finished, first, id_at, leased, new, start};

/// The files that a store may consist of, and the lock.
const OWN_FILES: [&str; 4] = ["conductor.db", "conductor.db-wal", "conductor.db-shm", "conductor.lock"];
/// So large that a copy takes several steps.
const LONG: usize = 8_000;

fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(directory, Arc::new(ManualClock::at(start()))).unwrap()
}

async fn accept(store: &SqliteStore, number: u64) -> NotificationId {
    let mut draft = draft(id_at(start(), number), start());
    draft.message = format!("{number:06} {}", "x".repeat(LONG));
    let id = draft.id;
    assert_eq!(store.accept(new(draft)).await, Ok(Accepted::New { superseded: None }));
    id
}

/// A closed store with so many notifications.
async fn filled(count: u64) -> TempDir {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    for number in 0..count {
        accept(&store, number).await;
    }
    store.close().await;
    directory
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Backs up and expects it to work.
fn copy_of(directory: &Path, target: &Path) -> Copied {
    back_up(directory, target, false, start()).unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_store_in_use_is_one_instant_of_it() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = Arc::new(open(directory.path()));
    let mut before = Vec::new();
    for number in 0..400 {
        before.push(accept(&store, number).await);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for client in 1..4 {
        let (store, is_over) = (Arc::clone(&store), Arc::clone(&is_over));
        clients.spawn(async move {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let id = accept(&store, client * 1_000_000 + count).await;
                let claim = Claim { key: first(id), suspect: false };
                let lease = leased(store.claim(&[claim], start()).await.unwrap().remove(0));
                let finished = finished(&lease, Settlement::Sent, start());
                store.settle(lease, finished).await.unwrap();
                count += 1;
            }
            count
        });
    }
    let mut copies = Vec::new();
    for number in 0..4 {
        let (from, to) = (directory.path().to_owned(), elsewhere.path().join(format!("copy {number}.db")));
        let copied = tokio::task::spawn_blocking(move || (copy_of(&from, &to), to)).await.unwrap();
        copies.push(copied);
    }
    is_over.store(true, Ordering::Relaxed);
    let written: u64 = clients.join_all().await.into_iter().sum();
    assert!(written > 50, "the store was hardly in use: {written}");
    assert!(copies[0].0.notifications < copies[3].0.notifications, "nothing was written meanwhile");
    assert_eq!(names(elsewhere.path()), ["copy 0.db", "copy 1.db", "copy 2.db", "copy 3.db"], "nothing else is left");
    for (copied, path) in copies {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().len(), copied.contents.bytes);
        let orphans = "SELECT count(*) FROM notification AS n WHERE (SELECT count(*) FROM pending WHERE notification = \
                       n.id) + (SELECT count(*) FROM ended WHERE notification = n.id) <> 1";
        let copy = Connection::open(&path).unwrap();
        assert_eq!(copy.query_row(orphans, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "half of a change was copied");
        let place = TempDir::new().unwrap();
        assert_eq!(restore(&path, place.path(), start()).unwrap(), copied);
        let restored = open(place.path());
        for id in &before {
            assert!(
                restored.notification(TENANT, *id).await.unwrap().is_some(),
                "accepted before, and not in the copy"
            );
        }
        assert_eq!(restored.waiting(CHANNEL), copied.contents.waiting);
        restored.close().await;
    }
}

#[tokio::test]
async fn what_was_copied_is_told() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = open(directory.path());
    let ids = [accept(&store, 1).await, accept(&store, 2).await, accept(&store, 3).await];
    let claims = [Claim { key: first(ids[0]), suspect: false }, Claim { key: first(ids[1]), suspect: false }];
    for (claimed, settlement) in
        store.claim(&claims, start()).await.unwrap().into_iter().zip([Settlement::Hold, Settlement::Sent])
    {
        let lease = leased(claimed);
        let finished = finished(&lease, settlement, start());
        store.settle(lease, finished).await.unwrap();
    }
    let (early, late) = (elsewhere.path().join("early"), elsewhere.path().join("late"));
    let copied = copy_of(directory.path(), &early);
    let counts = |copied: Copied| (copied.notifications, copied.contents.waiting, copied.contents.overdue);
    assert_eq!((counts(copied), copied.contents.held), ((3, 1, 0), 1));
    assert_eq!(copied.contents.newest, Some(start()));
    let later = back_up(directory.path(), &late, false, start().plus(2 * DAY)).unwrap();
    assert_eq!(counts(later), (3, 1, 1));
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced_only_when_that_was_asked_for_and_the_store_itself_never() {
    let (directory, elsewhere) = (filled(2).await, TempDir::new().unwrap());
    let target = elsewhere.path().join("copy.db");
    fs::write(&target, "precious").unwrap();
    let refused = back_up(directory.path(), &target, false, start()).unwrap_err();
    assert!(matches!(&refused, CopyError::Exists(path) if *path == target), "{refused:?}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    back_up(directory.path(), &target, true, start()).unwrap();
    restore(&target, &elsewhere.path().join("data"), start()).unwrap();
    let link = elsewhere.path().join("link");
    symlink(directory.path(), &link).unwrap();
    let before = fs::read(directory.path().join("conductor.db")).unwrap();
    for folder in [directory.path(), &link] {
        for name in OWN_FILES {
            let refused = back_up(directory.path(), &folder.join(name), true, start()).unwrap_err();
            assert!(matches!(refused, CopyError::Exists(_)), "{refused:?}");
        }
    }
    assert_eq!(fs::read(directory.path().join("conductor.db")).unwrap(), before);
    let nowhere = back_up(directory.path(), &elsewhere.path().join("none/copy.db"), false, start()).unwrap_err();
    assert!(matches!(nowhere, CopyError::Io(..)), "{nowhere:?}");
    let none = back_up(elsewhere.path(), &elsewhere.path().join("other.db"), false, start()).unwrap_err();
    assert!(matches!(none, CopyError::Missing(_)), "{none:?}");
}

#[tokio::test]
async fn what_a_dead_process_left_of_a_copy_is_taken_over_and_what_a_living_one_writes_is_not() {
    let (directory, elsewhere) = (filled(3).await, TempDir::new().unwrap());
    let (target, part) = (elsewhere.path().join("copy.db"), elsewhere.path().join("copy.db.part"));
    fs::write(&part, vec![0x5a; 3_000_000]).unwrap();
    fs::set_permissions(&part, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(copy_of(directory.path(), &target).notifications, 3);
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(&target).unwrap();

    let living = fs::File::create(&part).unwrap();
    living.try_lock().unwrap();
    let busy = back_up(directory.path(), &target, false, start()).unwrap_err();
    assert!(matches!(busy, CopyError::Busy(_)), "{busy:?}");
    drop(living);
    fs::remove_file(&part).unwrap();

    let precious = elsewhere.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, &part).unwrap();
    let refused = back_up(directory.path(), &target, false, start()).unwrap_err();
    assert!(matches!(refused, CopyError::Busy(_)), "{refused:?}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "a link is not followed");
}

/// Tries to restore a file that has to be refused, and looks that nothing is left of it.
#[track_caller]
fn refused(file: &Path) -> CopyError {
    let place = TempDir::new().unwrap();
    let error = restore(file, place.path(), start()).unwrap_err();
    let left = names(place.path());
    assert!(left.iter().all(|name| name == "conductor.lock"), "{left:?}: {error}");
    error
}

#[tokio::test]
async fn only_a_sound_store_of_this_version_or_an_older_one_is_restored() {
    let (directory, elsewhere) = (filled(200).await, TempDir::new().unwrap());
    let good = elsewhere.path().join("good.db");
    copy_of(directory.path(), &good);
    let other = |name: &str, content: &[u8]| {
        let path = elsewhere.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let is_foreign = |error: &CopyError| matches!(error, CopyError::Open(OpenError::Migrate(_, MigrateError::Foreign)));
    for path in [other("empty", b""), other("text", "Dear diary, this is no store. ".repeat(300).as_bytes())] {
        let error = refused(&path);
        assert!(is_foreign(&error), "{error:?}");
    }
    let theirs = elsewhere.path().join("theirs.db");
    Connection::open(&theirs).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(is_foreign(&refused(&theirs)));

    let newer = other("newer.db", &fs::read(&good).unwrap());
    let sql = "INSERT INTO migration SELECT max(number) + 1, x'00' FROM migration";
    Connection::open(&newer).unwrap().execute_batch(sql).unwrap();
    let error = refused(&newer);
    assert!(matches!(error, CopyError::Open(OpenError::Migrate(_, MigrateError::Newer { .. }))), "{error:?}");

    let damaged = other("damaged.db", &fs::read(&good).unwrap());
    let content = fs::read(&damaged).unwrap();
    let place = content.windows(6).position(|part| part == b"000100").unwrap() / 4_096 * 4_096;
    fs::File::options().write(true).open(&damaged).unwrap().write_all_at(&[0xa5; 4_096], place as u64).unwrap();
    let error = refused(&damaged);
    let names_it = |path: &PathBuf| *path == damaged;
    let is_damage = match &error {
        CopyError::Damaged(path, _) | CopyError::Open(OpenError::Damaged(path, _)) => names_it(path),
        _ => false,
    };
    assert!(is_damage, "{error:?}");
    let half = other("half.db", &content[..content.len() / 2]);
    let error = refused(&half);
    assert!(matches!(error, CopyError::Damaged(..) | CopyError::Open(OpenError::Damaged(..))), "{error:?}");
    assert!(matches!(refused(&elsewhere.path().join("none.db")), CopyError::Missing(_)));
    assert!(matches!(refused(elsewhere.path()), CopyError::Io(..)));
}

#[tokio::test]
async fn a_damaged_store_is_found_out_by_its_backup_and_no_copy_is_left() {
    let (directory, elsewhere) = (filled(200).await, TempDir::new().unwrap());
    let path = directory.path().join("conductor.db");
    let content = fs::read(&path).unwrap();
    let place = content.windows(6).position(|part| part == b"000100").unwrap() / 4_096 * 4_096;
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&[0xa5; 4_096], place as u64).unwrap();
    let error = back_up(directory.path(), &elsewhere.path().join("copy.db"), false, start()).unwrap_err();
    assert!(error.to_string().contains("conductor.db: ") && error.to_string().contains("damaged"), "{error}");
    assert_eq!(names(elsewhere.path()), [""; 0]);
    let found = look_through(directory.path(), Duration::from_secs(60)).unwrap();
    assert!(matches!(found, Soundness::Damaged(_)), "{found:?}");
}

#[tokio::test]
async fn a_store_that_is_there_is_never_restored_over() {
    let (directory, elsewhere) = (filled(1).await, TempDir::new().unwrap());
    let copy = elsewhere.path().join("copy.db");
    copy_of(directory.path(), &copy);
    let before = fs::read(directory.path().join("conductor.db")).unwrap();
    let there = restore(&copy, directory.path(), start()).unwrap_err();
    assert!(matches!(there, CopyError::Exists(_)), "{there:?}");
    assert_eq!(fs::read(directory.path().join("conductor.db")).unwrap(), before);

    let place = TempDir::new().unwrap();
    fs::write(place.path().join("conductor.db-wal"), "the log of a store that was moved away").unwrap();
    let log = restore(&copy, place.path(), start()).unwrap_err();
    assert!(matches!(&log, CopyError::Exists(path) if path.ends_with("conductor.db-wal")), "{log:?}");
    // What a start leaves that died before it had written anything is nothing.
    for name in ["conductor.db", "conductor.db-wal"] {
        fs::write(place.path().join(name), "").unwrap();
    }
    fs::write(place.path().join(".env"), "KEY=1").unwrap();
    restore(&copy, place.path(), start()).unwrap();
    assert_eq!(names(place.path()), [".env", "conductor.db", "conductor.lock"]);

    let owned = TempDir::new().unwrap();
    let store = open(owned.path());
    let locked = restore(&copy, owned.path(), start()).unwrap_err();
    assert!(matches!(locked, CopyError::Open(OpenError::Locked(_))), "{locked:?}");
    store.close().await;
}

#[tokio::test]
async fn a_restore_that_died_half_way_is_done_again() {
    let (directory, elsewhere) = (filled(5).await, TempDir::new().unwrap());
    let copy = elsewhere.path().join("copy.db");
    copy_of(directory.path(), &copy);
    let place = TempDir::new().unwrap();
    let half = fs::read(&copy).unwrap();
    fs::write(place.path().join("conductor.db.part"), &half[..half.len() / 2]).unwrap();
    fs::write(place.path().join("conductor.lock"), "").unwrap();
    assert_eq!(inspect(place.path(), start()).unwrap(), None, "half of one is no store");
    assert_eq!(restore(&copy, place.path(), start()).unwrap().notifications, 5);
    assert_eq!(names(place.path()), ["conductor.db", "conductor.lock"]);
}

#[tokio::test]
async fn copies_that_were_made_otherwise_and_odd_names_are_restored_too() {
    let elsewhere = TempDir::new().unwrap();
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    for number in 0..3 {
        accept(&store, number).await;
    }
    // The files of a store that was killed: all is in the log.
    let raw = elsewhere.path().join("raw.db");
    fs::copy(directory.path().join("conductor.db"), &raw).unwrap();
    fs::copy(directory.path().join("conductor.db-wal"), elsewhere.path().join("raw.db-wal")).unwrap();
    store.close().await;
    assert_eq!(restore(&raw, &elsewhere.path().join("1"), start()).unwrap().notifications, 3);
    // The file of a store that was stopped: it is written with a log, of which there is nothing.
    let odd = elsewhere.path().join("what? 100 %23 #1 é.db");
    fs::copy(directory.path().join("conductor.db"), &odd).unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o400)).unwrap();
    let before = names(elsewhere.path());
    assert_eq!(restore(&odd, &elsewhere.path().join("2"), start()).unwrap().notifications, 3);
    let mut after = names(elsewhere.path());
    after.retain(|name| name != "2");
    assert_eq!(after, before, "nothing is made beside the backup");
    let target = elsewhere.path().join("again? #2.db");
    assert_eq!(copy_of(&elsewhere.path().join("2"), &target).notifications, 3);
    assert_eq!(restore(&target, &elsewhere.path().join("3"), start()).unwrap().notifications, 3);
}

#[tokio::test]
async fn a_look_from_outside_tells_what_waits_and_whether_somebody_uses_it() {
    let directory = TempDir::new().unwrap();
    assert_eq!(inspect(directory.path(), start()).unwrap(), None);
    let store = open(directory.path());
    let failing = [accept(&store, 1).await, accept(&store, 2).await, accept(&store, 3).await];
    for id in failing {
        let lease = leased(store.claim(&[Claim { key: first(id), suspect: false }], start()).await.unwrap().remove(0));
        let finished = finished(&lease, Settlement::Failed(conductor_core::FailureReason::Permanent), start());
        store.settle(lease, finished).await.unwrap();
    }
    // One that waits again is no dead letter.
    store.replay(TENANT, failing[2], None, start(), start().plus(DAY)).await.unwrap();
    accept(&store, 4).await;
    let seen = inspect(directory.path(), start()).unwrap().expect("a store");
    assert!(seen.is_owned && seen.shrinks && seen.log_bytes > 0 && seen.known == seen.contents.version);
    assert_eq!((seen.contents.waiting, seen.dead_letters), (2, 2));
    assert_eq!((seen.oldest_waiting, seen.longest_due), (Some(start()), Some(start())));
    assert_eq!(look_through(directory.path(), Duration::from_secs(60)).unwrap(), Soundness::Sound);
    // Looking takes nothing from its owner.
    accept(&store, 5).await;
    store.close().await;
    let seen = inspect(directory.path(), start()).unwrap().expect("a store");
    assert!(!seen.is_owned && seen.contents.waiting == 3, "{seen:?}");
    open(directory.path()).close().await;
}

#[tokio::test]
async fn a_look_through_every_page_ends_in_time() {
    let directory = filled(700).await;
    assert_eq!(look_through(directory.path(), Duration::ZERO).unwrap(), Soundness::Unfinished);
}
