//! The command line: one file a command.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use conductor_channels::Plugin;
use conductor_core::{Clock, TenantId};
use serde_json::Value;

use crate::clock::SystemClock;
use crate::config::edit::env_file::EnvFileError;
use crate::config::edit::{Document, EditError, ListFile};
use crate::config::environment::Environment;
use crate::config::first_run::{FirstRunError, RandomError};
use crate::config::report::{Fault, Place};
use crate::config::settings::{ProcessArguments, SettingError, Settings};

mod amounts;
mod audit;
mod backup;
mod channel;
mod channel_test;
mod check;
mod client;
mod doctor;
mod health;
mod init;
mod plugin;
mod reload;
mod restore;
mod schema;
mod send;
mod serve;
pub mod start;
mod tenant;
mod undumpable;

const EXAMPLES: &str = "\
Example:
  conductor                          make what is missing, then serve
  conductor check                    tell what is wrong with the configuration
  conductor send --channel log \"Hello\"

Exit codes: 0 it worked; 1 it did not; 2 the command or configuration is wrong.";

/// A self-hosted messaging gateway: one request in, delivered through Discord, a webhook, the log …, never lost.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "conductor", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct CommandLine {
    /// Settings of the process.
    #[command(flatten)]
    pub process: ProcessArguments,
    /// What to do; serving, where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (what `conductor` alone does): make what is missing, check the configuration, take notifications
    Serve(serve::Arguments),
    /// Make what is missing of the configuration, without serving
    Init(init::Arguments),
    /// Tell everything that is wrong with the configuration, without serving
    Check(check::Arguments),
    /// Look at everything that a server needs, and tell what to mend
    Doctor(doctor::Arguments),
    /// Copy the store into one file, also while a server uses it
    Backup(backup::Arguments),
    /// Put a backup into a data folder that has no store
    Restore(restore::Arguments),
    /// Print the JSON Schema of a configuration file
    Schema(schema::Arguments),
    /// Send a notification through a running server
    Send(send::Arguments),
    /// Ask a running server whether it is well
    Health(health::Arguments),
    /// Have a running server take over a changed configuration, and tell what has changed or what is wrong
    Reload(reload::Arguments),
    /// Add tenants, list them, change their keys
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Add channels, list them, try one
    #[command(subcommand)]
    Channel(channel::Command),
    /// List the plugins and their settings
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Prove that the audit log is whole, or print it
    #[command(subcommand)]
    Audit(audit::Command),
}

/// What a command works with.
pub struct Session<'a> {
    /// Every plugin of this build.
    pub plugins: &'static [Plugin],
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where relative paths begin and where the first `.env` lies.
    pub working_dir: PathBuf,
    /// Where a command's own output goes.
    pub out: &'a mut (dyn Write + Send),
}

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With what was hoped for: exit code 0.
    Well,
    /// With bad news, which it has told: exit code 1.
    Badly,
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command or the configuration is wrong; somebody has to change it. Exit code 2.
    #[error("{0}")]
    Refused(String),
    /// It was right, but did not work. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The output went nowhere. Exit code 1, and silent where the reader has just gone away.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

macro_rules! refused_by {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Refused(error.to_string())
            }
        })+
    };
}
refused_by!(SettingError, FirstRunError, EditError, EnvFileError, RandomError);

/// The process settings that only a server heeds, and those of its address.
const OF_THE_SERVER: [&str; 8] = [
    "log_level",
    "log_format",
    "log_filter",
    "metrics_addr",
    "public_url",
    "trusted_proxies",
    "retention",
    "audit_retention",
];
const OF_THE_ADDRESS: [&str; 2] = ["port", "host"];
/// The commands that heed everything, and those that heed the server's address.
const SERVING: [&str; 2] = ["serve", "doctor"];
const ASKING: [&str; 4] = ["init", "send", "health", "reload"];

/// The command line. The help of each command shows the process settings that it heeds; it takes the others as well, so
/// that a line is as good before any command.
fn command() -> clap::Command {
    let mut command = CommandLine::command();
    // Only a built command knows the global settings in its parts.
    command.build();
    command.mut_subcommands(|part| match part.get_name() {
        name if SERVING.contains(&name) => part,
        name if ASKING.contains(&name) => hide(part, &OF_THE_SERVER),
        _ => hide(hide(part, &OF_THE_SERVER), &OF_THE_ADDRESS),
    })
}

fn hide(command: clap::Command, settings: &[&str]) -> clap::Command {
    let is_hidden = |argument: &clap::Arg| settings.contains(&argument.get_id().as_str());
    let command = command.mut_args(|argument| if is_hidden(&argument) { argument.hide(true) } else { argument });
    command.mut_subcommands(|part| hide(part, settings))
}

/// Reads the command line and does what it says.
pub fn main(arguments: impl IntoIterator<Item = OsString>, plugins: &'static [Plugin]) -> ExitCode {
    undumpable::keep_memory();
    let parsed = command().try_get_matches_from(arguments);
    let line = match parsed.and_then(|matches| CommandLine::from_arg_matches(&matches)) {
        Ok(line) => line,
        Err(error) => error.exit(),
    };
    let working_dir = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let out = &mut io::stdout();
    let mut session = Session { plugins, clock: Arc::new(SystemClock), working_dir, out };
    let result = run(line, &mut session);
    let result = session.out.flush().map_err(Failure::from).and(result);
    match result {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Badly) => ExitCode::from(1),
        Err(failure) => {
            let (code, is_silent) = match &failure {
                Failure::Refused(_) => (2, false),
                Failure::Failed(_) => (1, false),
                Failure::Output(error) => (1, error.kind() == io::ErrorKind::BrokenPipe),
            };
            if !is_silent {
                // Where even the standard error is closed, the exit code has to do.
                let _ = writeln!(io::stderr(), "error: {failure}");
            }
            ExitCode::from(code)
        }
    }
}

/// Does what a command line says.
///
/// # Errors
/// It could not be done.
pub fn run(line: CommandLine, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let process = &line.process;
    match line.command.unwrap_or(Command::Serve(serve::Arguments {})) {
        Command::Serve(arguments) => serve::run(&arguments, &process.resolve()?, session),
        Command::Init(arguments) => init::run(&arguments, &process.resolve()?, session),
        Command::Check(arguments) => check::run(&arguments, &process.resolve()?, session),
        Command::Doctor(arguments) => doctor::run(&arguments, &process.resolve()?, session),
        Command::Backup(arguments) => backup::run(&arguments, &process.resolve()?, session),
        Command::Restore(arguments) => restore::run(&arguments, &process.resolve()?, session),
        Command::Schema(arguments) => schema::run(&arguments, session),
        Command::Send(arguments) => send::run(&arguments, &process.resolve()?, session),
        Command::Health(arguments) => health::run(&arguments, &process.resolve()?, session),
        Command::Reload(arguments) => reload::run(&arguments, &process.resolve()?, session),
        Command::Tenant(command) => tenant::run(&command, &process.resolve()?, session),
        Command::Channel(command) => channel::run(&command, &process.resolve()?, session),
        Command::Plugin(command) => plugin::run(&command, &process.resolve()?, session),
        Command::Audit(command) => audit::run(&command, &process.resolve()?, session),
    }
}

impl Session<'_> {
    /// The environment with both `.env` files. What is wrong with those stands in its faults.
    fn environment(&self, settings: &Settings) -> Environment {
        Environment::load(&self.working_dir, &settings.data_dir)
    }

    fn print_json(&mut self, value: &Value) -> Result<(), Failure> {
        writeln!(self.out, "{value:#}")?;
        Ok(())
    }
}

/// What `tenants.json` says of a tenant, as far as it can be understood.
struct TenantLine {
    id: TenantId,
    name: String,
    key_variable: String,
}

/// The tenants of the files, valid or not: most commands should work while something else is wrong.
fn tenants(settings: &Settings) -> Result<Vec<TenantLine>, Failure> {
    let document = Document::open(&settings.config_dir, ListFile::Tenants)?;
    let text = |entry: &Value, member: &str| entry.get(member).and_then(Value::as_str).map(str::to_owned);
    let line = |entry: &Value| {
        let id = text(entry, "id")?.parse().ok()?;
        Some(TenantLine { id, name: text(entry, "name")?, key_variable: text(entry, "authKeyEnvVar")? })
    };
    Ok(document.entries().iter().filter_map(line).collect())
}

/// The tenant that `wanted` names by id or name; the only one, where nothing is wanted.
fn choose_tenant(wanted: Option<&str>, settings: &Settings) -> Result<TenantLine, Failure> {
    let mut all = tenants(settings)?;
    let known = || all.iter().map(|tenant| format!("  {}  {}", tenant.id, one_line(&tenant.name))).collect::<Vec<_>>();
    let known = if all.is_empty() { "  (none)".to_owned() } else { known().join("\n") };
    let found: Vec<usize> = match wanted {
        None => (0..all.len()).collect(),
        Some(wanted) => {
            let id = wanted.parse().ok();
            let matches = |tenant: &TenantLine| Some(tenant.id) == id || tenant.name == wanted;
            all.iter().enumerate().filter(|(_, tenant)| matches(tenant)).map(|(index, _)| index).collect()
        }
    };
    match (found.as_slice(), wanted) {
        ([only], _) => Ok(all.swap_remove(*only)),
        ([], Some(wanted)) => {
            Err(Failure::Refused(format!("there is no tenant {wanted:?}\n  help: name one of these:\n{known}")))
        }
        ([], None) => Err(Failure::Refused(
            "there is no tenant\n  help: add one with `conductor tenant add \"Its Name\"`".to_owned(),
        )),
        (_, None) => Err(Failure::Refused(format!(
            "there are several tenants\n  help: name one with --tenant, by its name or its id:\n{known}"
        ))),
        (_, Some(wanted)) => Err(Failure::Refused(format!(
            "several tenants are called {wanted:?}\n  help: name one by its id:\n{known}"
        ))),
    }
}

/// Refuses a change that would bring errors.
fn refuse_errors(errors: &[Fault]) -> Result<(), Failure> {
    if errors.is_empty() {
        return Ok(());
    }
    let mut text = "this would make the configuration wrong, so nothing was changed".to_owned();
    for fault in errors {
        // The line is one of a copy that is gone; the file and the pointer say enough.
        let place = fault.place.clone().map(|place| {
            let file = place.file.file_name().map(PathBuf::from).unwrap_or_default();
            Place { file, position: None, pointer: place.pointer }
        });
        text.push_str(&format!("\n\n{}", Fault { place, ..fault.clone() }));
    }
    Err(Failure::Refused(text))
}

/// A text from a file or a server as it may stand in one line of a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}') { ' ' } else { c }).collect()
}

/// A table with a heading and columns as wide as what stands in them.
fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let cells: Vec<String> =
            widths.iter().zip(row).map(|(width, cell)| format!("{cell:<width$}", width = *width)).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A runtime for one request: no threads of its own.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(format!("the runtime cannot be started: {error}")))
}

#[cfg(test)]
mod tests;
