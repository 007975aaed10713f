//! The first start: what is missing is made, what is there is never touched.

use std::path::{Path, PathBuf};

use conductor_channels::Plugin;
use conductor_core::{ChannelId, Secret, TenantId, Timestamp};
use jsonc_parser::cst::CstInputValue;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;
use uuid::Uuid;

use super::ADMIN_KEY_VARIABLE;
use super::edit::durable::{self, FileError, Staged};
use super::edit::env_file::{EnvFile, EnvFileError};
use super::edit::{self, ChannelEntry, Document, EditError, ListFile};

const FIRST_TENANT: &str = "Default Tenant";
const FIRST_CHANNEL: &str = "log";
/// The plugins that are enabled before anybody says which.
const FIRST_PLUGINS: [&str; 2] = ["log", "discord"];
/// The three files name variables, never secrets: others may read them.
const MODE: u32 = 0o644;
const KEY_BYTES: usize = 32;

/// What was missing and has been made.
#[derive(Debug, Default)]
pub struct FirstRun {
    /// The files that were made, in the order in which a person reads them.
    pub created: Vec<PathBuf>,
    /// The first tenant that was made, if any was.
    pub tenant: Option<NewTenant>,
    /// Where the new keys were written, if any were made.
    pub env_file: Option<PathBuf>,
    /// Whether the operator's key is among them.
    pub admin_key: bool,
}

/// A tenant that was made.
#[derive(Debug)]
pub struct NewTenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// The variable of its key.
    pub key_variable: String,
    /// Its key; none where the variable was set before.
    pub key: Option<Secret>,
}

/// What was missing could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstRunError {
    /// A file or folder cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// `.env` cannot be changed.
    #[error(transparent)]
    Env(#[from] EnvFileError),
    /// One of the files that are there cannot be read.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The system gives no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The system gives no random numbers, so no key can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers, so no key can be made\n  help: is /dev/urandom there and readable?")]
pub struct RandomError;

/// A new API key: 64 hex characters from the system's random numbers.
///
/// # Errors
/// The system gives none.
pub fn new_key() -> Result<Secret, RandomError> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

/// A new UUIDv7.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_id(now: Timestamp) -> Result<Uuid, RandomError> {
    let mut bytes = [0; 10];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.millis().unsigned_abs(), &bytes).into_uuid())
}

/// Whether [`ensure`] has something to make.
///
/// # Errors
/// One of the files that are there cannot be read.
pub fn is_needed(config_dir: &Path) -> Result<bool, FirstRunError> {
    Ok(Found::in_folder(config_dir)?.is_some_and(|found| !found.is_complete()))
}

/// Makes what is missing of the folders and files. `is_set` tells whether a variable is set already, wherever.
///
/// Where one of the files that are there cannot be understood, nothing is made: the validation that follows tells what
/// is wrong with it.
///
/// # Errors
/// Something cannot be made. Then nothing is left behind, unless placing the files itself failed half-way.
pub fn ensure(
    config_dir: &Path,
    data_dir: &Path,
    plugins: &[Plugin],
    now: Timestamp,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<FirstRun, FirstRunError> {
    let Some(found) = Found::in_folder(config_dir)? else { return Ok(FirstRun::default()) };
    if found.is_complete() {
        return Ok(FirstRun::default());
    }
    let new_folders = missing_folders(&[config_dir, data_dir]);
    let made = make(&found, config_dir, data_dir, plugins, now, is_set);
    if made.is_err() {
        for folder in new_folders {
            // Only an empty one goes; what else there is in it was worth keeping.
            let _ = std::fs::remove_dir(folder);
        }
    }
    made
}

/// The folders that are not there yet, the deepest first.
fn missing_folders(wanted: &[&Path]) -> Vec<PathBuf> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let mut folders: Vec<PathBuf> = Vec::new();
    for path in wanted {
        folders.extend(path.ancestors().take_while(missing).map(Path::to_path_buf));
    }
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
    folders
}

fn make(
    found: &Found,
    config_dir: &Path,
    data_dir: &Path,
    plugins: &[Plugin],
    now: Timestamp,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<FirstRun, FirstRunError> {
    durable::create_folder(config_dir)?;
    durable::create_folder(data_dir)?;
    let plan = Plan::new(found, plugins, now)?;
    let mut staged = Vec::new();
    for (file, text) in &plan.files {
        staged.push(Staged::new(&file.path(config_dir), text, MODE)?);
    }
    let mut first = FirstRun::default();
    if let Some((id, name)) = plan.tenants.first() {
        first.tenant =
            Some(NewTenant { id: *id, name: name.clone(), key_variable: edit::key_variable(*id), key: None });
        make_keys(&plan.tenants, &mut first, data_dir, is_set)?;
    }
    // The tenants come last: as long as they are missing, a start that was cut off is done again.
    for file in staged {
        first.created.push(file.place_new()?);
    }
    first.created.reverse();
    Ok(first)
}

fn make_keys(
    tenants: &[(TenantId, String)],
    first: &mut FirstRun,
    data_dir: &Path,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<(), FirstRunError> {
    let mut env = EnvFile::open(&data_dir.join(".env"))?;
    if !env.exists() {
        env.comment("Conductor's keys. Keep this file to yourself and out of version control.");
    }
    for (id, name) in tenants {
        let variable = edit::key_variable(*id);
        if env.get(&variable).is_none() && !is_set(&variable) {
            env.comment(&format!("The API key of the tenant \"{}\"", one_line(name)));
            env.set(&variable, &new_key()?)?;
        }
    }
    if env.get(ADMIN_KEY_VARIABLE).is_none() && !is_set(ADMIN_KEY_VARIABLE) {
        env.comment("The operator's key: for /metrics and what concerns all tenants");
        env.set(ADMIN_KEY_VARIABLE, &new_key()?)?;
        first.admin_key = true;
    }
    if let Some(tenant) = &mut first.tenant {
        tenant.key = env.get(&tenant.key_variable);
    }
    if env.is_changed() {
        first.env_file = Some(env.path().to_path_buf());
        if !env.exists() {
            first.created.push(env.path().to_path_buf());
        }
    }
    env.save()?;
    Ok(())
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The files that are there; none where one is missing.
struct Found {
    tenants: Option<Vec<Value>>,
    channels: Option<Vec<Value>>,
    plugins: Option<Vec<Value>>,
}

impl Found {
    /// None where a file is there that cannot be understood.
    fn in_folder(folder: &Path) -> Result<Option<Self>, FirstRunError> {
        let read = |file| match Document::open(folder, file) {
            Ok(document) => Ok(Some(Some(document.entries()))),
            Err(EditError::Missing(_)) => Ok(Some(None)),
            Err(EditError::File(error)) => Err(FirstRunError::File(error)),
            Err(_) => Ok(None),
        };
        let (tenants, channels) = (read(ListFile::Tenants)?, read(ListFile::Channels)?);
        let (Some(tenants), Some(channels), Some(plugins)) = (tenants, channels, read(ListFile::Plugins)?) else {
            return Ok(None);
        };
        Ok(Some(Self { tenants, channels, plugins }))
    }

    fn is_complete(&self) -> bool {
        self.tenants.is_some() && self.channels.is_some() && self.plugins.is_some()
    }

    /// The first tenant's id, where the tenants are there.
    fn first_tenant(&self) -> Option<TenantId> {
        self.tenants.as_ref()?.first()?.get("id")?.as_str()?.parse().ok()
    }

    /// The tenants that the channels belong to, in order.
    fn tenants_of_channels(&self) -> Vec<TenantId> {
        let mut ids = Vec::new();
        for channel in self.channels.iter().flatten() {
            let id = channel.get("tenantId").and_then(Value::as_str).and_then(|text| text.parse().ok());
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        ids
    }

    fn takes_log_channels(&self) -> bool {
        let is_log = |plugin: &Value| {
            plugin.get("name") == Some(&FIRST_CHANNEL.into()) && plugin.get("enabled") != Some(&false.into())
        };
        self.plugins.as_ref().is_none_or(|plugins| plugins.iter().any(is_log))
    }
}

/// What is to be made.
struct Plan {
    tenants: Vec<(TenantId, String)>,
    files: Vec<(ListFile, String)>,
}

impl Plan {
    fn new(found: &Found, plugins: &[Plugin], now: Timestamp) -> Result<Self, RandomError> {
        let mut plan = Self { tenants: Vec::new(), files: Vec::new() };
        if found.tenants.is_none() {
            let mut ids = found.tenants_of_channels();
            if ids.is_empty() {
                ids.push(TenantId::new(new_id(now)?));
            }
            let name = |index| if index == 0 { FIRST_TENANT.to_owned() } else { format!("Tenant {}", index + 1) };
            plan.tenants = ids.into_iter().enumerate().map(|(index, id)| (id, name(index))).collect();
        }
        if found.plugins.is_none() {
            plan.add(ListFile::Plugins, plugin_entries(found, plugins));
        }
        if found.channels.is_none() {
            let tenant = plan.tenants.first().map(|(id, _)| *id).or_else(|| found.first_tenant());
            let tenant = tenant.filter(|_| found.takes_log_channels());
            plan.add(
                ListFile::Channels,
                tenant.map(|tenant| log_channel(tenant, now)).transpose()?.into_iter().collect(),
            );
        }
        if found.tenants.is_none() {
            let entries = plan.tenants.iter().map(|(id, name)| edit::tenant_entry(*id, name, &edit::key_variable(*id)));
            plan.add(ListFile::Tenants, entries.collect());
        }
        Ok(plan)
    }

    fn add(&mut self, file: ListFile, entries: Vec<CstInputValue>) {
        self.files.push((file, edit::new_text(file, entries)));
    }
}

fn log_channel(tenant: TenantId, now: Timestamp) -> Result<CstInputValue, RandomError> {
    let entry = ChannelEntry {
        id: ChannelId::new(new_id(now)?),
        name: FIRST_CHANNEL.to_owned(),
        tenant,
        kind: FIRST_CHANNEL.to_owned(),
        env: Vec::new(),
        options: Vec::new(),
    };
    Ok(entry.to_input())
}

/// The first plugins, and those that the channels use.
fn plugin_entries(found: &Found, plugins: &[Plugin]) -> Vec<CstInputValue> {
    let mut names: Vec<&str> = FIRST_PLUGINS.to_vec();
    for channel in found.channels.iter().flatten() {
        let kind = channel.get("channelType").and_then(Value::as_str);
        let plugin = kind.and_then(|kind| conductor_channels::plugin(plugins, kind));
        names.extend(plugin.map(|plugin| plugin.kind).filter(|kind| !names.contains(kind)));
    }
    names.into_iter().map(edit::plugin_entry).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const TENANT: &str = "01943c2a-7c3e-7000-8000-123456789abc";

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }
        fn data(&self) -> PathBuf {
            self.0.path().join("data")
        }
        fn config(&self) -> PathBuf {
            self.data().join("config")
        }
        fn with(self, name: &str, text: &str) -> Self {
            fs::create_dir_all(self.config()).expect("a folder");
            fs::write(self.config().join(name), text).expect("written");
            self
        }
        fn ensure(&self) -> Result<FirstRun, FirstRunError> {
            ensure(&self.config(), &self.data(), &[], Timestamp::from_millis(1_705_314_600_000), &|_| false)
        }
        fn entries(&self, file: ListFile) -> Vec<Value> {
            Document::open(&self.config(), file).expect("readable").entries()
        }
        fn env(&self) -> String {
            fs::read_to_string(self.data().join(".env")).expect("readable")
        }
    }

    #[test]
    fn an_empty_place_becomes_a_tenant_with_a_key_and_a_log_channel() {
        let folder = Folder::new();
        let first = folder.ensure().expect("made");
        let tenant = first.tenant.expect("a tenant");
        let key = tenant.key.expect("a key");
        assert_eq!(key.expose().len(), 64);
        assert!(key.expose().chars().all(|c| c.is_ascii_hexdigit()));
        assert_eq!(tenant.id.uuid().get_version_num(), 7);
        let tenants = folder.entries(ListFile::Tenants);
        assert_eq!(tenants[0]["id"], tenant.id.to_string());
        assert_eq!((&tenants[0]["name"], tenants.len()), (&"Default Tenant".into(), 1));
        assert_eq!(tenants[0]["authKeyEnvVar"], tenant.key_variable);
        let channels = folder.entries(ListFile::Channels);
        assert_eq!((&channels[0]["channelType"], channels.len()), (&"log".into(), 1));
        assert_eq!(channels[0]["tenantId"], tenant.id.to_string());
        let plugins = folder.entries(ListFile::Plugins);
        assert_eq!((&plugins[0]["name"], &plugins[1]["name"]), (&"log".into(), &"discord".into()));
        assert!(folder.env().contains(&format!("{}={}\n", tenant.key_variable, key.expose())));
        assert!(folder.env().contains("\nCONDUCTOR_ADMIN_KEY=") && first.admin_key);
        assert_eq!(fs::metadata(folder.data().join(".env")).expect("there").mode() & 0o777, 0o600);
        assert_eq!(first.created.len(), 4);
        assert!(first.created[0].ends_with("tenants.json"));
    }

    #[test]
    fn a_second_start_changes_nothing() {
        let folder = Folder::new();
        folder.ensure().expect("made");
        let read = || ListFile::Tenants.path(&folder.config());
        let before = (fs::read(read()).expect("readable"), folder.env());
        let second = folder.ensure().expect("found");
        assert!(second.created.is_empty() && second.tenant.is_none() && !second.admin_key);
        assert_eq!(before, (fs::read(read()).expect("readable"), folder.env()));
    }

    #[test]
    fn two_servers_get_different_keys() {
        let keys = [Folder::new(), Folder::new()].map(|folder| folder.ensure().expect("made").tenant.expect("one").key);
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn a_missing_channels_file_gets_a_log_channel_of_the_first_tenant_and_no_new_tenant() {
        let text = format!("[{{\"id\": \"{TENANT}\", \"name\": \"A\", \"authKeyEnvVar\": \"K\"}}]");
        let folder = Folder::new().with("tenants.json", &text);
        let first = folder.ensure().expect("made");
        assert!(first.tenant.is_none() && !first.admin_key && first.env_file.is_none());
        assert!(!folder.data().join(".env").exists());
        assert_eq!(folder.entries(ListFile::Channels)[0]["tenantId"], TENANT);
        assert_eq!(folder.entries(ListFile::Plugins).len(), 2);
        assert_eq!(fs::read_to_string(ListFile::Tenants.path(&folder.config())).expect("readable"), text);
    }

    #[test]
    fn no_log_channel_is_made_where_the_log_plugin_is_not_enabled() {
        let tenants = format!("[{{\"id\": \"{TENANT}\", \"name\": \"A\", \"authKeyEnvVar\": \"K\"}}]");
        let folder = Folder::new().with("tenants.json", &tenants).with("plugins.json", "[{\"name\": \"discord\"}]");
        folder.ensure().expect("made");
        assert!(folder.entries(ListFile::Channels).is_empty());
    }

    #[test]
    fn missing_tenants_are_those_that_the_channels_name() {
        let channels = format!("[{{\"tenantId\": \"{TENANT}\", \"channelType\": \"log\"}}]");
        let folder = Folder::new().with("channels.json", &channels);
        let tenant = folder.ensure().expect("made").tenant.expect("a tenant");
        assert_eq!(tenant.id.to_string(), TENANT);
        assert_eq!(tenant.key_variable, "TENANT_01943c2a_7c3e_7000_8000_123456789abc_AUTHKEY");
        assert!(tenant.key.is_some());
    }

    #[test]
    fn a_key_that_is_set_already_is_not_made_again() {
        let channels = format!("[{{\"tenantId\": \"{TENANT}\", \"channelType\": \"log\"}}]");
        let folder = Folder::new().with("channels.json", &channels);
        let now = Timestamp::from_millis(1);
        let first = ensure(&folder.config(), &folder.data(), &[], now, &|_| true).expect("made");
        assert!(first.tenant.expect("a tenant").key.is_none() && !first.admin_key);
        assert!(!folder.data().join(".env").exists() || folder.env().lines().all(|line| line.starts_with('#')));
    }

    #[test]
    fn an_env_file_that_is_there_keeps_what_it_says() {
        let folder = Folder::new().with("unrelated", "");
        fs::write(folder.data().join(".env"), "# mine\nCONDUCTOR_ADMIN_KEY='kept'\nX=1").expect("written");
        let first = folder.ensure().expect("made");
        assert!(folder.env().starts_with("# mine\nCONDUCTOR_ADMIN_KEY='kept'\nX=1\n"), "{}", folder.env());
        assert!(!first.admin_key && folder.env().contains("_AUTHKEY="));
        assert_eq!(fs::metadata(folder.data().join(".env")).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_cannot_be_written_leaves_nothing_half_made() {
        let folder = Folder::new();
        fs::write(folder.0.path().join("file"), "").expect("written");
        let config = folder.0.path().join("file/config");
        let now = Timestamp::from_millis(1);
        let error =
            ensure(&config, &folder.data(), &[], now, &|_| false).expect_err("a file is in the way").to_string();
        assert!(error.contains("file/config") && error.contains("--config-dir"), "{error}");
        assert!(!folder.data().join(".env").exists());
        let data = folder.0.path().join("file/data");
        ensure(&folder.config(), &data, &[], now, &|_| false).expect_err("a file is in the way");
        assert!(!folder.data().exists(), "an empty folder was left");
    }

    #[test]
    fn a_start_that_was_cut_off_before_the_tenants_is_done_again_with_the_same_key() {
        let folder = Folder::new();
        let before = folder.ensure().expect("made").tenant.expect("a tenant");
        fs::remove_file(ListFile::Tenants.path(&folder.config())).expect("removed");
        let after = folder.ensure().expect("made").tenant.expect("a tenant");
        assert_eq!((before.id, before.key), (after.id, after.key));
    }

    #[test]
    fn nothing_is_made_beside_a_file_that_cannot_be_understood() {
        let folder = Folder::new().with("tenants.json", "{ not JSON");
        assert!(folder.ensure().expect("left to the validation").created.is_empty());
        assert!(!ListFile::Channels.path(&folder.config()).exists());
    }
}
