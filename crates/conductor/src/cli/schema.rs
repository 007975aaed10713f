//! `conductor schema`

use clap::{Args, ValueEnum};

use super::{Ended, Failure, Session};
use crate::config::schema;

const HELP: &str = "\
Example:
  conductor schema channels > channels.schema.json

Then begin channels.json with { \"$schema\": \"./channels.schema.json\", \"channels\": [ … ] }, and an editor \
completes the file and marks mistakes. If the editor does not, check that the path is right.";

/// Which file.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The file that the schema describes
    #[arg(value_enum)]
    file: File,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum File {
    Tenants,
    Channels,
    Plugins,
}

pub(super) fn run(arguments: &Arguments, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let schema = match arguments.file {
        File::Tenants => schema::tenants(),
        File::Channels => schema::channels(session.plugins),
        File::Plugins => schema::plugins(session.plugins),
    };
    session.print_json(&schema)?;
    Ok(Ended::Well)
}
