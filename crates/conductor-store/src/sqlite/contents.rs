//! What a store's file holds, told to a person before and after it is copied.

use conductor_core::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::rows;

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// The size of its file in bytes.
    pub bytes: u64,
    /// How many migrations it has.
    pub version: u32,
    /// When the newest notification was accepted.
    pub newest: Option<Timestamp>,
    /// Deliveries that wait for their time or their turn.
    pub waiting: u64,
    /// Of these, those whose time had run out.
    pub overdue: u64,
    /// Deliveries of which nobody knows whether they were sent: they wait for a person.
    pub held: u64,
}

impl Contents {
    /// Reads them, as they are at `now`. Goes through everything that waits.
    pub(crate) fn read(connection: &Connection, version: u32, now: Timestamp) -> rusqlite::Result<Self> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        let sql = "SELECT accepted_at FROM notification ORDER BY id DESC LIMIT 1";
        let newest = connection.query_row(sql, [], |row| rows::time(row, 0)).optional()?;
        let sql = "SELECT count(*) FILTER (WHERE NOT held), count(*) FILTER (WHERE NOT held AND expires_at <= ?1), \
                   count(*) FILTER (WHERE held) FROM pending";
        let waiting = connection.query_row(sql, [now.millis()], |row| {
            let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok([count(0)?, count(1)?, count(2)?])
        })?;
        let [waiting, overdue, held] = waiting;
        Ok(Self {
            bytes: number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?),
            version,
            newest,
            waiting,
            overdue,
            held,
        })
    }
}
