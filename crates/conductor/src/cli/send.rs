//! `conductor send`

use std::io::Read;
use std::time::Duration;

use clap::{Args, ValueEnum};
use conductor_core::Secret;
use conductor_core::notification::MESSAGE_MAX_BYTES;
use serde_json::{Map, Value};

use super::client::{Answer, Server};
use super::{Ended, Failure, Session, choose_tenant, one_line, runtime};
use crate::config::environment::Lookup;
use crate::config::name_or_stars;
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor send --channel log \"The backup is done\"
  conductor send --channel discord --priority high --wait 10 \"It failed\"
  df -h | conductor send --channel log -

The key is the tenant's, found as tenants.json says in the environment or a .env file; --key-env names \
another variable. Exit code 0: the server has it (with --wait: the provider has it, or the time passed); \
1: it was refused or could not be sent; 2: the command is wrong or no key was found.
If it fails, the answer says why; GET /notifications/<id> tells the whole story.";

/// The server's own limit of `Prefer: wait`.
const WAIT_MAX_SECONDS: u64 = 30;
const TIMEOUT: Duration = Duration::from_secs(15);

/// What to send, and how.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The text; - reads it from the standard input
    message: String,
    /// The channel's type, such as log or discord
    #[arg(long, short, value_name = "TYPE", required_unless_present = "channel_id")]
    channel: Option<String>,
    /// The channel's id, where there are several of a type
    #[arg(long, value_name = "ID")]
    channel_id: Option<String>,
    /// A heading
    #[arg(long, short)]
    title: Option<String>,
    /// How urgent it is
    #[arg(long, short, value_enum, default_value_t = PriorityWord::Normal)]
    priority: PriorityWord,
    /// The address within the provider, where it is not the channel's own
    #[arg(long, value_name = "ADDRESS")]
    target: Option<String>,
    /// How many seconds to wait for the outcome, 30 at most
    #[arg(long, short, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=WAIT_MAX_SECONDS))]
    wait: u64,
    /// The server's address, where it is not on this machine
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The tenant whose key is used, by name or id, where there are several
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The variable that holds the key
    #[arg(long, value_name = "NAME", conflicts_with = "tenant")]
    key_env: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PriorityWord {
    Low,
    Normal,
    High,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let body = body(arguments)?;
    let key = key(arguments, settings, session)?;
    let timeout = TIMEOUT + Duration::from_secs(arguments.wait);
    let server = Server::new(arguments.url.as_deref(), settings, timeout)?;
    let answer = runtime()?.block_on(server.post("/notifications", &key, arguments.wait, &body))?;
    let (ended, words) = in_words(&answer, arguments.wait);
    writeln!(session.out, "{words}")?;
    Ok(ended)
}

fn body(arguments: &Arguments) -> Result<Value, Failure> {
    let message = match arguments.message.as_str() {
        "-" => read_input()?,
        message => message.to_owned(),
    };
    if message.trim().is_empty() {
        return Err(Failure::Refused("the text is empty\n  help: write it in quotes after the flags".to_owned()));
    }
    let priority = match arguments.priority {
        PriorityWord::Low => "low",
        PriorityWord::Normal => "normal",
        PriorityWord::High => "high",
    };
    let mut body = Map::new();
    body.insert("message".to_owned(), message.into());
    body.insert("priority".to_owned(), priority.into());
    let optional = [
        ("channel", &arguments.channel),
        ("channelId", &arguments.channel_id),
        ("title", &arguments.title),
        ("targetId", &arguments.target),
    ];
    for (member, value) in optional {
        if let Some(value) = value {
            body.insert(member.to_owned(), value.as_str().into());
        }
    }
    Ok(Value::Object(body))
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    let limit = u64::try_from(MESSAGE_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
    read.map_err(|error| Failure::Refused(format!("the standard input cannot be read as text: {error}")))?;
    if text.len() > MESSAGE_MAX_BYTES {
        return Err(Failure::Refused(format!("the text is longer than {MESSAGE_MAX_BYTES} bytes\n  help: shorten it")));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn key(arguments: &Arguments, settings: &Settings, session: &Session<'_>) -> Result<Secret, Failure> {
    let variable = match &arguments.key_env {
        Some(name) => name.clone(),
        None => choose_tenant(arguments.tenant.as_deref(), settings)?.key_variable,
    };
    let trouble = match session.environment(settings).lookup(&variable) {
        Lookup::Found { value, .. } => return Ok(value),
        Lookup::Empty => "is empty".to_owned(),
        Lookup::Missing => "is set nowhere".to_owned(),
        Lookup::Unreadable { path, reason } => format!("names {}, which cannot be read: {reason}", path.display()),
    };
    Err(Failure::Refused(format!(
        "no key: {} {trouble}\n  help: set it to the tenant's API key, in the environment or in {}",
        name_or_stars(&variable),
        settings.data_dir.join(".env").display()
    )))
}

/// What the answer means to a person.
fn in_words(answer: &Answer, wait: u64) -> (Ended, String) {
    let word = |member: &str| answer.body.get(member).and_then(Value::as_str).map(one_line);
    let id = word("id").unwrap_or_else(|| "without an id".to_owned());
    let status = word("status").unwrap_or_else(|| "accepted".to_owned());
    match answer.status {
        200 => (Ended::Well, format!("Sent: {id}")),
        202 if wait > 0 => (Ended::Well, format!("Accepted, and still {status} after {wait} s: {id}")),
        202 => (Ended::Well, format!("Accepted, {status}: {id}")),
        code => {
            let reason = word("error").or_else(|| word("detail")).unwrap_or_else(|| "no reason was given".to_owned());
            let what = if code == 502 { "Not sent" } else { "Refused" };
            let mut text = format!("{what} ({code}): {reason}");
            for detail in answer.body.get("details").and_then(Value::as_array).into_iter().flatten() {
                let part = |member: &str| detail.get(member).and_then(Value::as_str).map(one_line).unwrap_or_default();
                text.push_str(&format!("\n  {}: {}", part("field"), part("message")));
            }
            if word("id").is_some() {
                text.push_str(&format!("\n  id: {id}"));
            }
            (Ended::Badly, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(status: u16, body: Value, wait: u64) -> (Ended, String) {
        in_words(&Answer { status, body }, wait)
    }

    #[test]
    fn an_answer_is_told_in_words() {
        let queued = json!({ "id": "i", "status": "queued" });
        assert_eq!(words(202, queued.clone(), 0), (Ended::Well, "Accepted, queued: i".to_owned()));
        assert_eq!(words(202, queued, 5), (Ended::Well, "Accepted, and still queued after 5 s: i".to_owned()));
        assert_eq!(words(200, json!({ "id": "i", "status": "sent" }), 5), (Ended::Well, "Sent: i".to_owned()));
        let failed = json!({ "id": "i", "status": "failed", "error": "Unknown\nChannel" });
        assert_eq!(words(502, failed, 5), (Ended::Badly, "Not sent (502): Unknown Channel\n  id: i".to_owned()));
        let refused = json!({ "error": "not valid", "details": [{ "field": "channel", "message": "use log" }] });
        assert_eq!(words(400, refused, 0), (Ended::Badly, "Refused (400): not valid\n  channel: use log".to_owned()));
        assert_eq!(words(500, Value::Null, 0), (Ended::Badly, "Refused (500): no reason was given".to_owned()));
    }
}
