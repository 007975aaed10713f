//! What somebody does to the file is named, and hides nothing else; nor does a clock that was put back.

use conductor_core::audit::{AuditEntry, ChainFault};
use conductor_core::{ManualClock, Store as _};
use tempfile::TempDir;

use super::*;
use crate::sqlite::FILE;
use crate::sqlite::fault_tests::{accept, open};
use crate::{AuditFault, AuditFile, AuditFileError};

const TENANT: TenantId = TenantId::from_bytes([7; 16]);
const HOUR: Duration = Duration::from_secs(3_600);

fn event() -> AuditEvent {
    AuditEvent::of_tenant(AuditKind::KeysRefused, Actor::Unknown, TENANT, Details::new().number("count", 1))
}

/// Changes the file of a store that runs no more.
fn tamper(directory: &TempDir, sql: &str) {
    let file = Connection::open(directory.path().join(FILE)).unwrap();
    file.execute_batch("DROP TRIGGER IF EXISTS audit_is_not_changed; DROP TRIGGER IF EXISTS audit_is_not_removed")
        .unwrap();
    file.execute_batch(sql).unwrap();
    file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

fn verify(directory: &TempDir) -> Result<Vec<AuditFault>, AuditFileError> {
    let mut faults = Vec::new();
    AuditFile::open(directory.path())?.verify(None, |fault| faults.push(fault))?;
    Ok(faults)
}

fn export(directory: &TempDir, filter: &AuditFilter) -> Vec<u64> {
    let mut seqs = Vec::new();
    let each = |entry: &AuditEntry| {
        seqs.push(entry.seq);
        Ok::<_, AuditFileError>(())
    };
    AuditFile::open(directory.path()).unwrap().export(None, filter, each).unwrap();
    seqs
}

fn listed(directory: &TempDir, tenant: Option<TenantId>, filter: &AuditFilter) -> Vec<u64> {
    let file = Connection::open(directory.path().join(FILE)).unwrap();
    let page = page::read(&file, tenant, filter, BATCH_MAX, None).unwrap();
    page.items.iter().map(|entry| entry.seq).collect()
}

/// Five notifications, and two entries with content.
async fn filled() -> TempDir {
    let (store, directory) = open();
    for number in 1..=5 {
        accept(&store, number).await.unwrap();
    }
    let content = serde_json::Map::from_iter([("address".to_owned(), "203.0.113.9".into())]);
    for _ in 0..2 {
        store.record(AuditEvent { content: Content::Here(content.clone()), ..event() }).await.unwrap();
    }
    store.close().await;
    drop(store);
    directory
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_hides_no_other_entry() {
    let changed = |seq| AuditFault::Chain(ChainFault::Changed(seq));
    let accepted = conductor_core::NotificationId::from_bytes([3; 16]);
    let table = [
        ("UPDATE audit SET details = CAST(x'7bff7d' AS TEXT) WHERE seq = 2", vec![changed(2)]),
        ("UPDATE audit SET kind = CAST(x'ff' AS TEXT) WHERE seq IN (2, 3)", vec![changed(2), changed(3)]),
        ("UPDATE audit SET tenant = x'00' WHERE seq = 6", vec![changed(6)]),
        ("UPDATE audit SET notification = x'00' WHERE seq = 6", vec![changed(6)]),
        ("UPDATE audit SET channel_id = x'0102' WHERE seq = 7", vec![changed(7)]),
        ("UPDATE audit SET ordinal = 300 WHERE seq = 6", vec![changed(6)]),
        ("UPDATE audit SET ordinal = -1 WHERE seq = 4", vec![changed(4)]),
        ("UPDATE audit SET hash = x'00' WHERE seq = 4", vec![changed(4)]),
        (
            "UPDATE notification SET message = CAST(x'ff' AS TEXT) WHERE id = x'03030303030303030303030303030303'",
            vec![AuditFault::Notification(3, accepted)],
        ),
        ("UPDATE audit_content SET content = CAST(x'ff' AS TEXT) WHERE seq = 7", vec![AuditFault::Content(7)]),
    ];
    let directory = filled().await;
    assert_eq!(verify(&directory).unwrap(), []);
    let good = std::fs::read(directory.path().join(FILE)).unwrap();
    for (sql, named) in table {
        std::fs::write(directory.path().join(FILE), &good).unwrap();
        tamper(&directory, sql);
        assert_eq!(verify(&directory).unwrap(), named, "{sql}");
        let everything = AuditFilter::default();
        assert_eq!(listed(&directory, None, &everything), [7, 6, 5, 4, 3, 2, 1], "{sql}");
        assert_eq!(export(&directory, &everything), [1, 2, 3, 4, 5, 6, 7], "{sql}");
        let file = Connection::open(directory.path().join(FILE)).unwrap();
        tidy::look(&file, 0, None, &Retention::default(), Timestamp::ZERO).unwrap();
    }
}

#[tokio::test]
async fn what_stands_before_the_first_entry_was_inserted() {
    let insert = |seq: &str| {
        format!(
            "INSERT INTO audit SELECT {seq}, at, kind, actor, tenant, notification, ordinal, channel_id, details, \
             seal, hash FROM audit WHERE seq = 3"
        )
    };
    let directory = filled().await;
    tamper(&directory, &format!("{}; {}", insert("0"), insert("-1")));
    let faults = verify(&directory).unwrap();
    let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["entry -1 was inserted", "entry 0 was inserted"]);
    // Of a log that has no other entry yet, it is not the end either.
    let (store, directory) = open();
    store.close().await;
    drop(store);
    tamper(
        &directory,
        "INSERT INTO audit VALUES (-1, 0, 'sent', 'server', NULL, NULL, NULL, NULL, NULL, NULL, zeroblob(32))",
    );
    assert_eq!(verify(&directory).unwrap().len(), 1);
    let store = SqliteStore::open(directory.path(), Arc::new(ManualClock::at(Timestamp::ZERO))).unwrap();
    store.record(event()).await.unwrap();
    store.close().await;
    drop(store);
    assert_eq!(listed(&directory, None, &AuditFilter::default()), [1]);
}

#[tokio::test]
async fn damage_of_the_file_is_not_taken_for_a_change() {
    let directory = filled().await;
    tamper(&directory, "");
    let file = Connection::open(directory.path().join(FILE)).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'audit'";
    let page: u16 = file.query_row(sql, [], |row| row.get(0)).unwrap();
    let page = usize::from(page);
    drop(file);
    let mut bytes = std::fs::read(directory.path().join(FILE)).unwrap();
    bytes[(page - 1) * 4_096..page * 4_096].fill(0xff);
    std::fs::write(directory.path().join(FILE), bytes).unwrap();
    let failed = verify(&directory).unwrap_err();
    assert!(matches!(failed, AuditFileError::Engine(_)), "{failed:?}");
}

#[tokio::test]
async fn a_clock_that_was_put_back_leaves_no_entry_out_of_a_list() {
    let noon = Timestamp::from_millis(1_763_000_000_000);
    let clock = Arc::new(ManualClock::at(noon));
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(directory.path(), Arc::clone(&clock) as Arc<_>).unwrap();
    let notification = conductor_core::NotificationId::from_bytes([2; 16]);
    for hours in [0, 1, 2] {
        clock.set(noon.plus(HOUR * hours));
        store.record(event()).await.unwrap();
    }
    for hours in [10, 9, 8, 7] {
        clock.set(noon.minus(HOUR * hours));
        store.record(event()).await.unwrap();
    }
    // Its id is from a clock that was far ahead.
    clock.set(noon.minus(HOUR * 6));
    accept(&store, 2).await.unwrap();
    store.close().await;
    drop(store);
    let of = |from: Option<Timestamp>, to| AuditFilter { from, to, ..AuditFilter::default() };
    // A clock that was put back by less than two hours has let the time stand still.
    for (filter, expected) in [
        (of(Some(noon), None), vec![1, 2, 3]),
        (of(Some(noon.plus(HOUR)), None), vec![2, 3]),
        (of(None, Some(noon)), vec![4, 5, 6, 7, 8]),
        (of(None, Some(noon.plus(HOUR))), vec![1, 4, 5, 6, 7, 8]),
        (of(Some(noon.minus(HOUR * 7)), Some(noon.plus(HOUR))), vec![1, 7, 8]),
        (AuditFilter { notification: Some(notification), ..AuditFilter::default() }, vec![8]),
    ] {
        assert_eq!(export(&directory, &filter), expected, "{filter:?}");
        let mut listed = listed(&directory, None, &filter);
        listed.reverse();
        assert_eq!(listed, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn an_entry_that_no_longer_shows_to_its_tenant_is_named() {
    let (store, directory) = open();
    for _ in 0..300 {
        store.record(event()).await.unwrap();
    }
    store.close().await;
    drop(store);
    tamper(&directory, "");
    assert_eq!(verify(&directory).unwrap(), []);
    tamper(&directory, "DELETE FROM audit_feed WHERE block = 0");
    assert_eq!(listed(&directory, Some(TENANT), &AuditFilter::default()).len(), 300 - 255);
    let faults = verify(&directory).unwrap();
    assert_eq!(faults, (1..256).map(AuditFault::Hidden).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_too_much_for_the_memory_is_read_from_the_log() {
    let (store, directory) = open();
    for _ in 0..300 {
        store.record(event()).await.unwrap();
    }
    store.close().await;
    drop(store);
    tamper(&directory, "UPDATE audit_state SET fed_through = 0; DELETE FROM audit_feed");
    let mut file = Connection::open(directory.path().join(FILE)).unwrap();
    let mut index = AuditIndex::load(&file).unwrap();
    let (head, _) = load_head(&file).unwrap();
    let more = (0..40_000_u64).map(|seq| Touch::of(TenantId::from_bytes([9; 16]), seq * BLOCK)).collect();
    index.add(more);
    index.add(Vec::new());
    index.feed(&mut file, &head, head.seq + 1).unwrap();
    assert_eq!(listed(&directory, Some(TENANT), &AuditFilter::default()).len(), 300, "what waits is looked through");
    index.feed(&mut file, &head, 1).unwrap();
    let rows: i64 = file.query_row("SELECT count(*) FROM audit_feed", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2, "the tenant's two blocks, and nothing of what was only in memory");
    drop(file);
    assert_eq!(listed(&directory, Some(TENANT), &AuditFilter::default()).len(), 300);
    assert_eq!(verify(&directory).unwrap(), []);
}
