//! `conductor reload`

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use conductor_core::Secret;
use serde_json::{Value, json};

use super::client::{Answer, Server};
use super::{Ended, Failure, Session, one_line, runtime};
use crate::config::settings::Settings;
use crate::config::{ADMIN_KEY_VARIABLE, Lookup};

const HELP: &str = "\
Example:
  conductor reload
  conductor reload --url https://conductor.example

Has the running server read its configuration again, and prints what it took over, or everything that is \
wrong with it, exactly as a start would. The server does so by itself when a file changes, and on SIGHUP; \
this tells what came of it. CONDUCTOR_ADMIN_KEY has to be the server's; .env is read too.
Exit code 0: it is in use; 2: it has faults, and the server goes on with the one before.
If it fails otherwise, see the server's log.";

/// Longer than the server takes before it gives up.
const TIMEOUT: Duration = Duration::from_secs(80);

/// Which server.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The server's address, where it is not on this machine
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let key = operator_key(settings, session)?;
    let server = Server::new(arguments.url.as_deref(), settings, TIMEOUT)?;
    let answer = runtime()?.block_on(server.post("/reload", &key, 0, &json!({})))?;
    match answer.status {
        200 if arguments.json => session.print_json(&answer.body)?,
        200 => write!(session.out, "{}", taken_over(&answer.body))?,
        422 => return Err(Failure::Refused(refused(&answer.body))),
        _ => return Err(unexpected(&answer, settings)),
    }
    Ok(Ended::Well)
}

fn operator_key(settings: &Settings, session: &Session<'_>) -> Result<Secret, Failure> {
    match session.environment(settings).lookup(ADMIN_KEY_VARIABLE) {
        Lookup::Found { value, .. } => Ok(value),
        _ => Err(Failure::Refused(format!(
            "{ADMIN_KEY_VARIABLE} is not set\n  expected: the operator's key, as the server has it\n  \
             help: set it, in the environment or in {}; a server without one reloads on SIGHUP",
            settings.data_dir.join(".env").display()
        ))),
    }
}

/// What a person reads of what was taken over.
fn taken_over(answer: &Value) -> String {
    let configuration = &answer["configuration"];
    let word = |value: &Value| one_line(value.as_str().unwrap_or_default());
    let (version, hash) = (&configuration["version"], word(&configuration["hash"]));
    let mut text = String::new();
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        text.push_str(&format!("{}\n\n", many_lines(warning.as_str().unwrap_or_default())));
    }
    if answer["changedAnything"] != true {
        return text + &format!("Nothing has changed: configuration {version} ({hash}) stays in use.\n");
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Configuration {version} ({hash}) is in use.");
    for (heading, member) in [("Added", "added"), ("Changed", "changed"), ("Removed", "removed")] {
        let list = |kind: &str| answer[member][kind].as_array().cloned().unwrap_or_default();
        let (tenants, channels) = (list("tenants"), list("channels"));
        if tenants.is_empty() && channels.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{heading}");
        for tenant in &tenants {
            let _ = writeln!(text, "  tenant   {} ({})", word(&tenant["tenantName"]), word(&tenant["tenantId"]));
        }
        for channel in &channels {
            let (name, kind) = (word(&channel["channelName"]), word(&channel["channelType"]));
            let _ = writeln!(text, "  channel  {name} ({kind}, {})", word(&channel["channelId"]));
        }
    }
    if answer["operatorKeyChanged"] == true {
        text.push_str("\nThe operator's key is another one now.\n");
    }
    text
}

/// The faults, as a start tells them.
fn refused(answer: &Value) -> String {
    let text = |member: &str| one_line(answer[member].as_str().unwrap_or_default());
    let details = answer["details"].as_array().cloned().unwrap_or_default();
    let mut faults = String::new();
    for fault in details {
        faults.push_str(&many_lines(fault["message"].as_str().unwrap_or_default()));
        faults.push_str("\n\n");
    }
    format!(
        "the configuration in {} cannot be used\n\n{faults}{}\n\nMend it, then try again; `conductor check` tells what \
         is left. The server goes on with the configuration before.",
        text("folder"),
        text("summary"),
    )
}

/// Lines of a server as they may stand in a terminal.
fn many_lines(text: &str) -> String {
    text.lines().map(one_line).collect::<Vec<_>>().join("\n")
}

fn unexpected(answer: &Answer, settings: &Settings) -> Failure {
    let said = one_line(answer.body["error"].as_str().unwrap_or("it did not say why"));
    let help = match answer.status {
        401 | 403 => format!(
            "{ADMIN_KEY_VARIABLE} has to be the key that the server has read last, from its environment or {}; it \
             reloads on SIGHUP too",
            settings.data_dir.join(".env").display()
        ),
        _ => "see the server's log".to_owned(),
    };
    Failure::Failed(format!("the server did not reload: it answered {}\n  {said}\n  help: {help}", answer.status))
}
