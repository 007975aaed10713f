//! One endpoint's place among the others: how many attempts it may have under way, and when it is left alone. Pure: the
//! time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use conductor_core::Timestamp;
use conductor_core::retry::RETRY_AFTER_MAX;

/// The most attempts to one endpoint that are under way. It begins with one, and so does one that has failed: whoever
/// lets everybody wait for an answer takes one slot of all.
const WINDOW_MAX: usize = 8;
/// After so many failures in a row an endpoint is left alone between two attempts.
const FAILURES_TO_PAUSE: u32 = 5;
/// For so long at first, and twice as long each further time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// And so long at the most.
const PAUSE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Place {
    /// True for those that began while it was failing.
    under_way: HashMap<i64, bool>,
    window: usize,
    failures: u32,
    /// Its last attempt was taken, in this process or in one before. None: nobody has looked yet.
    trusted: Option<bool>,
    paused_until: Timestamp,
    /// When it is to be looked at, if that is known.
    pub(super) look: Option<Timestamp>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            under_way: HashMap::new(),
            window: 1,
            failures: 0,
            trusted: None,
            paused_until: Timestamp::ZERO,
            look: None,
        }
    }
}

impl Place {
    /// How many more attempts may begin.
    pub(super) fn free(&self) -> usize {
        self.window.saturating_sub(self.under_way.len())
    }

    /// Until when nothing begins, if that is later than now.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Timestamp> {
        (self.paused_until > now).then_some(self.paused_until)
    }

    /// Forgets for how long it is to be left alone.
    pub(super) fn renew(&mut self) {
        (self.failures, self.paused_until) = (0, Timestamp::ZERO);
    }

    /// Takes what the store has of its last attempt for granted, unless it knows better.
    pub(super) fn learn(&mut self, last_was_taken: Option<bool>) {
        self.trusted.get_or_insert(last_was_taken.unwrap_or(false));
    }

    /// Whether its last attempt has failed, or none was ever made: it may be one that lets everybody wait.
    pub(super) fn is_failing(&self) -> bool {
        self.trusted == Some(false)
    }

    /// How many attempts are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Whether the callback with this number is under way.
    pub(super) fn has(&self, number: i64) -> bool {
        self.under_way.contains_key(&number)
    }

    /// An attempt begins. Returns whether the endpoint was failing by then.
    pub(super) fn enter(&mut self, number: i64) -> bool {
        let failing = self.is_failing();
        self.under_way.insert(number, failing);
        failing
    }

    /// An attempt has ended. `asked` is how long the receiver wants to be left alone. Returns what [`Place::enter`] did.
    pub(super) fn leave(&mut self, number: i64, ok: bool, asked: Option<Duration>, now: Timestamp) -> bool {
        let failing = self.under_way.remove(&number).unwrap_or(false);
        let mut pause = asked.unwrap_or_default().min(RETRY_AFTER_MAX);
        self.trusted = Some(ok);
        if ok {
            self.failures = 0;
            self.window = (self.window * 2).min(WINDOW_MAX);
        } else {
            self.window = 1;
            self.failures = self.failures.saturating_add(1);
            if let Some(more) = self.failures.checked_sub(FAILURES_TO_PAUSE) {
                pause = pause.max(PAUSE_FIRST.saturating_mul(1 << more.min(16)).min(PAUSE_MAX));
            }
        }
        // One that succeeds ends what an earlier failure has asked for.
        self.paused_until = if ok { now.plus(pause) } else { self.paused_until.max(now.plus(pause)) };
        failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    fn after(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn an_endpoint_that_answers_gets_more_at_once_and_one_that_fails_gets_one() {
        let mut place = Place::default();
        let mut windows = Vec::new();
        for number in 0..5 {
            windows.push(place.free());
            place.enter(number);
            place.leave(number, true, None, NOW);
        }
        assert_eq!(windows, [1, 2, 4, 8, 8]);
        for number in 0..8 {
            place.enter(number);
        }
        assert_eq!((place.free(), place.under_way(), place.has(3), place.has(8)), (0, 8, true, false));
        place.leave(3, false, None, NOW);
        assert_eq!((place.free(), place.under_way(), place.is_failing()), (0, 7, true));
    }

    #[test]
    fn an_endpoint_is_trusted_as_long_as_its_last_attempt_was_taken() {
        for (last, failing) in [(None, true), (Some(false), true), (Some(true), false)] {
            let mut place = Place::default();
            place.learn(last);
            assert_eq!((place.is_failing(), place.enter(1)), (failing, failing), "{last:?}");
        }
        let mut place = Place::default();
        place.learn(None);
        place.enter(1);
        assert!(place.leave(1, true, None, NOW), "it was not trusted when that began");
        place.learn(Some(false));
        assert!(!place.enter(2), "it knows better than the store by now");
        assert!(!place.leave(2, false, None, NOW));
        assert!(place.is_failing());
    }

    #[test]
    fn an_endpoint_that_keeps_failing_is_left_alone_ever_longer() {
        let mut place = Place::default();
        let mut pauses = Vec::new();
        for number in 0..13 {
            place.enter(number);
            place.leave(number, false, None, NOW);
            pauses.push(place.pause(NOW).map_or(0, |until| until.since(NOW).as_secs()));
        }
        assert_eq!(pauses, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        place.enter(13);
        place.leave(13, true, None, NOW);
        assert_eq!((place.pause(NOW), place.is_failing()), (None, false));
    }

    #[test]
    fn one_that_asks_for_time_gets_it() {
        let mut place = Place::default();
        place.enter(1);
        place.leave(1, false, Some(Duration::from_secs(90)), NOW);
        assert_eq!((place.pause(NOW), place.pause(after(90))), (Some(after(90)), None));
        place.enter(2);
        place.leave(2, false, Some(Duration::MAX), NOW);
        assert_eq!(place.pause(NOW), Some(after(86_400)));
        place.renew();
        assert_eq!(place.pause(NOW), None, "what it has asked for is over when it is another");
    }
}
