//! `conductor health`

use std::time::Duration;

use clap::Args;

use super::client::Server;
use super::{Ended, Failure, Session, runtime};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor health
  conductor health --url https://conductor.example

Asks GET /health of the server on this machine, found by PORT and HOST. Exit code 0: it is well; 1: it is \
not, or does not answer. A container's health check can use it.
If it fails, see the server's log.";

const TIMEOUT: Duration = Duration::from_secs(5);

/// Which server.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The server's address, where it is not on this machine
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let server = Server::new(arguments.url.as_deref(), settings, TIMEOUT)?;
    let answer = runtime()?.block_on(server.get("/health"))?;
    if answer.status == 200 && answer.body.get("status").and_then(serde_json::Value::as_str) == Some("ok") {
        writeln!(session.out, "ok")?;
        return Ok(Ended::Well);
    }
    writeln!(session.out, "not well: /health answered {}", answer.status)?;
    Ok(Ended::Badly)
}
