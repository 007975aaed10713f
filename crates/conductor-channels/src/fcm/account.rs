//! The key of a service account, as Google gives it out.

use conductor_core::{Problems, Secret};
use serde_json::Value;
use url::Url;

use crate::http::check_url;
use crate::jwt::Signer;

const PLACE: &str = "serviceAccount";
const MEND: &str = "take the JSON file from the Firebase console (Project settings, Service accounts, Generate new \
                    private key) as it is; name it by the variable's _FILE form";

/// A service account that can be used.
pub(super) struct ServiceAccount {
    pub(super) project: String,
    pub(super) email: String,
    pub(super) key_id: String,
    pub(super) token_url: Url,
    pub(super) signer: Signer,
}

impl ServiceAccount {
    /// Reads the file's text. No fault shows anything of it.
    pub(super) fn parse(text: &Secret) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let file: Value = match serde_json::from_str(text.expose()) {
            Ok(file) => file,
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                problems.add_with_help(PLACE, format!("is no JSON: {place}"), MEND);
                return Err(problems);
            }
        };
        let mut member = |name: &str, good: fn(&str) -> bool, expected: &str| {
            let text = file.get(name).and_then(Value::as_str).filter(|text| good(text));
            if text.is_none() {
                problems.add_with_help(PLACE, format!("has no good `{name}`; expected {expected}"), MEND);
            }
            text.unwrap_or_default().to_owned()
        };
        member("type", |text| text == "service_account", "\"service_account\"");
        let project = member("project_id", is_project, "the project's id");
        let email = member("client_email", |text| text.contains('@'), "the account's address");
        let key_id = member("private_key_id", |text| !text.is_empty(), "the key's id");
        let key = member("private_key", |text| !text.is_empty(), "the key as PEM");
        let token_url = member("token_uri", is_url, "an address such as https://oauth2.googleapis.com/token");
        let signer = Signer::rs256(&key);
        if let Err(error) = &signer
            && !key.is_empty()
        {
            problems.add_with_help(PLACE, format!("has a `private_key` that {error}"), MEND);
        }
        match (signer, Url::parse(&token_url)) {
            (Ok(signer), Ok(token_url)) if problems.is_empty() => {
                Ok(Self { project, email, key_id, token_url, signer })
            }
            _ => Err(problems),
        }
    }
}

/// Google's ids have letters, digits and hyphens; old ones stand below a domain: `example.com:project`.
fn is_project(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':'))
}

fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| check_url(&url).is_ok())
}
