//! The process's own settings: flags, or the process's environment. Neither `.env` nor the three files can set them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use conductor_core::audit::AUDIT_KEPT;
use conductor_core::retention::KEPT;
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::model::Lasting;
use super::values::{self, parse_lasting};

/// The port where neither `--port` nor `PORT` says another.
pub const DEFAULT_PORT: u16 = 3333;

const HEADING: &str = "Process settings (a flag or the environment, but not a .env file)";

/// The process settings as they were typed. [`ProcessArguments::resolve`] checks them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = HEADING)]
pub struct ProcessArguments {
    /// The port to listen on [default: 3333]
    #[arg(long, env = "PORT", global = true, value_name = "PORT")]
    pub port: Option<String>,
    /// The address or host name to listen on [default: 0.0.0.0]
    #[arg(long, env = "HOST", global = true, value_name = "HOST")]
    pub host: Option<String>,
    /// The folder of tenants.json, channels.json and plugins.json; CONFIG_DIR is read too [default: data/config]
    #[arg(long, env = "CONDUCTOR_CONFIG_DIR", global = true, value_name = "FOLDER")]
    pub config_dir: Option<String>,
    /// The second variable that may name the configuration's folder.
    #[arg(long, env = "CONFIG_DIR", global = true, hide = true, value_name = "FOLDER")]
    pub config_dir_fallback: Option<String>,
    /// The folder of the store and of .env [default: data]
    #[arg(long, env = "DATA_DIR", global = true, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// How much is logged: off, error, warn, info, debug or trace [default: info]
    #[arg(long, env = "LOG_LEVEL", global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How logs are written: text, or json (one object a line) [default: text]
    #[arg(long, env = "LOG_FORMAT", global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What is logged, target by target, such as conductor=debug,hyper=info; wins over --log-level
    #[arg(long, env = "RUST_LOG", global = true, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// A second address that serves /metrics alone, such as 127.0.0.1:9090
    #[arg(long, env = "METRICS_ADDR", global = true, value_name = "ADDRESS")]
    pub metrics_addr: Option<String>,
    /// Where providers reach this server, such as https://conductor.example
    #[arg(long, env = "PUBLIC_URL", global = true, value_name = "URL")]
    pub public_url: Option<String>,
    /// The proxies before this server, as networks, whose X-Forwarded-For or Forwarded is believed
    #[arg(long, env = "TRUSTED_PROXIES", global = true, value_name = "NETWORKS")]
    pub trusted_proxies: Option<String>,
    /// How long ended notifications are kept: a duration from 1h on, or forever [default: 30d]
    #[arg(long, env = "RETENTION", global = true, value_name = "TIME")]
    pub retention: Option<String>,
    /// How long the audit log is kept: a duration from 1h on, or forever [default: 365d]
    #[arg(long, env = "AUDIT_RETENTION", global = true, value_name = "TIME")]
    pub audit_retention: Option<String>,
}

/// The process settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `HOST`: an address or a name, without a port.
    pub host: String,
    /// `PORT`; 0 lets the system choose one.
    pub port: u16,
    /// Where the three files lie.
    pub config_dir: PathBuf,
    /// Where the store and `.env` lie.
    pub data_dir: PathBuf,
    /// What is logged.
    pub logs: LogSettings,
    /// `METRICS_ADDR`
    pub metrics_addr: Option<SocketAddr>,
    /// `PUBLIC_URL`
    pub public_url: Option<Url>,
    /// `TRUSTED_PROXIES`: who is believed when he says whom he speaks for.
    pub trusted_proxies: Vec<IpNet>,
    /// `RETENTION`: how long ended notifications are kept; none means for ever.
    pub retention: Option<Duration>,
    /// `AUDIT_RETENTION`: how long the audit log is kept; none means for ever.
    pub audit_retention: Option<Duration>,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Directives as `RUST_LOG` writes them.
    pub filter: String,
    /// `LOG_FORMAT=json`: one JSON object a line instead of text.
    pub as_json: bool,
}

/// A process setting with a bad value, told with its mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag} (or the variable {variable}) is {found:?}\n  expected: {expected}\n  help: {help}")]
pub struct SettingError {
    /// The flag.
    pub flag: &'static str,
    /// The environment variable of the same meaning.
    pub variable: &'static str,
    /// The value.
    pub found: String,
    /// What it should look like.
    pub expected: &'static str,
    /// How to mend it.
    pub help: &'static str,
}

impl ProcessArguments {
    /// Checks them all and fills in the defaults. An empty value means the default, because that is what Compose makes
    /// of a variable that nobody set.
    ///
    /// # Errors
    /// The first setting that has a bad value.
    pub fn resolve(&self) -> Result<Settings, SettingError> {
        let config_dir = given(&self.config_dir).or_else(|| given(&self.config_dir_fallback));
        Ok(Settings {
            host: host(given(&self.host).unwrap_or("0.0.0.0"))?,
            port: given(&self.port).map_or(Ok(DEFAULT_PORT), port)?,
            config_dir: config_dir.unwrap_or("data/config").into(),
            data_dir: given(&self.data_dir).unwrap_or("data").into(),
            logs: LogSettings { filter: self.filter()?, as_json: given(&self.log_format).map_or(Ok(false), is_json)? },
            metrics_addr: given(&self.metrics_addr).map(metrics_addr).transpose()?,
            public_url: given(&self.public_url).map(public_url).transpose()?,
            trusted_proxies: given(&self.trusted_proxies).map_or(Ok(Vec::new()), trusted_proxies)?,
            retention: given(&self.retention).map_or(Ok(Some(KEPT)), |text| retention(text, &OF_NOTIFICATIONS))?,
            audit_retention: given(&self.audit_retention)
                .map_or(Ok(Some(AUDIT_KEPT)), |text| retention(text, &OF_AUDIT))?,
        })
    }

    fn filter(&self) -> Result<String, SettingError> {
        if let Some(filter) = given(&self.log_filter) {
            let bad = |_| SettingError {
                flag: "--log-filter",
                variable: "RUST_LOG",
                found: filter.to_owned(),
                expected: "directives of the form target=level, separated by commas",
                help: "write for example RUST_LOG=info or RUST_LOG=conductor=debug,hyper=info",
            };
            return EnvFilter::builder().parse(filter).map(|_| filter.to_owned()).map_err(bad);
        }
        level(given(&self.log_level).unwrap_or("info"))
    }
}

impl Settings {
    /// Where a program on this machine reaches the server, with `port` as the port that it really listens on. A host
    /// that means "every address" becomes `localhost`.
    pub fn local_url(&self, port: u16) -> String {
        let host = match self.host.as_str() {
            "0.0.0.0" | "::" => "localhost".to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        format!("http://{host}:{port}")
    }

    /// The same for a program that should not have to ask a resolver: "every address" becomes the loopback address.
    pub fn loopback_url(&self) -> String {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1".to_owned(),
            "::" => "[::1]".to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        format!("http://{host}:{}", self.port)
    }
}

fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().map(str::trim).filter(|value| !value.is_empty())
}

fn port(text: &str) -> Result<u16, SettingError> {
    text.parse().map_err(|_| SettingError {
        flag: "--port",
        variable: "PORT",
        found: text.to_owned(),
        expected: "a number from 1 to 65535 (or 0 for any free port)",
        help: "write for example PORT=3333",
    })
}

fn host(text: &str) -> Result<String, SettingError> {
    let host = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if is_name || host.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(host.to_owned());
    }
    Err(SettingError {
        flag: "--host",
        variable: "HOST",
        found: text.to_owned(),
        expected: "an address such as 0.0.0.0, 127.0.0.1 or ::1, or a host name, without a port",
        help: "write for example HOST=127.0.0.1, and the port as PORT=3333",
    })
}

fn level(text: &str) -> Result<String, SettingError> {
    let level = match text.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        level @ ("off" | "error" | "warn" | "info" | "debug" | "trace") => level.to_owned(),
        _ => {
            return Err(SettingError {
                flag: "--log-level",
                variable: "LOG_LEVEL",
                found: text.to_owned(),
                expected: "off, error, warn, info, debug or trace",
                help: "write for example LOG_LEVEL=info; RUST_LOG sets levels target by target",
            });
        }
    };
    let others = if matches!(level.as_str(), "off" | "error") { &level } else { "warn" };
    // The plugin `log` delivers by writing: a quieter log must not lose what it has called sent.
    let deliveries = if matches!(level.as_str(), "error" | "warn") { ",conductor::plugin::log=info" } else { "" };
    Ok(format!("{others},conductor={level}{deliveries}"))
}

fn is_json(text: &str) -> Result<bool, SettingError> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err(SettingError {
            flag: "--log-format",
            variable: "LOG_FORMAT",
            found: text.to_owned(),
            expected: "text or json",
            help: "write LOG_FORMAT=json for one JSON object a line",
        }),
    }
}

fn metrics_addr(text: &str) -> Result<SocketAddr, SettingError> {
    text.parse().map_err(|_| SettingError {
        flag: "--metrics-addr",
        variable: "METRICS_ADDR",
        found: text.to_owned(),
        expected: "an address with a port",
        help: "write for example METRICS_ADDR=127.0.0.1:9090",
    })
}

fn public_url(text: &str) -> Result<Url, SettingError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| SettingError {
        flag: "--public-url",
        variable: "PUBLIC_URL",
        found: text.to_owned(),
        expected: "a URL that begins with http:// or https://",
        help: "write for example PUBLIC_URL=https://conductor.example",
    })
}

/// Networks, or single addresses, separated by commas or spaces.
fn trusted_proxies(text: &str) -> Result<Vec<IpNet>, SettingError> {
    let parts = text.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty());
    let network = |part: &str| part.parse().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from));
    parts.map(network).collect::<Option<Vec<_>>>().ok_or_else(|| SettingError {
        flag: "--trusted-proxies",
        variable: "TRUSTED_PROXIES",
        found: text.to_owned(),
        expected: "addresses or networks as CIDR, separated by commas",
        help: "write for example TRUSTED_PROXIES=127.0.0.1,172.16.0.0/12",
    })
}

/// A setting that says how long something is kept: flag, variable, an example.
type Keeping = (&'static str, &'static str, &'static str);

const OF_NOTIFICATIONS: Keeping = ("--retention", "RETENTION", "write for example RETENTION=90d");
const OF_AUDIT: Keeping = ("--audit-retention", "AUDIT_RETENTION", "write for example AUDIT_RETENTION=1825d");

fn retention(text: &str, (flag, variable, help): &Keeping) -> Result<Option<Duration>, SettingError> {
    let in_range = |lasting: &Lasting| lasting.duration().is_none_or(|duration| values::KEPT.contains(&duration));
    let lasting = parse_lasting(&text.to_ascii_lowercase()).filter(in_range);
    lasting.map(Lasting::duration).ok_or_else(|| SettingError {
        flag,
        variable,
        found: text.to_owned(),
        expected: "a duration from 1h to 3650d, or forever",
        help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn what_is_not_given_or_empty_has_its_default() {
        let empty = ProcessArguments { port: text(""), host: text(" "), log_level: text(""), ..Default::default() };
        let settings = empty.resolve().expect("defaults are good");
        assert_eq!(settings, ProcessArguments::default().resolve().expect("defaults are good"));
        assert_eq!((settings.host.as_str(), settings.port), ("0.0.0.0", 3333));
        assert_eq!(settings.config_dir, PathBuf::from("data/config"));
        assert_eq!(settings.data_dir, PathBuf::from("data"));
        assert_eq!(settings.logs.filter, "warn,conductor=info");
        assert!(!settings.logs.as_json);
    }

    #[test]
    fn the_first_given_of_the_two_variables_names_the_folder() {
        let both = ProcessArguments { config_dir: text("a"), config_dir_fallback: text("b"), ..Default::default() };
        assert_eq!(both.resolve().expect("good").config_dir, PathBuf::from("a"));
        let second = ProcessArguments { config_dir: text(""), config_dir_fallback: text("b"), ..Default::default() };
        assert_eq!(second.resolve().expect("good").config_dir, PathBuf::from("b"));
    }

    #[test]
    fn a_bad_value_is_told_with_its_variable_and_its_mend() {
        let none = ProcessArguments::default;
        let table = [
            (ProcessArguments { port: text("70000"), ..none() }, "PORT"),
            (ProcessArguments { port: text("http"), ..none() }, "PORT"),
            (ProcessArguments { host: text("http://localhost"), ..none() }, "HOST"),
            (ProcessArguments { host: text("localhost:3333"), ..none() }, "HOST"),
            (ProcessArguments { log_level: text("loud"), ..none() }, "LOG_LEVEL"),
            (ProcessArguments { log_filter: text("conductor=loud"), ..none() }, "RUST_LOG"),
            (ProcessArguments { log_format: text("xml"), ..none() }, "LOG_FORMAT"),
            (ProcessArguments { metrics_addr: text("9090"), ..none() }, "METRICS_ADDR"),
            (ProcessArguments { public_url: text("conductor.example"), ..none() }, "PUBLIC_URL"),
            (ProcessArguments { trusted_proxies: text("proxy.lan"), ..none() }, "TRUSTED_PROXIES"),
            (ProcessArguments { trusted_proxies: text("10.0.0.0/8,10.0.0.0/33"), ..none() }, "TRUSTED_PROXIES"),
            (ProcessArguments { retention: text("30"), ..none() }, "RETENTION"),
            (ProcessArguments { retention: text("59m"), ..none() }, "RETENTION"),
            (ProcessArguments { retention: text("3651d"), ..none() }, "RETENTION"),
            (ProcessArguments { retention: text("never"), ..none() }, "RETENTION"),
            (ProcessArguments { audit_retention: text("never"), ..none() }, "AUDIT_RETENTION"),
        ];
        for (arguments, variable) in table {
            let error = arguments.resolve().expect_err(variable);
            assert_eq!(error.variable, variable);
            let shown = error.to_string();
            assert!(shown.contains(error.flag) && shown.contains("expected:") && shown.contains("help:"), "{shown}");
        }
    }

    #[test]
    fn trusted_proxies_are_networks_and_addresses() {
        let arguments =
            ProcessArguments { trusted_proxies: text("127.0.0.1, fd00::/8 10.0.0.0/8,"), ..Default::default() };
        let told: Vec<_> = arguments.resolve().expect("good").trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["127.0.0.1/32", "fd00::/8", "10.0.0.0/8"]);
    }

    #[test]
    fn what_has_ended_is_kept_for_a_month_unless_told_otherwise() {
        let kept = |value| {
            let arguments = ProcessArguments { retention: text(value), ..Default::default() };
            arguments.resolve().expect("a good time").retention
        };
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        assert_eq!([kept(""), kept("1h"), kept("90d"), kept("Forever")], [hours(720), hours(1), hours(2_160), None]);
        let audit_kept = |value| {
            let arguments = ProcessArguments { audit_retention: text(value), ..Default::default() };
            arguments.resolve().expect("a good time").audit_retention
        };
        assert_eq!([audit_kept(""), audit_kept("30d"), audit_kept("forever")], [hours(8_760), hours(720), None]);
    }

    #[test]
    fn a_host_that_means_every_address_is_reached_on_this_machine() {
        let at = |host: &str| {
            let arguments = ProcessArguments { host: text(host), ..Default::default() };
            let settings = arguments.resolve().expect("a good host");
            (settings.local_url(81), settings.loopback_url())
        };
        let pair = |local: &str, loopback: &str| (local.to_owned(), loopback.to_owned());
        assert_eq!(at("0.0.0.0"), pair("http://localhost:81", "http://127.0.0.1:3333"));
        assert_eq!(at("::"), pair("http://localhost:81", "http://[::1]:3333"));
        assert_eq!(at("[::1]"), pair("http://[::1]:81", "http://[::1]:3333"));
        assert_eq!(at("gateway.lan"), pair("http://gateway.lan:81", "http://gateway.lan:3333"));
    }

    #[test]
    fn a_quiet_level_quiets_the_libraries_too() {
        let filter = |level: &str| ProcessArguments { log_level: text(level), ..Default::default() }.resolve();
        assert_eq!(filter("OFF").expect("good").logs.filter, "off,conductor=off");
        assert_eq!(filter("Warning").expect("good").logs.filter, "warn,conductor=warn,conductor::plugin::log=info");
        assert_eq!(filter("debug").expect("good").logs.filter, "warn,conductor=debug");
    }
}
