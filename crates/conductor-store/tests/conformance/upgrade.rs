//! Stores as released versions, and versions on the way there, left them on disk: this program reads each of them and
//! goes on with it.
//!
//! `tests/fixtures/store-<version>.db` is what the release of that version leaves behind after a stop, and the text beside
//! it says what is in it. The file of a version that has been released is never made again.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor_core::audit::{AuditEvent, AuditFilter, Content, Details};
use conductor_core::callbacks::{CallbackAttempt, CallbackNext, ChannelNews, EventSet, Subscription, Subscriptions};
use conductor_core::receipts::{Arrival, PartKey, Report, Reporter};
use conductor_core::replay::{ReplayItem, ReplayJob, ReplayStep};
use conductor_core::store::{
    Accepted, Claim, Claimed, Filter, Idempotency, NewNotification, Page, Progress, Redirect, Transition,
};
use conductor_core::{
    Actor, AuditKind, AuditLog as _, Callbacks as _, ChannelId, DeliveryKey, Draft, EndpointId, FailureReason, Format,
    Keep, ManualClock, NotificationId, Priority, ReplayId, Replays as _, Retention, Scope, Settlement, Status, Store,
    TenantId, Timestamp,
};
use conductor_store::{AuditFile, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::harness::{HOUR, SECOND, World, draft, finished, first, id_at, leased, new, run, start};
use crate::sqlite::Sqlite;

/// The version whose store is made by these tests.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Set to 1, it makes the fixture of this version anew.
const MAKE: &str = "MAKE_STORE_FIXTURE";
/// A store of this version holds something in every table but these.
const EMPTY_TABLES: [&str; 0] = [];

const TENANT: &str = "01943c2a-7c3e-7000-8000-00000000000a";
/// The one whose content is removed.
const FORGETFUL: &str = "01943c2a-7c3e-7000-8000-00000000000b";
const HOOK: &str = "01943c2a-7c3e-7000-8000-0000000000c1";
const SECOND_HOOK: &str = "01943c2a-7c3e-7000-8000-0000000000c2";
const DOOR: &str = "door";
const FINGERPRINT: [u8; 32] = [7; 32];

/// So late that no test comes after it.
fn far() -> Timestamp {
    Timestamp::parse("2200-01-01T00:00:00Z").unwrap()
}

fn tenant() -> TenantId {
    TENANT.parse().unwrap()
}

fn channel(id: &str) -> ChannelId {
    id.parse().unwrap()
}

fn endpoint() -> EndpointId {
    EndpointId::derive(tenant(), "https://a.example/hooks")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Every fixture's database.
fn fixtures() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "db")).collect();
    found.sort();
    found
}

/// A store that is filled with one of each kind.
struct Filler<'a>(&'a mut World);

impl Filler<'_> {
    async fn add(&self, message: &str, change: impl FnOnce(&mut Draft)) -> DeliveryKey {
        let id = self.0.accept(|draft| {
            draft.tenant = tenant();
            draft.channel = "webhook".into();
            draft.channel_id = channel(HOOK);
            draft.message = message.into();
            draft.expires_at = far();
            change(draft);
        });
        first(id.await)
    }

    async fn attempt(&self, key: DeliveryKey, settlement: Settlement) {
        self.0.attempt(key, settlement).await;
    }

    /// One that has ended with its first attempt.
    async fn ended(&self, message: &str, settlement: Settlement) -> DeliveryKey {
        let key = self.add(message, |_| {}).await;
        self.attempt(key, settlement).await;
        key
    }

    async fn report(&self, key: DeliveryKey, arrival: Arrival) {
        let part = PartKey { delivery: key, part: 0, parts: 1 };
        let (code, detail) = (Some("30003".to_owned()), Some("the phone is off".to_owned()));
        let report = Report { part, arrival, code, detail, at: Some(self.0.now()) };
        let by = Reporter { tenant: tenant(), channel: "webhook".into() };
        self.0.store().report(&by, report, self.0.now()).await.unwrap();
    }

    /// What waits.
    async fn waiting(&mut self) {
        let everything = |draft: &mut Draft| {
            draft.target = Some("cellar".into());
            draft.title = Some("Water".into());
            draft.priority = Priority::High;
            draft.format = Format::Markdown;
            draft.data = serde_json::from_str(r#"{"level": 3, "nested": {"a": [1, null]}}"#).unwrap();
            draft.metadata = BTreeMap::from([("house".to_owned(), "north".to_owned())]);
            draft.fallback = vec![crate::harness::fallback("webhook", channel(SECOND_HOOK), Some("attic"))];
        };
        self.add("queued with *everything*", everything).await;
        self.add("scheduled", |draft| draft.send_at = Some(far().minus(HOUR))).await;
        let now = self.0.now();
        let retry = |counts, limited| Settlement::RetryAt { due: now.plus(HOUR), counts, limited };
        let key = self.add("retrying", |_| {}).await;
        self.attempt(key, Settlement::RetryAt { due: now, counts: true, limited: None }).await;
        self.attempt(key, retry(true, None)).await;
        let key = self.add("its channel has to wait", |draft| draft.channel_id = channel(SECOND_HOOK)).await;
        self.attempt(key, retry(false, Some(Scope::Channel))).await;
        let key = self.add("its lane has to wait", |draft| draft.target = Some("lane".into())).await;
        self.attempt(key, retry(false, Some(Scope::Lane))).await;
        let key = self.add("the first part is sent, this one is not", |_| {}).await;
        let mut lease = self.0.lease(key).await;
        let progress = Progress { parts_sent: 1, cuts: 0x7e57, plain: false, provider_id: Some("part-1".into()) };
        self.0.store().advance(&mut lease, progress).await.unwrap();
        let done = finished(&lease, retry(true, None), now);
        self.0.store().settle(lease, done).await.unwrap();
        let key = self.add("refused *markup*", |draft| draft.format = Format::Markdown).await;
        self.attempt(key, Settlement::StepDown).await;
        let key = self.add("held", |_| {}).await;
        self.attempt(key, Settlement::Hold).await;
        let keyed = |draft: &mut Draft| draft.key = Some(DOOR.into());
        self.add("superseded", keyed).await;
        self.add("keyed", keyed).await;
        let key = self.add("on its second way", |draft| {
            draft.fallback = vec![crate::harness::fallback("webhook", channel(SECOND_HOOK), Some("second"))];
        });
        let key = key.await;
        self.attempt(key, Settlement::Failed(FailureReason::Permanent)).await;
        let key = self.ended("redirected", Settlement::Failed(FailureReason::Permanent)).await;
        let redirect =
            Redirect { channel: "webhook".into(), channel_id: channel(SECOND_HOOK), target: Some("other".into()) };
        let due = self.0.now();
        self.0.store().replay(tenant(), key.notification, Some(redirect), due, far()).await.unwrap();
        let mut posted = self.0.draft();
        (posted.tenant, posted.channel, posted.channel_id) = (tenant(), "webhook".into(), channel(HOOK));
        (posted.message, posted.expires_at) = ("posted with a key of its own".into(), far());
        let idempotency = Some(Idempotency { key: "once".into(), part: None, fingerprint: FINGERPRINT });
        let posted = NewNotification { idempotency, ..new(posted) };
        assert_eq!(self.0.store().accept(posted).await, Ok(Accepted::New { superseded: None }));
    }

    /// What has ended, in each way there is.
    async fn over(&mut self) {
        self.ended("sent", Settlement::Sent).await;
        let key = self.ended("delivered", Settlement::Sent).await;
        self.report(key, Arrival::Delivered).await;
        let key = self.ended("undelivered", Settlement::Sent).await;
        self.report(key, Arrival::Undelivered).await;
        self.ended("failed", Settlement::Failed(FailureReason::Permanent)).await;
        let key = self.add("canceled", |_| {}).await;
        self.0.store().cancel(tenant(), key.notification, self.0.now()).await.unwrap();
        let key = self.ended("resolved", Settlement::Hold).await;
        self.0.store().resolve(tenant(), key.notification, self.0.now()).await.unwrap();
        let now = self.0.now();
        self.add("expired", |draft| draft.expires_at = now.plus(SECOND)).await;
        let key = self.add("redacted", |draft| draft.tenant = FORGETFUL.parse().unwrap()).await;
        self.attempt(key, Settlement::Sent).await;
    }

    /// Wants to hear of everything that happens to the tenant's notifications.
    async fn listen(&self) {
        let mut wishes = Subscriptions::default();
        let wish = Subscription { endpoint: endpoint(), events: EventSet::all(), fingerprint: FINGERPRINT };
        wishes.add(tenant(), wish);
        self.0.store().subscribe(wishes).await.unwrap();
    }

    /// Callbacks that were taken, have failed, were given up, and of a channel that is down.
    async fn callbacks(&self) {
        let down = Some("no answer".to_owned());
        let (name, kind, since) = ("hook".to_owned(), "webhook".to_owned(), self.0.now());
        let news = ChannelNews { tenant: tenant(), channel: channel(HOOK), kind, name, down, since };
        self.0.store().tell_of_channel(news, self.0.now()).await.unwrap();
        let mut waiting = self.0.store().callbacks(endpoint(), 100).await.unwrap().first;
        waiting.sort_by_key(|callback| callback.number);
        let again = CallbackNext::Again(self.0.now().plus(HOUR));
        for (callback, next) in waiting.iter().zip([CallbackNext::Done, CallbackNext::GiveUp, again]) {
            let ok = next == CallbackNext::Done;
            let (code, detail) =
                (Some(if ok { "204" } else { "500" }.to_owned()), (!ok).then(|| "it failed".to_owned()));
            let attempt = CallbackAttempt { at: self.0.now(), ok, code, detail };
            self.0.store().settle_callback(callback, attempt, next, self.0.now()).await.unwrap();
        }
    }

    /// Keys that were refused.
    async fn refusals(&self) {
        let address = serde_json::Map::from_iter([("203.0.113.9".to_owned(), 1.into())]);
        let content = serde_json::Map::from_iter([("addresses".to_owned(), address.into())]);
        let details = Details::new().number("missing", 0).number("wrong", 1);
        let event = AuditEvent::of_server(AuditKind::KeysRefused, Actor::Unknown, details);
        self.0.store().record(AuditEvent { content: Content::Here(content), ..event }).await.unwrap();
    }

    /// A bulk retry that is done, and one that is under way.
    async fn bulk_retries(&mut self) {
        let mut ids = Vec::new();
        for number in 0..2 {
            let key = self.ended(&format!("tried again {number}"), Settlement::Failed(FailureReason::Permanent)).await;
            ids.push(key.notification);
        }
        let filter = Filter { dead_letters: true, text: Some("tried again".into()), ..Filter::default() };
        for (number, id) in ids.into_iter().enumerate() {
            let job = ReplayId::new(id_at(self.0.now(), 1_000_000 + number as u64).uuid());
            let job = ReplayJob { interval: SECOND, ..ReplayJob::new(job, tenant(), self.0.now(), filter.clone()) };
            let job = self.0.store().begin_replay(job).await.unwrap().expect("there is room");
            let items = vec![ReplayItem { notification: id, expires_after: far().since(self.0.now()) }];
            let ends_at = (number == 0).then(|| self.0.now());
            let step = ReplayStep { job: job.id, from: job.position, items, due: self.0.now(), to: id, ends_at };
            self.0.store().step_replay(step).await.unwrap();
        }
    }
}

/// Fills a new store with one of each kind and stops it. Every run makes the same.
async fn fill(mut world: World) -> World {
    let mut filler = Filler(&mut world);
    let key = filler.add("took the process with it", |_| {}).await;
    filler.0.crash().await;
    drop(leased(filler.0.claim_as(key, true).await));
    filler.0.crash().await;
    filler.listen().await;
    filler.waiting().await;
    filler.over().await;
    filler.callbacks().await;
    filler.refusals().await;
    filler.bulk_retries().await;
    world.clock.advance(SECOND);
    let expired = world.store().expire(world.now()).await.unwrap();
    assert_eq!(expired.len(), 1);
    world.clock.advance(HOUR);
    // What is old is found along the feed, which a stop writes to its end.
    world.restart().await;
    let keep = Keep { whole: None, content: Some(SECOND) };
    let tenants = HashMap::from([(FORGETFUL.parse().unwrap(), keep)]);
    let retention = Arc::new(Retention { others: Keep { whole: None, content: None }, tenants });
    while !world.store().prune(&retention, world.now()).await.unwrap().is_done {}
    world.store().close().await;
    world
}

/// Makes a store with one of each kind in `file`.
fn make(file: &Path) {
    let engine = Sqlite::new();
    let path = engine.path().join("conductor.db");
    run(
        || Box::new(engine),
        async |world| {
            let _world = fill(world).await;
            fs::copy(&path, file).unwrap();
        },
    );
}

/// A store of which `file` is copied, opened some hours after it was stopped.
fn open(file: &Path) -> (SqliteStore, Arc<ManualClock>, TempDir) {
    let directory = TempDir::new().unwrap();
    fs::copy(file, directory.path().join("conductor.db")).unwrap();
    let clock = Arc::new(ManualClock::at(start().plus(5 * HOUR)));
    let store = SqliteStore::open(directory.path(), Arc::clone(&clock) as Arc<_>);
    let store = store.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    (store, clock, directory)
}

fn in_runtime<T>(case: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(case)
}

/// All of a tenant's notifications, oldest first.
async fn listed(store: &SqliteStore, tenant: TenantId) -> Vec<NotificationId> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let Page { items, next } = store.notifications(tenant, &Filter::default(), 7, before).await.unwrap();
        all.extend(items.iter().map(|item| item.notification.id));
        before = next;
        if before.is_none() {
            all.reverse();
            return all;
        }
    }
}

/// Everything that callers and the dispatcher can read of a store, as text.
async fn told(store: &SqliteStore) -> String {
    let mut text = String::new();
    for tenant in [TENANT, FORGETFUL] {
        let tenant: TenantId = tenant.parse().unwrap();
        for id in listed(store, tenant).await {
            tell(&mut text, store, tenant, id).await;
        }
        for job in store.replay_jobs(tenant).await.unwrap() {
            let ReplayJob { id, filter, interval, next_due, retried, skipped, ended_at, .. } = job;
            let filter = serde_json::to_string(&filter).unwrap();
            writeln!(text, "bulk retry {id}: {filter} every {interval:?} next {next_due} retried {retried} skipped {skipped} ended {ended_at:?}").unwrap();
        }
    }
    tell_callbacks(&mut text, store).await;
    tell_audit(&mut text, store).await;
    let asked = Idempotency { key: "once".into(), part: None, fingerprint: FINGERPRINT };
    let earlier = store.earlier(tenant(), &asked).await.unwrap();
    if let Some(Accepted::Replayed(notification)) = earlier {
        writeln!(text, "the key \"once\": {}", notification.id).unwrap();
    }
    for queued in store.arrivals(1_000).await.unwrap() {
        let DeliveryKey { notification, ordinal } = queued.key;
        let (tried, suspect) = (queued.tried, queued.suspect);
        writeln!(
            text,
            "waits: {notification}.{ordinal} due {} tried {tried} suspect {suspect} limited {:?}",
            queued.due, queued.limited
        )
        .unwrap();
    }
    text
}

async fn tell(text: &mut String, store: &SqliteStore, tenant: TenantId, id: NotificationId) {
    let story = store.notification(tenant, id).await.unwrap().expect("it was listed");
    let status = story.status();
    let Draft { channel, channel_id, target, message, title, priority, format, .. } = &*story.notification;
    writeln!(text, "{id} {status}: {message:?} {title:?} by {channel} {channel_id} to {target:?} {priority} {format}")
        .unwrap();
    let Draft { data, metadata, key, fallback, accepted_at, send_at, expires_at, .. } = &*story.notification;
    let (data, fallback) = (serde_json::to_string(data).unwrap(), serde_json::to_string(fallback).unwrap());
    writeln!(text, "  data {data} metadata {metadata:?} key {key:?} fallback {fallback}").unwrap();
    let redacted = story.redacted_at;
    writeln!(text, "  accepted {accepted_at} send {send_at:?} expires {expires_at} redacted {redacted:?}").unwrap();
    for delivery in &story.deliveries {
        let (ordinal, status, reason) = (delivery.key.ordinal, delivery.status, delivery.reason);
        let (channel, target, due) = (delivery.channel_id, &delivery.target, delivery.due_at);
        let provider = &delivery.provider_id;
        writeln!(text, "  {ordinal} {status} {reason:?} by {channel} to {target:?} due {due:?} provider {provider:?}")
            .unwrap();
        if let Some(receipt) = &delivery.receipt {
            let (at, code, detail) = (receipt.at, &receipt.code, &receipt.detail);
            writeln!(text, "    receipt {} at {at} {code:?} {detail:?}", receipt.arrival).unwrap();
        }
        for attempt in &delivery.attempts {
            let (number, at, outcome) = (attempt.number, attempt.at, attempt.outcome);
            let (took, code, detail, wait) = (attempt.duration, &attempt.code, &attempt.detail, attempt.retry_after);
            writeln!(text, "    {number} {outcome} at {at} took {took:?} {code:?} {detail:?} wait {wait:?}").unwrap();
        }
    }
}

async fn tell_callbacks(text: &mut String, store: &SqliteStore) {
    for state in store.all_endpoints().await.unwrap() {
        let mut waiting = store.callbacks(state.endpoint, 100).await.unwrap().first;
        waiting.sort_by_key(|callback| callback.number);
        for callback in waiting {
            let (number, event, due, attempts) = (callback.number, callback.event, callback.due, callback.attempts);
            let body: serde_json::Value = serde_json::from_str(&callback.body).unwrap();
            writeln!(text, "callback {number}: {event} due {due} attempts {attempts} of {}", body["data"]["id"])
                .unwrap();
        }
        for given_up in store.given_up(state.endpoint).await.unwrap() {
            let (event, of, attempts) = (given_up.event, given_up.notification, given_up.attempts);
            let (code, detail) = (given_up.code, given_up.detail);
            writeln!(text, "given up: {event} of {of:?} attempts {attempts} {code:?} {detail:?}").unwrap();
        }
        let (waiting, delivered, given_up, last) = (state.waiting, state.delivered, state.given_up, state.last);
        writeln!(text, "endpoint: {waiting} wait, {delivered} taken, {given_up} given up, last {last:?}").unwrap();
    }
    for channel in store.channels_down().await.unwrap() {
        writeln!(text, "down: {channel}").unwrap();
    }
}

async fn tell_audit(text: &mut String, store: &SqliteStore) {
    let mut entries = store.audit(None, &AuditFilter::default(), 1_000, None).await.unwrap().items;
    entries.reverse();
    for entry in entries {
        let (seq, at, of, ordinal) = (entry.seq, entry.at, entry.notification, entry.ordinal);
        let (kind, actor, details, content) = (entry.kind, entry.actor, entry.details, entry.content);
        writeln!(text, "audit {seq} at {at}: {kind} by {actor} of {of:?}.{ordinal:?} {details:?} {content:?}").unwrap();
    }
}

/// Every table of a database with how many rows it has.
fn tables(path: &Path) -> BTreeMap<String, i64> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let count = |name: &String| connection.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0));
    names.iter().map(|name| (name.clone(), count(name).unwrap())).collect()
}

fn migrations(path: &Path) -> Vec<(i64, Vec<u8>)> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT number, checksum FROM migration ORDER BY number").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "whoever makes a fixture says so in the environment")]
fn is_to_be_made() -> bool {
    std::env::var(MAKE).is_ok_and(|value| value == "1")
}

#[test]
fn the_store_of_this_version_is_kept_for_those_that_come() {
    let place = TempDir::new().unwrap();
    let made = place.path().join("made.db");
    make(&made);
    let told_of = |path: &Path| {
        let (store, _, _directory) = open(path);
        in_runtime(told(&store))
    };
    let (kept, text) = (folder().join(format!("store-{VERSION}.db")), folder().join(format!("store-{VERSION}.txt")));
    if is_to_be_made() {
        fs::create_dir_all(folder()).unwrap();
        fs::copy(&made, &kept).unwrap();
        fs::write(&text, told_of(&kept)).unwrap();
    }
    assert!(
        fs::read_to_string(&text).unwrap_or_default().contains("redacted Some("),
        "nothing was redacted. {MAKE}=1?"
    );
    let empty: Vec<_> =
        tables(&made).into_iter().filter(|(name, rows)| *rows == 0 && !EMPTY_TABLES.contains(&&**name)).collect();
    assert!(empty.is_empty(), "a store that is kept has one of each kind, but nothing is in {empty:?}");
    let help = format!(
        "If this version has not been released yet, make its store again: {MAKE}=1 cargo test -p conductor-store --test \
         conformance upgrade. If it has been, raise the version in Cargo.toml first"
    );
    assert!(kept.exists(), "{} is missing. {help}", kept.display());
    assert_eq!(migrations(&kept), migrations(&made), "the kept store has other migrations than this program. {help}");
    assert_eq!(tables(&kept), tables(&made), "the kept store holds something else than this program writes. {help}");
    assert_eq!(told_of(&made), fs::read_to_string(&text).unwrap(), "the text beside it says something else. {help}");
    assert!(fs::metadata(&kept).unwrap().len() < 256 * 1024, "a fixture is small");
}

#[test]
fn every_kept_store_reads_back_as_it_was_written() {
    let all = fixtures();
    assert!(all.len() >= 2, "{all:?}");
    for path in all {
        let (store, _, directory) = open(&path);
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        in_runtime(async {
            assert_eq!(told(&store).await, expected, "{}", path.display());
            store.close().await;
            let audit = AuditFile::open(directory.path()).unwrap();
            let verdict = audit.verify(None, |fault| panic!("{}: {fault}", path.display())).unwrap();
            let entries = expected.lines().filter(|line| line.starts_with("audit ")).count();
            assert_eq!(usize::try_from(verdict.entries), Ok(entries));
            let clock = Arc::new(ManualClock::at(start().plus(5 * HOUR)));
            let again = SqliteStore::open(directory.path(), clock).unwrap();
            assert_eq!(told(&again).await, expected, "{}, opened again", path.display());
            again.close().await;
        });
    }
}

/// Sends everything that waits and is due.
async fn send_all(store: &SqliteStore, now: Timestamp) -> usize {
    let mut sent = 0;
    loop {
        let queued = store.arrivals(100).await.unwrap();
        if queued.is_empty() {
            return sent;
        }
        let claims: Vec<_> = queued.iter().map(|queued| Claim { key: queued.key, suspect: queued.suspect }).collect();
        for claimed in store.claim(&claims, now).await.unwrap() {
            let Claimed::Leased(lease) = claimed else { continue };
            let done = finished(&lease, Settlement::Sent, now);
            assert_eq!(store.settle(*lease, done).await.unwrap().status, Status::Sent);
            sent += 1;
        }
    }
}

#[test]
fn every_kept_store_goes_on_where_it_stopped() {
    for path in fixtures() {
        let (store, clock, _directory) = open(&path);
        in_runtime(async {
            let now = conductor_core::Clock::now(&*clock);
            let of_status = async |store: &SqliteStore, status| -> Vec<String> {
                let filter = Filter { status: Some(status), ..Filter::default() };
                let page = store.notifications(tenant(), &filter, 100, None).await.unwrap();
                page.items.into_iter().map(|item| item.notification.message.clone()).collect()
            };
            let held = of_status(&store, Status::Held).await;
            assert_eq!(held, ["held"], "{}", path.display());
            let waiting = store.waiting(channel(HOOK)) + store.waiting(channel(SECOND_HOOK));
            let sent = send_all(&store, now).await as u64;
            assert_eq!(sent + 2, waiting, "{}: all but what is held and what is for later", path.display());
            assert_eq!(of_status(&store, Status::Scheduled).await, ["scheduled"]);
            for (status, action) in [(Status::Failed, "failed"), (Status::Undelivered, "undelivered")] {
                assert_eq!(of_status(&store, status).await, [action]);
            }
            let filter = Filter { status: Some(Status::Held), ..Filter::default() };
            let held = store.notifications(tenant(), &filter, 1, None).await.unwrap().items.remove(0).notification.id;
            assert_eq!(store.resolve(tenant(), held, now).await.unwrap(), Transition::Done(Status::Sent));
            let running = store.running_replays(None, 10).await.unwrap();
            assert_eq!(running.len(), 1, "{}", path.display());
            // Its keys are free again, its requests are still known, and something new goes its way.
            let mut fresh = draft(id_at(now, 1), now);
            (fresh.tenant, fresh.channel_id, fresh.key) = (tenant(), channel(HOOK), Some(DOOR.into()));
            let key = first(fresh.id);
            assert_eq!(store.accept(new(fresh)).await, Ok(Accepted::New { superseded: None }));
            assert_eq!(send_all(&store, now).await, 1);
            assert_eq!(store.notification(tenant(), key.notification).await.unwrap().unwrap().status(), Status::Sent);
            store.close().await;
        });
    }
}

#[test]
fn an_upgrade_that_dies_half_way_is_made_by_the_next_start() {
    for path in fixtures() {
        let (store, _, directory) = open(&path);
        in_runtime(store.close());
        drop(store);
        let upgraded = tables(&directory.path().join("conductor.db"));
        // A process that is killed leaves the log as it is, with what was not committed.
        let place = TempDir::new().unwrap();
        let file = place.path().join("conductor.db");
        fs::copy(&path, &file).unwrap();
        let mut dying = Connection::open(&file).unwrap();
        dying.execute_batch("PRAGMA journal_mode = WAL; PRAGMA cache_size = 1; PRAGMA cache_spill = 1").unwrap();
        let half = dying.transaction().unwrap();
        half.execute_batch(
            "ALTER TABLE pending ADD COLUMN half TEXT; UPDATE pending SET half = 'x'; CREATE TABLE half (x)",
        )
        .unwrap();
        half.execute_batch("INSERT INTO half WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT randomblob(500) FROM n").unwrap();
        let killed = TempDir::new().unwrap();
        for name in ["conductor.db", "conductor.db-wal"] {
            fs::copy(place.path().join(name), killed.path().join(name)).unwrap();
        }
        assert!(
            fs::metadata(killed.path().join("conductor.db-wal")).unwrap().len() > 500_000,
            "half of it was written"
        );
        half.rollback().unwrap();
        let clock = Arc::new(ManualClock::at(start().plus(5 * HOUR)));
        let store = SqliteStore::open(killed.path(), clock).unwrap();
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        in_runtime(async {
            assert_eq!(told(&store).await, expected, "{}", path.display());
            store.close().await;
        });
        assert_eq!(tables(&killed.path().join("conductor.db")), upgraded);
    }
}
