//! Bulk retries: many dead letters are queued again, little by little, and none of them twice.
//!
//! A job walks the tenant's notifications from the newest to the oldest. Its place is written down together with what
//! was queued, so that a process which dies on the way neither skips one nor takes one again.

use std::time::Duration;

use async_trait::async_trait;

use crate::audit::Actor;
use crate::id::{NotificationId, ReplayId, TenantId};
use crate::store::{Filter, Redirect, StoreError};
use crate::time::Timestamp;

/// The most notifications that one step takes: others wait for the writer as long as that takes.
pub const STEP_MAX: usize = 50;
/// The most jobs of one tenant that have not ended.
pub const RUNNING_MAX: usize = 4;
/// The most jobs of one tenant that are kept after their end.
pub const ENDED_MAX: usize = 100;
/// How long a job is kept after its end.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The wish to have many notifications tried again, and how far that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayJob {
    /// Made after every notification that it may take.
    pub id: ReplayId,
    /// Whose.
    pub tenant: TenantId,
    /// Since when.
    pub created_at: Timestamp,
    /// Which notifications.
    pub filter: Filter,
    /// Another way for all of them.
    pub redirect: Option<Redirect>,
    /// The time between two; zero means at once.
    pub interval: Duration,
    /// Everything from this notification on has been visited.
    pub position: NotificationId,
    /// When the next one would be due.
    pub next_due: Timestamp,
    /// How many were queued.
    pub retried: u64,
    /// How many had left the status in the meantime.
    pub skipped: u64,
    /// Since when nothing more follows; none while it runs.
    pub ended_at: Option<Timestamp>,
    /// Whether somebody ended it before it was done.
    pub canceled: bool,
}

impl ReplayJob {
    /// A job that has not begun. It takes what was accepted before its id was made.
    pub fn new(id: ReplayId, tenant: TenantId, created_at: Timestamp, filter: Filter) -> Self {
        Self {
            id,
            tenant,
            created_at,
            filter,
            redirect: None,
            interval: Duration::ZERO,
            position: NotificationId::new(id.uuid()),
            next_due: created_at,
            retried: 0,
            skipped: 0,
            ended_at: None,
            canceled: false,
        }
    }

    /// When the last one that was queued is due; none as long as none was.
    pub fn last_due(&self) -> Option<Timestamp> {
        (self.retried > 0).then(|| self.next_due.minus(self.interval))
    }
}

/// A notification that a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayItem {
    /// Which.
    pub notification: NotificationId,
    /// How long after its due time it is given up.
    pub expires_after: Duration,
}

/// The next part of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayStep {
    /// Which job.
    pub job: ReplayId,
    /// The job's place before; a job that stands elsewhere is left as it is.
    pub from: NotificationId,
    /// What is queued again, at most [`STEP_MAX`].
    pub items: Vec<ReplayItem>,
    /// When the first of them is due.
    pub due: Timestamp,
    /// The job's place after it.
    pub to: NotificationId,
    /// If nothing follows: now.
    pub ends_at: Option<Timestamp>,
}

/// Keeps bulk retries. Every method is one transaction; what it returned has happened and is on disk.
#[async_trait]
pub trait Replays: Send + Sync {
    /// Keeps a new job. None where the tenant has [`RUNNING_MAX`] already that have not ended. Of those that have ended
    /// it forgets the oldest beyond [`ENDED_MAX`].
    async fn begin_replay(&self, job: ReplayJob) -> Result<Option<ReplayJob>, StoreError>;

    /// Queues the notifications of a step again and writes down how far the job has come, together. Returns the job as
    /// it stands then; one that has ended is left as it is.
    async fn step_replay(&self, step: ReplayStep) -> Result<Option<ReplayJob>, StoreError>;

    /// Ends a job, unless it has ended. What it has queued stays queued. `by` is who wants it, for the audit log.
    async fn cancel_replay(
        &self,
        tenant: TenantId,
        id: ReplayId,
        by: Actor,
        at: Timestamp,
    ) -> Result<Option<ReplayJob>, StoreError>;

    /// One of a tenant's jobs.
    async fn replay_job(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError>;

    /// A tenant's jobs, newest first: at most [`RUNNING_MAX`] and [`ENDED_MAX`].
    async fn replay_jobs(&self, tenant: TenantId) -> Result<Vec<ReplayJob>, StoreError>;

    /// Jobs of all tenants that have not ended, oldest first, those behind `after` if it is given.
    async fn running_replays(&self, after: Option<ReplayId>, limit: usize) -> Result<Vec<ReplayJob>, StoreError>;

    /// Forgets jobs that ended before `before`.
    async fn forget_replays(&self, before: Timestamp) -> Result<(), StoreError>;
}
