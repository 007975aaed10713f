//! A provider that does as its script says, well or badly.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// What the provider does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Answers.
    Reply { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// Answers with the whole request as the body, as chatty servers do.
    Echo { status: u16 },
    /// Answers with the whole request as the message of an error in JSON.
    EchoJson { status: u16 },
    /// Answers with that many bytes of `x`.
    Huge { status: u16, bytes: usize },
    /// Answers with a head that promises more than comes, a byte now and then.
    Trickle { status: u16 },
    /// Begins an answer's body and closes.
    BreakOff { status: u16 },
    /// Reads the request and says nothing.
    Hang,
    /// Reads the request and closes.
    Close,
    /// Closes without reading.
    Slam,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self::Reply { status, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self::Reply { status, headers, body: body.to_string() }
    }

    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self::Reply { status, headers: Vec::new(), body: body.into() }
    }

    /// What something between here and the provider answers in its place.
    pub(crate) fn page() -> Self {
        Self::text(200, "<html>Please log in</html>")
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Reply { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    text: String,
}

impl Seen {
    pub(crate) fn of(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: HeaderMap::new(), body: Vec::new(), text: String::new() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// A server on loopback. It goes when it is dropped.
pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<()>,
}

impl Provider {
    /// Answers so, one after the other; the last answer again and again. It has an address of its own in this process:
    /// what is remembered of another provider, which had the same port, is not remembered of this one.
    pub(crate) async fn answering(script: impl IntoIterator<Item = Answer>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(u32::from_be_bytes([127, 0, 1, 0]));
        let address = Ipv4Addr::from(NEXT.fetch_add(1, Ordering::SeqCst));
        Self::start(address, script, None).await
    }

    /// The same at the address that `localhost` has.
    pub(crate) async fn on_localhost(script: impl IntoIterator<Item = Answer>) -> Self {
        Self::start(Ipv4Addr::LOCALHOST, script, None).await
    }

    pub(crate) async fn with_tls(script: impl IntoIterator<Item = Answer>, tls: TlsAcceptor) -> Self {
        Self::start(Ipv4Addr::LOCALHOST, script, Some(tls)).await
    }

    async fn start(host: Ipv4Addr, script: impl IntoIterator<Item = Answer>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State { script: Mutex::new(script.into_iter().collect()), ..State::default() });
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&state), tls));
        Self { address, state, _server: server }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://{}", self.address).parse().expect("an address makes a URL")
    }

    /// The requests that were read so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The only request.
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "one request was expected");
        seen.remove(0)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        let (state, tls) = (Arc::clone(&state), tls.clone());
        connections.spawn(async move {
            // A client that goes away in the middle is a part of the tests.
            let _gone = match tls {
                None => serve(stream, &state).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, &state).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, state: &State) -> std::io::Result<()> {
    loop {
        let slam = matches!(state.script.lock().unwrap_or_else(PoisonError::into_inner).front(), Some(Answer::Slam));
        if slam {
            return Ok(());
        }
        let Some(seen) = read(&mut stream).await? else { return Ok(()) };
        state.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
        let answer = {
            let mut script = state.script.lock().unwrap_or_else(PoisonError::into_inner);
            if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
        };
        match answer.unwrap_or(Answer::Close) {
            Answer::Reply { status, headers, body } => write(&mut stream, status, &headers, body.as_bytes()).await?,
            Answer::Echo { status } => write(&mut stream, status, &[], seen.text.as_bytes()).await?,
            Answer::EchoJson { status } => {
                let body =
                    serde_json::json!({ "message": seen.text, "errors": { "_errors": [{ "message": seen.text }] } });
                write(&mut stream, status, &[], body.to_string().as_bytes()).await?;
            }
            Answer::Huge { status, bytes } => write(&mut stream, status, &[], &vec![b'x'; bytes]).await?,
            Answer::Trickle { status } => {
                head(&mut stream, status, &[], 1_000_000).await?;
                let mut pace = tokio::time::interval(Duration::from_millis(50));
                loop {
                    pace.tick().await;
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                }
            }
            Answer::BreakOff { status } => {
                head(&mut stream, status, &[], 100).await?;
                stream.write_all(b"begun").await?;
                return stream.shutdown().await;
            }
            Answer::Hang => std::future::pending().await,
            Answer::Close | Answer::Slam => return stream.shutdown().await,
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
) -> std::io::Result<()> {
    head(stream, status, headers, body.len()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

async fn head<S: AsyncWrite + Unpin>(
    stream: &mut S,
    status: u16,
    headers: &[(&str, String)],
    length: usize,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 204 && status != 304 {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await
}

/// Reads one request; none where the client has closed.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<Seen>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or("").split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::try_from(name).expect("a client writes good names");
        headers.append(name, HeaderValue::try_from(value.trim()).expect("a client writes good values"));
    }
    let length = headers.get("content-length").map_or(0, |text| text.to_str().unwrap().parse().unwrap());
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(Seen { method, path, headers, body: bytes[end + 4..].to_vec(), text }))
}
