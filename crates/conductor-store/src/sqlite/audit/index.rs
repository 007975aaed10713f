//! In which blocks each tenant has entries: kept in memory, and written from time to time.

use std::collections::HashSet;

use conductor_core::TenantId;
use rusqlite::{Connection, Row};

use super::page::is_unreadable;
use super::{BLOCK, Head};
use crate::sqlite::rows;

/// The most that is kept in memory, should writing it fail again and again: 1 MB. More is read from the log.
const TOUCHED_MAX: usize = 32_768;

/// A tenant has an entry in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Touch {
    tenant: TenantId,
    block: u64,
}

impl Touch {
    /// The tenant has this entry.
    pub(crate) fn of(tenant: TenantId, seq: u64) -> Self {
        Self { tenant, block: seq / BLOCK }
    }
}

/// What is not in the table `audit_feed` yet.
pub(crate) struct AuditIndex {
    /// Up to where it is.
    fed_through: u64,
    /// Where there is something behind that; none where that is too much.
    touched: Option<HashSet<Touch>>,
}

impl AuditIndex {
    /// Reads what the process before has left.
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT fed_through FROM audit_state WHERE id = 1";
        let fed_through: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        let mut rest = connection.prepare("SELECT tenant, seq FROM audit WHERE seq > ?1 AND tenant IS NOT NULL")?;
        let touch = |row: &Row<'_>| {
            let tenant = TenantId::from_bytes(rows::id_bytes(row, 0)?);
            Ok(Touch::of(tenant, row.get::<_, i64>(1)?.cast_unsigned()))
        };
        let mut touched = HashSet::new();
        for found in rest.query_map([fed_through], touch)? {
            match found {
                Ok(touch) => drop(touched.insert(touch)),
                // What is no id, because somebody changed it, is nobody's.
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { fed_through: fed_through.cast_unsigned(), touched: Some(touched) })
    }

    /// What a committed transaction has added.
    pub(crate) fn add(&mut self, touched: Vec<Touch>) {
        if let Some(all) = &mut self.touched {
            all.extend(touched);
        }
        self.touched.take_if(|all| all.len() > TOUCHED_MAX);
    }

    /// Writes it, if at least `least` entries wait.
    pub(crate) fn feed(&mut self, connection: &mut Connection, head: &Head, least: u64) -> rusqlite::Result<()> {
        if head.seq.saturating_sub(self.fed_through) < least {
            return Ok(());
        }
        let read;
        let all = match &self.touched {
            Some(touched) => touched,
            None => {
                read = Self::load(connection)?.touched.unwrap_or_default();
                &read
            }
        };
        let mut touched: Vec<Touch> = all.iter().copied().collect();
        touched.sort_unstable();
        let transaction = connection.transaction()?;
        {
            let sql = "INSERT OR IGNORE INTO audit_feed (tenant, block) VALUES (?1, ?2)";
            let mut insert = transaction.prepare_cached(sql)?;
            for Touch { tenant, block } in touched {
                insert.execute((tenant.bytes(), block.cast_signed()))?;
            }
            let sql = "UPDATE audit_state SET fed_through = ?1 WHERE id = 1";
            transaction.prepare_cached(sql)?.execute([head.seq.cast_signed()])?;
        }
        transaction.commit()?;
        self.fed_through = head.seq;
        self.touched.get_or_insert_default().clear();
        Ok(())
    }
}
