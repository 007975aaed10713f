//! Bodies: media type, size, time, JSON. Every maximum of the way in stands here.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::api::error::{ApiError, ErrorKind};

/// The largest body of a call that takes one thing, in bytes.
pub(crate) const SINGLE_MAX_BYTES: usize = 256 * 1024;
/// The largest body of a batch, in bytes.
pub(crate) const BATCH_MAX_BYTES: usize = 16 * 1024 * 1024;
/// The media type of nearly every body.
const JSON: &str = "application/json";
/// The most JSON values in a body. A value takes many times the two bytes that it may be written with.
const VALUES_MAX: usize = 500_000;
/// How long a body may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);
/// How much of a refused body is read and thrown away, so that a client that is still writing reads the answer.
const DRAIN_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long that may take.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A request's headers, taken out of it: nobody else needs them, so that they need not be copied. In a place of their
/// own, because what a request holds while it waits is moved a few times.
pub(crate) struct Headers(pub(crate) Box<HeaderMap>);

impl<S: Send + Sync> FromRequestParts<S> for Headers {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Box::new(std::mem::take(&mut parts.headers))))
    }
}

/// Reads a body that has to be there and to be JSON by its media type.
pub(crate) async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, ApiError> {
    check_media_type(headers)?;
    collect(headers, body, max).await
}

/// Reads a body of any media type.
pub(crate) async fn read_any(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, ApiError> {
    collect(headers, body, max).await
}

/// Reads JSON that may be left out, as `null` is too. None: there is none.
pub(crate) async fn read_optional(headers: &HeaderMap, body: Body, max: usize) -> Result<Option<Value>, ApiError> {
    let raw = collect(headers, body, max).await?;
    if raw.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    check_media_type(headers)?;
    let value = parse(&raw)?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(found) = headers.get(header::CONTENT_TYPE) else {
        let error = "The request has no Content-Type. Send JSON with \"Content-Type: application/json\".";
        return Err(ApiError::new(ErrorKind::MediaType, error));
    };
    if found == JSON {
        return Ok(());
    }
    let text = String::from_utf8_lossy(found.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == JSON || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let shown: String = essence.chars().take(80).collect();
    let error = format!("The Content-Type is \"{shown}\". Send JSON with \"Content-Type: application/json\".");
    Err(ApiError::new(ErrorKind::MediaType, error).with_header(header::ACCEPT, "application/json"))
}

async fn collect(headers: &HeaderMap, mut body: Body, max: usize) -> Result<Bytes, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(Box::pin(too_large(headers, body, max)).await);
    }
    let arrived = {
        let mut arrival = pin!(gather(&mut body, max));
        // Most bodies come together with their heads, and need no timer.
        match arrival.as_mut().now_or_never() {
            Some(arrived) => Ok(arrived),
            None => Box::pin(tokio::time::timeout(ARRIVAL_MAX, arrival)).await,
        }
    };
    match arrived {
        Ok(Ok(Some(raw))) => Ok(raw),
        Ok(Ok(None)) => Err(Box::pin(too_large(headers, body, max)).await),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let error = format!("The body did not arrive within {} seconds.", ARRIVAL_MAX.as_secs());
            Err(ApiError::new(ErrorKind::Timeout, error).with_header(header::CONNECTION, "close"))
        }
    }
}

/// The whole body; none where that is more than `max` bytes.
async fn gather(body: &mut Body, max: usize) -> Result<Option<Bytes>, ApiError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::new(ErrorKind::Invalid, "The body broke off before its end."))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len().max(all.len()) + data.len() > max {
            return Ok(None);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(Some(if all.is_empty() { first } else { all.freeze() }))
}

async fn too_large(headers: &HeaderMap, mut body: Body, max: usize) -> ApiError {
    // A client that asks first has not begun to write.
    if !headers.contains_key(header::EXPECT) {
        let drain = async {
            let mut left = DRAIN_MAX_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        };
        // Whether the rest came in time changes nothing.
        let _ = tokio::time::timeout(DRAIN_MAX, drain).await;
    }
    ApiError::new(ErrorKind::TooLarge, format!("The body is too large; this call takes {} KiB at most.", max / 1024))
}

/// Reads JSON. Of a name that stands twice in an object the last one counts.
pub(crate) fn parse(raw: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(raw).map_err(|error| {
        let place = error.valid_up_to();
        ApiError::new(ErrorKind::MalformedJson, format!("The body is not UTF-8: byte {place} begins no character."))
    })?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(ApiError::new(ErrorKind::MalformedJson, "The body is empty; expected a JSON object."));
    }
    let left = Cell::new(VALUES_MAX);
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Counted(&left).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| {
        if left.get() == 0 {
            let error = format!("The body holds more than {VALUES_MAX} JSON values.");
            return ApiError::new(ErrorKind::TooLarge, error);
        }
        ApiError::new(ErrorKind::MalformedJson, format!("The body is not valid JSON: {error}."))
            .with_member("line", error.line())
            .with_member("column", error.column())
    })
}

/// Reads a JSON value and counts every value in it, so that memory stays in proportion to what is useful.
#[derive(Clone, Copy)]
struct Counted<'a>(&'a Cell<usize>);

impl Counted<'_> {
    fn take<E: Error>(self) -> Result<(), E> {
        let left = self.0.get().saturating_sub(1);
        self.0.set(left);
        if left == 0 { Err(E::custom("too many values")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.take()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            object.insert(name, entries.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    #[test]
    fn json_is_read_as_serde_json_reads_it() {
        let text = r#" {"a":[1,-2,3.5,true,null,"x"],"b":{"c":{}},"a2":18446744073709551615, "d":1,"d":2} "#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap(), serde_json::json!({}));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for (raw, part) in [
            (&b"{\"a\":\n  tru}"[..], "line 2"),
            (b"", "empty"),
            (b"{} x", "trailing"),
            (b"{\"a\":\"\xff\"}", "byte 6"),
            (b"{\"a\":1e999}", "out of range"),
        ] {
            let (status, error, _) = parse(raw).unwrap_err().into_item();
            assert_eq!(status, 400);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn neither_depth_nor_number_of_values_is_unbounded() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().status(), 400);
        let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert_eq!(parse(many.as_bytes()).unwrap_err().status(), 413);
    }

    #[tokio::test]
    async fn only_json_of_the_right_size_is_read() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"] {
            assert!(read(&headers(good), Body::from("{}"), 10).await.is_ok(), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
            assert_eq!(read(&headers(bad), Body::from("{}"), 10).await.unwrap_err().status(), 415, "{bad}");
        }
        assert_eq!(read(&HeaderMap::new(), Body::from("{}"), 10).await.unwrap_err().status(), 415);
        let json = headers("application/json");
        assert!(read(&json, Body::from("x".repeat(10)), 10).await.is_ok());
        assert_eq!(read(&json, Body::from("x".repeat(11)), 10).await.unwrap_err().status(), 413);
        assert!(read_optional(&HeaderMap::new(), Body::empty(), 10).await.unwrap().is_none());
        assert!(read_optional(&json, Body::from("null"), 10).await.unwrap().is_none());
        assert_eq!(read_optional(&json, Body::from("{}"), 10).await.unwrap(), Some(serde_json::json!({})));
    }
}
