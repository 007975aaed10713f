//! `conductor check`

use clap::Args;

use super::{Ended, Failure, Session, start};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor check
  conductor check --config-dir ./data/config && echo good

Reads the three files and every variable that they name, without a network, and tells all faults at once, \
each with its place and its mend. Exit code 0: the server would start; 2: it would not.
If it fails, mend what it tells, from the top: one fault often brings about others.";

/// Takes nothing beyond the process settings.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    start::load(settings, session)?;
    writeln!(session.out, "\nThe configuration in {} is good.", settings.config_dir.display())?;
    Ok(Ended::Well)
}
