//! What passes between the engine and the sessions around it: moments, answers, waits, notifications.
//!
//! The engine's door. A plain machine: values only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gdbpool::Instant;

use super::types::datum::Datum;
use super::wal::Lsn;
use crate::wire::Report;

pub(crate) use super::session::Activity;

/// A point in virtual time, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// Microseconds since 2000-01-01 UTC.
    pub(crate) wall: i64,
}

/// What a node is made with.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettings {
    pub(crate) system_identifier: u64,
    pub(crate) databases: Vec<String>,
    pub(crate) superusers: Vec<String>,
    /// Other roles that SET ROLE may name.
    pub(crate) roles: Vec<String>,
    /// As in `postgresql.conf`.
    pub(crate) settings: BTreeMap<String, String>,
    /// Of `random()` and `gen_random_uuid()`.
    pub(crate) seed: u64,
    /// When it was started, in microseconds since 2000.
    pub(crate) started: i64,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            system_identifier: 7_000_000_000_000_000_001,
            databases: vec!["postgres".to_owned()],
            superusers: vec!["postgres".to_owned()],
            roles: Vec::new(),
            settings: BTreeMap::new(),
            seed: 0,
            started: 0,
        }
    }
}

/// What a node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary { timeline: u32 },
    Standby { timeline: u32 },
}

impl Role {
    pub(crate) fn timeline(self) -> u32 {
        match self {
            Self::Primary { timeline } | Self::Standby { timeline } => timeline,
        }
    }

    pub(crate) fn is_standby(self) -> bool {
        matches!(self, Self::Standby { .. })
    }
}

/// A row of an answer.
pub(crate) type Row = Arc<[Datum]>;

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnDescription {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    /// Bytes of its values, negative when that varies.
    pub(crate) size: i16,
    /// Its type's modifier, -1 for none.
    pub(crate) typmod: i32,
    /// Where it comes from; zeros for an expression.
    pub(crate) table_oid: u32,
    pub(crate) attribute: i16,
}

/// What a statement did, for the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The transaction's number, if it has one.
    pub(crate) xid: Option<u64>,
    /// Where the commit's record ends, if this committed something.
    pub(crate) commit_lsn: Option<Lsn>,
    /// The log position of what the statement saw.
    pub(crate) snapshot_lsn: Option<Lsn>,
    /// A transaction was rolled back, also by COMMIT.
    pub(crate) rolled_back: bool,
}

/// A statement's answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Completion {
    /// Empty for an empty query.
    pub(crate) tag: String,
    pub(crate) columns: Option<Arc<[ColumnDescription]>>,
    pub(crate) rows: Vec<Row>,
    /// More rows are left behind the portal's limit.
    pub(crate) suspended: bool,
    pub(crate) facts: Facts,
}

/// How far a statement has come.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// Rows are to be given by [`copy_data`](super::Engine::copy_data).
    CopyIn {
        columns: usize,
    },
    /// Rows of COPY TO STDOUT, each with its line end.
    CopyOut {
        columns: usize,
        lines: Vec<Vec<u8>>,
        completion: Box<Completion>,
    },
    Done(Box<Completion>),
    /// The transaction has been aborted already.
    Failed(Report),
    Waiting(Wait),
}

/// What a statement waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Lock {
        holders: Vec<i32>,
        /// For people, as in an error's context.
        what: String,
    },
    Sleep {
        until: Instant,
    },
    /// A standby must confirm the log up to here.
    SyncReplication {
        lsn: Lsn,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) pid: i32,
    pub(crate) channel: String,
    pub(crate) payload: String,
    /// Its place in the order of commits and, within one, of NOTIFYs.
    pub(crate) ordinal: u64,
}

/// What became of channels and notifications at a commit, for the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineEvent {
    Listened { pid: i32, channel: String },
    NotifyQueued(Notification),
    Unlistened { pid: i32, channel: String },
}

/// What SQL asked the server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Cancel { pid: i32 },
    PauseReplay,
    Promote,
    ResumeReplay,
    Terminate { pid: i32 },
}

/// A standby as `pg_stat_replication` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) pid: i32,
    pub(crate) user: String,
    pub(crate) application_name: String,
    pub(crate) state: String,
    pub(crate) sent: Lsn,
    pub(crate) written: Lsn,
    pub(crate) flushed: Lsn,
    pub(crate) replayed: Lsn,
    pub(crate) replay_lag: Option<Duration>,
    pub(crate) sync_state: String,
}

/// A standby's own side of replication, as `pg_stat_wal_receiver` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WalReceiver {
    pub(crate) pid: i32,
    pub(crate) received: Lsn,
    pub(crate) timeline: u32,
    pub(crate) conninfo: String,
}
