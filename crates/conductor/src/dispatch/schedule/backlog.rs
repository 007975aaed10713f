//! What of all that waits is held in the schedule, and what is left to the store.

use super::*;

/// A shelf that has run low, and what the store is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hungry {
    pub(crate) channel: ChannelId,
    /// None: of every priority.
    pub(crate) priority: Option<Priority>,
    pub(crate) want: Want,
    place: u32,
    shelf: usize,
}

impl Schedule {
    /// A delivery has come that waits. Where there is no room for it, it is left to the store.
    pub(crate) fn arrive(&mut self, place: u32, queued: &Queued, now: Timestamp) {
        let room = self.room();
        let channel = &mut self.channels[place as usize];
        let shelf = channel.shelf_of(class_of(queued.priority));
        if channel.holds(queued) || channel.shelves[shelf].takes(queued.lane, queued.key, room) {
            self.insert(place, queued, Limited::default(), now);
        } else {
            self.list_shelf(place, shelf);
        }
    }

    /// The next shelf that has run low though the store has more.
    pub(crate) fn hungry(&mut self) -> Option<Hungry> {
        let room = self.room();
        while let Some((place, shelf)) = self.low.pop_front() {
            let channel = &mut self.channels[place as usize];
            channel.shelves[shelf].is_listed = false;
            if let Some(want) = channel.shelves[shelf].wants(room) {
                let priority = (!channel.ordered).then_some(CLASS_PRIORITIES[shelf]);
                return Some(Hungry { channel: channel.id, priority, want, place, shelf });
            }
        }
        None
    }

    /// The store was asked: `found` follows, and it has looked as far as `through`, or to the end.
    pub(crate) fn feed(&mut self, hungry: &Hungry, found: &[Queued], through: Option<DeliveryKey>, now: Timestamp) {
        let Hungry { place, shelf, want, .. } = *hungry;
        for queued in found {
            let room = self.room();
            if self.channels[place as usize].shelves[shelf].feeds(want, queued.lane, queued.key, room) {
                self.insert(place, queued, Limited::default(), now);
            }
        }
        self.channels[place as usize].shelves[shelf].fed(want, through);
        self.list_shelf(place, shelf);
    }

    /// The store could not be asked: it will be.
    pub(crate) fn still_hungry(&mut self, hungry: &Hungry) {
        self.list_shelf(hungry.place, hungry.shelf);
    }

    pub(super) fn shelf(&mut self, entry: &Entry) -> &mut Shelf {
        let channel = &mut self.channels[entry.channel as usize];
        let shelf = channel.shelf_of(entry.class);
        &mut channel.shelves[shelf]
    }

    pub(super) fn count_in(&mut self, entry: &Entry) {
        self.waiting += 1;
        let room = self.room();
        self.shelf(entry).count_in(entry.lane, room);
    }

    pub(super) fn count_out(&mut self, entry: &Entry) {
        self.waiting -= 1;
        let room = self.room();
        self.shelf(entry).count_out(entry.lane, room);
        self.list_shelf_of(entry);
    }

    pub(super) fn count_later(&mut self, entry: &Entry) {
        let room = self.room();
        self.shelf(entry).count_later(entry.lane, room);
        self.list_shelf_of(entry);
    }

    pub(super) fn count_due(&mut self, entry: &Entry) {
        let room = self.room();
        self.shelf(entry).count_due(entry.lane, room);
    }

    pub(super) fn count_behind(&mut self, entry: &Entry) {
        self.shelf(entry).count_behind();
        self.list_shelf_of(entry);
    }

    /// The most that a shelf takes now.
    fn room(&self) -> Room {
        self.capacity.room(self.waiting)
    }

    fn list_shelf_of(&mut self, entry: &Entry) {
        let shelf = self.channels[entry.channel as usize].shelf_of(entry.class);
        self.list_shelf(entry.channel, shelf);
    }

    /// Has a shelf looked at that may have run low.
    pub(super) fn list_shelf(&mut self, place: u32, shelf: usize) {
        let room = self.room();
        let looked_at = &mut self.channels[place as usize].shelves[shelf];
        if !looked_at.is_listed && looked_at.wants(room).is_some() {
            looked_at.is_listed = true;
            self.low.push_back((place, shelf));
        }
    }
}
