//! The statement cache of one session: which texts the server has parsed, least recently used out first.
//!
//! A plain machine: it finds, keeps and evicts; it prepares and closes nothing itself (tokio-postgres sends Close when the
//! last clone of a `Statement` is dropped). Bounded by count and by bytes of text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::Statement;

use super::clean_up::Reach;
use crate::sql::Commits;

/// A statement the server has parsed.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) statement: Statement,
    /// Its text, where the server does not keep the statement: it is sent along each time.
    pub(crate) text: Option<Arc<str>>,
    /// What its text can leave behind in a session.
    pub(crate) reach: Reach,
    /// Whether its text can commit by itself.
    pub(crate) commits: Commits,
}

/// Texts by hash, so that a look-up compares one text.
#[derive(Debug)]
pub(crate) struct StatementCache {
    by_hash: BTreeMap<u64, Vec<Entry>>,
    limits: CacheLimits,
    entries: usize,
    bytes: usize,
    clock: u64,
}

/// Bounds of a statement cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheLimits {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct Entry {
    sql: Arc<str>,
    prepared: Prepared,
    used: u64,
}

impl StatementCache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            by_hash: BTreeMap::new(),
            limits,
            entries: 0,
            bytes: 0,
            clock: 0,
        }
    }

    pub(crate) fn get(&mut self, sql: &str) -> Option<Prepared> {
        self.clock += 1;
        let entry = self
            .by_hash
            .get_mut(&hash(sql))?
            .iter_mut()
            .find(|entry| &*entry.sql == sql)?;
        entry.used = self.clock;
        Some(entry.prepared.clone())
    }

    /// Keeps a statement, evicting the least recently used ones beyond the limits. A text larger than the whole cache
    /// is not kept.
    pub(crate) fn insert(&mut self, sql: &str, prepared: Prepared) {
        self.remove(sql);
        if self.limits.entries == 0 || sql.len() > self.limits.bytes {
            return;
        }
        while self.entries >= self.limits.entries || self.bytes + sql.len() > self.limits.bytes {
            let Some(oldest) = self.oldest() else { break };
            self.remove(&oldest);
        }
        self.clock += 1;
        self.entries += 1;
        self.bytes += sql.len();
        let entry = Entry {
            sql: Arc::from(sql),
            prepared,
            used: self.clock,
        };
        self.by_hash.entry(hash(sql)).or_default().push(entry);
    }

    pub(crate) fn remove(&mut self, sql: &str) {
        let key = hash(sql);
        let Some(bucket) = self.by_hash.get_mut(&key) else {
            return;
        };
        if let Some(at) = bucket.iter().position(|entry| &*entry.sql == sql) {
            bucket.swap_remove(at);
            self.entries -= 1;
            self.bytes -= sql.len();
        }
        if bucket.is_empty() {
            self.by_hash.remove(&key);
        }
    }

    fn oldest(&self) -> Option<Arc<str>> {
        self.by_hash
            .values()
            .flatten()
            .min_by_key(|entry| entry.used)
            .map(|entry| Arc::clone(&entry.sql))
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

/// FNV-1a over eight bytes at a time: the same in every process, and no text is a secret that an attacker could gain from.
fn hash(sql: &str) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let (words, rest) = sql.as_bytes().as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME).rotate_left(23);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}
