//! Values that must not be shown.

use std::fmt;

use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

/// A secret text. It has no `Display`, its `Debug` prints `***`, and its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that hands it to a provider. Never log, store or format what this returns.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Named values among which there may be secrets. It has no `Debug`, and the memory of its texts is overwritten when it is
/// dropped.
#[derive(Clone, Default)]
pub struct SecretValues(Map<String, Value>);

impl SecretValues {
    /// The values, for the one who turns each secret among them into a [`Secret`].
    #[must_use]
    pub fn into_inner(mut self) -> Map<String, Value> {
        std::mem::take(&mut self.0)
    }
}

impl From<Map<String, Value>> for SecretValues {
    fn from(values: Map<String, Value>) -> Self {
        Self(values)
    }
}

impl std::ops::Deref for SecretValues {
    type Target = Map<String, Value>;
    fn deref(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl std::ops::DerefMut for SecretValues {
    fn deref_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }
}

impl Drop for SecretValues {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

/// Overwrites the memory of every text in a value, which is empty afterwards.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(values) => values.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_of_a_value_is_wiped_however_deep_it_lies() {
        let mut value = serde_json::json!({ "a": "hunter2", "b": [1, "hunter2", { "c": "hunter2" }], "d": null });
        wipe(&mut value);
        assert_eq!(value, serde_json::json!({ "a": "", "b": [1, "", { "c": "" }], "d": null }));
        let values = SecretValues::from(serde_json::Map::from_iter([("a".to_owned(), "hunter2".into())]));
        assert_eq!(values.get("a"), Some(&"hunter2".into()));
        assert_eq!(values.into_inner().len(), 1);
    }

    #[test]
    fn debug_does_not_show_a_secret() {
        let shown = format!("{:?}", Some(Secret::new("hunter2")));
        assert_eq!(shown, "Some(***)");
    }
}
