//! A request as a plugin writes it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use url::Url;

/// The time that a request gets unless it says else.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request. `Debug` shows method and host only: a path may be a secret.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to. From the configuration only, never from a notification.
    pub url: Url,
    /// The headers.
    pub headers: HeaderMap,
    /// The exact bytes of the body.
    pub body: Bytes,
    /// The time for all of it: name, connection, writing, waiting and reading.
    pub timeout: Duration,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({} {}, {} bytes)", self.method, place(&self.url), self.body.len())
    }
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), timeout: TIMEOUT }
    }

    /// A GET.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// A POST.
    pub fn post(url: Url) -> Self {
        Self::new(Method::POST, url)
    }

    /// Sets a header, in the place of one of that name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body to these exact bytes of JSON.
    #[must_use]
    pub fn json_bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// Sets the body to a value as JSON. The value must be one that JSON can write, such as a [`serde_json::Value`].
    #[must_use]
    pub fn json<T: Serialize>(self, value: &T) -> Self {
        let body = serde_json::to_vec(value).expect("the plugins' bodies have text keys and no failing serializers");
        self.json_bytes(body)
    }

    /// Sets the body to these fields as a form.
    #[must_use]
    pub fn form(mut self, fields: &[(&str, &str)]) -> Self {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.body = form.into();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
    }

    /// Sets the time for all of it.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// The part of a URL that may be shown: scheme, host and port.
pub fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// A path below a base address, whose own path stays: `http://proxy/discord` and `/api/v10` make
/// `http://proxy/discord/api/v10`.
#[must_use]
pub fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let joined = format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/'));
    url.set_path(&joined);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// Whether a request can go to this URL; else why not.
pub fn check_url(url: &Url) -> Result<(), &'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the URL must begin with https:// or http://");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the URL names no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not hold a user name or password");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_http_without_userinfo_is_asked() {
        assert_eq!(check_url(&url("https://example.com/a?b")), Ok(()));
        assert_eq!(check_url(&url("http://example.com:8080")), Ok(()));
        for bad in ["ftp://example.com", "file:///etc/passwd", "https://user@example.com", "https://:pw@example.com"] {
            assert!(check_url(&url(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_address_keeps_its_path() {
        assert_eq!(below(&url("https://discord.com"), "/api/v10").as_str(), "https://discord.com/api/v10");
        assert_eq!(below(&url("http://proxy:81/discord/?x=1#y"), "/api").as_str(), "http://proxy:81/discord/api");
    }

    #[test]
    fn debug_shows_no_path_no_header_and_no_body() {
        let request = Request::post(url("https://example.com:8443/s3cret?token=s3cret"))
            .header(http::header::AUTHORIZATION, HeaderValue::from_static("s3cret"))
            .json(&"s3cret");
        assert_eq!(format!("{request:?}"), "Request(POST https://example.com:8443, 8 bytes)");
    }
}
