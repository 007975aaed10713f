//! The one thread that writes: it takes all that waits, writes it in one transaction, and commits once.
//!
//! No waiting window: whatever queued up during the last commit is the next batch, so concurrency raises the
//! throughput and not the number of fsyncs.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conductor_core::audit::AuditTidied;
use conductor_core::receipts::Reported;
use conductor_core::replay::ReplayJob;
use conductor_core::store::{
    Accepted, Expired, Finished, Lease, NewNotification, Progress, Queued, Settled, Transition, Unsettled,
};
use conductor_core::{AuditEvent, Clock, DeliveryKey, NotificationId, StoreError, TenantId, Timestamp};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::audit::{AuditIndex, AuditTidy, Head, Ledger, Seal, Sealer, Tail};
use super::callbacks::{CallbackChange, Called};
use super::change::{Change, Touched};
use super::damage::Damage;
use super::memory::{Memory, State};
use super::receipts::Received;
use super::replays::JobChange;
use super::retention::{Candidate, Step, UsualCommit};
use super::statistics::Counts;
use super::work::Work;
use super::write;

/// The most commands that one commit takes.
const BATCH_MAX: usize = 1_024;
/// The tenants' feed is written when so many notifications wait for it, or when nothing came for [`FEED_IDLE`].
const FEED_BATCH: usize = 4_096;
const FEED_IDLE: Duration = Duration::from_millis(500);

pub(crate) type Reply<T, E = StoreError> = oneshot::Sender<Result<T, E>>;

/// What can be asked of the writer.
pub(crate) enum Command {
    /// With the seal of what the notification says.
    Accept(NewNotification, Seal, Reply<Accepted>),
    Settle(Box<Lease>, Finished, Reply<Settled, Unsettled>),
    /// Writes how far an attempt under way has come.
    Advance(DeliveryKey, Progress, Reply<()>),
    /// Writes down that attempts of these are about to be made, as far as they are due.
    Mark(Vec<DeliveryKey>, Timestamp, Reply<()>),
    /// Takes that back.
    Unmark(DeliveryKey, Reply<()>),
    Change(Change, Reply<Transition>),
    Job(JobChange, Reply<Option<ReplayJob>>),
    Callback(CallbackChange, Reply<usize>),
    /// Keeps what a provider reports.
    Report(Box<Received>, Reply<Reported>),
    Expire(Vec<DeliveryKey>, Timestamp, Reply<Vec<Expired>>),
    Forget(Vec<(TenantId, String)>, Timestamp, Reply<usize>),
    /// Removes these, or their content, as far as there is time.
    Prune(Vec<Candidate>, Timestamp, Reply<Step>),
    /// Gives at most so many empty pages back.
    Compact(usize, Reply<Step>),
    Ping(Reply<()>),
    /// Adds to the audit log.
    Record(Box<AuditEvent>, Reply<()>),
    /// Removes what is old of the audit log, as far as there is time.
    TidyAudit(Box<AuditTidy>, Reply<AuditTidied>),
    /// Panics while it is written, or after that.
    #[cfg(test)]
    Panic {
        after: bool,
        reply: Reply<()>,
    },
}

/// A command on its way. The permit bounds how many there are.
pub(crate) enum Envelope {
    Command(Command, OwnedSemaphorePermit),
    Close(oneshot::Sender<()>),
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) memory: Arc<Memory>,
    pub(crate) arrived: Arc<Notify>,
    /// See [`Trouble::is_shared`].
    pub(crate) failing: Arc<AtomicBool>,
    pub(crate) damage: Arc<Damage>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) usual_commit: UsualCommit,
    /// Every notification up to this one is in the table `feed`.
    pub(crate) fed_through: Option<NotificationId>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sealer: Arc<Sealer>,
    /// Where the audit log ends.
    pub(crate) head: Head,
    pub(crate) audit_index: AuditIndex,
}

/// What a command came to; it takes effect in memory when the commit has succeeded.
pub(crate) enum Effect {
    Accepted(Accepted, Option<Queued>),
    Settled(Settled),
    Changed(Transition, Option<Touched>),
    Job(Option<Box<ReplayJob>>, Vec<Touched>),
    Called(Called),
    Reported(Reported, Option<Touched>),
    Expired(Vec<Expired>),
    Forgotten(usize),
    Tidied(Step),
    AuditTidied(AuditTidied),
    Written,
}

impl Writer {
    /// Works in a thread of its own. When that ends, `permits` are closed, and then `lock` is let go of.
    pub(crate) fn spawn(
        self,
        received: Receiver<Envelope>,
        permits: Arc<Semaphore>,
        lock: File,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| self.run(&received))).is_err() {
                tracing::error!("The store's writer has failed: nothing is accepted or sent until the next start");
            }
            // Whoever waits for the writer, or would, is told that the store is closed.
            permits.close();
            drop(received);
            // Not before the last write: until then the store has an owner.
            drop(lock);
        })
    }

    /// Works until it is told to close or nobody is left to tell it anything.
    pub(crate) fn run(mut self, commands: &Receiver<Envelope>) {
        loop {
            let first = match commands.recv_timeout(FEED_IDLE) {
                Ok(envelope) => envelope,
                Err(RecvTimeoutError::Timeout) => {
                    self.feed(1);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut batch = Vec::new();
            let mut closing = None;
            let mut next = Some(first);
            while let Some(envelope) = next {
                match envelope {
                    Envelope::Command(command, permit) => batch.push((command, permit)),
                    Envelope::Close(done) => closing = Some(done),
                }
                next = if closing.is_none() && batch.len() < BATCH_MAX { commands.try_recv().ok() } else { None };
            }
            self.write(batch.into_iter().map(|(command, _permit)| command).collect());
            self.feed(FEED_BATCH);
            if let Some(done) = closing {
                self.close();
                let _ = done.send(());
                return;
            }
        }
    }

    pub(crate) fn write(&mut self, batch: Vec<Command>) {
        if batch.is_empty() {
            return;
        }
        match self.try_safely(&batch) {
            Ok(effects) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("The store can write again");
                }
                for (command, effect) in batch.into_iter().zip(effects) {
                    self.publish(command, effect);
                }
                if self.memory.lock().has_arrivals() {
                    self.arrived.notify_one();
                }
            }
            // One command's trouble must not be its neighbours': each gets a transaction of its own. What they share
            // would make them all fail one by one, so they fail together.
            Err(trouble) if batch.len() > 1 && !trouble.is_shared => {
                for command in batch {
                    self.write(vec![command]);
                }
            }
            Err(Trouble { error, is_shared }) => {
                self.counts.failed();
                // A disk that stays full is told of once.
                if !is_shared || !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(error = %error, "The store could not write");
                }
                for command in batch {
                    self.refuse(command, &error);
                }
            }
        }
    }

    /// As [`Writer::try_write`]; a fault of this program in one command is that command's trouble only.
    fn try_safely(&mut self, batch: &[Command]) -> Result<Vec<Effect>, Trouble> {
        let written = catch_unwind(AssertUnwindSafe(|| self.try_write(batch)));
        self.memory.callbacks.end_of_transaction(matches!(written, Ok(Ok(_))));
        match written {
            Ok(written) => written.map_err(|error| {
                self.damage.note(&error);
                Trouble::of(&error)
            }),
            Err(_) => {
                let error = StoreError::Failed("the store made a mistake; its log says more".to_owned());
                Err(Trouble { error, is_shared: false })
            }
        }
    }

    fn try_write(&mut self, batch: &[Command]) -> rusqlite::Result<Vec<Effect>> {
        let ledger = Ledger::behind(self.head, self.clock.now(), &self.sealer);
        let work = Work::begin(&self.connection, ledger)?;
        let mut effects = Vec::with_capacity(batch.len());
        for command in batch {
            effects.push(write::apply(&work, &self.memory, self.fed_through, command)?);
            work.tell(&self.memory)?;
        }
        let began = Instant::now();
        let Tail { head, touched } = work.commit(&self.memory)?;
        self.head = head;
        self.audit_index.add(touched);
        let took = began.elapsed();
        self.counts.committed(took, batch.len());
        let mut is_usual = true;
        for effect in &mut effects {
            if let Effect::Tidied(step) = effect {
                step.add_commit(self.usual_commit.excess(took));
                is_usual = false;
            }
        }
        if is_usual {
            self.usual_commit.note(took);
        }
        Ok(effects)
    }

    /// Makes what was committed known: first in memory, then to the caller.
    fn publish(&self, command: Command, effect: Effect) {
        match (command, effect) {
            (Command::Accept(new, _, reply), Effect::Accepted(accepted, superseded)) => {
                self.publish_accepted(&new, &accepted, superseded);
                let _ = reply.send(Ok(accepted));
            }
            (Command::Settle(lease, _, reply), Effect::Settled(settled)) => {
                let mut memory = self.memory.lock();
                memory.unlease(lease.key);
                if settled.status.has_ended() {
                    memory.count_out(lease.channel);
                    if let Some(next) = settled.next {
                        memory.count_in(next.channel, next.key.notification);
                    }
                }
                drop(memory);
                let _ = reply.send(Ok(settled));
            }
            (Command::Change(change, reply), Effect::Changed(transition, touched)) => {
                if let Some(touched) = touched {
                    touch(&mut self.memory.lock(), &touched);
                }
                drop(change);
                let _ = reply.send(Ok(transition));
            }
            (Command::Job(_, reply), Effect::Job(job, all)) => {
                let mut memory = self.memory.lock();
                all.iter().for_each(|touched| touch(&mut memory, touched));
                drop(memory);
                let _ = reply.send(Ok(job.map(|job| *job)));
            }
            (Command::Callback(change, reply), Effect::Called(called)) => {
                let count = called.count;
                self.memory.callbacks.publish(change, called);
                let _ = reply.send(Ok(count));
            }
            (Command::Report(_, reply), Effect::Reported(reported, touched)) => {
                if let Some(touched) = touched {
                    touch(&mut self.memory.lock(), &touched);
                }
                let _ = reply.send(Ok(reported));
            }
            (Command::Expire(_, _, reply), Effect::Expired(expired)) => {
                let mut memory = self.memory.lock();
                for expired in &expired {
                    memory.ended(expired.key, true);
                    memory.count_out(expired.channel);
                }
                drop(memory);
                let _ = reply.send(Ok(expired));
            }
            (Command::Forget(_, _, reply), Effect::Forgotten(count)) => drop(reply.send(Ok(count))),
            (Command::Prune(_, _, reply) | Command::Compact(_, reply), Effect::Tidied(step)) => {
                drop(reply.send(Ok(step)));
            }
            (Command::TidyAudit(_, reply), Effect::AuditTidied(done)) => drop(reply.send(Ok(done))),
            (
                Command::Advance(_, _, reply)
                | Command::Mark(_, _, reply)
                | Command::Unmark(_, reply)
                | Command::Record(_, reply)
                | Command::Ping(reply),
                Effect::Written,
            ) => drop(reply.send(Ok(()))),
            #[cfg(test)]
            (Command::Panic { .. }, Effect::Written) => panic!("as the test wants it"),
            _ => unreachable!("apply gives each command its own effect"),
        }
    }

    fn publish_accepted(&self, new: &NewNotification, accepted: &Accepted, superseded: Option<Queued>) {
        let mut memory = self.memory.lock();
        if let Some(superseded) = superseded {
            memory.ended(superseded.key, true);
            memory.count_out(superseded.channel);
            memory.take_back(superseded);
        }
        if matches!(accepted, Accepted::New { .. }) {
            let notification = &new.notification;
            let at_once = notification.first_due() <= notification.accepted_at;
            memory.count_in(notification.channel_id, notification.id);
            memory.arrive(write::first(notification), at_once.then_some(notification));
            if Some(notification.id) > self.fed_through {
                memory.unfed.push((notification.tenant, notification.id));
            }
        }
    }

    /// Tells a caller that nothing was written.
    fn refuse(&self, command: Command, error: &StoreError) {
        // What was marked as ending while the transaction was tried waits again.
        self.memory.lock().nothing_ended();
        let error = error.clone();
        match command {
            Command::Accept(_, _, reply) => drop(reply.send(Err(error))),
            Command::Settle(lease, finished, reply) => drop(reply.send(Err(Unsettled { lease, finished, error }))),
            Command::Advance(_, _, reply)
            | Command::Mark(_, _, reply)
            | Command::Unmark(_, reply)
            | Command::Record(_, reply)
            | Command::Ping(reply) => drop(reply.send(Err(error))),
            Command::Change(_, reply) => drop(reply.send(Err(error))),
            Command::Job(_, reply) => drop(reply.send(Err(error))),
            Command::Report(_, reply) => drop(reply.send(Err(error))),
            Command::Expire(_, _, reply) => drop(reply.send(Err(error))),
            Command::Forget(_, _, reply) | Command::Callback(_, reply) => drop(reply.send(Err(error))),
            Command::Prune(_, _, reply) | Command::Compact(_, reply) => drop(reply.send(Err(error))),
            Command::TidyAudit(_, reply) => drop(reply.send(Err(error))),
            #[cfg(test)]
            Command::Panic { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Writes the tenants' feeds, each if at least `least` wait for it.
    pub(crate) fn feed(&mut self, least: usize) {
        if let Err(error) = self.audit_index.feed(&mut self.connection, &self.head, least as u64) {
            self.damage.note(&error);
            tracing::warn!(%error, "The audit log's index could not be written; it is tried again");
        }
        self.feed_lists(least);
    }

    fn feed_lists(&mut self, least: usize) {
        let mut unfed = {
            let memory = self.memory.lock();
            if memory.unfed.len() < least {
                return;
            }
            memory.unfed.clone()
        };
        unfed.sort_unstable();
        match write::feed(&mut self.connection, &unfed) {
            // Only the writer adds to it, so what was cloned is what stands there.
            Ok(fed_through) => {
                self.fed_through = self.fed_through.max(fed_through);
                self.memory.lock().unfed.clear();
            }
            Err(error) => {
                self.damage.note(&error);
                tracing::warn!(%error, "The lists' index could not be written; it is tried again");
            }
        }
    }

    fn close(&mut self) {
        self.feed(1);
        let closed = self
            .connection
            .execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('stopped_cleanly', 1)", [])
            .and_then(|_| self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Err(error) = closed {
            tracing::warn!(%error, "The store could not be closed cleanly; the next start recovers it");
        }
    }
}

/// Makes known in memory what a change did to `pending`.
fn touch(memory: &mut State, touched: &Touched) {
    memory.ended(touched.key, true);
    if let Some(ended) = touched.ended {
        memory.count_out(ended.channel);
        if touched.taken_back {
            memory.take_back(ended);
        }
    }
    if let Some(queued) = touched.queued {
        memory.count_in(queued.channel, queued.key.notification);
        memory.arrive(queued, None);
    }
}

/// Why nothing was written.
struct Trouble {
    error: StoreError,
    /// Whether it concerns everything that is written now: the disk has failed, another program has locked the file.
    is_shared: bool,
}

impl Trouble {
    fn of(error: &rusqlite::Error) -> Self {
        use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure};
        let is_shared = matches!(
            error.sqlite_error_code(),
            Some(DiskFull | SystemIoFailure | ReadOnly | CannotOpen | DatabaseBusy | DatabaseLocked)
        );
        Self { error: store_error(error), is_shared }
    }
}

/// What a caller is told of an engine's error.
pub(crate) fn store_error(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        _ => StoreError::Failed(error.to_string()),
    }
}
