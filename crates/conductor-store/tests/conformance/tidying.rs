//! What removing costs those who send meanwhile, and what it gives back: peculiar to SQLite's file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conductor_core::store::{Accepted, Filter};
use conductor_core::{Keep, ManualClock, Retention, Store, Timestamp};
use conductor_store::SqliteStore;
use tempfile::TempDir;

use crate::harness::{DAY, OTHER_TENANT, TENANT, draft, id_at, new, start};

const FILE: &str = "conductor.db";

fn a_month() -> Arc<Retention> {
    Arc::new(Retention { others: Keep { whole: Some(DAY * 30), content: None }, tenants: HashMap::new() })
}

fn a_month_later() -> Timestamp {
    start().plus(DAY * 31)
}

fn open(directory: &Path, at: Timestamp) -> SqliteStore {
    SqliteStore::open(directory, Arc::new(ManualClock::at(at))).unwrap()
}

fn sqlite(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join(FILE)).unwrap()
}

fn size(directory: &Path) -> u64 {
    std::fs::metadata(directory.join(FILE)).unwrap().len()
}

/// Fills a store that is closed with ended notifications of two tenants, with an attempt each.
fn fill(directory: &Path, count: u64, message_bytes: u32) {
    let connection = sqlite(directory);
    let tenant = |number: u64| if number.is_multiple_of(3) { OTHER_TENANT } else { TENANT };
    connection.execute_batch("BEGIN").unwrap();
    for number in 0..count {
        let (id, tenant) = (id_at(start(), number), tenant(number));
        let at = start().millis();
        let sql = "INSERT INTO notification (id, tenant, channel, channel_id, message, priority, format, accepted_at, \
                   expires_at) VALUES (?1, ?2, 'log', zeroblob(16), hex(randomblob(?3)), 'normal', 'text', ?4, ?4)";
        let row = (id.bytes(), tenant.bytes(), message_bytes / 2, at);
        connection.prepare_cached(sql).unwrap().execute(row).unwrap();
        let sql = "INSERT INTO ended (notification, ordinal, tenant, channel_id, status, ended_at, attempts, \
                   next_fallback) VALUES (?1, 0, ?2, zeroblob(16), 'sent', ?3, 1, 0)";
        connection.prepare_cached(sql).unwrap().execute((id.bytes(), tenant.bytes(), at)).unwrap();
        let sql = "INSERT INTO attempt (notification, ordinal, number, at, duration_ms, outcome) \
                   VALUES (?1, 0, 1, ?2, 5, 'sent')";
        connection.prepare_cached(sql).unwrap().execute((id.bytes(), at)).unwrap();
        let sql = "INSERT INTO feed (tenant, notification) VALUES (?1, ?2)";
        connection.prepare_cached(sql).unwrap().execute((tenant.bytes(), id.bytes())).unwrap();
    }
    let last = id_at(start(), count - 1);
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('feed_mark', ?1)", [last.bytes()]).unwrap();
    connection.execute_batch("COMMIT").unwrap();
}

/// A store in which so many notifications are old.
async fn filled(count: u64, message_bytes: u32) -> TempDir {
    let directory = TempDir::new().unwrap();
    open(directory.path(), start()).close().await;
    fill(directory.path(), count, message_bytes);
    directory
}

async fn prune(store: &SqliteStore) -> usize {
    let mut removed = 0;
    loop {
        let step = store.prune(&a_month(), a_month_later()).await.unwrap();
        removed += step.removed;
        if step.is_done {
            return removed;
        }
    }
}

/// Accepts one after the other until told to stop. How long each took.
async fn accept_until(store: &SqliteStore, first: u64, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in first.. {
        if stop.load(Ordering::Relaxed) && took.len() >= 1_000 {
            break;
        }
        let id = id_at(a_month_later(), number);
        let began = Instant::now();
        let accepted = store.accept(new(draft(id, a_month_later()))).await;
        took.push(began.elapsed());
        assert_eq!(accepted, Ok(Accepted::New { superseded: None }));
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_long_while_much_is_removed() {
    const COUNT: u64 = 50_000;
    let directory = filled(COUNT, 300).await;
    let store = open(directory.path(), a_month_later());
    let alone = accept_until(&store, 0, &AtomicBool::new(true)).await;
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    // Without the rests that the janitor takes, which is the worst that can be.
    let removing = async {
        let removed = prune(&store).await;
        let took = began.elapsed();
        while !store.compact().await.unwrap().is_done {}
        stop.store(true, Ordering::Relaxed);
        (removed, took)
    };
    let ((removed, took), beside) = tokio::join!(removing, accept_until(&store, 1_000_000, &stop));
    assert_eq!(removed, usize::try_from(COUNT).unwrap());
    let of = |all: &[Duration], share: usize| all[(all.len() - 1) * share / 1_000];
    let (longest_alone, longest) = (of(&alone, 1_000), of(&beside, 1_000));
    eprintln!(
        "{removed} removed in {took:?}; accept alone: p50 {:?}, longest {longest_alone:?}; beside {}: p50 {:?}, p99 {:?}, \
         p99.9 {:?}, longest {longest:?}",
        of(&alone, 500),
        beside.len(),
        of(&beside, 500),
        of(&beside, 990),
        of(&beside, 999),
    );
    // What the disk and the machine take by themselves is not the removal's.
    assert!(of(&beside, 900) < Duration::from_millis(50) + longest_alone, "{:?}", of(&beside, 900));
    assert!(longest < Duration::from_secs(2) + longest_alone, "{longest:?}");
    let page = store.notifications(TENANT, &Filter::default(), 1, None).await.unwrap();
    assert_eq!(page.items.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn the_file_shrinks_when_much_was_removed_and_keeps_a_spare() {
    let directory = filled(4_000, 12_000).await;
    let store = open(directory.path(), a_month_later());
    let before = size(directory.path());
    assert_eq!(prune(&store).await, 4_000);
    let mut freed = 0;
    loop {
        let step = store.compact().await.unwrap();
        freed += step.bytes;
        if step.is_done {
            break;
        }
    }
    assert_eq!(store.compact().await.unwrap().bytes, 0, "the spare stays");
    store.close().await;
    let after = size(directory.path());
    assert!((before - after).abs_diff(freed) < 1_000_000, "{before} became {after} by {freed}");
    assert!(before > 45_000_000 && (16_000_000..18_000_000).contains(&after), "{before} became {after}");
    let check: String = sqlite(directory.path()).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_file_that_could_not_shrink_is_rewritten_at_the_start() {
    let directory = filled(50, 300).await;
    let connection = sqlite(directory.path());
    connection.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM").unwrap();
    let mode = || sqlite(directory.path()).query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(mode(), 0);
    drop(connection);
    let store = open(directory.path(), a_month_later());
    assert_eq!(prune(&store).await, 50);
    store.close().await;
    assert_eq!(mode(), 2);
}

#[tokio::test]
async fn what_was_removed_is_not_left_in_the_file() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path(), start());
    let id = id_at(start(), 1);
    let mut secret = draft(id, start());
    secret.message = "the code is 8712-3349".into();
    store.accept(new(secret)).await.unwrap();
    store.cancel(TENANT, id, start()).await.unwrap();
    store.close().await;
    let holds = || String::from_utf8_lossy(&std::fs::read(directory.path().join(FILE)).unwrap()).contains("8712-3349");
    assert!(holds());
    let store = open(directory.path(), a_month_later());
    let redacted = Keep { whole: None, content: Some(DAY * 30) };
    let retention = Arc::new(Retention { others: redacted, tenants: HashMap::new() });
    assert_eq!(store.prune(&retention, a_month_later()).await.unwrap().redacted, 1);
    store.close().await;
    assert!(!holds());
}
