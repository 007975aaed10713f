//! The header `Idempotency-Key`.

use axum::http::HeaderMap;
use conductor_core::store::Idempotency;
use ring::digest::{Context, SHA256};

use crate::api::error::ApiError;

/// The header's name.
pub(crate) const HEADER: &str = "idempotency-key";
/// The longest key, in characters.
const KEY_MAX: usize = 255;

/// Reads the header. The fingerprint is SHA-256 over the call (method and path), a line feed and the raw body.
pub(crate) fn of(headers: &HeaderMap, call: &str, raw: &[u8]) -> Result<Option<Idempotency>, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("is given more than once"));
    }
    let key = value.to_str().ok().and_then(|text| key(text.trim()));
    let key = key.ok_or_else(|| {
        invalid(format!("is not a key; expected 1 to {KEY_MAX} visible ASCII characters, bare or in double quotes"))
    })?;
    let mut context = Context::new(&SHA256);
    context.update(call.as_bytes());
    context.update(b"\n");
    context.update(raw);
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    Ok(Some(Idempotency { key, part: None, fingerprint }))
}

/// The part of a batch's key that one of its items is kept under.
pub(crate) fn of_item(whole: &Idempotency, index: usize) -> Idempotency {
    Idempotency { part: u32::try_from(index).ok(), ..whole.clone() }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid_field("Idempotency-Key", message)
}

fn key(text: &str) -> Option<String> {
    let key = match text.strip_prefix('"') {
        Some(rest) => unquoted(rest)?,
        None => text.chars().all(|c| c.is_ascii_graphic()).then(|| text.to_owned())?,
    };
    (1..=KEY_MAX).contains(&key.len()).then_some(key)
}

/// The content of a string of RFC 8941 whose opening quote has been taken.
fn unquoted(rest: &str) -> Option<String> {
    let mut content = String::new();
    let mut letters = rest.chars();
    loop {
        match letters.next()? {
            '"' => return letters.as_str().is_empty().then_some(content),
            '\\' => match letters.next()? {
                escaped @ ('"' | '\\') => content.push(escaped),
                _ => return None,
            },
            letter @ ' '..='~' => content.push(letter),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(value: &str) -> Result<Option<Idempotency>, u16> {
        let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), HeaderValue::from_str(value).unwrap())]);
        of(&headers, "POST /notifications", b"{}").map_err(|error| error.status().as_u16())
    }

    #[test]
    fn a_key_is_read_quoted_and_bare() {
        for (value, key) in [("abc-1", "abc-1"), ("\"abc-1\"", "abc-1"), (r#""a \"b\" \\c""#, r#"a "b" \c"#)] {
            assert_eq!(read(value).unwrap().unwrap().key, key);
        }
        assert_eq!(read(&"k".repeat(255)).unwrap().unwrap().key.len(), 255);
        assert!(of(&HeaderMap::new(), "", b"").unwrap().is_none());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for value in ["", "\"\"", "a b", "\"open", "\"a\"b", "\"a\\x\"", &"k".repeat(256)] {
            assert_eq!(read(value), Err(400), "{value}");
        }
    }

    #[test]
    fn the_fingerprint_depends_on_call_and_body() {
        let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), HeaderValue::from_static("k"))]);
        let print = |call, raw| of(&headers, call, raw).unwrap().unwrap().fingerprint;
        assert_eq!(print("POST /a", b"x"), print("POST /a", b"x"));
        assert_ne!(print("POST /a", b"x"), print("POST /b", b"x"));
        assert_ne!(print("POST /a", b"x"), print("POST /a", b"y"));
    }
}
