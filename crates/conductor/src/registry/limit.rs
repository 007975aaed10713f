//! How often one tenant may ask.

use std::time::Duration;

use conductor_core::Rate;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Counts a tenant's requests against its rate.
pub struct RequestLimit {
    /// What is allowed.
    pub rate: Rate,
    limiter: DefaultDirectRateLimiter,
}

impl RequestLimit {
    /// A limit of which nothing is used up yet.
    pub fn new(rate: Rate) -> Self {
        let interval = rate.interval().max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval).expect("the interval is more than zero").allow_burst(rate.burst);
        Self { rate, limiter: RateLimiter::direct(quota) }
    }

    /// Counts one request. The error is the time after which the next one is allowed.
    pub fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|refused| refused.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn a_burst_passes_and_the_next_request_is_told_how_long_to_wait() {
        let (limit, burst) = (NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let limit = RequestLimit::new(Rate { limit, per: Duration::from_secs(3600), burst });
        assert!((0..3).all(|_| limit.check().is_ok()));
        let wait = limit.check().unwrap_err();
        assert!(wait > Duration::from_secs(3500) && wait <= Duration::from_secs(3600), "{wait:?}");
    }
}
