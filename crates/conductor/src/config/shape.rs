//! Whether a value has the shape that a schema asks for, told in words that need no knowledge of JSON Schema.

use jsonschema::Validator;
use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind};
use jsonschema::types::JsonType;
use serde_json::Value;

use super::document::{Document, push_segment};
use super::report::{Fault, Report};

/// A schema that is ready to check values.
pub(super) struct Shape {
    schema: Value,
    validator: Validator,
}

/// What does not fit, at a JSON pointer below the value that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The value that does not fit; for a missing or an unknown member the object around it.
    pub(super) pointer: String,
    pub(super) kind: MisfitKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MisfitKind {
    /// A member that is not there.
    Missing { name: String, about: Option<String> },
    /// A member that does not belong there, and those that do.
    Unknown { name: String, known: Vec<String> },
    /// Another value is expected.
    Unfit { expected: String },
}

impl Shape {
    /// Makes a schema ready. A schema that is none is an error with the reason.
    pub(super) fn new(schema: Value) -> Result<Self, String> {
        let validator = jsonschema::draft202012::new(&schema).map_err(|error| error.to_string())?;
        Ok(Self { schema, validator })
    }

    /// Everything that does not fit.
    pub(super) fn misfits(&self, value: &Value) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        for error in self.validator.iter_errors(value) {
            self.explain(&error, &mut misfits);
        }
        misfits
    }

    /// The names of the members that the schema's top object knows.
    pub(super) fn known(&self) -> Vec<String> {
        member_names(&self.schema)
    }

    /// Takes a variable's text as the value that the member's schema asks for: a number or a truth value where no text
    /// fits.
    pub(super) fn read_text(&self, member: &str, text: &str) -> Value {
        let schema = self.schema.get("properties").and_then(|properties| properties.get(member));
        let types = schema.map(|schema| self.types(schema)).unwrap_or_default();
        let wants = |name: &str| types.iter().any(|kind| kind == name);
        let other = match serde_json::from_str::<Value>(text.trim()) {
            Ok(value @ Value::Number(_)) if wants("integer") || wants("number") => Some(value),
            Ok(value @ Value::Bool(_)) if wants("boolean") => Some(value),
            _ => None,
        };
        other.filter(|_| !wants("string")).unwrap_or_else(|| Value::String(text.to_owned()))
    }

    /// The types that a schema allows, its direct references followed once.
    fn types(&self, schema: &Value) -> Vec<String> {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        let schema = target.and_then(|target| self.schema.pointer(target)).unwrap_or(schema);
        match schema.get("type") {
            Some(Value::String(kind)) => vec![kind.clone()],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    fn explain(&self, error: &ValidationError<'_>, misfits: &mut Vec<Misfit>) {
        let pointer = error.instance_path().as_str().to_owned();
        let path = error.schema_path().as_str();
        let parent = path.rsplit_once('/').and_then(|(parent, _)| self.schema.pointer(parent));
        let parent = parent.unwrap_or(&Value::Null);
        let mut add = |kind| misfits.push(Misfit { pointer: pointer.clone(), kind });
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default().to_owned();
                let about = description(&self.schema, parent.get("properties").and_then(|all| all.get(&name)));
                add(MisfitKind::Missing { name, about });
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                for name in unexpected {
                    add(MisfitKind::Unknown { name: name.clone(), known: member_names(parent) });
                }
            }
            kind => add(MisfitKind::Unfit { expected: expected(kind, parent) }),
        }
    }
}

/// Reports what of an entry, or a part of one, does not fit.
pub(super) fn report_misfits(
    document: &Document<'_>,
    pointer: &str,
    shape: &Shape,
    value: &Value,
    report: &mut Report,
) {
    for Misfit { pointer: below, kind } in shape.misfits(value) {
        let is_value = matches!(kind, MisfitKind::Unfit { .. });
        let fault = misfit_fault(document, &format!("{pointer}{below}"), kind);
        if is_value { report.add_first(fault) } else { report.add(fault) }
    }
}

/// The fault that tells of a misfit in a file.
pub(super) fn misfit_fault(document: &Document<'_>, pointer: &str, kind: MisfitKind) -> Fault {
    match kind {
        MisfitKind::Missing { name, about } => {
            let fault = document.error(pointer, format!("`{name}` is missing"));
            fault.expected(about.unwrap_or_else(|| "this member, which is required".to_owned()))
        }
        MisfitKind::Unknown { name, known } => unknown_member(document, pointer, &name, &known),
        MisfitKind::Unfit { expected } => {
            let found = format!("found {}, which does not fit here", document.show(pointer));
            document.error(pointer, found).expected(expected)
        }
    }
}

/// The fault of a member that does not belong where it stands.
pub(super) fn unknown_member(document: &Document<'_>, pointer: &str, name: &str, known: &[String]) -> Fault {
    let mut member = pointer.to_owned();
    push_segment(&mut member, name);
    let fault = document.error_at_name(&member, format!("`{name}` is not known here"));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let fault = if known.is_empty() {
        fault.expected("no member here")
    } else {
        fault.expected(format!("one of {}", list(&known)))
    };
    match nearest(name, &known) {
        Some(near) => fault.help(format!("did you mean `{near}`?")),
        None => fault.help("remove it"),
    }
}

/// The candidate that somebody who wrote `word` probably meant.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    const SIMILAR: f64 = 0.75;
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let wanted = plain(word);
    let score = |candidate: &str| {
        let candidate = plain(candidate);
        let contained = wanted.len() > 3 && candidate.contains(&wanted);
        strsim::jaro_winkler(&wanted, &candidate).max(if contained { 0.9 } else { 0.0 })
    };
    let scored = candidates.iter().map(|candidate| (score(candidate), *candidate));
    scored.filter(|(score, _)| *score >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// Names as a sentence lists them: `a`, `b`, `c`.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn member_names(schema: &Value) -> Vec<String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect()
}

fn description(root: &Value, schema: Option<&Value>) -> Option<String> {
    let schema = schema?;
    let text = |schema: &Value| schema.get("description").and_then(Value::as_str).map(str::to_owned);
    text(schema).or_else(|| {
        let target = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        let schema = root.pointer(target)?;
        text(schema).or_else(|| schema.get("title").and_then(Value::as_str).map(str::to_owned))
    })
}

/// What is expected instead. Never the value itself: it may be a secret.
fn expected(kind: &ValidationErrorKind, parent: &Value) -> String {
    if let Some(title) = parent.get("title").and_then(Value::as_str) {
        return title.to_owned();
    }
    match kind {
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => type_name(*kind).to_owned(),
        ValidationErrorKind::Type { kind: TypeKind::Multiple(kinds) } => {
            let kinds: Vec<&str> = kinds.iter().map(type_name).collect();
            kinds.join(" or ")
        }
        ValidationErrorKind::Enum { options } => match options.as_array() {
            Some(options) => {
                let options: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
                format!("one of {}", list(&options))
            }
            None => "one of a few values".to_owned(),
        },
        ValidationErrorKind::Constant { expected_value } => format!("{expected_value}"),
        ValidationErrorKind::Pattern { pattern } => format!("a text that matches {pattern}"),
        ValidationErrorKind::Minimum { limit } => format!("a number of at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("a number of at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("a number above {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("a number below {limit}"),
        ValidationErrorKind::MinLength { limit } => format!("a text of at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("a text of at most {limit} characters"),
        ValidationErrorKind::MinItems { limit } => format!("a list of at least {limit}"),
        ValidationErrorKind::MaxItems { limit } => format!("a list of at most {limit}"),
        ValidationErrorKind::UniqueItems => "a list in which nothing stands twice".to_owned(),
        _ => {
            let about = parent.get("description").and_then(Value::as_str);
            about.map_or_else(|| "a value that the schema allows".to_owned(), |about| format!("a value for: {about}"))
        }
    }
}

fn type_name(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a text in quotes",
    }
}
