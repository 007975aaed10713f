//! How often one tenant may ask.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conductor_core::Rate;

/// Counts a tenant's requests against its rate.
pub struct RequestLimit {
    /// What is allowed.
    pub rate: Rate,
    began: Instant,
    /// When nothing of it will be used up any more, in nanoseconds since `began`.
    free_at: AtomicU64,
}

/// What is left of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// So many may go now.
    pub count: u64,
    /// The time after which the whole burst may go again.
    pub reset: Duration,
}

impl RequestLimit {
    /// A limit of which nothing is used up yet.
    pub fn new(rate: Rate) -> Self {
        Self { rate, began: Instant::now(), free_at: AtomicU64::new(0) }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// The time after which the next one is allowed.
    pub fn check(&self) -> Result<Left, Duration> {
        self.check_at(self.began.elapsed())
    }

    /// Counts what one request that was let in brings along: so many more. There may be too many for now; then those that
    /// come later wait for them.
    pub fn charge(&self, more: usize) {
        let all = self.interval().saturating_mul(u64::try_from(more).unwrap_or(u64::MAX));
        self.free_at.update(Ordering::Relaxed, Ordering::Relaxed, |free_at| free_at.saturating_add(all));
    }

    fn check_at(&self, elapsed: Duration) -> Result<Left, Duration> {
        let (now, interval, burst) = (nanos(elapsed), self.interval(), u64::from(self.rate.burst.get()));
        let stepped = self.step(|free_at| step(free_at, now, interval, burst).ok());
        let used = stepped.map_err(|free_at| wait(free_at, now, interval, burst))?.saturating_sub(now);
        let count = interval.saturating_mul(burst).saturating_sub(used) / interval;
        Ok(Left { count, reset: Duration::from_nanos(used) })
    }

    fn interval(&self) -> u64 {
        nanos(self.rate.interval()).max(1)
    }

    /// The new time; the old one where it stays.
    fn step(&self, change: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        let before = self.free_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, &change)?;
        Ok(change(before).unwrap_or(before))
    }
}

fn wait(free_at: u64, now: u64, interval: u64, burst: u64) -> Duration {
    Duration::from_nanos(step(free_at, now, interval, burst).err().unwrap_or_default())
}

/// Takes one of a rate of one in `interval` and `burst` at once. `free_at` is when nothing of it will be used up any
/// more; what it becomes is returned. All in the same unit of time; `interval` and `burst` are more than zero.
///
/// # Errors
/// The time after which one can be taken.
pub fn step(free_at: u64, now: u64, interval: u64, burst: u64) -> Result<u64, u64> {
    let used = free_at.saturating_sub(now);
    let room = interval.saturating_mul(burst - 1);
    match used.checked_sub(room).filter(|over| *over > 0) {
        Some(over) => Err(over),
        None => Ok(free_at.max(now).saturating_add(interval)),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn limit(per: Duration, limit: u32, burst: u32) -> RequestLimit {
        let [limit, burst] = [limit, burst].map(|number| NonZeroU32::new(number).unwrap());
        RequestLimit::new(Rate { limit, per, burst })
    }

    #[test]
    fn a_burst_passes_and_the_next_request_is_told_how_long_to_wait() {
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let limit = limit(minute, 6, 3);
        let at = |seconds: u64| limit.check_at(Duration::from_secs(seconds));
        let left = |count, seconds: u32| Ok(Left { count, reset: second * seconds });
        assert_eq!([at(0), at(0), at(0)], [left(2, 10), left(1, 20), left(0, 30)]);
        assert_eq!([at(0), at(4)], [Err(10 * second), Err(6 * second)]);
        assert_eq!(at(10), left(0, 30), "refusals use up nothing");
        assert_eq!(at(1_000), left(2, 10), "and no more than the burst is saved up");
    }

    #[test]
    fn what_a_request_brings_along_is_waited_for_by_the_next_one() {
        let limit = limit(Duration::from_secs(10), 10, 2);
        limit.check_at(Duration::ZERO).unwrap();
        limit.charge(99);
        assert_eq!(limit.check_at(Duration::ZERO), Err(Duration::from_secs(99)));
        assert_eq!(limit.check_at(Duration::from_secs(99)).unwrap().count, 0);
    }

    #[test]
    fn the_largest_and_the_smallest_rates_have_no_end_of_numbers() {
        for burst in [1, 1_000_000] {
            let slow = limit(Duration::from_secs(30 * 86_400), 1, burst);
            slow.check_at(Duration::ZERO).unwrap();
            (0..10_000).for_each(|_| slow.charge(1_000));
            assert_eq!(slow.check_at(Duration::ZERO).is_err(), burst == 1);
        }
        let fast = limit(Duration::from_nanos(1), 1_000_000, 1);
        fast.check_at(Duration::ZERO).unwrap();
        assert_eq!(fast.check_at(Duration::ZERO), Err(Duration::from_nanos(1)));
    }

    #[test]
    fn many_threads_together_get_the_burst_and_no_more() {
        let limit = limit(Duration::from_secs(3_600), 1, 100);
        let took: usize = std::thread::scope(|scope| {
            let tries = || (0..100).filter(|_| limit.check().is_ok()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(tries)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(took, 100);
    }
}
