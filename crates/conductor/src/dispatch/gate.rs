//! Whether a channel may send now: concurrency, pace, pauses that the provider asked for, the circuit breaker, and
//! the stop after refused credentials. Pure: the time is an argument.

use std::time::Duration;

use conductor_core::{Health, Rate, Scope, SendErrorKind, Timestamp};

use crate::registry::flow::{Breaker, State};

/// So many failures in a row open the breaker.
const FAILURES_TO_OPEN: u32 = 10;
/// And so many make the channel `down`.
const FAILURES_TO_DOWN: u32 = 3;
/// How long it stays open at first; twice as long after each failed probe.
const OPEN_FIRST: Duration = Duration::from_secs(1);
/// And at the most.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// A stopped channel is asked whether it works after so long at first, and after twice as long each further time:
/// providers ban an address that keeps coming with a wrong token.
const ASK_FIRST: Duration = Duration::from_secs(60);
/// And so long at the most.
const ASK_MAX: Duration = Duration::from_secs(60 * 60);

/// The clock was put back if it goes back by so much; less is two readings that have overtaken one another.
pub(crate) const CLOCK_STEP: Duration = Duration::from_secs(1);

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Go.
    Now,
    /// Not before this time.
    At(Timestamp),
    /// Not before an attempt under way has come back, or the configuration has changed.
    Closed,
}

/// One channel's gate.
#[derive(Debug)]
pub(crate) struct Gate {
    max: u32,
    rate: Option<Rate>,
    under_way: u32,
    /// Microseconds since 1970 at which the next send would be exactly on pace.
    on_pace_at: i64,
    paused_until: Option<Timestamp>,
    stopped: bool,
    /// How long it is left alone when it is stopped.
    ask_after: Duration,
    /// How many were told in a row that they are too fast.
    limited: u32,
    failures: u32,
    breaker: Breaker,
    opened_until: Timestamp,
    open_for: Duration,
    probing: bool,
    probe_began: Timestamp,
    health: Health,
    since: Timestamp,
    /// The latest time that it was told.
    seen: Timestamp,
}

impl Gate {
    /// An open gate for so many attempts at once at such a pace.
    pub(crate) fn new(max: u32, rate: Option<Rate>) -> Self {
        Self {
            max,
            rate,
            under_way: 0,
            on_pace_at: 0,
            paused_until: None,
            stopped: false,
            ask_after: ASK_FIRST,
            limited: 0,
            failures: 0,
            breaker: Breaker::Closed,
            opened_until: Timestamp::ZERO,
            open_for: OPEN_FIRST,
            probing: false,
            probe_began: Timestamp::ZERO,
            health: Health::Unknown,
            since: Timestamp::ZERO,
            seen: Timestamp::ZERO,
        }
    }

    /// Whether an attempt may begin now.
    pub(crate) fn admits(&mut self, now: Timestamp) -> Admission {
        self.follow(now);
        if self.stopped || self.under_way >= self.max {
            return Admission::Closed;
        }
        if let Some(until) = self.paused_until {
            if until > now {
                return Admission::At(until);
            }
            self.paused_until = None;
        }
        match self.breaker {
            Breaker::Closed => {}
            Breaker::Open if self.opened_until > now => return Admission::At(self.opened_until),
            Breaker::Open => self.breaker = Breaker::HalfOpen,
            Breaker::HalfOpen => {}
        }
        if self.breaker == Breaker::HalfOpen && self.probing {
            return Admission::Closed;
        }
        match self.next_on_pace(now) {
            Some(at) if at > now => Admission::At(at),
            _ => Admission::Now,
        }
    }

    /// An attempt begins.
    pub(crate) fn enter(&mut self, now: Timestamp) {
        self.under_way += 1;
        if self.breaker == Breaker::HalfOpen {
            (self.probing, self.probe_began) = (true, now);
        }
        if let Some(rate) = self.rate {
            self.on_pace_at = self.on_pace_at.max(micros(now)) + interval(rate);
        }
    }

    /// When an attempt under way may send another part of its text, which counts as one more send. None: so much later
    /// than in `patience` that it is better given back; then nothing counts.
    pub(crate) fn admit_part(&mut self, now: Timestamp, patience: Duration) -> Option<Timestamp> {
        self.follow(now);
        let at = self.next_on_pace(now).max(self.paused_until).unwrap_or(now).max(now);
        if self.stopped || at > now.plus(patience) {
            return None;
        }
        if let Some(rate) = self.rate {
            self.on_pace_at = self.on_pace_at.max(micros(now)) + interval(rate);
        }
        Some(at)
    }

    /// A lease was not to be had after all: as if it had not begun.
    pub(crate) fn withdraw(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        self.probing = false;
        if let Some(rate) = self.rate {
            self.on_pace_at -= interval(rate);
        }
    }

    /// An attempt came back. `reason` is what the provider said.
    pub(crate) fn leave(
        &mut self,
        result: Result<(), SendErrorKind>,
        reason: &str,
        retry_at: Timestamp,
        began: Timestamp,
        now: Timestamp,
    ) {
        self.follow(now);
        self.under_way = self.under_way.saturating_sub(1);
        // What began before the breaker opened says nothing of the probe.
        let probed = self.probing && began >= self.probe_began;
        self.probing &= !probed;
        if self.stopped {
            // It began before the credentials were refused.
            return;
        }
        match result {
            // The provider answered: it works, whatever it thinks of this message.
            Ok(()) | Err(SendErrorKind::Rejected | SendErrorKind::Permanent) => {
                self.failures = 0;
                self.breaker = Breaker::Closed;
                self.open_for = OPEN_FIRST;
                self.ask_after = ASK_FIRST;
                self.limited = 0;
                self.set_health(Health::Up, now);
            }
            Err(SendErrorKind::RateLimited { scope, .. }) => {
                self.limited = self.limited.saturating_add(1);
                if scope == Scope::Channel {
                    self.pause_until(retry_at);
                }
            }
            Err(SendErrorKind::Unauthorized) => {
                self.stopped = true;
                self.set_health(Health::Down { reason: reason.to_owned() }, now);
            }
            Err(SendErrorKind::Retryable { .. } | SendErrorKind::Unknown) => {
                self.failures = self.failures.saturating_add(1);
                if self.breaker == Breaker::HalfOpen && probed {
                    self.open_for = (self.open_for * 2).min(OPEN_MAX);
                    self.open(now);
                } else if self.breaker == Breaker::Closed && self.failures >= FAILURES_TO_OPEN {
                    self.open(now);
                }
                if self.failures >= FAILURES_TO_DOWN || self.breaker != Breaker::Closed {
                    self.set_health(Health::Down { reason: reason.to_owned() }, now);
                }
            }
        }
    }

    /// An attempt came back that was made through another account than the channel has now: it says nothing of this one.
    pub(crate) fn leave_behind(&mut self, began: Timestamp) {
        self.under_way = self.under_way.saturating_sub(1);
        self.probing &= began < self.probe_began;
    }

    /// Another configuration allows so many attempts at once at such a pace.
    pub(crate) fn allow(&mut self, max: u32, rate: Option<Rate>, now: Timestamp) {
        self.follow(now);
        (self.max, self.rate) = (max, rate);
        if let Some(rate) = rate {
            // What was sent at a slower pace keeps nobody waiting longer than a burst at this one would.
            let latest = micros(now).saturating_add(interval(rate).saturating_mul(i64::from(rate.burst.get())));
            self.on_pace_at = self.on_pace_at.min(latest);
        }
    }

    /// Another account stands behind it now, or none: nothing is known of it. Only pauses that were asked for stay, as
    /// some providers count by address. Returns whether it was stopped.
    pub(crate) fn begin_anew(&mut self, now: Timestamp) -> bool {
        self.follow(now);
        let was_stopped = std::mem::replace(&mut self.stopped, false);
        (self.ask_after, self.open_for) = (ASK_FIRST, OPEN_FIRST);
        (self.failures, self.limited, self.breaker, self.probing) = (0, 0, Breaker::Closed, false);
        self.set_health(Health::Unknown, now);
        was_stopped
    }

    /// Nothing begins before this time.
    pub(crate) fn pause_until(&mut self, until: Timestamp) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// How long from now a stopped channel is left alone before it is asked whether it works, which is longer each time.
    pub(crate) fn next_ask(&mut self) -> Duration {
        let after = self.ask_after;
        self.ask_after = (after * 2).min(ASK_MAX);
        after
    }

    /// A stopped channel was asked, and said that it works: one attempt goes through at first.
    pub(crate) fn go_on(&mut self, now: Timestamp) {
        self.follow(now);
        self.stopped = false;
        self.failures = 0;
        (self.breaker, self.probing, self.open_for) = (Breaker::HalfOpen, false, OPEN_FIRST);
        self.set_health(Health::Up, now);
    }

    /// Whether others have been sent since one was told that it is too fast.
    pub(crate) fn others_pass(&self) -> bool {
        self.limited == 0
    }

    /// How many attempts are under way.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// What is worth showing.
    pub(crate) fn state(&self) -> State {
        State {
            health: self.health.clone(),
            since: self.since,
            breaker: self.breaker,
            paused_until: match self.breaker {
                Breaker::Open => Some(self.opened_until).max(self.paused_until),
                _ => self.paused_until,
            },
        }
    }

    /// Whether refused credentials have stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Where the clock was put back, what was to be waited for is put back with it: a pause is a length of time.
    pub(crate) fn follow(&mut self, now: Timestamp) {
        let back = self.seen.since(now);
        if back >= CLOCK_STEP {
            self.paused_until = self.paused_until.map(|until| until.minus(back));
            self.opened_until = self.opened_until.minus(back);
            self.on_pace_at = self.on_pace_at.saturating_sub(i64::try_from(back.as_micros()).unwrap_or(i64::MAX));
            self.seen = now;
        } else {
            self.seen = self.seen.max(now);
        }
    }

    fn open(&mut self, now: Timestamp) {
        self.breaker = Breaker::Open;
        self.opened_until = now.plus(self.open_for);
    }

    fn set_health(&mut self, health: Health, now: Timestamp) {
        if self.health != health {
            self.health = health;
            self.since = now;
        }
    }

    /// When the next send is on pace: a send may be as far ahead of the steady pace as the burst allows.
    fn next_on_pace(&self, now: Timestamp) -> Option<Timestamp> {
        let rate = self.rate?;
        let ahead = interval(rate) * i64::from(rate.burst.get() - 1);
        let at = self.on_pace_at - ahead;
        // Rounded up: a moment early is too early.
        (at > micros(now)).then(|| Timestamp::from_millis((at + 999).div_euclid(1_000)))
    }
}

fn micros(time: Timestamp) -> i64 {
    time.millis().saturating_mul(1_000)
}

fn interval(rate: Rate) -> i64 {
    i64::try_from(rate.interval().as_micros()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const NOW: Timestamp = Timestamp::ZERO;
    const RETRYABLE: Result<(), SendErrorKind> = Err(SendErrorKind::Retryable { retry_after: None });

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn no_more_attempts_are_under_way_than_allowed() {
        let mut gate = Gate::new(2, None);
        gate.enter(NOW);
        assert_eq!(gate.admits(NOW), Admission::Now);
        gate.enter(NOW);
        assert_eq!(gate.admits(NOW), Admission::Closed);
        gate.leave(Ok(()), "", NOW, NOW, NOW);
        assert_eq!(gate.admits(NOW), Admission::Now);
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_then_keeps_the_pace() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = Rate { limit: number(5), per: Duration::from_secs(1), burst: number(3) };
        let mut gate = Gate::new(100, Some(rate));
        let start = at(1_000_000);
        let mut sent = Vec::new();
        for millis in 0..2_000 {
            let now = at(start.millis() + millis);
            while gate.admits(now) == Admission::Now {
                gate.enter(now);
                sent.push(millis);
            }
        }
        assert_eq!(sent[..3], [0, 0, 0]);
        assert_eq!(sent.len(), 3 + 9, "{sent:?}");
        assert!(sent[3..].windows(2).all(|pair| pair[1] - pair[0] >= 200), "{sent:?}");
    }

    #[test]
    fn every_part_of_a_text_counts_for_the_pace() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = Rate { limit: number(1), per: Duration::from_secs(1), burst: number(1) };
        let mut gate = Gate::new(9, Some(rate));
        gate.enter(at(1_000));
        let second = Duration::from_secs(1);
        assert_eq!(gate.admit_part(at(1_500), second), Some(at(2_000)));
        assert_eq!(gate.admit_part(at(2_000), second), Some(at(3_000)));
        assert_eq!(gate.admit_part(at(2_000), second), None, "it would have to wait longer");
        gate.leave(Ok(()), "", NOW, at(1_000), at(2_000));
        assert_eq!(gate.admits(at(2_000)), Admission::At(at(4_000)));
    }

    #[test]
    fn a_part_waits_for_the_end_of_a_pause_and_not_for_mended_credentials() {
        let second = Duration::from_secs(1);
        let mut gate = Gate::new(9, None);
        gate.enter(NOW);
        assert_eq!(gate.admit_part(at(5), second), Some(at(5)));
        gate.pause_until(at(700));
        assert_eq!(gate.admit_part(at(5), second), Some(at(700)));
        assert_eq!(gate.admit_part(at(701), second), Some(at(701)));
        gate.enter(at(701));
        gate.leave(Err(SendErrorKind::Unauthorized), "no", NOW, at(701), at(702));
        assert_eq!(gate.admit_part(at(703), second), None);
    }

    #[test]
    fn a_rate_limited_channel_waits_as_long_as_it_was_told() {
        let mut gate = Gate::new(9, None);
        gate.enter(NOW);
        let limited = SendErrorKind::RateLimited { retry_after: Some(Duration::from_secs(7)), scope: Scope::Channel };
        gate.leave(Err(limited), "slow down", at(7_000), NOW, NOW);
        assert_eq!(gate.admits(at(6_999)), Admission::At(at(7_000)));
        assert_eq!(gate.state().paused_until, Some(at(7_000)));
        assert_eq!(gate.admits(at(7_000)), Admission::Now);
    }

    #[test]
    fn a_rate_limited_lane_leaves_the_channel_open() {
        let mut gate = Gate::new(9, None);
        gate.enter(NOW);
        let limited = SendErrorKind::RateLimited { retry_after: None, scope: Scope::Lane };
        gate.leave(Err(limited), "slow down", at(7_000), NOW, NOW);
        assert_eq!(gate.admits(NOW), Admission::Now);
    }

    #[test]
    fn refused_credentials_stop_the_channel() {
        let mut gate = Gate::new(9, None);
        gate.enter(NOW);
        gate.leave(Err(SendErrorKind::Unauthorized), "bad token", NOW, at(5), at(5));
        assert_eq!(gate.admits(at(1_000_000)), Admission::Closed);
        assert!(gate.is_stopped());
        assert_eq!(gate.state().health, Health::Down { reason: "bad token".into() });
    }

    #[test]
    fn a_stopped_channel_stays_stopped_whatever_began_before() {
        let mut gate = Gate::new(9, None);
        gate.enter(NOW);
        gate.enter(NOW);
        gate.leave(Err(SendErrorKind::Unauthorized), "bad token", NOW, NOW, at(5));
        gate.leave(Ok(()), "", NOW, NOW, at(6));
        assert_eq!(gate.admits(at(7)), Admission::Closed);
        assert_eq!((gate.state().health, gate.under_way()), (Health::Down { reason: "bad token".into() }, 0));
    }

    #[test]
    fn a_stopped_channel_is_asked_after_a_minute_and_ever_more_rarely() {
        let mut gate = Gate::new(9, None);
        gate.enter(NOW);
        gate.leave(Err(SendErrorKind::Unauthorized), "bad token", NOW, NOW, NOW);
        let minutes: Vec<u64> = (0..8).map(|_| gate.next_ask().as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60]);
        gate.go_on(at(10));
        assert_eq!((gate.state().health, gate.state().breaker), (Health::Up, Breaker::HalfOpen));
        assert_eq!(gate.admits(at(10)), Admission::Now);
        gate.enter(at(10));
        assert_eq!(gate.admits(at(10)), Admission::Closed, "one goes first");
        gate.leave(Err(SendErrorKind::Unauthorized), "bad token", NOW, at(10), at(11));
        assert_eq!(gate.next_ask(), ASK_MAX, "it was not mended");
        gate.go_on(at(20));
        gate.enter(at(20));
        gate.leave(Ok(()), "", NOW, at(20), at(21));
        assert_eq!((gate.admits(at(21)), gate.next_ask()), (Admission::Now, ASK_FIRST));
    }

    #[test]
    fn a_faster_pace_counts_at_once_and_a_slower_one_from_then_on() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = |seconds| Rate { limit: number(1), per: Duration::from_secs(seconds), burst: number(1) };
        let mut gate = Gate::new(9, Some(rate(3_600)));
        gate.enter(at(1_000));
        assert_eq!(gate.admits(at(2_000)), Admission::At(at(3_601_000)));
        gate.allow(9, Some(rate(5)), at(2_000));
        assert_eq!(gate.admits(at(2_000)), Admission::At(at(7_000)));
        gate.allow(9, None, at(2_000));
        assert_eq!(gate.admits(at(2_000)), Admission::Now);
        gate.allow(1, Some(rate(5)), at(2_000));
        assert_eq!(gate.admits(at(9_000)), Admission::Closed, "one is under way");
    }

    #[test]
    fn another_account_lets_a_stopped_channel_go_on_and_the_old_one_has_no_more_say() {
        let mut gate = Gate::new(9, None);
        for _ in 0..2 {
            gate.enter(NOW);
        }
        gate.leave(Err(SendErrorKind::Unauthorized), "bad token", NOW, NOW, at(5));
        assert!(gate.begin_anew(at(6)));
        assert_eq!((gate.admits(at(6)), gate.state().health), (Admission::Now, Health::Unknown));
        gate.leave_behind(NOW);
        assert_eq!((gate.admits(at(7)), gate.under_way(), gate.next_ask()), (Admission::Now, 0, ASK_FIRST));
        assert!(!gate.begin_anew(at(8)));
    }

    #[test]
    fn the_breaker_opens_probes_and_closes() {
        let mut gate = Gate::new(99, None);
        for _ in 0..FAILURES_TO_OPEN {
            assert_eq!(gate.admits(NOW), Admission::Now);
            gate.enter(NOW);
            gate.leave(RETRYABLE, "no answer", NOW, NOW, NOW);
        }
        assert_eq!(gate.admits(at(999)), Admission::At(at(1_000)));
        assert_eq!(gate.state().breaker, Breaker::Open);
        assert_eq!(gate.admits(at(1_000)), Admission::Now);
        gate.enter(at(1_000));
        assert_eq!(gate.state().breaker, Breaker::HalfOpen);
        assert_eq!(gate.admits(at(1_000)), Admission::Closed, "one probe at a time");
        gate.leave(RETRYABLE, "no answer", NOW, at(1_500), at(1_500));
        assert_eq!(gate.admits(at(1_500)), Admission::At(at(3_500)), "twice as long after a failed probe");
        assert_eq!(gate.admits(at(3_500)), Admission::Now);
        gate.enter(at(3_500));
        gate.leave(Ok(()), "", NOW, at(3_600), at(3_600));
        assert_eq!(gate.state().breaker, Breaker::Closed);
        assert_eq!(gate.state().health, Health::Up);
        assert_eq!(gate.admits(at(3_600)), Admission::Now);
    }

    #[test]
    fn a_clock_that_is_put_back_makes_no_wait_longer() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = Rate { limit: number(1), per: Duration::from_secs(1), burst: number(1) };
        let (noon, eleven) = (at(43_200_000), at(39_600_000));
        let mut paced = Gate::new(9, Some(rate));
        paced.enter(noon);
        assert_eq!(paced.admits(noon), Admission::At(noon.plus(Duration::from_secs(1))));
        assert_eq!(paced.admits(eleven), Admission::At(eleven.plus(Duration::from_secs(1))));
        let mut paused = Gate::new(9, None);
        paused.enter(noon);
        let limited = SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel };
        paused.leave(Err(limited), "", noon.plus(Duration::from_secs(7)), noon, noon);
        assert_eq!(paused.admits(eleven), Admission::At(eleven.plus(Duration::from_secs(7))));
        let mut broken = Gate::new(99, None);
        for _ in 0..FAILURES_TO_OPEN {
            broken.enter(noon);
            broken.leave(RETRYABLE, "", noon, noon, noon);
        }
        assert_eq!(broken.admits(eleven), Admission::At(eleven.plus(OPEN_FIRST)));
        assert_eq!(broken.admits(at(eleven.millis() - 5)), Admission::At(eleven.plus(OPEN_FIRST)), "a mere jitter");
    }

    #[test]
    fn a_refused_message_is_no_failure_of_the_provider() {
        let mut gate = Gate::new(99, None);
        for _ in 0..2 * FAILURES_TO_OPEN {
            gate.enter(NOW);
            gate.leave(Err(SendErrorKind::Permanent), "unknown user", NOW, NOW, NOW);
        }
        assert_eq!(gate.state().breaker, Breaker::Closed);
    }
}
