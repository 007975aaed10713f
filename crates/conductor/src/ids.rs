//! New notification ids.

use std::sync::Mutex;

use conductor_core::{NotificationId, Timestamp};
use uuid::Uuid;

/// Makes UUIDv7 that only ever grow within a process, also when the clock is put back: the store's newest rows are
/// always at its right edge, and a list by id is a list by acceptance.
#[derive(Debug, Default)]
pub struct IdGenerator(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    millis: i64,
    count: u16,
}

/// A millisecond's ids are told apart by a 12-bit count before the random bits.
const COUNT_MAX: u16 = 0x0fff;

impl IdGenerator {
    /// A generator whose ids are greater than `latest`, the greatest that an earlier process made.
    pub fn after(latest: Option<NotificationId>) -> Self {
        let millis = latest.map_or(0, |id| id.made_at().millis());
        Self(Mutex::new(Last { millis, count: COUNT_MAX }))
    }

    /// The next id; `now` is what its time says, unless an earlier id was later.
    pub fn next(&self, now: Timestamp) -> NotificationId {
        let (millis, count) = {
            let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if now.millis() > last.millis {
                *last = Last { millis: now.millis(), count: 0 };
            } else if last.count < COUNT_MAX {
                last.count += 1;
            } else {
                *last = Last { millis: last.millis + 1, count: 0 };
            }
            (last.millis, last.count)
        };
        let time = u128::from(millis.unsigned_abs()) << 80;
        let random = u128::from(fastrand::u64(..) >> 2);
        NotificationId::new(Uuid::from_u128(time | 0x7 << 76 | u128::from(count) << 64 | 0b10 << 62 | random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_even_when_the_clock_is_put_back() {
        let ids = IdGenerator::default();
        let now = Timestamp::from_millis(1_705_314_600_000);
        let mut last = ids.next(now);
        assert_eq!(last.uuid().get_version_num(), 7);
        assert_eq!(last.uuid().get_variant(), uuid::Variant::RFC4122);
        for step in 0..20_000 {
            let time = Timestamp::from_millis(now.millis() - step / 7);
            let next = ids.next(time);
            assert!(next > last);
            last = next;
        }
        assert!(IdGenerator::after(Some(last)).next(Timestamp::ZERO) > last);
    }
}
