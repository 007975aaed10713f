//! Standard Webhooks: how Conductor signs what it posts, and how a receiver checks it.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::secret::Secret;

/// What a signing secret begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// The fewest and the most bytes that a signing secret may decode to, as the specification asks.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How far a receiver lets the timestamp be from its own clock, in seconds.
pub const TOLERANCE_SECONDS: i64 = 5 * 60;

/// A key that signs by HMAC-SHA256. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

/// Why a text is no signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The prefix is missing.
    #[error("does not begin with `whsec_`")]
    Prefix,
    /// What follows is no base64.
    #[error("is not base64 after `whsec_`")]
    Encoding,
    /// It is too short or too long.
    #[error("decodes to {0} bytes; 24 to 64 are expected")]
    Length(usize),
}

/// Why a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The timestamp is no number, or too far from now.
    #[error("the timestamp is more than five minutes from now")]
    Timestamp,
    /// No signature of the list fits.
    #[error("no signature matches")]
    Mismatch,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

impl SigningKey {
    /// Reads a secret as it is written: `whsec_` and base64 of 24 to 64 bytes.
    pub fn parse(secret: &Secret) -> Result<Self, KeyError> {
        let encoded = secret.expose().strip_prefix(SECRET_PREFIX).ok_or(KeyError::Prefix)?;
        let bytes = zeroize::Zeroizing::new(STANDARD.decode(encoded).map_err(|_| KeyError::Encoding)?);
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(KeyError::Length(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature` for these exact bytes; `timestamp` in seconds since the Unix epoch.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let tag = self.tag(id, timestamp, body);
        format!("v1,{}", STANDARD.encode(tag))
    }

    /// Checks a `webhook-signature`, which may list several signatures while a key is changed.
    pub fn verify(&self, id: &str, timestamp: &str, body: &[u8], header: &str, now: i64) -> Result<(), VerifyError> {
        let timestamp: i64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
        if now.saturating_sub(timestamp).saturating_abs() > TOLERANCE_SECONDS {
            return Err(VerifyError::Timestamp);
        }
        let signed = content(id, timestamp, body);
        let fits = |entry: &str| {
            let tag = entry.strip_prefix("v1,").and_then(|encoded| STANDARD.decode(encoded).ok());
            tag.is_some_and(|tag| hmac::verify(&self.0, &signed, &tag).is_ok())
        };
        if header.split(' ').any(fits) { Ok(()) } else { Err(VerifyError::Mismatch) }
    }

    fn tag(&self, id: &str, timestamp: i64, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        context.sign()
    }
}

fn content(id: &str, timestamp: i64, body: &[u8]) -> Vec<u8> {
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: usize) -> Secret {
        Secret::new(format!("{SECRET_PREFIX}{}", STANDARD.encode(vec![7; bytes])))
    }

    #[test]
    fn a_secret_has_the_prefix_and_24_to_64_bytes() {
        assert!(SigningKey::parse(&secret(24)).is_ok());
        assert!(SigningKey::parse(&secret(64)).is_ok());
        assert_eq!(SigningKey::parse(&secret(23)).err(), Some(KeyError::Length(23)));
        assert_eq!(SigningKey::parse(&secret(65)).err(), Some(KeyError::Length(65)));
        assert_eq!(SigningKey::parse(&Secret::new("c2VjcmV0")).err(), Some(KeyError::Prefix));
        assert_eq!(SigningKey::parse(&Secret::new("whsec_?")).err(), Some(KeyError::Encoding));
    }

    #[test]
    fn the_published_library_accepts_our_signature_and_we_accept_its() {
        let secret = secret(32);
        let ours = SigningKey::parse(&secret).expect("a good secret");
        let theirs = standardwebhooks::Webhook::new(secret.expose()).expect("a good secret");
        let body = br#"{"message":"hello"}"#;
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs().try_into().expect("fits");
        let signature = ours.sign("msg_1", now, body);
        assert_eq!(theirs.sign("msg_1", now, body).expect("signs"), signature);
        assert_eq!(ours.verify("msg_1", &now.to_string(), body, &signature, now), Ok(()));
    }

    #[test]
    fn a_changed_byte_an_old_timestamp_or_another_key_is_refused() {
        let key = SigningKey::parse(&secret(32)).expect("a good secret");
        let header = key.sign("msg_1", 1_000, b"body");
        let verify = |id, at, body: &[u8], header: &str, now| key.verify(id, at, body, header, now);
        assert_eq!(verify("msg_1", "1000", b"body", &header, 1_300), Ok(()));
        assert_eq!(verify("msg_1", "1000", b"body", &format!("v1,AAAA v2,x {header}"), 1_000), Ok(()));
        assert_eq!(verify("msg_1", "1000", b"body", &header, 1_301), Err(VerifyError::Timestamp));
        assert_eq!(verify("msg_1", "1000", b"bodi", &header, 1_000), Err(VerifyError::Mismatch));
        assert_eq!(verify("msg_2", "1000", b"body", &header, 1_000), Err(VerifyError::Mismatch));
        assert_eq!(verify("msg_1", "soon", b"body", &header, 1_000), Err(VerifyError::Timestamp));
        let other = SigningKey::parse(&secret(40)).expect("a good secret");
        assert_eq!(other.verify("msg_1", "1000", b"body", &header, 1_000), Err(VerifyError::Mismatch));
    }
}
