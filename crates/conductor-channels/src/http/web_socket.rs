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
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_websockets::{Message, ServerBuilder};

    use super::*;
    use crate::contract::tls::Identity;
    use crate::contract::{Answer, Provider, loopback};
    use crate::http::HttpClients;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Many servers speak HTTP/2 as well, and there is no way from that to a WebSocket.
    #[tokio::test]
    async fn a_web_socket_opens_under_tls_where_http_2_is_spoken_too() {
        let identity = Identity::of("localhost");
        let tls = identity.acceptor(&[b"h2", b"http/1.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = tls.accept(stream).await.unwrap();
            let (_, mut socket) = ServerBuilder::new().accept(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                socket.send(message).await.unwrap();
            }
        });
        let clients = HttpClients::new().trusting(identity.authority.der().clone());
        let http = clients.client(&loopback());
        let url = format!("wss://localhost:{port}/?v=10").parse().unwrap();
        let mut socket = http.web_socket(&url, LIMIT, 10).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().as_text(), Some("hello"));
        socket.send(Message::text("hello, hello")).await.unwrap();
        assert!(socket.next().await.unwrap().is_err(), "it is longer than what is taken");
    }

    #[tokio::test]
    async fn an_answer_that_opens_none_is_told() {
        let http = HttpClients::new().client(&loopback());
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let upgrade = |accept: &str| {
            let answer = Answer::status(101).with("upgrade", "websocket").with("connection", "upgrade");
            answer.with("sec-websocket-accept", accept)
        };
        for (answer, words) in [
            (Answer::status(200), "200"),
            (Answer::status(503), "503"),
            (Answer::status(302).with("location", "http://10.0.0.1/"), "302"),
            (Answer::Close, "no answer"),
            (upgrade(&accepted(key)), "does not fit"),
        ] {
            let provider = Provider::on_localhost([answer]).await;
            let url = format!("ws://127.0.0.1:{}/s3cret?s3cret", provider.port()).parse().unwrap();
            let error = http.web_socket(&url, LIMIT, 10).await.expect_err("no socket").to_string();
            assert!(error.contains(words) && !error.contains("s3cret"), "{words}: {error}");
        }
        let url = "http://127.0.0.1/s3cret".parse().unwrap();
        let error = http.web_socket(&url, LIMIT, 10).await.expect_err("no socket").to_string();
        assert!(error.contains("wss://") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn the_key_is_answered_as_the_rfc_shows() {
        assert_eq!(accepted("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
