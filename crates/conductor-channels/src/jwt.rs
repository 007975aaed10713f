//! Signed tokens (JWT) by which a channel proves who it is: ES256 for Apple, RS256 for Google.
//!
//! <https://www.rfc-editor.org/rfc/rfc7519>, <https://www.rfc-editor.org/rfc/rfc7518#section-3>

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Why a key cannot be used. No text shows anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// Not PEM, or another kind of PEM.
    #[error("is no private key; expected the file's whole text, from {BEGIN} to {END}")]
    NotPem,
    /// Another kind of key.
    #[error("is no private key on the curve P-256")]
    NotP256,
    /// Another kind of key, or too short a one.
    #[error("is no private RSA key of 2048 to 4096 bits")]
    NotRsa,
}

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no token could be signed: the system gives no random numbers")]
pub(crate) struct SignError;

/// A private key with its algorithm.
pub(crate) enum Signer {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<RsaKeyPair>),
}

impl Signer {
    /// A key for ES256, as PKCS #8.
    pub(crate) fn es256(key: &str) -> Result<Self, KeyError> {
        let der = der(key).ok_or(KeyError::NotPem)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new());
        Ok(Self::Es256(Box::new(pair.map_err(|_| KeyError::NotP256)?)))
    }

    /// A key for RS256, as PKCS #8.
    pub(crate) fn rs256(key: &str) -> Result<Self, KeyError> {
        let der = der(key).ok_or(KeyError::NotPem)?;
        Ok(Self::Rs256(Box::new(RsaKeyPair::from_pkcs8(&der).map_err(|_| KeyError::NotRsa)?)))
    }

    /// A token with these claims. `key_id` tells the reader which key has signed.
    pub(crate) fn sign(&self, key_id: &str, claims: &Value) -> Result<String, SignError> {
        let header = json!({ "alg": self.algorithm(), "typ": "JWT", "kid": key_id });
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Es256(pair) => pair.sign(&random, signed.as_bytes()).map_err(|_| SignError)?.as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let done = pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature);
                done.map_err(|_| SignError)?;
                signature
            }
        };
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Rs256(_) => "RS256",
        }
    }
}

/// The bytes of a PEM text. Its lines may be parted by line ends, by `\n` in letters, or by spaces, as they come out of
/// environment variables; and base64 alone will do.
fn der(key: &str) -> Option<Vec<u8>> {
    let key = key.replace("\\n", "\n");
    let body = match key.split_once(BEGIN) {
        Some((_, rest)) => rest.split_once(END)?.0,
        None => &key,
    };
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;
    use crate::contract::left_out;

    /// A key as Apple gives them out: with the curve's name inside, in lines.
    const P256: &str = include_str!("apns/test_key.p8");
    const RSA: &str = include_str!("fcm/example.json");

    fn rsa() -> String {
        let account: Value = serde_json::from_str(RSA).unwrap();
        account["private_key"].as_str().unwrap().to_owned()
    }

    /// The header and the claims of a token.
    pub(crate) fn parts(token: &str) -> (Value, Value) {
        let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64"));
        let mut next = || serde_json::from_slice(&parts.next().expect("a part")).expect("JSON");
        (next(), next())
    }

    /// Whether another implementation, that of node, finds the token well signed. None where there is no node: that is
    /// told loudly, and under `CI=true` it fails.
    pub(crate) fn is_valid_elsewhere(token: &str, private_key: &str) -> Option<bool> {
        const CHECK: &str = r#"
            const crypto = require("crypto");
            const { token, key } = JSON.parse(require("fs").readFileSync(0, "utf8"));
            const [header, claims, signature] = token.split(".");
            const { alg } = JSON.parse(Buffer.from(header, "base64url"));
            const kind = { ES256: "ec", RS256: "rsa" }[alg];
            const publicKey = crypto.createPublicKey(crypto.createPrivateKey(key));
            const good = publicKey.asymmetricKeyType === kind && crypto.verify("sha256", Buffer.from(header + "." + claims),
                { key: publicKey, dsaEncoding: "ieee-p1363" }, Buffer.from(signature, "base64url"));
            console.log(good ? "good" : "bad");"#;
        let child = Command::new("node").args(["-e", CHECK]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                left_out(&format!("node: {error}"));
                return None;
            }
        };
        let input = json!({ "token": token, "key": private_key }).to_string();
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("node reads");
        let output = child.wait_with_output().expect("node ends");
        match String::from_utf8_lossy(&output.stdout).trim() {
            "good" => Some(true),
            "bad" => Some(false),
            other => panic!("node said {other:?}"),
        }
    }

    fn is_signed(token: &str, algorithm: &'static dyn VerificationAlgorithm, public: &[u8]) -> bool {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(algorithm, public).verify(signed.as_bytes(), &signature).is_ok()
    }

    /// The token with other claims.
    fn forged(token: &str) -> String {
        let (header, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"iss":"another"}"#))
    }

    #[test]
    fn a_token_says_who_signed_it_and_what() {
        let claims = json!({ "iss": "TEAM", "iat": 784_111_777 });
        let signers = [(Signer::es256(P256).unwrap(), "ES256"), (Signer::rs256(&rsa()).unwrap(), "RS256")];
        for (signer, algorithm) in signers {
            let token = signer.sign("KEY", &claims).unwrap();
            let header = json!({ "alg": algorithm, "typ": "JWT", "kid": "KEY" });
            assert_eq!(parts(&token), (header, claims.clone()));
            let holds = |token: &str| match &signer {
                Signer::Es256(pair) => is_signed(token, &ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()),
                Signer::Rs256(pair) => is_signed(token, &RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref()),
            };
            assert!(holds(&token) && !holds(&forged(&token)));
        }
    }

    #[test]
    fn another_library_accepts_the_tokens() {
        let signers = [(Signer::es256(P256).unwrap(), P256.to_owned()), (Signer::rs256(&rsa()).unwrap(), rsa())];
        for (signer, key) in signers {
            let token = signer.sign("KEY", &json!({ "iss": "me" })).unwrap();
            let Some(good) = is_valid_elsewhere(&token, &key) else { return };
            assert!(good, "{token}");
            assert_eq!(is_valid_elsewhere(&forged(&token), &key), Some(false));
        }
    }

    #[test]
    fn a_key_is_read_however_its_lines_are_parted() {
        let bare: String = P256.lines().filter(|line| !line.contains("---")).collect();
        let others = [P256.replace('\n', "\\n"), P256.replace('\n', " "), P256.replace('\n', "\r\n"), bare];
        for key in others {
            assert!(Signer::es256(&key).is_ok(), "{key}");
        }
    }

    #[test]
    fn what_is_no_key_of_the_kind_is_refused() {
        assert_eq!(Signer::es256(&rsa()).err(), Some(KeyError::NotP256));
        assert_eq!(Signer::rs256(P256).err(), Some(KeyError::NotRsa));
        let others = ["", " ", "key", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", BEGIN];
        for key in others {
            assert_eq!(Signer::es256(key).err(), Some(KeyError::NotPem), "{key}");
            assert_eq!(Signer::rs256(key).err(), Some(KeyError::NotPem), "{key}");
        }
    }
}
