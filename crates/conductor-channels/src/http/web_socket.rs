//! WebSockets through the one way out: the same guard, the same authorities, the same time limits.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, StatusCode};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio_websockets::{ClientBuilder, Limits, WebSocketStream};
use url::Url;

use super::{HttpClient, HttpError, Request, place};

/// A connected WebSocket.
pub type WebSocket = WebSocketStream<reqwest::Upgraded>;

/// What RFC 6455 has both sides add to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why there is no WebSocket. No text in it holds a path or a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The URL begins with neither `wss://` nor `ws://`.
    #[error("{place} was not contacted: the address must begin with wss:// or ws://")]
    Scheme {
        /// Scheme, host and port.
        place: String,
    },
    /// The answer was another one than 101.
    #[error("{place} opened no WebSocket: the answer was {status}")]
    Refused {
        /// Scheme, host and port.
        place: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// The answer was 101, and it does not fit what was asked.
    #[error("{place} opened no WebSocket: its answer does not fit the request")]
    Misfit {
        /// Scheme, host and port.
        place: String,
    },
}

impl HttpClient {
    /// Opens a WebSocket to a `wss` or `ws` address, within `timeout`. A message of more than `message_max` bytes ends
    /// it.
    ///
    /// # Errors
    ///
    /// See [`WebSocketError`].
    pub async fn web_socket(
        &self,
        url: &Url,
        timeout: Duration,
        message_max: usize,
    ) -> Result<WebSocket, WebSocketError> {
        let place = place(url);
        let scheme = match url.scheme() {
            "wss" => "https",
            "ws" => "http",
            _ => return Err(WebSocketError::Scheme { place }),
        };
        let mut url = url.clone();
        url.set_scheme(scheme).map_err(|()| WebSocketError::Scheme { place: place.clone() })?;
        let key = STANDARD.encode(fastrand::u128(..).to_be_bytes());
        let key_value = HeaderValue::try_from(&key).expect("base64 is a header's value");
        let request = Request::get(url)
            .timeout(timeout)
            .header(CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(UPGRADE, HeaderValue::from_static("websocket"))
            .header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(SEC_WEBSOCKET_KEY, key_value);
        let (head, upgraded) = self.upgrade(request).await?;
        let Some(upgraded) = upgraded else { return Err(WebSocketError::Refused { place, status: head.status }) };
        if head.headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept.as_bytes() != accepted(&key).as_bytes()) {
            return Err(WebSocketError::Misfit { place });
        }
        let limits = Limits::default().max_payload_len(Some(message_max));
        Ok(ClientBuilder::new().limits(limits).take_over(upgraded))
    }
}

/// What a server that speaks the protocol answers to a key.
fn accepted(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_the_rfc_shows() {
        assert_eq!(accepted("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
