//! E-mail through the whole server, to a mail server that does as it is told.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::support::server::{KEY_A, TENANT_A, TestServer, World};

/// Says what it is told to say to recipients, and keeps what it gets.
struct MailServer {
    port: u16,
    letters: Arc<Mutex<Vec<String>>>,
    _server: JoinSet<()>,
}

impl MailServer {
    /// Answers recipients so, one after the other; then it takes them.
    async fn answering(recipients: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let letters: Arc<Mutex<Vec<String>>> = Arc::default();
        let answers = Arc::new(Mutex::new(recipients.iter().copied().collect::<VecDeque<_>>()));
        let kept = Arc::clone(&letters);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, kept) = (Arc::clone(&answers), Arc::clone(&kept));
                open.spawn(async move { drop(serve(stream, &answers, &kept).await) });
            }
        });
        Self { port, letters, _server: server }
    }

    fn letters(&self) -> Vec<String> {
        self.letters.lock().expect("not poisoned").clone()
    }
}

async fn serve(
    stream: TcpStream,
    answers: &Mutex<VecDeque<&'static str>>,
    letters: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"220 mail.example ready\r\n").await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match line.split([' ', '\r']).next().unwrap_or_default() {
            "RCPT" => answers.lock().expect("not poisoned").pop_front().unwrap_or("250 ok"),
            "DATA" => {
                stream.get_mut().write_all(b"354 go on\r\n").await?;
                let mut letter = String::new();
                while !letter.ends_with("\r\n.\r\n") && stream.read_line(&mut letter).await? > 0 {}
                letters.lock().expect("not poisoned").push(letter);
                "250 queued"
            }
            "EHLO" | "MAIL" | "RSET" | "NOOP" | "QUIT" => "250 ok",
            _ => "500 what?",
        };
        stream.get_mut().write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

async fn with_email(mail: &MailServer) -> TestServer {
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "email" }]);
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "email", "channelName": "post",
        "options": {
            "host": "127.0.0.1", "port": mail.port, "security": "none", "allowNetworks": ["127.0.0.0/8"],
            "from": "Conductor <alerts@example.com>",
        },
    }));
    let to = format!("TENANT_{}_EMAIL_TO", TENANT_A.replace('-', "_"));
    world.variables.push((to, "ops@example.com, Jo <jo@example.com>".to_owned()));
    world.start().await
}

fn delivery(story: &Value) -> &Value {
    &story["deliveries"][0]
}

#[tokio::test]
async fn a_notification_becomes_an_e_mail() {
    let mail = MailServer::answering(&[]).await;
    let server = with_email(&mail).await;
    let body = json!({
        "channel": "email", "title": "Pump", "message": "It is **off**", "format": "markdown", "priority": "high",
    });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let letter = mail.letters().remove(0);
    let message_id = delivery(&story)["providerId"].as_str().expect("an id").to_owned();
    assert_eq!(message_id, format!("{}@example.com", delivery(&story)["id"].as_str().expect("an id")));
    for part in [
        "From: Conductor <alerts@example.com>\r\n",
        "To: ops@example.com, Jo <jo@example.com>\r\n",
        &*format!("Message-ID: <{message_id}>\r\n"),
        "Subject: Pump\r\n",
        "Importance: high\r\n",
        "<strong>off</strong>",
    ] {
        assert!(letter.contains(part), "{part}: {letter}");
    }
}

#[tokio::test]
async fn a_recipient_who_is_greylisted_gets_it_later_and_the_others_get_it_once() {
    let mail = MailServer::answering(&["250 ok", "451 4.7.1 greylisted"]).await;
    let server = with_email(&mail).await;
    let id = server.send(KEY_A, &json!({ "channel": "email", "message": "off" })).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let attempts = delivery(&story)["attempts"].as_array().expect("attempts");
    assert_eq!((&attempts[0]["outcome"], &attempts[0]["code"]), (&json!("retryable"), &json!("451")));
    let detail = attempts[0]["detail"].as_str().expect("words");
    assert!(detail.contains("1 of 2 recipients have it; jo@example.com") && detail.contains("greylisted"), "{detail}");
    assert_eq!((&attempts[1]["outcome"], mail.letters().len()), (&json!("sent"), 2));
}

#[tokio::test]
async fn an_address_that_nobody_has_is_a_dead_letter() {
    let mail = MailServer::answering(&["550 5.1.1 no such user"]).await;
    let server = with_email(&mail).await;
    let body = json!({ "channel": "email", "message": "off", "targetId": "nobody@example.com" });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    let attempt = &delivery(&story)["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["code"]), (&json!("permanent"), &json!("550")));
    assert!(attempt["detail"].as_str().is_some_and(|words| words.contains("5.1.1 no such user")), "{attempt}");
    assert!(mail.letters().is_empty());
}
