//! Mail addresses as people write them, made safe for headers and for the server's command lines.

use lettre::Address;
use lettre::message::Mailbox;
use url::Host;

/// The most recipients of one message.
pub(super) const RECIPIENTS_MAX: usize = 50;
/// The longest name beside an address, in bytes.
const NAME_MAX_BYTES: usize = 200;
/// The longest parts of an address, in bytes.
/// <https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1>
const LOCAL_MAX_BYTES: usize = 64;
const DOMAIN_MAX_BYTES: usize = 255;
/// What the part before the `@` may hold beside letters and digits.
/// <https://www.rfc-editor.org/rfc/rfc5322#section-3.2.3>
const ATOM: &[u8] = b"!#$%&'*+-/=?^_`{|}~";

/// One or more addresses, with commas between them. The same address twice is one.
pub(super) fn mailboxes(text: &str) -> Result<Vec<Mailbox>, String> {
    let mut found: Vec<Mailbox> = Vec::new();
    for entry in entries(text) {
        let mailbox = mailbox(entry)?;
        if found.iter().all(|known| known.email != mailbox.email) {
            found.push(mailbox);
        }
        if found.len() > RECIPIENTS_MAX {
            return Err(format!("has more than {RECIPIENTS_MAX} addresses"));
        }
    }
    Ok(found)
}

/// One address: `ops@example.com` or `Operations <ops@example.com>`.
pub(super) fn mailbox(text: &str) -> Result<Mailbox, String> {
    if text.chars().any(char::is_control) {
        return Err("holds a line break or another control character".into());
    }
    let text = text.trim();
    let Some(inner) = text.strip_suffix('>') else { return Ok(Mailbox::new(None, address(text)?)) };
    let Some((name, inner)) = inner.rsplit_once('<') else { return Err(format!("{text:?} has a > without its <")) };
    let name = name.trim();
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
    let name = name.replace("\\\"", "\"").replace("\\\\", "\\");
    if name.len() > NAME_MAX_BYTES {
        return Err(format!("has a name of more than {NAME_MAX_BYTES} bytes"));
    }
    Ok(Mailbox::new(Some(name).filter(|name| !name.is_empty()), address(inner.trim())?))
}

/// The entries of a list: a comma in quotation marks belongs to a name.
fn entries(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found
}

/// An address in ASCII: a domain of other letters is written as DNS knows it.
fn address(text: &str) -> Result<Address, String> {
    let wrong = |reason: &str| format!("{text:?} is no e-mail address: {reason}");
    let Some((local, domain)) = text.rsplit_once('@') else { return Err(wrong("it has no @")) };
    if !local.is_ascii() {
        let reason = "letters outside ASCII before the @ need a server that speaks SMTPUTF8, which is not supported";
        return Err(wrong(reason));
    }
    let is_atom =
        |atom: &str| !atom.is_empty() && atom.bytes().all(|byte| byte.is_ascii_alphanumeric() || ATOM.contains(&byte));
    if local.len() > LOCAL_MAX_BYTES || !local.split('.').all(is_atom) {
        return Err(wrong("what stands before the @ is not letters, digits and single dots"));
    }
    let bad_domain = || wrong("what stands after the @ is no domain");
    let host = if domain.contains('%') { return Err(bad_domain()) } else { Host::parse(domain) };
    let Ok(Host::Domain(domain)) = host else { return Err(bad_domain()) };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if domain.len() > DOMAIN_MAX_BYTES || !domain.split('.').all(is_label) {
        return Err(bad_domain());
    }
    Address::new(local, &domain).map_err(|_| bad_domain())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        let list = mailboxes(text)?;
        let entry = |one: &Mailbox| format!("{}|{}", one.name.as_deref().unwrap_or(""), one.email);
        Ok(list.iter().map(entry).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, read) in [
            ("ops@example.com", "|ops@example.com"),
            (" ops+a.b@mail.example.com ,Doe <d@example.com>", "|ops+a.b@mail.example.com Doe|d@example.com"),
            (r#""Doe, \"J\" \\" <d@example.com>, <e@example.com>"#, r#"Doe, "J" \|d@example.com |e@example.com"#),
            ("a@example.com, A <a@example.com>", "|a@example.com"),
            ("Zoë <z@Bücher.example>", "Zoë|z@xn--bcher-kva.example"),
            ("root@localhost", "|root@localhost"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "no @"),
            ("ops", "no @"),
            ("a@example.com,", "no @"),
            ("@example.com", "before the @"),
            ("a b@example.com", "before the @"),
            ("a..b@example.com", "before the @"),
            ("\"a b\"@example.com", "before the @"),
            ("<a@example.com>@example.com", "before the @"),
            ("zoë@example.com", "SMTPUTF8"),
            ("a@", "after the @"),
            ("a@exa mple.com", "after the @"),
            ("a@example..com", "after the @"),
            ("a@1.2.3.4", "after the @"),
            ("a@[::1]", "after the @"),
            ("a@ex%61mple.com", "after the @"),
            ("a@example.com>", "without its <"),
            ("a@example.com\r\nBcc: b@example.com", "line break"),
            ("A\r\nBcc: <b@example.com>", "line break"),
            ("A\u{0}<b@example.com>", "control character"),
        ] {
            let told = shown(text).expect_err(text);
            assert!(told.contains(reason), "{text}: {told}");
        }
        let many = (0..=RECIPIENTS_MAX).map(|number| format!("a{number}@example.com")).collect::<Vec<_>>().join(",");
        assert!(shown(&many).expect_err("too many").contains("more than 50"));
        assert!(shown(&format!("{} <a@example.com>", "x".repeat(201))).is_err());
        assert!(shown(&format!("{}@example.com", "x".repeat(65))).is_err());
    }

    proptest! {
        #[test]
        fn what_passes_can_stand_on_a_command_line(text in r#"[ -~\r\nü@<>",\\]{0,40}(@[a-zü.%\r\n -]{0,20})?"#) {
            for mailbox in mailboxes(&text).unwrap_or_default() {
                let line: &str = mailbox.email.as_ref();
                prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\,".contains(&byte)), "{}", line);
                prop_assert_eq!(line.matches('@').count(), 1);
            }
        }
    }
}
