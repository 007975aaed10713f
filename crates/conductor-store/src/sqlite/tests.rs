//! What the trait does not show: the writer driven by hand, on a disk that is full, and how statements find their rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conductor_core::audit::{AuditEvent, AuditFilter, Content, Details};
use conductor_core::store::Idempotency;
use conductor_core::{
    Actor, Attempt, AuditKind, ChannelId, Draft, FailureReason, Format, Keep, Outcome, Priority, Settlement, Status,
};
use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use tempfile::TempDir;

use super::*;

const TENANT: TenantId = TenantId::from_bytes([1; 16]);

/// What the store's method makes of it.
fn accept(new: NewNotification, reply: Reply<Accepted>) -> Command {
    let seal = Sealer::new().unwrap().seal(&new.notification);
    Command::Accept(new, seal, reply)
}

/// A writer without its thread.
struct Desk {
    writer: Writer,
    _directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let mut connection = Connection::open(directory.path().join(FILE)).unwrap();
        opening::configure(&connection).unwrap();
        crate::migrate::migrate(&mut connection).unwrap();
        let (memory, arrived) = (Arc::<Memory>::default(), Arc::default());
        let sealer = Arc::new(Sealer::new().unwrap());
        let (_, head) = recovery::recover(&connection, &memory, now(), &sealer).unwrap();
        let audit_index = AuditIndex::load(&connection).unwrap();
        Self {
            writer: Writer {
                connection,
                memory,
                arrived,
                fed_through: None,
                failing: Arc::default(),
                damage: Arc::default(),
                counts: Arc::default(),
                usual_commit: UsualCommit::default(),
                clock: Arc::new(conductor_core::ManualClock::at(now())),
                sealer,
                head,
                audit_index,
            },
            _directory: directory,
        }
    }

    /// Has one command written and gives its answer.
    fn write<T, E>(&mut self, command: impl FnOnce(Reply<T, E>) -> Command) -> Result<T, E> {
        let (reply, mut replied) = oneshot::channel();
        self.writer.write(vec![command(reply)]);
        replied.try_recv().expect("the writer answers everything")
    }

    fn accept(&mut self, draft: Draft) -> Result<Accepted, StoreError> {
        self.write(|reply| accept(new(draft), reply))
    }

    fn lease(&self, id: NotificationId) -> Lease {
        let key = DeliveryKey { notification: id, ordinal: 0 };
        match self.writer.memory.lock().lease(key) {
            Hold::Fresh(notification) => first_lease(notification),
            other => panic!("it was accepted a moment ago: {other:?}"),
        }
    }

    fn count(&self, table: &str) -> usize {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = self.writer.connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    }

    /// From now on the file can grow by so many pages.
    fn leave_room(&self, for_pages: i64) {
        let query = |sql: &str| self.writer.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let most = query("PRAGMA page_count") + for_pages;
        assert_eq!(query(&format!("PRAGMA max_page_count = {most}")), most);
    }

    fn page(&self, filter: Filter) -> Page {
        let request = PageRequest { tenant: TENANT, filter, limit: 10, before: None, now: now() };
        read::page(&self.writer.connection, &self.writer.memory, &request).unwrap()
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_705_314_600_000)
}

fn id(number: u32) -> NotificationId {
    NotificationId::from_bytes((0x018d_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)).to_be_bytes())
}

fn draft(number: u32) -> Draft {
    Draft {
        id: id(number),
        tenant: TENANT,
        channel: "log".into(),
        channel_id: ChannelId::from_bytes([2; 16]),
        target: None,
        message: "x".repeat(1_000),
        title: None,
        priority: Priority::Normal,
        format: Format::Text,
        data: serde_json::Map::new(),
        metadata: BTreeMap::new(),
        key: None,
        fallback: Vec::new(),
        accepted_at: now(),
        send_at: None,
        expires_at: now().plus(Duration::from_secs(86_400)),
        trace: None,
    }
}

fn new(draft: Draft) -> NewNotification {
    NewNotification { notification: Arc::new(Notification::new(draft).unwrap()), idempotency: None }
}

/// An attempt with so many words that they need pages of their own.
fn wordy(settlement: Settlement) -> Finished {
    let detail = Some("y".repeat(40_000));
    let (duration, outcome) = (Duration::ZERO, Outcome::Permanent);
    let attempt = Attempt { number: 1, at: now(), duration, outcome, code: None, detail, retry_after: None };
    Finished { attempt: Some(attempt), settlement, provider_id: None, at: now() }
}

const NEW: Result<Accepted, StoreError> = Ok(Accepted::New { superseded: None });

/// Accepts until the disk is full. Returns how many it took.
fn accept_until_full(desk: &mut Desk, from: u32) -> u32 {
    for number in from..from + 1_000 {
        match desk.accept(draft(number)) {
            NEW => {}
            other => {
                assert_eq!(other, Err(StoreError::Full));
                return number;
            }
        }
    }
    panic!("the disk did not fill");
}

#[test]
fn a_full_disk_refuses_what_is_new_and_keeps_what_is_there() {
    let mut desk = Desk::new();
    assert_eq!(desk.accept(Draft { key: Some("door".into()), ..draft(1) }), NEW);
    desk.leave_room(20);
    let taken = accept_until_full(&mut desk, 2);
    let kept = usize::try_from(taken).unwrap() - 1;
    assert!(kept > 10, "{kept}");
    assert_eq!(
        desk.accept(Draft { key: Some("door".into()), message: "x".repeat(60_000), ..draft(2_000) }),
        Err(StoreError::Full)
    );
    assert_eq!((desk.count("notification"), desk.count("pending"), desk.count("ended")), (kept, kept, 0));
    assert_eq!(desk.writer.memory.lock().take_arrivals(10_000).len(), kept);
    let weighed = |desk: &Desk| {
        let sql = "SELECT count(*), sum(bytes) FROM pending";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (count, bytes): (i64, i64) = desk.writer.connection.query_row(sql, [], read).unwrap();
        let load = desk.writer.memory.lock().weights.of(TENANT);
        assert_eq!((load.notifications, load.bytes), (count.unsigned_abs(), bytes.unsigned_abs()));
        bytes
    };
    assert!(weighed(&desk) > 0);

    desk.leave_room(100_000);
    let superseding = desk.accept(Draft { key: Some("door".into()), ..draft(2_000) });
    assert_eq!(superseding, Ok(Accepted::New { superseded: Some(id(1)) }));
    assert_eq!(desk.accept(draft(taken)), NEW);
    assert_eq!(desk.count("pending"), kept + 1);
    weighed(&desk);
}

#[test]
fn what_a_full_disk_kept_from_being_superseded_can_still_be_sent() {
    let mut desk = Desk::new();
    assert_eq!(desk.accept(Draft { key: Some("door".into()), ..draft(1) }), NEW);
    desk.leave_room(20);
    accept_until_full(&mut desk, 2);
    assert_eq!(
        desk.accept(Draft { key: Some("door".into()), message: "x".repeat(60_000), ..draft(2_000) }),
        Err(StoreError::Full)
    );
    assert_eq!(desk.lease(id(1)).attempt, 1);
}

#[test]
fn a_settlement_that_a_full_disk_refused_can_be_repeated() {
    let mut desk = Desk::new();
    for number in 1..=2 {
        assert_eq!(desk.accept(draft(number)), NEW);
    }
    let lease = Box::new(desk.lease(id(1)));
    desk.leave_room(0);
    let finished = wordy(Settlement::Failed(FailureReason::Permanent));
    let refused = desk.write(|reply| Command::Settle(lease, finished, reply)).unwrap_err();
    assert_eq!((refused.error, refused.lease.key.notification), (StoreError::Full, id(1)));
    assert_eq!((desk.count("pending"), desk.count("ended"), desk.count("attempt")), (2, 0, 0));
    assert!(desk.writer.memory.lock().is_leased(refused.lease.key), "the lease stands");

    desk.leave_room(100_000);
    let settled = desk.write(|reply| Command::Settle(refused.lease, refused.finished, reply)).unwrap();
    assert_eq!(settled, Settled { status: Status::Failed, next: None });
    assert_eq!((desk.count("pending"), desk.count("ended"), desk.count("attempt")), (1, 1, 1));
}

#[test]
fn one_commands_trouble_is_not_its_neighbours() {
    let mut desk = Desk::new();
    assert_eq!(desk.accept(draft(1)), NEW);
    let mut answers = Vec::new();
    let batch = [2, 1, 3].map(|number| {
        let (reply, replied) = oneshot::channel();
        answers.push(replied);
        accept(new(draft(number)), reply)
    });
    desk.writer.write(batch.into());
    let mut answers = answers.into_iter().map(|mut replied| replied.try_recv().unwrap());
    assert_eq!(answers.next(), Some(NEW));
    assert!(matches!(answers.next(), Some(Err(StoreError::Failed(_)))), "there cannot be two of one id");
    assert_eq!(answers.next(), Some(NEW));
    assert_eq!(desk.writer.memory.lock().take_arrivals(10).len(), 3);
}

#[test]
fn what_is_fed_while_a_page_is_read_is_listed_once() {
    let mut desk = Desk::new();
    for number in 1..=3 {
        assert_eq!(desk.accept(draft(number)), NEW);
    }
    let unfed = desk.writer.memory.lock().unfed.clone();
    write::feed(&mut desk.writer.connection, &unfed[..2]).unwrap();
    let listed: Vec<_> = desk.page(Filter::default()).items.into_iter().map(|item| item.notification.id).collect();
    assert_eq!(listed, [id(3), id(2), id(1)]);
}

#[test]
fn what_has_ended_leaves_the_working_tables_empty() {
    let mut desk = Desk::new();
    let keyed = |number| Draft { key: Some("door".into()), ..draft(number) };
    assert_eq!(desk.accept(keyed(1)), NEW);
    assert_eq!(desk.accept(keyed(2)), Ok(Accepted::New { superseded: Some(id(1)) }));
    let later = now().plus(Duration::from_secs(2 * 86_400));
    let keys = vec![DeliveryKey { notification: id(2), ordinal: 0 }];
    assert_eq!(desk.write(|reply| Command::Expire(keys, later, reply)).unwrap().len(), 1);
    assert_eq!(desk.accept(keyed(3)), NEW);
    let change = Change { tenant: TENANT, id: id(3), kind: ChangeKind::Cancel { at: now() } };
    desk.write(|reply| Command::Change(change, reply)).unwrap();
    for (number, settlement) in [(4, Settlement::Sent), (5, Settlement::Failed(FailureReason::Permanent))] {
        assert_eq!(desk.accept(keyed(number)), NEW);
        let lease = Box::new(desk.lease(id(number)));
        desk.write(|reply| Command::Settle(lease, wordy(settlement), reply)).unwrap();
    }
    assert_eq!((desk.count("pending"), desk.count("live_key"), desk.count("ended")), (0, 0, 5));
}

#[test]
fn nothing_is_read_before_something_can_be_over() {
    let mut desk = Desk::new();
    let after = |seconds| now().plus(Duration::from_secs(seconds));
    let expiring = |number, seconds| Draft { expires_at: after(seconds), ..draft(number) };
    let overdue = |desk: &Desk, seconds| {
        let memory = &desk.writer.memory;
        let reads = memory.lock().expiry.begin_look(after(seconds));
        let found = read::overdue(&desk.writer.connection, memory, after(seconds)).unwrap();
        (reads, found.iter().map(|key| key.notification).collect::<Vec<_>>())
    };
    assert_eq!(overdue(&desk, 0), (true, vec![]), "what the process before has left is not known");
    assert_eq!(overdue(&desk, 1_000_000), (false, vec![]), "nothing waits");
    for (number, seconds) in [(1, 500), (2, 100), (3, 900)] {
        assert_eq!(desk.accept(expiring(number, seconds)), NEW);
    }
    assert_eq!(overdue(&desk, 99), (false, vec![]));
    // As long as it has not been ended it is found again.
    for _ in 0..2 {
        assert_eq!(overdue(&desk, 100), (true, vec![id(2)]));
    }
    let end = |desk: &mut Desk, number, seconds| {
        let keys = vec![DeliveryKey { notification: id(number), ordinal: 0 }];
        desk.write(|reply| Command::Expire(keys, after(seconds), reply)).unwrap().len()
    };
    assert_eq!(end(&mut desk, 2, 100), 1);
    assert_eq!(overdue(&desk, 101), (true, vec![]));
    assert_eq!(overdue(&desk, 499), (false, vec![]));
    // One under way may fail, and is over then.
    let lease = Box::new(desk.lease(id(1)));
    assert_eq!(overdue(&desk, 500), (true, vec![]));
    let hold = Finished { settlement: Settlement::Hold, ..wordy(Settlement::Hold) };
    desk.write(|reply| Command::Settle(lease, hold, reply)).unwrap();
    assert_eq!(overdue(&desk, 500), (true, vec![]), "what is held waits for a person");
    assert_eq!(overdue(&desk, 899), (false, vec![]));
    let kind = ChangeKind::Replay { redirect: None, due: now(), expires_at: after(600) };
    desk.write(|reply| Command::Change(Change { tenant: TENANT, id: id(1), kind }, reply)).unwrap();
    assert_eq!(overdue(&desk, 599), (false, vec![]));
    assert_eq!(overdue(&desk, 600), (true, vec![id(1)]));
}

/// Statements that may look at every row, with the reason.
const SCANS: [(&str, &str); 6] = [
    ("FROM pending WHERE expires_at <= ", "the janitor's; an index by time would be paid for by every accept"),
    ("FROM pending WHERE expires_at > ", "so that it looks only when something may be over"),
    ("FROM idempotency WHERE accepted_at < ", "the janitor's, for the same reason"),
    ("FROM sqlite_schema", "a dozen rows, at the start"),
    ("FROM migration", "a dozen rows, at the start"),
    ("WHERE claimed > 0", "a partial index of only the rows that it wants, at the start"),
];

/// Removes what had ended by `later`: first its content, then the rest.
fn tidy_up(desk: &mut Desk, later: Timestamp) {
    for (whole, content) in [(None, Some(later.since(now()))), (Some(later.since(now())), None)] {
        let retention = Retention { others: Keep { whole, content }, ..Retention::default() };
        let far = later.plus(later.since(now()));
        let candidates = Tidying::default().candidates(&desk.writer.connection, &retention, far).unwrap();
        assert!(candidates.len() >= 4, "{}", candidates.len());
        desk.write(|reply| Command::Prune(candidates, far, reply)).unwrap();
    }
    desk.write(|reply| Command::Compact(1, reply)).unwrap();
}

/// Adds to the audit log until it has some blocks, reads it, and removes what is old of it.
fn audit(desk: &mut Desk, later: Timestamp) {
    let event = AuditEvent {
        tenant: Some(TENANT),
        content: Content::Here(serde_json::Map::from_iter([("address".to_owned(), "::1".into())])),
        ..AuditEvent::of_server(AuditKind::KeysRefused, Actor::Unknown, Details::new())
    };
    for _ in 0..600 {
        desk.write(|reply| Command::Record(Box::new(event.clone()), reply)).unwrap();
    }
    desk.writer.feed(1);
    let filter = AuditFilter { from: Some(now()), to: Some(later), ..AuditFilter::default() };
    let page = |tenant| audit::page::read(&desk.writer.connection, tenant, &filter, 1_000, None).unwrap();
    assert!(page(Some(TENANT)).items.len() > 600 && page(None).items.len() > page(Some(TENANT)).items.len());
    let others_age = later.since(now());
    let others = Keep { whole: None, content: Some(others_age) };
    let retention = Retention { others, ..Retention::default() };
    let wish = audit::look(&desk.writer.connection, 0, Some(later), &retention, later.plus(others_age)).unwrap().wish;
    let done = desk.write(|reply| Command::TidyAudit(Box::new(wish), reply)).unwrap();
    assert_eq!((done.removed > 500, done.redacted >= 600), (true, true), "{done:?}");
}

/// Does everything that the engine can once, and tells the statements that it took.
fn every_statement(desk: &mut Desk) -> BTreeSet<String> {
    static SEEN: std::sync::Mutex<BTreeSet<String>> = std::sync::Mutex::new(BTreeSet::new());
    let remember = |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(statement, _) = event {
            SEEN.lock().unwrap().insert(statement.sql().into_owned());
        }
    };
    desk.writer.connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(remember)).unwrap();
    for _ in 0..2 {
        let sealer = Arc::clone(&desk.writer.sealer);
        desk.writer.head = recovery::recover(&desk.writer.connection, &desk.writer.memory, now(), &sealer).unwrap().1;
    }
    assert_eq!(read::unfed(&desk.writer.connection, None).unwrap(), []);
    for number in 1..=6 {
        let idempotency = Some(Idempotency { key: number.to_string(), part: None, fingerprint: [0; 32] });
        let fallback = vec![conductor_core::Fallback {
            channel: "slack".into(),
            channel_id: ChannelId::from_bytes([3; 16]),
            target_id: None,
        }];
        let draft = Draft { key: Some("door".into()), target: Some(number.to_string()), fallback, ..draft(number) };
        let new = NewNotification { idempotency, ..new(draft) };
        assert_eq!(desk.write(|reply| accept(new.clone(), reply)), NEW);
        let again = desk.write(|reply| accept(new, reply));
        assert!(matches!(again, Ok(Accepted::Replayed(_))));
    }
    let retry = Settlement::RetryAt { due: now(), counts: true, limited: None };
    let settlements = [Settlement::Sent, retry, Settlement::Hold, Settlement::Failed(FailureReason::Permanent)];
    for (number, settlement) in (1..).zip(settlements) {
        let lease = Box::new(desk.lease(id(number)));
        desk.write(|reply| Command::Settle(lease, wordy(settlement), reply)).unwrap();
    }
    let (due, expires_at) = (now(), now().plus(Duration::from_secs(60)));
    let keys: Vec<_> = (1..=6).map(|number| DeliveryKey { notification: id(number), ordinal: 0 }).collect();
    desk.write(|reply| Command::Mark(keys.clone(), now(), reply)).unwrap();
    desk.write(|reply| Command::Unmark(keys[1], reply)).unwrap();
    for (number, kind) in [
        (3, ChangeKind::Replay { redirect: None, due, expires_at }),
        (5, ChangeKind::Cancel { at: now() }),
        (1, ChangeKind::Resolve { at: now() }),
    ] {
        let change = Change { tenant: TENANT, id: id(number), kind };
        desk.write(|reply| Command::Change(change, reply)).unwrap();
    }
    let later = now().plus(Duration::from_secs(2 * 86_400));
    let connection = &desk.writer.connection;
    let overdue = read::overdue(connection, &desk.writer.memory, later).unwrap();
    let old = read::old_idempotency(connection, later).unwrap();
    assert_eq!((overdue.len(), old.len()), (4, 6));
    read::payloads(connection, &Damage::default(), &keys).unwrap();
    desk.writer.memory.lock().begin_scan(None);
    let scan = desk.writer.memory.lock().begin_read().unwrap();
    read::scan(connection, scan, 10).unwrap();
    for number in 1..=6 {
        assert!(read::story(connection, &desk.writer.memory, TENANT, id(number), now()).unwrap().is_some());
    }
    for status in std::iter::once(None).chain(Status::ALL.iter().copied().map(Some)) {
        desk.page(Filter { status, ..Filter::default() });
    }
    desk.write(|reply| Command::Expire(overdue, later, reply)).unwrap();
    desk.write(|reply| Command::Forget(old, later, reply)).unwrap();
    desk.write(Command::Ping).unwrap();
    let unfed = desk.writer.memory.lock().unfed.clone();
    write::feed(&mut desk.writer.connection, &unfed).unwrap();
    tidy_up(desk, later);
    audit(desk, later);
    SEEN.lock().unwrap().clone()
}

#[test]
fn statements_find_their_rows_by_an_index() {
    let mut desk = Desk::new();
    let statements = every_statement(&mut desk);
    assert!(statements.len() > 30, "{}", statements.len());
    for sql in statements {
        let is_query = ["SELECT", "INSERT", "UPDATE", "DELETE"].iter().any(|word| sql.starts_with(word));
        let may_scan = SCANS.iter().any(|(part, _)| sql.contains(part));
        if !is_query || may_scan {
            continue;
        }
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let mut statement = desk.writer.connection.prepare(&explain).unwrap();
        let mut steps = statement.raw_query();
        while let Some(step) = steps.next().unwrap() {
            let detail: String = step.get("detail").unwrap();
            assert!(!detail.contains("SCAN") && !detail.contains("TEMP B-TREE"), "{sql}\n{detail}");
        }
    }
}
