//! The SQLite engine. One process owns the file, one thread writes it, and a claim needs no write: leases live in
//! memory, because a process that died holds none.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::retention::{Compacted, Pruned};
use conductor_core::store::{
    Accepted, BATCH_MAX, Backlog, BacklogRequest, Claim, Claimed, Expired, Filter, Finished, Idempotency, Lease, Load,
    NewNotification, Page, Progress, Queued, Redirect, Settled, Store, Story, Transition, Unsettled,
};
use conductor_core::{
    ChannelId, Clock, DeliveryKey, Notification, NotificationId, Retention, Statistics, StoreError, TenantId, Timestamp,
};
use rusqlite::OptionalExtension;
use tokio::sync::{Mutex, Notify, Semaphore, oneshot};

use audit::{AuditIndex, Sealer};
use change::{Change, ChangeKind};
pub use contents::Contents;
pub use copies::{Copied, CopyError, back_up, restore};
use damage::Damage;
pub(crate) use damage::is_damage;
pub use inspect::{Inspection, Soundness, inspect, look_through};
use memory::{Hold, Memory};
pub use opening::OpenError;
use read::{PageRequest, Readers, Scanned};
use retention::{Tidying, UsualCommit};
use statistics::Counts;
use write::Waiting;
use writer::{Command, Envelope, Reply, Writer};

pub(crate) mod audit;
mod callbacks;
mod change;
mod contents;
mod copies;
mod damage;
#[cfg(test)]
mod damage_tests;
mod expiry;
#[cfg(test)]
mod fault_tests;
mod idempotency;
mod inspect;
mod memory;
mod opening;
mod read;
mod receipts;
mod recovery;
mod replays;
mod retention;
mod rows;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;
mod work;
mod write;
mod writer;

/// The most commands that may wait for the writer; further callers wait for their turn.
const COMMANDS_MAX: usize = 8_192;

/// A delivery that is being ended is asked for again after so long.
const ENDING_PAUSE: Duration = Duration::from_millis(200);

/// The file within the data directory.
pub(crate) const FILE: &str = "conductor.db";
/// Locked as long as a process owns the store.
const LOCK_FILE: &str = "conductor.lock";

/// Keeps the notifications in one SQLite file.
pub struct SqliteStore {
    commands: mpsc::Sender<Envelope>,
    permits: Arc<Semaphore>,
    memory: Arc<Memory>,
    arrived: Arc<Notify>,
    /// For what callers ask.
    readers: Arc<Readers>,
    /// For the dispatcher.
    own_readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
    /// Whether the last thing that was to be written could not be, for a reason that concerns everything.
    failing: Arc<AtomicBool>,
    damage: Arc<Damage>,
    counts: Arc<Counts>,
    path: PathBuf,
    latest: Option<NotificationId>,
    /// One scan at a time, so that each knows what came while it read.
    scanning: Mutex<()>,
    /// One look for the oldest at a time, for the same reason.
    seeking: Mutex<()>,
    /// How far the removal of what is old has come.
    tidying: Mutex<Tidying>,
    /// How far the audit log's content has been looked through.
    audit_place: Mutex<i64>,
    sealer: Arc<Sealer>,
    /// The writer; none after it has ended.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in `directory`, making what is missing. What a dead process left is due again at once.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io(directory.to_owned(), error);
        std::fs::create_dir_all(directory).map_err(io)?;
        let lock = opening::lock(&directory.join(LOCK_FILE))?;
        let path = directory.join(FILE);
        let engine = |error| OpenError::of_engine(&path, error);
        let connection = opening::connect(&path)?;
        let sealer = Arc::new(Sealer::new().ok_or_else(|| io(std::io::ErrorKind::Unsupported.into()))?);
        let memory = Arc::new(Memory::default());
        let (unclean, head) = recovery::recover(&connection, &memory, clock.now(), &sealer).map_err(engine)?;
        let sql = "SELECT value FROM meta WHERE name = 'feed_mark'";
        let mark: Option<[u8; 16]> = connection.query_row(sql, [], |row| row.get(0)).optional().map_err(engine)?;
        memory.lock().unfed = read::unfed(&connection, mark).map_err(engine)?;
        let sql = "SELECT notification, ordinal FROM pending ORDER BY notification DESC, ordinal DESC LIMIT 1";
        if let Some(last) = connection.query_row(sql, [], rows::key).optional().map_err(engine)? {
            memory.lock().begin_scan(unclean.then_some(last));
        }
        read::count_waiting(&connection, &memory).map_err(engine)?;
        let latest: Option<[u8; 16]> =
            connection.query_row("SELECT max(id) FROM notification", [], |row| row.get(0)).map_err(engine)?;
        let arrived = Arc::new(Notify::new());
        arrived.notify_one();
        let (commands, received) = mpsc::channel();
        let fed_through = mark.map(NotificationId::from_bytes);
        let permits = Arc::new(Semaphore::new(COMMANDS_MAX));
        let failing = Arc::new(AtomicBool::new(false));
        let damage = Arc::new(Damage::default());
        let counts = Arc::new(Counts::default());
        // Behind what the recovery has added.
        let audit_index = AuditIndex::load(&connection).map_err(engine)?;
        let writer = Writer {
            connection,
            memory: Arc::clone(&memory),
            arrived: Arc::clone(&arrived),
            failing: Arc::clone(&failing),
            damage: Arc::clone(&damage),
            counts: Arc::clone(&counts),
            usual_commit: UsualCommit::default(),
            fed_through,
            clock: Arc::clone(&clock),
            sealer: Arc::clone(&sealer),
            head,
            audit_index,
        };
        let thread = writer.spawn(received, Arc::clone(&permits), lock);
        Ok(Self {
            commands,
            permits,
            memory,
            arrived,
            readers: Arc::new(Readers::new(&path, &damage)),
            own_readers: Arc::new(Readers::new(&path, &damage)),
            clock,
            failing,
            damage,
            counts,
            path,
            // What the feed was written up to may be gone already.
            latest: latest.max(mark).map(NotificationId::from_bytes),
            scanning: Mutex::default(),
            seeking: Mutex::default(),
            tidying: Mutex::default(),
            audit_place: Mutex::default(),
            sealer,
            writer: Mutex::new(Some(thread.map_err(io)?)),
        })
    }

    /// Whether a store that is there can be opened. Makes none.
    ///
    /// # Errors
    /// It belongs to another process or program, is damaged, or cannot be read.
    pub fn probe(directory: &Path) -> Result<(), OpenError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(());
        }
        let _lock = opening::lock(&directory.join(LOCK_FILE))?;
        opening::examine(&path).map(drop)
    }

    /// The greatest notification id that the store held when it was opened.
    pub fn latest(&self) -> Option<NotificationId> {
        self.latest
    }

    /// Has the writer do something and waits until it is on disk.
    async fn command<T, E: From<StoreError>>(&self, command: impl FnOnce(Reply<T, E>) -> Command) -> Result<T, E> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, replied) = oneshot::channel();
        let sent = self.commands.send(Envelope::Command(command(reply), permit));
        sent.map_err(|_| StoreError::Closed)?;
        replied.await.unwrap_or(Err(StoreError::Closed.into()))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(&self, new: NewNotification) -> Result<Accepted, StoreError> {
        self.damage.refuse()?;
        let seal = self.sealer.seal(&new.notification);
        self.command(|reply| Command::Accept(new, seal, reply)).await
    }

    async fn earlier(&self, tenant: TenantId, idempotency: &Idempotency) -> Result<Option<Accepted>, StoreError> {
        let (idempotency, now) = (idempotency.clone(), self.clock.now());
        self.readers.read(move |connection| idempotency::earlier(connection, tenant, &idempotency, now)).await
    }

    async fn arrivals(&self, limit: usize) -> Result<Vec<Queued>, StoreError> {
        let limit = limit.min(BATCH_MAX);
        let _alone = self.scanning.lock().await;
        let scan = {
            let mut memory = self.memory.lock();
            let arrived = memory.take_arrivals(limit);
            if !arrived.is_empty() || limit == 0 {
                return Ok(arrived);
            }
            memory.begin_read()
        };
        let Some(scan) = scan else { return Ok(Vec::new()) };
        let Scanned { found, through, at_end } =
            self.own_readers.read(move |connection| read::scan(connection, scan, limit)).await?;
        self.memory.lock().end_read(scan, through, at_end);
        if !at_end {
            self.arrived.notify_one();
        }
        Ok(found)
    }

    async fn backlog(&self, request: BacklogRequest) -> Result<Backlog, StoreError> {
        let request = BacklogRequest { limit: request.limit.clamp(1, BATCH_MAX), ..request };
        let suspect_through = self.memory.lock().suspect_through();
        self.own_readers.read(move |connection| read::backlog(connection, &request, suspect_through)).await
    }

    fn look_ahead(&self, until: Timestamp) -> bool {
        let looks = self.memory.lock().look_ahead(until);
        if looks {
            self.arrived.notify_one();
        }
        looks
    }

    async fn arrived(&self) {
        self.arrived.notified().await;
    }

    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        // What could not be written down must not be sent: after a restart it would be sent again.
        if self.failing.load(Ordering::Relaxed) {
            self.command(Command::Ping).await?;
        } else if self.permits.is_closed() {
            return Err(StoreError::Closed);
        }
        let mut taken = Taken { memory: &self.memory, keys: Vec::with_capacity(claims.len()) };
        let holds: Vec<Hold> = {
            let mut memory = self.memory.lock();
            claims.iter().map(|claim| memory.lease(claim.key)).collect()
        };
        let mut unread = Vec::new();
        for (claim, hold) in claims.iter().zip(&holds) {
            if matches!(hold, Hold::Fresh(_) | Hold::Unread) {
                taken.keys.push(claim.key);
            }
            match hold {
                Hold::Unread => unread.push(*claim),
                // No attempt of it follows, so it is not to be blamed for one.
                Hold::Ending => unread.push(Claim { suspect: false, ..*claim }),
                Hold::Fresh(_) | Hold::Taken => {}
            }
        }
        let mut read = self.read_for_claim(&unread, now).await?.into_iter();
        let mut claimed = Vec::with_capacity(claims.len());
        taken.keys.clear();
        for (claim, hold) in claims.iter().zip(holds) {
            claimed.push(match hold {
                Hold::Taken => Claimed::Gone,
                Hold::Fresh(notification) => Claimed::Leased(Box::new(first_lease(notification))),
                Hold::Ending => match read.next().flatten() {
                    // If it cannot be ended after all, it still has to be sent.
                    Some((waiting, _)) => {
                        let due = waiting.due.max(now.plus(ENDING_PAUSE));
                        Claimed::NotDue(Queued { suspect: claim.suspect, due, ..waiting.queued() })
                    }
                    None => Claimed::Gone,
                },
                Hold::Unread => match read.next().flatten() {
                    Some((waiting, notification)) if waiting.due <= now => {
                        if claim.suspect {
                            self.memory.lock().mark(claim.key);
                        }
                        Claimed::Leased(Box::new(lease(waiting, notification)))
                    }
                    other => {
                        taken.keys.push(claim.key);
                        let queued = |waiting: Waiting| Queued { suspect: claim.suspect, ..waiting.queued() };
                        other.map_or(Claimed::Gone, |(waiting, _)| Claimed::NotDue(queued(waiting)))
                    }
                },
            });
        }
        Ok(claimed)
    }

    async fn settle(&self, lease: Lease, finished: Finished) -> Result<Settled, Unsettled> {
        let lease = Box::new(lease);
        let unsettled = |lease, finished, error| Unsettled { lease, finished, error };
        if !self.memory.lock().is_leased(lease.key) {
            return Err(unsettled(lease, finished, StoreError::LeaseLost));
        }
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return Err(unsettled(lease, finished, StoreError::Closed));
        };
        let (reply, replied) = oneshot::channel();
        let copy = (Box::new(copy_of(&lease)), finished.clone());
        let sent = self.commands.send(Envelope::Command(Command::Settle(lease, finished, reply), permit));
        match sent {
            // The writer answers all that it takes, unless it fails as a whole.
            Ok(()) => match replied.await {
                Ok(result) => result,
                Err(_) => Err(unsettled(copy.0, copy.1, StoreError::Closed)),
            },
            Err(mpsc::SendError(Envelope::Command(Command::Settle(lease, finished, _), _))) => {
                Err(unsettled(lease, finished, StoreError::Closed))
            }
            Err(_) => unreachable!("what was not sent comes back"),
        }
    }

    async fn advance(&self, lease: &mut Lease, progress: Progress) -> Result<(), StoreError> {
        lease.progress = progress.clone();
        if !self.memory.lock().is_leased(lease.key) {
            return Err(StoreError::LeaseLost);
        }
        self.command(|reply| Command::Advance(lease.key, progress, reply)).await
    }

    async fn release(&self, lease: Lease) {
        let taken = Taken { memory: &self.memory, keys: vec![lease.key] };
        let is_marked = self.memory.lock().is_marked(lease.key);
        if is_marked && let Err(error) = self.command(|reply| Command::Unmark(lease.key, reply)).await {
            // At worst the next start counts an attempt that was not made.
            tracing::warn!(%error, "A released delivery is still marked as under way");
        }
        drop(taken);
    }

    async fn cancel(&self, tenant: TenantId, id: NotificationId, at: Timestamp) -> Result<Transition, StoreError> {
        let change = Change { tenant, id, kind: ChangeKind::Cancel { at } };
        self.command(|reply| Command::Change(change, reply)).await
    }

    async fn replay(
        &self,
        tenant: TenantId,
        id: NotificationId,
        redirect: Option<Redirect>,
        due: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Transition, StoreError> {
        let change = Change { tenant, id, kind: ChangeKind::Replay { redirect, due, expires_at } };
        self.command(|reply| Command::Change(change, reply)).await
    }

    async fn resolve(&self, tenant: TenantId, id: NotificationId, at: Timestamp) -> Result<Transition, StoreError> {
        let change = Change { tenant, id, kind: ChangeKind::Resolve { at } };
        self.command(|reply| Command::Change(change, reply)).await
    }

    async fn notification(&self, tenant: TenantId, id: NotificationId) -> Result<Option<Story>, StoreError> {
        let (memory, now) = (Arc::clone(&self.memory), self.clock.now());
        self.readers.read(move |connection| read::story(connection, &memory, tenant, id, now)).await
    }

    async fn notifications(
        &self,
        tenant: TenantId,
        filter: &Filter,
        limit: usize,
        before: Option<NotificationId>,
    ) -> Result<Page, StoreError> {
        let memory = Arc::clone(&self.memory);
        let limit = limit.clamp(1, BATCH_MAX);
        let request = PageRequest { tenant, filter: filter.clone(), limit, before, now: self.clock.now() };
        self.readers.read(move |connection| read::page(connection, &memory, &request)).await
    }

    fn waiting(&self, channel: ChannelId) -> u64 {
        self.memory.lock().waiting(channel)
    }

    fn load(&self, tenant: TenantId) -> Load {
        self.memory.lock().weights.of(tenant)
    }

    async fn oldest(
        &self,
        tenant: TenantId,
        channels: &[ChannelId],
    ) -> Result<Vec<(ChannelId, Timestamp)>, StoreError> {
        let _alone = self.seeking.lock().await;
        let places = self.memory.lock().seek_oldest(channels);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let looked = self.readers.read(move |connection| read::oldest(connection, tenant, &places)).await?;
        self.memory.lock().found_oldest(looked.iter().map(|oldest| (oldest.channel, oldest.not_before)));
        let found = |oldest: read::Oldest| Some((oldest.channel, oldest.accepted_at?));
        Ok(looked.into_iter().filter_map(found).collect())
    }

    async fn expire(&self, now: Timestamp) -> Result<Vec<Expired>, StoreError> {
        let memory = Arc::clone(&self.memory);
        let keys = self.own_readers.read(move |connection| read::overdue(connection, &memory, now)).await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.command(|reply| Command::Expire(keys, now, reply)).await
    }

    async fn forget_idempotency(&self, before: Timestamp) -> Result<usize, StoreError> {
        let keys = self.own_readers.read(move |connection| read::old_idempotency(connection, before)).await?;
        if keys.is_empty() {
            return Ok(0);
        }
        self.command(|reply| Command::Forget(keys, before, reply)).await
    }

    async fn prune(&self, retention: &Arc<Retention>, now: Timestamp) -> Result<Pruned, StoreError> {
        self.prune_step(retention, now).await
    }

    async fn compact(&self) -> Result<Compacted, StoreError> {
        self.compact_step().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.damage.refuse()?;
        self.command(Command::Ping).await
    }

    fn statistics(&self) -> Statistics {
        self.count_up()
    }

    fn is_running(&self) -> bool {
        !self.permits.is_closed()
    }

    async fn close(&self) {
        let mut writer = self.writer.lock().await;
        if writer.is_none() {
            return;
        }
        // With all permits in hand nobody is on the way to the writer, so that none of its callers is left waiting.
        let all = u32::try_from(COMMANDS_MAX).expect("the maximum is small");
        let permits = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(permits);
        self.readers.close();
        self.own_readers.close();
        let (done, closed) = oneshot::channel();
        if self.commands.send(Envelope::Close(done)).is_ok() {
            let _ = closed.await;
        }
        // The writer has nothing left to do, so this takes no time.
        let _ = writer.take().map(JoinHandle::join);
    }
}

impl Drop for SqliteStore {
    /// Without [`Store::close`] this is the end of a process that died, but for one thing: what the writer has begun it
    /// finishes, and then the store is free for the next owner.
    fn drop(&mut self) {
        (self.commands, _) = mpsc::channel();
        let _ = self.writer.get_mut().take().map(JoinHandle::join);
    }
}

impl SqliteStore {
    /// Reads what claims need. Suspects are marked on disk first: if the process dies of one, the mark is found.
    async fn read_for_claim(
        &self,
        claims: &[Claim],
        now: Timestamp,
    ) -> Result<Vec<Option<(Waiting, Notification)>>, StoreError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let suspects: Vec<DeliveryKey> = claims.iter().filter(|claim| claim.suspect).map(|claim| claim.key).collect();
        if !suspects.is_empty() {
            self.command(|reply| Command::Mark(suspects, now, reply)).await?;
        }
        let keys: Vec<DeliveryKey> = claims.iter().map(|claim| claim.key).collect();
        let damage = Arc::clone(&self.damage);
        self.own_readers.read(move |connection| read::payloads(connection, &damage, &keys)).await
    }
}

/// Leases that are given back when this is dropped: also when a caller no longer waits for the answer.
struct Taken<'a> {
    memory: &'a Memory,
    keys: Vec<DeliveryKey>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut memory = self.memory.lock();
        for key in &self.keys {
            memory.unlease(*key);
        }
    }
}

/// The lease of a notification that was accepted a moment ago and is still in memory.
fn first_lease(notification: Arc<Notification>) -> Lease {
    Lease {
        key: DeliveryKey { notification: notification.id, ordinal: 0 },
        channel: notification.channel_id,
        target: notification.target.clone(),
        redirected: None,
        attempt: 1,
        failures: 0,
        expires_at: notification.expires_at,
        next_fallback: 0,
        progress: Progress::default(),
        notification,
    }
}

/// For the caller, in case the writer keeps the lease for ever.
fn copy_of(lease: &Lease) -> Lease {
    let Lease { key, channel, attempt, failures, expires_at, next_fallback, .. } = *lease;
    let (notification, target, redirected) =
        (Arc::clone(&lease.notification), lease.target.clone(), lease.redirected.clone());
    let progress = lease.progress.clone();
    Lease { key, notification, channel, target, redirected, attempt, failures, expires_at, next_fallback, progress }
}

fn lease(waiting: Waiting, notification: Notification) -> Lease {
    let (redirected, target) = match waiting.own {
        Some((channel, target)) => (Some(channel), target),
        None => (None, notification.target.clone()),
    };
    Lease {
        key: waiting.key,
        channel: waiting.channel_id,
        target,
        redirected,
        attempt: waiting.attempts + 1,
        failures: waiting.failures,
        expires_at: waiting.expires_at,
        next_fallback: waiting.next_fallback,
        progress: waiting.progress,
        notification: Arc::new(notification),
    }
}
