//! How often something may happen.

use std::num::NonZeroU32;
use std::time::Duration;

/// So many in such a time, with a reserve for bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many in `per`.
    pub limit: NonZeroU32,
    /// The time that `limit` counts for; more than zero.
    pub per: Duration,
    /// How many may go at once after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// The time between two at a steady pace.
    pub fn interval(&self) -> Duration {
        self.per / self.limit.get()
    }
}
