//! How many bytes each tenant has waiting. What a transaction adds and takes counts once it is committed.

use std::collections::HashMap;

use conductor_core::TenantId;

/// The sums, and what the transaction under way will change.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    /// Of each tenant that has any.
    sums: HashMap<TenantId, u64>,
    /// At most a few for each command of a batch.
    changes: Vec<(TenantId, i64)>,
}

impl Weights {
    /// A tenant has so many bytes waiting.
    pub(crate) fn of(&self, tenant: TenantId) -> u64 {
        self.sums.get(&tenant).copied().unwrap_or(0)
    }

    /// So many more will wait.
    pub(crate) fn add(&mut self, tenant: TenantId, bytes: u64) {
        self.changes.push((tenant, bytes.cast_signed()));
    }

    /// So many will wait no longer.
    pub(crate) fn take(&mut self, tenant: TenantId, bytes: u64) {
        self.changes.push((tenant, -bytes.cast_signed()));
    }

    /// What was to change has changed.
    pub(crate) fn commit(&mut self) {
        for (tenant, change) in self.changes.drain(..) {
            let sum = self.sums.entry(tenant).or_default();
            *sum = sum.saturating_add_signed(change);
            if *sum == 0 {
                self.sums.remove(&tenant);
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
        assert_eq!((weights.of(one), weights.of(two)), (0, 0));
        weights.commit();
        assert_eq!((weights.of(one), weights.of(two)), (10, 5));
        weights.take(one, 10);
        weights.forget();
        weights.commit();
        assert_eq!(weights.of(one), 10);
        weights.take(one, 10);
        weights.add(two, 7);
        weights.take(two, 5);
        weights.commit();
        assert_eq!((weights.of(one), weights.of(two)), (0, 7));
        assert_eq!(weights.sums.len(), 1);
    }
}
