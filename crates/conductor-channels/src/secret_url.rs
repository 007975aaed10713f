//! Addresses that are credentials: who knows an incoming webhook's URL can post through it.

use conductor_core::Secret;
use url::Url;

use crate::http::{below, check_url};

/// A shorter part of a path is no secret; hiding it would only spoil words that hold it by chance.
const PATH_PART_MIN: usize = 8;
/// The same of a value in the query.
const VALUE_MIN: usize = 4;

/// The URL of an incoming webhook. It has no `Debug` and is never shown.
pub(crate) struct SecretUrl {
    url: Url,
    hidden: Vec<String>,
}

impl SecretUrl {
    /// Reads the address. The reason why it is none repeats nothing of it.
    pub(crate) fn parse(text: &Secret) -> Result<Self, &'static str> {
        let text = text.expose();
        if text.is_empty() {
            return Err("is empty; expected the webhook's whole address");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds a space, a line break or a character outside ASCII, which no webhook's address has");
        }
        let url = Url::parse(text).map_err(|_| "is no URL; expected the webhook's whole address")?;
        check_url(&url)?;
        if url.path() == "/" && url.query().is_none() {
            return Err("ends behind the host; expected the webhook's whole address");
        }
        let hidden = hidden(&url);
        Ok(Self { url, hidden })
    }

    /// The same at another address of the API, where one is given.
    #[must_use]
    pub(crate) fn at(mut self, base: Option<&Url>) -> Self {
        if let Some(base) = base {
            self.url = moved(&self.url, base);
        }
        self
    }

    /// The address, for a request.
    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// The parts of it that an error must not repeat.
    pub(crate) fn hidden(&self) -> Vec<&str> {
        self.hidden.iter().map(String::as_str).collect()
    }
}

/// The URL's path and query at another address.
pub(crate) fn moved(url: &Url, base: &Url) -> Url {
    let mut moved = below(base, url.path());
    moved.set_query(url.query());
    moved
}

/// The parts of a URL that may be credentials: long parts of the path, the query and its values.
pub(crate) fn parts(url: &Url) -> Vec<String> {
    let mut parts = Vec::new();
    let path = url.path_segments().into_iter().flatten();
    parts.extend(path.filter(|part| part.len() >= PATH_PART_MIN).map(str::to_owned));
    parts.extend(url.query().map(str::to_owned));
    for (pair, (_, value)) in url.query().unwrap_or_default().split('&').zip(url.query_pairs()) {
        let written = pair.split_once('=').map_or("", |(_, value)| value);
        parts.extend([value.as_ref(), written].into_iter().filter(|value| value.len() >= VALUE_MIN).map(str::to_owned));
    }
    parts
}

/// The longest first, so that a part does not spoil the match of the whole.
pub(crate) fn sorted(mut parts: Vec<String>) -> Vec<String> {
    parts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
    parts.dedup();
    parts
}

/// What an error about this URL must not repeat.
pub fn hidden(url: &Url) -> Vec<String> {
    sorted(parts(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SecretUrl, &'static str> {
        SecretUrl::parse(&Secret::new(text))
    }

    #[test]
    fn an_address_that_is_not_whole_is_refused() {
        let bad = ["", "T0P-S3CRET", "https://example.com", "https://example.com/", "ftp://example.com/T0P-S3CRET"];
        for text in bad.into_iter().chain(["https://u:T0P-S3CRET@example.com/x", "https://example.com/T0P-S3CRET\n"]) {
            let reason = parse(text).err().expect(text);
            assert!(!reason.contains("T0P"), "{reason}");
        }
        assert!(parse("https://example.com/?token=x").is_ok());
    }

    #[test]
    fn all_that_may_be_a_credential_is_hidden() {
        let url = parse("https://example.com/hooks/0123456789?sp=%2Ftriggers%2Frun&sv=1.0&sig=aB%2Bc").ok().unwrap();
        let hidden = url.hidden();
        for text in ["0123456789", "sp=%2Ftriggers%2Frun&sv=1.0&sig=aB%2Bc", "/triggers/run", "aB+c", "aB%2Bc"] {
            assert!(hidden.contains(&text), "{text}: {hidden:?}");
        }
        assert!(!hidden.contains(&"hooks") && !hidden.contains(&"1.0"));
        assert!(hidden.is_sorted_by_key(|text| std::cmp::Reverse(text.len())));
    }

    #[test]
    fn another_address_keeps_path_and_query() {
        let base = "http://proxy:81/slack/".parse().unwrap();
        let url = parse("https://example.com/hooks/x?y=z").ok().unwrap().at(Some(&base));
        assert_eq!(url.url().as_str(), "http://proxy:81/slack/hooks/x?y=z");
    }
}
