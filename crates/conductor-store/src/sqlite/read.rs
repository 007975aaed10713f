//! Everything that is read: on connections of their own, so that readers never wait for the writer.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use conductor_core::store::{
    BATCH_MAX, Backlog, BacklogRequest, DeliveryStory, FIRST_ATTEMPTS_KEPT, Filter, LAST_ATTEMPTS_KEPT, Page, Queued,
    Story, Summary,
};
use conductor_core::{
    Attempt, ChannelId, DeliveryKey, Notification, NotificationId, Status, StoreError, TenantId, Timestamp,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use tokio::sync::Semaphore;

use super::damage::{Damage, is_damage};
use super::memory::{Memory, Scan};
use super::weights::Weight;
use super::write::{self, Waiting};
use super::writer::store_error;
use super::{receipts, rows};

/// The most reads at once for callers, and for the dispatcher, who must not have to wait behind them. Each has a
/// connection.
const READERS: usize = 4;
/// The most rows that one page looks at before it ends, however few have fitted.
const LOOK_MAX: usize = 20_000;
/// The most rows that one look for a channel's backlog goes through. A channel that has more waiting than is kept in
/// memory goes through all that waits once while it is taken in, so much at a time, and then waits for its next turn.
const BACKLOG_LOOK_MAX: usize = 4_000;
/// The most rows that one part of a scan goes through, whatever they are: the dispatcher waits for it.
const SCAN_LOOK_MAX: usize = 4_000;
/// The most rows that one look for the oldest of some channels goes through. The next look goes on there.
const OLDEST_LOOK_MAX: usize = 4_000;
/// A page ends when its notifications are larger than this in all, however few they are.
const PAGE_MAX_BYTES: usize = 1024 * 1024;
/// A clock that was put back makes ids that are later than what they were accepted at; a list with an upper bound of
/// time allows for so much.
const CLOCK_SLACK_MILLIS: i64 = 2 * 60 * 60 * 1000;

/// Connections that only read.
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    damage: Arc<Damage>,
}

impl Readers {
    pub(crate) fn new(path: &Path, damage: &Arc<Damage>) -> Self {
        let permits = Arc::new(Semaphore::new(READERS));
        Self { path: path.to_owned(), idle: Mutex::default(), permits, damage: Arc::clone(damage) }
    }

    /// Runs a read on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let result = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => open(&readers.path)?,
            };
            let result = work(&connection).inspect_err(|error| readers.damage.note(error));
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if !readers.permits.is_closed() {
                idle.push(connection);
            }
            drop(idle);
            // Not before it has ended: it goes on also when nobody waits for it any more.
            drop(permit);
            result
        });
        match result.await {
            Ok(result) => result.map_err(|error| store_error(&error)),
            Err(_) => Err(StoreError::Closed),
        }
    }

    pub(crate) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -2000; PRAGMA busy_timeout = 5000")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// A part of `pending`, see [`scan`].
pub(crate) struct Scanned {
    pub(crate) found: Vec<Queued>,
    /// The last that was looked at; none if there was nothing.
    pub(crate) through: Option<DeliveryKey>,
    /// Nothing lies behind it.
    pub(crate) at_end: bool,
}

/// What follows of `pending`, as far as the scan takes it. Looks at no more than [`SCAN_LOOK_MAX`] rows.
pub(crate) fn scan(connection: &Connection, scan: Scan, limit: usize) -> rusqlite::Result<Scanned> {
    let sql = following_sql();
    let mut statement = connection.prepare_cached(&sql)?;
    let (id, ordinal) = place(scan.after);
    let mut following = statement.query((id, ordinal, rows::count(SCAN_LOOK_MAX)))?;
    let (mut found, mut looked_at, mut through) = (Vec::new(), 0, None);
    while found.len() < limit
        && let Some(row) = following.next()?
    {
        (looked_at, through) = (looked_at + 1, Some(rows::key(row)?));
        let is_held: bool = row.get("held")?;
        let (due, is_tried) = (rows::time(row, 6)?, row.get::<_, u32>(7)? > 0);
        if !is_held && scan.wants(due, is_tried) {
            found.push(rows::queued(row, scan.suspect_through)?);
        }
    }
    let at_end = looked_at < SCAN_LOOK_MAX && found.len() < limit;
    Ok(Scanned { found, through, at_end })
}

/// Reads `pending` in its order behind a [`place`], with the columns that [`rows::queued`] reads and `held`.
fn following_sql() -> String {
    format!(
        "SELECT {}, held FROM pending WHERE (notification, ordinal) > (?1, ?2) ORDER BY notification, ordinal LIMIT ?3",
        rows::QUEUED_COLUMNS
    )
}

/// What SQL compares with to read on behind a key, or from the beginning.
fn place(after: Option<DeliveryKey>) -> ([u8; 16], i64) {
    after.map_or(([0; 16], -1), |key| (*key.notification.bytes(), i64::from(key.ordinal)))
}

/// What follows of one channel. Looks at no more than [`BACKLOG_LOOK_MAX`] rows, whosever they are.
pub(crate) fn backlog(
    connection: &Connection,
    request: &BacklogRequest,
    suspect_through: Option<DeliveryKey>,
) -> rusqlite::Result<Backlog> {
    let sql = following_sql();
    let mut statement = connection.prepare_cached(&sql)?;
    let (id, ordinal) = place(request.after);
    let mut following = statement.query((id, ordinal, rows::count(BACKLOG_LOOK_MAX)))?;
    let (mut found, mut looked_at, mut through) = (Vec::new(), 0, request.after);
    while found.len() < request.limit
        && let Some(row) = following.next()?
    {
        (looked_at, through) = (looked_at + 1, Some(rows::key(row)?));
        let of_channel = row.get_ref(3)?.as_blob()? == request.channel.bytes();
        if !of_channel || row.get("held")? {
            continue;
        }
        let queued = rows::queued(row, suspect_through)?;
        if request.priority.is_none_or(|priority| priority == queued.priority) {
            found.push(queued);
        }
    }
    let at_end = looked_at < BACKLOG_LOOK_MAX && found.len() < request.limit;
    Ok(Backlog { found, through: through.filter(|_| !at_end) })
}

/// Deliveries with their notifications; none for each that waits no more or is held. One that cannot be read is left
/// out too, and waits for a mended file: it must not hold up the others.
pub(crate) fn payloads(
    connection: &Connection,
    damage: &Damage,
    keys: &[DeliveryKey],
) -> rusqlite::Result<Vec<Option<(Waiting, Notification)>>> {
    let sql =
        format!("SELECT {} FROM pending WHERE notification = ?1 AND ordinal = ?2 AND held = 0", write::WAITING_COLUMNS);
    // One snapshot, so that a delivery's notification is not removed between the two reads.
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut read = |key: &DeliveryKey| {
        let row = (key.notification.bytes(), key.ordinal);
        let Some(waiting) = statement.query_row(row, write::waiting).optional()? else { return Ok(None) };
        let notification = write::notification_by_id(&snapshot, key.notification)?;
        if notification.is_none() {
            damage.met("a delivery waits whose notification is missing");
        }
        Ok(notification.map(|notification| (waiting, notification)))
    };
    let unreadable = |error: &rusqlite::Error| {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        let is_odd =
            matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..));
        is_odd || is_damage(error)
    };
    let one = |key: &DeliveryKey| match read(key) {
        Err(error) if unreadable(&error) => {
            damage.note(&error);
            tracing::error!(notification.id = %key.notification, %error, "A delivery cannot be read; it is left out");
            Ok(None)
        }
        read => read,
    };
    keys.iter().map(one).collect()
}

/// Counts the rows of `pending`, by channel and by tenant.
pub(crate) fn count_waiting(connection: &Connection, memory: &Memory) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT tenant, channel_id, notification, bytes FROM pending")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let tenant = TenantId::from_bytes(rows::id_bytes(row, 0)?);
        let channel = ChannelId::from_bytes(rows::id_bytes(row, 1)?);
        let notification = NotificationId::from_bytes(rows::id_bytes(row, 2)?);
        let bytes = row.get::<_, i64>(3)?.unsigned_abs();
        let mut memory = memory.lock();
        memory.count_in(channel, notification);
        memory.weights.change(Weight { tenant, bytes, comes: true });
    }
    Ok(())
}

/// The oldest of what waits in a channel, as far as one look has found it.
pub(crate) struct Oldest {
    pub(crate) channel: ChannelId,
    /// Nothing older waits in the channel.
    pub(crate) not_before: NotificationId,
    /// When it was accepted; none if it was not found yet.
    pub(crate) accepted_at: Option<Timestamp>,
}

/// Looks for the oldest notification that waits in each of these channels of a tenant, each behind the place before
/// which there is none. Looks at no more than [`OLDEST_LOOK_MAX`] rows, whosever they are.
pub(crate) fn oldest(
    connection: &Connection,
    tenant: TenantId,
    channels: &[(ChannelId, NotificationId)],
) -> rusqlite::Result<Vec<Oldest>> {
    let sql = "SELECT n.accepted_at FROM pending AS p CROSS JOIN notification AS n ON n.id = p.notification \
               WHERE p.notification = ?1 AND p.tenant = ?2 AND p.channel_id = ?3";
    let mut known = connection.prepare_cached(sql)?;
    let (mut found, mut sought, mut from) = (Vec::new(), HashSet::new(), None);
    for (channel, not_before) in channels {
        let row = (not_before.bytes(), tenant.bytes(), channel.bytes());
        match known.query_row(row, |row| rows::time(row, 0)).optional()? {
            Some(at) => found.push(Oldest { channel: *channel, not_before: *not_before, accepted_at: Some(at) }),
            None => {
                sought.insert(*channel);
                from = Some(from.map_or(*not_before, |from: NotificationId| from.min(*not_before)));
            }
        }
    }
    let Some(mut through) = from else { return Ok(found) };
    let sql = "SELECT notification, channel_id FROM pending WHERE notification >= ?1 \
               ORDER BY notification LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut following = statement.query((through.bytes(), rows::count(OLDEST_LOOK_MAX)))?;
    while !sought.is_empty()
        && let Some(row) = following.next()?
    {
        through = NotificationId::from_bytes(rows::id_bytes(row, 0)?);
        let channel = ChannelId::from_bytes(rows::id_bytes(row, 1)?);
        if sought.remove(&channel) {
            let row = (through.bytes(), tenant.bytes(), channel.bytes());
            let accepted_at = known.query_row(row, |row| rows::time(row, 0)).optional()?;
            found.push(Oldest { channel, not_before: through, accepted_at });
        }
    }
    let missing = |channel| Oldest { channel, not_before: through, accepted_at: None };
    found.extend(sought.into_iter().map(missing));
    Ok(found)
}

/// Waiting deliveries whose time has run out. Those under way are passed over, so that they never fill the batch. As
/// long as nothing can be over, the file is not read.
pub(crate) fn overdue(connection: &Connection, memory: &Memory, now: Timestamp) -> rusqlite::Result<Vec<DeliveryKey>> {
    if !memory.lock().expiry.begin_look(now) {
        return Ok(Vec::new());
    }
    // Both have to see the same.
    let snapshot = connection.unchecked_transaction()?;
    let sql = "SELECT notification, ordinal FROM pending WHERE expires_at <= ?1 AND held = 0";
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut found = statement.query_map([now.millis()], rows::key)?.peekable();
    if found.peek().is_some() {
        let waits =
            |key: &rusqlite::Result<DeliveryKey>| key.as_ref().map_or(true, |key| !memory.lock().is_leased(*key));
        return found.filter(waits).take(BATCH_MAX).collect();
    }
    let sql = "SELECT min(expires_at) FROM pending WHERE expires_at > ?1 AND held = 0";
    let next: Option<i64> = snapshot.prepare_cached(sql)?.query_row([now.millis()], |row| row.get(0))?;
    memory.lock().expiry.nothing_over(next.map(Timestamp::from_millis));
    Ok(Vec::new())
}

/// Idempotency keys that were accepted before `before`.
pub(crate) fn old_idempotency(connection: &Connection, before: Timestamp) -> rusqlite::Result<Vec<(TenantId, String)>> {
    let sql = "SELECT tenant, key FROM idempotency WHERE accepted_at < ?1 LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map((before.millis(), rows::count(BATCH_MAX)), |row| {
        Ok((TenantId::from_bytes(rows::id_bytes(row, 0)?), row.get(1)?))
    })?;
    found.collect()
}

/// The notifications that the tenants' feed does not have yet.
pub(crate) fn unfed(
    connection: &Connection,
    mark: Option<[u8; 16]>,
) -> rusqlite::Result<Vec<(TenantId, NotificationId)>> {
    let mut statement = connection.prepare("SELECT tenant, id FROM notification WHERE id > ?1 ORDER BY id")?;
    let found = statement.query_map([mark.unwrap_or([0; 16])], |row| {
        Ok((TenantId::from_bytes(row.get(0)?), NotificationId::from_bytes(row.get(1)?)))
    })?;
    found.collect()
}

/// A notification with all that happened to it.
pub(crate) fn story(
    connection: &Connection,
    memory: &Memory,
    tenant: TenantId,
    id: NotificationId,
    now: Timestamp,
) -> rusqlite::Result<Option<Story>> {
    // One snapshot, so that a delivery which ends meanwhile is seen once.
    let transaction = connection.unchecked_transaction()?;
    let notification = write::notification_by_id(&transaction, id)?.filter(|n| n.tenant == tenant);
    let Some(notification) = notification else { return Ok(None) };
    let redacted_at = write::redacted_at(&transaction, id)?;
    let mut deliveries = Vec::new();
    let sql = "SELECT notification, ordinal, channel, target, channel_id, status, provider_id, reason, attempts FROM ended \
               WHERE notification = ?1 ORDER BY ordinal";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut ended = statement.query([id.bytes()])?;
    while let Some(row) = ended.next()? {
        let key = rows::key(row)?;
        let own: Option<String> = row.get(2)?;
        let target = if own.is_some() { row.get(3)? } else { notification.target.clone() };
        let (attempts, attempts_left_out) = attempts(&transaction, key, row.get(8)?)?;
        deliveries.push(DeliveryStory {
            key,
            channel: own.unwrap_or_else(|| notification.channel.clone()),
            channel_id: ChannelId::from_bytes(rows::id_bytes(row, 4)?),
            target,
            status: rows::word(row, 5)?,
            due_at: None,
            reason: rows::optional_word(row, 7)?,
            provider_id: row.get(6)?,
            receipt: receipts::reception(&transaction, key)?,
            attempts,
            attempts_left_out,
        });
    }
    if let Some(waiting) = write::waiting_of(&transaction, id)? {
        let leased = memory.lock().is_leased(waiting.key);
        let status = rows::waiting_status(waiting.held, leased, waiting.attempts, waiting.due, now);
        let (channel, target) =
            waiting.own.unwrap_or_else(|| (notification.channel.clone(), notification.target.clone()));
        let (attempts, attempts_left_out) = attempts(&transaction, waiting.key, waiting.attempts)?;
        deliveries.push(DeliveryStory {
            key: waiting.key,
            channel,
            channel_id: waiting.channel_id,
            target,
            status,
            due_at: (!waiting.held).then_some(waiting.due),
            reason: None,
            provider_id: waiting.progress.provider_id,
            receipt: receipts::reception(&transaction, waiting.key)?,
            attempts,
            attempts_left_out,
        });
    }
    Ok(Some(Story { notification, redacted_at, deliveries }))
}

/// The attempts of a delivery that are kept of `made`, and how many are not.
fn attempts(connection: &Connection, key: DeliveryKey, made: u32) -> rusqlite::Result<(Vec<Attempt>, u32)> {
    let sql = "SELECT number, at, duration_ms, outcome, code, detail, retry_after_ms FROM attempt \
               WHERE notification = ?1 AND ordinal = ?2 AND number > ?3 AND number <= ?4 ORDER BY number";
    let mut statement = connection.prepare_cached(sql)?;
    let mut kept = Vec::new();
    // An earlier version kept them all, so what is in between may be there.
    let last = FIRST_ATTEMPTS_KEPT.max(made.saturating_sub(LAST_ATTEMPTS_KEPT));
    for (behind, through) in [(0, FIRST_ATTEMPTS_KEPT), (last, made)] {
        let row = (key.notification.bytes(), key.ordinal, behind, through);
        for attempt in statement.query_map(row, |row| rows::attempt(row, 0))? {
            kept.push(attempt?);
        }
    }
    let left_out = made.saturating_sub(u32::try_from(kept.len()).unwrap_or(u32::MAX));
    Ok((kept, left_out))
}

/// What a page of a list is asked for.
pub(crate) struct PageRequest {
    pub(crate) tenant: TenantId,
    pub(crate) filter: Filter,
    pub(crate) limit: usize,
    pub(crate) before: Option<NotificationId>,
    pub(crate) now: Timestamp,
}

/// A part of a tenant's list, newest first.
pub(crate) fn page(connection: &Connection, memory: &Memory, request: &PageRequest) -> rusqlite::Result<Page> {
    // Taken before the snapshot: what is fed in between is seen in both, which is mended, and never in neither.
    let unfed: Vec<NotificationId> =
        memory.lock().unfed.iter().filter(|(tenant, _)| *tenant == request.tenant).map(|(_, id)| *id).collect();
    let transaction = connection.unchecked_transaction()?;
    // A page without conditions looks no further than it needs.
    let look = if request.filter == Filter::default() { request.limit + 1 } else { LOOK_MAX };
    let candidates = candidates(&transaction, request, unfed, look)?;
    let mut items = Vec::new();
    let mut next = None;
    let looked_at_all = candidates.len() < look;
    let mut last = None;
    let mut bytes = 0;
    for id in candidates {
        if items.len() == request.limit || bytes > PAGE_MAX_BYTES {
            next = last;
            return Ok(Page { items, next });
        }
        if request.filter.from.is_some_and(|from| id.made_at() < from) {
            return Ok(Page { items, next: None });
        }
        last = Some(id);
        if let Some(summary) = summary(&transaction, memory, request, id)? {
            bytes += size(&summary.notification);
            items.push(summary);
        }
    }
    if !looked_at_all {
        next = last;
    }
    Ok(Page { items, next })
}

/// The ids that may fit, newest first, at most `look`.
fn candidates(
    connection: &Connection,
    request: &PageRequest,
    unfed: Vec<NotificationId>,
    look: usize,
) -> rusqlite::Result<Vec<NotificationId>> {
    let latest = request.filter.to.map(|to| to.millis().saturating_add(CLOCK_SLACK_MILLIS));
    let bound = latest.map(|millis| u128::from(millis.unsigned_abs().min((1 << 48) - 1)) << 80);
    let bound = bound.map(|bound| NotificationId::from_bytes(bound.to_be_bytes()));
    let before = match (request.before, bound) {
        (Some(before), Some(bound)) => before.min(bound),
        (before, bound) => before.or(bound).unwrap_or(NotificationId::from_bytes([0xff; 16])),
    };
    let (sql, with_unfed) = match request.filter.status {
        status if request.filter.dead_letters || status.is_some_and(Status::is_dead_letter) => (
            "SELECT DISTINCT notification FROM ended WHERE tenant = ?1 AND notification < ?2 \
             AND status IN ('failed', 'expired', 'undelivered') ORDER BY notification DESC LIMIT ?3",
            false,
        ),
        Some(status) if !status.has_ended() => (
            "SELECT notification FROM pending WHERE tenant = ?1 AND notification < ?2 \
             ORDER BY notification DESC LIMIT ?3",
            false,
        ),
        _ => (
            "SELECT notification FROM feed WHERE tenant = ?1 AND notification < ?2 \
             ORDER BY notification DESC LIMIT ?3",
            true,
        ),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let tenant = request.tenant.bytes();
    let found = statement.query_map((tenant, before.bytes(), rows::count(look)), |row| {
        rows::id_bytes(row, 0).map(NotificationId::from_bytes)
    })?;
    let mut ids = found.collect::<rusqlite::Result<Vec<_>>>()?;
    if with_unfed {
        let known: HashSet<_> = ids.iter().copied().collect();
        ids.extend(unfed.into_iter().filter(|id| *id < before && !known.contains(id)));
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(look);
    }
    Ok(ids)
}

fn summary(
    connection: &Connection,
    memory: &Memory,
    request: &PageRequest,
    id: NotificationId,
) -> rusqlite::Result<Option<Summary>> {
    let Some(status) = status(connection, memory, id, request.now)? else { return Ok(None) };
    let filter = &request.filter;
    if filter.status.is_some_and(|wanted| wanted != status) || (filter.dead_letters && !status.is_dead_letter()) {
        return Ok(None);
    }
    let notification = write::notification_by_id(connection, id)?;
    let fits = |n: &Notification| {
        filter.channel.as_ref().is_none_or(|channel| *channel == n.channel)
            && filter.channel_id.is_none_or(|channel| channel == n.channel_id)
            && filter.from.is_none_or(|from| n.accepted_at >= from)
            && filter.to.is_none_or(|to| n.accepted_at < to)
            && filter.text.as_ref().is_none_or(|text| contains(n, &text.to_lowercase()))
    };
    let Some(notification) = notification.filter(fits) else { return Ok(None) };
    let redacted_at = write::redacted_at(connection, id)?;
    Ok(Some(Summary { notification, status, redacted_at }))
}

/// About how many bytes a notification takes: what a caller decides of it.
fn size(notification: &Notification) -> usize {
    let metadata: usize = notification.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    notification.message.len() + notification.title.as_ref().map_or(0, String::len) + metadata
}

fn contains(notification: &Notification, text: &str) -> bool {
    let title = notification.title.iter();
    let values = notification.metadata.values();
    std::iter::once(&notification.message).chain(title).chain(values).any(|value| value.to_lowercase().contains(text))
}

/// The status of a notification: that of its last delivery.
fn status(
    connection: &Connection,
    memory: &Memory,
    id: NotificationId,
    now: Timestamp,
) -> rusqlite::Result<Option<Status>> {
    if let Some(waiting) = write::waiting_of(connection, id)? {
        let leased = memory.lock().is_leased(waiting.key);
        return Ok(Some(rows::waiting_status(waiting.held, leased, waiting.attempts, waiting.due, now)));
    }
    let sql = "SELECT status FROM ended WHERE notification = ?1 ORDER BY ordinal DESC LIMIT 1";
    let read = |row: &Row<'_>| rows::word::<Status>(row, 0);
    connection.prepare_cached(sql)?.query_row([id.bytes()], read).optional()
}
