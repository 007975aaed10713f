//! When the next of what waits can be over, so that nothing has to be read before: there may be millions.

use conductor_core::Timestamp;

/// A bound that is never too late: a look may raise it only if it has found nothing.
#[derive(Debug)]
pub(crate) struct Expiry {
    /// Nothing that waits expires before this, but for what is held.
    from: Timestamp,
    /// The same for what came since a look began, which may not have seen it.
    came: Timestamp,
}

impl Default for Expiry {
    /// What the process before has left is not known.
    fn default() -> Self {
        Self { from: Timestamp::ZERO, came: Timestamp::MAX }
    }
}

impl Expiry {
    /// Something that waits expires at this time.
    pub(crate) fn comes(&mut self, at: Timestamp) {
        (self.from, self.came) = (self.from.min(at), self.came.min(at));
    }

    /// Whether anything can be over by now. If so, a look for it begins; one at a time.
    pub(crate) fn begin_look(&mut self, now: Timestamp) -> bool {
        let can_be = self.from <= now;
        if can_be {
            self.came = Timestamp::MAX;
        }
        can_be
    }

    /// That look has found nothing that is over, and what it has seen expires at this time first, if ever.
    pub(crate) fn nothing_over(&mut self, next: Option<Timestamp>) {
        self.from = next.unwrap_or(Timestamp::MAX).min(self.came);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_raised_by_a_look_that_found_nothing_and_not_past_what_came_meanwhile() {
        let at = Timestamp::from_millis;
        let mut expiry = Expiry::default();
        assert!(expiry.begin_look(at(10)), "nothing is known");
        expiry.nothing_over(Some(at(50)));
        assert!(!expiry.begin_look(at(49)));
        // One that finds something, fails or never ends leaves the bound alone, whatever becomes of the clock.
        assert!(expiry.begin_look(at(90)));
        assert!(expiry.begin_look(at(50)));
        expiry.comes(at(70));
        expiry.nothing_over(Some(at(80)));
        assert!(!expiry.begin_look(at(69)));
        assert!(expiry.begin_look(at(70)));
        expiry.nothing_over(None);
        assert!(!expiry.begin_look(at(1_000_000)));
        expiry.comes(at(20));
        assert!(expiry.begin_look(at(20)));
    }
}
