//! `conductor plugin`

use clap::{Args, Subcommand};
use conductor_channels::{Plugin, Setting};
use conductor_core::TextLimit;
use serde_json::{Value, json};

use super::{Ended, Failure, Session, start};
use crate::config::edit::{Document, ListFile};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor plugin list
  conductor plugin list --json

Lists every plugin of this program, whether plugins.json enables it, and what it has to be told. A channel's \
variables are named TENANT_<tenant's id with underscores>_<PLUGIN>_<SETTING> unless the channel names others.
If one is missing that you need, see the newest release.";

/// What can be done about plugins.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the plugins and their settings
    List(List),
}

/// How to list.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let Command::List(arguments) = command;
    // Without a configuration the list is of use too: then nothing is enabled.
    let entries =
        Document::open(&settings.config_dir, ListFile::Plugins).map(|file| file.entries()).unwrap_or_default();
    let is_enabled = |plugin: &Plugin| start::is_enabled(&entries, plugin);
    if arguments.json {
        let all = session.plugins.iter().map(|plugin| as_json(plugin, is_enabled(plugin))).collect();
        session.print_json(&Value::Array(all))?;
        return Ok(Ended::Well);
    }
    for plugin in session.plugins {
        let state = if is_enabled(plugin) { "enabled" } else { "not enabled" };
        writeln!(session.out, "{} ({state}): {}", plugin.kind, plugin.about)?;
        if let Some(TextLimit { max, unit }) = plugin.limits.text {
            let unit = unit.as_str();
            writeln!(session.out, "  A message has {max} {unit} at most; a longer text goes out in parts.")?;
        }
        for setting in plugin.settings {
            writeln!(session.out, "  {} ({}): {}", setting.name, qualities(plugin, setting), setting.about)?;
        }
    }
    Ok(Ended::Well)
}

fn qualities(plugin: &Plugin, setting: &Setting) -> &'static str {
    let is_of_a_way = plugin.ways.iter().any(|way| way.contains(&setting.name));
    match (setting.required, setting.secret) {
        (_, true) if is_of_a_way => "for one of several ways, secret",
        (_, false) if is_of_a_way => "for one of several ways",
        (true, true) => "required, secret",
        (true, false) => "required",
        (false, true) => "optional, secret",
        (false, false) => "optional",
    }
}

fn as_json(plugin: &Plugin, is_enabled: bool) -> Value {
    let setting = |setting: &Setting| {
        json!({ "name": setting.name, "option": setting.camel_case(), "required": setting.required,
            "secret": setting.secret, "about": setting.about })
    };
    let text = plugin.limits.text.map(|limit| json!({ "max": limit.max, "unit": limit.unit.as_str() }));
    json!({ "name": plugin.kind, "aliases": plugin.aliases, "about": plugin.about, "enabled": is_enabled,
        "limits": { "text": text, "rich": plugin.limits.rich },
        "settings": plugin.settings.iter().map(setting).collect::<Vec<_>>(), "ways": plugin.ways })
}
