//! How much each tenant has waiting.

use std::collections::HashMap;

use conductor_core::TenantId;
use conductor_core::store::Load;

/// The sums of what is committed.
#[derive(Debug, Default)]
pub(crate) struct Weights(HashMap<TenantId, Load>);

/// A notification that comes to wait, or waits no longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight {
    pub(crate) tenant: TenantId,
    pub(crate) bytes: u64,
    pub(crate) comes: bool,
}

impl Weights {
    /// What a tenant has waiting.
    pub(crate) fn of(&self, tenant: TenantId) -> Load {
        self.0.get(&tenant).copied().unwrap_or_default()
    }

    /// This is so from now on.
    pub(crate) fn change(&mut self, weight: Weight) {
        let Weight { tenant, bytes, comes } = weight;
        let load = self.0.entry(tenant).or_default();
        if comes {
            load.notifications += 1;
            load.bytes += bytes;
        } else {
            load.notifications = load.notifications.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(bytes);
        }
        if load.notifications == 0 {
            self.0.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_sum_and_who_has_nothing_takes_no_room() {
        let [one, two] = [1, 2].map(|id| TenantId::from_bytes([id; 16]));
        let mut weights = Weights::default();
        let of = |weights: &Weights, tenant| (weights.of(tenant).notifications, weights.of(tenant).bytes);
        for (tenant, bytes, comes) in [(one, 10, true), (two, 5, true), (two, 7, true), (two, 5, false)] {
            weights.change(Weight { tenant, bytes, comes });
        }
        assert_eq!((of(&weights, one), of(&weights, two)), ((1, 10), (1, 7)));
        weights.change(Weight { tenant: one, bytes: 10, comes: false });
        assert_eq!((of(&weights, one), weights.0.len()), ((0, 0), 1));
    }
}
