//! Real mail servers: Exim, whose mailbox is read back, and aiosmtpd. Their settings stand in the folder `servers`
//! beside the repository, or where `CONDUCTOR_SERVERS_DIR` says.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use super::*;
use crate::contract::{beside, left_out};

/// Starting a server takes seconds on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A server's process. It ends when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again until there is something.
async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(begun.elapsed() < START, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn listening(port: u16) {
    until("open port", || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
}

fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn settings(name: &str) -> Option<PathBuf> {
    let path = beside("CONDUCTOR_SERVERS_DIR", "servers").join(name);
    if !path.is_file() {
        left_out(&format!("{} is missing", path.display()));
        return None;
    }
    Some(path)
}

/// A folder that a server may read, with its certificate in it.
fn folder(identity: &Identity) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("cert.pem"), identity.certificate.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), identity.key.serialize_pem()).unwrap();
    folder
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A Python that has this module.
fn python(module: &str) -> Option<&'static str> {
    let has = |python: &&&str| succeeds(Command::new(python).args(["-c", &format!("import {module}")]));
    ["python3", "/usr/bin/python3"].iter().find(has).copied()
}

async fn channel_to(identity: &Identity, port: u16, more: Value) -> Email {
    let clients = HttpClients::new().trusting(identity.authority.der().clone());
    let mut all = json!({
        "port": port, "username": "bot", "password": "s3cret",
        "from": "Zoë <alerts@example.test>", "to": "ops@example.test",
    });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    let config = serde_json::from_value(values(all)).unwrap();
    let context = ChannelContext { timeout: Duration::from_secs(30), ..context(&clients, None) };
    Email::initialize(config, context).await.unwrap()
}

struct Exim {
    folder: TempDir,
    starttls: u16,
    tls: u16,
    identity: Identity,
    _running: Running,
}

impl Exim {
    /// None where it cannot be had here, which is said.
    async fn start() -> Option<Self> {
        let settings = settings("exim.conf.in")?;
        let identity = Identity::of("localhost");
        let folder = folder(&identity);
        let path = folder.path().to_str().unwrap().to_owned();
        let [starttls, tls] = free_ports();
        let text = std::fs::read_to_string(settings).unwrap();
        let text = text.replace("@D@", &path).replace("14587", &starttls.to_string());
        let config = folder.path().join("exim.conf");
        std::fs::write(&config, text.replace("14465", &tls.to_string())).unwrap();
        for name in ["spool", "mail"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let owned = succeeds(Command::new("chown").args(["-R", "Debian-exim:Debian-exim", &path]))
            && succeeds(Command::new("chown").arg("root").arg(&config));
        let mut command = Command::new("/usr/sbin/exim4");
        let command = command.arg("-C").arg(&config).args(["-bdf", "-q1s"]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let (true, Ok(child)) = (owned, spawned) else {
            left_out("Exim was not tried: it takes root and the package exim4-daemon-light");
            return None;
        };
        let running = Running(child);
        listening(starttls).await;
        Some(Self { folder, starttls, tls, identity, _running: running })
    }

    async fn channel(&self, more: Value) -> Email {
        channel_to(&self.identity, self.starttls, more).await
    }

    /// What arrived in the mailbox with this text in it, as Python's parser reads it.
    async fn arrived(&self, text: &str) -> Value {
        let mailbox = self.folder.path().join("mail/all/new");
        let found = || {
            let files = std::fs::read_dir(&mailbox).ok()?.filter_map(Result::ok).map(|entry| entry.path());
            files.into_iter().find(|path| std::fs::read(path).is_ok_and(|letter| holds(&letter, text.as_bytes())))
        };
        parsed(&until("letter", found).await)
    }
}

fn holds(letter: &[u8], text: &[u8]) -> bool {
    letter.windows(text.len()).any(|window| window == text)
}

const PARSER: &str = "
import email, email.policy, json, sys
letter = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)
parts = [[part.get_content_type(), part.get_content()] for part in letter.walk() if part.get_content_maintype() == 'text']
whole = open(sys.argv[1], 'rb').read().decode('utf-8', 'replace')
print(json.dumps({'headers': {k: str(v) for k, v in letter.items()}, 'type': letter.get_content_type(), 'parts': parts,
    'defects': [str(d) for part in letter.walk() for d in part.defects], 'whole': whole}))
";

fn parsed(path: &Path) -> Value {
    let output = Command::new("python3").args(["-c", PARSER]).arg(path).output().expect("python3 reads letters");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn numbered(number: u128, text: &str) -> Message {
    let notification = conductor_core::NotificationId::new(Uuid::from_u128(number));
    let delivery = conductor_core::DeliveryId::derive(notification, 0);
    Message { notification, delivery, ..message(text) }
}

#[tokio::test]
async fn exim_delivers_what_was_sent() {
    let Some(exim) = Exim::start().await else { return };
    let to = "Jo Müller <jo@example.test>, ops@example.test";
    let channel = exim.channel(json!({ "to": to, "replyTo": "help@example.test" })).await;
    assert_eq!(channel.health_check().await, Health::Up);

    let text = ".\r\n..two\nFrom me\n\täöü 😀 = =3D\n".to_owned() + &"long ".repeat(300) + "\nend";
    let mut sent = numbered(1, &text);
    sent.title = Some("Keller: Pumpe läuft 😀 seit heute früh um sieben Uhr dreißig, und niemand weiß, warum".into());
    sent.priority = Priority::High;
    let receipt = channel.send(&sent).await.unwrap();
    let id = format!("{}@example.test", sent.part_id());
    assert_eq!(receipt.provider_id.as_ref(), Some(&id));
    let letter = exim.arrived(&id).await;
    let header = |name: &str| letter["headers"][name].as_str().unwrap_or("none").to_owned();
    assert_eq!(header("Subject"), sent.title.unwrap());
    assert_eq!(header("From"), "Zoë <alerts@example.test>");
    assert_eq!(header("To"), to);
    assert_eq!(header("Reply-To"), "help@example.test");
    assert_eq!(header("Message-ID"), format!("<{id}>"));
    assert_eq!(header("Date"), "Sun, 06 Nov 1994 08:49:37 +0000");
    assert_eq!(header("Auto-Submitted"), "auto-generated");
    assert_eq!(header("X-Priority"), "1 (Highest)");
    assert_eq!(header("Return-path"), "<alerts@example.test>");
    // Each recipient has a copy.
    assert!(["jo@example.test", "ops@example.test"].contains(&&*header("Envelope-to")), "{letter:#}");
    assert_eq!(letter["parts"], json!([["text/plain", text.replace("\r\n", "\n") + "\n"]]));
    assert_eq!(letter["defects"], json!([]), "{letter:#}");

    let markdown =
        Message { format: Format::Markdown, ..numbered(2, "# Pump\n\nIt is **off** & [why](https://a.example/?b&c)") };
    channel.send(&markdown).await.unwrap();
    let letter = exim.arrived(&markdown.part_id().to_string()).await;
    assert_eq!(letter["type"], "multipart/alternative");
    assert_eq!((&letter["parts"][0][0], &letter["parts"][1][0]), (&json!("text/plain"), &json!("text/html")));
    let html = letter["parts"][1][1].as_str().unwrap();
    for part in ["<strong>off</strong> &amp; ", "<a href=\"https://a.example/?b&amp;c\""] {
        assert!(html.contains(part), "{html}");
    }
    assert_eq!(letter["defects"], json!([]));

    let at_once = channel_to(&exim.identity, exim.tls, json!({ "security": "tls" })).await;
    let sent = numbered(3, "over TLS");
    at_once.send(&sent).await.unwrap();
    exim.arrived(&sent.part_id().to_string()).await;
    at_once.shutdown().await;
    channel.shutdown().await;
}

#[tokio::test]
async fn exims_refusals_are_understood() {
    let Some(exim) = Exim::start().await else { return };
    let channel = exim.channel(json!({})).await;
    for (target, kind, code) in [
        ("nobody@example.test", SendErrorKind::Permanent, "550"),
        ("grey@example.test", AGAIN, "451"),
        ("a@elsewhere.test", SendErrorKind::Permanent, "550"),
    ] {
        let sent = Message { target: Some(target.into()), ..message("hello") };
        let error = channel.send(&sent).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(code)), "{target}: {error}");
    }
    let error = channel.send(&message(&"x".repeat(60_000))).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Rejected && error.message.contains("takes 51200"), "{error}");
    let error = exim.channel(json!({ "password": "wr0ng-pass" })).await.send(&message("hello")).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (SendErrorKind::Unauthorized, Some("535")), "{error}");
    let anonymous = exim.channel(json!({ "username": "", "password": "" })).await;
    let error = anonymous.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unauthorized, "{error}");
    assert!(error.message.ends_with("(set username and password)"), "{error}");
    // The certificate is for localhost and not for the address.
    let error = exim.channel(json!({ "host": "127.0.0.1" })).await.send(&message("hello")).await.unwrap_err();
    assert!(error.kind == AGAIN && error.message.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_bounce_names_the_delivery() {
    let Some(exim) = Exim::start().await else { return };
    let channel = exim.channel(json!({})).await;
    let sent = Message { target: Some("gone@bounce.test".into()), ..numbered(4, "into the void") };
    channel.send(&sent).await.expect("it is taken, and comes back later");
    let bounce = exim.arrived("multipart/report").await;
    assert_eq!(bounce["headers"]["To"], "alerts@example.test");
    let whole = bounce["whole"].as_str().unwrap();
    assert!(
        whole.contains(&format!("Original-Envelope-Id: {}", sent.part_id()))
            || whole.contains(&format!("Original-Envelope-ID: {}", sent.part_id())),
        "{whole}"
    );
    assert!(whole.contains("Action: failed"), "{whole}");
}

/// What aiosmtpd says it has taken.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<Value>>>);

impl Taken {
    fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn aiosmtpd(folder: &TempDir) -> Option<(Running, u16, Taken)> {
    let script = settings("aiosmtpd_server.py")?;
    let Some(python) = python("aiosmtpd") else {
        left_out("aiosmtpd was not tried: it takes the package python3-aiosmtpd");
        return None;
    };
    let [port] = free_ports();
    let mut command = Command::new(python);
    let command = command.arg(script).arg(folder.path()).arg(port.to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let taken = Taken::default();
    let shared = taken.clone();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let value = serde_json::from_str(&line).expect("a line of JSON");
            shared.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
        }
    });
    listening(port).await;
    Some((Running(child), port, taken))
}

#[tokio::test]
async fn aiosmtpd_takes_what_was_sent_and_its_faults_are_understood() {
    let identity = Identity::of("localhost");
    let folder = folder(&identity);
    let Some((_running, port, taken)) = aiosmtpd(&folder).await else { return };
    let channel = channel_to(&identity, port, json!({})).await;
    let sent = numbered(1, "hello\n.\n");
    channel.send(&sent).await.unwrap();
    let first = until("letter", || taken.all().into_iter().next()).await;
    assert_eq!((&first["tls"], &first["auth"]), (&json!(true), &json!(true)));
    assert_eq!((&first["from"], &first["to"]), (&json!("alerts@example.test"), &json!(["ops@example.test"])));
    assert!(first["data"].as_str().unwrap().ends_with("\r\n\r\nhello\r\n.\r\n\r\n"), "{first}");

    for (target, kind, code) in [
        ("grey1@example.test", AGAIN, Some("451")),
        ("full@example.test", AGAIN, Some("452")),
        ("bad@example.test", SendErrorKind::Permanent, Some("550")),
        ("drop@example.test", SendErrorKind::Unknown, None),
    ] {
        let sent = Message { target: Some(target.into()), ..message("hello") };
        let error = channel.send(&sent).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (kind, code), "{target}: {error}");
    }
    let error = channel.send(&message(&"x".repeat(11_000))).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Rejected && error.message.contains("takes 10000"), "{error}");
    let config = json!({ "port": port, "username": "bot", "password": "s3cret", "to": "hang@example.test" });
    let clients = HttpClients::new().trusting(identity.authority.der().clone());
    let hasty = super::channel(&clients, config).await;
    let error = hasty.send(&message("hello")).await.unwrap_err();
    assert!(error.kind == AGAIN && error.message.contains("time limit"), "{error}");
}
