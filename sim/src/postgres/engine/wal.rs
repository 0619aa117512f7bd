//! The write-ahead log: logical records at positions, and the positions of a node.
//!
//! Written at commits, read by standbys. A plain machine. There are no pages: a record is what a transaction changed, and its
//! length is near what PostgreSQL would write.

use std::fmt;
use std::sync::Arc;

use super::catalog::{Sequence, TableDefinition};
use super::types::datum::Datum;

/// A position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::types::text::lsn_text(self.0))
    }
}

/// One record.
#[derive(Clone, Debug)]
pub(crate) struct WalRecord {
    pub(crate) start: Lsn,
    /// Where the next one begins.
    pub(crate) end: Lsn,
    pub(crate) timeline: u32,
    /// When it was written, in microseconds since 2000.
    pub(crate) wall: i64,
    pub(crate) kind: WalKind,
}

/// What a record says.
#[derive(Clone, Debug)]
pub(crate) enum WalKind {
    Checkpoint,
    /// A transaction and all that it changed.
    Commit {
        xid: u64,
        changes: Vec<Change>,
    },
    /// A standby became a primary.
    EndOfRecovery,
    /// A sequence went on; not a part of any transaction.
    Sequence {
        oid: u32,
        last: i64,
        is_called: bool,
    },
}

/// One change of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    CreateSchema {
        database: String,
        name: String,
    },
    /// A sequence as it is after the change.
    DefineSequence(Arc<Sequence>),
    /// A table as it is after the change; with its rows when these were rewritten.
    DefineTable(Arc<TableDefinition>, Option<Vec<(u64, Arc<[Datum]>)>>),
    Delete {
        table: u32,
        row: u64,
    },
    DropRelation(u32),
    DropSchema {
        database: String,
        name: String,
    },
    Insert {
        table: u32,
        row: u64,
        data: Arc<[Datum]>,
    },
    /// The table was locked against everybody.
    Lock(u32),
    Truncate(u32),
    Update {
        table: u32,
        row: u64,
        data: Arc<[Datum]>,
    },
}

impl Change {
    /// The table that nobody may use while this is replayed.
    pub(crate) fn exclusive(&self) -> Option<u32> {
        match self {
            Self::DefineTable(table, _) => Some(table.oid),
            Self::DropRelation(oid) | Self::Lock(oid) | Self::Truncate(oid) => Some(*oid),
            _ => None,
        }
    }

    fn weight(&self) -> u64 {
        let data = |data: &[Datum]| data.iter().map(Datum::weight).sum::<usize>() as u64;
        match self {
            Self::Insert { data: row, .. } => 59 + data(row),
            Self::Update { data: row, .. } => 72 + data(row),
            Self::Delete { .. } => 54,
            Self::DefineTable(_, rows) => {
                let rows = rows.iter().flatten();
                2_000 + rows.map(|(_, row)| 59 + data(row)).sum::<u64>()
            }
            Self::DefineSequence(_) | Self::DropRelation(_) | Self::CreateSchema { .. } | Self::DropSchema { .. } => {
                1_000
            }
            Self::Lock(_) => 42,
            Self::Truncate(_) => 300,
        }
    }
}

/// The log of a node, as far as it has not been taken.
#[derive(Clone, Debug)]
pub(crate) struct Wal {
    end: Lsn,
    fresh: Vec<Arc<WalRecord>>,
}

impl Wal {
    pub(crate) fn new() -> Self {
        Self {
            end: Lsn(0x0300_0000),
            fresh: Vec::new(),
        }
    }

    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    /// Appends a record; where it ends.
    pub(crate) fn write(&mut self, timeline: u32, wall: i64, kind: WalKind) -> Lsn {
        let weight = match &kind {
            WalKind::Checkpoint => 120,
            WalKind::Commit { changes, .. } => 34 + changes.iter().map(Change::weight).sum::<u64>(),
            WalKind::EndOfRecovery => 42,
            WalKind::Sequence { .. } => 99,
        };
        let start = self.end;
        self.end = Lsn(start.0 + weight.next_multiple_of(8));
        self.fresh.push(Arc::new(WalRecord {
            start,
            end: self.end,
            timeline,
            wall,
            kind,
        }));
        self.end
    }

    /// A standby's log goes on where its primary's did.
    pub(crate) fn follow(&mut self, end: Lsn) {
        self.end = end;
    }

    pub(crate) fn take(&mut self) -> Vec<Arc<WalRecord>> {
        std::mem::take(&mut self.fresh)
    }

    pub(crate) fn forget(&mut self) {
        self.fresh.clear();
    }
}
