//! How many attempts may be under way, in all and of one channel when that runs short. Pure.

/// The most attempts under way at once: each takes some kilobytes, and a descriptor.
pub(crate) const UNDER_WAY_MAX: usize = 16_384;
/// And the least that are allowed.
const UNDER_WAY_MIN: usize = 64;

/// What a channel may have under way when half, three quarters, and all of the maximum is used up.
const SHARES: [u32; 3] = [64, 8, 1];

/// The most attempts under way in all that leave every channel its own maximum for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnderWayMax(usize);

impl UnderWayMax {
    /// As many as there are descriptors for.
    pub(crate) fn with_descriptors(descriptors: usize) -> Self {
        Self(descriptors.clamp(UNDER_WAY_MIN, UNDER_WAY_MAX))
    }

    /// The most that one channel may have under way while there are so many in all. It is never less than one, so
    /// that attempts that hang, however many, keep no other channel from its next one; the more there are, the less
    /// may a channel add to them. `before` is the last answer: a share grows again only when there is room for it.
    pub(crate) fn share(self, under_way: usize, before: u32) -> u32 {
        let share = self.share_at(under_way);
        if share > before { self.share_at(under_way + self.0 / 16).max(before) } else { share }
    }

    fn share_at(self, under_way: usize) -> u32 {
        let Self(max) = self;
        match under_way {
            few if few < max / 2 => u32::MAX,
            many if many < max - max / 4 => SHARES[0],
            more if more < max => SHARES[1],
            _ => SHARES[2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_shrinks_as_room_runs_out_and_is_never_nothing() {
        let max = UnderWayMax(1_600);
        let shares = [0, 799, 800, 1_199, 1_200, 1_599, 1_600, 99_999].map(|under_way| max.share(under_way, u32::MAX));
        assert_eq!(shares, [u32::MAX, u32::MAX, 64, 64, 8, 8, 1, 1]);
    }

    #[test]
    fn a_share_grows_only_when_there_is_room_for_it() {
        let max = UnderWayMax(1_600);
        assert_eq!(max.share(1_599, 1), 1);
        assert_eq!(max.share(1_499, 1), 8);
        assert_eq!(max.share(1_199, 8), 8);
        assert_eq!(max.share(600, 8), u32::MAX);
    }
}
