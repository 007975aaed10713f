//! What of a configuration file may be repeated in a report.
//!
//! The files hold names of variables, never a secret. But a person who puts a secret there is told so, and the telling
//! must not spread it: only values whose place says that they are no secret are shown.

use conductor_channels::Plugin;
use jsonc_parser::ast::{Object, ObjectProp, Value as Node};
use jsonc_parser::common::{Range, Ranged};

use super::list_file::ListFile;
use super::schema;

/// What may be shown of a member's value.
#[derive(Clone, Copy)]
enum Rule<'a> {
    /// Nothing.
    Hide,
    /// Texts, numbers and the like, and lists of them.
    Show,
    /// What looks like the name of a variable.
    Variable,
    /// An address without user, password and query.
    Address,
    /// A list of objects whose members have these rules.
    List(Members<'a>),
    /// An object whose members have these rules.
    Object(Members<'a>),
}

/// The rules of an object's members.
#[derive(Clone, Copy)]
enum Members<'a> {
    Tenant,
    RateLimit,
    Rate,
    Callback,
    Channel,
    Variables,
    Options(Option<&'a OwnOptions>),
    Plugin,
}

/// The names of a plugin's options and settings that are no secrets.
struct OwnOptions(Vec<String>);

impl Members<'_> {
    fn rule(self, name: &str) -> Rule<'static> {
        match (self, name) {
            (Self::Tenant, "id" | "name" | "weight" | "retention" | "redactAfter")
            | (Self::RateLimit, "queued")
            | (Self::Rate, "per" | "limit" | "burst")
            | (Self::Callback, "events" | "allowNetworks")
            | (Self::Channel, "channelId" | "channelName" | "tenantId" | "channelType")
            | (Self::Plugin, "name" | "enabled") => Rule::Show,
            (Self::Tenant, "authKeyEnvVar")
            | (Self::Callback, "secretEnvVar")
            | (Self::Channel, "providerIdEnvVar" | "providerSecretEnvVar")
            | (Self::Variables, _) => Rule::Variable,
            (Self::Tenant, "rateLimit") => Rule::Object(Members::RateLimit),
            (Self::Tenant, "callbacks") => Rule::List(Members::Callback),
            (Self::RateLimit, "requests") | (Self::Options(_), "rate") => Rule::Object(Members::Rate),
            (Self::Callback, "url") | (Self::Options(_), "baseUrl") => Rule::Address,
            (Self::Channel, "env") => Rule::Object(Members::Variables),
            (Self::Options(own), name) => {
                let own = own.is_some_and(|own| own.0.iter().any(|option| option == name));
                if own || schema::is_common_option(name) { Rule::Show } else { Rule::Hide }
            }
            _ => Rule::Hide,
        }
    }
}

/// The ranges of the values that must not be shown.
pub(super) fn hidden(kind: ListFile, root: &Node<'_>, plugins: &'static [Plugin]) -> Vec<Range> {
    let plugins = if kind == ListFile::Channels { plugins } else { &[] };
    let own: Vec<(&Plugin, OwnOptions)> = plugins.iter().map(|plugin| (plugin, own_options(plugin))).collect();
    let mut hidden = Vec::new();
    let members = match kind {
        ListFile::Tenants => Members::Tenant,
        ListFile::Channels => Members::Channel,
        ListFile::Plugins => Members::Plugin,
    };
    match root {
        Node::Object(object) => {
            for property in &object.properties {
                match property.name.as_str() {
                    "$schema" => hide(&property.value, Rule::Show, &own, &mut hidden),
                    name if name == kind.member() => hide(&property.value, Rule::List(members), &own, &mut hidden),
                    _ => hide(&property.value, Rule::Hide, &own, &mut hidden),
                }
            }
        }
        root => hide(root, Rule::List(members), &own, &mut hidden),
    }
    hidden
}

fn own_options(plugin: &Plugin) -> OwnOptions {
    let is_secret = |name: &str| plugin.settings.iter().any(|setting| setting.secret && setting.camel_case() == name);
    let schema = plugin.schema();
    let names = schema.get("properties").and_then(|properties| properties.as_object());
    let names = names.into_iter().flat_map(|names| names.keys());
    OwnOptions(names.filter(|name| !is_secret(name)).cloned().collect())
}

fn hide(node: &Node<'_>, rule: Rule<'_>, own: &[(&Plugin, OwnOptions)], hidden: &mut Vec<Range>) {
    match (node, rule) {
        (Node::Object(object), Rule::Object(members)) => hide_members(object, members, own, hidden),
        (Node::Array(array), Rule::List(members)) => {
            for element in &array.elements {
                hide(element, Rule::Object(members), own, hidden);
            }
        }
        (Node::Object(object), Rule::Show) => {
            object.properties.iter().for_each(|property| hide(&property.value, Rule::Show, own, hidden));
        }
        (Node::Object(object), _) => {
            object.properties.iter().for_each(|property| hide(&property.value, Rule::Hide, own, hidden));
        }
        (Node::Array(array), Rule::Show) => {
            array.elements.iter().for_each(|element| hide(element, Rule::Show, own, hidden));
        }
        (Node::Array(array), _) => array.elements.iter().for_each(|element| hide(element, Rule::Hide, own, hidden)),
        (Node::BooleanLit(_) | Node::NullKeyword(_), _) | (_, Rule::Show) => {}
        (Node::StringLit(text), Rule::Variable) if is_plain_name(&text.value) => {}
        (Node::StringLit(text), Rule::Address) if is_plain_address(&text.value) => {}
        (scalar, _) => hidden.push(scalar.range()),
    }
}

fn hide_members(object: &Object<'_>, members: Members<'_>, own: &[(&Plugin, OwnOptions)], hidden: &mut Vec<Range>) {
    let kind = object.get_string("channelType").map(|kind| kind.value.as_ref());
    let plugin = kind.and_then(|kind| own.iter().find(|(plugin, _)| plugin.is_named(kind)));
    for ObjectProp { name, value, .. } in &object.properties {
        match (members, name.as_str(), value) {
            (Members::Channel, "options", Node::Object(options)) => {
                hide_members(options, Members::Options(plugin.map(|(_, own)| own)), own, hidden);
            }
            (members, name, value) => hide(value, members.rule(name), own, hidden),
        }
    }
}

/// Whether a text that stands where a variable's name belongs looks like one. A token that somebody put there instead
/// is long without a break or mixes the cases.
pub(super) fn is_plain_name(text: &str) -> bool {
    const PART_MAX_CHARS: usize = 24;
    let plain = |part: &str| {
        let mixed = part.contains(|letter: char| letter.is_ascii_lowercase())
            && part.contains(|letter: char| letter.is_ascii_uppercase());
        part.len() <= PART_MAX_CHARS && !mixed
    };
    is_variable_name(text) && text.split('_').all(plain)
}

/// The name of a variable as it may be printed: stars, where it looks as if somebody had put the secret itself there.
pub(crate) fn name_or_stars(name: &str) -> &str {
    if is_plain_name(name) { name } else { "***" }
}

/// Whether a text can be the name of a variable.
pub(super) fn is_variable_name(text: &str) -> bool {
    !text.starts_with(|letter: char| letter.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_plain_address(text: &str) -> bool {
    !text.contains(['@', '?', '#'])
}

/// The same for a line of a file that is no JSON: of it only the members' names are shown, and the values of those
/// that never hold a secret.
pub(super) fn hidden_in_broken_line(text: &str, line: Range) -> Vec<Range> {
    const SHOWN: [&str; 8] = ["id", "name", "enabled", "weight", "tenantId", "channelId", "channelName", "channelType"];
    let mut hidden = Vec::new();
    let (mut at, mut member) = (line.start, "");
    while let Some(letter) = text.get(at..line.end).and_then(|rest| rest.chars().next()) {
        let rest = &text[at..line.end];
        let length = match letter {
            '"' => string_length(rest),
            '/' => rest.len(),
            letter if is_punctuation(letter) => letter.len_utf8(),
            _ => rest.find(|letter: char| letter == '"' || is_punctuation(letter)).unwrap_or(rest.len()),
        };
        let token = &rest[..length];
        if letter == '"' && rest[length..].trim_start().starts_with(':') {
            member = token.trim_matches('"');
        } else if !is_punctuation(letter) {
            let closed = letter != '"' || (length > 1 && token.ends_with('"'));
            let harmless = (SHOWN.contains(&member) && closed) || matches!(token, "true" | "false" | "null");
            if !harmless {
                hidden.push(Range::new(at, at + length));
            }
            member = "";
        }
        at += length;
    }
    hidden
}

fn is_punctuation(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '{' | '}' | '[' | ']' | ':' | ',')
}

/// The bytes of the string that begins here, its quotes included; to the end where it is not closed.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return index + 1,
            letter => escaped = letter == '\\' && !escaped,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_are_told_from_tokens() {
        for name in ["KEY", "TENANT_01943c2a_7c3e_7000_8000_123456789abc_AUTHKEY", "my_key", "_X", "KEY2"] {
            assert!(is_plain_name(name), "{name}");
        }
        let hex = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
        for token in ["", "2KEY", "xoxb-1", "MTk4NjIyNDgz.Cl2FMQ.x", "AbCdEf", hex, "whsec_MfKQ9r8G", "a b"] {
            assert!(!is_plain_name(token), "{token}");
        }
    }

    #[test]
    fn a_broken_line_shows_only_names_and_harmless_values() {
        let cases = [
            (r#"  "name": "Acme", "authKey": "hunter2" "#, r#"  "name": "Acme", "authKey": *** "#),
            (r#"{ "a": hunter2, "b": 12 } // hunter2"#, r#"{ "a": ***, "b": *** } ***"#),
            (r#""tenantId": "x" "botToken: "hunter2""#, r#""tenantId": "x" *********"#),
            (r#""a": "hunter2 \" still""#, r#""a": ***"#),
            (r#""name": "Acme" hunter2"#, r#""name": "Acme" ***"#),
            (r#""name": "Acme, hunter2"#, r#""name": ***"#),
            (r#""enabled": true, "x": true"#, r#""enabled": true, "x": true"#),
            (r#""hunter2"#, "***"),
        ];
        for (line, expected) in cases {
            let mut shown = String::new();
            let mut at = 0;
            for range in hidden_in_broken_line(line, Range::new(0, line.len())) {
                shown.push_str(&line[at..range.start]);
                shown.push_str("***");
                at = range.end;
            }
            shown.push_str(&line[at..]);
            assert_eq!(shown, expected);
        }
    }
}
