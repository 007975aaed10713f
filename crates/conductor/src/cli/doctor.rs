//! `conductor doctor`

use std::io::Write;
use std::time::Duration;

use clap::Args;
use conductor_channels::http::HttpClients;
use conductor_core::Timestamp;
use serde_json::{Value, json};

use super::amounts::{count, length, time};
use super::{Ended, Failure, Session, one_line, runtime, start};
use crate::config::report::{Report, Severity};
use crate::config::settings::Settings;
use crate::config::{self, Configuration};

mod channels;
mod files;
mod server;
mod store;

const HELP: &str = "\
Example:
  conductor doctor
  conductor doctor --offline
  conductor doctor --json

Looks at the configuration, the files, the disk, the store, the running server, each channel's provider and the \
clock, and tells of each whether it is well, odd (⚠️) or to be mended (❌), and how. It changes nothing and sends \
no message. Run it as the server's user and with the server's environment, beside the server or without one. Exit \
code 0: nothing has to be mended; 1: something has; 2: the command is wrong.
If it fails itself, it says why; `conductor check` looks at the configuration alone.";

/// Before this time, in milliseconds since 1970, no release was made: a clock that says so has never been set.
const FIRST_RELEASE_MILLIS: i64 = 1_767_225_600_000;
/// So far a clock may be off before it is told, and before it has to be mended: signatures and tokens allow five minutes.
const CLOCK_ODD: Duration = Duration::from_secs(30);
const CLOCK_BAD: Duration = Duration::from_secs(5 * 60);

/// How far to look.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// Ask no provider, and do not try whether PUBLIC_URL leads here
    #[arg(long)]
    offline: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    /// Worth a look.
    Odd,
    /// To be mended.
    Bad,
}

/// What was found of one thing, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    mark: Mark,
    text: String,
    help: Option<String>,
}

impl Finding {
    fn good(text: impl Into<String>) -> Self {
        Self { mark: Mark::Good, text: text.into(), help: None }
    }

    fn odd(text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { mark: Mark::Odd, text: text.into(), help: Some(help.into()) }
    }

    fn bad(text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, text: text.into(), help: Some(help.into()) }
    }
}

/// All that was found, told as it is found.
struct Sheet {
    is_json: bool,
    found: Vec<(&'static str, Finding)>,
}

impl Sheet {
    fn add(&mut self, section: &'static str, findings: Vec<Finding>, out: &mut dyn Write) -> Result<(), Failure> {
        if !self.is_json {
            writeln!(out, "{section}")?;
            for Finding { mark, text, help } in &findings {
                let mark = match mark {
                    Mark::Good => "✅",
                    Mark::Odd => "⚠️ ",
                    Mark::Bad => "❌",
                };
                writeln!(out, "  {mark} {}", one_line(text))?;
                if let Some(help) = help {
                    writeln!(out, "     help: {}", one_line(help))?;
                }
            }
            // What follows may take a while.
            out.flush()?;
        }
        self.found.extend(findings.into_iter().map(|finding| (section, finding)));
        Ok(())
    }

    fn number_of(&self, mark: Mark) -> u64 {
        self.found.iter().filter(|(_, finding)| finding.mark == mark).count() as u64
    }

    fn closing(&self) -> String {
        let bad = count(self.number_of(Mark::Bad), "thing has", "things have");
        match (self.number_of(Mark::Bad), self.number_of(Mark::Odd)) {
            (0, 0) => "Everything is well.".to_owned(),
            (0, odd) => format!("Nothing has to be mended; {} worth a look.", count(odd, "thing is", "things are")),
            (_, 0) => format!("{bad} to be mended."),
            (_, odd) => format!("{bad} to be mended; {} worth a look.", count(odd, "is", "are")),
        }
    }

    fn json(&self) -> Value {
        let entry = |(section, Finding { mark, text, help }): &(&str, Finding)| {
            let mark = match mark {
                Mark::Good => "good",
                Mark::Odd => "odd",
                Mark::Bad => "bad",
            };
            json!({ "section": section, "mark": mark, "text": text, "help": help })
        };
        self.found.iter().map(entry).collect()
    }
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    start::install_logs(settings, session);
    let environment = session.environment(settings);
    let loaded = config::load(&settings.config_dir, &environment, session.plugins);
    let mut sheet = Sheet { is_json: arguments.json, found: Vec::new() };
    sheet.add("Configuration", configuration(&loaded, settings), session.out)?;
    sheet.add("Files", files::look(settings, &session.working_dir), session.out)?;
    let store = store::look(settings, session.clock.now());
    sheet.add("Store", store.findings, session.out)?;
    let runtime = runtime()?;
    let is_online = !arguments.offline;
    let findings = runtime.block_on(server::look(settings, store.is_owned, is_online));
    sheet.add("Server", findings, session.out)?;
    let http = HttpClients::new();
    if let Ok((configuration, _)) = loaded {
        let ask =
            channels::Asked { http: &http, clock: &session.clock, is_online, public_url: settings.public_url.as_ref() };
        let findings = runtime.block_on(ask.look(configuration));
        sheet.add("Channels", findings, session.out)?;
    }
    let findings = clock(session.clock.now(), store.newest, http.providers_time());
    sheet.add("Clock", findings, session.out)?;
    match arguments.json {
        true => session.print_json(&sheet.json())?,
        false => writeln!(session.out, "\n{}", sheet.closing())?,
    }
    // A look-up that hangs must not hold up the end.
    runtime.shutdown_background();
    Ok(if sheet.number_of(Mark::Bad) == 0 { Ended::Well } else { Ended::Badly })
}

fn configuration(loaded: &Result<(Configuration, Report), Report>, settings: &Settings) -> Vec<Finding> {
    let folder = settings.config_dir.display();
    let mut findings = Vec::new();
    let report = match loaded {
        Ok((configuration, report)) => {
            let Configuration { tenants, channels, plugins, admin_key, .. } = configuration;
            findings.push(Finding::good(format!(
                "{folder}: {}, {}, {}",
                count(tenants.len() as u64, "tenant", "tenants"),
                count(channels.len() as u64, "channel", "channels"),
                count(plugins.len() as u64, "plugin", "plugins"),
            )));
            if admin_key.is_none() {
                findings.push(Finding::odd(
                    "CONDUCTOR_ADMIN_KEY is not set: everybody who reaches the server may read /metrics",
                    format!(
                        "set it to a long random key, in the environment or in {}",
                        settings.data_dir.join(".env").display()
                    ),
                ));
            }
            report
        }
        Err(report) => report,
    };
    for fault in report.faults() {
        let place = fault.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        let expected = fault.expected.as_ref().map(|expected| format!("; expected: {expected}")).unwrap_or_default();
        findings.push(Finding {
            mark: if fault.severity == Severity::Error { Mark::Bad } else { Mark::Odd },
            text: format!("{place}{}{expected}", fault.found),
            help: fault.help.clone(),
        });
    }
    let more = (report.errors() + report.warnings()).saturating_sub(report.faults().len());
    if more > 0 {
        let text = count(more as u64, "more fault is not shown", "more faults are not shown");
        findings.push(Finding::bad(text, "mend those that are, then look again"));
    }
    findings
}

/// Looks at the clock: by the store, which holds nothing from the future, and by what the providers said.
fn clock(now: Timestamp, newest: Option<Timestamp>, providers: Option<Timestamp>) -> Vec<Finding> {
    const HELP: &str = "let the system keep its clock by NTP (`timedatectl set-ntp true`), and see \"The clock was put \
                        back\" in docs/OPERATIONS.md";
    let off = |text: String, by: Duration| match by {
        by if by >= CLOCK_BAD => Finding::bad(text, HELP),
        by if by >= CLOCK_ODD => Finding::odd(text, HELP),
        _ => Finding::good(text),
    };
    if now.millis() < FIRST_RELEASE_MILLIS {
        return vec![Finding::bad(format!("it says {now}: it has not been set"), HELP)];
    }
    let mut findings = Vec::new();
    match newest {
        Some(newest) if newest > now => findings.push(off(
            format!("it is {} behind the newest notification in the store", length(newest.since(now))),
            newest.since(now),
        )),
        Some(newest) => findings.push(Finding::good(format!(
            "it says {now}; the newest notification in the store is from {}",
            time(newest, now)
        ))),
        None => findings.push(Finding::good(format!("it says {now}"))),
    }
    if let Some(providers) = providers {
        let by = providers.since(now).max(now.since(providers));
        let way = if providers > now { "behind" } else { "ahead of" };
        // Providers tell the time in whole seconds, and their answer was under way.
        findings.push(match by < Duration::from_secs(3) {
            true => Finding::good("it agrees with the providers'"),
            false => off(format!("it is {} {way} the providers'", length(by)), by),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_told_by_how_much() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let seconds = Duration::from_secs;
        let marks = |now, newest, providers| -> Vec<Mark> {
            clock(now, newest, providers).iter().map(|finding| finding.mark).collect()
        };
        assert_eq!(marks(now, None, None), [Mark::Good]);
        assert_eq!(
            marks(Timestamp::ZERO.plus(seconds(60)), Some(now), Some(now)),
            [Mark::Bad],
            "a board without a battery"
        );
        assert_eq!(marks(now, Some(now.minus(seconds(9_999))), Some(now)), [Mark::Good, Mark::Good]);
        for (by, mark) in [(2, Mark::Good), (29, Mark::Good), (30, Mark::Odd), (299, Mark::Odd), (300, Mark::Bad)] {
            assert_eq!(marks(now, Some(now.plus(seconds(by))), None), [mark], "{by}");
            assert_eq!(marks(now, None, Some(now.plus(seconds(by)))), [Mark::Good, mark], "{by}");
            assert_eq!(marks(now, None, Some(now.minus(seconds(by)))), [Mark::Good, mark], "{by}");
        }
        let text = |providers| clock(now, None, Some(providers)).remove(1).text;
        assert_eq!(text(now.plus(seconds(600))), "it is 10 min behind the providers'");
        assert_eq!(text(now.minus(seconds(600))), "it is 10 min ahead of the providers'");
    }

    #[test]
    fn the_closing_line_counts_what_is_to_be_done() {
        let closing = |bad: usize, odd: usize| {
            let bad = std::iter::repeat_n(Finding::bad("", ""), bad);
            let found = bad.chain(std::iter::repeat_n(Finding::odd("", ""), odd));
            Sheet { is_json: false, found: found.map(|finding| ("", finding)).collect() }.closing()
        };
        assert_eq!(closing(0, 0), "Everything is well.");
        assert_eq!(closing(0, 1), "Nothing has to be mended; 1 thing is worth a look.");
        assert_eq!(closing(1, 0), "1 thing has to be mended.");
        assert_eq!(closing(2, 3), "2 things have to be mended; 3 are worth a look.");
    }
}
