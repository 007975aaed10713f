//! What a store tells of itself, for those who watch over it.

use crate::histogram::Distribution;

/// What a store has done since it was opened, and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// How long commits took, each until its data was on disk.
    pub commit_time: Distribution,
    /// How many changes those commits held together: divided by their number, how much one commit carries.
    pub written: u64,
    /// Transactions that could not be written, for whatever reason.
    pub failed: u64,
    /// Changes that wait for their commit now.
    pub waiting: u64,
    /// The size of the store's file in bytes.
    pub file_bytes: u64,
    /// The size of its write-ahead log in bytes.
    pub log_bytes: u64,
    /// How much room the disk has left for this user, in bytes; none where it cannot be asked.
    pub free_bytes: Option<u64>,
    /// Whether the last thing that was to be written could not be, for a reason that concerns everything.
    pub is_failing: bool,
    /// Whether the file was found damaged.
    pub is_damaged: bool,
}
