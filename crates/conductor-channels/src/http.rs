//! The only way out: an HTTP client with time limits, capped answers, no redirects and an egress guard. Protocols other
//! than HTTP get their connections here too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use conductor_core::Timestamp;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use ipnet::IpNet;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use url::Url;

pub use answer::{Response, WORDS_MAX, classify, retry_after, tidy, wait, words};
pub use error::HttpError;
pub use guard::{Lookup, Reach, Refusal, SystemLookup, refusal};
pub use request::{Request, below, check_url, place};
pub use web_socket::{WebSocket, WebSocketError};

use guard::Guard;
use heard::Heard;

mod answer;
mod error;
mod guard;
mod heard;
mod request;
mod socket;
#[cfg(test)]
mod tests;
mod web_socket;

/// The most of an answer's body that is read, in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// The time for a name, a connection and its TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for an answer's body once its head is there. The head has said by then what became of the message.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most unused connections to one host that are kept.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How often the system and HTTP/2 ask whether a quiet peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Makes HTTP clients. Channels that may reach the same networks share one, with its connections.
#[derive(Clone)]
pub struct HttpClients(Arc<Shared>);

struct Shared {
    lookup: Arc<dyn Lookup>,
    tls: Arc<OnceCell<ClientConfig>>,
    clients: Mutex<HashMap<Vec<IpNet>, Weak<Clients>>>,
    heard: Arc<Heard>,
}

/// The clients of one list of allowed networks, each made by the first request that needs it: loading the
/// certificate authorities takes milliseconds and megabytes that a server without HTTPS targets never spends.
struct Clients {
    guard: Arc<Guard>,
    heard: Arc<Heard>,
    tls: Arc<OnceCell<ClientConfig>>,
    plain: OnceCell<reqwest::Client>,
    secure: OnceCell<reqwest::Client>,
    /// For what becomes a WebSocket: HTTP/2 has no upgrade.
    upgrading: OnceCell<reqwest::Client>,
}

impl Default for HttpClients {
    fn default() -> Self {
        Self::with_lookup(Arc::new(SystemLookup))
    }
}

impl HttpClients {
    /// No clients yet: the first request makes one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with names looked up in another way.
    pub fn with_lookup(lookup: Arc<dyn Lookup>) -> Self {
        Self(Arc::new(Shared { lookup, tls: Arc::default(), clients: Mutex::default(), heard: Arc::default() }))
    }

    /// The same, with this authority and no other.
    #[cfg(test)]
    pub(crate) fn trusting(self, authority: rustls::pki_types::CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority).expect("an authority");
        let config = tls_builder().expect("a provider").with_root_certificates(roots).with_no_client_auth();
        assert!(self.0.tls.set(with_protocols(config)).is_ok(), "no connection was made yet");
        self
    }

    /// A client that may reach public addresses and `allowed`. Cheap: nothing is built yet.
    pub fn client(&self, allowed: &[IpNet]) -> HttpClient {
        let mut allowed: Vec<IpNet> = allowed.iter().map(IpNet::trunc).collect();
        allowed.sort_unstable();
        allowed.dedup();
        let mut known = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, clients| clients.strong_count() > 0);
        if let Some(clients) = known.get(&allowed).and_then(Weak::upgrade) {
            return HttpClient(clients);
        }
        let clients = Arc::new(Clients {
            guard: Arc::new(Guard::new(allowed.clone(), Arc::clone(&self.0.lookup))),
            heard: Arc::clone(&self.0.heard),
            tls: Arc::clone(&self.0.tls),
            plain: OnceCell::new(),
            secure: OnceCell::new(),
            upgrading: OnceCell::new(),
        });
        known.insert(allowed, Arc::downgrade(&clients));
        HttpClient(clients)
    }

    /// What time it is by the last provider who said so, to the second; none where none has.
    pub fn providers_time(&self) -> Option<Timestamp> {
        self.0.heard.now()
    }
}

/// Sends requests to providers.
#[derive(Clone)]
pub struct HttpClient(Arc<Clients>);

impl HttpClient {
    /// Sends a request and reads the answer, of whatever status. An answer whose body is too long or breaks off is
    /// still an answer.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let Request { method, url, headers, body, timeout } = request;
        let place = self.checked(&url)?;
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(3600));
        // A body that is asked for is being written. Of a request without one that cannot be told, so it counts as
        // written from the start.
        let written = Arc::new(AtomicBool::new(body.is_empty()));
        let exchange = async {
            let client = self.0.client(url.scheme() == "https").await?;
            let mut request = client.request(method, url).headers(headers);
            if !body.is_empty() {
                request = request.body(watched(body, Arc::clone(&written)));
            }
            let answer = request.send().await;
            answer.map_err(|error| HttpError::from_client(error, place.clone(), written.load(Ordering::SeqCst)))
        };
        match timeout_at(deadline, exchange).await {
            Ok(Ok(answer)) => {
                self.0.heard.note(answer.headers());
                Ok(read(answer, deadline).await)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(HttpError::late(place, timeout, written.load(Ordering::SeqCst))),
        }
    }

    /// Asks to go over to another protocol on the same connection, which is there if the answer is 101. The answer's
    /// body is not read.
    async fn upgrade(&self, request: Request) -> Result<(Response, Option<reqwest::Upgraded>), HttpError> {
        let Request { method, url, headers, timeout, .. } = request;
        let place = self.checked(&url)?;
        let exchange = async {
            let client = self.0.upgrading_client(url.scheme() == "https").await?;
            let answer = client.request(method, url).headers(headers).send().await;
            let mut answer = answer.map_err(|error| HttpError::from_client(error, place.clone(), true))?;
            let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
            let response = Response { status, headers, body: Bytes::new(), complete: false };
            if status != StatusCode::SWITCHING_PROTOCOLS {
                return Ok((response, None));
            }
            let upgraded = answer.upgrade().await;
            let upgraded = upgraded.map_err(|error| HttpError::from_client(error, place.clone(), true))?;
            Ok((response, Some(upgraded)))
        };
        let late = |_| HttpError::late(place.clone(), timeout, true);
        tokio::time::timeout(timeout, exchange).await.map_err(late)?
    }

    /// The part of a URL that may be shown, if the URL may be asked for.
    fn checked(&self, url: &Url) -> Result<String, HttpError> {
        let place = place(url);
        check_url(url).map_err(|reason| HttpError::Url { place: place.clone(), reason })?;
        self.0.guard.check_host(url).map_err(|refusal| HttpError::Refused { place: place.clone(), refusal })?;
        Ok(place)
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpClient")
    }
}

impl Clients {
    async fn client(&self, secure: bool) -> Result<&reqwest::Client, HttpError> {
        if !secure {
            // Never used for TLS, it needs no authorities.
            let none = || async { self.build(tls_without_authorities()?) };
            return self.plain.get_or_try_init(none).await;
        }
        let build = || async {
            let config = self.tls.get_or_try_init(load_tls).await?;
            self.build(config.clone())
        };
        self.secure.get_or_try_init(build).await
    }

    async fn upgrading_client(&self, secure: bool) -> Result<&reqwest::Client, HttpError> {
        if !secure {
            return self.client(false).await;
        }
        let build = || async {
            let mut config = self.tls.get_or_try_init(load_tls).await?.clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            self.build(config)
        };
        self.upgrading.get_or_try_init(build).await
    }

    fn build(&self, tls: ClientConfig) -> Result<reqwest::Client, HttpError> {
        let builder = reqwest::ClientBuilder::new()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::clone(&self.guard))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tcp_keepalive(KEEP_ALIVE)
            .http2_keep_alive_interval(KEEP_ALIVE);
        builder.build().map_err(|error| HttpError::Tls(error.without_url().to_string()))
    }
}

/// The system's authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Reads files, so it runs aside.
async fn load_tls() -> Result<ClientConfig, HttpError> {
    let loaded = tokio::task::spawn_blocking(|| {
        let config = tls_builder()?.with_platform_verifier()?.with_no_client_auth();
        Ok::<_, rustls::Error>(with_protocols(config))
    });
    match loaded.await {
        Ok(config) => config.map_err(|error| HttpError::Tls(error.to_string())),
        Err(error) => Err(HttpError::Tls(error.to_string())),
    }
}

fn tls_without_authorities() -> Result<ClientConfig, HttpError> {
    let builder = tls_builder().map_err(|error| HttpError::Tls(error.to_string()))?;
    Ok(with_protocols(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

fn tls_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn with_protocols(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A body that tells when the connection begins to take it.
fn watched(body: Bytes, written: Arc<AtomicBool>) -> reqwest::Body {
    reqwest::Body::wrap(Full::new(body).inspect_frame(move |_| written.store(true, Ordering::SeqCst)))
}

async fn read(mut answer: reqwest::Response, deadline: Instant) -> Response {
    let status = answer.status();
    let headers = std::mem::take(answer.headers_mut());
    let deadline = deadline.min(Instant::now() + BODY_TIMEOUT);
    let mut body = BytesMut::new();
    let complete = loop {
        match timeout_at(deadline, answer.chunk()).await {
            Ok(Ok(Some(chunk))) if chunk.len() > BODY_MAX - body.len() => {
                body.extend_from_slice(&chunk[..BODY_MAX - body.len()]);
                break false;
            }
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Ok(None)) => break true,
            Ok(Err(_)) | Err(_) => break false,
        }
    };
    Response { status, headers, body: body.freeze(), complete }
}
