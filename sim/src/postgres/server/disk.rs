//! What of a node survives a crash: an image of the engine, and the WAL since then.
//!
//! A plain machine. Everything a node has done is in its WAL, so any earlier state can be had by replaying a part of it.

use std::sync::Arc;

use gdbpool::Instant;

use crate::postgres::engine::{Engine, Lsn, WalKind, WalRecord};

/// The durable part of a node.
pub(crate) struct Disk {
    image: Engine,
    /// All WAL since the image, oldest first.
    log: Vec<Arc<WalRecord>>,
    /// Where the image's WAL ends.
    base: Lsn,
    /// Up to here the WAL is durable.
    flushed: Lsn,
    /// What there is up to here is never lost: it was there before the run began.
    floor: Lsn,
    /// When what is not durable will be: commits with `synchronous_commit = off`.
    lazy: Option<Instant>,
}

impl Disk {
    pub(crate) fn new(image: &Engine) -> Self {
        Self {
            image: image.base_copy(),
            log: Vec::new(),
            base: image.wal_position(),
            flushed: image.wal_position(),
            floor: image.wal_position(),
            lazy: None,
        }
    }

    pub(crate) fn flushed(&self) -> Lsn {
        self.flushed
    }

    pub(crate) fn lazy(&self) -> Option<Instant> {
        self.lazy
    }

    /// Where the WAL ends, durable or not.
    pub(crate) fn end(&self) -> Lsn {
        self.log.last().map_or(self.base, |record| record.end)
    }

    pub(crate) fn append(&mut self, record: Arc<WalRecord>) {
        self.log.push(record);
    }

    pub(crate) fn flush(&mut self) {
        self.flushed = self.flushed.max(self.end());
        self.lazy = None;
    }

    /// What is there is never lost.
    pub(crate) fn keep(&mut self) {
        self.flush();
        self.floor = self.end();
    }

    /// What is there becomes durable at `at`, if not earlier.
    pub(crate) fn flush_by(&mut self, at: Instant) {
        if self.flushed < self.end() {
            self.lazy = Some(self.lazy.map_or(at, |lazy| lazy.min(at)));
        }
    }

    /// The durable records behind `position`, oldest first.
    pub(crate) fn after(&self, position: Lsn) -> &[Arc<WalRecord>] {
        let from = self.log.partition_point(|record| record.end <= position);
        let to = self.log.partition_point(|record| record.end <= self.flushed);
        self.log.get(from..to).unwrap_or_default()
    }

    /// What is behind `position` never happened.
    pub(crate) fn truncate(&mut self, position: Lsn) {
        let keep = self.log.partition_point(|record| record.end <= position);
        self.log.truncate(keep);
        self.flushed = self.flushed.min(self.end());
        self.lazy = None;
    }

    /// Where this disk and another one part: the end of the last record they share.
    pub(crate) fn fork(&self, other: &Self) -> Lsn {
        let shared = self.log.iter().zip(&other.log).take_while(|(a, b)| Arc::ptr_eq(a, b));
        shared.last().map_or(self.base, |(record, _)| record.end)
    }

    /// Where the WAL would end without its last `count` commits, as far as they can be lost.
    pub(crate) fn before_last_commits(&self, count: usize) -> Lsn {
        if count == 0 {
            return self.end();
        }
        let commits = self
            .log
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, record)| is_commit(record));
        let place = commits.take(count).last().map_or(self.log.len(), |(place, _)| place);
        let position = match place.checked_sub(1) {
            None => self.base,
            Some(before) => self.log[before].end,
        };
        position.max(self.floor)
    }

    /// The engine as recovery makes it: the image, and all durable WAL replayed.
    pub(crate) fn recover(&mut self) -> Engine {
        self.truncate(self.flushed);
        let mut engine = self.image.base_copy();
        for record in &self.log {
            // There are no sessions that could stand in its way.
            let _ = engine.apply(record);
        }
        engine
    }
}

fn is_commit(record: &WalRecord) -> bool {
    matches!(record.kind, WalKind::Commit { .. })
}
