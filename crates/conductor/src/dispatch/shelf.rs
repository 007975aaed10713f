//! How much of what a channel has waiting is held in memory, and where the rest begins. Pure.
//!
//! A channel has a shelf for each priority, an ordered one a single shelf: on a shelf the order of acceptance counts.
//! When a shelf is full, what comes next stays in the store, and so does all that comes after that: nothing is put
//! on the shelf past it. When the shelf has run low it is filled again from the store, from where it left off.

use conductor_core::{DeliveryKey, NotificationId};

/// How much is held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// The most that a shelf takes of what waits for its turn. Of what waits for a time it takes
    /// [`LATER_SHARE`] times as much.
    pub(crate) shelf: usize,
    /// The same while all shelves together hold more than `all`.
    pub(crate) shelf_when_scarce: usize,
    /// Beyond so many in all, shelves are kept short.
    pub(crate) all: usize,
}

/// What is held in all, in shares of a shelf, where most of it waits for a later time.
const LATER_SHARE: usize = 4;

impl Default for Capacity {
    fn default() -> Self {
        Self { shelf: 50_000, shelf_when_scarce: 1_000, all: 2_000_000 }
    }
}

impl Capacity {
    /// The most that a shelf takes while so many are held in all.
    pub(crate) fn of_shelf(&self, held_in_all: usize) -> usize {
        if held_in_all < self.all { self.shelf } else { self.shelf_when_scarce }
    }
}

/// What is held of one channel, in one priority unless it is ordered.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    held: usize,
    /// Of them, those that wait for a time.
    later: usize,
    /// All behind this place is in the store only.
    rest: Option<Rest>,
    /// It stands in the list of those that are to be filled.
    pub(crate) is_listed: bool,
    /// It is being filled, until it is full.
    filling: bool,
}

/// The part that is in the store only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    /// It is what lies behind this one; none means everything.
    pub(crate) after: Option<DeliveryKey>,
}

impl Shelf {
    /// Whether a delivery that has come goes on the shelf. If not, it is left to the store, and everything behind it.
    pub(crate) fn takes(&mut self, key: DeliveryKey, room: usize) -> bool {
        match self.rest {
            Some(rest) if Some(key) > rest.after => false,
            // It came late, or waits again: the store would not be asked for it any more.
            Some(_) if self.held < 2 * LATER_SHARE * room => true,
            None if !self.is_full(room) => true,
            _ => {
                self.rest = Some(Rest { after: previous(key) });
                false
            }
        }
    }

    /// How many are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// One more is held.
    pub(crate) fn count_in(&mut self) {
        self.held += 1;
    }

    /// One less is held.
    pub(crate) fn count_out(&mut self) {
        self.held -= 1;
    }

    /// One that is held waits for a time now.
    pub(crate) fn count_later(&mut self) {
        self.later += 1;
    }

    /// One that is held waits for a time no more.
    pub(crate) fn count_due(&mut self) {
        self.later -= 1;
    }

    /// Where the rest begins, if the shelf is to be filled from it now.
    pub(crate) fn wants(&mut self, room: usize) -> Option<Rest> {
        let rest = self.rest?;
        let is_low = self.held - self.later < room / 2 && self.held < LATER_SHARE * room;
        self.filling = (self.filling || is_low) && !self.is_full(room);
        self.filling.then_some(rest)
    }

    /// A part of the rest is on the shelf now: all up to `through`, none meaning all that there was.
    pub(crate) fn filled(&mut self, through: Option<DeliveryKey>) {
        self.rest = through.map(|through| Rest { after: Some(through) });
        self.filling &= self.rest.is_some();
    }

    fn is_full(&self, room: usize) -> bool {
        self.held - self.later >= room || self.held >= LATER_SHARE * room
    }
}

/// A key before this one with nothing that waits in between: a notification has one delivery that waits.
fn previous(key: DeliveryKey) -> Option<DeliveryKey> {
    let smaller = key.notification.uuid().as_u128().checked_sub(1)?;
    Some(DeliveryKey { notification: NotificationId::from_bytes(smaller.to_be_bytes()), ordinal: u8::MAX })
}
