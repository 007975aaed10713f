//! How much each tenant has waiting. What a transaction adds and takes counts once it is committed.

use std::collections::HashMap;

use conductor_core::TenantId;
use conductor_core::store::Load;

/// The sums, and what the transaction under way will change.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    /// Of each tenant that has any.
    loads: HashMap<TenantId, Load>,
    /// At most a few for each command of a batch.
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    tenant: TenantId,
    bytes: u64,
    comes: bool,
}

impl Weights {
    /// What a tenant has waiting.
    pub(crate) fn of(&self, tenant: TenantId) -> Load {
        self.loads.get(&tenant).copied().unwrap_or_default()
    }

    /// One more of so many bytes will wait.
    pub(crate) fn add(&mut self, tenant: TenantId, bytes: u64) {
        self.changes.push(Change { tenant, bytes, comes: true });
    }

    /// One of so many bytes will wait no longer.
    pub(crate) fn take(&mut self, tenant: TenantId, bytes: u64) {
        self.changes.push(Change { tenant, bytes, comes: false });
    }

    /// What was to change has changed.
    pub(crate) fn commit(&mut self) {
        for Change { tenant, bytes, comes } in self.changes.drain(..) {
            let load = self.loads.entry(tenant).or_default();
            if comes {
                load.notifications += 1;
                load.bytes += bytes;
            } else {
                load.notifications = load.notifications.saturating_sub(1);
                load.bytes = load.bytes.saturating_sub(bytes);
            }
            if load.notifications == 0 {
                self.loads.remove(&tenant);
            }
        }
    }

    /// It has not.
    pub(crate) fn forget(&mut self) {
        self.changes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_committed_does_not_count_and_who_has_nothing_takes_no_room() {
        let [one, two] = [1, 2].map(|id| TenantId::from_bytes([id; 16]));
        let mut weights = Weights::default();
        weights.add(one, 10);
        weights.add(two, 5);
        let of = |weights: &Weights, tenant| (weights.of(tenant).notifications, weights.of(tenant).bytes);
        assert_eq!((of(&weights, one), of(&weights, two)), ((0, 0), (0, 0)));
        weights.commit();
        assert_eq!((of(&weights, one), of(&weights, two)), ((1, 10), (1, 5)));
        weights.take(one, 10);
        weights.forget();
        weights.commit();
        assert_eq!(of(&weights, one), (1, 10));
        weights.take(one, 10);
        weights.add(two, 7);
        weights.take(two, 5);
        weights.commit();
        assert_eq!((of(&weights, one), of(&weights, two)), ((0, 0), (1, 7)));
        assert_eq!(weights.loads.len(), 1);
    }
}
