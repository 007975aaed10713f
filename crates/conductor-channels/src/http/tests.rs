use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::process::Command;

use conductor_core::SendErrorKind;
use url::Url;

use super::*;
use crate::contract::tls::Identity;
use crate::contract::{Answer, Provider, loopback};

/// Knows the names that a test tells it, and how often it was asked.
#[derive(Default)]
struct Names {
    addresses: HashMap<&'static str, Vec<IpAddr>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    fn new(names: &[(&'static str, &[&str])]) -> Arc<Self> {
        let parse = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let addresses = names.iter().map(|(name, addresses)| (*name, parse(addresses))).collect();
        Arc::new(Self { addresses, asked: Mutex::default() })
    }
}

impl Lookup for Names {
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let found = self.addresses.get(name.trim_end_matches('.')).cloned();
        self.asked.lock().unwrap().push(name);
        Box::pin(async move { found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name")) })
    }
}

fn post(url: &str) -> Request {
    let url: Url = url.parse().unwrap();
    Request::post(url).json_bytes("{}").timeout(Duration::from_secs(5))
}

fn allowed(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().unwrap()).collect()
}

fn is_refused(result: &Result<Response, HttpError>) -> bool {
    matches!(result, Err(HttpError::Refused { .. }))
}

#[tokio::test]
async fn a_number_for_an_address_is_refused_in_every_notation() {
    let provider = Provider::on_localhost([Answer::status(200)]).await;
    let names = Names::new(&[]);
    let clients = HttpClients::with_lookup(Arc::<Names>::clone(&names));
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "0x7f000001",
        "0x7f.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "0xa9fea9fe",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
    ] {
        let result = clients.client(&[]).send(post(&format!("http://{host}:{}/", provider.port()))).await;
        assert!(is_refused(&result), "{host}: {result:?}");
    }
    assert!(provider.seen().is_empty());
    assert!(names.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_is_judged_by_what_it_resolves_to() {
    let provider = Provider::on_localhost([Answer::status(200)]).await;
    let names = Names::new(&[
        ("inside.example", &["127.0.0.1"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("private.example", &["10.0.0.1", "fd00::1"]),
        ("empty.example", &[]),
    ]);
    let clients = HttpClients::with_lookup(Arc::<Names>::clone(&names));
    for host in ["inside.example", "inside.example.", "mapped.example", "private.example"] {
        let result = clients.client(&[]).send(post(&format!("http://{host}:{}/", provider.port()))).await;
        assert!(is_refused(&result), "{host}: {result:?}");
        let error = result.unwrap_err();
        assert_eq!(error.kind(), SendErrorKind::Permanent);
        assert!(error.to_string().contains("\"allowNetworks\": ["), "{error}");
    }
    for host in ["empty.example", "missing.example"] {
        let result = clients.client(&[]).send(post(&format!("http://{host}/"))).await;
        assert!(matches!(result, Err(HttpError::NotConnected { .. })), "{host}: {result:?}");
    }
    assert!(provider.seen().is_empty());
    assert_eq!(names.asked.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn the_systems_own_names_are_judged_too() {
    let provider = Provider::on_localhost([Answer::status(200)]).await;
    let client = HttpClients::new().client(&[]);
    let result = client.send(post(&format!("http://localhost:{}/", provider.port()))).await;
    assert!(is_refused(&result), "{result:?}");
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn only_the_allowed_addresses_of_a_name_are_connected_to() {
    let provider = Provider::on_localhost([Answer::status(200)]).await;
    let names = Names::new(&[("mixed.example", &["10.255.255.1", "127.0.0.1", "fe80::1"])]);
    let client = HttpClients::with_lookup(names).client(&allowed(&["127.0.0.0/8"]));
    let answer = client.send(post(&format!("http://mixed.example:{}/", provider.port()))).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.complete), (200, true));
}

#[tokio::test]
async fn an_allowed_network_is_reached_by_number_and_by_name() {
    let provider = Provider::on_localhost([Answer::status(200)]).await;
    let client = HttpClients::new().client(&loopback());
    for host in ["127.0.0.1", "localhost", "2130706433"] {
        assert!(client.send(post(&format!("http://{host}:{}/", provider.port()))).await.is_ok(), "{host}");
    }
}

#[tokio::test]
async fn what_is_no_http_url_is_not_asked_for() {
    let client = HttpClients::new().client(&loopback());
    for url in ["ftp://127.0.0.1/", "file:///etc/passwd", "data:,x", "http://user:pw@127.0.0.1/"] {
        let result = client.send(post(url)).await;
        assert!(matches!(result, Err(HttpError::Url { .. })), "{url}: {result:?}");
        assert!(!format!("{result:?}").contains("pw"), "{result:?}");
    }
}

#[test]
fn channels_with_the_same_networks_share_a_client() {
    let clients = HttpClients::new();
    let first = clients.client(&allowed(&["10.0.0.0/8", "192.168.0.0/16"]));
    let same = clients.client(&allowed(&["192.168.7.0/16", "10.0.0.0/8", "10.0.0.0/8"]));
    let other = clients.client(&allowed(&["10.0.0.0/8"]));
    assert!(Arc::ptr_eq(&first.0, &same.0));
    assert!(!Arc::ptr_eq(&first.0, &other.0));
    assert!(Arc::ptr_eq(&first.0.tls, &other.0.tls));
    assert!(!first.0.plain.initialized() && !first.0.secure.initialized());
    drop((first, same));
    clients.client(&[]);
    assert_eq!(clients.0.clients.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn connections_are_used_again() {
    let provider = Provider::on_localhost([Answer::status(200), Answer::status(200)]).await;
    let client = HttpClients::new().client(&loopback());
    for _ in 0..2 {
        client.send(post(provider.url().as_str())).await.unwrap();
    }
    assert_eq!(provider.connections(), 1);
}

#[tokio::test]
async fn an_answer_is_read_up_to_the_limit() {
    for (bytes, complete) in [(BODY_MAX, true), (BODY_MAX + 1, false), (10_000_000, false)] {
        let provider = Provider::on_localhost([Answer::Huge { status: 200, bytes }]).await;
        let client = HttpClients::new().client(&loopback());
        let answer = client.send(post(provider.url().as_str())).await.unwrap();
        assert_eq!((answer.body.len(), answer.complete), (BODY_MAX, complete), "{bytes}");
    }
}

#[tokio::test]
async fn a_request_that_was_not_written_is_told_from_one_without_an_answer() {
    let client = HttpClients::new().client(&loopback());
    for (answer, expected) in [(Answer::Hang, SendErrorKind::Unknown), (Answer::Close, SendErrorKind::Unknown)] {
        let provider = Provider::on_localhost([answer]).await;
        let request = post(provider.url().as_str()).timeout(Duration::from_secs(1));
        assert_eq!(client.send(request).await.unwrap_err().kind(), expected);
    }
    // A listener whose queue of connections nobody takes: TLS waits for a hello that never comes.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = post(&format!("https://{}/", silent.local_addr().unwrap())).timeout(Duration::from_secs(1));
    let error = client.send(request).await.unwrap_err();
    assert!(matches!(error, HttpError::NotWritten { .. }), "{error:?}");
    assert_eq!(error.kind(), SendErrorKind::Retryable { retry_after: None });
}

/// A server for `name` whose certificate comes from an authority of its own; and that authority, as PEM.
async fn tls_provider(name: &str) -> (Provider, String) {
    let identity = Identity::of(name);
    let acceptor = identity.acceptor(&[b"http/1.1"]);
    (Provider::with_tls([Answer::status(200)], acceptor).await, identity.authority.pem())
}

/// Names the port to the child that [`an_authority_in_ssl_cert_file_is_trusted_and_no_other`] starts.
const CHILD_PORT: &str = "CONDUCTOR_TEST_TLS_PORT";

/// `SSL_CERT_FILE` counts for a whole process, so the test starts itself again with the variable set.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test's two halves speak through the environment")]
async fn an_authority_in_ssl_cert_file_is_trusted_and_no_other() {
    if let Ok(port) = std::env::var(CHILD_PORT) {
        let names = Names::new(&[("good.example", &["127.0.0.1"]), ("other.example", &["127.0.0.1"])]);
        let client = HttpClients::with_lookup(names).client(&loopback());
        client.send(post(&format!("https://good.example:{port}/"))).await.expect("the authority is trusted");
        let error = client.send(post(&format!("https://other.example:{port}/"))).await.unwrap_err();
        assert!(matches!(error, HttpError::NotConnected { .. }), "{error}");
        return;
    }
    let (provider, pem) = tls_provider("good.example").await;
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours.pem");
    std::fs::write(&ours, pem).unwrap();
    let (_, pem) = tls_provider("good.example").await;
    let theirs = folder.path().join("theirs.pem");
    std::fs::write(&theirs, pem).unwrap();
    for (file, trusted) in [(ours, true), (theirs, false)] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "http::tests::an_authority_in_ssl_cert_file_is_trusted_and_no_other"]);
        child.env(CHILD_PORT, provider.port().to_string()).env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
        let run = tokio::task::spawn_blocking(move || child.output());
        let output = run.await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.success(), trusted, "{said}");
        assert!(said.contains("1 passed") || said.contains("invalid peer certificate"), "{said}");
    }
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_a_failed_connection() {
    let (provider, _) = tls_provider("good.example").await;
    let names = Names::new(&[("good.example", &["127.0.0.1"])]);
    let client = HttpClients::with_lookup(names).client(&loopback());
    let error = client.send(post(&format!("https://good.example:{}/", provider.port()))).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::Retryable { retry_after: None });
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn http2_is_spoken_where_the_server_offers_it() {
    use hyper::body::Incoming;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let identity = Identity::of("good.example");
    let acceptor = identity.acceptor(&[b"h2"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let echo = hyper::service::service_fn(|request: hyper::Request<Incoming>| async move {
            let length = request.headers()["content-length"].clone();
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(hyper::Response::builder().header("x-length", length).body(Full::new(body)).unwrap())
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(stream), echo).await.unwrap();
    });
    let clients = HttpClients::with_lookup(Names::new(&[("good.example", &["127.0.0.1"])]));
    let clients = clients.trusting(identity.authority.der().clone());
    let body = "x".repeat(20_000);
    let request = post(&format!("https://good.example:{port}/")).json_bytes(body.clone());
    let answer = clients.client(&loopback()).send(request).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, body.as_bytes()));
    assert_eq!(answer.headers["x-length"], "20000");
}
