//! How much more a tenant may have waiting. Requests that are being accepted at one moment count too, so that they do not
//! share the last place.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use conductor_core::store::Load;
use conductor_core::{Store, TenantId};

use crate::registry::Tenant;

/// What is on the way into the store, and for a moment after it has arrived there, so that a limit is never passed; in a
/// crowd one may be refused a moment too early. Of each tenant that has a limit and anything on the way.
#[derive(Debug, Default)]
pub struct Rooms(Mutex<HashMap<TenantId, Load>>);

/// One notification's place. It is free again when this is dropped: the store counts what it has by then.
#[derive(Debug)]
pub struct Place<'a> {
    rooms: &'a Rooms,
    tenant: TenantId,
    bytes: u64,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many notifications wait as may.
    Notifications,
    /// As many bytes wait as may. So many are left.
    Bytes(u64),
    /// The notification alone is larger than all that may wait.
    TooLarge,
}

impl Rooms {
    /// Takes a place for a notification of so many bytes. None where the tenant may have waiting what it likes.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, tenant: &Tenant, store: &dyn Store, bytes: u64) -> Result<Option<Place<'_>>, Full> {
        if tenant.queued.is_none() && tenant.bytes.is_none() {
            return Ok(None);
        }
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = rooms.get(&tenant.id).copied().unwrap_or_default();
        let waiting = store.load(tenant.id);
        if tenant.queued.is_some_and(|max| waiting.notifications + coming.notifications >= max) {
            return Err(Full::Notifications);
        }
        if let Some(max) = tenant.bytes {
            let left = max.saturating_sub(waiting.bytes + coming.bytes);
            match bytes {
                bytes if bytes > max => return Err(Full::TooLarge),
                bytes if bytes > left => return Err(Full::Bytes(left)),
                _ => {}
            }
        }
        let load = rooms.entry(tenant.id).or_default();
        *load = Load { notifications: load.notifications + 1, bytes: load.bytes + bytes };
        Ok(Some(Place { rooms: self, tenant: tenant.id, bytes }))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut rooms = self.rooms.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = rooms.get_mut(&self.tenant) {
            load.notifications = load.notifications.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(self.bytes);
            if load.notifications == 0 {
                rooms.remove(&self.tenant);
            }
        }
    }
}
