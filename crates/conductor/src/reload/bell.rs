//! Being told by the system that something happens in folders. It only says when to look; where it says nothing, as on
//! many mounts, those who look now and then find out later.

use std::collections::BTreeSet;
use std::path::PathBuf;

#[cfg(target_os = "linux")]
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;

/// So many folders are watched at the most.
const FOLDERS_MAX: usize = 64;

/// Rings once when a file in one of some folders has been made, written and closed, moved, linked or removed. What is
/// only being written, as the store's own files are all the time, does not ring it.
pub(super) struct Bell {
    #[cfg(target_os = "linux")]
    events: Option<AsyncFd<std::os::fd::OwnedFd>>,
}

impl Bell {
    /// Listens to these folders from now on, as far as the system lets it.
    #[cfg(target_os = "linux")]
    pub(super) fn of(folders: &BTreeSet<PathBuf>) -> Self {
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let listen = || {
            let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            for folder in folders.iter().take(FOLDERS_MAX) {
                // One that is not there, or that may not be read, is looked into now and then.
                if let Err(error) = inotify::add_watch(&events, folder, what) {
                    tracing::debug!(folder = %folder.display(), %error, "A folder cannot be watched");
                }
            }
            #[expect(deprecated, reason = "what takes its place is unsafe; of what owns its descriptor this is sound")]
            AsyncFd::new(events)
        };
        match listen() {
            Ok(events) => Self { events: Some(events) },
            Err(error) => {
                tracing::debug!(%error, "The system does not tell of changed files: they are looked at now and then");
                Self { events: None }
            }
        }
    }

    /// Hears nothing on this system.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(_folders: &BTreeSet<PathBuf>) -> Self {
        Self {}
    }

    /// Returns when something has happened. A bell that has rung is used up: it would ring again at once.
    #[cfg(target_os = "linux")]
    pub(super) async fn rung(&self) {
        if let Some(events) = &self.events
            && events.readable().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Never returns on this system.
    #[cfg(not(target_os = "linux"))]
    pub(super) async fn rung(&self) {
        std::future::pending::<()>().await;
    }
}
