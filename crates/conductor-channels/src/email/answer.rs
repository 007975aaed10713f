//! What a mail server's refusals mean.
//!
//! <https://www.rfc-editor.org/rfc/rfc5321#section-4.2>, <https://www.rfc-editor.org/rfc/rfc3463>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conductor_core::{SendError, SendErrorKind};

use super::smtp::{Fault, Reply, Server, Step};
use crate::http::{HttpError, tidy};

const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };

/// The error that a fault stands for.
pub(super) fn error(fault: Fault, server: &Server) -> SendError {
    match fault {
        Fault::Connection(error) => connection(&error),
        // Repeating it changes nothing: the settings fit another port, or somebody stands between.
        Fault::NotOffered(reason) => SendError::new(SendErrorKind::Unauthorized, reason),
        Fault::Lost(Step::End, reason) => {
            let text = format!("the message was written and the server did not say what became of it: {reason}");
            SendError::new(SendErrorKind::Unknown, text)
        }
        Fault::Lost(step, reason) => {
            let text = format!("{}: {}", during(step), hidden(&reason, server));
            SendError::new(AGAIN, text)
        }
        Fault::Refused(step, reply) => refusal(step, &reply, server),
    }
}

/// The error that a refusal at this step stands for.
pub(super) fn refusal(step: Step, reply: &Reply, server: &Server) -> SendError {
    let kind = kind(step, reply);
    let advice = match (kind, step) {
        (SendErrorKind::Unauthorized, _) if reply.code == 530 && server.credentials.is_none() => {
            " (set username and password)"
        }
        (SendErrorKind::Unauthorized, Step::Sender) => " (may this account send as `from`?)",
        (SendErrorKind::Unauthorized, Step::Login) => {
            " (check username and password; some providers want an app password)"
        }
        _ => "",
    };
    let text = format!("{}: {} {}{advice}", during(step), reply.code, hidden(&reply.text, server));
    SendError::new(kind, text).with_code(reply.code.to_string())
}

/// What a code means at a step.
pub(super) fn kind(step: Step, reply: &Reply) -> SendErrorKind {
    let subject = reply.enhanced().map(|(_, subject, detail)| (subject, detail));
    match (reply.code, subject) {
        // Temporary, whatever it is about: also a 454, the server's own trouble with logins or with TLS. It passes
        // without anybody's doing, so that a channel that stopped for it would stand still for no reason.
        (400..500, _) => AGAIN,
        (530 | 534 | 535 | 538, _) => SendErrorKind::Unauthorized,
        (_, _) if matches!(step, Step::Greeting | Step::Hello | Step::Encryption | Step::Login) => {
            SendErrorKind::Unauthorized
        }
        // A mailbox that is full may be emptied. Without an enhanced code, a 552 for a recipient means that, or that
        // there are too many recipients; for a message it means the size.
        (552, Some((2, 2))) => AGAIN,
        (552, None) if step == Step::Recipient => AGAIN,
        (552, _) | (_, Some((6, _) | (3, 4) | (2, 3))) => SendErrorKind::Rejected,
        // The sender is the channel's own, so that no message of it would fare better.
        (550 | 551 | 553 | 554, _) | (_, Some((1, 7 | 8))) if step == Step::Sender => SendErrorKind::Unauthorized,
        (500..=504, _) => SendErrorKind::Rejected,
        _ => SendErrorKind::Permanent,
    }
}

fn connection(error: &HttpError) -> SendError {
    SendError::new(error.kind(), error.to_string())
}

const fn during(step: Step) -> &'static str {
    match step {
        Step::Greeting => "the server greeted with a refusal or not at all",
        Step::Hello => "the server's answer to EHLO",
        Step::Encryption => "the server's answer to STARTTLS",
        Step::Login => "the server's answer to the login",
        Step::Check => "the server's answer to whether it is there",
        Step::Sender => "the server's answer to the sender",
        Step::Recipient => "the server's answer to the recipient",
        Step::Data => "the server's answer before the message",
        Step::Text => "while the message was written",
        Step::End => "the server's answer to the message",
    }
}

/// One line of the server's words. A server may repeat what it was sent.
pub(super) fn hidden(text: &str, server: &Server) -> String {
    let Some((username, password)) = &server.credentials else { return tidy(text, &[]) };
    let password = password.expose();
    let (token, encoded) = (STANDARD.encode(format!("\0{username}\0{password}")), STANDARD.encode(password));
    tidy(text, &[&token, &encoded, password])
}
