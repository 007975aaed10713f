//! What cannot be brought about from outside: the writer's own faults, and changes that fail half-way.

use std::collections::BTreeMap;
use std::time::Instant;

use conductor_core::{Draft, FailureReason, Format, ManualClock, Priority, Settlement};
use tempfile::TempDir;

use super::*;
use rusqlite::Connection;

pub(super) const NOW: Timestamp = Timestamp::ZERO;
const TENANT: TenantId = TenantId::from_bytes([1; 16]);

pub(super) fn open() -> (SqliteStore, TempDir) {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(directory.path(), Arc::new(ManualClock::at(NOW))).unwrap();
    (store, directory)
}

fn notification(number: u8) -> Arc<Notification> {
    let notification = Notification::new(Draft {
        id: NotificationId::from_bytes([number; 16]),
        tenant: TENANT,
        channel: "log".into(),
        channel_id: ChannelId::from_bytes([2; 16]),
        target: None,
        message: "x".into(),
        title: None,
        priority: Priority::Normal,
        format: Format::Text,
        data: serde_json::Map::new(),
        metadata: BTreeMap::new(),
        key: None,
        fallback: Vec::new(),
        accepted_at: NOW,
        send_at: None,
        expires_at: NOW.plus(Duration::from_secs(60)),
        trace: None,
    });
    Arc::new(notification.unwrap())
}

pub(super) async fn accept(store: &SqliteStore, number: u8) -> Result<DeliveryKey, StoreError> {
    let notification = notification(number);
    let key = DeliveryKey { notification: notification.id, ordinal: 0 };
    store.accept(NewNotification { notification, idempotency: None }).await.map(|_| key)
}

pub(super) async fn claim(store: &SqliteStore, key: DeliveryKey) -> Result<Claimed, StoreError> {
    store.claim(&[Claim { key, suspect: false }], NOW).await.map(|mut claimed| claimed.remove(0))
}

fn given_up() -> Finished {
    let settlement = Settlement::Failed(FailureReason::Permanent);
    Finished { attempt: None, settlement, provider_id: None, at: NOW }
}

#[tokio::test]
async fn what_could_not_be_taken_back_after_all_is_still_to_be_sent() {
    let (store, _directory) = open();
    let key = accept(&store, 1).await.unwrap();
    assert!(store.memory.lock().begin_ending(key));
    let Claimed::NotDue(again) = claim(&store, key).await.unwrap() else { panic!("it may be needed again") };
    assert!(again.key == key && again.due > NOW);
    // As the writer does when its transaction has failed.
    store.memory.lock().nothing_ended();
    assert!(matches!(claim(&store, key).await, Ok(Claimed::Leased(_))));
}

#[tokio::test]
async fn what_a_reader_found_before_it_was_published_is_not_taken_for_new_later() {
    let (store, _directory) = open();
    let (key, notification) = (accept(&store, 1).await.unwrap(), notification(1));
    let mut memory = store.memory.lock();
    assert_eq!(memory.take_arrivals(9).len(), 1);
    // The row is there as soon as it is committed, so that a scan can hand it over before the writer does.
    assert!(matches!(memory.lease(key), Hold::Fresh(_)));
    memory.arrive(write::first(&notification), Some(&notification));
    assert_eq!(memory.take_arrivals(9), [], "whoever has leased it hands it over again");
    memory.unlease(key);
    assert!(matches!(memory.lease(key), Hold::Unread), "what has become of it stands in the file");
}

#[tokio::test]
async fn a_command_that_makes_the_writer_panic_fails_alone() {
    let (store, _directory) = open();
    // In one batch with others, as far as that can be had.
    let panics = store.command(|reply| Command::Panic { after: false, reply });
    let (before, failed, after) = tokio::join!(accept(&store, 1), panics, accept(&store, 2));
    assert!(matches!(failed, Err::<(), _>(StoreError::Failed(_))), "{failed:?}");
    assert!(before.is_ok() && after.is_ok());
    assert_eq!(store.ping().await, Ok(()));
}

#[tokio::test]
async fn a_writer_that_has_failed_as_a_whole_leaves_nobody_waiting_and_nothing_is_sent_that_cannot_be_written() {
    let (store, _directory) = open();
    let key = accept(&store, 1).await.unwrap();
    let other = accept(&store, 2).await.unwrap();
    let Ok(Claimed::Leased(lease)) = claim(&store, key).await else { panic!("it is free") };
    let panics = store.command::<(), StoreError>(|reply| Command::Panic { after: true, reply });
    let (panicked, settled) = tokio::join!(panics, store.settle(*lease, given_up()));
    assert_eq!(panicked, Err(StoreError::Closed));
    // It was written or it was not; in no case is anybody left waiting.
    if let Err(unsettled) = settled {
        assert_eq!((unsettled.error, unsettled.lease.key), (StoreError::Closed, key));
    }
    let end = Instant::now() + Duration::from_secs(5);
    while !store.permits.is_closed() {
        assert!(Instant::now() < end, "the failed writer is noticed");
        tokio::task::yield_now().await;
    }
    assert_eq!(store.ping().await, Err(StoreError::Closed));
    assert!(!store.is_running());
    assert_eq!(accept(&store, 3).await, Err(StoreError::Closed));
    assert!(matches!(claim(&store, other).await, Err(StoreError::Closed)));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_that_locks_the_file_makes_all_fail_together_and_soon() {
    let (store, directory) = open();
    let key = accept(&store, 1).await.unwrap();
    let other = Connection::open(directory.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    let store = Arc::new(store);
    let mut waiting = tokio::task::JoinSet::new();
    for number in 2..40 {
        let store = Arc::clone(&store);
        waiting.spawn(async move { accept(&store, number).await });
    }
    for answer in waiting.join_all().await {
        assert!(matches!(answer, Err(StoreError::Failed(_))), "{answer:?}");
    }
    // SQLite itself waits for five seconds; a batch may have begun before the others came.
    assert!(start.elapsed() < Duration::from_secs(16), "{:?}", start.elapsed());
    assert!(matches!(claim(&store, key).await, Err(StoreError::Failed(_))), "nothing is sent meanwhile");
    other.execute_batch("COMMIT").unwrap();
    assert!(accept(&store, 50).await.is_ok());
    assert!(matches!(claim(&store, key).await, Ok(Claimed::Leased(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_nobody_waits_for_any_more_stay_counted_and_the_dispatcher_does_not_wait_behind_callers() {
    let (store, directory) = open();
    let key = accept(&store, 1).await.unwrap();
    store.memory.lock().begin_scan(None);
    let slow = || {
        // Long enough for all that follows to begin meanwhile.
        let readers = Arc::clone(&store.readers);
        async move {
            let sql =
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT max(i) FROM n";
            readers.read(move |connection| connection.query_row(sql, [], |row| row.get::<_, i64>(0))).await
        }
    };
    for _ in 0..60 {
        let mut read = std::pin::pin!(slow());
        assert!(futures_poll(read.as_mut()).await.is_none(), "it takes a while");
    }
    let waiting: Vec<_> = (0..40).map(|_| slow()).collect();
    let mut waiting: Vec<_> = waiting.into_iter().map(Box::pin).collect();
    for read in &mut waiting {
        assert!(futures_poll(read.as_mut()).await.is_none());
    }
    let scanned = async { (store.arrivals(10).await.unwrap().len(), store.arrivals(10).await.unwrap().len()) };
    assert_eq!(scanned.await, (1, 1), "what arrived, and what a scan finds");
    assert!(matches!(claim(&store, key).await, Ok(Claimed::Leased(_))));
    let mut still = 0;
    for read in &mut waiting {
        still += usize::from(futures_poll(read.as_mut()).await.is_none());
    }
    assert!(still > 10, "only {still} of 40 callers still waited when the dispatcher had its answer");
    for read in waiting {
        assert_eq!(read.await, Ok(300_000));
    }
    let database = directory.path().join(FILE);
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open =
        open.filter(|file| file.as_ref().is_ok_and(|file| file.path().read_link().is_ok_and(|to| to == database)));
    let open = open.count();
    assert!(open <= 9, "{open} connections to the file");
}

/// Polls once.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn progress_that_cannot_be_written_now_is_written_with_what_becomes_of_the_attempt() {
    let (store, directory) = open();
    let key = accept(&store, 1).await.unwrap();
    let Claimed::Leased(mut lease) = claim(&store, key).await.unwrap() else { panic!("it is due") };
    let other = Connection::open(directory.path().join(FILE)).unwrap();
    let refuse =
        "CREATE TRIGGER refuse BEFORE UPDATE ON pending BEGIN SELECT RAISE(ABORT, 'as the test wants it'); END";
    other.execute_batch(refuse).unwrap();
    let progress = Progress { parts_sent: 1, cuts: 7, plain: false, provider_id: Some("1001".into()) };
    let written = store.advance(&mut lease, progress.clone()).await;
    assert!(matches!(written, Err(StoreError::Failed(_))), "{written:?}");
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    let retry = Settlement::RetryAt { due: NOW, counts: true, limited: None };
    store.settle(*lease, Finished { settlement: retry, ..given_up() }).await.unwrap();
    let Claimed::Leased(lease) = claim(&store, key).await.unwrap() else { panic!("it is due again") };
    assert_eq!(lease.progress, progress);
}
