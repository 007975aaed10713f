//! Callbacks: made in the transaction of what they tell, and what becomes of them.

use std::collections::HashSet;

use async_trait::async_trait;
use conductor_core::audit::{AuditKind, Details};
use conductor_core::callbacks::{
    Callback, CallbackAttempt, CallbackNext, Callbacks, ChannelNews, DETAIL_MAX, EndpointState, GivenUp, Subscriptions,
    WaitingCallbacks,
};
use conductor_core::store::BATCH_MAX;
use conductor_core::{
    Actor, AuditEvent, CallbackId, ChannelId, EndpointId, NotificationId, StoreError, TenantId, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::memory::Memory;
use super::work::Work;
use super::writer::{Command, Effect};
use super::{SqliteStore, rows};

pub(crate) use made::{Moved, redact, tell};
pub(crate) use marks::Marks;

mod cleared;
mod made;
mod marks;
#[cfg(test)]
mod tests;

/// What is to be done about callbacks.
pub(crate) enum CallbackChange {
    Subscribe(Subscriptions),
    Settle(Box<Finished>),
    Clear(EndpointId),
    DropOld(EndpointId, Timestamp),
    Enable(TenantId, EndpointId),
    Channel(Box<ChannelNews>, Timestamp),
    Forget(ChannelId),
}

/// How an attempt of a callback went.
pub(crate) struct Finished {
    callback: Callback,
    attempt: CallbackAttempt,
    next: CallbackNext,
    at: Timestamp,
}

/// What a [`CallbackChange`] came to.
pub(crate) struct Called {
    /// How many rows, or whether anything changed.
    pub(crate) count: usize,
    /// The endpoints that are to be looked at.
    pub(crate) arrived: Vec<EndpointId>,
    /// The endpoints that are configured otherwise now.
    pub(crate) renewed: Vec<EndpointId>,
    /// The endpoints that are disabled now, where that has changed as a whole.
    pub(crate) disabled: Option<HashSet<EndpointId>>,
}

impl Called {
    fn of(count: usize) -> Self {
        Self { count, arrived: Vec::new(), renewed: Vec::new(), disabled: None }
    }
}

impl SqliteStore {
    async fn change_callbacks(&self, change: CallbackChange) -> Result<usize, StoreError> {
        self.command(|reply| Command::Callback(change, reply)).await
    }
}

// The dispatcher's readers are not used here: no delivery waits for a callback.
#[async_trait]
impl Callbacks for SqliteStore {
    async fn subscribe(&self, subscriptions: Subscriptions) -> Result<(), StoreError> {
        self.change_callbacks(CallbackChange::Subscribe(subscriptions)).await.map(drop)
    }

    async fn callback_arrived(&self) {
        self.memory.callbacks.arrived().await;
    }

    fn arrived_callbacks(&self) -> Vec<EndpointId> {
        self.memory.callbacks.take_arrived()
    }

    fn renewed_endpoints(&self) -> Vec<EndpointId> {
        self.memory.callbacks.take_renewed()
    }

    async fn callbacks(&self, endpoint: EndpointId, limit: usize) -> Result<WaitingCallbacks, StoreError> {
        let limit = rows::count(limit.min(BATCH_MAX));
        let read = move |connection: &Connection| {
            let sql = format!("SELECT {COLUMNS} FROM callback WHERE endpoint = ?1 ORDER BY due_at, number LIMIT ?2");
            let mut statement = connection.prepare_cached(&sql)?;
            let first = statement.query_map((endpoint.bytes(), limit), callback)?.collect::<Result<_, _>>()?;
            Ok(WaitingCallbacks { first, state: find(connection, endpoint)? })
        };
        self.readers.read(read).await
    }

    async fn settle_callback(
        &self,
        callback: &Callback,
        attempt: CallbackAttempt,
        next: CallbackNext,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let finished = Box::new(Finished { callback: callback.clone(), attempt, next, at });
        self.change_callbacks(CallbackChange::Settle(finished)).await.map(drop)
    }

    async fn all_endpoints(&self) -> Result<Vec<EndpointState>, StoreError> {
        let read = |connection: &Connection| {
            let sql = format!("SELECT {STATE_COLUMNS} FROM callback_endpoint");
            connection.prepare_cached(&sql)?.query_map([], state)?.collect()
        };
        self.readers.read(read).await
    }

    async fn clear_callbacks(&self, endpoint: EndpointId) -> Result<usize, StoreError> {
        self.change_callbacks(CallbackChange::Clear(endpoint)).await
    }

    async fn drop_old_callbacks(&self, endpoint: EndpointId, before: Timestamp) -> Result<usize, StoreError> {
        self.change_callbacks(CallbackChange::DropOld(endpoint, before)).await
    }

    async fn enable_endpoint(&self, tenant: TenantId, endpoint: EndpointId) -> Result<bool, StoreError> {
        self.change_callbacks(CallbackChange::Enable(tenant, endpoint)).await.map(|count| count > 0)
    }

    async fn endpoints(&self, tenant: TenantId) -> Result<Vec<EndpointState>, StoreError> {
        let read = move |connection: &Connection| {
            let sql = format!("SELECT {STATE_COLUMNS} FROM callback_endpoint WHERE tenant = ?1");
            connection.prepare_cached(&sql)?.query_map([tenant.bytes()], state)?.collect()
        };
        self.readers.read(read).await
    }

    async fn given_up(&self, endpoint: EndpointId) -> Result<Vec<GivenUp>, StoreError> {
        let read = move |connection: &Connection| {
            let sql = "SELECT id, event, notification, created_at, given_up_at, attempts, code, detail \
                       FROM callback_given_up WHERE endpoint = ?1 ORDER BY given_up_at DESC, number DESC";
            connection.prepare_cached(sql)?.query_map([endpoint.bytes()], given_up)?.collect()
        };
        self.readers.read(read).await
    }

    async fn channels_down(&self) -> Result<Vec<ChannelId>, StoreError> {
        let read = |connection: &Connection| {
            let id = |row: &Row<'_>| rows::id_bytes(row, 0).map(ChannelId::from_bytes);
            connection.prepare_cached("SELECT channel FROM channel_down")?.query_map([], id)?.collect()
        };
        self.readers.read(read).await
    }

    async fn tell_of_channel(&self, news: ChannelNews, at: Timestamp) -> Result<(), StoreError> {
        self.change_callbacks(CallbackChange::Channel(Box::new(news), at)).await.map(drop)
    }

    async fn forget_channel(&self, channel: ChannelId) -> Result<(), StoreError> {
        self.change_callbacks(CallbackChange::Forget(channel)).await.map(drop)
    }
}

const COLUMNS: &str = "number, id, endpoint, event, body, created_at, due_at, attempts";

fn callback(row: &Row<'_>) -> rusqlite::Result<Callback> {
    Ok(Callback {
        number: row.get(0)?,
        id: CallbackId::from_bytes(rows::id_bytes(row, 1)?),
        endpoint: EndpointId::from_bytes(rows::id_bytes(row, 2)?),
        event: rows::word(row, 3)?,
        body: row.get(4)?,
        created_at: rows::time(row, 5)?,
        due: rows::time(row, 6)?,
        attempts: row.get(7)?,
    })
}

const STATE_COLUMNS: &str = "endpoint, tenant, waiting, delivered, given_up, dropped, disabled_at, last_at, last_ok, \
     last_code, last_detail, \
     (SELECT created_at FROM callback WHERE endpoint = callback_endpoint.endpoint ORDER BY number LIMIT 1)";

fn state(row: &Row<'_>) -> rusqlite::Result<EndpointState> {
    let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    let time = |column| row.get::<_, Option<i64>>(column).map(|time| time.map(Timestamp::from_millis));
    let last = match time(7)? {
        Some(at) => Some(CallbackAttempt { at, ok: row.get(8)?, code: row.get(9)?, detail: row.get(10)? }),
        None => None,
    };
    Ok(EndpointState {
        endpoint: EndpointId::from_bytes(rows::id_bytes(row, 0)?),
        tenant: TenantId::from_bytes(rows::id_bytes(row, 1)?),
        waiting: count(2)?,
        oldest: time(11)?,
        delivered: count(3)?,
        given_up: count(4)?,
        dropped: count(5)?,
        disabled_at: time(6)?,
        last,
    })
}

fn given_up(row: &Row<'_>) -> rusqlite::Result<GivenUp> {
    let notification: Option<[u8; 16]> = row.get(2)?;
    Ok(GivenUp {
        id: CallbackId::from_bytes(rows::id_bytes(row, 0)?),
        event: rows::word(row, 1)?,
        notification: notification.map(NotificationId::from_bytes),
        created_at: rows::time(row, 3)?,
        at: rows::time(row, 4)?,
        attempts: row.get(5)?,
        code: row.get(6)?,
        detail: row.get(7)?,
    })
}

fn find(connection: &Connection, endpoint: EndpointId) -> rusqlite::Result<Option<EndpointState>> {
    let sql = format!("SELECT {STATE_COLUMNS} FROM callback_endpoint WHERE endpoint = ?1");
    connection.prepare_cached(&sql)?.query_row([endpoint.bytes()], state).optional()
}

/// Does what is to be done about callbacks.
pub(crate) fn apply(transaction: &Work<'_>, memory: &Memory, change: &CallbackChange) -> rusqlite::Result<Effect> {
    let called = match change {
        CallbackChange::Subscribe(subscriptions) => subscribe(transaction, subscriptions)?,
        CallbackChange::Settle(finished) => settle(transaction, finished).map(Called::of)?,
        CallbackChange::Clear(endpoint) => cleared::clear(transaction, memory, *endpoint).map(Called::of)?,
        CallbackChange::DropOld(endpoint, before) => {
            cleared::drop_old(transaction, *endpoint, *before).map(Called::of)?
        }
        CallbackChange::Enable(tenant, endpoint) => {
            let sql = "UPDATE callback_endpoint SET disabled_at = NULL \
                       WHERE endpoint = ?1 AND tenant = ?2 AND disabled_at IS NOT NULL";
            let count = transaction.prepare_cached(sql)?.execute((endpoint.bytes(), tenant.bytes()))?;
            if count > 0 {
                note(transaction, AuditKind::EndpointEnabled, Actor::Tenant, (*tenant, *endpoint))?;
            }
            Called::of(count)
        }
        CallbackChange::Channel(news, at) => made::of_channel(transaction, memory, news, *at).map(Called::of)?,
        CallbackChange::Forget(channel) => {
            let sql = "DELETE FROM channel_down WHERE channel = ?1";
            Called::of(transaction.prepare_cached(sql)?.execute([channel.bytes()])?)
        }
    };
    Ok(Effect::Called(called))
}

/// Makes a row for each endpoint that has none, and enables those that are configured otherwise now.
fn subscribe(transaction: &Work<'_>, subscriptions: &Subscriptions) -> rusqlite::Result<Called> {
    let disabled = "SELECT endpoint FROM callback_endpoint WHERE disabled_at IS NOT NULL";
    let disabled_before: HashSet<EndpointId> = ids(transaction, disabled)?;
    let mut renewed = Vec::new();
    let sql = "INSERT INTO callback_endpoint (endpoint, tenant, fingerprint, made, waiting, delivered, given_up, dropped) \
               VALUES (?1, ?2, ?3, 0, 0, 0, 0, 0) ON CONFLICT (endpoint) DO UPDATE \
               SET fingerprint = excluded.fingerprint, disabled_at = NULL WHERE fingerprint <> excluded.fingerprint";
    let mut statement = transaction.prepare_cached(sql)?;
    for (tenant, subscription) in subscriptions.iter() {
        let endpoint = subscription.endpoint;
        if statement.execute((endpoint.bytes(), tenant.bytes(), subscription.fingerprint))? == 0 {
            continue;
        }
        renewed.push(endpoint);
        if disabled_before.contains(&endpoint) {
            note(transaction, AuditKind::EndpointEnabled, Actor::Operator, (tenant, endpoint))?;
        }
    }
    let arrived = ids(transaction, "SELECT endpoint FROM callback_endpoint WHERE waiting > 0")?;
    Ok(Called { count: 0, arrived, renewed, disabled: Some(ids(transaction, disabled)?) })
}

fn ids<T: FromIterator<EndpointId>>(connection: &Connection, sql: &str) -> rusqlite::Result<T> {
    let id = |row: &Row<'_>| rows::id_bytes(row, 0).map(EndpointId::from_bytes);
    connection.prepare_cached(sql)?.query_map([], id)?.collect()
}

/// Tells the audit log that an endpoint was disabled or enabled.
fn note(
    work: &Work<'_>,
    kind: AuditKind,
    actor: Actor,
    (tenant, endpoint): (TenantId, EndpointId),
) -> rusqlite::Result<()> {
    let details = Details::new().text("endpoint", &endpoint.to_string());
    work.append(&AuditEvent::of_tenant(kind, actor, tenant, details))
}

/// Tells the audit log that an endpoint wants no more, once where several of its answers say so.
fn note_disabled(work: &Work<'_>, endpoint: EndpointId) -> rusqlite::Result<()> {
    match find(work, endpoint)?.filter(|state| state.disabled_at.is_none()) {
        Some(state) => note(work, AuditKind::EndpointDisabled, Actor::Server, (state.tenant, endpoint)),
        None => Ok(()),
    }
}

/// Writes how an attempt went and what follows.
fn settle(transaction: &Work<'_>, finished: &Finished) -> rusqlite::Result<usize> {
    let Finished { callback, attempt, next, at } = finished;
    let place = (callback.endpoint.bytes(), callback.number, callback.id.bytes());
    let count = match next {
        CallbackNext::Again(due) => {
            let sql = "UPDATE callback SET due_at = ?4, attempts = attempts + 1 \
                       WHERE endpoint = ?1 AND number = ?2 AND id = ?3";
            transaction.prepare_cached(sql)?.execute((place.0, place.1, place.2, due.millis()))?
        }
        CallbackNext::GiveUp | CallbackNext::Disable => cleared::give_up(transaction, callback, attempt, *at)?,
        CallbackNext::Done => 0,
    };
    let gone = match next {
        CallbackNext::Again(_) => 0,
        _ => {
            let sql = "DELETE FROM callback WHERE endpoint = ?1 AND number = ?2 AND id = ?3";
            transaction.prepare_cached(sql)?.execute(place)?
        }
    };
    if *next == CallbackNext::Disable {
        note_disabled(transaction, callback.endpoint)?;
    }
    let is_done = *next == CallbackNext::Done;
    let disabled_at = (*next == CallbackNext::Disable).then(|| at.millis());
    let detail = attempt.detail.as_ref().map(|text| text.chars().take(DETAIL_MAX).collect::<String>());
    let sql = "UPDATE callback_endpoint SET waiting = waiting - ?2, delivered = delivered + ?3, \
               given_up = given_up + ?4, disabled_at = coalesce(?5, disabled_at), last_at = ?6, last_ok = ?7, \
               last_code = ?8, last_detail = ?9 WHERE endpoint = ?1";
    transaction.prepare_cached(sql)?.execute(params![
        callback.endpoint.bytes(),
        rows::count(gone),
        // What was thrown away while it was under way has been delivered all the same.
        i64::from(is_done),
        if is_done { 0 } else { rows::count(gone) },
        disabled_at,
        attempt.at.millis(),
        attempt.ok,
        attempt.code,
        detail,
    ])?;
    Ok(count.max(gone))
}
