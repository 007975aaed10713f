//! What the schedule takes over from another configuration: limits, paces, orders, shares, mended credentials.

use std::sync::Arc;

use conductor_core::{Rate, TenantId};

use super::{Dispatcher, report};
use crate::registry::fingerprint::Fingerprint;
use crate::registry::{LiveChannel, Registry};

/// What the schedule has to know of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) max: u32,
    pub(super) rate: Option<Rate>,
    pub(super) ordered: bool,
}

/// The shape of a channel. One that is configured no more has its deliveries ended, a few at a time.
pub(super) fn shape(channel: Option<&LiveChannel>) -> Shape {
    channel.map_or(Shape { max: 1, rate: None, ordered: false }, |channel| Shape {
        max: channel.max_concurrency,
        rate: channel.rate,
        ordered: channel.ordered,
    })
}

/// A tenant's share of the turns.
pub(super) fn weight(registry: &Registry, tenant: TenantId) -> u32 {
    registry.tenant(tenant).map_or(1, |tenant| tenant.weight)
}

impl Dispatcher {
    /// Takes over what the configuration says now, where it is another than the one before.
    pub(super) fn follow(&mut self) {
        let registry = self.app.registry();
        if Arc::ptr_eq(&registry, &self.registry) {
            return;
        }
        let before = std::mem::replace(&mut self.registry, registry);
        let registry = Arc::clone(&self.registry);
        self.schedule.set_weights(|tenant| weight(&registry, tenant));
        self.schedule.forget(|id| registry.channel(id).is_none());
        for place in self.schedule.places() {
            let id = self.schedule.channel_id(place);
            match (before.channel(id), registry.channel(id)) {
                (None, None) => {}
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
                (old, new) => self.reshape(place, old.map(Arc::as_ref), new.map(Arc::as_ref)),
            }
        }
    }

    fn reshape(&mut self, place: u32, old: Option<&LiveChannel>, new: Option<&LiveChannel>) {
        let now = self.app.clock.now();
        let Shape { max, rate, ordered } = shape(new);
        let gate = &mut self.schedule.channel(place).gate;
        gate.allow(max, rate, now);
        let account = |channel: &LiveChannel| channel.prints.account;
        if old.map(account) != new.map(account)
            && gate.begin_anew(now)
            && let Some(channel) = new
        {
            report::mended(channel);
        }
        self.schedule.reorder(place, ordered);
        self.schedule.go_on(place);
        self.tell(place);
    }

    /// Whether the channel at this place still has the account that an attempt was made through.
    pub(super) fn is_current(&self, place: u32, account: Option<Fingerprint>) -> bool {
        let channel = self.registry.channel(self.schedule.channel_id(place));
        channel.map(|channel| channel.prints.account) == account
    }
}
