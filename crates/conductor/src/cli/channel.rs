//! `conductor channel`

use clap::{Args, Subcommand};
use conductor_channels::{Plugin, Setting};
use conductor_core::{ChannelId, Secret, TenantId};
use serde_json::{Value, json};

use super::{Ended, Failure, Session, channel_test, choose_tenant, one_line, table, tenants};
use crate::config::edit::{self, ChannelEntry, Document, ListFile, trial};
use crate::config::environment::{Environment, Lookup};
use crate::config::first_run::new_id;
use crate::config::settings::Settings;

const ADD_HELP: &str = "\
Example:
  conductor channel add --type webhook --name alerts --option timeout=10s
  conductor channel add --type discord --tenant Acme --env botToken=ACME_TOKEN

Adds the channel to channels.json, comments and order kept, and enables its plugin. Then it prints the \
lines that .env still needs. A running server takes the channel over by itself as soon as they are there.
If it fails, nothing was changed. `conductor plugin list` tells the types and their settings.";

const LIST_HELP: &str = "\
Example:
  conductor channel list
  conductor channel list --json

Reads channels.json. If it fails, `conductor check` tells more.";

/// What can be done about channels.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a channel to a tenant
    Add(Add),
    /// List the channels
    List(List),
    /// Ask a channel's provider whether a message would go out, or send one
    Test(channel_test::Arguments),
}

/// A channel to add.
#[derive(Debug, Args)]
#[command(after_help = ADD_HELP)]
pub struct Add {
    /// The tenant's name or id, where there are several
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The plugin, such as log, webhook or discord
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The channel's name; the type's, where none is given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// An option, such as timeout=10s or allowNetworks=["192.168.0.0/16"]; may be repeated
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
    /// The variable that holds a setting, such as secret=ACME_SECRET; may be repeated
    #[arg(long = "env", value_name = "SETTING=VARIABLE", value_parser = pair)]
    env: Vec<(String, String)>,
}

/// How to list.
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
pub struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) fn run(command: &Command, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    match command {
        Command::Add(arguments) => add(arguments, settings, session),
        Command::List(arguments) => list(arguments, settings, session),
        Command::Test(arguments) => channel_test::run(arguments, settings, session),
    }
}

fn add(arguments: &Add, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let plugin = find_plugin(&arguments.kind, session.plugins)?;
    let tenant = choose_tenant(arguments.tenant.as_deref(), settings)?;
    let entry = entry(arguments, plugin, tenant.id, session)?;
    let channels = Document::open(&settings.config_dir, ListFile::Channels)?;
    let lines = lines(&channels.entries(), session.plugins);
    if lines.iter().any(|line| line.tenant == Some(tenant.id) && line.name == entry.name) {
        return Err(Failure::Refused(format!(
            "the tenant has a channel {:?} already\n  help: choose another --name, or see `conductor channel list`",
            entry.name
        )));
    }
    let plugins = Document::open(&settings.config_dir, ListFile::Plugins)?;
    channels.append(entry.to_input());
    if !super::start::is_enabled(&plugins.entries(), plugin) {
        plugins.enable(plugin);
    }
    let before = session.environment(settings);
    let needs = needs(&entry, plugin, &before);
    // What is not set yet is tried with the values that the plugin gives as examples.
    let tried = needs.iter().filter(|need| need.urgency != Urgency::Instead);
    let examples = tried.map(|need| (need.variable.clone(), Secret::new(need.setting.example)));
    let after = session.environment(settings).with_defaults(examples);
    let edited = [&channels, &plugins];
    super::refuse_errors(&trial::new_errors(&settings.config_dir, &edited, &before, &after, session.plugins)?)?;
    let enables = plugins.is_changed();
    plugins.save()?;
    channels.save()?;
    writeln!(session.out, "Added the channel {} ({}) to {}", entry.name, plugin.kind, one_line(&tenant.name))?;
    writeln!(session.out, "\n  Channel id  {}", entry.id)?;
    if enables {
        writeln!(session.out, "  The plugin {} is enabled now.", plugin.kind)?;
    }
    tell_needs(&needs, settings, session)?;
    writeln!(session.out, "\nNext: `conductor channel test {}`. A running server has it within seconds.", entry.id)?;
    Ok(Ended::Well)
}

fn find_plugin<'a>(kind: &str, plugins: &'a [Plugin]) -> Result<&'a Plugin, Failure> {
    conductor_channels::plugin(plugins, kind).ok_or_else(|| {
        let known: Vec<&str> = plugins.iter().map(|plugin| plugin.kind).collect();
        Failure::Refused(format!("there is no plugin {kind:?}\n  help: use one of {}", known.join(", ")))
    })
}

fn entry(arguments: &Add, plugin: &Plugin, tenant: TenantId, session: &Session<'_>) -> Result<ChannelEntry, Failure> {
    let name = arguments.name.as_deref().unwrap_or(plugin.kind).trim().to_owned();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Failure::Refused(format!("{name:?} is no name for a channel\n  expected: text in one line")));
    }
    let mut env = Vec::new();
    for (wanted, variable) in &arguments.env {
        let is_wanted = |setting: &&Setting| setting.camel_case() == *wanted || setting.name == wanted;
        let setting = plugin.settings.iter().find(is_wanted).ok_or_else(|| {
            let known: Vec<_> = plugin.settings.iter().map(Setting::camel_case).collect();
            let known = if known.is_empty() { "no settings".to_owned() } else { known.join(", ") };
            Failure::Refused(format!(
                "the plugin {} has no setting {wanted:?}\n  help: it has {known}; what is no setting goes into --option",
                plugin.kind
            ))
        })?;
        if !is_variable_name(variable) {
            // It is not repeated: somebody may have written the secret itself.
            return Err(Failure::Refused(format!(
                "--env {wanted} is not followed by the name of a variable\n  expected: letters, digits and underscores\n  \
                 help: write the name here, and the value into .env"
            )));
        }
        env.push((setting.camel_case(), variable.clone()));
    }
    let schema = plugin.schema();
    let options = arguments.options.iter().map(|(name, text)| (name.clone(), option_value(name, text, &schema)));
    let options = options.collect();
    let id = ChannelId::new(new_id(session.clock.now())?);
    Ok(ChannelEntry { id, name, tenant, kind: plugin.kind.to_owned(), env, options })
}

fn is_variable_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty() && text.chars().all(is_part)
}

/// The value as JSON, where it is JSON and the plugin does not want a text.
fn option_value(name: &str, text: &str, schema: &Value) -> Value {
    let wanted = &schema["properties"][name]["type"];
    let is_text = |value: &Value| value.as_str() == Some("string");
    if is_text(wanted) || wanted.as_array().is_some_and(|all| all.iter().any(is_text)) {
        return Value::from(text);
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// How much a channel needs a setting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Needed,
    /// Only where another way to the provider is taken.
    Instead,
    Optional,
}

/// A setting that nothing gives a value yet.
struct Need {
    setting: &'static Setting,
    variable: String,
    urgency: Urgency,
}

fn needs(entry: &ChannelEntry, plugin: &Plugin, environment: &Environment) -> Vec<Need> {
    let named =
        |name: &str| entry.env.iter().find(|(setting, _)| setting == name).map(|(_, variable)| variable.clone());
    let is_option = |name: &str| entry.options.iter().any(|(option, _)| option == name);
    let is_told = |setting: &Setting| named(&setting.camel_case()).is_some() || is_option(&setting.camel_case());
    let variable = |setting: &Setting| {
        let own = named(&setting.camel_case());
        own.unwrap_or_else(|| edit::setting_variable(entry.tenant, plugin, setting.name))
    };
    let is_missing = |setting: &Setting| {
        !is_option(&setting.camel_case())
            && matches!(environment.lookup(&variable(setting)), Lookup::Missing | Lookup::Empty)
    };
    let begun_by = |is_so: &dyn Fn(&Setting) -> bool| {
        let begins = |way: &&[&str]| plugin.settings.iter().any(|s| way.contains(&s.name) && is_so(s));
        plugin.ways.iter().position(begins)
    };
    let begun = begun_by(&is_told).or_else(|| begun_by(&|setting| !is_missing(setting)));
    let urgency = |setting: &Setting| {
        let way = plugin.ways.iter().position(|way| way.contains(&setting.name));
        match (way, begun) {
            (None, _) if setting.required => Some(Urgency::Needed),
            (None, _) => Some(Urgency::Optional),
            (Some(way), begun) if way == begun.unwrap_or(0) => Some(Urgency::Needed),
            (Some(_), None) => Some(Urgency::Instead),
            (Some(_), Some(_)) => None,
        }
    };
    let missing = plugin.settings.iter().filter(|setting| is_missing(setting));
    let need = |setting| Some(Need { setting, variable: variable(setting), urgency: urgency(setting)? });
    missing.filter_map(need).collect()
}

fn tell_needs(needs: &[Need], settings: &Settings, session: &mut Session<'_>) -> Result<(), Failure> {
    let file = settings.data_dir.join(".env");
    let headings =
        [(Urgency::Needed, "Still needed"), (Urgency::Instead, "Or, instead of that"), (Urgency::Optional, "Optional")];
    for (urgency, heading) in headings {
        let part: Vec<_> = needs.iter().filter(|need| need.urgency == urgency).collect();
        if part.is_empty() {
            continue;
        }
        writeln!(session.out, "\n{heading}, in {} or the environment:\n", file.display())?;
        for need in part {
            // No value that works is shown: a line that is pasted as it stands must not become somebody's secret.
            let example =
                if need.setting.secret { String::new() } else { format!(" Example: {}", need.setting.example) };
            let comment = if urgency == Urgency::Needed { "" } else { "# " };
            writeln!(session.out, "# {}{example}\n{comment}{}=", need.setting.about, need.variable)?;
        }
    }
    if needs.iter().any(|need| need.urgency == Urgency::Needed) {
        writeln!(session.out, "\nUntil then a running server goes on without the channel, and does not start again.")?;
    }
    Ok(())
}

/// What `channels.json` says of a channel, as far as it can be understood.
struct ChannelLine {
    id: Option<ChannelId>,
    name: String,
    kind: String,
    tenant: Option<TenantId>,
}

fn lines(entries: &[Value], plugins: &[Plugin]) -> Vec<ChannelLine> {
    let line = |entry: &Value| {
        let text = |member: &str| entry.get(member).and_then(Value::as_str).map(str::to_owned);
        let kind = text("channelType").unwrap_or_default();
        let kind = conductor_channels::plugin(plugins, &kind).map_or(kind, |plugin| plugin.kind.to_owned());
        let name = text("channelName").unwrap_or_else(|| kind.clone());
        let tenant: Option<TenantId> = text("tenantId").and_then(|id| id.parse().ok());
        let id = match text("channelId") {
            Some(id) => id.parse().ok(),
            None => tenant.map(|tenant| ChannelId::derive(tenant, &kind, &name)),
        };
        ChannelLine { id, name, kind, tenant }
    };
    entries.iter().map(line).collect()
}

fn list(arguments: &List, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let document = Document::open(&settings.config_dir, ListFile::Channels)?;
    let tenants = tenants(settings).unwrap_or_default();
    let all = lines(&document.entries(), session.plugins);
    if arguments.json {
        let object = |line: &ChannelLine| {
            json!({ "channelId": line.id.map(|id| id.to_string()), "channelName": line.name,
                "channelType": line.kind, "tenantId": line.tenant.map(|id| id.to_string()) })
        };
        session.print_json(&Value::Array(all.iter().map(object).collect()))?;
        return Ok(Ended::Well);
    }
    let row = |line: &ChannelLine| {
        let tenant = tenants.iter().find(|tenant| Some(tenant.id) == line.tenant);
        let tenant = tenant.map_or_else(|| "UNKNOWN".to_owned(), |tenant| one_line(&tenant.name));
        let id = line.id.map_or_else(|| "no UUID".to_owned(), |id| id.to_string());
        vec![one_line(&line.name), one_line(&line.kind), tenant, id]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    write!(session.out, "{}", table(&["NAME", "TYPE", "TENANT", "ID"], &rows))?;
    Ok(Ended::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_json_unless_the_plugin_wants_a_text() {
        let schema = json!({ "properties": { "topic": { "type": "string" }, "icon": { "type": ["string", "null"] } } });
        assert_eq!(option_value("topic", "12", &schema), json!("12"));
        assert_eq!(option_value("icon", "true", &schema), json!("true"));
        assert_eq!(option_value("ordered", "true", &schema), json!(true));
        assert_eq!(option_value("allowNetworks", "[\"10.0.0.0/8\"]", &schema), json!(["10.0.0.0/8"]));
        assert_eq!(option_value("timeout", "10s", &schema), json!("10s"));
    }

    #[test]
    fn a_pair_needs_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
