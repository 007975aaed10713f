//! `conductor backup`

use std::path::PathBuf;

use clap::Args;
use conductor_core::Timestamp;
use conductor_store::{Copied, CopyError, OpenError, back_up};

use super::amounts::{count, size, time};
use super::{Ended, Failure, Session, serve};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor backup /var/backups/conductor.db
  conductor backup /var/backups
  conductor backup --force /var/backups/conductor-last.db

Copies the store into one file, as it is at one instant, reads the copy from end to end, and only then gives it \
its name. A running server goes on meanwhile. In a folder, the file is named after the time. `conductor \
restore` puts it back. Exit code 0: the backup is there and sound; 1: it could not be made; 2: the command is \
wrong. If it fails, nothing is left but perhaps a file that ends in .part, which the next backup of that name \
takes over.";

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The file to write, or a folder for a file named after the time
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let now = session.clock.now();
    // Collected from its parts, a path is shown without those that say nothing, as in `a/./b`.
    let asked: PathBuf = session.working_dir.join(&arguments.file).components().collect();
    let target = if asked.is_dir() { asked.join(name_of(now)) } else { asked };
    let copied = back_up(&settings.data_dir, &target, arguments.force, now).map_err(|error| {
        let help = match &error {
            CopyError::Missing(_) => "name the data folder of the server with --data-dir; a store is there from its first start on",
            CopyError::Exists(_) => "name another file, or a folder; --force replaces a file that is no part of the store",
            CopyError::Open(_) => "`conductor doctor` looks at the store; keep the earlier backups",
            CopyError::Damaged(..) => "the store itself is damaged: keep the earlier backups, and see \"A damaged store\" in docs/OPERATIONS.md",
            error => mend(error),
        };
        failure("no backup was made", &error, help)
    })?;
    let Copied { notifications, contents } = copied;
    let mut text = format!(
        "Backed up to {} ({}), and read from end to end: it is sound.\n",
        target.display(),
        size(contents.bytes)
    );
    text.push_str(&what_is_in_it(&copied, now));
    if contents.waiting > 0 || contents.held > 0 {
        text.push_str(&format!(
            "  {}, {} held\n",
            count(contents.waiting, "delivery waits", "deliveries wait"),
            count(contents.held, "is", "are")
        ));
    }
    text.push_str(&format!(
        "Not in it: the configuration in {} and the keys in {}.\n",
        settings.config_dir.display(),
        settings.data_dir.join(".env").display()
    ));
    if notifications > 0 {
        text.push_str("It holds people's messages: only you can read it, and so it should stay.\n");
    }
    write!(session.out, "{text}")?;
    Ok(Ended::Well)
}

/// A name that sorts by time and that every file system takes.
fn name_of(now: Timestamp) -> String {
    let seconds: String = now.to_string().chars().take("2024-01-15T10:30:00".len()).collect();
    format!("conductor-{}Z.db", seconds.replace(':', "-"))
}

/// How much is in a copy.
pub(super) fn what_is_in_it(copied: &Copied, now: Timestamp) -> String {
    let notifications = count(copied.notifications, "notification", "notifications");
    match copied.contents.newest {
        Some(newest) => format!("  {notifications}, the newest accepted at {}\n", time(newest, now)),
        None => format!("  {notifications}\n"),
    }
}

/// What helps in the troubles that a backup and the way back have in common.
pub(super) fn mend(error: &CopyError) -> &'static str {
    match error {
        CopyError::Missing(_) => "name a file that is there",
        CopyError::Exists(_) => "move what is there away first",
        CopyError::Busy(_) => {
            "wait until the other one has ended; where there is none, remove what stands there under that name"
        }
        CopyError::Room { .. } => "make room, or name a file on another disk",
        CopyError::Open(error) => serve::mend(error),
        CopyError::Io(..) => "this user has to be able to read and write there",
        CopyError::Slow(_) => "back up to a faster disk, and move the file from there",
        CopyError::Damaged(..) => "take an earlier backup",
    }
}

/// A copy that was not made: what happened and what to do.
pub(super) fn failure(what: &str, error: &CopyError, help: &str) -> Failure {
    let text = match error {
        CopyError::Room { path, needed, free } => {
            format!("{}: too little room: {} are needed, {} are free", path.display(), size(*needed), size(*free))
        }
        error => error.to_string(),
    };
    let text = format!("{what}: {text}\n  help: {help}");
    match error {
        CopyError::Missing(_)
        | CopyError::Exists(_)
        | CopyError::Open(OpenError::Locked(_) | OpenError::Migrate(..) | OpenError::Damaged(..)) => {
            Failure::Refused(text)
        }
        _ => Failure::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_in_a_folder_is_named_after_the_time() {
        assert_eq!(name_of(Timestamp::from_millis(1_705_314_600_212)), "conductor-2024-01-15T10-30-00Z.db");
    }
}
