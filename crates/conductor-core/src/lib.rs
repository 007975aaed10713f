//! The nouns and the pure decisions of Conductor.
//!
//! Nothing here does I/O, reads a clock or draws a random number: whatever depends on the time or on chance gets it
//! as an argument. That keeps every decision testable as a table.

pub mod audit;
pub mod callbacks;
pub mod channel;
pub mod delivery;
pub mod histogram;
pub mod id;
pub mod notification;
pub mod problem;
pub mod rate;
pub mod receipts;
pub mod replay;
pub mod retention;
pub mod retry;
pub mod secret;
pub mod signature;
pub mod statistics;
pub mod store;
pub mod time;
pub mod trace;

pub use audit::{Actor, AuditEvent, AuditKind, AuditLog};
pub use callbacks::Callbacks;
pub use channel::{
    Channel, Health, Limits, Message, Receipt, Scope, SendError, SendErrorKind, Standing, TextLimit, Unit,
};
pub use delivery::{Attempt, DeliveryKey, FailureReason, Outcome, Status};
pub use histogram::{Distribution, Histogram};
pub use id::{CallbackId, ChannelId, DeliveryId, EndpointId, NotificationId, ReplayId, TenantId};
pub use notification::{Draft, Fallback, Format, Notification, Priority};
pub use problem::{Problem, Problems};
pub use rate::Rate;
pub use receipts::{Receipts, Report};
pub use replay::Replays;
pub use retention::{Keep, Retention};
pub use retry::{OnUnknown, RetryPolicy, Settlement};
pub use secret::{Secret, SecretValues};
pub use statistics::Statistics;
pub use store::{Store, StoreError};
pub use time::{Clock, ManualClock, Timestamp};
pub use trace::TraceContext;
