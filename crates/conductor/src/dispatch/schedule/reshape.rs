//! Channels and tenants that another configuration gives another shape.

use super::*;

impl Schedule {
    /// How many channels are known. Their places are the numbers below.
    pub(crate) fn places(&self) -> u32 {
        place_of(self.channels.len())
    }

    /// The tenants that have channels here, each with its share of the turns.
    pub(crate) fn set_weights(&mut self, weight_of: impl Fn(TenantId) -> u32) {
        for (id, place) in &self.tenant_places {
            let tenant = &mut self.tenants[*place as usize];
            tenant.weight = weight_of(*id).max(1);
            tenant.credit = tenant.credit.clamp(1, tenant.weight);
        }
    }

    /// From now on a channel's deliveries wait for those before them, or not. What waited in the other order is left to
    /// the store and taken in anew; what is under way still holds its lane.
    pub(crate) fn reorder(&mut self, place: u32, ordered: bool) {
        let channel = &mut self.channels[place as usize];
        if channel.ordered == ordered {
            return;
        }
        if channel.ordered {
            // Of those that wait for their turn alone, the lane was kept, though nothing is under way.
            for entry in channel.ready.iter().flatten() {
                if let Some(lane) = channel.lanes.get_mut(&entry.lane) {
                    lane.busy = false;
                }
            }
        }
        channel.ordered = ordered;
        channel.ready = Default::default();
        channel.lanes.retain(|_, lane| {
            *lane = LaneState { busy: lane.busy, ..LaneState::default() };
            lane.busy
        });
        let held: usize = channel.shelves.iter().map(Shelf::held).sum();
        let shelves = if ordered { 1 } else { CLASSES };
        channel.shelves = Default::default();
        channel.shelves[..shelves].fill_with(Shelf::of_the_store);
        self.waiting -= held;
        self.alarms.retain(|Reverse((_, alarm))| match alarm {
            Alarm::Due(entry) => entry.channel != place,
            Alarm::First(of, _) => *of != place,
            Alarm::Channel(_) | Alarm::Ask(_) | Alarm::Lane(..) => true,
        });
        for shelf in 0..shelves {
            self.list_shelf(place, shelf);
        }
    }
}
