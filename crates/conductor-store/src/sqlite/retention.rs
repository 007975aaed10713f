//! Removes what has ended long ago, and gives the room back: in steps so small that accepting hardly notices.
//!
//! A reader finds candidates, tenant by tenant along the feed; the writer looks at each again before it removes it. What
//! is not in the feed yet is never found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_core::audit::{AuditEvent, AuditKind, Details};
use conductor_core::notification::Fallback;
use conductor_core::retention::{Compacted, Pruned, age_counts_from};
use conductor_core::{Actor, Keep, NotificationId, Retention, StoreError, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::work::Work;
use super::write::delete_live_key;
use super::writer::{Command, Effect};
use super::{SqliteStore, callbacks, rows};

/// The most rows that one step looks at.
const LOOK_MAX: usize = 2_000;
/// The most candidates that are kept, and that one step hands to the writer.
const FOUND_MAX: usize = 1_000;
/// What a step may take of the writer's time, with what it adds to its commit. A step that took longer is followed by a
/// smaller one.
const STEP_TARGET: Duration = Duration::from_millis(10);
/// The most attempts that one step removes or redacts, and how many it does between two looks at the clock. A
/// notification that has more takes several steps.
const ATTEMPTS_MAX: usize = 4_000;
const ATTEMPTS_AT_ONCE: usize = 500;
/// How many notifications, or pages, the first step takes, and how many each may take: that one fsync alone takes long
/// is no reason to need more of them.
const STEP_MIN: usize = 16;
/// A tenant's notifications are looked at from the oldest on so many times in the time that they are kept: those that
/// ended late were passed over before.
const LOOKS: u32 = 30;
/// The most pages that one step gives back.
const PAGES_MAX: usize = 4_096;
/// So much empty space stays in the file for what comes, or a tenth of the file where that is more.
const SPARE_BYTES: u64 = 16 * 1024 * 1024;
const SPARE_PART: u64 = 10;
/// A file from before there was retention is rewritten at the start if it is no larger.
const REWRITE_MAX_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Remove,
    Redact,
}

/// A notification that has ended, and that was old enough when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    id: NotificationId,
    wish: Wish,
    /// It has to have ended by then.
    ended_by: Timestamp,
}

/// What one command did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step {
    /// How many candidates it came to, or pages it gave back.
    handled: usize,
    removed: usize,
    redacted: usize,
    bytes: u64,
    /// There are no more pages to give back.
    is_compact: bool,
    /// Of the writer's time.
    took: Duration,
}

/// How far a tenant's notifications have been looked at.
#[derive(Debug, Clone, Copy)]
struct Passed {
    removed: NotificationId,
    redacted: NotificationId,
    /// When that began at the oldest.
    since: Timestamp,
}

/// How far the tidying is.
#[derive(Debug)]
pub(crate) struct Tidying {
    found: Vec<Candidate>,
    /// The last tenant of this round that was begun with.
    tenant: Option<TenantId>,
    /// What is being looked for among its notifications; none if that is over.
    wish: Option<Wish>,
    /// The round has seen all tenants.
    is_over: bool,
    passed: HashMap<TenantId, Passed>,
    /// How many notifications, or pages, a step takes.
    notifications: usize,
    pages: usize,
}

impl Default for Tidying {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            tenant: None,
            wish: None,
            is_over: false,
            passed: HashMap::new(),
            notifications: STEP_MIN,
            pages: STEP_MIN,
        }
    }
}

impl Step {
    /// What a commit takes longer because of this step counts as the step's.
    pub(crate) fn add_commit(&mut self, excess: Duration) {
        self.took += excess;
    }
}

/// How long commits take in which nothing is removed: that is the disk's, however small the steps are.
#[derive(Debug, Default)]
pub(crate) struct UsualCommit(Option<Duration>);

impl UsualCommit {
    /// A commit without a step took so long.
    pub(crate) fn note(&mut self, took: Duration) {
        self.0 = Some(self.0.map_or(took, |usual| (usual * 7 + took) / 8));
    }

    /// How much longer than usual a commit took. Up to twice the usual time is the disk's own moods. Where nobody else
    /// has committed anything, nobody had to wait either.
    pub(crate) fn excess(&self, took: Duration) -> Duration {
        self.0.map_or(Duration::ZERO, |usual| took.saturating_sub(usual * 2))
    }
}

/// How many the next step may handle.
fn adapted(now: usize, step: &Step, most: usize) -> usize {
    if step.took > STEP_TARGET {
        (step.handled / 2).max(STEP_MIN)
    } else if step.took * 2 < STEP_TARGET && step.handled >= now {
        (now * 2).min(most)
    } else {
        now
    }
}

impl Tidying {
    /// Looks for candidates until there are enough, it has looked long enough, or the round is over.
    fn look(&mut self, connection: &Connection, retention: &Retention, now: Timestamp) -> rusqlite::Result<()> {
        let mut rows_left = LOOK_MAX;
        while rows_left > 0 && self.found.len() < FOUND_MAX {
            match (self.tenant, self.wish) {
                (Some(tenant), Some(wish)) => {
                    let keep = retention.of(tenant);
                    if self.look_at(connection, tenant, keep, wish, now, &mut rows_left)? {
                        self.wish = (wish == Wish::Remove).then_some(Wish::Redact);
                    }
                }
                (last, _) => {
                    let Some(next) = next_tenant(connection, last)? else {
                        (self.tenant, self.is_over) = (None, true);
                        return Ok(());
                    };
                    self.begin(next, retention.of(next), now);
                    rows_left -= 1;
                }
            }
        }
        Ok(())
    }

    /// What a whole look finds.
    #[cfg(test)]
    pub(crate) fn candidates(
        mut self,
        connection: &Connection,
        retention: &Retention,
        now: Timestamp,
    ) -> rusqlite::Result<Vec<Candidate>> {
        self.look(connection, retention, now)?;
        Ok(self.found)
    }

    fn begin(&mut self, tenant: TenantId, keep: Keep, now: Timestamp) {
        (self.tenant, self.wish) = (Some(tenant), Some(Wish::Remove));
        let oldest = NotificationId::from_bytes([0; 16]);
        let from_the_oldest = Passed { removed: oldest, redacted: oldest, since: now };
        let passed = self.passed.entry(tenant).or_insert(from_the_oldest);
        let shortest = keep.content.into_iter().chain(keep.whole).min().unwrap_or_default();
        if passed.since > now || now.since(passed.since) >= shortest / LOOKS {
            *passed = from_the_oldest;
        }
    }

    /// Goes on through one tenant's notifications. Returns whether it has come to those that are too young.
    fn look_at(
        &mut self,
        connection: &Connection,
        tenant: TenantId,
        keep: Keep,
        wish: Wish,
        now: Timestamp,
        rows_left: &mut usize,
    ) -> rusqlite::Result<bool> {
        let Some(passed) = self.passed.get_mut(&tenant) else { return Ok(true) };
        let (age, place) = match wish {
            Wish::Remove => (keep.whole, &mut passed.removed),
            Wish::Redact => (keep.content, &mut passed.redacted),
        };
        let Some(ended_by) = age.map(|age| now.minus(age)) else { return Ok(true) };
        let sql = "SELECT f.notification, n.accepted_at, n.redacted_at IS NOT NULL, \
                   (SELECT max(ended_at) FROM ended WHERE notification = f.notification), \
                   EXISTS (SELECT 1 FROM pending WHERE notification = f.notification) \
                   FROM feed AS f CROSS JOIN notification AS n ON n.id = f.notification \
                   WHERE f.tenant = ?1 AND f.notification > ?2 ORDER BY f.notification LIMIT ?3";
        let mut statement = connection.prepare_cached(sql)?;
        let limit = *rows_left;
        let mut found = statement.query((tenant.bytes(), *place.bytes(), rows::count(limit)))?;
        let mut seen = 0;
        while let Some(row) = found.next()? {
            let accepted_at = rows::time(row, 1)?;
            // Whatever follows was accepted later still. What a wrong clock put into the future says nothing of that.
            if accepted_at > ended_by && accepted_at <= now {
                return Ok(true);
            }
            seen += 1;
            *rows_left -= 1;
            let id = NotificationId::from_bytes(rows::id_bytes(row, 0)?);
            *place = id;
            let is_redacted: bool = row.get(2)?;
            let ended_at: Option<i64> = row.get(3)?;
            let waits: bool = row.get(4)?;
            let is_old = |ended_at| age_counts_from(Timestamp::from_millis(ended_at), id) <= ended_by;
            if !waits && ended_at.is_some_and(is_old) && !(is_redacted && wish == Wish::Redact) {
                self.found.push(Candidate { id, wish, ended_by });
                if self.found.len() == FOUND_MAX {
                    return Ok(false);
                }
            }
        }
        Ok(seen < limit)
    }
}

/// The first tenant after this one that has notifications.
fn next_tenant(connection: &Connection, last: Option<TenantId>) -> rusqlite::Result<Option<TenantId>> {
    let sql = "SELECT tenant FROM feed WHERE tenant > ?1 ORDER BY tenant LIMIT 1";
    let last = last.map_or_else(Vec::new, |tenant| tenant.bytes().to_vec());
    let tenant = |row: &rusqlite::Row<'_>| rows::id_bytes(row, 0).map(TenantId::from_bytes);
    connection.prepare_cached(sql)?.query_row([last], tenant).optional()
}

impl SqliteStore {
    /// See [`conductor_core::Store::prune`].
    pub(super) async fn prune_step(&self, retention: &Arc<Retention>, now: Timestamp) -> Result<Pruned, StoreError> {
        let mut tidying = self.tidying.lock().await;
        if tidying.found.is_empty() && !tidying.is_over {
            // Where the read fails, the next step begins a round anew.
            let (mut looking, retention) = (std::mem::take(&mut *tidying), Arc::clone(retention));
            let look = move |connection: &Connection| {
                looking.look(connection, &retention, now)?;
                Ok(looking)
            };
            *tidying = self.own_readers.read(look).await?;
        }
        let mut step = Step::default();
        if !tidying.found.is_empty() {
            let count = tidying.notifications.min(tidying.found.len());
            let candidates = tidying.found[..count].to_vec();
            step = self.command(|reply| Command::Prune(candidates, now, reply)).await?;
            tidying.found.drain(..step.handled);
            tidying.notifications = adapted(tidying.notifications, &step, FOUND_MAX);
        }
        let is_done = tidying.is_over && tidying.found.is_empty();
        tidying.is_over &= !is_done;
        Ok(Pruned { removed: step.removed, redacted: step.redacted, is_done })
    }

    /// See [`conductor_core::Store::compact`].
    pub(super) async fn compact_step(&self) -> Result<Compacted, StoreError> {
        let mut tidying = self.tidying.lock().await;
        let pages = tidying.pages;
        let step = self.command(|reply| Command::Compact(pages, reply)).await?;
        tidying.pages = adapted(pages, &step, PAGES_MAX);
        Ok(Compacted { bytes: step.bytes, is_done: step.is_compact })
    }
}

/// Removes these, as far as there is time and they are still to be removed.
pub(crate) fn prune(transaction: &Work<'_>, candidates: &[Candidate], now: Timestamp) -> rusqlite::Result<Effect> {
    let mut step = Step::default();
    let mut left = Left { since: Instant::now(), attempts: ATTEMPTS_MAX };
    for candidate in candidates {
        if has_ended(transaction, candidate)? {
            if !let_go_of_attempts(transaction, candidate, &mut left)? {
                break;
            }
            match candidate.wish {
                Wish::Remove => step.removed += usize::from(remove(transaction, candidate.id)?),
                Wish::Redact => step.redacted += usize::from(redact(transaction, candidate.id, now)?),
            }
        }
        step.handled += 1;
        if left.is_nothing() {
            break;
        }
    }
    if step.removed + step.redacted > 0 {
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        let details = Details::new().number("removed", count(step.removed)).number("redacted", count(step.redacted));
        transaction.append(&AuditEvent::of_server(AuditKind::Tidied, Actor::Server, details))?;
    }
    step.took = left.since.elapsed();
    Ok(Effect::Tidied(step))
}

/// What a step may still do.
struct Left {
    since: Instant,
    attempts: usize,
}

impl Left {
    fn is_nothing(&self) -> bool {
        self.attempts == 0 || self.since.elapsed() >= STEP_TARGET
    }
}

/// Removes a notification's attempts, or what was said of them. False: there are more, which is for another step.
fn let_go_of_attempts(transaction: &Transaction<'_>, candidate: &Candidate, left: &mut Left) -> rusqlite::Result<bool> {
    let mut statement = transaction.prepare_cached(match candidate.wish {
        Wish::Remove => {
            "DELETE FROM attempt WHERE notification = ?1 AND (ordinal, number) IN \
             (SELECT ordinal, number FROM attempt WHERE notification = ?1 LIMIT ?2)"
        }
        Wish::Redact => {
            "UPDATE attempt SET detail = NULL WHERE notification = ?1 AND (ordinal, number) IN \
             (SELECT ordinal, number FROM attempt WHERE notification = ?1 AND detail IS NOT NULL LIMIT ?2)"
        }
    })?;
    loop {
        let count = statement.execute((candidate.id.bytes(), rows::count(ATTEMPTS_AT_ONCE)))?;
        left.attempts = left.attempts.saturating_sub(count);
        if count < ATTEMPTS_AT_ONCE {
            return Ok(true);
        }
        if left.is_nothing() {
            return Ok(false);
        }
    }
}

/// Whether it still is as it was when it was found: somebody may have tried it again.
fn has_ended(transaction: &Transaction<'_>, candidate: &Candidate) -> rusqlite::Result<bool> {
    let sql = "SELECT max(ended_at) FROM ended WHERE notification = ?1 \
               AND NOT EXISTS (SELECT 1 FROM pending WHERE notification = ?1)";
    let ended_at: Option<i64> = transaction.prepare_cached(sql)?.query_row([candidate.id.bytes()], |row| row.get(0))?;
    let age = ended_at.map(|ended_at| age_counts_from(Timestamp::from_millis(ended_at), candidate.id));
    Ok(age.is_some_and(|from| from <= candidate.ended_by))
}

/// What is in the way of a notification's removal.
struct Ties {
    tenant: [u8; 16],
    channel: [u8; 16],
    target: String,
    key: Option<String>,
    fallback: Option<String>,
}

/// Lets go of a notification's `key`, if it still holds it. None if there is no such notification.
fn untie(transaction: &Transaction<'_>, id: NotificationId) -> rusqlite::Result<Option<Ties>> {
    let sql = "SELECT tenant, channel_id, coalesce(target, ''), key, fallback FROM notification WHERE id = ?1";
    let row = |row: &rusqlite::Row<'_>| {
        let (tenant, channel) = (row.get(0)?, row.get(1)?);
        Ok(Ties { tenant, channel, target: row.get(2)?, key: row.get(3)?, fallback: row.get(4)? })
    };
    let ties = transaction.prepare_cached(sql)?.query_row([id.bytes()], row).optional()?;
    if let Some(Ties { tenant, channel, target, key: Some(key), .. }) = &ties {
        delete_live_key(transaction, (tenant, channel, target, key), id)?;
    }
    Ok(ties)
}

fn remove(transaction: &Transaction<'_>, id: NotificationId) -> rusqlite::Result<bool> {
    let Some(ties) = untie(transaction, id)? else { return Ok(false) };
    callbacks::redact(transaction, id)?;
    for sql in [
        "DELETE FROM receipt WHERE notification = ?1",
        "DELETE FROM ended WHERE notification = ?1",
        "DELETE FROM notification WHERE id = ?1",
    ] {
        transaction.prepare_cached(sql)?.execute([id.bytes()])?;
    }
    let sql = "DELETE FROM feed WHERE tenant = ?1 AND notification = ?2";
    transaction.prepare_cached(sql)?.execute((ties.tenant, id.bytes()))?;
    Ok(true)
}

fn redact(transaction: &Transaction<'_>, id: NotificationId, now: Timestamp) -> rusqlite::Result<bool> {
    let Some(ties) = untie(transaction, id)? else { return Ok(false) };
    let sql = "UPDATE notification SET message = '', title = NULL, data = NULL, target = NULL, fallback = ?2, \
               salt = NULL, redacted_at = ?3 WHERE id = ?1 AND redacted_at IS NULL";
    let row = (id.bytes(), ties.fallback.as_deref().and_then(without_targets), now.millis());
    let changed = transaction.prepare_cached(sql)?.execute(row)?;
    callbacks::redact(transaction, id)?;
    for sql in [
        "UPDATE ended SET target = NULL WHERE notification = ?1 AND target IS NOT NULL",
        "UPDATE receipt SET detail = NULL WHERE notification = ?1 AND detail IS NOT NULL",
    ] {
        transaction.prepare_cached(sql)?.execute([id.bytes()])?;
    }
    Ok(changed > 0)
}

/// The fallbacks without the addresses of people.
fn without_targets(fallback: &str) -> Option<String> {
    let mut fallback: Vec<Fallback> = serde_json::from_str(fallback).ok()?;
    fallback.iter_mut().for_each(|fallback| fallback.target_id = None);
    serde_json::to_string(&fallback).ok()
}

/// Gives empty pages back, at most so many, as far as there is time.
pub(crate) fn compact(connection: &Connection, pages: usize) -> rusqlite::Result<Effect> {
    let began = Instant::now();
    let number = |sql| pragma(connection, sql);
    let free = || number("PRAGMA freelist_count");
    let page_size = number("PRAGMA page_size")?.max(1);
    let before = free()?;
    let spare = (number("PRAGMA page_count")? / SPARE_PART).max(SPARE_BYTES / page_size);
    let surplus = if number("PRAGMA auto_vacuum")? == INCREMENTAL { before.saturating_sub(spare) } else { 0 };
    let most = usize::try_from(surplus).unwrap_or(usize::MAX).min(pages);
    if most > 0 {
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({most})"))?;
        // Each step gives one page back.
        let mut given_back = statement.query([])?;
        while given_back.next()?.is_some() && began.elapsed() < STEP_TARGET {}
    }
    let freed = before.saturating_sub(free()?);
    Ok(Effect::Tidied(Step {
        handled: usize::try_from(freed).unwrap_or(usize::MAX),
        bytes: freed * page_size,
        is_compact: freed == surplus || freed == 0,
        took: began.elapsed(),
        ..Step::default()
    }))
}

fn pragma(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.query_row(sql, [], |row| row.get(0)).map(i64::unsigned_abs)
}

/// What `PRAGMA auto_vacuum` says where pages can be given back step by step.
const INCREMENTAL: u64 = 2;

/// Whether the file gives empty room back to the file system.
pub(crate) fn is_compactable(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(pragma(connection, "PRAGMA auto_vacuum")? == INCREMENTAL)
}

/// A file that was made before pages could be given back is rewritten once, if that takes no long time.
pub(crate) fn make_compactable(connection: &Connection) -> rusqlite::Result<()> {
    if is_compactable(connection)? {
        return Ok(());
    }
    let number = |sql| pragma(connection, sql);
    let bytes = number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?);
    if bytes > REWRITE_MAX_BYTES {
        tracing::info!(
            bytes,
            "The store's file never shrinks, because it was made by an earlier version. To change that, stop the \
             server, have as much free room as the file takes, and run: sqlite3 conductor.db \
             'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'",
        );
        return Ok(());
    }
    let rewrite = "PRAGMA temp_store = FILE; PRAGMA auto_vacuum = INCREMENTAL; VACUUM";
    if let Err(error) = connection.execute_batch(rewrite) {
        tracing::warn!(%error, "The store's file could not be rewritten so that it can shrink; the next start tries again");
    }
    connection.execute_batch("PRAGMA temp_store = MEMORY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_as_large_as_the_time_that_the_last_one_took_allows() {
        let step = |handled, millis| Step { handled, took: Duration::from_millis(millis), ..Step::default() };
        assert_eq!(adapted(100, &step(100, 1), FOUND_MAX), 200);
        assert_eq!(adapted(800, &step(800, 1), FOUND_MAX), FOUND_MAX);
        assert_eq!(adapted(100, &step(60, 1), FOUND_MAX), 100, "there was no more to do");
        assert_eq!(adapted(100, &step(100, 7), FOUND_MAX), 100);
        assert_eq!(adapted(800, &step(300, 11), FOUND_MAX), 150);
        assert_eq!(adapted(100, &step(3, 900), FOUND_MAX), STEP_MIN);
    }

    #[test]
    fn a_disk_that_is_always_slow_makes_no_step_smaller() {
        let millis = Duration::from_millis;
        let mut usual = UsualCommit::default();
        assert_eq!(usual.excess(millis(900)), Duration::ZERO, "nobody else commits anything");
        [28, 35, 30, 27, 33].into_iter().for_each(|took| usual.note(millis(took)));
        let next = |commit| {
            let mut step = Step { handled: 100, took: millis(1), ..Step::default() };
            step.add_commit(usual.excess(millis(commit)));
            adapted(100, &step, FOUND_MAX)
        };
        assert_eq!((next(30), next(45)), (200, 200));
        assert_eq!(next(90), 50, "the step made it slow");
    }

    #[test]
    fn fallbacks_lose_their_targets_only() {
        let fallback = r#"[{"channel":"slack","channelId":"01943c2a-7c3e-7000-8000-0000000000c1","targetId":"+43"}]"#;
        let without = r#"[{"channel":"slack","channelId":"01943c2a-7c3e-7000-8000-0000000000c1"}]"#;
        assert_eq!(without_targets(fallback).as_deref(), Some(without));
        assert_eq!(without_targets("damaged"), None);
    }
}
