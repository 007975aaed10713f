//! How much of each lane lies on a shelf, and where a lane's rest begins. Pure.
//!
//! A lane takes only a part of a shelf, so that a long one leaves room for the others. What comes for a lane that has
//! as much as it may have stays in the store, and so does all of the lane that comes after that. The shelf goes on for
//! other lanes. When a lane has run low, the store is asked for what follows, and every lane gets what is found of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use conductor_core::{DeliveryKey, NotificationId};

use super::shelf::{Rest, Room};

/// What a shelf holds of its lanes.
#[derive(Debug, Default)]
pub(crate) struct Stocks {
    /// Those of which something is held, or left to the store.
    lanes: HashMap<u64, Stock>,
    /// Where the rests of the lanes begin that have one.
    rests: BTreeSet<(Rest, u64)>,
    /// Of them, those of lanes that have run low, until these are full.
    low: BTreeSet<(Rest, u64)>,
    /// Lanes that were full when more of them was found.
    refused: HashSet<u64>,
}

#[derive(Debug, Default)]
struct Stock {
    held: usize,
    /// Of them, those that wait for a time.
    later: usize,
    /// All of the lane behind this place is in the store only, whatever the shelf's own rest is.
    rest: Option<Rest>,
}

impl Stock {
    fn waits(&self) -> usize {
        self.held - self.later
    }

    /// What waits for a time may be more, so that it does not hold up the others of its lane.
    fn is_full(&self, room: Room) -> bool {
        self.waits() >= room.lane || self.held >= room.lane_held()
    }
}

impl Stocks {
    /// Whether a delivery that has come is held. If not, it is left to the store, and everything of its lane behind it.
    pub(crate) fn takes(&mut self, lane: u64, key: DeliveryKey, room: Room) -> bool {
        let stock = self.lanes.entry(lane).or_default();
        match stock.rest {
            Some(rest) => Some(key) <= rest.after,
            None if !stock.is_full(room) => true,
            None => {
                self.set_rest(lane, Some(Rest { after: previous(key) }));
                false
            }
        }
    }

    /// Whether nothing is held, and nothing is left to the store.
    pub(crate) fn is_done(&self) -> bool {
        self.lanes.values().all(|stock| stock.held == 0 && stock.rest.is_none())
    }

    /// One more is held.
    pub(crate) fn count_in(&mut self, lane: u64, room: Room) {
        self.change(lane, room, |stock| stock.held += 1);
    }

    /// One less is held.
    pub(crate) fn count_out(&mut self, lane: u64, room: Room) {
        self.change(lane, room, |stock| stock.held -= 1);
    }

    /// One that is held waits for a time now.
    pub(crate) fn count_later(&mut self, lane: u64, room: Room) {
        self.change(lane, room, |stock| stock.later += 1);
    }

    /// One that is held waits for a time no more.
    pub(crate) fn count_due(&mut self, lane: u64, room: Room) {
        self.change(lane, room, |stock| stock.later -= 1);
    }

    /// From where the store is to be asked, if a lane has run low: the earliest first.
    pub(crate) fn wants(&self) -> Option<Rest> {
        self.low.first().map(|(rest, _)| *rest)
    }

    /// How many are worth finding in one go: what all lanes could take that have a rest, and others in between.
    pub(crate) fn wanted(&self, room: Room) -> usize {
        self.rests.len().saturating_mul(4 * room.lane)
    }

    /// The store was asked for what is behind `after`, and has this one, the next that it found. Whether it is held now:
    /// not if it is held already, or its lane is full, or has something before `after` that is not held.
    pub(crate) fn feeds(&mut self, lane: u64, key: DeliveryKey, after: Rest, room: Room) -> bool {
        let Some(stock) = self.lanes.get(&lane) else { return false };
        if !stock.rest.is_some_and(|rest| rest >= after && Some(key) > rest.after) || self.refused.contains(&lane) {
            return false;
        }
        if stock.is_full(room) {
            self.refused.insert(lane);
            return false;
        }
        self.set_rest(lane, Some(Rest { after: Some(key) }));
        true
    }

    /// All that the store has found behind `after` was offered. It has looked as far as `through`; none means to the
    /// end, or to where the shelf's own rest begins.
    pub(crate) fn fed(&mut self, after: Rest, through: Option<DeliveryKey>) {
        let end = through.map(|through| Rest { after: Some(through) });
        let covered = |rest: Rest| end.is_none_or(|end| rest < end);
        let lanes = self.rests.range((after, 0)..).take_while(|(rest, _)| covered(*rest));
        let lanes: Vec<_> = lanes.map(|(_, lane)| *lane).collect();
        let refused = std::mem::take(&mut self.refused);
        for lane in lanes.into_iter().filter(|lane| !refused.contains(lane)) {
            self.set_rest(lane, end);
        }
        for lane in refused {
            if let Some(rest) = self.lanes.get(&lane).and_then(|stock| stock.rest) {
                self.low.remove(&(rest, lane));
            }
        }
    }

    fn change(&mut self, lane: u64, room: Room, change: impl FnOnce(&mut Stock)) {
        let stock = self.lanes.entry(lane).or_default();
        change(stock);
        match stock.rest {
            Some(rest) if stock.waits() < room.lane.div_ceil(2) && !stock.is_full(room) => {
                self.low.insert((rest, lane));
            }
            Some(rest) if stock.is_full(room) => {
                self.low.remove(&(rest, lane));
            }
            None if stock.held == 0 => drop(self.lanes.remove(&lane)),
            _ => {}
        }
    }

    /// A lane that has run low stays so while its rest moves on.
    fn set_rest(&mut self, lane: u64, rest: Option<Rest>) {
        let Some(stock) = self.lanes.get_mut(&lane) else { return };
        let before = std::mem::replace(&mut stock.rest, rest);
        if stock.held == 0 && rest.is_none() {
            self.lanes.remove(&lane);
        }
        let was_low = before.is_some_and(|before| {
            self.rests.remove(&(before, lane));
            self.low.remove(&(before, lane))
        });
        if let Some(rest) = rest {
            self.rests.insert((rest, lane));
            if was_low {
                self.low.insert((rest, lane));
            }
        }
    }
}

/// A key before this one with nothing that waits in between: a notification has one delivery that waits.
pub(super) fn previous(key: DeliveryKey) -> Option<DeliveryKey> {
    let smaller = key.notification.uuid().as_u128().checked_sub(1)?;
    Some(DeliveryKey { notification: NotificationId::from_bytes(smaller.to_be_bytes()), ordinal: u8::MAX })
}
