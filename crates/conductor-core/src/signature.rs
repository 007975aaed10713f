//! Standard Webhooks: how Conductor signs what it posts, and how a receiver checks it.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::secret::Secret;

/// What a secret begins with that both sides know: signatures are HMAC-SHA256.
pub const SECRET_PREFIX: &str = "whsec_";
/// What a private key begins with whose public part the receiver has: signatures are ed25519.
pub const PRIVATE_PREFIX: &str = "whsk_";
/// What such a public part begins with.
pub const PUBLIC_PREFIX: &str = "whpk_";
/// The fewest and the most bytes that a secret may decode to, as the specification asks.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The bytes of a private key: the seed, or the seed and the public key after it.
const PRIVATE_BYTES: [usize; 2] = [32, 64];
/// How far a receiver lets the timestamp be from its own clock, in seconds.
pub const TOLERANCE_SECONDS: i64 = 5 * 60;

/// A key that signs: by HMAC-SHA256 (`v1`) or by ed25519 (`v1a`). `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SigningKey(Kind);

#[derive(Clone)]
enum Kind {
    Shared(hmac::Key),
    Pair(Arc<Ed25519KeyPair>),
}

/// Why a text is no signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The prefix is missing.
    #[error("does not begin with `whsec_` or `whsk_`")]
    Prefix,
    /// What follows is no base64.
    #[error("is not base64 after `{0}`")]
    Encoding(&'static str),
    /// It is too short or too long.
    #[error("decodes to {0} bytes; 24 to 64 are expected")]
    Length(usize),
    /// A private key is too short or too long.
    #[error("decodes to {0} bytes; an ed25519 key has 32, or 64 with its public part")]
    PrivateLength(usize),
    /// The two parts of a private key do not belong together.
    #[error("is no ed25519 key: its public part is that of another one")]
    Pair,
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
    /// Reads a secret as it is written: `whsec_` and base64 of 24 to 64 bytes, or `whsk_` and base64 of an ed25519 key:
    /// its seed of 32 bytes, or the seed and the public key, 64 bytes together.
    pub fn parse(secret: &Secret) -> Result<Self, KeyError> {
        let text = secret.expose();
        let (prefix, encoded) = [SECRET_PREFIX, PRIVATE_PREFIX]
            .into_iter()
            .find_map(|prefix| Some((prefix, text.strip_prefix(prefix)?)))
            .ok_or(KeyError::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| KeyError::Encoding(prefix))?;
        let bytes = zeroize::Zeroizing::new(bytes);
        if prefix == SECRET_PREFIX {
            if !SECRET_BYTES.contains(&bytes.len()) {
                return Err(KeyError::Length(bytes.len()));
            }
            return Ok(Self(Kind::Shared(hmac::Key::new(hmac::HMAC_SHA256, &bytes))));
        }
        if !PRIVATE_BYTES.contains(&bytes.len()) {
            return Err(KeyError::PrivateLength(bytes.len()));
        }
        let (seed, public) = bytes.split_at(PRIVATE_BYTES[0]);
        let pair = match public {
            [] => Ed25519KeyPair::from_seed_unchecked(seed),
            public => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        };
        Ok(Self(Kind::Pair(Arc::new(pair.map_err(|_| KeyError::Pair)?))))
    }

    /// One entry of `webhook-signature` for these exact bytes; `timestamp` in seconds since the Unix epoch.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let content = content(id, timestamp, body);
        match &self.0 {
            Kind::Shared(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, &content))),
            Kind::Pair(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(&content))),
        }
    }

    /// What a receiver needs to check the signatures of a private key: `whpk_` and base64. None of a secret, which the
    /// receiver has itself.
    pub fn public_key(&self) -> Option<String> {
        match &self.0 {
            Kind::Shared(_) => None,
            Kind::Pair(pair) => Some(format!("{PUBLIC_PREFIX}{}", STANDARD.encode(pair.public_key().as_ref()))),
        }
    }

    /// Checks a `webhook-signature`, which may list several signatures while a key is changed.
    pub fn verify(&self, id: &str, timestamp: &str, body: &[u8], header: &str, now: i64) -> Result<(), VerifyError> {
        let timestamp: i64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
        if now.saturating_sub(timestamp).saturating_abs() > TOLERANCE_SECONDS {
            return Err(VerifyError::Timestamp);
        }
        let signed = content(id, timestamp, body);
        let fits = |entry: &str| {
            let tag = |version| entry.strip_prefix(version).and_then(|encoded| STANDARD.decode(encoded).ok());
            match &self.0 {
                Kind::Shared(key) => tag("v1,").is_some_and(|tag| hmac::verify(key, &signed, &tag).is_ok()),
                Kind::Pair(pair) => {
                    let public = UnparsedPublicKey::new(&ED25519, pair.public_key());
                    tag("v1a,").is_some_and(|tag| public.verify(&signed, &tag).is_ok())
                }
            }
        };
        if header.split(' ').any(fits) { Ok(()) } else { Err(VerifyError::Mismatch) }
    }
}

/// The value of `webhook-signature` where several keys sign, as they do while one takes the place of another: a receiver
/// that has either finds its own.
pub fn sign_with_all(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let entries: Vec<String> = keys.iter().map(|key| key.sign(id, timestamp, body)).collect();
    entries.join(" ")
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
        assert_eq!(SigningKey::parse(&Secret::new("whsec_?")).err(), Some(KeyError::Encoding("whsec_")));
    }

    /// RFC 8032, section 7.1, the first test: the seed and its public key.
    const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn private(bytes: &[u8]) -> Secret {
        Secret::new(format!("{PRIVATE_PREFIX}{}", STANDARD.encode(bytes)))
    }

    #[test]
    fn a_private_key_is_a_seed_with_or_without_its_public_part() {
        let decode = |text: &str| STANDARD.decode(text).expect("base64");
        let (seed, public) = (decode(SEED), decode(PUBLIC));
        let both = [seed.clone(), public.clone()].concat();
        for secret in [private(&seed), private(&both)] {
            let key = SigningKey::parse(&secret).expect("a good key");
            assert_eq!(key.public_key(), Some(format!("whpk_{PUBLIC}")));
            let header = key.sign("msg_1", 1_000, b"body");
            assert!(header.starts_with("v1a,"), "{header}");
            assert_eq!(key.verify("msg_1", "1000", b"body", &header, 1_000), Ok(()));
            assert_eq!(key.verify("msg_1", "1000", b"bodi", &header, 1_000), Err(VerifyError::Mismatch));
            let signature = decode(header.strip_prefix("v1a,").expect("its prefix"));
            let theirs = UnparsedPublicKey::new(&ED25519, &public);
            assert!(theirs.verify(b"msg_1.1000.body", &signature).is_ok());
        }
        assert_eq!(SigningKey::parse(&private(&seed[1..])).err(), Some(KeyError::PrivateLength(31)));
        assert_eq!(SigningKey::parse(&private(&[seed.clone(), seed].concat())).err(), Some(KeyError::Pair));
        assert_eq!(SigningKey::parse(&Secret::new("whsk_?")).err(), Some(KeyError::Encoding("whsk_")));
        assert_eq!(SigningKey::parse(&secret(32)).expect("a good secret").public_key(), None);
    }

    #[test]
    fn while_a_key_is_changed_the_old_and_the_new_one_both_fit() {
        let keys = [secret(32), secret(40), private(&[9; 32])];
        let keys = keys.map(|secret| SigningKey::parse(&secret).expect("a good secret"));
        let header = sign_with_all(&keys[..2], "msg_1", 1_000, b"body");
        assert_eq!(header.split(' ').count(), 2);
        assert!(keys[..2].iter().all(|key| key.verify("msg_1", "1000", b"body", &header, 1_000).is_ok()));
        assert_eq!(keys[2].verify("msg_1", "1000", b"body", &header, 1_000), Err(VerifyError::Mismatch));
        let header = sign_with_all(&keys, "msg_1", 1_000, b"body");
        assert!(keys.iter().all(|key| key.verify("msg_1", "1000", b"body", &header, 1_000).is_ok()));
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
