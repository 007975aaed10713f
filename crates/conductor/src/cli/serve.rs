//! `conductor serve`

use clap::Args;

use super::{Ended, Failure, Session, start};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor serve
  PORT=8080 DATA_DIR=/var/lib/conductor conductor serve

Makes what is missing of the configuration, checks it, and takes notifications until SIGTERM or SIGINT.
If it fails, it says what to mend, and nothing has been started.";

/// Takes nothing beyond the process settings.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let first = start::make_missing(settings, session)?;
    write!(session.out, "{}", start::banner(&first, settings, &settings.local_url(settings.port)))?;
    start::load(settings, session)?;
    Err(Failure::Failed("this build has no server".to_owned()))
}
