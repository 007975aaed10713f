//! A mail server that does as its script says, well or badly.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::contract::tls::Identity;
use crate::email::smtp::Duplex;

/// What the server does when a line comes.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Says this, with a line break after it.
    Say(&'static str),
    /// Says that and closes.
    SayAndClose(&'static str),
    /// Says nothing.
    Hang,
    /// Closes.
    Close,
    /// Sends letters without an end.
    Babble,
}

/// The server's script: what it does differently at the lines that begin so. Each entry is used once, in its order.
pub(super) struct Script {
    pub(super) offers: &'static [&'static str],
    pub(super) acts: Vec<(&'static str, Act)>,
    /// TLS, and whether it begins with the first byte.
    pub(super) tls: Option<(TlsAcceptor, bool)>,
}

impl Script {
    pub(super) fn with(acts: impl IntoIterator<Item = (&'static str, Act)>) -> Self {
        Self { offers: &["SIZE 1000000"], acts: acts.into_iter().collect(), tls: None }
    }

    pub(super) fn offering(mut self, offers: &'static [&'static str]) -> Self {
        self.offers = offers;
        self
    }

    pub(super) fn tls(mut self, identity: &Identity, at_once: bool) -> Self {
        self.tls = Some((identity.acceptor(&[]), at_once));
        self
    }
}

/// What came over all connections.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Every line but those of messages; encrypted ones begin with `+`.
    pub(super) lines: Vec<String>,
    /// Every message, its dots as they came.
    pub(super) letters: Vec<String>,
    pub(super) connections: usize,
}

/// The line that the script knows the end of a message by.
pub(super) const END: &str = ".";
/// The script's name for a new connection.
pub(super) const CONNECTED: &str = "(connected)";

struct State {
    script: Mutex<Script>,
    seen: Mutex<Seen>,
}

impl State {
    fn act(&self, line: &str) -> Option<Act> {
        let acts = &mut self.script.lock().unwrap_or_else(PoisonError::into_inner).acts;
        let at = acts.iter().position(|(beginning, _)| line.starts_with(beginning))?;
        Some(acts.remove(at).1)
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A mail server on loopback. It goes when it is dropped.
pub(super) struct MailServer {
    pub(super) port: u16,
    state: Arc<State>,
    _server: JoinSet<()>,
}

impl MailServer {
    pub(super) async fn playing(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { script: Mutex::new(script), seen: Mutex::default() });
        let mut server = JoinSet::new();
        let shared = Arc::clone(&state);
        server.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                state.note(|seen| seen.connections += 1);
                open.spawn(async move { drop(serve(stream, &state).await) });
            }
        });
        Self { port, state, _server: server }
    }

    pub(super) fn seen(&self) -> Seen {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines that begin so.
    pub(super) fn lines(&self, beginning: &str) -> Vec<String> {
        self.seen().lines.into_iter().filter(|line| line.trim_start_matches('+').starts_with(beginning)).collect()
    }
}

async fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let tls = state.script.lock().unwrap_or_else(PoisonError::into_inner).tls.clone();
    let greeting = state.act(CONNECTED).unwrap_or(Act::Say("220 mail.example ready"));
    if let Some((acceptor, true)) = &tls {
        let mut stream = BufReader::new(acceptor.accept(stream).await?);
        return if act(&mut stream, greeting).await? { talk(&mut stream, state, true).await.map(drop) } else { Ok(()) };
    }
    let mut stream = BufReader::new(stream);
    if !act(&mut stream, greeting).await? || !talk(&mut stream, state, false).await? {
        return Ok(());
    }
    let Some((acceptor, _)) = tls else { return Ok(()) };
    let mut stream = BufReader::new(acceptor.accept(stream.into_inner()).await?);
    talk(&mut stream, state, true).await.map(drop)
}

/// Whether the conversation goes on.
async fn act<S: Duplex>(stream: &mut BufReader<S>, act: Act) -> std::io::Result<bool> {
    match act {
        Act::Say(text) => {
            stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await?;
            stream.get_mut().flush().await?;
            return Ok(true);
        }
        Act::SayAndClose(text) => stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await?,
        Act::Hang => std::future::pending().await,
        Act::Close => {}
        Act::Babble => loop {
            stream.get_mut().write_all(&[b'x'; 1024]).await?;
        },
    }
    Ok(false)
}

/// Answers line by line. True: the client wants to begin TLS.
async fn talk<S: Duplex>(stream: &mut BufReader<S>, state: &State, secure: bool) -> std::io::Result<bool> {
    let mut logging_in = 0;
    while let Some(line) = read(stream).await? {
        let mark = if secure { "+" } else { "" };
        state.note(|seen| seen.lines.push(format!("{mark}{line}")));
        let mut scripted = state.act(&line);
        if line == "DATA" && scripted.is_none() {
            act(stream, Act::Say("354 go on")).await?;
            let mut letter = String::new();
            loop {
                let Some(line) = read(stream).await? else { return Ok(false) };
                if line == END {
                    break;
                }
                letter.push_str(&line);
                letter.push_str("\r\n");
            }
            state.note(|seen| seen.letters.push(letter));
            scripted = Some(state.act(END).unwrap_or(Act::Say("250 2.0.0 queued as X1")));
        }
        let goes_on = matches!(&scripted, None | Some(Act::Say("220 begin\r\n250 injected")));
        let begins_tls = line == "STARTTLS" && goes_on;
        let usual = usual(&line, state, secure, &mut logging_in);
        let said = match scripted {
            Some(scripted) => act(stream, scripted).await?,
            None => {
                stream.get_mut().write_all(usual.as_bytes()).await?;
                stream.get_mut().flush().await?;
                line != "QUIT"
            }
        };
        if begins_tls || !said {
            return Ok(begins_tls);
        }
    }
    Ok(false)
}

fn usual(line: &str, state: &State, secure: bool, logging_in: &mut u32) -> String {
    let words = line.split(' ').collect::<Vec<_>>();
    match words[0] {
        "EHLO" => {
            let mut answer = String::from("250-mail.example\r\n");
            for offer in state.script.lock().unwrap_or_else(PoisonError::into_inner).offers {
                if !(secure && *offer == "STARTTLS") {
                    answer.push_str(&format!("250-{offer}\r\n"));
                }
            }
            answer + "250 HELP\r\n"
        }
        "STARTTLS" => "220 begin\r\n".into(),
        "AUTH" if words[1] == "LOGIN" => {
            *logging_in = 1;
            "334 VXNlcm5hbWU6\r\n".into()
        }
        "AUTH" => "235 2.7.0 welcome\r\n".into(),
        "QUIT" => "221 bye\r\n".into(),
        _ if *logging_in == 1 => {
            *logging_in = 2;
            "334 UGFzc3dvcmQ6\r\n".into()
        }
        _ if *logging_in == 2 => {
            *logging_in = 0;
            "235 2.7.0 welcome\r\n".into()
        }
        "MAIL" | "RCPT" | "RSET" | "NOOP" => "250 2.1.0 ok\r\n".into(),
        _ => "500 5.5.1 what?\r\n".into(),
    }
}

async fn read<S: Duplex>(stream: &mut BufReader<S>) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    Ok(line.strip_suffix(b"\r\n").map(|line| String::from_utf8_lossy(line).into_owned()))
}
