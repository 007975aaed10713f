//! Where a running server's configuration is read anew.

use std::path::PathBuf;

use conductor_channels::Plugin;

use super::environment::Environment;
use super::load::load;
use super::model::Configuration;
use super::readings::Readings;
use super::report::{Fault, Report};
use super::settings::{ProcessArguments, Settings};

/// Reads the three files, the `.env` files and the files of `_FILE` variables again.
pub struct Source {
    /// Where the three files lie.
    pub config_dir: PathBuf,
    /// Every plugin of this build.
    pub plugins: &'static [Plugin],
    /// The process settings, which stay as they are until the next start; none where nobody could ask for others.
    pub settings: Option<Settings>,
    /// Reads the variables.
    pub environment: Box<dyn Fn() -> Environment + Send + Sync>,
}

/// What was read.
pub struct Loaded {
    /// A good configuration with its warnings, or everything that is wrong.
    pub outcome: Result<(Configuration, Report), Report>,
    /// What was read to find that out.
    pub readings: Readings,
}

impl Source {
    /// Reads and checks everything as at the start.
    pub fn load(&self) -> Loaded {
        let environment = (self.environment)();
        let outcome = load(&self.config_dir, &environment, self.plugins);
        let readings = environment.readings();
        let unheeded = self.settings.as_ref().map(|settings| unheeded(settings, &environment)).unwrap_or_default();
        let outcome = outcome.map(|(mut configuration, mut report)| {
            if let Some(settings) = &self.settings {
                configuration.keep.whole = settings.retention;
            }
            unheeded.into_iter().for_each(|fault| report.add(fault));
            (configuration, report)
        });
        Loaded { outcome, readings }
    }
}

/// A process setting: its variable, where an argument of that meaning goes, and whether two processes have the same.
type ProcessSetting =
    (&'static str, fn(&mut ProcessArguments) -> &mut Option<String>, fn(&Settings, &Settings) -> bool);

const PROCESS_SETTINGS: [ProcessSetting; 11] = [
    ("PORT", |given| &mut given.port, |one, other| one.port == other.port),
    ("HOST", |given| &mut given.host, |one, other| one.host == other.host),
    ("CONDUCTOR_CONFIG_DIR", |given| &mut given.config_dir, |one, other| one.config_dir == other.config_dir),
    ("CONFIG_DIR", |given| &mut given.config_dir, |one, other| one.config_dir == other.config_dir),
    ("DATA_DIR", |given| &mut given.data_dir, |one, other| one.data_dir == other.data_dir),
    ("LOG_LEVEL", |given| &mut given.log_level, |one, other| one.logs.filter == other.logs.filter),
    ("RUST_LOG", |given| &mut given.log_filter, |one, other| one.logs.filter == other.logs.filter),
    ("LOG_FORMAT", |given| &mut given.log_format, |one, other| one.logs.as_json == other.logs.as_json),
    ("METRICS_ADDR", |given| &mut given.metrics_addr, |one, other| one.metrics_addr == other.metrics_addr),
    ("PUBLIC_URL", |given| &mut given.public_url, |one, other| one.public_url == other.public_url),
    ("RETENTION", |given| &mut given.retention, |one, other| one.retention == other.retention),
];

/// Process settings that stand in a `.env` file with another value than the process has: neither a reload nor a start
/// takes them from there.
fn unheeded(settings: &Settings, environment: &Environment) -> Vec<Fault> {
    let differs = |(name, place, same): &ProcessSetting| {
        let value = environment.in_files(name)?;
        let mut given = ProcessArguments::default();
        *place(&mut given) = Some(value.to_owned());
        let is_so = given.resolve().is_ok_and(|wanted| same(settings, &wanted));
        let found = format!("{name} stands in a .env file, and is not taken from there");
        let help = format!("set {name} in the environment of the process, or use its flag, and start the server again");
        let expected = "in .env what the three files name; settings of the process cannot change while it runs";
        (!is_so).then(|| Fault::error(found).as_warning().expected(expected).help(help))
    };
    PROCESS_SETTINGS.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_setting_in_an_env_file_is_told_unless_the_process_has_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let text = "PORT=4000\nHOST=127.0.0.1\nRETENTION=90d\nLOG_LEVEL=loud\nPUBLIC_URL=\nKEY=x\n";
        std::fs::write(folder.path().join(".env"), text).unwrap();
        let environment = Environment::load(folder.path(), folder.path());
        let text = |value: &str| Some(value.to_owned());
        let arguments = ProcessArguments { port: text("4000"), retention: text("90d"), ..Default::default() };
        let found = unheeded(&arguments.resolve().unwrap(), &environment);
        let named: Vec<_> = found.iter().map(|fault| fault.found.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(named, ["HOST", "LOG_LEVEL"]);
    }
}
