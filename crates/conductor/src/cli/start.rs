//! What every start does before it serves: make what is missing, check everything, tell a person what was found.

use std::path::Path;
use std::sync::Arc;

use conductor_channels::Plugin;
use conductor_channels::http::place;
use conductor_core::TenantId;
use serde_json::Value;

use super::{Failure, Session, TenantLine, one_line, tenants};
use crate::config::edit::{Document, ListFile};
use crate::config::environment::{Environment, Lookup};
use crate::config::first_run::{self, FirstRun, NewTenant};
use crate::config::report::Report;
use crate::config::settings::Settings;
use crate::config::{self, Configuration};
use crate::telemetry::logs::{self, LogFormat};

/// Stands where a list is empty.
const NONE: &str = "  (none)\n";
const RULE: &str = "────────────────────────────────────────────────────────────────────────────────";

/// Sends what is logged from now on to the standard error, as the settings say.
pub fn install_logs(settings: &Settings, session: &Session<'_>) {
    let format = if settings.logs.as_json { LogFormat::Json } else { LogFormat::Text };
    logs::install(&settings.logs.filter, format, Arc::clone(&session.clock));
}

/// Makes what is missing. Prints nothing: see [`banner`].
///
/// # Errors
/// Something cannot be made.
pub fn make_missing(settings: &Settings, session: &Session<'_>) -> Result<FirstRun, Failure> {
    let environment = session.environment(settings);
    let is_set = |name: &str| environment.lookup(name) != Lookup::Missing;
    let now = session.clock.now();
    Ok(first_run::ensure(&settings.config_dir, &settings.data_dir, session.plugins, now, &is_set)?)
}

/// Reads and checks the configuration and prints the start-up report. Warnings are printed too.
///
/// # Errors
/// Something is wrong; all of it stands in the failure's text.
pub fn load(settings: &Settings, session: &mut Session<'_>) -> Result<Configuration, Failure> {
    let environment = session.environment(settings);
    let loaded = config::load(&settings.config_dir, &environment, session.plugins);
    match loaded {
        Ok((mut configuration, report)) => {
            configuration.keep.whole = settings.retention;
            write!(session.out, "{}", overview(&configuration, session.plugins))?;
            if !report.is_empty() {
                writeln!(session.out, "\n{report}")?;
            }
            Ok(configuration)
        }
        Err(report) => {
            write!(session.out, "{}", overview_of_files(settings, &environment, session.plugins, &report))?;
            session.out.flush()?;
            let folder = settings.config_dir.display();
            let text = format!("the configuration in {folder} cannot be used\n\n{report}");
            Err(Failure::Refused(format!("{text}\n\nMend it, then try again; `conductor check` tells what is left.")))
        }
    }
}

/// The line that says where the configuration was found; empty where files had to be made.
pub fn found(first: &FirstRun, settings: &Settings) -> String {
    match first.created.is_empty() {
        true => format!("Configuration found in {}.\n", settings.config_dir.display()),
        false => String::new(),
    }
}

/// What is printed once after files were made; empty where everything was there. `url` is where the server is reached
/// from this machine.
pub fn banner(first: &FirstRun, url: &str) -> String {
    if first.created.is_empty() {
        return String::new();
    }
    let mut text = format!("{RULE}\n  Welcome to Conductor. This was missing and has been made:\n\n");
    for path in &first.created {
        text.push_str(&format!("    {}\n", path.display()));
    }
    if let Some(tenant) = &first.tenant {
        text.push_str(&tenant_lines(tenant, first.env_file.as_deref()));
    }
    if first.admin_key {
        let file = first.env_file.as_deref().unwrap_or(Path::new(".env")).display();
        text.push_str(&format!("\n  Your own key, as the operator, is CONDUCTOR_ADMIN_KEY in\n    {file}\n"));
    }
    if let Some(key) = first.tenant.as_ref().and_then(|tenant| tenant.key.as_ref()) {
        text.push_str(&format!(
            "\n  Send your first notification:\n\n\
             curl {url}/notifications \\\n  \
             -H 'Authorization: Bearer {}' \\\n  \
             -H 'Content-Type: application/json' \\\n  \
             -d '{{\"channel\":\"log\",\"message\":\"Hello from Conductor\"}}'\n",
            key.expose()
        ));
    }
    text.push_str(&format!("{RULE}\n"));
    text
}

fn tenant_lines(tenant: &NewTenant, env_file: Option<&Path>) -> String {
    let mut text = format!("\n  Tenant     {}\n  Tenant id  {}\n", one_line(&tenant.name), tenant.id);
    match (&tenant.key, env_file) {
        (Some(key), Some(file)) => text.push_str(&format!(
            "  API key    {key}\n\n  The key is shown this once. It is kept in {file} as\n\n{variable}={key}\n",
            key = key.expose(),
            file = file.display(),
            variable = tenant.key_variable,
        )),
        _ => text.push_str(&format!("  API key    as {} says\n", tenant.key_variable)),
    }
    text
}

/// The start-up report of a good configuration: each tenant, plugin and channel with its mark.
pub fn overview(configuration: &Configuration, plugins: &[Plugin]) -> String {
    let mut text = String::from("\nTenants\n");
    for tenant in &configuration.tenants {
        text.push_str(&tenant_line("✅", &tenant.name, tenant.id, &tenant.key_variable));
        for callback in &tenant.callbacks {
            text.push_str(&format!("     callbacks to {}\n", place(&callback.url)));
        }
    }
    text.push_str(empty_line(configuration.tenants.is_empty()));
    text.push_str(&plugin_lines(plugins, |plugin| configuration.plugins.iter().any(|own| own.kind == plugin.kind)));
    text.push_str("Channels\n");
    for channel in &configuration.channels {
        let tenant = configuration.tenants.iter().find(|tenant| tenant.id == channel.tenant);
        let tenant = tenant.map(|tenant| one_line(&tenant.name)).unwrap_or_default();
        text.push_str(&format!("  ✅ {} ({}) of {tenant}\n", one_line(&channel.name), channel.plugin.kind));
    }
    text.push_str(empty_line(configuration.channels.is_empty()));
    text
}

/// The same of files that something is wrong with, as far as they can be understood.
pub fn overview_of_files(
    settings: &Settings,
    environment: &Environment,
    plugins: &[Plugin],
    report: &Report,
) -> String {
    let tenant = |tenant: TenantLine| {
        let is_set = matches!(environment.lookup(&tenant.key_variable), Lookup::Found { .. });
        tenant_line(mark(is_set), &tenant.name, tenant.id, &tenant.key_variable)
    };
    let entries = |file| Document::open(&settings.config_dir, file).map(|file| file.entries());
    let channel = |(index, channel): (usize, &Value)| {
        let word = |member: &str| channel.get(member).and_then(Value::as_str).map(one_line);
        let kind = word("channelType").unwrap_or_else(|| "no channelType".to_owned());
        let name = word("channelName").unwrap_or_else(|| kind.clone());
        format!("  {} {name} ({kind})\n", mark(!has_error(report, index)))
    };
    let mut text = String::from("\nTenants\n");
    match tenants(settings) {
        Ok(tenants) if tenants.is_empty() => text.push_str(NONE),
        Ok(tenants) => text.extend(tenants.into_iter().map(tenant)),
        Err(_) => text.push_str(&unread(ListFile::Tenants)),
    }
    match entries(ListFile::Plugins) {
        Ok(enabled) => text.push_str(&plugin_lines(plugins, |plugin| is_enabled(&enabled, plugin))),
        Err(_) => text.push_str(&format!("Plugins\n{}", unread(ListFile::Plugins))),
    }
    text.push_str("Channels\n");
    match entries(ListFile::Channels) {
        Ok(channels) if channels.is_empty() => text.push_str(NONE),
        Ok(channels) => text.extend(channels.iter().enumerate().map(channel)),
        Err(_) => text.push_str(&unread(ListFile::Channels)),
    }
    text.push('\n');
    text
}

/// A tenant with the variable of its key; two lines, because both are long.
fn tenant_line(mark: &str, name: &str, id: TenantId, variable: &str) -> String {
    format!("  {mark} {} ({id})\n     {}\n", one_line(name), config::name_or_stars(variable))
}

/// Stands for the entries of a file that is missing or no JSON.
fn unread(file: ListFile) -> String {
    format!("  ❌ {}: see below\n", file.name())
}

/// Whether an entry of `plugins.json` enables the plugin.
pub(super) fn is_enabled(entries: &[Value], plugin: &Plugin) -> bool {
    entries.iter().any(|entry| {
        let name = entry.get("name").and_then(Value::as_str);
        name.is_some_and(|name| plugin.is_named(name)) && entry.get("enabled") != Some(&Value::Bool(false))
    })
}

fn has_error(report: &Report, index: usize) -> bool {
    let member = format!("/channels/{index}");
    let bare = format!("/{index}");
    report.faults().iter().any(|fault| {
        let is_here = |prefix: &str| {
            let rest = fault.pointer().and_then(|pointer| pointer.strip_prefix(prefix));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let file = fault.place.as_ref().and_then(|place| place.file.file_name());
        let is_error = fault.severity == crate::config::report::Severity::Error;
        is_error && file.is_some_and(|file| file == ListFile::Channels.name()) && (is_here(&member) || is_here(&bare))
    })
}

fn plugin_lines(plugins: &[Plugin], is_enabled: impl Fn(&Plugin) -> bool) -> String {
    let mut text = String::from("Plugins\n");
    for plugin in plugins.iter().filter(|plugin| is_enabled(plugin)) {
        text.push_str(&format!("  ✅ {}: {}\n", plugin.kind, plugin.about));
    }
    text.push_str(empty_line(!plugins.iter().any(is_enabled)));
    text
}

fn empty_line(is_empty: bool) -> &'static str {
    if is_empty { NONE } else { "" }
}

const fn mark(is_good: bool) -> &'static str {
    if is_good { "✅" } else { "❌" }
}
