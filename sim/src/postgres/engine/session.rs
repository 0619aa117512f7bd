//! A session's own state: identity, settings, transaction, prepared statements, cursors, what it listens to.
//!
//! One per connection to the node. A plain machine: data, and the small rules over it; what needs other sessions is in
//! `transaction` and `run`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::ast::{Isolation, OnCommit};
use super::catalog::TableDefinition;
use super::door::{ColumnDescription, Completion, Facts, Notification, Row, Wait};
use super::heap::{Heap, View};
use super::plan::Plan;
use super::settings::Values;
use super::types::datum::Datum;
use super::wal::{Change, Lsn};
use crate::wire::Report;

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Between BEGIN and its end.
    Block,
    /// Made for one statement.
    Implicit,
    /// Made for several statements of one message.
    ImplicitBlock,
}

/// How to take back a change.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    Created(u32),
    CreatedSchema(String, String),
    Defined(Arc<TableDefinition>),
    Deleted {
        table: u32,
        row: u64,
    },
    Dropped(u32),
    DroppedSchema(String, String, (u64, u64)),
    Inserted {
        table: u32,
        row: u64,
    },
    Replaced {
        table: u32,
        heap: Box<Heap>,
    },
    /// A setting of a sequence that goes with its transaction, as RESTART does.
    Restarted {
        sequence: u32,
        last: i64,
        is_called: bool,
    },
    Updated {
        table: u32,
        row: u64,
    },
}

/// How much a transaction had done at some point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) undo: usize,
    pub(crate) changes: usize,
    pub(crate) notifies: usize,
    pub(crate) channels: usize,
    pub(crate) deferred: usize,
    pub(crate) locks: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Savepoint {
    pub(crate) name: String,
    pub(crate) mark: Mark,
    pub(crate) values: Values,
    pub(crate) read_only: bool,
}

/// LISTEN and UNLISTEN, to be done at commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChannelAction {
    Listen(String),
    Unlisten(String),
    UnlistenAll,
}

/// A constraint to be looked at when the transaction ends.
#[derive(Clone, Debug)]
pub(crate) enum Deferred {
    /// The row's foreign key of that name.
    Reference {
        table: u32,
        row: u64,
        key: String,
    },
    /// A row of the referenced table went away: nothing may refer to its key.
    Referenced {
        table: u32,
        key: String,
        values: Vec<Datum>,
    },
    Unique {
        table: u32,
        row: u64,
        index: u32,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) kind: Kind,
    pub(crate) failed: bool,
    pub(crate) xid: Option<u64>,
    pub(crate) isolation: Isolation,
    pub(crate) read_only: bool,
    pub(crate) deferrable: bool,
    /// Begun while the node was a standby; it stays read-only.
    pub(crate) in_recovery: bool,
    /// How many commits REPEATABLE READ and SERIALIZABLE see.
    pub(crate) snapshot: Option<u64>,
    /// The log's end when that was taken.
    pub(crate) snapshot_lsn: Lsn,
    pub(crate) command: u32,
    pub(crate) undo: Vec<Undo>,
    pub(crate) changes: Vec<Change>,
    pub(crate) notifies: Vec<(String, String)>,
    pub(crate) channels: Vec<ChannelAction>,
    pub(crate) deferred: Vec<Deferred>,
    /// SET CONSTRAINTS: all, and by name.
    pub(crate) constraints_all: Option<bool>,
    pub(crate) constraints: BTreeMap<String, bool>,
    pub(crate) savepoints: Vec<Savepoint>,
    /// The settings to go back to on rollback.
    pub(crate) values: Values,
    /// When it began, in microseconds since 2000.
    pub(crate) started: i64,
    /// Its place among the serializable transactions.
    pub(crate) serializable: Option<u64>,
    pub(crate) uses_temporary: bool,
}

impl Transaction {
    pub(crate) fn view(&self, commits: u64) -> View {
        View {
            commits: self.snapshot.unwrap_or(commits),
            own: self.xid.unwrap_or(u64::MAX),
            command: self.command,
        }
    }
}

/// A statement prepared under a name.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    pub(crate) from_sql: bool,
    pub(crate) at: i64,
    /// The text that `pg_prepared_statements` shows.
    pub(crate) text: Arc<str>,
}

/// A portal or cursor. It has its rows once it has run.
#[derive(Clone, Debug)]
pub(crate) struct Portal {
    pub(crate) plan: Plan,
    pub(crate) parameters: Arc<[Datum]>,
    pub(crate) columns: Option<Arc<[ColumnDescription]>>,
    pub(crate) rows: Option<Vec<Row>>,
    /// The row it stands on, from one; one more than there are is behind the last.
    pub(crate) at: usize,
    /// What a statement without rows answered.
    pub(crate) tag: Option<String>,
    /// What a cursor sees.
    pub(crate) view: Option<View>,
    /// NO SCROLL is `Some(false)`.
    pub(crate) scroll: Option<bool>,
    pub(crate) hold: bool,
    pub(crate) from_sql: bool,
    pub(crate) text: Arc<str>,
    pub(crate) created: i64,
    /// How many savepoints there were.
    pub(crate) depth: usize,
}

/// What a session is at.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// The rows of COPY FROM, all of which have come.
    Copy,
    /// Only the commit of the implicit transaction.
    End,
    /// The protocol's Execute.
    Portal { name: String, most: usize },
    Statement {
        plan: Plan,
        parameters: Arc<[Datum]>,
        block: bool,
    },
}

/// A statement that has begun and not ended.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) job: Job,
    /// What this attempt and all later ones see.
    pub(crate) commits: Option<u64>,
    pub(crate) snapshot_lsn: Lsn,
    /// Answers of functions that must not run twice, in their order.
    pub(crate) memory: Vec<Datum>,
    pub(crate) remembered: usize,
    pub(crate) mark: Mark,
    pub(crate) wait: Option<Wait>,
    /// The commit has been done and waits for a standby; then this is the answer.
    pub(crate) held: Option<Box<Completion>>,
}

/// COPY FROM STDIN under way.
#[derive(Clone, Debug)]
pub(crate) struct CopyIn {
    pub(crate) table: u32,
    pub(crate) columns: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

/// What others see of a session in `pg_stat_activity`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity {
    pub(crate) query: String,
    /// `active`, `idle` and so on; empty for what the transaction says.
    pub(crate) state: String,
    pub(crate) backend_start: i64,
    pub(crate) query_start: i64,
    pub(crate) state_change: i64,
    pub(crate) client_addr: Option<String>,
    pub(crate) client_port: i32,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) pid: i32,
    pub(crate) database: String,
    /// Who logged in.
    pub(crate) login: String,
    pub(crate) values: Values,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) statements: BTreeMap<String, Prepared>,
    pub(crate) portals: BTreeMap<String, Portal>,
    pub(crate) running: Option<Running>,
    /// COMMIT AND CHAIN waits for a standby.
    pub(crate) chained: bool,
    pub(crate) copy: Option<CopyIn>,
    pub(crate) channels: BTreeSet<String>,
    pub(crate) notifications: VecDeque<Notification>,
    pub(crate) notices: Vec<Report>,
    /// Reported settings as the client knows them.
    pub(crate) reported: BTreeMap<&'static str, String>,
    pub(crate) unreported: bool,
    /// `currval` by sequence.
    pub(crate) current: BTreeMap<u32, i64>,
    pub(crate) last_sequence: Option<u32>,
    pub(crate) activity: Activity,
    /// What the last commit or statement did, for the truth.
    pub(crate) facts: Facts,
    /// When DISCARD or ON COMMIT have something to do.
    pub(crate) temporary: Vec<(u32, OnCommit)>,
}

impl Session {
    /// `I`, `T` or `E`.
    pub(crate) fn status(&self) -> u8 {
        match &self.transaction {
            Some(transaction) if transaction.kind == Kind::Block => {
                if transaction.failed {
                    b'E'
                } else {
                    b'T'
                }
            }
            _ => b'I',
        }
    }

    pub(crate) fn notice(&mut self, report: Report) {
        // Enough for any statement's notices; more are not told.
        const MOST: usize = 1_000;
        if self.notices.len() < MOST {
            self.notices.push(report);
        }
    }

    /// The schema of its temporary objects.
    pub(crate) fn temporary_schema(&self) -> String {
        format!("pg_temp_{}", self.pid)
    }
}
