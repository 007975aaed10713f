//! Requests byte by byte, so that a test sends exactly what a foreign client sends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A request as a client would write it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    /// In order, as written; `Host` and `Content-Length` are added.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// A server's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Request {
    /// Sends it to `server`, whatever host its URL names.
    pub(crate) fn send(&self, server: SocketAddr) -> Answer {
        let (host, path) = split(&self.url);
        let mut text = format!("{} {path} HTTP/1.1\r\nHost: {host}\r\n", self.method);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body));
        let mut stream = TcpStream::connect(server).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit can be set");
        stream.write_all(text.as_bytes()).expect("the server reads");
        answer(&mut stream)
    }
}

/// The host and the path of a URL such as `http://host:1/path`.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} begins with http://"));
    let slash = rest.find('/').unwrap_or_else(|| panic!("{url} has a path"));
    rest.split_at(slash)
}

/// Reads one answer with a `Content-Length` from a connection that stays open.
fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(answer) = parse(&bytes) {
            return answer;
        }
        let count = stream.read(&mut buffer).expect("the server answers in time");
        assert!(count > 0, "the connection ended after: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..count]);
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (body.len() >= length).then(|| Answer { status, body: body[..length].to_owned() })
}

/// JSON as Python's `json.dumps` writes it: a space after commas and colons, nothing but ASCII.
pub(crate) fn python_json(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| format!("{}: {}", python_text(name), python_json(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(python_json).collect::<Vec<_>>().join(", ")),
        Value::String(text) => python_text(text),
        other => other.to_string(),
    }
}

fn python_text(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    let mut ascii = String::new();
    for letter in quoted.chars() {
        if letter.is_ascii() {
            ascii.push(letter);
        } else {
            let mut units = [0; 2];
            letter.encode_utf16(&mut units).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")));
        }
    }
    ascii
}

#[test]
fn python_writes_ascii_only() {
    let value = serde_json::json!({ "a": "−12 °C 🎉", "b": [1, null] });
    assert_eq!(python_json(&value), r#"{"a": "\u221212 \u00b0C \ud83c\udf89", "b": [1, null]}"#);
}
