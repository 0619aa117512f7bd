//! The server's truth: what every node of a cluster did, in the order it did it.
//!
//! A plain machine. Servers record into it while a run goes on, oracles read it afterwards. It is bounded, it judges
//! nothing, and it knows nothing of what clients were told: that is the client's history.

use std::fmt;
use std::sync::Arc;

use gdbpool::Instant;

/// The most events a history keeps unless it is made with another bound: more than any scenario that ends makes.
const CAPACITY: usize = 1_000_000;

/// What happened on all nodes of one run, in one order.
#[derive(Clone, Debug)]
pub struct History {
    events: Vec<Event>,
    capacity: usize,
    dropped: u64,
}

/// One thing that happened on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order of the whole run, from 0.
    pub seq: u64,
    /// When, in virtual time.
    pub at: Instant,
    /// Which node, by its number in the cluster: 0 is the first primary.
    pub node: u32,
    /// What.
    pub kind: EventKind,
}

/// What happened. `pid` is the backend's process id, which no other backend of the run has, on whatever node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A cancel request came. `hit` is whether it stopped a statement; `op` is that statement's.
    CancelArrived {
        /// The backend it names.
        pid: i32,
        /// A statement was running, and is stopped.
        hit: bool,
        /// The mark of the statement that was hit.
        op: Option<u64>,
    },
    /// A transaction was committed here: its own, and by replay on a standby only as [`EventKind::WalApplied`].
    Committed {
        /// The backend.
        pid: i32,
        /// The transaction's number, if it had one: it wrote.
        xid: Option<u64>,
        /// The position after the commit record; the node's position for a transaction that wrote nothing.
        lsn: u64,
        /// The timeline that position is on.
        timeline: u32,
        /// The marks of the statements whose effects it has: those taken back to a savepoint are not among them.
        ops: Vec<u64>,
        /// How durable it was when the client was told.
        durability: Durability,
    },
    /// The node's process ended without a goodbye.
    Crashed,
    /// Something was left over in the session when a statement began that carries another mark than the last one, outside
    /// a transaction. Recorded before that [`EventKind::StatementBegan`], and only when there is something.
    Found {
        /// The backend.
        pid: i32,
        /// The mark of the statement that begins.
        op: u64,
        /// What differs from a session fresh from its start-up.
        leftovers: Vec<Leftover>,
    },
    /// The client sent what the protocol does not allow there.
    IllegalMessage {
        /// The backend; 0 before there is one.
        pid: i32,
        /// What is wrong with it.
        text: Arc<str>,
    },
    /// LISTEN took effect, at the commit.
    Listened {
        /// The backend.
        pid: i32,
        /// The channel.
        channel: Arc<str>,
    },
    /// A notification was committed to the node's queue.
    NotifyQueued {
        /// The backend that sent it.
        pid: i32,
        /// The channel.
        channel: Arc<str>,
        /// The payload.
        payload: Arc<str>,
        /// Its place in the node's queue: commit order.
        ordinal: u64,
    },
    /// A notification was written to a listening client.
    NotifySent {
        /// The backend of the listener.
        pid: i32,
        /// The channel.
        channel: Arc<str>,
        /// The payload.
        payload: Arc<str>,
        /// Its place in the node's queue.
        ordinal: u64,
    },
    /// A standby became a primary.
    Promoted {
        /// Its new timeline.
        timeline: u32,
        /// The timeline it left.
        parent: u32,
        /// Where it left it: what that timeline has after this position is not on the new one.
        switch: u64,
    },
    /// A node came back as a standby of another one; what it had after the point where they part is gone.
    Rejoined {
        /// The timeline it follows now.
        timeline: u32,
    },
    /// The node accepts connections again.
    Restarted,
    /// A transaction was rolled back, whole.
    RolledBack {
        /// The backend.
        pid: i32,
        /// The transaction's number, if it had one.
        xid: Option<u64>,
        /// The marks of its statements.
        ops: Vec<u64>,
    },
    /// A transaction was taken back to a savepoint.
    RolledBackTo {
        /// The backend.
        pid: i32,
        /// The marks of the statements whose effects are gone.
        ops: Vec<u64>,
    },
    /// A session ended.
    SessionClosed {
        /// The backend.
        pid: i32,
        /// How.
        how: Closing,
    },
    /// A session was authenticated and is ready.
    SessionOpened {
        /// The backend.
        pid: i32,
        /// The user.
        user: Arc<str>,
        /// `application_name` as the start-up message has it.
        application: Arc<str>,
    },
    /// A statement began to execute (not: to be parsed).
    StatementBegan {
        /// The backend.
        pid: i32,
        /// Its text.
        text: Arc<str>,
        /// Its mark, from a comment `/* op=N */` in the text.
        op: Option<u64>,
        /// The transaction status before it.
        status: Status,
        /// The node's role at that moment.
        role: Role,
        /// The transaction cannot write.
        read_only: bool,
        /// The position its snapshot shows: everything committed up to here, and nothing after.
        snapshot: u64,
    },
    /// A statement ended.
    StatementEnded {
        /// The backend.
        pid: i32,
        /// Its mark.
        op: Option<u64>,
        /// How.
        end: End,
        /// Rows inserted, updated or deleted by it, also when that is taken back later.
        changed: u64,
        /// The transaction's number, if it has one by now.
        xid: Option<u64>,
        /// The transaction status after it.
        status: Status,
    },
    /// The node was stopped in an orderly way.
    Stopped,
    /// UNLISTEN took effect, or the session ended; also for each channel of `UNLISTEN *`.
    Unlistened {
        /// The backend.
        pid: i32,
        /// The channel.
        channel: Arc<str>,
    },
    /// A standby has replayed up to here.
    WalApplied {
        /// The position.
        lsn: u64,
        /// The timeline.
        timeline: u32,
    },
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Closing {
    /// The node crashed.
    Crash,
    /// The client's end of the stream, or a reset.
    Lost,
    /// The server ended it: by order, a stop, a timeout, a conflict.
    Server,
    /// The client said Terminate.
    Terminate,
}

/// How durable a commit was when the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// On this node; no standby was waited for.
    Local,
    /// Waiting for the synchronous standby was interrupted: committed here, and the client got a warning.
    LocalWarned,
    /// The synchronous standby has it.
    Synchronous,
}

/// How a statement ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// An error of this SQLSTATE.
    Failed(Arc<str>),
    /// It ran to its end; the command tag.
    Tag(Arc<str>),
}

/// Something that a session still has from earlier use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Leftover {
    /// An advisory lock.
    AdvisoryLock(Arc<str>),
    /// A cursor WITH HOLD.
    Cursor(Arc<str>),
    /// A channel that is listened to.
    Listen(Arc<str>),
    /// A prepared statement made with SQL's PREPARE.
    Prepared(Arc<str>),
    /// A setting that differs from what the session began with: its name.
    Setting(Arc<str>),
    /// A temporary table.
    TempTable(Arc<str>),
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It replays, and answers reads.
    Standby,
}

/// The transaction status that ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// `E`: a statement failed in the transaction.
    Failed,
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction.
    Transaction,
}

impl History {
    /// An empty history with room for a million events.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(CAPACITY)
    }

    /// An empty history with room for so many events; later ones are counted, not kept.
    #[must_use]
    pub fn bounded(capacity: usize) -> Self {
        Self {
            events: Vec::new(),
            capacity,
            dropped: 0,
        }
    }

    /// Writes down what a node did, and gives its place in the order.
    pub fn record(&mut self, at: Instant, node: u32, kind: EventKind) -> u64 {
        let seq = self.events.len() as u64 + self.dropped;
        if self.events.len() < self.capacity {
            self.events.push(Event { seq, at, node, kind });
        } else {
            self.dropped += 1;
        }
        seq
    }

    /// Changes what was recorded last, for tests that make histories by hand.
    #[cfg(test)]
    pub(crate) fn amend_last(&mut self, change: impl FnOnce(&mut EventKind)) {
        if let Some(last) = self.events.last_mut() {
            change(&mut last.kind);
        }
    }

    /// All events kept, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Events that found no room: where it is not 0, nothing can be concluded from what is missing.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many events there were.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.events.len() as u64 + self.dropped
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?} n{} {:?}", self.seq, self.at, self.node, self.kind)
    }
}

impl EventKind {
    /// The backend it happened in, if it was one.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::CancelArrived { pid, .. }
            | Self::Committed { pid, .. }
            | Self::Found { pid, .. }
            | Self::IllegalMessage { pid, .. }
            | Self::Listened { pid, .. }
            | Self::NotifyQueued { pid, .. }
            | Self::NotifySent { pid, .. }
            | Self::RolledBack { pid, .. }
            | Self::RolledBackTo { pid, .. }
            | Self::SessionClosed { pid, .. }
            | Self::SessionOpened { pid, .. }
            | Self::StatementBegan { pid, .. }
            | Self::StatementEnded { pid, .. }
            | Self::Unlistened { pid, .. } => Some(*pid),
            Self::Crashed
            | Self::Promoted { .. }
            | Self::Rejoined { .. }
            | Self::Restarted
            | Self::Stopped
            | Self::WalApplied { .. } => None,
        }
    }
}

/// The mark of a statement: the number in a comment `/* op=N */` somewhere in its text.
///
/// ```
/// assert_eq!(gdbpool_sim::op_of("/* op=12 */ SELECT 1"), Some(12));
/// assert_eq!(gdbpool_sim::op_of("SELECT 1"), None);
/// ```
#[must_use]
pub fn op_of(sql: &str) -> Option<u64> {
    let (_, rest) = sql.split_once("/* op=")?;
    let (number, _) = rest.split_once(" */")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut history = History::bounded(1);
        let at = Instant::from_nanos(1);
        assert_eq!(history.record(at, 0, EventKind::Crashed), 0);
        assert_eq!(history.record(at, 1, EventKind::Restarted), 1);
        assert_eq!(history.record(at, 1, EventKind::Stopped), 2);
        assert_eq!((history.events().len(), history.dropped(), history.len()), (1, 2, 3));
    }

    #[test]
    fn a_mark_is_a_whole_comment() {
        assert_eq!(op_of("SELECT 1 /* op=7 */"), Some(7));
        assert_eq!(op_of("SELECT 1 /* op=7"), None);
        assert_eq!(op_of("SELECT 1 /* op=x */"), None);
    }
}
