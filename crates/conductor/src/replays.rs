//! Goes on with the bulk retries that have not ended, also with those that an earlier process began.
//!
//! Jobs take turns. None runs far ahead of what is sent: so canceling one has an effect, and what is new does not have
//! to wait behind all that is old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_core::replay::{ReplayItem, ReplayJob, ReplayStep, STEP_MAX};
use conductor_core::store::{BATCH_MAX, Page, Summary};
use conductor_core::{Actor, ChannelId, StoreError, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::accept::DEFAULT_EXPIRY;
use crate::app::App;
use crate::registry::{Registry, Tenant};

/// The most jobs that are held in memory at once.
const JOBS_MAX: usize = 100;
/// A job with a rate queues what is due in this time, and goes on when half of it has passed.
const HORIZON: Duration = Duration::from_secs(10);
/// A job adds nothing to a channel in which so many wait.
const AHEAD_MAX: u64 = 10_000;
/// Where there was no room, a job goes on when this part of all the places is free: each look costs a read.
const FREE_PART: u64 = 10;
/// How long a job waits for room in a channel or in its tenant's quota.
const ROOM_PAUSE: Duration = Duration::from_millis(500);
/// A job rests after each step as long as that took, but no longer than this.
const STEP_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a job waits after the store has failed.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// Works until `stop`.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    loop {
        let pause = round(&app, &stop).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.replays.begun() => {}
            () = rest(pause) => {}
        }
    }
}

/// Without a pause there is nothing to do until a job is begun.
async fn rest(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Gives each job that has not ended a turn. Returns when the first of them wants another.
async fn round(app: &App, stop: &CancellationToken) -> Option<Duration> {
    let mut pause: Option<Duration> = None;
    let mut wants = |after: Duration| pause = Some(pause.map_or(after, |pause| pause.min(after)));
    let mut last = None;
    loop {
        let jobs = match app.store.running_replays(last, JOBS_MAX).await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::warn!(%error, "The bulk retries could not be read; it is tried again");
                wants(TROUBLE_PAUSE);
                return pause;
            }
        };
        for job in &jobs {
            if stop.is_cancelled() {
                return None;
            }
            last = Some(job.id);
            match turn(app, stop, job).await {
                Ok(None) => app.replays.tell_end(),
                Ok(Some(after)) => wants(after),
                Err(error) => {
                    tracing::warn!(replay.id = %job.id, %error, "A bulk retry could not go on; it is tried again");
                    wants(TROUBLE_PAUSE);
                }
            }
        }
        if jobs.len() < JOBS_MAX {
            return pause;
        }
    }
}

/// Goes on with one job. Returns how long it is to be left alone; none if it has ended.
async fn turn(app: &App, stop: &CancellationToken, job: &ReplayJob) -> Result<Option<Duration>, StoreError> {
    let registry = app.registry();
    let now = app.clock.now();
    let tenant = match tenant_of(&registry, job) {
        Ok(tenant) => tenant,
        Err(removed) => {
            tracing::info!(replay.id = %job.id, tenant.id = %job.tenant, "Bulk retry ended: {removed} was removed");
            app.store.cancel_replay(job.tenant, job.id, Actor::Server, now).await?;
            return Ok(None);
        }
    };
    let by_rate = match due_soon(job, now) {
        Ok(count) => count,
        Err(pause) => return Ok(Some(pause)),
    };
    let mut room = Room::of(app, tenant);
    let through = job.redirect.as_ref().map(|redirect| redirect.channel_id);
    let wanted = by_rate.min(room.tenant).min(room.for_any(through.or(job.filter.channel_id), tenant));
    let Some(wanted) = usize::try_from(wanted).ok().filter(|wanted| *wanted > 0) else {
        return Ok(Some(ROOM_PAUSE));
    };
    let Page { items, next } = app.store.notifications(job.tenant, &job.filter, wanted, Some(job.position)).await?;
    let mut fits =
        |item: &Summary| room.take(through.unwrap_or(item.notification.channel_id), item.notification.bytes());
    let fitting = items.iter().take_while(|item| fits(item)).count();
    if fitting == 0 && !items.is_empty() {
        return Ok(Some(ROOM_PAUSE));
    }
    let fits_all = fitting == items.len();
    let mut job = job.clone();
    let mut parts = items[..fitting].chunks(STEP_MAX).peekable();
    loop {
        let part = parts.next().unwrap_or_default();
        let is_last = parts.peek().is_none();
        let visited = part.last().map_or(job.position, |item| item.notification.id);
        let step = ReplayStep {
            job: job.id,
            from: job.position,
            items: part.iter().map(|item| item_of(item, tenant, through)).collect(),
            due: next_due(&job, now),
            to: next.filter(|_| is_last && fits_all).unwrap_or(visited),
            ends_at: (is_last && fits_all && next.is_none()).then(|| app.clock.now()),
        };
        let began = Instant::now();
        let Some(after) = app.store.step_replay(step).await? else { return Ok(None) };
        job = after;
        if job.ended_at.is_some() {
            tell_end(&job);
            return Ok(None);
        }
        if is_last || stop.is_cancelled() {
            return Ok(Some(if fits_all { Duration::ZERO } else { ROOM_PAUSE }));
        }
        // Half of the time belongs to whoever else wants to write.
        tokio::time::sleep(began.elapsed().min(STEP_PAUSE_MAX)).await;
    }
}

/// The tenant of a job that can go on; if it cannot, what is not configured any more.
fn tenant_of<'r>(registry: &'r Registry, job: &ReplayJob) -> Result<&'r Tenant, &'static str> {
    let tenant = registry.tenant(job.tenant).ok_or("its tenant")?;
    let way = job.redirect.as_ref().map(|redirect| tenant.channel(redirect.channel_id));
    if way.is_some_and(|channel| channel.is_none()) { Err("the channel that it goes through") } else { Ok(tenant) }
}

fn tell_end(job: &ReplayJob) {
    let (id, tenant, retried, skipped) = (job.id, job.tenant, job.retried, job.skipped);
    // Whoever canceled it has had it written to the log.
    if !job.canceled {
        tracing::info!(replay.id = %id, tenant.id = %tenant, retried, skipped, "Bulk retry done");
    }
}

fn item_of(item: &Summary, tenant: &Tenant, through: Option<ChannelId>) -> ReplayItem {
    let channel = tenant.channel(through.unwrap_or(item.notification.channel_id));
    let expires_after = channel.map_or(DEFAULT_EXPIRY, |channel| channel.expires_after);
    ReplayItem { notification: item.notification.id, expires_after }
}

/// When the next one is due. A job that is further ahead than it ever goes has seen the clock put back.
fn next_due(job: &ReplayJob, now: Timestamp) -> Timestamp {
    let latest = now.plus(HORIZON).plus(job.interval);
    if job.next_due > latest { now } else { job.next_due.max(now) }
}

/// How many may be queued now, at least one; or how long to wait.
fn due_soon(job: &ReplayJob, now: Timestamp) -> Result<u64, Duration> {
    let most = BATCH_MAX as u64;
    if job.interval.is_zero() {
        return Ok(most);
    }
    let due = next_due(job, now);
    let half = now.plus(HORIZON / 2);
    if due > half {
        return Err(due.since(half).min(HORIZON));
    }
    let more = now.plus(HORIZON).since(due).as_nanos() / job.interval.as_nanos();
    Ok(u64::try_from(more).unwrap_or(most).saturating_add(1).min(most))
}

/// How many more may wait.
struct Room<'a> {
    app: &'a App,
    tenant: u64,
    bytes: u64,
    /// Nothing of the tenant waits. Then one may, however large it is.
    is_empty: bool,
    channels: HashMap<ChannelId, u64>,
}

impl<'a> Room<'a> {
    /// Half of what the tenant may have waiting stays free for what is new.
    fn of(app: &'a App, tenant: &Tenant) -> Self {
        let load = app.store.load(tenant.id);
        let is_empty = load.notifications == 0;
        let bytes = tenant.bytes.map_or(u64::MAX, |max| left(max.div_ceil(2), load.bytes));
        let room = tenant.queued.map_or(u64::MAX, |max| left(max.div_ceil(2), load.notifications));
        let room = if bytes > 0 || is_empty { room } else { 0 };
        Self { app, tenant: room, bytes, is_empty, channels: HashMap::new() }
    }

    fn in_channel(&mut self, channel: ChannelId) -> u64 {
        *self.channels.entry(channel).or_insert_with(|| left(AHEAD_MAX, self.app.store.waiting(channel)))
    }

    /// How many a turn may take at the most: all go through one channel, or nobody knows yet through which.
    fn for_any(&mut self, one: Option<ChannelId>, tenant: &Tenant) -> u64 {
        match one {
            Some(channel) => self.in_channel(channel),
            None if tenant.channels.iter().any(|channel| self.in_channel(channel.id) == 0) => STEP_MAX as u64,
            None => AHEAD_MAX,
        }
    }

    /// Takes one place in a channel, if there is one for so many bytes.
    fn take(&mut self, channel: ChannelId, bytes: u64) -> bool {
        let left = self.in_channel(channel).checked_sub(1).filter(|_| bytes <= self.bytes || self.is_empty);
        left.is_some_and(|left| {
            self.channels.insert(channel, left);
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_empty = false;
            true
        })
    }
}

/// How many more fit; none until it is worth going on.
fn left(most: u64, waiting: u64) -> u64 {
    let free = most.saturating_sub(waiting);
    if free.saturating_mul(FREE_PART) < most { 0 } else { free }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_core::store::Filter;
    use conductor_core::{ReplayId, TenantId};
    use uuid::Uuid;

    fn job(interval: Duration, next_due: i64) -> ReplayJob {
        let (id, tenant) = (ReplayId::new(Uuid::from_u128(2)), TenantId::new(Uuid::from_u128(1)));
        let job = ReplayJob::new(id, tenant, Timestamp::ZERO, Filter::default());
        ReplayJob { interval, next_due: Timestamp::from_millis(next_due), ..job }
    }

    #[test]
    fn a_job_that_lacked_room_goes_on_when_a_tenth_is_free() {
        for (most, waiting, expected) in [
            (10_000, 0, 10_000),
            (10_000, 9_000, 1_000),
            (10_000, 9_001, 0),
            (10, 9, 1),
            (1, 0, 1),
            (10, 12, 0),
            (0, 0, 0),
        ] {
            assert_eq!(left(most, waiting), expected, "{waiting} of {most}");
        }
    }

    #[test]
    fn a_job_with_a_rate_stays_ten_seconds_ahead_and_one_without_takes_what_it_gets() {
        const NOW: i64 = 1_000_000;
        let second = Duration::from_secs(1);
        let hour = 3_600 * second;
        for (interval, next_due, expected) in [
            (Duration::ZERO, 0, Ok(1_000)),
            (second / 5, 0, Ok(51)),
            (second / 5, NOW + 4_000, Ok(31)),
            (second / 5, NOW + 6_000, Err(second)),
            (second / 1_000_000, NOW, Ok(1_000)),
            (hour, 0, Ok(1)),
            (hour, NOW + 3_600_000, Err(HORIZON)),
            (hour, NOW + 7_000, Err(2 * second)),
            // The clock was put back by a day.
            (second, NOW + 86_400_000, Ok(11)),
        ] {
            let found = due_soon(&job(interval, next_due), Timestamp::from_millis(NOW));
            assert_eq!(found, expected, "{interval:?} {next_due}");
        }
    }
}
