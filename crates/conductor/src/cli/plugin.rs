//! `conductor plugin`

use clap::{Args, Subcommand};
use conductor_channels::{Plugin, Setting};
use conductor_core::TextLimit;
use serde_json::{Value, json};

use super::{Ended, Failure, Session, one_line, start};
use crate::config::edit::{Document, ListFile};
use crate::config::settings::Settings;

const HELP: &str = "\
Example:
  conductor plugin list
  conductor plugin list --json

Lists every plugin of this program, whether plugins.json enables it, and what it has to be told. A channel's \
variables are named TENANT_<tenant's id with underscores>_<PLUGIN>_<SETTING> unless the channel names others.
If one is missing that you need, see the newest release.";

const SHOW_HELP: &str = "\
Example:
  conductor plugin show discord

Says what a channel of this plugin has to be told and how to get that from the provider, which options it has, \
and what it does by itself. If there is no such plugin, `conductor plugin list` names all of them.";

/// What can be done about plugins.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the plugins and their settings
    List(List),
    /// Show one plugin: its settings, how to get them, its options and limits
    Show(Show),
}

/// Which one.
#[derive(Debug, Args)]
#[command(after_help = SHOW_HELP)]
pub struct Show {
    /// The plugin's name, as in plugins.json
    name: String,
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
    // Without a configuration this is of use too: then nothing is enabled.
    let entries =
        Document::open(&settings.config_dir, ListFile::Plugins).map(|file| file.entries()).unwrap_or_default();
    let is_enabled = |plugin: &Plugin| start::is_enabled(&entries, plugin);
    match command {
        Command::List(arguments) => list(arguments, is_enabled, session),
        Command::Show(Show { name }) => {
            let plugin = conductor_channels::plugin(session.plugins, name).ok_or_else(|| {
                let names: Vec<&str> = session.plugins.iter().map(|plugin| plugin.kind).collect();
                let text =
                    format!("there is no plugin {:?}\n  help: the plugins are {}", one_line(name), names.join(", "));
                Failure::Refused(text)
            })?;
            show(plugin, is_enabled(plugin), session)
        }
    }
}

fn list(arguments: &List, is_enabled: impl Fn(&Plugin) -> bool, session: &mut Session<'_>) -> Result<Ended, Failure> {
    if arguments.json {
        let all = session.plugins.iter().map(|plugin| as_json(plugin, is_enabled(plugin))).collect();
        session.print_json(&Value::Array(all))?;
        return Ok(Ended::Well);
    }
    for plugin in session.plugins {
        writeln!(session.out, "{}", headline(plugin, is_enabled(plugin)))?;
        if let Some(TextLimit { max, unit }) = plugin.limits.text {
            let unit = unit.as_str();
            writeln!(session.out, "  A message has {max} {unit} at most; a longer text goes out in parts.")?;
        }
        for setting in plugin.settings {
            writeln!(session.out, "  {}", line(plugin, setting))?;
        }
    }
    writeln!(session.out, "How to get the settings of one: conductor plugin show <name>")?;
    Ok(Ended::Well)
}

/// All that the program knows of one plugin.
fn show(plugin: &Plugin, is_enabled: bool, session: &mut Session<'_>) -> Result<Ended, Failure> {
    writeln!(session.out, "{}", headline(plugin, is_enabled))?;
    if !plugin.aliases.is_empty() {
        writeln!(session.out, "Also called {}.", plugin.aliases.join(", "))?;
    }
    if !plugin.settings.is_empty() {
        writeln!(session.out, "\nWhat a channel has to be told:")?;
    }
    for setting in plugin.settings {
        writeln!(session.out, "  {}", line(plugin, setting))?;
        let variable = variable(plugin.kind, setting.name);
        // Some secrets are whole files.
        let example = setting.example.lines().next().filter(|_| setting.example.lines().count() == 1);
        let example = example.map(|example| format!(", such as {example}")).unwrap_or_default();
        writeln!(session.out, "    {variable}{example}")?;
    }
    if !plugin.steps.is_empty() {
        writeln!(session.out, "\nHow to get that:")?;
    }
    for (number, step) in (1..).zip(plugin.steps) {
        writeln!(session.out, "  {number}. {}", step.replace("**", ""))?;
    }
    let options = plugin.own_options();
    if !options.is_empty() {
        writeln!(session.out, "\nOptions of its own:")?;
    }
    for option in options {
        let default = option.default.map(|default| format!(" ({default} unless it is set)")).unwrap_or_default();
        writeln!(session.out, "  {}{default}: {}", option.name, option.about)?;
    }
    writeln!(session.out, "\nWhat it does by itself:")?;
    for (what, how) in plugin.facts() {
        writeln!(session.out, "  {what}: {how}")?;
    }
    writeln!(session.out, "\nMore: docs/CHANNELS.md#{}", plugin.kind)?;
    Ok(Ended::Well)
}

/// The variable of a setting, for whatever tenant.
fn variable(kind: &str, setting: &str) -> String {
    format!("TENANT_<id>_{}_{setting}", kind.to_uppercase().replace('-', "_"))
}

fn headline(plugin: &Plugin, is_enabled: bool) -> String {
    let state = if is_enabled { "enabled" } else { "not enabled" };
    format!("{} ({state}): {}", plugin.kind, plugin.about)
}

fn line(plugin: &Plugin, setting: &Setting) -> String {
    let secret = if setting.secret { ", secret" } else { "" };
    format!("{} ({}{secret}): {}", setting.name, plugin.need_of(setting), setting.about)
}

fn as_json(plugin: &Plugin, is_enabled: bool) -> Value {
    let setting = |setting: &Setting| {
        json!({ "name": setting.name, "option": setting.camel_case(), "required": setting.required,
            "secret": setting.secret, "about": setting.about })
    };
    let text = plugin.limits.text.map(|limit| json!({ "max": limit.max, "unit": limit.unit.as_str() }));
    json!({ "name": plugin.kind, "aliases": plugin.aliases, "about": plugin.about, "enabled": is_enabled,
        "limits": { "text": text, "rich": plugin.limits.rich },
        "settings": plugin.settings.iter().map(setting).collect::<Vec<_>>(), "ways": plugin.ways,
        "steps": plugin.steps })
}
