//! How much of what a channel has waiting is held in memory, and where the rest begins. Pure.
//!
//! A channel has a shelf for each priority, an ordered one a single shelf: on a shelf the order of acceptance counts.
//! When a shelf is full, what comes next stays in the store, and so does all that comes after that: nothing is put
//! on the shelf past it. When the shelf has run low it is filled again from the store, from where it left off. No lane
//! takes more than its part of a shelf, see [`Stocks`].

use conductor_core::DeliveryKey;

use super::stock::{Stocks, previous};

/// How much is held in memory, in deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The most that a shelf takes of what waits for its turn alone. With what waits for a time or for others of its
    /// lane it takes four times as much.
    pub shelf: usize,
    /// The same while all shelves together hold more than `all`.
    pub shelf_when_scarce: usize,
    /// The most that a lane takes of a shelf, except for what waits for a time.
    pub lane: usize,
    /// Beyond so many in all, shelves are kept short.
    pub all: usize,
}

/// What is held in all, in shares of a shelf, where most of it waits for a later time or for others.
const HELD_SHARE: usize = 4;
/// A lane takes at least so many times its part of what waits for a time.
const LATER_SHARE: usize = 4;

impl Default for Capacity {
    fn default() -> Self {
        Self { shelf: 50_000, shelf_when_scarce: 1_000, lane: 1_024, all: 2_000_000 }
    }
}

/// The most that a shelf takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) shelf: usize,
    pub(crate) lane: usize,
}

impl Capacity {
    /// The most that a shelf takes while so many are held in all.
    pub(crate) fn room(&self, held_in_all: usize) -> Room {
        let shelf = if held_in_all < self.all { self.shelf } else { self.shelf_when_scarce };
        Room { shelf: shelf.max(1), lane: self.lane.clamp(1, shelf.max(1)) }
    }
}

impl Room {
    /// The most that is held on a shelf in all.
    fn held(self) -> usize {
        HELD_SHARE * self.shelf
    }

    /// The most that is held of a lane in all: no lane fills the shelf with what waits for a time.
    pub(crate) fn lane_held(self) -> usize {
        self.shelf.max(LATER_SHARE * self.lane)
    }
}

/// What is held of one channel, in one priority unless it is ordered.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    held: usize,
    /// Of them, those that wait for a time.
    later: usize,
    /// Of them, those that wait for others of their lane.
    behind: usize,
    /// All behind this place is in the store only.
    rest: Option<Rest>,
    stocks: Stocks,
    /// It stands in the list of those that are to be filled.
    pub(crate) is_listed: bool,
    /// It is being filled, until it is full.
    filling: bool,
    /// Its lanes are filled before the shelf itself: they take turns.
    lanes_first: bool,
}

/// The part that is in the store only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rest {
    /// It is what lies behind this one; none means everything.
    pub(crate) after: Option<DeliveryKey>,
}

/// What the store is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) rest: Rest,
    /// It is for lanes that have run low, not for the shelf as a whole.
    pub(crate) for_lanes: bool,
    /// More than so many in one go would be found for nothing.
    pub(crate) most: usize,
}

impl Shelf {
    /// Whether a delivery that has come goes on the shelf. If not, it is left to the store, and everything behind it,
    /// on the shelf or in its lane.
    pub(crate) fn takes(&mut self, lane: u64, key: DeliveryKey, room: Room) -> bool {
        match self.rest {
            Some(rest) if Some(key) > rest.after => false,
            // It came late, or waits again: the store would not be asked for it any more.
            Some(_) if self.held < 2 * room.held() => self.stocks.takes(lane, key, room),
            None if !self.is_full(room) => self.stocks.takes(lane, key, room),
            _ => {
                self.rest = Some(Rest { after: previous(key) });
                false
            }
        }
    }

    /// One that holds nothing yet: all there is, is in the store.
    pub(crate) fn of_the_store() -> Self {
        Self { rest: Some(Rest { after: None }), ..Self::default() }
    }

    /// Whether nothing is held, and nothing is left to the store.
    pub(crate) fn is_done(&self) -> bool {
        self.held == 0 && self.rest.is_none() && self.stocks.is_done()
    }

    /// How many are held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// One more is held.
    pub(crate) fn count_in(&mut self, lane: u64, room: Room) {
        self.held += 1;
        self.stocks.count_in(lane, room);
    }

    /// One less is held.
    pub(crate) fn count_out(&mut self, lane: u64, room: Room) {
        self.held -= 1;
        self.stocks.count_out(lane, room);
    }

    /// One that is held waits for a time now.
    pub(crate) fn count_later(&mut self, lane: u64, room: Room) {
        self.later += 1;
        self.stocks.count_later(lane, room);
    }

    /// One that is held waits for a time no more.
    pub(crate) fn count_due(&mut self, lane: u64, room: Room) {
        self.later -= 1;
        self.stocks.count_due(lane, room);
    }

    /// One that is held waits for others of its lane now.
    pub(crate) fn count_behind(&mut self) {
        self.behind += 1;
    }

    /// One that is held waits for others of its lane no more.
    pub(crate) fn count_first(&mut self) {
        self.behind -= 1;
    }

    /// What the store is to be asked for now, if anything.
    pub(crate) fn wants(&mut self, room: Room) -> Option<Want> {
        let is_low = self.may_go() < room.shelf.div_ceil(2) && self.held < room.held();
        self.filling = self.rest.is_some() && (self.filling || is_low) && !self.is_full(room);
        let whole = self.rest.filter(|_| self.filling);
        let whole = whole.map(|rest| Want { rest, for_lanes: false, most: usize::MAX });
        let lanes = self.stocks.wants().filter(|_| self.held < room.held());
        let lanes = lanes.map(|rest| Want { rest, for_lanes: true, most: self.stocks.wanted(room) });
        if self.lanes_first { lanes.or(whole) } else { whole.or(lanes) }
    }

    /// The store was asked for this, and the next that it has found is this one. Whether it goes on the shelf.
    pub(crate) fn feeds(&mut self, want: Want, lane: u64, key: DeliveryKey, room: Room) -> bool {
        if !want.for_lanes {
            return self.stocks.takes(lane, key, room);
        }
        self.rest.is_none_or(|rest| Some(key) <= rest.after) && self.stocks.feeds(lane, key, want.rest, room)
    }

    /// What the store has found is on the shelf now, as far as there was room: it has looked as far as `through`, none
    /// meaning to the end.
    pub(crate) fn fed(&mut self, want: Want, through: Option<DeliveryKey>) {
        self.lanes_first = !want.for_lanes;
        if want.for_lanes {
            let through = through.filter(|through| self.rest.is_none_or(|rest| Some(*through) < rest.after));
            self.stocks.fed(want.rest, through);
        } else {
            self.rest = through.map(|through| Rest { after: Some(through) });
            self.filling &= self.rest.is_some();
        }
    }

    /// Those that wait for their turn alone.
    fn may_go(&self) -> usize {
        self.held - self.later - self.behind
    }

    fn is_full(&self, room: Room) -> bool {
        self.may_go() >= room.shelf || self.held >= room.held()
    }
}
