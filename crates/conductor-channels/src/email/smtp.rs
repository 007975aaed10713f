//! The conversation with a mail server.
//!
//! <https://www.rfc-editor.org/rfc/rfc5321>, STARTTLS: <https://www.rfc-editor.org/rfc/rfc3207>, AUTH:
//! <https://www.rfc-editor.org/rfc/rfc4954>.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conductor_core::Secret;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use url::Host;

use super::Security;
use crate::http::{HttpClient, HttpError, Reach};

/// The longest line of an answer that is read, in bytes; servers keep to 512.
const LINE_MAX_BYTES: u64 = 4096;
/// The most lines of one answer.
const LINES_MAX: usize = 128;

/// Where in the conversation something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The server's first words.
    Greeting,
    /// EHLO.
    Hello,
    /// STARTTLS.
    Encryption,
    /// AUTH.
    Login,
    /// RSET and NOOP.
    Check,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA.
    Data,
    /// The message, up to the line that ends it.
    Text,
    /// From the line that ends the message: it may be taken.
    End,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// Three digits.
    pub(super) code: u16,
    /// The text, lines parted by spaces.
    pub(super) text: String,
}

impl Reply {
    /// The enhanced status code that begins the text, such as 5.1.1.
    /// <https://www.rfc-editor.org/rfc/rfc3463>
    pub(super) fn enhanced(&self) -> Option<(u16, u16, u16)> {
        let mut numbers = self.text.split(' ').next()?.splitn(3, '.').map(|number| number.parse::<u16>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    }
}

/// Why a conversation did not come to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection, or no TLS.
    Connection(HttpError),
    /// The server said no.
    Refused(Step, Reply),
    /// The connection ended, the time was up, or what came was no SMTP.
    Lost(Step, String),
    /// The server does not offer what the channel's settings ask for.
    NotOffered(&'static str),
}

/// What a server offers after EHLO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offers {
    starttls: bool,
    plain: bool,
    login: bool,
    /// Delivery status notifications. <https://www.rfc-editor.org/rfc/rfc3461>
    pub(super) dsn: bool,
    /// Whether it wants to know a message's size.
    pub(super) size: bool,
    /// The largest message that it takes, in bytes. <https://www.rfc-editor.org/rfc/rfc1870>
    pub(super) size_max: Option<usize>,
}

impl Offers {
    fn read(lines: &[String]) -> Self {
        let mut offers = Self::default();
        for line in lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace().map(str::to_ascii_uppercase);
            match words.next().as_deref() {
                Some("STARTTLS") => offers.starttls = true,
                Some("DSN") => offers.dsn = true,
                Some("SIZE") => {
                    offers.size = true;
                    offers.size_max = words.next().and_then(|most| most.parse().ok()).filter(|most| *most > 0);
                }
                Some("AUTH") => {
                    for mechanism in words {
                        offers.plain |= mechanism == "PLAIN";
                        offers.login |= mechanism == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        offers
    }
}

/// Who speaks to which server, and how.
pub(super) struct Server {
    pub(super) http: HttpClient,
    pub(super) host: Host<String>,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) credentials: Option<(String, Secret)>,
}

impl Server {
    /// Connects, encrypts and logs in.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Conversation, Fault> {
        let reach = if self.security == Security::None { Reach::Allowed } else { Reach::Public };
        let stream = self.http.open(&self.host, self.port, reach, deadline).await.map_err(Fault::Connection)?;
        let own = stream.local_addr().map_err(|error| Fault::Lost(Step::Greeting, error.to_string()))?;
        let hello = format!("EHLO {}", literal(own));
        let mut conversation = match self.security {
            Security::None => {
                let stream: Box<dyn Duplex> = Box::new(stream);
                Conversation::begin(stream, &hello, deadline).await?
            }
            Security::Tls => Conversation::begin(self.encrypted(stream, deadline).await?, &hello, deadline).await?,
            Security::Starttls => {
                let stream = self.start_tls(stream, &hello, deadline).await?;
                let mut conversation = Conversation::over(stream, deadline);
                conversation.hello(&hello).await?;
                conversation
            }
        };
        if let Some((username, password)) = &self.credentials {
            conversation.login(username, password).await?;
        }
        Ok(conversation)
    }

    /// Never goes on without TLS, whatever the server says: somebody between here and there may have said it.
    async fn start_tls(&self, stream: TcpStream, hello: &str, deadline: Instant) -> Result<Box<dyn Duplex>, Fault> {
        let mut plain = Conversation::begin(stream, hello, deadline).await?;
        if !plain.offers.starttls {
            return Err(Fault::NotOffered(
                "the server offers no STARTTLS, so that nothing was sent: is it the right port? \
                 (465 takes \"security\": \"tls\")",
            ));
        }
        plain.ask(Step::Encryption, "STARTTLS", 220).await?;
        if !plain.stream.buffer().is_empty() {
            // Answers that were put in before the encryption began must not be taken for the server's.
            let reason = "the server sent more than its answer to STARTTLS before the encryption began";
            return Err(Fault::Lost(Step::Encryption, reason.into()));
        }
        self.encrypted(plain.stream.into_inner(), deadline).await
    }

    async fn encrypted(&self, stream: TcpStream, deadline: Instant) -> Result<Box<dyn Duplex>, Fault> {
        let secure = self.http.secure(stream, &self.host, self.port, deadline).await;
        Ok(Box::new(secure.map_err(Fault::Connection)?))
    }
}

/// How a client names itself that may have no name: by its address.
fn literal(own: SocketAddr) -> String {
    match own.ip().to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// A connection, encrypted or not.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection on which a server has been greeted.
pub(super) struct Conversation<S = Box<dyn Duplex>> {
    stream: BufReader<S>,
    /// Until when every step has to be done.
    pub(super) deadline: Instant,
    pub(super) offers: Offers,
    /// When it was last used.
    pub(super) used: Instant,
    /// How many messages it has carried.
    pub(super) carried: u32,
}

impl<S: Duplex> Conversation<S> {
    fn over(stream: S, deadline: Instant) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, deadline, offers: Offers::default(), used: Instant::now(), carried: 0 }
    }

    async fn begin(stream: S, hello: &str, deadline: Instant) -> Result<Self, Fault> {
        let mut conversation = Self::over(stream, deadline);
        let (reply, _) = conversation.read(Step::Greeting).await?;
        accept(Step::Greeting, reply, 220)?;
        conversation.hello(hello).await?;
        Ok(conversation)
    }

    async fn hello(&mut self, hello: &str) -> Result<(), Fault> {
        self.write(Step::Hello, format!("{hello}\r\n").as_bytes()).await?;
        let (reply, lines) = self.read(Step::Hello).await?;
        accept(Step::Hello, reply, 250)?;
        self.offers = Offers::read(&lines);
        Ok(())
    }

    async fn login(&mut self, username: &str, password: &Secret) -> Result<(), Fault> {
        if self.offers.plain {
            let token = STANDARD.encode(format!("\0{username}\0{}", password.expose()));
            self.ask(Step::Login, &format!("AUTH PLAIN {token}"), 235).await?;
        } else if self.offers.login {
            self.ask(Step::Login, "AUTH LOGIN", 334).await?;
            self.ask(Step::Login, &STANDARD.encode(username), 334).await?;
            self.ask(Step::Login, &STANDARD.encode(password.expose()), 235).await?;
        } else {
            return Err(Fault::NotOffered("the server offers neither AUTH PLAIN nor AUTH LOGIN to log in with"));
        }
        Ok(())
    }

    /// Says a line and expects this answer.
    pub(super) async fn ask(&mut self, step: Step, line: &str, expected: u16) -> Result<Reply, Fault> {
        self.write(step, format!("{line}\r\n").as_bytes()).await?;
        let (reply, _) = self.read(step).await?;
        accept(step, reply, expected)
    }

    /// Sends the message's text, and the line that ends it.
    pub(super) async fn text(&mut self, message: &[u8]) -> Result<Reply, Fault> {
        self.write(Step::Text, &stuffed(message)).await?;
        self.write(Step::End, b".\r\n").await?;
        let (reply, _) = self.read(Step::End).await?;
        accept(Step::End, reply, 250)
    }

    /// Takes leave, where the server still listens.
    pub(super) async fn quit(mut self, deadline: Instant) {
        self.deadline = deadline;
        let _ = self.ask(Step::Check, "QUIT", 221).await;
    }

    async fn write(&mut self, step: Step, bytes: &[u8]) -> Result<(), Fault> {
        let stream = self.stream.get_mut();
        let writing = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        match timeout_at(self.deadline, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Fault::Lost(step, error.to_string())),
            Err(_) => Err(Fault::Lost(step, "the time limit passed".into())),
        }
    }

    /// An answer, and its lines without their codes.
    async fn read(&mut self, step: Step) -> Result<(Reply, Vec<String>), Fault> {
        let mut lines = Vec::new();
        loop {
            let line = timeout_at(self.deadline, self.line()).await;
            let line = line.map_err(|_| Fault::Lost(step, "the time limit passed".into()))?;
            let line = line.map_err(|reason| Fault::Lost(step, reason))?;
            let Some((code, is_last, text)) = parse(&line) else {
                return Err(Fault::Lost(step, "what came is no answer of a mail server".into()));
            };
            lines.push(text.to_owned());
            if is_last {
                return Ok((Reply { code, text: lines.join(" ") }, lines));
            }
            if lines.len() >= LINES_MAX {
                return Err(Fault::Lost(step, format!("an answer of more than {LINES_MAX} lines")));
            }
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let limited = &mut (&mut self.stream).take(LINE_MAX_BYTES);
        limited.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
        match line.last() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Some(_) if line.len() as u64 >= LINE_MAX_BYTES => {
                Err(format!("a line of more than {LINE_MAX_BYTES} bytes"))
            }
            _ => Err("the server closed the connection".into()),
        }
    }
}

/// `250-text` or `250 text`: the code, whether it is the last line, the text.
fn parse(line: &str) -> Option<(u16, bool, &str)> {
    let code = line.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))?;
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    let rest = &line[3..];
    let is_last = match rest.as_bytes().first() {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return None,
    };
    Some((code, is_last, rest.get(1..).unwrap_or("")))
}

/// A 2yz where another was expected is as good: 251 for a recipient, say. A 3yz is not.
fn accept(step: Step, reply: Reply, expected: u16) -> Result<Reply, Fault> {
    match reply.code {
        400.. => Err(Fault::Refused(step, reply)),
        code if code / 100 == expected / 100 => Ok(reply),
        code => Err(Fault::Lost(step, format!("the server answered {code} where {expected} was expected"))),
    }
}

/// A line that begins with a dot gets a second one, because a dot alone ends the message.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_line_by_line() {
        assert_eq!(parse("250-SIZE 1000"), Some((250, false, "SIZE 1000")));
        assert_eq!(parse("250 ok"), Some((250, true, "ok")));
        assert_eq!(parse("250"), Some((250, true, "")));
        for bad in
            ["", "25", "2x0 ok", "250_ok", "HTTP/1.1 400 Bad Request", "199 low", "600 high", "２50 ok", "+50 ok"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_enhanced_status_is_read_where_there_is_one() {
        let of = |text: &str| Reply { code: 550, text: text.into() }.enhanced();
        assert_eq!(of("5.1.1 no such user"), Some((5, 1, 1)));
        assert_eq!(of("5.7.26"), Some((5, 7, 26)));
        for none in ["", "no such user", "5.1 no", "5.x.1 no", "1.2.3.4 blocked"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn offers_are_read_in_any_letter_case() {
        let lines = ["mail.example", "size 1000", "AUTH CRAM-MD5 login", "StartTLS", "DSN", "", "8BITMIME"];
        let read = Offers::read(&lines.map(str::to_owned));
        let expected =
            Offers { starttls: true, plain: false, login: true, dsn: true, size: true, size_max: Some(1000) };
        assert_eq!(read, expected);
        let unlimited = Offers::read(&["a".into(), "SIZE 0".into()]);
        assert_eq!((unlimited.size, unlimited.size_max), (true, None));
        assert_eq!(Offers::read(&["STARTTLS".into()]), Offers::default(), "the first line is the server's name");
    }

    #[test]
    fn dots_are_doubled_and_the_last_line_is_ended() {
        assert_eq!(stuffed(b"a\r\n.\r\n..b\r\nc."), b"a\r\n..\r\n...b\r\nc.\r\n");
        assert_eq!(stuffed(b".a\r\n"), b"..a\r\n");
    }
}
