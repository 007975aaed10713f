//! `conductor audit`

use std::str::FromStr;

use clap::{Args, Subcommand};
use conductor_core::audit::{AuditEntry, AuditFilter, Hash, hex};
use conductor_core::{AuditKind, NotificationId, Timestamp};
use conductor_store::{AuditFile, AuditFileError, OpenError};

use super::{Ended, Failure, Session, choose_tenant};
use crate::api::audit::AuditItem;
use crate::config::settings::Settings;

const VERIFY_HELP: &str = "\
Example:
  conductor audit verify
  conductor audit verify --head 1205:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

Reads the audit log in DATA_DIR, also while the server runs, and changes nothing. Exit code 0: it is whole; 1: \
something was changed, removed or inserted, and each is named.
Whoever can write the file can also cut the log's end off, or write it anew as a whole. Note the printed head \
somewhere else and pass it later: then that shows too.
If it fails, DATA_DIR has to name the folder of the store.";

const EXPORT_HELP: &str = "\
Example:
  conductor audit export > audit.jsonl
  conductor audit export --from 2026-01-01T00:00:00Z --tenant Acme --kind accepted

Prints the audit log in DATA_DIR as JSON Lines, oldest first, also while the server runs.
If it fails, DATA_DIR has to name the folder of the store.";

/// The most faults that are told one by one.
const FAULTS_TOLD_MAX: u64 = 100;

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prove that nothing in it was changed, removed or inserted
    Verify(Verify),
    /// Print it as JSON Lines
    Export(Export),
}

/// What it is held against.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub struct Verify {
    /// An entry that was noted elsewhere: its number and hash, as this command printed them
    #[arg(long, value_name = "SEQ:HASH")]
    head: Option<String>,
}

/// What is printed; everything that is given has to fit.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_HELP)]
pub struct Export {
    /// Written at this time or later, such as 2026-01-15T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Written before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Of this tenant, by its name or its id
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Of this kind, such as accepted
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Of this notification
    #[arg(long, value_name = "ID")]
    notification: Option<String>,
}

pub(super) fn run(command: &Command, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    match command {
        Command::Verify(arguments) => verify(arguments, settings, session),
        Command::Export(arguments) => export(arguments, settings, session),
    }
}

fn verify(arguments: &Verify, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let noted = arguments.head.as_deref().map(head).transpose()?;
    let mut faults = Vec::new();
    let verdict = open(settings)?.verify(noted, |fault| {
        if faults.len() as u64 <= FAULTS_TOLD_MAX {
            faults.push(fault);
        }
    });
    let verdict = verdict.map_err(|error| failure(&error))?;
    for fault in faults.iter().take(usize::try_from(FAULTS_TOLD_MAX).unwrap_or(usize::MAX)) {
        writeln!(session.out, "❌ {fault}")?;
    }
    if let Some(more) = verdict.faults.checked_sub(FAULTS_TOLD_MAX).filter(|more| *more > 0) {
        writeln!(session.out, "❌ and {more} more")?;
    }
    let entries = match (verdict.entries, verdict.first) {
        (0, _) => "no entry yet".to_owned(),
        (1, 1) => "1 entry".to_owned(),
        (entries, 1) => format!("{entries} entries"),
        (entries, first) => format!("{entries} entries, from {first} on; those before it were old"),
    };
    if verdict.faults > 0 {
        writeln!(session.out, "The audit log is not as it was written: {} faults in {entries}.", verdict.faults)?;
        return Ok(Ended::Badly);
    }
    if let Some((seq, _)) = noted.filter(|(seq, _)| *seq < verdict.first) {
        writeln!(
            session.out,
            "Entry {seq}, which was noted, was removed as old since then: it proves nothing any more."
        )?;
    }
    let (seq, hash) = verdict.head;
    writeln!(session.out, "✅ The audit log is whole: {entries}.\nHead: {seq}:{}", hex(&hash))?;
    Ok(Ended::Well)
}

/// An entry as `verify` prints it.
fn head(text: &str) -> Result<(u64, Hash), Failure> {
    let read = || {
        let (seq, digits) = text.trim().split_once(':')?;
        let (seq, digits) = (seq.parse().ok().filter(|seq| *seq > 0)?, digits.as_bytes());
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        (digits.len() == 64).then_some((seq, hash))
    };
    read().ok_or_else(|| {
        Failure::Refused(format!(
            "--head is {text:?}\n  expected: a number, a colon and 64 hexadecimal digits\n  \
             help: pass what `conductor audit verify` printed after \"Head:\""
        ))
    })
}

fn export(arguments: &Export, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let time = |flag: &str, text: &Option<String>| {
        let read = |text: &String| Timestamp::parse(text).map_err(|error| wrong(flag, text, &error.to_string()));
        text.as_ref().map(read).transpose()
    };
    let kinds = || AuditKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    let filter = AuditFilter {
        from: time("--from", &arguments.from)?,
        to: time("--to", &arguments.to)?,
        kind: read("--kind", arguments.kind.as_deref(), || format!("expected one of {}", kinds()))?,
        notification: read::<NotificationId>("--notification", arguments.notification.as_deref(), || {
            "expected the id of a notification".to_owned()
        })?,
    };
    let tenant = match arguments.tenant.as_deref() {
        // One that is configured no more still has its entries.
        Some(text) => match text.parse() {
            Ok(id) => Some(id),
            Err(_) => Some(choose_tenant(Some(text), settings)?.id),
        },
        None => None,
    };
    let out = &mut *session.out;
    let written = open(settings)?.export(tenant, &filter, |entry: &AuditEntry| -> Result<(), Stopped> {
        let line = serde_json::to_string(&AuditItem::from(entry)).expect("an entry is JSON");
        Ok(writeln!(out, "{line}")?)
    });
    match written {
        Ok(()) => Ok(Ended::Well),
        Err(Stopped::File(error)) => Err(failure(&error)),
        Err(Stopped::Output(error)) => Err(error.into()),
    }
}

/// Why an export ended early.
enum Stopped {
    File(AuditFileError),
    Output(std::io::Error),
}

impl From<AuditFileError> for Stopped {
    fn from(error: AuditFileError) -> Self {
        Self::File(error)
    }
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

fn read<T: FromStr>(flag: &str, text: Option<&str>, expected: impl Fn() -> String) -> Result<Option<T>, Failure> {
    text.map(|text| text.parse().map_err(|_| wrong(flag, text, &expected()))).transpose()
}

fn wrong(flag: &str, found: &str, expected: &str) -> Failure {
    Failure::Refused(format!("{flag} is {found:?}\n  help: {expected}"))
}

fn open(settings: &Settings) -> Result<AuditFile, Failure> {
    AuditFile::open(&settings.data_dir).map_err(|error| failure(&error))
}

fn failure(error: &AuditFileError) -> Failure {
    let help = match error {
        AuditFileError::Missing(_) => {
            "DATA_DIR, or --data-dir, has to name the folder in which the server keeps its data"
        }
        AuditFileError::TooOld(_) => "start the server once, then try again",
        AuditFileError::Open(OpenError::Damaged(..)) | AuditFileError::Engine(_) => {
            "if it stays so, the file is damaged: put the last backup in its place"
        }
        AuditFileError::Open(_) => "this user has to be able to read the data folder",
    };
    let text = format!("{error}\n  help: {help}");
    match error {
        AuditFileError::Missing(_) | AuditFileError::TooOld(_) => Failure::Refused(text),
        AuditFileError::Open(_) | AuditFileError::Engine(_) => Failure::Failed(text),
    }
}
