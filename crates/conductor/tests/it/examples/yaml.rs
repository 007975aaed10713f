//! YAML files as JSON values.

use std::path::Path;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

use crate::repository::{read, root};

/// The first document of a file of the repository. `!secret name` becomes what `secrets` holds under that name, as
/// Home Assistant does it.
pub(crate) fn load(path: &Path, secrets: &[(&str, &str)]) -> Value {
    let text = read(&root().join(path));
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    value(&documents[0], secrets)
}

fn value(yaml: &Yaml<'_>, secrets: &[(&str, &str)]) -> Value {
    match yaml {
        Yaml::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => (*value).into(),
            Scalar::Integer(value) => (*value).into(),
            Scalar::FloatingPoint(value) => f64::from(*value).into(),
            Scalar::String(value) => value.to_string().into(),
        },
        Yaml::Sequence(items) => items.iter().map(|item| value(item, secrets)).collect(),
        Yaml::Mapping(entries) => {
            let name = |key: &Yaml<'_>| key.as_str().expect("a key is a text").to_owned();
            let entries = entries.iter().map(|(key, entry)| (name(key), value(entry, secrets)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Yaml::Tagged(tag, inner) if tag.suffix == "secret" => {
            let name = inner.as_str().expect("a secret has a name");
            let secret = secrets.iter().find(|(known, _)| *known == name);
            secret.unwrap_or_else(|| panic!("no such secret: {name}")).1.into()
        }
        other => panic!("cannot be read: {other:?}"),
    }
}
