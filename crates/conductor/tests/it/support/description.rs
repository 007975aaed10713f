//! Holds every answer that a test gets against the API's own description.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex};

use http::Method;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::client::Reply;

/// One call of the description.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// With its parameters in braces.
    pub(crate) path: String,
    pub(crate) value: Value,
}

impl Operation {
    /// Which kind of key it asks for.
    pub(crate) fn key(&self) -> Option<&str> {
        self.value["security"].as_array()?.first()?.as_object()?.keys().next().map(String::as_str)
    }

    pub(crate) fn takes_body(&self) -> bool {
        self.value.get("requestBody").is_some()
    }

    pub(crate) fn statuses(&self) -> BTreeSet<u16> {
        let responses = self.value["responses"].as_object().expect("responses");
        responses.keys().map(|status| status.parse().expect("a status")).collect()
    }

    /// The path with its parameters filled in.
    pub(crate) fn path_with(&self, parameters: &[(&str, &str)]) -> String {
        let mut path = self.path.clone();
        for (name, value) in parameters {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "{path}: a test has to know this parameter");
        path
    }

    fn fits(&self, path: &str) -> bool {
        let (mine, theirs): (Vec<_>, Vec<_>) = (self.path.split('/').collect(), path.split('/').collect());
        mine.len() == theirs.len() && mine.iter().zip(&theirs).all(|(mine, word)| mine.starts_with('{') || mine == word)
    }

    /// As it is told: `GET /notifications`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The whole description.
pub(crate) static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(conductor::api::document()).expect("the description is JSON"));

/// Every call, those without parameters first, as the router prefers them.
pub(crate) static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let mut operations = Vec::new();
    for (path, item) in DESCRIPTION["paths"].as_object().expect("paths") {
        for (method, value) in item.as_object().expect("a path's calls") {
            let method = method.to_uppercase().parse().expect("a method");
            operations.push(Operation { method, path: path.clone(), value: value.clone() });
        }
    }
    operations.sort_by_key(|operation| operation.path.contains('{'));
    operations
});

/// Which answers of which calls have been held against the description by this process.
static SEEN: Mutex<BTreeSet<(String, u16)>> = Mutex::new(BTreeSet::new());
static VALIDATORS: Mutex<BTreeMap<String, &'static Validator>> = Mutex::new(BTreeMap::new());

/// Which answers this process has seen.
pub(crate) fn seen() -> BTreeSet<(String, u16)> {
    SEEN.lock().expect("no test panics while it holds the lock").clone()
}

/// Checks values against a schema of the description.
pub(crate) fn validator(schema: &Value) -> &'static Validator {
    let mut validators = VALIDATORS.lock().expect("no test panics while it holds the lock");
    validators.entry(schema.to_string()).or_insert_with(|| {
        let mut whole = json!({ "components": DESCRIPTION["components"] });
        whole.as_object_mut().expect("an object").extend(schema.as_object().expect("a schema").clone());
        Box::leak(Box::new(jsonschema::draft202012::new(&whole).expect("a valid schema")))
    })
}

/// Checks status, media type, headers and body of an answer.
pub(crate) fn check(method: &Method, path: &str, reply: &Reply) {
    let operation = OPERATIONS.iter().find(|one| one.method == *method && one.fits(path));
    let Some(operation) = operation else { return };
    let (name, status) = (operation.name(), reply.status.as_u16());
    let described = &operation.value["responses"][status.to_string()];
    assert!(described.is_object(), "{name} answers {status}, which is not described: {:?}", reply.body);
    SEEN.lock().expect("no test panics while it holds the lock").insert((name.clone(), status));
    let content = described["content"].as_object();
    let (media, content) = content.and_then(|content| content.iter().next()).expect("a described body");
    let found = reply.header("content-type").unwrap_or_default();
    assert_eq!(found.split(';').next(), Some(media.as_str()), "{name} {status}");
    if media.ends_with("json") {
        let body = reply.json();
        let faults: Vec<_> = validator(&content["schema"]).iter_errors(&body).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{name} {status}: {faults:#?} in {body:#}");
    }
}
