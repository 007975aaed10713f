//! `conductor tenant`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use conductor_core::{Secret, TenantId};
use serde_json::{Value, json};

use super::{Ended, Failure, Session, TenantLine, choose_tenant, one_line, table, tenants};
use crate::config::edit::env_file::{self, EnvFile};
use crate::config::edit::{self, Document, ListFile, durable, trial};
use crate::config::environment::Lookup;
use crate::config::first_run::{new_id, new_key};
use crate::config::settings::Settings;
use crate::config::{NEXT_SUFFIX, name_or_stars};

const ADD_HELP: &str = "\
Example:
  conductor tenant add \"Acme Ltd\"

Adds the tenant to tenants.json, comments and order kept, and writes its new API key to .env of the data \
folder. The key is printed this once. A running server takes the tenant over by itself.
If it fails, nothing was changed; `conductor check` tells what is wrong with the files.";

const LIST_HELP: &str = "\
Example:
  conductor tenant list
  conductor tenant list --json

Reads tenants.json. A key that is set nowhere is marked. If it fails, `conductor check` tells more.";

const ROTATE_HELP: &str = "\
Example:
  conductor tenant rotate-key Acme             first: a second key
  conductor tenant rotate-key Acme --finish    then: the new one alone

Between the two, give the new key to everybody who sends. The server takes each up by itself, or at once \
with `conductor reload`; nobody is refused on the way.
If it fails, nothing was changed, and it says what to do by hand.";

/// What can be done about tenants.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a tenant with a new API key
    Add(Add),
    /// List the tenants
    List(List),
    /// Change a tenant's API key in two steps, without an outage
    RotateKey(RotateKey),
}

/// A tenant to add.
#[derive(Debug, Args)]
#[command(after_help = ADD_HELP)]
pub struct Add {
    /// Its name
    name: String,
}

/// How to list.
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
pub struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whose key to change.
#[derive(Debug, Args)]
#[command(after_help = ROTATE_HELP)]
pub struct RotateKey {
    /// The tenant's name or id
    tenant: String,
    /// The second step: the new key takes the old one's place
    #[arg(long)]
    finish: bool,
}

/// The longest name, in bytes.
const NAME_MAX_BYTES: usize = 200;

pub(super) fn run(command: &Command, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    match command {
        Command::Add(arguments) => add(arguments, settings, session),
        Command::List(arguments) => list(arguments, settings, session),
        Command::RotateKey(arguments) if arguments.finish => finish(arguments, settings, session),
        Command::RotateKey(arguments) => begin(arguments, settings, session),
    }
}

fn add(arguments: &Add, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let name = arguments.name.trim();
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        return Err(Failure::Refused(format!(
            "{name:?} is no name for a tenant\n  expected: 1 to {NAME_MAX_BYTES} bytes of text without control characters"
        )));
    }
    let document = Document::open(&settings.config_dir, ListFile::Tenants)?;
    if tenants(settings)?.iter().any(|tenant| tenant.name == name) {
        return Err(Failure::Refused(format!(
            "there is a tenant {name:?} already\n  help: choose another name, or see `conductor tenant list`"
        )));
    }
    let id = TenantId::new(new_id(session.clock.now())?);
    let (variable, key) = (edit::key_variable(id), new_key()?);
    document.append(edit::tenant_entry(id, name, &variable));
    let before = session.environment(settings);
    let after = session.environment(settings).with_defaults([(variable.clone(), key.clone())]);
    let errors = trial::new_errors(&settings.config_dir, &[&document], &before, &after, session.plugins)?;
    super::refuse_errors(&errors)?;
    let env_path = add_key(&settings.data_dir, &variable, name, &key)?;
    if let Err(error) = document.save() {
        let mut env = EnvFile::open(&env_path)?;
        env.remove(&variable)?;
        env.save()?;
        return Err(error.into());
    }
    let (key, file) = (key.expose(), env_path.display());
    writeln!(session.out, "Added the tenant {name}\n\n  Tenant id  {id}\n  API key    {key}\n")?;
    writeln!(session.out, "The key is shown this once. It is kept in {file} as {variable}.")?;
    writeln!(
        session.out,
        "Next: give the tenant a channel (`conductor channel add --tenant {id} --type log --name log`). A running\n\
         server takes both over by itself; `conductor reload` tells whether it has."
    )?;
    Ok(Ended::Well)
}

fn add_key(data_dir: &Path, variable: &str, name: &str, key: &Secret) -> Result<PathBuf, Failure> {
    durable::create_folder(data_dir).map_err(env_file::EnvFileError::from)?;
    let mut env = EnvFile::open(&data_dir.join(".env"))?;
    let path = env.path().to_path_buf();
    env.comment(&format!("The API key of the tenant \"{}\"", one_line(name)));
    env.set(variable, key)?;
    env.save()?;
    Ok(path)
}

fn list(arguments: &List, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let all = tenants(settings)?;
    let environment = session.environment(settings);
    let is_set = |name: &str| matches!(environment.lookup(name), Lookup::Found { .. });
    if arguments.json {
        let object = |tenant: &TenantLine| {
            json!({ "id": tenant.id.to_string(), "name": tenant.name, "authKeyEnvVar": name_or_stars(&tenant.key_variable),
                "keyIsSet": is_set(&tenant.key_variable), "nextKeyIsSet": is_set(&next(&tenant.key_variable)) })
        };
        session.print_json(&Value::Array(all.iter().map(object).collect()))?;
        return Ok(Ended::Well);
    }
    let row = |tenant: &TenantLine| {
        let key = match (is_set(&tenant.key_variable), is_set(&next(&tenant.key_variable))) {
            (true, false) => "set",
            (true, true) => "set, and a next one",
            (false, _) => "MISSING",
        };
        vec![
            one_line(&tenant.name),
            tenant.id.to_string(),
            key.to_owned(),
            name_or_stars(&tenant.key_variable).to_owned(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    write!(session.out, "{}", table(&["NAME", "ID", "KEY", "VARIABLE"], &rows))?;
    Ok(Ended::Well)
}

fn next(variable: &str) -> String {
    format!("{variable}{NEXT_SUFFIX}")
}

fn begin(arguments: &RotateKey, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let tenant = choose_tenant(Some(&arguments.tenant), settings)?;
    let (old, new) = (&tenant.key_variable, next(&tenant.key_variable));
    let environment = session.environment(settings);
    if !matches!(environment.lookup(old), Lookup::Found { .. }) {
        return Err(Failure::Refused(format!(
            "the tenant has no key to change: {} is not set\n  help: set it, in the environment or in {}",
            name_or_stars(old),
            settings.data_dir.join(".env").display()
        )));
    }
    let told = next(name_or_stars(old));
    if !matches!(environment.lookup(&new), Lookup::Missing | Lookup::Empty) {
        return Err(Failure::Refused(format!(
            "the change has begun already: {told} is set\n  help: end it with --finish; to begin again, remove {told}"
        )));
    }
    let key = new_key()?;
    let path = file_of(old, settings, session)?.unwrap_or_else(|| settings.data_dir.join(".env"));
    durable::create_folder(&settings.data_dir).map_err(env_file::EnvFileError::from)?;
    let mut env = EnvFile::open(&path)?;
    env.set(&new, &key)?;
    env.save()?;
    let (name, key, file) = (one_line(&tenant.name), key.expose(), path.display());
    writeln!(session.out, "{name} has a second key, kept in {file} as {told}\n\n  New API key  {key}\n")?;
    writeln!(
        session.out,
        "It is shown this once. Next:\n\
         1. conductor reload: both keys are valid;\n\
         2. give the new key to everybody who sends;\n\
         3. conductor tenant rotate-key {} --finish",
        tenant.id
    )?;
    Ok(Ended::Well)
}

fn finish(arguments: &RotateKey, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let tenant = choose_tenant(Some(&arguments.tenant), settings)?;
    let (old, new) = (&tenant.key_variable, next(&tenant.key_variable));
    let (told_old, told_new) = (name_or_stars(old), next(name_or_stars(old)));
    let key = match session.environment(settings).lookup(&new) {
        Lookup::Found { value, .. } => value,
        _ => {
            return Err(Failure::Refused(format!(
                "no change has begun: {told_new} is not set\n  help: begin with `conductor tenant rotate-key {}`",
                tenant.id
            )));
        }
    };
    let by_hand = |told: &str| {
        Failure::Refused(format!(
            "{told} does not come from a .env file that can be edited\n  help: give {told_old} the value of {told_new} \
             where it is set, remove {told_new}, and start the server again"
        ))
    };
    let old_file = file_of(old, settings, session)?.ok_or_else(|| by_hand(told_old))?;
    let new_file = file_of(&new, settings, session)?.ok_or_else(|| by_hand(&told_new))?;
    let mut env = EnvFile::open(&old_file)?;
    env.set(old, &key)?;
    if new_file == old_file {
        env.remove(&new)?;
    }
    env.save()?;
    if new_file != old_file {
        let mut env = EnvFile::open(&new_file)?;
        env.remove(&new)?;
        env.save()?;
    }
    let (name, file) = (one_line(&tenant.name), old_file.display());
    writeln!(session.out, "{name} has its new key alone, kept in {file} as {told_old}.")?;
    writeln!(session.out, "Next: conductor reload; then the old key is refused.")?;
    Ok(Ended::Well)
}

/// The `.env` file that a variable's value comes from; none where it comes from elsewhere.
fn file_of(variable: &str, settings: &Settings, session: &Session<'_>) -> Result<Option<PathBuf>, Failure> {
    if session.environment(settings).is_set_by_process(variable) {
        return Ok(None);
    }
    for folder in [&session.working_dir, &settings.data_dir] {
        let path = folder.join(".env");
        if EnvFile::open(&path)?.get(variable).is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
