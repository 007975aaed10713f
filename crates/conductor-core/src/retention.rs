//! How long what has ended is kept.

use std::collections::HashMap;
use std::time::Duration;

use crate::id::{NotificationId, TenantId};
use crate::time::Timestamp;

/// How long ended notifications are kept where nobody says.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The shortest time that ended notifications, or their content, may be kept.
pub const KEPT_MIN: Duration = Duration::from_secs(60 * 60);
/// The longest such time that can be said; beyond it lies for ever.
pub const KEPT_MAX: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// How long a tenant's notifications are kept after their last delivery has ended. None means for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The notification as a whole.
    pub whole: Option<Duration>,
    /// Its content: message, title, data, targets, and what providers said of it.
    pub content: Option<Duration>,
}

/// How long each tenant's notifications are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// Those of tenants that are not listed, also of those that are configured no more.
    pub others: Keep,
    /// The tenants with a rule of their own.
    pub tenants: HashMap<TenantId, Keep>,
}

impl Retention {
    /// How long this tenant's notifications are kept.
    pub fn of(&self, tenant: TenantId) -> Keep {
        self.tenants.get(&tenant).copied().unwrap_or(self.others)
    }
}

/// No notification was made before this time: a clock that says so has not been set yet.
const UNSET_CLOCK_MILLIS: i64 = 1_704_067_200_000;

/// Since when a notification's age counts whose last delivery ended at `ended_at`. The id of a notification never goes
/// back in time, so it tells the time where the clock had not been set.
pub fn age_counts_from(ended_at: Timestamp, id: NotificationId) -> Timestamp {
    if ended_at.millis() < UNSET_CLOCK_MILLIS { ended_at.max(id.made_at()) } else { ended_at }
}

/// What one step of [`Store::prune`](crate::Store::prune) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Notifications that are gone.
    pub removed: usize,
    /// Notifications whose content is gone.
    pub redacted: usize,
    /// Everything has been looked through: the next step begins a new round.
    pub is_done: bool,
}

/// What one step of [`Store::compact`](crate::Store::compact) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Bytes that were given back to the file system, as soon as the engine writes its log into its file.
    pub bytes: u64,
    /// There is no more to give back now.
    pub is_done: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_own_rule_or_that_of_all_others() {
        let keep = |days: u64| Keep { whole: Some(Duration::from_secs(days * 86_400)), content: None };
        let (mine, other) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let retention = Retention { others: keep(30), tenants: HashMap::from([(mine, keep(90))]) };
        assert_eq!((retention.of(mine), retention.of(other)), (keep(90), keep(30)));
    }

    #[test]
    fn what_ended_before_the_clock_was_set_is_as_old_as_its_id() {
        let at = Timestamp::from_millis;
        let id = |millis: u128| NotificationId::from_bytes((millis << 80 | 0x7 << 76).to_be_bytes());
        let this_year = at(1_763_000_000_000);
        assert_eq!(age_counts_from(at(5_000), id(1_763_000_000_000)), this_year);
        assert_eq!(age_counts_from(this_year, id(1_763_000_000_009)), this_year, "the clock was ahead before");
        assert_eq!(age_counts_from(at(5_000), id(4_000)), at(5_000));
    }
}
