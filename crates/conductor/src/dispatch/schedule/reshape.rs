//! Channels and tenants that another configuration gives another shape.

use super::*;

impl Schedule {
    /// The places of all channels that are known.
    pub(crate) fn places(&self) -> Vec<u32> {
        self.channel_places.values().copied().collect()
    }

    /// Forgets the channels that are gone, as soon as nothing of them waits here or is under way.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(ChannelId) -> bool) {
        let is_idle = |channel: &ChannelQueue| {
            channel.tasks == 0 && channel.lanes.is_empty() && channel.shelves.iter().all(Shelf::is_done)
        };
        let before = self.vacant.len();
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if !channel.vacant && is_gone(channel.id) && is_idle(channel) {
                channel.vacant = true;
                self.channel_places.remove(&channel.id);
                self.vacant.push(place_of(index));
            }
        }
        if self.vacant.len() == before {
            return;
        }
        let channels = &self.channels;
        let stays = |place: &u32| !channels[*place as usize].vacant;
        self.alarms.retain(|Reverse((_, alarm))| match alarm {
            Alarm::Due(entry) => stays(&entry.channel),
            Alarm::Channel(place) | Alarm::Ask(place) | Alarm::Lane(place, _) | Alarm::First(place, _) => stays(place),
        });
        self.low.retain(|(place, _)| stays(place));
        self.to_ask.retain(stays);
        self.crowded.retain(stays);
        self.tenants.iter_mut().flat_map(|tenant| &mut tenant.rings).for_each(|ring| ring.retain(stays));
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
