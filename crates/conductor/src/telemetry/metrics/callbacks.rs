//! What is counted of callbacks.

use conductor_core::TenantId;
use conductor_core::callbacks::{CallbackNext, Event};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::TenantLabel;

/// Counters of callbacks.
#[derive(Default)]
pub struct CallbackMetrics {
    attempts: Family<Series, Counter>,
    dropped: Family<Tenant, Counter>,
    waiting: Family<Tenant, Gauge>,
    disabled: Family<Tenant, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Series {
    tenant: TenantLabel,
    event: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tenant {
    tenant: TenantLabel,
}

impl CallbackMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("callbacks", "Attempts to send callbacks, by what followed", self.attempts.clone());
        registry.register("callbacks_dropped", "Callbacks thrown away unsent", self.dropped.clone());
        registry.register("callbacks_waiting", "Callbacks that wait", self.waiting.clone());
        registry.register("callback_endpoints_disabled", "Endpoints that answered 410", self.disabled.clone());
    }

    /// An attempt was made, and this follows.
    pub fn attempted(&self, tenant: TenantId, event: Event, next: CallbackNext) {
        let outcome = match next {
            CallbackNext::Done => "delivered",
            CallbackNext::Again(_) => "retried",
            CallbackNext::GiveUp => "givenUp",
            CallbackNext::Disable => "disabled",
        };
        let series = Series { tenant: TenantLabel(tenant), event: event.as_str(), outcome };
        self.attempts.get_or_create(&series).inc();
    }

    /// So many were thrown away unsent.
    pub fn dropped(&self, tenant: TenantId, count: u64) {
        self.dropped.get_or_create(&Tenant { tenant: TenantLabel(tenant) }).inc_by(count);
    }

    /// So many wait, and so many endpoints are disabled.
    pub fn waiting(&self, tenant: TenantId, waiting: u64, disabled: u64) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let tenant = Tenant { tenant: TenantLabel(tenant) };
        self.waiting.get_or_create(&tenant).set(number(waiting));
        self.disabled.get_or_create(&tenant).set(number(disabled));
    }
}
