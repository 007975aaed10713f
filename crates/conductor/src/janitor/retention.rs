//! Removes what has ended long ago, little by little, and has the store give the room back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_core::{StoreError, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// A round begins so long after the one before.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// After each step it rests so many times as long as the step took, so that most of the store's time is for others.
const REST_SHARE: u32 = 3;
/// But at least and at most so long.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_secs(1);
/// A clock that goes ahead by more than this may be wrong.
const JUMP_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Then nothing is removed for so long: time enough to set it right.
const DISTRUST: Duration = Duration::from_secs(6 * 60 * 60);

/// Works until `stop`. `last_known` is a time that has certainly passed, if any is known.
pub(super) async fn run(
    app: &App,
    stop: &CancellationToken,
    last_known: Option<Timestamp>,
    audit_kept: Option<Duration>,
) {
    let mut watch = ClockWatch::new(last_known.unwrap_or_else(|| app.clock.now()), Instant::now());
    let mut trusted = true;
    loop {
        let trusted_before = std::mem::replace(&mut trusted, watch.trusts(app.clock.now(), Instant::now()));
        if trusted {
            if let Err(error) = round(app, stop).await {
                tracing::warn!(%error, "Old notifications could not be removed; it is tried again");
            }
            if let Err(error) = audit_round(app, stop, audit_kept).await {
                tracing::warn!(%error, "Old entries of the audit log could not be removed; it is tried again");
            }
        } else if trusted_before {
            tracing::info!(
                "The clock is more than a day ahead of when this server last had something to do. In case it is wrong, \
                 no old notification is removed for {} hours",
                DISTRUST.as_secs() / 3_600
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ROUND_EVERY) => {}
        }
    }
}

/// Finds out when the clock goes ahead further than time does.
struct ClockWatch {
    last: Timestamp,
    at: Instant,
    distrusted_since: Option<Instant>,
}

impl ClockWatch {
    fn new(last: Timestamp, at: Instant) -> Self {
        Self { last, at, distrusted_since: None }
    }

    /// Whether `now`, read `at` this instant, is to be believed.
    fn trusts(&mut self, now: Timestamp, at: Instant) -> bool {
        let expected = self.last.plus(at.saturating_duration_since(self.at));
        if now.since(expected) > JUMP_MAX {
            self.distrusted_since = Some(at);
        }
        (self.last, self.at) = (now, at);
        self.distrusted_since = self.distrusted_since.filter(|since| at.saturating_duration_since(*since) < DISTRUST);
        self.distrusted_since.is_none()
    }
}

async fn round(app: &App, stop: &CancellationToken) -> Result<(), StoreError> {
    let began = Instant::now();
    let retention = Arc::clone(app.registry().retention());
    let (mut removed, mut redacted, mut freed) = (0, 0, 0);
    let ended = async {
        loop {
            let step_began = Instant::now();
            let step = app.store.prune(&retention, app.clock.now()).await?;
            (removed, redacted) = (removed + step.removed, redacted + step.redacted);
            app.metrics.tidied(step.removed, step.redacted);
            if step.is_done || rest(step_began, stop).await {
                break;
            }
        }
        while !stop.is_cancelled() {
            let step_began = Instant::now();
            let step = app.store.compact().await?;
            freed += step.bytes;
            if step.is_done || rest(step_began, stop).await {
                break;
            }
        }
        Ok(())
    };
    let ended = ended.await;
    if removed + redacted > 0 || freed > 0 {
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(removed, redacted, freed_bytes = freed, duration_ms, "Old notifications were removed");
    }
    ended
}

/// The same for the audit log.
async fn audit_round(app: &App, stop: &CancellationToken, kept: Option<Duration>) -> Result<(), StoreError> {
    let retention = Arc::clone(app.registry().retention());
    let (mut removed, mut redacted) = (0, 0);
    loop {
        let step_began = Instant::now();
        let now = app.clock.now();
        let step = app.store.tidy_audit(kept.map(|kept| now.minus(kept)), &retention, now).await?;
        (removed, redacted) = (removed + step.removed, redacted + step.redacted);
        if step.is_done || rest(step_began, stop).await {
            break;
        }
    }
    if removed + redacted > 0 {
        tracing::info!(removed, redacted, "Old entries of the audit log, or their content, were removed");
    }
    Ok(())
}

/// Leaves the store to others for a while. Returns whether it is time to stop.
async fn rest(step_began: Instant, stop: &CancellationToken) -> bool {
    let rest = (step_began.elapsed() * REST_SHARE).clamp(REST_MIN, REST_MAX);
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(rest) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_clock_that_goes_ahead_is_not_believed_for_some_hours() {
        let (time, begin) = (Timestamp::from_millis(1_763_000_000_000), Instant::now());
        let mut watch = ClockWatch::new(time, begin);
        let after = |hours: u32| begin + HOUR * hours;
        assert!(watch.trusts(time.plus(HOUR), begin), "an hour more or less is usual");
        assert!(watch.trusts(time.plus(HOUR * 50), after(49)), "it goes as time does");
        let year = HOUR * 24 * 365;
        assert!(!watch.trusts(time.plus(year), after(50)));
        assert!(!watch.trusts(time.plus(HOUR * 52), after(52)), "nor at once after it was put back");
        assert!(watch.trusts(time.plus(HOUR * 56), after(56)));
        assert!(!watch.trusts(time.plus(year), after(57)));
        assert!(!watch.trusts(time.plus(year + HOUR * 5), after(62)));
        assert!(watch.trusts(time.plus(year + HOUR * 6), after(63)), "it seems to be right");
    }

    #[test]
    fn a_clock_that_was_not_set_at_the_start_is_not_believed_when_it_is_set() {
        let (time, begin) = (Timestamp::from_millis(1_763_000_000_000), Instant::now());
        let mut watch = ClockWatch::new(time, begin);
        assert!(watch.trusts(Timestamp::from_millis(60_000), begin), "nothing is as old as that");
        assert!(!watch.trusts(time.plus(HOUR), begin + HOUR));
        let mut late = ClockWatch::new(time, begin);
        assert!(!late.trusts(time.plus(HOUR * 24 * 60), begin), "two months after the last it knows of");
    }
}
