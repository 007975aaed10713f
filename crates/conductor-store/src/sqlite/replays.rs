//! Bulk retries: jobs, and the steps that queue dead letters again together with the job's new place.

use std::time::Duration;

use async_trait::async_trait;
use conductor_core::audit::{AuditEvent, AuditKind, Details};
use conductor_core::replay::{ENDED_MAX, RUNNING_MAX, ReplayJob, ReplayStep, Replays, STEP_MAX};
use conductor_core::store::{BATCH_MAX, Transition};
use conductor_core::{Actor, NotificationId, ReplayId, StoreError, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::change::{self, Change, ChangeKind, Touched};
use super::memory::Memory;
use super::rows;
use super::work::Work;
use super::writer::{Command, Effect};

/// What is to be done to a job.
pub(crate) enum JobChange {
    Begin(Box<ReplayJob>),
    Step(ReplayStep),
    Cancel { tenant: TenantId, id: ReplayId, by: Actor, at: Timestamp },
    Forget { before: Timestamp },
}

#[async_trait]
impl Replays for SqliteStore {
    async fn begin_replay(&self, job: ReplayJob) -> Result<Option<ReplayJob>, StoreError> {
        self.command(|reply| Command::Job(JobChange::Begin(Box::new(job)), reply)).await
    }

    async fn step_replay(&self, step: ReplayStep) -> Result<Option<ReplayJob>, StoreError> {
        self.command(|reply| Command::Job(JobChange::Step(step), reply)).await
    }

    async fn cancel_replay(
        &self,
        tenant: TenantId,
        id: ReplayId,
        by: Actor,
        at: Timestamp,
    ) -> Result<Option<ReplayJob>, StoreError> {
        self.command(|reply| Command::Job(JobChange::Cancel { tenant, id, by, at }, reply)).await
    }

    async fn replay_job(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError> {
        let job = self.readers.read(move |connection| find(connection, id)).await?;
        Ok(job.filter(|job| job.tenant == tenant))
    }

    async fn replay_jobs(&self, tenant: TenantId) -> Result<Vec<ReplayJob>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM replay_job WHERE tenant = ?1 ORDER BY id DESC LIMIT ?2");
        let limit = rows::count(RUNNING_MAX + ENDED_MAX);
        let read = move |connection: &Connection| {
            connection.prepare_cached(&sql)?.query_map((tenant.bytes(), limit), job)?.collect()
        };
        self.readers.read(read).await
    }

    async fn running_replays(&self, after: Option<ReplayId>, limit: usize) -> Result<Vec<ReplayJob>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM replay_job WHERE ended_at IS NULL AND id > ?1 ORDER BY id LIMIT ?2");
        let after = after.map_or([0; 16], |id| *id.bytes());
        let limit = rows::count(limit.min(BATCH_MAX));
        let read =
            move |connection: &Connection| connection.prepare_cached(&sql)?.query_map((after, limit), job)?.collect();
        self.own_readers.read(read).await
    }

    async fn forget_replays(&self, before: Timestamp) -> Result<(), StoreError> {
        self.command(|reply| Command::Job(JobChange::Forget { before }, reply)).await.map(drop)
    }
}

const COLUMNS: &str = "id, tenant, created_at, filter, redirect, interval_ns, position, next_due, retried, skipped, \
     ended_at, canceled";

fn job(row: &Row<'_>) -> rusqlite::Result<ReplayJob> {
    Ok(ReplayJob {
        id: ReplayId::from_bytes(rows::id_bytes(row, 0)?),
        tenant: TenantId::from_bytes(rows::id_bytes(row, 1)?),
        created_at: rows::time(row, 2)?,
        filter: rows::json(row, 3)?,
        redirect: rows::json(row, 4)?,
        interval: Duration::from_nanos(row.get::<_, i64>(5)?.unsigned_abs()),
        position: NotificationId::from_bytes(rows::id_bytes(row, 6)?),
        next_due: rows::time(row, 7)?,
        retried: row.get::<_, i64>(8)?.unsigned_abs(),
        skipped: row.get::<_, i64>(9)?.unsigned_abs(),
        ended_at: row.get::<_, Option<i64>>(10)?.map(Timestamp::from_millis),
        canceled: row.get(11)?,
    })
}

fn find(connection: &Connection, id: ReplayId) -> rusqlite::Result<Option<ReplayJob>> {
    let sql = format!("SELECT {COLUMNS} FROM replay_job WHERE id = ?1");
    connection.prepare_cached(&sql)?.query_row([id.bytes()], job).optional()
}

/// Does what is to be done to a job. The effect has the job as it stands then.
pub(crate) fn apply(transaction: &Work<'_>, memory: &Memory, change: &JobChange) -> rusqlite::Result<Effect> {
    let mut touched = Vec::new();
    let job = match change {
        JobChange::Begin(job) => begin(transaction, job)?,
        JobChange::Step(part) => step(transaction, memory, part, &mut touched)?,
        JobChange::Cancel { tenant, id, by, at } => cancel(transaction, (*tenant, *id), *by, *at)?,
        JobChange::Forget { before } => {
            let sql = "DELETE FROM replay_job WHERE id IN (SELECT id FROM replay_job WHERE ended_at < ?1 LIMIT ?2)";
            transaction.prepare_cached(sql)?.execute((before.millis(), rows::count(BATCH_MAX)))?;
            None
        }
    };
    Ok(Effect::Job(job.map(Box::new), touched))
}

fn begin(transaction: &Work<'_>, job: &ReplayJob) -> rusqlite::Result<Option<ReplayJob>> {
    let sql = "SELECT count(*) FROM replay_job WHERE tenant = ?1 AND ended_at IS NULL";
    let running: i64 = transaction.prepare_cached(sql)?.query_row([job.tenant.bytes()], |row| row.get(0))?;
    if running >= rows::count(RUNNING_MAX) {
        return Ok(None);
    }
    let sql = "DELETE FROM replay_job WHERE id IN (SELECT id FROM replay_job WHERE tenant = ?1 \
               AND ended_at IS NOT NULL ORDER BY id DESC LIMIT -1 OFFSET ?2)";
    transaction.prepare_cached(sql)?.execute((job.tenant.bytes(), rows::count(ENDED_MAX)))?;
    let failed = |error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
    let sql = "INSERT INTO replay_job (id, tenant, created_at, filter, redirect, interval_ns, position, next_due, \
               retried, skipped, ended_at, canceled) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, NULL, 0)";
    transaction.prepare_cached(sql)?.execute(params![
        job.id.bytes(),
        job.tenant.bytes(),
        job.created_at.millis(),
        serde_json::to_string(&job.filter).map_err(failed)?,
        job.redirect.as_ref().map(serde_json::to_string).transpose().map_err(failed)?,
        i64::try_from(job.interval.as_nanos()).unwrap_or(i64::MAX),
        job.position.bytes(),
        job.next_due.millis(),
    ])?;
    note(transaction, (AuditKind::RetriesBegun, Actor::Tenant), job.tenant, job.id)?;
    Ok(Some(job.clone()))
}

fn step(
    transaction: &Work<'_>,
    memory: &Memory,
    step: &ReplayStep,
    touched: &mut Vec<Touched>,
) -> rusqlite::Result<Option<ReplayJob>> {
    let Some(mut job) = find(transaction, step.job)? else { return Ok(None) };
    if job.ended_at.is_some() || job.position != step.from || step.items.len() > STEP_MAX {
        return Ok(Some(job));
    }
    let mut queued: u32 = 0;
    for item in &step.items {
        let due = step.due.plus(job.interval.saturating_mul(queued));
        let expires_at = due.plus(item.expires_after);
        let kind = ChangeKind::Replay { redirect: job.redirect.clone(), due, expires_at };
        let wish = Change { tenant: job.tenant, id: item.notification, kind };
        match change::change(transaction, memory, &wish)? {
            Effect::Changed(Transition::Done(_), change) => {
                touched.extend(change);
                queued += 1;
            }
            _ => job.skipped += 1,
        }
    }
    if queued > 0 {
        job.retried += u64::from(queued);
        // Rounded up to whole milliseconds: never faster than was asked for.
        let taken = job.interval.saturating_mul(queued).saturating_add(Duration::from_nanos(999_999));
        job.next_due = step.due.plus(taken);
    }
    (job.position, job.ended_at) = (step.to, step.ends_at);
    let sql = "UPDATE replay_job SET position = ?2, next_due = ?3, retried = ?4, skipped = ?5, ended_at = ?6 \
               WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute((
        job.id.bytes(),
        job.position.bytes(),
        job.next_due.millis(),
        job.retried.cast_signed(),
        job.skipped.cast_signed(),
        job.ended_at.map(Timestamp::millis),
    ))?;
    Ok(Some(job))
}

fn cancel(
    transaction: &Work<'_>,
    (tenant, id): (TenantId, ReplayId),
    by: Actor,
    at: Timestamp,
) -> rusqlite::Result<Option<ReplayJob>> {
    let sql = "UPDATE replay_job SET ended_at = ?3, canceled = 1 WHERE id = ?1 AND tenant = ?2 AND ended_at IS NULL";
    if transaction.prepare_cached(sql)?.execute((id.bytes(), tenant.bytes(), at.millis()))? > 0 {
        note(transaction, (AuditKind::RetriesCanceled, by), tenant, id)?;
    }
    Ok(find(transaction, id)?.filter(|job| job.tenant == tenant))
}

/// Tells the audit log that a tenant's bulk retry began or was stopped, and by whom.
fn note(work: &Work<'_>, (kind, by): (AuditKind, Actor), tenant: TenantId, job: ReplayId) -> rusqlite::Result<()> {
    let details = Details::new().text("retries", &job.to_string());
    work.append(&AuditEvent::of_tenant(kind, by, tenant, details))
}
