//! How long things take, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations in buckets. Any number of threads may count at once, and none waits for another.
#[derive(Debug)]
pub struct Histogram {
    /// In seconds, ascending.
    bounds: &'static [f64],
    /// One more than there are bounds: the last is for all that is longer.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

/// What a [`Histogram`] has counted up to some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The buckets' upper ends, in seconds, ascending.
    pub bounds: &'static [f64],
    /// How many fell into each bucket, and last how many were longer than all of them.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// Nothing counted yet. `bounds` are the buckets' upper ends, in seconds, ascending.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, nanos: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted. What is being counted at this moment may be in it in part.
    pub fn distribution(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        Distribution { bounds: self.bounds, counts, sum }
    }
}

impl Distribution {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_is_not_shorter() {
        let histogram = Histogram::new(&[0.001, 0.1, 1.0]);
        for millis in [0, 1, 2, 100, 101, 1_000, 60_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let distribution = histogram.distribution();
        assert_eq!(distribution.counts, [2, 2, 2, 1]);
        assert_eq!((distribution.count(), distribution.sum), (7, Duration::from_millis(61_204)));
    }
}
