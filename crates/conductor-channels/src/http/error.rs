//! Why a request got no answer, and what that means for the message.

use std::error::Error as StdError;
use std::time::Duration;

use conductor_core::{SendError, SendErrorKind};

use super::guard::Refusal;

/// A request that got no answer. No text in it holds a path, a query, a header or a body: only scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The egress guard refused the address. Nothing was sent, and nothing will be until the configuration changes.
    #[error("{place} was not contacted: {refusal}")]
    Refused {
        /// Scheme, host and port.
        place: String,
        /// The address, and how to allow it.
        refusal: Refusal,
    },
    /// The URL is none that a request can go to. Nothing was sent.
    #[error("{place} was not contacted: {reason}")]
    Url {
        /// Scheme, host and port.
        place: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// TLS could not be set up on this side. Nothing was sent.
    #[error("no certificate authorities could be loaded: {0}; install ca-certificates or set SSL_CERT_FILE")]
    Tls(String),
    /// No connection came about: no such name, refused, a certificate that is not trusted. Nothing was sent.
    #[error("could not connect to {place}: {reason}")]
    NotConnected {
        /// Scheme, host and port.
        place: String,
        /// The innermost cause.
        reason: String,
    },
    /// The time was up, or the connection ended, before the request was written.
    #[error("{place} took no request: {reason}")]
    NotWritten {
        /// Scheme, host and port.
        place: String,
        /// The innermost cause.
        reason: String,
    },
    /// The request was written, at least in part, and no answer came: the message may be out.
    #[error("{place} gave no answer: {reason}")]
    NoAnswer {
        /// Scheme, host and port.
        place: String,
        /// The innermost cause.
        reason: String,
    },
}

impl HttpError {
    /// What it means for a message that the request carried.
    pub const fn kind(&self) -> SendErrorKind {
        match self {
            Self::Refused { .. } | Self::Url { .. } => SendErrorKind::Permanent,
            Self::Tls(_) | Self::NotConnected { .. } | Self::NotWritten { .. } => {
                SendErrorKind::Retryable { retry_after: None }
            }
            Self::NoAnswer { .. } => SendErrorKind::Unknown,
        }
    }

    pub(super) fn late(place: String, limit: Duration, written: bool) -> Self {
        let reason = format!("the time limit of {limit:?} passed");
        if written { Self::NoAnswer { place, reason } } else { Self::NotWritten { place, reason } }
    }

    /// No connection came about, for this reason.
    pub(super) fn not_connected(error: &(dyn StdError + 'static), place: String) -> Self {
        let distrusted = matches!(find(error), Some(rustls::Error::InvalidCertificate(_)));
        let hint = if distrusted { CERTIFICATE_HINT } else { "" };
        Self::NotConnected { place, reason: format!("{}{hint}", innermost(error)) }
    }

    pub(super) fn from_client(error: reqwest::Error, place: String, written: bool) -> Self {
        let error = error.without_url();
        if let Some(refusal) = find::<Refusal>(&error) {
            return Self::Refused { place, refusal: *refusal };
        }
        if error.is_builder() {
            return Self::Url { place, reason: "the URL cannot be asked for" };
        }
        let reason = innermost(&error);
        if error.is_connect() {
            return Self::not_connected(&error, place);
        }
        if written { Self::NoAnswer { place, reason } } else { Self::NotWritten { place, reason } }
    }
}

/// What helps when a server's certificate comes from an authority of one's own.
const CERTIFICATE_HINT: &str = " (a certificate authority of your own is trusted through SSL_CERT_FILE)";

impl From<HttpError> for SendError {
    fn from(error: HttpError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// An I/O error that wraps another error hides it from `source`, so it is unwrapped by hand.
fn next<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        return Some(inner);
    }
    error.source()
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    const DEPTH_MAX: usize = 16;
    std::iter::successors(Some(error), |error| next(*error)).take(DEPTH_MAX)
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|cause| cause.downcast_ref::<E>())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
