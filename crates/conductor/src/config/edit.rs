//! Changes of the three files that keep their comments, their order and their shape.

use std::path::{Path, PathBuf};

use conductor_channels::Plugin;
use conductor_core::{ChannelId, TenantId};
use jsonc_parser::cst::{CstArray, CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

use self::durable::FileError;
pub use super::list_file::ListFile;
use super::list_file::{MAX_BYTES, options};

pub mod durable;
pub mod env_file;
pub mod trial;

/// One of the three files could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such file.
    #[error("{} is missing\n  help: make the files with `conductor init`, or name their folder with --config-dir", .0.display())]
    Missing(PathBuf),
    /// It is no JSON.
    #[error("{}:{line}:{column}: {message}\n  help: `conductor check` tells everything that is wrong", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// It is JSON, but no list of objects.
    #[error("{}: expected an object with the list \"{member}\", or the bare list\n  help: `conductor check` tells everything that is wrong", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The list's name.
        member: &'static str,
    },
    /// It is larger than it may be.
    #[error("{} is larger than {MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
}

/// One of the three files, with the changes that are to be made to it.
pub struct Document {
    file: ListFile,
    path: PathBuf,
    before: String,
    root: CstRootNode,
}

impl Document {
    /// Reads a file of the folder.
    ///
    /// # Errors
    /// It is missing, cannot be read, or is no list of objects.
    pub fn open(folder: &Path, file: ListFile) -> Result<Self, EditError> {
        let path = file.path(folder);
        let text = durable::read(&path)?.ok_or_else(|| EditError::Missing(path.clone()))?;
        Self::parse(file, path, text)
    }

    fn parse(file: ListFile, path: PathBuf, text: String) -> Result<Self, EditError> {
        if text.len() > MAX_BYTES {
            return Err(EditError::TooLarge(path));
        }
        let root = CstRootNode::parse(&text, &options()).map_err(|error| EditError::Syntax {
            path: path.clone(),
            line: error.line_display(),
            column: error.column_display(),
            message: error.kind().to_string(),
        })?;
        let document = Self { file, path, before: text, root };
        let is_list = match (document.list(), document.root.object_value()) {
            (Some(list), _) => list.elements().iter().all(|element| element.as_object().is_some()),
            (None, Some(object)) => object.get(file.member()).is_none(),
            (None, None) => false,
        };
        let shape = || EditError::Shape { path: document.path.clone(), member: file.member() };
        if is_list { Ok(document) } else { Err(shape()) }
    }

    /// Its entries, in order.
    pub fn entries(&self) -> Vec<Value> {
        let elements = self.list().map(|list| list.elements()).unwrap_or_default();
        elements.iter().filter_map(|element| element.to_serde_value()).collect()
    }

    /// Adds an entry at the end.
    pub fn append(&self, entry: CstInputValue) {
        let list = match self.root.object_value() {
            Some(object) => object.array_value_or_set(self.file.member()),
            None => self.root.array_value_or_set(),
        };
        list.ensure_multiline();
        list.append(entry);
    }

    /// Enables a plugin: changes its entry, or adds one.
    pub fn enable(&self, plugin: &Plugin) {
        let elements = self.list().map(|list| list.elements()).unwrap_or_default();
        let entry = elements.iter().filter_map(|element| element.as_object()).find(|object| {
            let name = object.get("name").and_then(|name| name.value()).and_then(|name| name.to_serde_value());
            name.as_ref().and_then(Value::as_str).is_some_and(|name| plugin.is_named(name))
        });
        match entry {
            Some(entry) => set(&entry, "enabled", CstInputValue::Bool(true)),
            None => self.append(plugin_entry(plugin.kind)),
        }
    }

    /// The text with all changes.
    pub fn text(&self) -> String {
        self.root.to_string()
    }

    /// Whether anything was changed.
    pub fn is_changed(&self) -> bool {
        self.text() != self.before
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which it is.
    pub fn file(&self) -> ListFile {
        self.file
    }

    /// Writes the changes, whole or not at all.
    ///
    /// # Errors
    /// The file changed meanwhile, or the folder or the disk does not take it.
    pub fn save(self) -> Result<(), EditError> {
        if self.is_changed() {
            durable::replace(&self.path, &self.before, &self.text(), None)?;
        }
        Ok(())
    }

    fn list(&self) -> Option<CstArray> {
        match self.root.object_value() {
            Some(object) => object.array_value(self.file.member()),
            None => self.root.array_value(),
        }
    }
}

fn set(object: &CstObject, member: &str, value: CstInputValue) {
    match object.get(member) {
        Some(property) => property.set_value(value),
        None => drop(object.append(member, value)),
    }
}

/// An entry of `tenants.json`.
pub fn tenant_entry(id: TenantId, name: &str, key_variable: &str) -> CstInputValue {
    object([("id", id.to_string().into()), ("name", name.into()), ("authKeyEnvVar", key_variable.into())])
}

/// What `channels.json` says of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelEntry {
    /// `channelId`
    pub id: ChannelId,
    /// `channelName`
    pub name: String,
    /// `tenantId`
    pub tenant: TenantId,
    /// `channelType`
    pub kind: String,
    /// `env`: which variable holds which setting.
    pub env: Vec<(String, String)>,
    /// `options`
    pub options: Vec<(String, Value)>,
}

impl ChannelEntry {
    /// The entry as it stands in the file.
    pub fn to_input(&self) -> CstInputValue {
        let mut members = vec![
            ("channelId", self.id.to_string().into()),
            ("channelName", self.name.as_str().into()),
            ("tenantId", self.tenant.to_string().into()),
            ("channelType", self.kind.as_str().into()),
        ];
        if !self.env.is_empty() {
            let env = self.env.iter().map(|(setting, variable)| (setting.clone(), variable.as_str().into()));
            members.push(("env", CstInputValue::Object(env.collect())));
        }
        let options = self.options.iter().map(|(name, value)| (name.clone(), input(value)));
        members.push(("options", CstInputValue::Object(options.collect())));
        object(members)
    }
}

/// An entry of `plugins.json` that enables a plugin.
pub fn plugin_entry(kind: &str) -> CstInputValue {
    object([("name", kind.into()), ("enabled", true.into()), ("options", CstInputValue::Object(Vec::new()))])
}

/// The text of a file that is made new, with these entries.
pub fn new_text(file: ListFile, entries: Vec<CstInputValue>) -> String {
    let text = format!("{{\n  \"{}\": []\n}}\n", file.member());
    let document = Document::parse(file, PathBuf::new(), text).expect("the empty list is good JSON");
    for entry in entries {
        document.append(entry);
    }
    document.text()
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, CstInputValue)>) -> CstInputValue {
    CstInputValue::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}

/// The variable that holds a tenant's key unless its entry names another.
pub fn key_variable(tenant: TenantId) -> String {
    format!("TENANT_{}_AUTHKEY", tenant.to_string().replace('-', "_"))
}

/// The variable of the pattern for a channel's setting.
pub fn setting_variable(tenant: TenantId, plugin: &Plugin, setting: &str) -> String {
    let kind = plugin.kind.to_ascii_uppercase().replace('-', "_");
    format!("TENANT_{}_{kind}_{setting}", tenant.to_string().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn document(file: ListFile, text: &str) -> Document {
        Document::parse(file, PathBuf::from(file.name()), text.to_owned()).expect("good JSON")
    }

    fn tenant() -> CstInputValue {
        tenant_entry(TenantId::new(Uuid::from_u128(7)), "Größe \"1\"", "KEY")
    }

    #[test]
    fn an_added_tenant_leaves_comments_order_and_the_object_shape_alone() {
        let text = "// ours\n{\n  \"$schema\": \"x\",\n  \"tenants\": [\n    { \"id\": \"a\" }, // first\n    // last\n  ],\n  \"z\": 1\n}\n";
        let document = document(ListFile::Tenants, text);
        document.append(tenant());
        let after = document.text();
        for kept in ["// ours\n", "\"$schema\": \"x\",", "{ \"id\": \"a\" }, // first\n", "// last\n", "\"z\": 1\n}\n"]
        {
            assert!(after.contains(kept), "{after}");
        }
        let entries = document.entries();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1]["name"], "Größe \"1\"");
        let value = document.root.to_serde_value().expect("a value");
        assert_eq!((&value["$schema"], &value["z"]), (&Value::from("x"), &Value::from(1)));
        Document::parse(ListFile::Tenants, PathBuf::new(), after).expect("still good JSON");
    }

    #[test]
    fn a_bare_list_stays_a_bare_list() {
        for text in ["[]", "[\n  // none yet\n]\n", "[{\"id\": \"a\"}]", "/* c */ [ ]"] {
            let document = document(ListFile::Tenants, text);
            let before = document.entries().len();
            document.append(tenant());
            let after = document.text();
            assert!(document.root.array_value().is_some(), "{after}");
            let again = Document::parse(ListFile::Tenants, PathBuf::new(), after).expect("good JSON");
            assert_eq!(again.entries().len(), before + 1);
        }
    }

    #[test]
    fn an_object_without_the_list_gets_it() {
        let document = document(ListFile::Tenants, "{}");
        document.append(tenant());
        assert_eq!(document.root.to_serde_value().expect("a value")["tenants"][0]["authKeyEnvVar"], "KEY");
    }

    #[test]
    fn what_is_no_list_of_objects_is_refused() {
        for text in ["", "3", "{\"tenants\": {}}", "[1]", "{\"tenants\": [\"a\"]}"] {
            let result = Document::parse(ListFile::Tenants, PathBuf::new(), text.to_owned());
            assert!(matches!(result.err(), Some(EditError::Shape { .. })), "{text}");
        }
        let bad = Document::parse(ListFile::Tenants, PathBuf::from("t"), "{\n  'a': 1}".to_owned());
        assert!(matches!(bad.err(), Some(EditError::Syntax { line: 2, column: 3, .. })));
    }

    #[test]
    fn a_new_file_reads_well() {
        let text = new_text(ListFile::Plugins, vec![plugin_entry("log"), plugin_entry("discord")]);
        let expected = r#"{
  "plugins": [
    {
      "name": "log",
      "enabled": true,
      "options": {}
    },
    {
      "name": "discord",
      "enabled": true,
      "options": {}
    }
  ]
}
"#;
        assert_eq!(text, expected);
    }
}
