//! The header `Conductor-Hops`: a notification that this program caused itself is not the cause of another.

use axum::http::HeaderMap;
use conductor_channels::webhook::HOPS;
use conductor_core::Problems;

use crate::api::error::ApiError;

/// Refuses a request that came about by one of Conductor's own. No header, and 0, pass.
pub(crate) fn refuse_own(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_zero = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit == b'0');
    let own = headers.get_all(HOPS).iter().find(|value| !value.to_str().is_ok_and(|text| is_zero(text.trim())));
    let Some(value) = own else { return Ok(()) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse::<u32>().ok());
    let value = number.map_or_else(|| "no number".to_owned(), |number| number.to_string());
    let mut problems = Problems::new();
    problems.add_with_help(
        "Conductor-Hops",
        format!(
            "is {value}: this request was caused by a notification of Conductor itself, and could go round in a loop"
        ),
        "where it is meant, do not pass this header on",
    );
    Err(ApiError::invalid(problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn passes(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HeaderName::from_static(HOPS), HeaderValue::from_str(value).unwrap());
        }
        refuse_own(&headers).is_ok()
    }

    #[test]
    fn only_a_request_without_a_hop_passes() {
        for good in [&[][..], &["0"], &[" 00 "], &["0", "0"]] {
            assert!(passes(good), "{good:?}");
        }
        for bad in
            [&["1"][..], &["2"], &["0", "1"], &["0, 1"], &[""], &["x"], &["-1"], &["99999999999999999999"], &["ü"]]
        {
            assert!(!passes(bad), "{bad:?}");
        }
    }
}
