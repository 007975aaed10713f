//! What all channels with the same credentials share, whoever they belong to: a provider counts by token, not by
//! channel. A channel that is made anew, as by a reload, finds what the one before it has left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};

/// The most values without a channel that outlive a look through all of them.
const LEFT_MAX: usize = 10_000;
/// So many there are before that is worth its while for the first time.
const SWEPT_FROM: usize = 64;

/// Who is known to a provider by some credentials: a hash of them and of what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity([u8; 32]);

impl Identity {
    /// Other parts, or parts that are cut elsewhere, make another one.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
}

/// What can be shared.
pub(crate) trait Kept: Send + Sync {
    /// Whether nothing is lost with it once no channel has it.
    fn is_spent(&self) -> bool;
}

/// One value for each identity, for the whole process. It is kept as long as a channel has it, and until it is spent.
pub(crate) struct Shared<T>(Mutex<All<T>>);

struct All<T> {
    known: BTreeMap<Identity, Arc<T>>,
    /// How many there may be before those are looked for that are of no use any more.
    most: usize,
}

impl<T: Kept> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(All { known: BTreeMap::new(), most: SWEPT_FROM }))
    }

    /// The value of `identity`: the one that others have or have left, else what `make` makes.
    pub(crate) fn of(&self, identity: Identity, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = all.known.get(&identity).filter(|value| is_in_use(value) || !value.is_spent()) {
            return Arc::clone(value);
        }
        if all.known.len() >= all.most {
            all.sweep();
        }
        let value = Arc::new(make());
        all.known.insert(identity, Arc::clone(&value));
        value
    }
}

impl<T: Kept> All<T> {
    fn sweep(&mut self) {
        self.known.retain(|_, value| is_in_use(value) || !value.is_spent());
        let left = self.known.values().filter(|value| !is_in_use(value)).count();
        if left > LEFT_MAX {
            self.known.retain(|_, value| is_in_use(value));
        }
        self.most = (2 * self.known.len()).max(SWEPT_FROM);
    }
}

/// Only who holds the lock can give out the value that stands in the map, so that one that nobody else has stays so.
fn is_in_use<T>(value: &Arc<T>) -> bool {
    Arc::strong_count(value) > 1
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Thing(AtomicBool);

    impl Kept for Thing {
        fn is_spent(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn named(name: usize) -> Identity {
        Identity::of(&["thing", &name.to_string()])
    }

    #[test]
    fn an_identity_is_that_of_all_parts_in_their_places() {
        let identity = Identity::of(&["a", "bc"]);
        assert_eq!(identity, Identity::of(&["a", "bc"]));
        for other in [&["ab", "c"][..], &["a", "bc", ""], &["abc"], &["bc", "a"], &[]] {
            assert_ne!(identity, Identity::of(other), "{other:?}");
        }
    }

    #[test]
    fn a_value_is_found_again_until_it_is_spent() {
        let things = Shared::<Thing>::new();
        let (first, second) = (things.of(named(1), Thing::default), things.of(named(1), Thing::default));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &things.of(named(2), Thing::default)));
        drop(second);
        let at = Arc::as_ptr(&first);
        drop(first);
        let kept = things.of(named(1), Thing::default);
        assert_eq!(Arc::as_ptr(&kept), at, "nobody had it, but it was not spent");
        kept.0.store(true, Ordering::SeqCst);
        assert!(Arc::ptr_eq(&kept, &things.of(named(1), Thing::default)), "spent, but in use");
        drop(kept);
        drop(things.of(named(3), Thing::default));
        assert!(!things.of(named(1), Thing::default).is_spent(), "it was made anew");
    }

    #[test]
    fn what_is_spent_goes_and_of_the_rest_only_so_many_are_left_behind() {
        let things = Shared::<Thing>::new();
        let held = things.of(named(0), Thing::default);
        let spent = || Thing(AtomicBool::new(true));
        for name in 1..=10 * SWEPT_FROM {
            things.of(named(name), spent);
        }
        assert!(things.0.lock().unwrap().known.len() <= SWEPT_FROM);
        for name in 1..=3 * LEFT_MAX {
            things.of(named(name), Thing::default);
        }
        assert!(things.0.lock().unwrap().known.len() <= 2 * LEFT_MAX + SWEPT_FROM);
        assert!(Arc::ptr_eq(&held, &things.of(named(0), Thing::default)));
    }
}
