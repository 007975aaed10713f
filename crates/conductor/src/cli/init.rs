//! `conductor init`

use clap::Args;

use super::{Ended, Failure, Session, start};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor init
  conductor init --config-dir /etc/conductor --data-dir /var/lib/conductor

Makes the folders, tenants.json with one tenant, channels.json with a `log` channel, plugins.json, and the \
keys in .env of the data folder. What is there already is never changed.
If it fails, it says which file or folder it could not make: give that to the user who runs Conductor.";

/// Takes nothing beyond the process settings.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let first = start::make_missing(settings, session)?;
    write!(session.out, "{}", start::found(&first, settings))?;
    write!(session.out, "{}", start::banner(&first, &settings.local_url(settings.port)))?;
    start::load(settings, session)?;
    writeln!(session.out, "\nReady: start the server with `conductor`.")?;
    Ok(Ended::Well)
}
