//! How much room a file system has left.

use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// What a file system has left for this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can be written.
    pub bytes: u64,
    /// Files that can be made; none where the file system has no such limit.
    pub files: Option<u64>,
}

impl Room {
    /// The room where `directory` lies.
    ///
    /// # Errors
    /// It is not there, or cannot be asked.
    pub fn in_directory(directory: &Path) -> io::Result<Self> {
        let found = statvfs(directory)?;
        let bytes = found.f_bavail.saturating_mul(found.f_frsize);
        Ok(Self { bytes, files: (found.f_files > 0).then_some(found.f_favail) })
    }
}
