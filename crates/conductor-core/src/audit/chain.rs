//! Goes along the chain and finds where it was tampered with.

use std::fmt;

use super::{AuditEntry, Fields, Hash};

/// An entry whose neighbours' numbers are tried, to tell what happened to it: so far away.
const SHIFT_MAX: u64 = 1_000;
/// Of so many faults it is found out what happened; of more, where nearly nothing fits, only that they are there.
const SEARCHES_MAX: u32 = 1_000;

/// What is wrong with the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainFault {
    /// Entries are missing.
    Removed {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// An entry is not what was written; or the one before it was replaced together with its hash.
    Changed(u64),
    /// An entry stands where none was written, or where another one was.
    Inserted(u64),
    /// An entry does not follow the one before it, which is not what was written either: it may be right.
    Unproven(u64),
}

impl ChainFault {
    /// The entry that it names: the first of several.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Removed { from: seq, .. } | Self::Changed(seq) | Self::Inserted(seq) | Self::Unproven(seq) => *seq,
        }
    }
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed { from, to } if from == to => write!(f, "entry {from} was removed"),
            Self::Removed { from, to } => write!(f, "the entries {from} to {to} were removed"),
            Self::Changed(seq) => write!(f, "entry {seq} was changed"),
            // Somebody may have given it a number below zero.
            Self::Inserted(seq) => write!(f, "entry {} was inserted", seq.cast_signed()),
            Self::Unproven(seq) => write!(f, "entry {seq} does not follow the one before it, so it may be wrong too"),
        }
    }
}

/// Walks along the chain, entry by entry, and goes on behind a fault.
#[derive(Debug, Clone)]
pub struct ChainCheck {
    /// The number of the last entry that was looked at.
    last: u64,
    /// Its hash as it stands there.
    stored: Hash,
    /// Its hash as it has to be, where that is another.
    computed: Option<Hash>,
    /// By how much the entries from here on were moved up to make room for others, or down to close a gap.
    moved: i64,
    /// How many that were inserted are still to come.
    inserted: u64,
    searches: u32,
    room: Vec<u8>,
}

impl ChainCheck {
    /// Begins behind the entry with this number and hash.
    pub fn behind(last: u64, hash: Hash) -> Self {
        Self { last, stored: hash, computed: None, moved: 0, inserted: 0, searches: 0, room: Vec::new() }
    }

    /// The last entry that was looked at.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number that the last entry had before others were moved.
    pub fn place(&self) -> u64 {
        self.last.saturating_add_signed(-self.moved)
    }

    /// Whether the last entry that was looked at is this one.
    pub fn is_at(&self, seq: u64, hash: &Hash) -> bool {
        self.place() == seq && self.stored == *hash
    }

    /// Looks at the next entry. `following` are some that come after it, as far as they are known: they help to tell what
    /// happened.
    pub fn next(&mut self, entry: &AuditEntry, following: &[AuditEntry]) -> Option<ChainFault> {
        let expected = self.last + 1;
        self.last = entry.seq;
        if entry.seq > expected {
            // The hash that this one followed is gone with the others, so it has to be believed.
            (self.stored, self.computed) = (entry.hash, None);
            return Some(ChainFault::Removed { from: expected, to: entry.seq - 1 });
        }
        if self.inserted > 0 {
            self.inserted -= 1;
            return Some(ChainFault::Inserted(entry.seq));
        }
        let own = self.hash_of(entry, -self.moved, &self.stored.clone());
        let fits = own == entry.hash
            || self.computed.is_some_and(|previous| self.hash_of(entry, -self.moved, &previous) == entry.hash);
        if fits {
            (self.stored, self.computed) = (entry.hash, None);
            return None;
        }
        let was_faulty = self.computed.is_some();
        let fault = match self.what_happened(entry, following) {
            ChainFault::Changed(seq) if was_faulty => ChainFault::Unproven(seq),
            fault => fault,
        };
        if !matches!(fault, ChainFault::Inserted(_)) {
            (self.stored, self.computed) = (entry.hash, Some(own));
        }
        Some(fault)
    }

    /// The hash of an entry as if its number were another, behind `previous`.
    fn hash_of(&mut self, entry: &AuditEntry, by: i64, previous: &Hash) -> Hash {
        let seq = entry.seq.checked_add_signed(by).unwrap_or(u64::MAX);
        Fields { seq, ..entry.fields() }.hash(previous, &mut self.room)
    }

    /// Why an entry does not follow the one before it.
    fn what_happened(&mut self, entry: &AuditEntry, following: &[AuditEntry]) -> ChainFault {
        let seq = entry.seq;
        self.searches = self.searches.saturating_add(1);
        if self.searches > SEARCHES_MAX {
            return ChainFault::Changed(seq);
        }
        // Others were moved up to make room: the first of them still fits to what stands before the new ones.
        let before = self.stored;
        for (index, (moved, by)) in following.iter().zip(1..=SHIFT_MAX).enumerate() {
            let shift = -self.moved - by.cast_signed();
            let fits = moved.seq == seq + by && self.hash_of(moved, shift, &before) == moved.hash;
            let behind = following.get(index + 1);
            if fits && behind.is_none_or(|behind| self.hash_of(behind, shift, &moved.hash) == behind.hash) {
                self.moved += by.cast_signed();
                self.inserted = by - 1;
                return ChainFault::Inserted(seq);
            }
        }
        // Others were moved down to close a gap: they still fit to one another.
        if let Some(next) = following.first().filter(|next| next.seq == seq + 1) {
            for by in 1..=SHIFT_MAX {
                if self.hash_of(next, by.cast_signed() - self.moved, &entry.hash) == next.hash {
                    self.moved -= by.cast_signed();
                    return ChainFault::Removed { from: seq, to: seq + by - 1 };
                }
            }
        }
        ChainFault::Changed(seq)
    }
}
