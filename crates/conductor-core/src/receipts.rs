//! What a provider says later of a message that it took: that it reached the person, or did not.
//!
//! A provider reports on messages, which are parts of deliveries. Of one part, `delivered` outranks `undelivered`: the
//! person has it, whatever was said before or comes after. A delivery is undelivered if one of its parts is, and
//! delivered when all are. So neither the order of reports nor their repetition makes a difference.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

use crate::delivery::{DeliveryKey, Status};
use crate::id::TenantId;
use crate::notification::word;
use crate::store::StoreError;
use crate::time::Timestamp;

/// The most reports that are handed to the store at once.
pub const REPORTS_MAX: usize = 1_000;
/// The most of a provider's code that is kept, in characters.
pub const CODE_MAX: usize = 64;
/// The most of a provider's words that is kept, in characters.
pub const DETAIL_MAX: usize = 500;
/// The most parts that a delivery can have.
const PARTS_MAX: u32 = 9_999;

/// One message of a delivery. Written as `<notification>.<ordinal>.<part>.<parts>`, it goes to the provider with the
/// message and comes back with the report, so that nobody has to look a provider's id up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartKey {
    /// The delivery.
    pub delivery: DeliveryKey,
    /// Which part of its text, from 0.
    pub part: u32,
    /// How many parts there are, at least 1.
    pub parts: u32,
}

impl fmt::Display for PartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeliveryKey { notification, ordinal } = self.delivery;
        write!(f, "{notification}.{ordinal}.{}.{}", self.part, self.parts)
    }
}

/// The text is no [`PartKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this names no part of a delivery")]
pub struct NoPartKey;

impl FromStr for PartKey {
    type Err = NoPartKey;

    fn from_str(text: &str) -> Result<Self, NoPartKey> {
        let mut words = text.split('.');
        let mut next = || words.next().ok_or(NoPartKey);
        let notification = next()?.parse().map_err(|_| NoPartKey)?;
        let ordinal = next()?.parse().map_err(|_| NoPartKey)?;
        let part: u32 = next()?.parse().map_err(|_| NoPartKey)?;
        let parts = next()?.parse().map_err(|_| NoPartKey)?;
        let fits = words.next().is_none() && part < parts && parts <= PARTS_MAX;
        if fits { Ok(Self { delivery: DeliveryKey { notification, ordinal }, part, parts }) } else { Err(NoPartKey) }
    }
}

/// Whether a message reached the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arrival {
    /// It did not.
    Undelivered,
    /// It did. Outranks the other.
    Delivered,
}

word!(Arrival { Undelivered = "undelivered", Delivered = "delivered" });

impl Arrival {
    /// The status of a delivery of which this is true.
    pub const fn status(self) -> Status {
        match self {
            Self::Undelivered => Status::Undelivered,
            Self::Delivered => Status::Delivered,
        }
    }
}

/// What a provider says of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which message.
    pub part: PartKey,
    /// Whether it arrived.
    pub arrival: Arrival,
    /// The provider's own code, where it gave one.
    pub code: Option<String>,
    /// What it means, in the provider's words or the plugin's; never a secret.
    pub detail: Option<String>,
    /// When it happened, where the provider says so.
    pub at: Option<Timestamp>,
}

/// What is kept of the reports on a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reception {
    /// Whether it arrived: of several parts, whether all did.
    pub arrival: Arrival,
    /// When the provider says that it happened, else when the report came.
    pub at: Timestamp,
    /// The provider's own code, where it gave one.
    pub code: Option<String>,
    /// What it means.
    pub detail: Option<String>,
}

/// How a provider calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptMethod {
    /// To make sure that the address is that of somebody who expects it.
    Get,
    /// With reports.
    Post,
}

/// A provider's call of the address for a channel's receipts, not authenticated yet.
#[derive(Clone)]
pub struct ReceiptRequest {
    /// The method.
    pub method: ReceiptMethod,
    /// The whole address as the provider saw it, with its query. None where the server does not know its public
    /// address.
    pub url: Option<String>,
    /// The query as it came, without the question mark.
    pub query: String,
    /// The headers, their names in lower case. Of several with one name, the first.
    pub headers: BTreeMap<String, String>,
    /// The exact bytes of the body.
    pub body: Vec<u8>,
}

/// Shows nothing that came from outside.
impl fmt::Debug for ReceiptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiptRequest({:?}, {} bytes)", self.method, self.body.len())
    }
}

impl ReceiptRequest {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a channel makes of a provider's call that is authentic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiptAnswer {
    /// What it reports.
    pub reports: Vec<Report>,
    /// What the provider wants to be answered, as plain text.
    pub reply: String,
}

/// Why a channel does not take a provider's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The channel takes none, or not with this method, or is not configured for it.
    #[error("the channel takes no receipts")]
    NotTaken,
    /// The signature, or another proof of who calls, does not fit.
    #[error("the signature does not fit")]
    WrongSignature,
    /// It is authentic but makes no sense.
    #[error("the receipt cannot be read: {0}")]
    Malformed(&'static str),
}

/// Who sent a report: the tenant and type of the channel whose secret it was signed with. It may speak of deliveries
/// through all of the tenant's channels of this type, because a provider may know one address for several of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporter {
    /// The tenant.
    pub tenant: TenantId,
    /// The channel's type.
    pub channel: String,
}

/// What a report led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The delivery has this status now.
    Changed(Status),
    /// It is kept, or was known already; the delivery's status is what it was.
    Unchanged,
    /// The reporter has no such delivery.
    Unknown,
}

/// Keeps what providers report.
#[async_trait]
pub trait Receipts: Send + Sync {
    /// Keeps a report and changes the delivery's status if it follows, in one transaction: `sent` becomes `delivered` or
    /// `undelivered`, and `undelivered` becomes `delivered`. When a delivery becomes undelivered in time, its
    /// notification's next fallback is queued with it.
    ///
    /// A report may come before its attempt is settled: then [`Store::settle`](crate::Store::settle) takes it into
    /// account. The same report again changes nothing.
    async fn report(&self, reporter: &Reporter, report: Report, now: Timestamp) -> Result<Reported, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NotificationId;

    #[test]
    fn a_part_key_reads_back_what_it_prints_and_nothing_else() {
        let delivery = DeliveryKey { notification: NotificationId::from_bytes([0x11; 16]), ordinal: 255 };
        let key = PartKey { delivery, part: 2, parts: 3 };
        assert_eq!(key.to_string(), "11111111-1111-1111-1111-111111111111.255.2.3");
        assert_eq!(key.to_string().parse(), Ok(key));
        let id = "11111111-1111-1111-1111-111111111111";
        for bad in ["", ".", id, "x.0.0.1", "a.0.0.1"] {
            assert_eq!(bad.parse::<PartKey>(), Err(NoPartKey), "{bad}");
        }
        for bad in ["", ".0", ".0.0", ".256.0.1", ".0.1.1", ".0.0.0", ".0.0.1.", ".0.0.10000", ".0.-1.1", ".0.0.1 "] {
            assert_eq!(format!("{id}{bad}").parse::<PartKey>(), Err(NoPartKey), "{bad}");
        }
    }
}
