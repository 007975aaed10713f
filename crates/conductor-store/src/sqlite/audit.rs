//! The audit log: the end of its chain, and what is appended to it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::audit::{
    self, AuditEvent, AuditFilter, AuditKind, AuditLog, AuditPage, AuditTidied, Content, DETAILS_MAX_BYTES, Details,
    Fields, Hash, Posted, Salt,
};
use conductor_core::store::BATCH_MAX;
use conductor_core::{Actor, Draft, Retention, StoreError, TenantId, Timestamp};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::SqliteStore;
use super::rows;
use super::work::Work;
use super::writer::Command;

mod index;
pub(crate) mod page;
mod tidy;

#[cfg(test)]
mod tests;
pub(crate) use index::{AuditIndex, Touch};
#[cfg(test)]
pub(crate) use tidy::look;
pub(crate) use tidy::{AuditTidy, tidy};

/// As many entries, by their numbers, make a block of the table `audit_feed`.
pub(crate) const BLOCK: u64 = 256;
/// A clock that was put back by no more than this lets the entries' time stand still. By more, and their times go back:
/// one from a clock that was far ahead must not hold all later ones up.
const CLOCK_SLACK: Duration = Duration::from_secs(2 * 60 * 60);

/// Where the chain ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    /// When the last entry was written.
    at: Timestamp,
}

/// Where a transaction has left the log.
pub(crate) struct Tail {
    pub(crate) head: Head,
    /// Where it has added something of a tenant.
    pub(crate) touched: Vec<Touch>,
}

/// The chain's end, as one transaction moves it on.
pub(crate) struct Ledger<'a> {
    began_at: u64,
    touched: RefCell<Vec<Touch>>,
    head: Cell<Head>,
    now: Timestamp,
    sealer: &'a Sealer,
    room: RefCell<Vec<u8>>,
}

/// Makes salts that nobody can tell beforehand or later: nothing of what they are made from is kept.
pub(crate) struct Sealer {
    secret: [u8; 32],
    count: AtomicU64,
}

/// A salt and what it seals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal {
    pub(crate) salt: Salt,
    pub(crate) hash: Hash,
}

impl Sealer {
    /// None where the system gives no random bytes.
    pub(crate) fn new() -> Option<Self> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).ok()?;
        Some(Self { secret, count: AtomicU64::new(0) })
    }

    fn salt(&self) -> Salt {
        let mut block = [0; 40];
        block[..32].copy_from_slice(&self.secret);
        block[32..].copy_from_slice(&self.count.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let mut salt = [0; 16];
        salt.copy_from_slice(&digest(&SHA256, &block).as_ref()[..16]);
        salt
    }

    /// Seals what is about to be accepted.
    pub(crate) fn seal(&self, draft: &Draft) -> Seal {
        let salt = self.salt();
        Seal { salt, hash: Posted::seal_of(draft, &salt) }
    }
}

impl<'a> Ledger<'a> {
    /// Goes on behind `head`. Entries are written at `now`.
    pub(crate) fn behind(head: Head, now: Timestamp, sealer: &'a Sealer) -> Self {
        let is_late = now < head.at && head.at.since(now) <= CLOCK_SLACK;
        let now = if is_late { head.at } else { now };
        let (touched, room) = (RefCell::default(), RefCell::default());
        Self { began_at: head.seq, touched, head: Cell::new(head), now, sealer, room }
    }

    /// Adds an entry at the end, by a statement that was made of [`INSERT`].
    pub(crate) fn append(
        &self,
        connection: &Connection,
        insert: &mut Statement<'_>,
        event: &AuditEvent,
    ) -> rusqlite::Result<()> {
        let head = self.head.get();
        let seq = head.seq + 1;
        let kept = match &event.content {
            Content::Here(content) => Some((self.sealer.salt(), serde_json::Value::from(content.clone()).to_string())),
            Content::None | Content::Elsewhere(_) => None,
        };
        let seal = match (&event.content, &kept) {
            (Content::Elsewhere(seal), _) => Some(*seal),
            (_, Some((salt, content))) => Some(audit::seal(salt, content)),
            _ => None,
        };
        let fields = Fields {
            seq,
            at: self.now,
            kind: event.kind.as_str(),
            actor: event.actor.as_str(),
            tenant: event.tenant,
            notification: event.notification,
            ordinal: event.ordinal,
            channel: event.channel,
            details: event.details.as_json(),
            seal: seal.as_ref(),
        };
        let hash = fields.hash(&head.hash, &mut self.room.borrow_mut());
        insert.execute(params![
            seq.cast_signed(),
            fields.at.millis(),
            fields.kind,
            fields.actor,
            fields.tenant.as_ref().map(TenantId::bytes),
            fields.notification.as_ref().map(conductor_core::NotificationId::bytes),
            fields.ordinal,
            fields.channel.as_ref().map(conductor_core::ChannelId::bytes),
            fields.details,
            fields.seal,
            hash,
        ])?;
        if let Some((salt, content)) = kept {
            // There is one already only where somebody has cut the log.
            let sql = "INSERT OR REPLACE INTO audit_content (seq, salt, content) VALUES (?1, ?2, ?3)";
            connection.prepare_cached(sql)?.execute((seq.cast_signed(), salt, content))?;
        }
        self.head.set(Head { seq, hash, at: fields.at });
        if let Some(tenant) = event.tenant {
            let (touch, mut touched) = (Touch::of(tenant, seq), self.touched.borrow_mut());
            if touched.last() != Some(&touch) {
                touched.push(touch);
            }
        }
        Ok(())
    }

    /// Writes where the chain ends now. To be done last.
    pub(crate) fn finish(self, connection: &Connection) -> rusqlite::Result<Tail> {
        let head = self.head.get();
        if head.seq > self.began_at {
            let sql = "UPDATE audit_state SET head_seq = ?1, head_hash = ?2 WHERE id = 1";
            connection.prepare_cached(sql)?.execute((head.seq.cast_signed(), head.hash))?;
        }
        Ok(Tail { head, touched: self.touched.into_inner() })
    }
}

/// Adds an entry.
pub(crate) const INSERT: &str = "INSERT INTO audit (seq, at, kind, actor, tenant, notification, ordinal, channel_id, \
     details, seal, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

/// The last entry. What somebody inserted before the first is none.
const LAST: &str = "SELECT seq, hash, at FROM audit WHERE seq = (SELECT max(seq) FROM audit WHERE seq > 0)";

/// Where the chain ends, and whether it ends as it did when it was written last. If it does not, it goes on behind what
/// stands there, and an entry has to say so.
pub(crate) fn load_head(connection: &Connection) -> rusqlite::Result<(Head, Option<AuditEvent>)> {
    // Only somebody else can have taken it away.
    connection.execute("INSERT OR IGNORE INTO audit_state VALUES (1, 0, zeroblob(32), 0, zeroblob(32), 0, 0)", [])?;
    let read = |row: &Row<'_>| {
        Ok(Head { seq: row.get::<_, i64>(0)?.cast_unsigned(), hash: page::hash(row, 1)?, at: rows::time(row, 2)? })
    };
    let head = connection.query_row("SELECT head_seq, head_hash, 0 FROM audit_state WHERE id = 1", [], read)?;
    let last = connection.query_row(LAST, [], read);
    let Some(last) = last.optional()? else {
        let broken = (head.seq > removed_through(connection)?).then(|| broken(&head, 0));
        return Ok((head, broken));
    };
    let is_whole = (last.seq, last.hash) == (head.seq, head.hash);
    let goes_on = if last.seq > head.seq { last } else { Head { at: last.at, ..head } };
    Ok((goes_on, (!is_whole).then(|| broken(&head, last.seq))))
}

fn broken(head: &Head, last: u64) -> AuditEvent {
    tracing::error!(
        head = head.seq,
        last,
        "The audit log does not end where it ended: somebody changed the file. `conductor audit verify` says what"
    );
    let details = Details::new().number("head", head.seq).number("last", last);
    AuditEvent::of_server(AuditKind::ChainBroken, Actor::Server, details)
}

fn removed_through(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .query_row("SELECT removed_through FROM audit_state WHERE id = 1", [], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

/// Adds what is to be recorded. What is too long for an entry is left out of it; that something happened is not.
pub(crate) fn record(work: &Work<'_>, event: &AuditEvent) -> rusqlite::Result<()> {
    let length = event.details.as_json().map_or(0, str::len);
    if length <= DETAILS_MAX_BYTES {
        return work.append(event);
    }
    let details = Details::new().number("leftOutBytes", u64::try_from(length).unwrap_or(u64::MAX));
    work.append(&AuditEvent { details, ..event.clone() })
}

#[async_trait]
impl AuditLog for SqliteStore {
    async fn record(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.command(|reply| Command::Record(Box::new(event), reply)).await
    }

    async fn audit(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        limit: usize,
        before: Option<u64>,
    ) -> Result<AuditPage, StoreError> {
        let (filter, limit) = (filter.clone(), limit.clamp(1, BATCH_MAX));
        self.readers.read(move |connection| page::read(connection, tenant, &filter, limit, before)).await
    }

    async fn tidy_audit(
        &self,
        keep_from: Option<Timestamp>,
        retention: &Arc<Retention>,
        now: Timestamp,
    ) -> Result<AuditTidied, StoreError> {
        self.tidy_audit_step(keep_from, retention, now).await
    }
}
