//! `conductor restore`

use std::path::PathBuf;

use clap::Args;
use conductor_core::Timestamp;
use conductor_store::{Copied, CopyError, OpenError, restore};

use super::amounts::{count, size};
use super::backup::{failure, mend, what_is_in_it};
use super::{Ended, Failure, Session};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor restore /var/backups/conductor.db
  conductor restore --data-dir /var/lib/conductor /var/backups/conductor.db

Puts a backup into a data folder that has no store yet, after it has read it from end to end. The configuration \
and .env may be there. Whatever waits in the backup is sent by the next start, also what was sent after the \
backup was made. Exit code 0: the store is there; 1: it could not be put there; 2: the command or the file is \
wrong. If it fails, the folder is as it was, and it can be tried again.";

/// From where.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The backup
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let now = session.clock.now();
    let file = session.working_dir.join(&arguments.file);
    let copied = restore(&file, &settings.data_dir, now).map_err(|error| {
        let data = settings.data_dir.display();
        let help = match &error {
            CopyError::Exists(_) => format!(
                "a store is never replaced: stop the server and move conductor.db away from {data}, with its -wal and -shm \
                 file, or name another folder with --data-dir"
            ),
            CopyError::Open(OpenError::Locked(_)) => {
                format!("stop the server that uses {data}, or name another folder with --data-dir")
            }
            CopyError::Open(OpenError::Migrate(..) | OpenError::Damaged(..)) => {
                "name a file that `conductor backup` of this version or an older one has made".to_owned()
            }
            error => mend(error).to_owned(),
        };
        failure("nothing was restored", &error, &help)
    })?;
    let path = settings.data_dir.join("conductor.db");
    let size = size(copied.contents.bytes);
    let text = format!("Restored {} ({size}), and read from end to end: it is sound.\n", path.display());
    write!(session.out, "{text}{}", what_follows(&copied, now))?;
    Ok(Ended::Well)
}

/// What the operator has to know before he starts the server.
fn what_follows(copied: &Copied, now: Timestamp) -> String {
    let Copied { contents, .. } = copied;
    let mut text = what_is_in_it(copied, now);
    if contents.newest.is_some() {
        text.push_str("  What was accepted later is not in it\n");
    }
    let sent = contents.waiting - contents.overdue;
    if sent > 0 {
        text.push_str(&format!(
            "  {}: the next start sends them, also what was sent after the backup was made,\n  \
             so that it may arrive twice\n",
            count(sent, "delivery waits", "deliveries wait")
        ));
    }
    if contents.overdue > 0 {
        text.push_str(&format!(
            "  {} expired meanwhile: the next start makes dead letters of them\n",
            count(contents.overdue, "delivery has", "deliveries have")
        ));
    }
    if contents.held > 0 {
        text.push_str(&format!(
            "  {} held, for a person to decide\n",
            count(contents.held, "delivery is", "deliveries are")
        ));
    }
    text.push_str("Start the server: conductor\n");
    text
}

#[cfg(test)]
mod tests {
    use conductor_store::Contents;

    use super::*;

    #[test]
    fn what_waits_has_expired_or_is_held_is_told_before_the_start() {
        let now = Timestamp::from_millis(1_705_314_600_000);
        let contents = Contents { bytes: 4_096, version: 6, newest: Some(now), waiting: 12, overdue: 11, held: 1 };
        let text = what_follows(&Copied { notifications: 20, contents }, now);
        for words in [
            "20 notifications, the newest accepted at 2024-01-15T10:30:00.000Z (0 s ago)",
            "  1 delivery waits: ",
            "  11 deliveries have expired",
            "  1 delivery is held",
            "Start the server",
        ] {
            assert!(text.contains(words), "{words:?} not in {text}");
        }
        let contents = Contents { newest: None, waiting: 0, overdue: 0, held: 0, ..contents };
        assert_eq!(
            what_follows(&Copied { notifications: 0, contents }, now),
            "  0 notifications\nStart the server: conductor\n"
        );
    }
}
