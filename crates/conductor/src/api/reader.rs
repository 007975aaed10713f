//! Takes the fields of a JSON object one by one and collects everything that is wrong with them.

use std::collections::BTreeMap;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conductor_core::{ChannelId, Problems, Timestamp};
use serde_json::{Map, Value};

use crate::accept::{Route, nearest};

/// Where a list goes on, as text.
pub(crate) fn cursor(place: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

/// An object whose fields are being taken. A field that is `null` counts as left out.
pub(crate) struct Reader<'a> {
    prefix: String,
    fields: Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    /// Begins to read an object. `prefix` stands before the names of its fields in problems, such as `fallback.0.`.
    /// None: the value is no object, which has been told under `place`.
    pub(crate) fn new(value: Value, place: &str, prefix: String, problems: &'a mut Problems) -> Option<Self> {
        match value {
            Value::Object(fields) => Some(Self { prefix, fields, known: Vec::new(), problems }),
            other => {
                problems.add(place, format!("is {}; expected an object", described(&other)));
                None
            }
        }
    }

    /// Reads the parameters of a query string. One that is empty counts as left out.
    pub(crate) fn of_query(query: &str, problems: &'a mut Problems) -> Self {
        let mut fields = Map::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let told = named(&name).to_owned();
            let value = if value.is_empty() { Value::Null } else { Value::String(value.into_owned()) };
            if fields.insert(name.into_owned(), value).is_some() {
                problems.add(told, "stands in the query more than once");
            }
        }
        Self { prefix: String::new(), fields, known: Vec::new(), problems }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Tells what is wrong with a field.
    pub(crate) fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.problems.add(format!("{}{name}", self.prefix), message);
    }

    /// Tells that a field is not what was expected.
    pub(crate) fn wrong(&mut self, name: &str, found: &Value, expected: &str) {
        self.problem(name, format!("is {}; expected {expected}", described(found)));
    }

    /// A field of text.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(name, &other, "text");
                None
            }
        }
    }

    /// A field of text that has to be there. None: it is not, which has been told.
    pub(crate) fn required_text(&mut self, name: &'static str) -> Option<String> {
        if self.fields.get(name).is_none_or(Value::is_null) {
            self.problem(name, "is required");
        }
        self.text(name)
    }

    /// A field that holds one of some words.
    pub(crate) fn word<T: FromStr + Copy>(
        &mut self,
        name: &'static str,
        all: &[T],
        as_str: fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let words = || all.iter().map(|word| as_str(*word));
            let list = words().collect::<Vec<_>>().join(", ");
            let meant = nearest(&text, words()).map(|word| format!("; did you mean \"{word}\"?"));
            self.problem(name, format!("is \"{}\"; allowed: {list}{}", shown(&text), meant.unwrap_or_default()));
        }
        parsed
    }

    /// A field that holds a UUID.
    pub(crate) fn channel_id(&mut self, name: &'static str) -> Option<ChannelId> {
        self.id(name)
    }

    /// A field that holds a UUID of some kind.
    pub(crate) fn id<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        let id = text.parse().ok();
        if id.is_none() {
            let found = shown(&text);
            self.problem(name, format!("is \"{found}\"; expected a UUID such as 01943c2a-7c3e-7000-8000-123456789abc"));
        }
        id
    }

    /// A field that says where a list goes on: bytes, as [`cursor`] writes them.
    pub(crate) fn cursor<const N: usize>(&mut self, name: &'static str) -> Option<[u8; N]> {
        let text = self.text(name)?;
        let bytes = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        if bytes.is_none() {
            self.problem(name, "is no cursor; pass \"next\" of the part before, unchanged");
        }
        bytes
    }

    /// A field that holds a time.
    pub(crate) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let text = self.text(name)?;
        match Timestamp::parse(&text) {
            Ok(time) => Some(time),
            Err(error) => {
                self.problem(name, format!("is \"{}\"; {error}", shown(&text)));
                None
            }
        }
    }

    /// A field that holds a whole number, as text in a query.
    pub(crate) fn number(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let found = self.take(name)?;
        let number = match &found {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.wrong(name, &found, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A field that is true or false.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let found = self.take(name)?;
        if found.as_bool().is_none() {
            self.wrong(name, &found, "true or false");
        }
        found.as_bool()
    }

    /// A field that holds an object, as it is.
    pub(crate) fn object(&mut self, name: &'static str) -> Map<String, Value> {
        match self.take(name) {
            None => Map::new(),
            Some(Value::Object(object)) => object,
            Some(other) => {
                self.wrong(name, &other, "an object");
                Map::new()
            }
        }
    }

    /// A field that holds an object of texts.
    pub(crate) fn texts(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (key, value) in self.object(name) {
            match value {
                Value::String(text) => {
                    texts.insert(key, text);
                }
                other => self.wrong(&format!("{name}.{}", shown(&key)), &other, "text"),
            }
        }
        texts
    }

    /// A field that holds a list, as it is.
    pub(crate) fn list(&mut self, name: &'static str) -> Option<Vec<Value>> {
        match self.take(name)? {
            Value::Array(list) => Some(list),
            other => {
                self.wrong(name, &other, "a list");
                None
            }
        }
    }

    /// A field of any form.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<Value> {
        self.take(name)
    }

    /// A field that holds an object with fields of its own, which `read` takes.
    pub(crate) fn nested<T>(&mut self, name: &'static str, value: Value, read: fn(&mut Reader<'_>) -> T) -> Option<T> {
        let place = format!("{}{name}", self.prefix);
        let mut reader = Reader::new(value, &place, format!("{place}."), self.problems)?;
        let result = read(&mut reader);
        reader.finish();
        Some(result)
    }

    /// A field that holds a list of objects, of which at most `max` are read. What is no object keeps its place.
    pub(crate) fn nested_list<T: Default>(
        &mut self,
        name: &'static str,
        max: usize,
        read: fn(&mut Reader<'_>) -> T,
    ) -> Vec<T> {
        let list = self.list(name).unwrap_or_default();
        if list.len() > max {
            self.problem(name, format!("has {} entries; {max} are allowed", list.len()));
        }
        let mut items = Vec::new();
        for (index, value) in list.into_iter().take(max).enumerate() {
            let place = format!("{}{name}.{index}", self.prefix);
            let item = Reader::new(value, &place, format!("{place}."), self.problems).map(|mut reader| {
                let item = read(&mut reader);
                reader.finish();
                item
            });
            items.push(item.unwrap_or_default());
        }
        items
    }

    /// `channel`, `channelId` and `targetId`.
    pub(crate) fn route(&mut self) -> Route {
        Route { channel: self.text("channel"), channel_id: self.channel_id("channelId"), target: self.text("targetId") }
    }

    /// Tells every field that nobody asked for. Returns the names that were asked for.
    pub(crate) fn finish(self) -> Vec<&'static str> {
        let Self { prefix, fields, known, problems } = self;
        for name in fields.keys() {
            let help = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("known are: {}", known.join(", ")),
            };
            problems.add_with_help(format!("{prefix}{}", named(name)), "is not known here", help);
        }
        known
    }
}

/// The most characters of a caller's text that an answer repeats: enough for every word, UUID and time. What is longer
/// is not repeated at all, because it may be a key that was pasted into the wrong field.
const SHOWN_MAX: usize = 40;

fn shown(text: &str) -> &str {
    if text.chars().nth(SHOWN_MAX).is_some() { "…" } else { text }
}

/// A field's name as a problem's place, which is never empty.
fn named(name: &str) -> &str {
    if name.is_empty() { "\"\"" } else { shown(name) }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text \"{}\"", shown(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_core::{Priority, Status};
    use serde_json::json;

    fn told(value: Value, read: fn(&mut Reader<'_>)) -> Vec<String> {
        let mut problems = Problems::new();
        if let Some(mut reader) = Reader::new(value, "body", String::new(), &mut problems) {
            read(&mut reader);
            reader.finish();
        }
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_told_with_what_was_found_and_expected() {
        let value = json!({ "message": 5, "priority": "hihg", "at": "tomorrow", "id": "x", "meta": { "a": 1 },
            "list": {}, "flag": "yes", "count": 0, "mesage": "x", "zzz": 1 });
        let told = told(value, |reader| {
            reader.required_text("message");
            reader.word("priority", Priority::ALL, Priority::as_str);
            reader.time("at");
            reader.channel_id("id");
            reader.texts("meta");
            reader.list("list");
            reader.flag("flag");
            reader.number("count", 1..=10);
            reader.required_text("title");
        });
        assert_eq!(told.len(), 11, "{told:#?}");
        assert_eq!(told[0], "message: is the number 5; expected text");
        assert_eq!(told[1], "priority: is \"hihg\"; allowed: low, normal, high; did you mean \"high\"?");
        assert_eq!(told[4], "meta.a: is the number 1; expected text");
        assert_eq!(told[7], "count: is the number 0; expected a whole number from 1 to 10");
        assert_eq!(told[8], "title: is required");
        assert_eq!(told[9], "mesage: is not known here (did you mean \"message\"?)");
        assert!(told[10].starts_with("zzz: is not known here (known are: message, priority"));
    }

    #[test]
    fn null_counts_as_left_out_and_no_object_is_told_once() {
        assert!(told(json!({ "title": null }), |reader| assert!(reader.text("title").is_none())).is_empty());
        assert_eq!(told(json!([1]), |_| ()), ["body: is a list; expected an object"]);
    }

    #[test]
    fn a_query_is_read_by_the_same_rules() {
        let mut problems = Problems::new();
        let query = "status=failed&limit=5&q=a+b%26c&from=&stauts=x&limit=6";
        let mut reader = Reader::of_query(query, &mut problems);
        assert_eq!(reader.word("status", Status::ALL, Status::as_str), Some(Status::Failed));
        assert_eq!(reader.text("q").as_deref(), Some("a b&c"));
        assert_eq!(reader.time("from"), None);
        assert_eq!(reader.number("limit", 1..=200), Some(6));
        reader.finish();
        let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(places, ["limit", "stauts"]);
    }

    #[test]
    fn a_field_without_a_name_is_told_as_one() {
        let told = told(json!({ "": 1 }), |_| ());
        assert_eq!(told, ["\"\": is not known here (known are: )"]);
        let mut problems = Problems::new();
        Reader::of_query("=a&=b", &mut problems);
        assert_eq!(problems.iter().map(|problem| problem.place.as_str()).collect::<Vec<_>>(), ["\"\""]);
    }

    #[test]
    fn long_texts_are_not_repeated_whole() {
        let told = told(json!({ "x".repeat(10_000): 1 }), |_| ());
        assert!(told[0].len() < 400, "{}", told[0].len());
    }
}
