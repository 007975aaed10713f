//! How fast Discord lets one bot, or one webhook, send to each place: learned from its answers, so that a limit is seldom
//! hit. What it says in a 429, and what all of a bot's requests share, is kept by [`crate::quota`].
//!
//! Create Message has one bucket for each Discord channel, so a bucket is known by the place that it is for, and the
//! opaque name that Discord gives it is not needed.
//!
//! <https://discord.com/developers/docs/topics/rate-limits>

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use conductor_core::{Scope, SendError};
use http::HeaderMap;
use tokio::time::Instant;

use crate::http::wait;
use crate::quota::{bounded, too_fast};

/// The most places whose limits are remembered.
const PLACES_MAX: usize = 10_000;
/// Two answers that name the end of one window differ by less than this.
const SLACK: Duration = Duration::from_millis(500);

/// What is known of the limits of one bot or one webhook, place by place.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<HashMap<u64, Window>>);

#[derive(Debug)]
struct Window {
    limit: u32,
    left: u32,
    ends: Instant,
}

impl Budget {
    /// Takes room for one request to `place`; else the error that says how long there is none. Nothing was sent then.
    pub(super) fn take(&self, place: u64, now: Instant) -> Result<(), SendError> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match windows.get_mut(&place) {
            Some(window) if window.ends <= now => drop(windows.remove(&place)),
            Some(window) if window.left == 0 => {
                return Err(too_fast("this place", window.ends.duration_since(now), Scope::Lane));
            }
            Some(window) => window.left -= 1,
            None => {}
        }
        Ok(())
    }

    /// Learns from an answer's headers. A request under way counts as sent, whether or not Discord had counted it when
    /// it answered another.
    pub(super) fn learn(&self, place: u64, headers: &HeaderMap, now: Instant) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        let count = |name: &str| number(name).filter(|count| (0.0..=1e6).contains(count)).map(|count| count as u32);
        let (limit, left) = (count("x-ratelimit-limit"), count("x-ratelimit-remaining"));
        let (Some(limit), Some(left)) = (limit, left) else { return };
        let Some(ends) = number("x-ratelimit-reset-after").and_then(wait).map(|after| now + after) else { return };
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match windows.get_mut(&place) {
            Some(known) if known.limit == limit && ends < known.ends + SLACK => known.left = known.left.min(left),
            _ => {
                bounded(&mut windows, PLACES_MAX, &place, |known| known.ends <= now);
                windows.insert(place, Window { limit, left, ends });
            }
        }
    }

    /// Whether it says nothing any more.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().all(|window| window.ends <= now)
    }
}

#[cfg(test)]
mod tests {
    use conductor_core::SendErrorKind;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn headers(limit: &str, left: &str, after: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("limit", limit), ("remaining", left), ("reset-after", after), ("bucket", "abcd1234")] {
            let name = http::HeaderName::try_from(format!("x-ratelimit-{name}")).unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    fn wait_of(result: Result<(), SendError>) -> (Duration, Scope) {
        match result.expect_err("no room").kind {
            SendErrorKind::RateLimited { retry_after: Some(wait), scope } => (wait, scope),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_window_that_is_used_up_holds_its_place_alone_until_it_ends() {
        let (budget, start) = (Budget::default(), Instant::now());
        budget.take(1, start).unwrap();
        budget.learn(1, &headers("5", "2", "1.5"), start);
        budget.take(1, start).unwrap();
        budget.take(1, start).unwrap();
        assert_eq!(wait_of(budget.take(1, start + 500 * MS)), (1001 * MS, Scope::Lane));
        budget.take(2, start + 500 * MS).unwrap();
        budget.take(1, start + 1500 * MS).unwrap();
    }

    #[test]
    fn an_answer_that_was_overtaken_gives_no_room_back() {
        let (budget, start) = (Budget::default(), Instant::now());
        budget.learn(1, &headers("5", "1", "2"), start);
        budget.learn(1, &headers("5", "3", "2"), start + 10 * MS);
        budget.take(1, start + 20 * MS).unwrap();
        assert_eq!(wait_of(budget.take(1, start + 20 * MS)).1, Scope::Lane);
        budget.learn(1, &headers("5", "4", "2"), start + 2000 * MS);
        budget.take(1, start + 2010 * MS).unwrap();
    }

    #[test]
    fn headers_that_make_no_sense_are_not_learned_from() {
        let (budget, start) = (Budget::default(), Instant::now());
        for bad in [("x", "0", "9"), ("5", "-1", "9"), ("5", "0", "NaN"), ("5", "0", "-1")] {
            budget.learn(1, &headers(bad.0, bad.1, bad.2), start);
            budget.take(1, start).unwrap();
        }
    }

    #[test]
    fn the_places_that_are_remembered_are_bounded() {
        let (budget, start) = (Budget::default(), Instant::now());
        for place in 0..2 * PLACES_MAX as u64 {
            budget.learn(place, &headers("5", "0", "9"), start);
        }
        assert!(budget.0.lock().unwrap().len() <= PLACES_MAX);
    }
}
