//! The faults of layers P, S and R as data: what servers say, how they fail, how standbys follow.
//!
//! Applied by whoever plays the servers. Nodes are named, as in `n0`.

use serde::{Deserialize, Serialize};

use super::{Micros, names};
use crate::source::debug_as_source;

/// Faults of what a server says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtocolFault {
    /// Lasting. What becomes of cancel requests.
    Cancel {
        /// The node.
        node: String,
        /// Their fate.
        fate: CancelFate,
    },
    /// The next COMMIT on the node sends CommandComplete; the connection ends before ReadyForQuery.
    CommitWithoutReady {
        /// The node.
        node: String,
        /// Whether it ends in a reset; else in end-of-file.
        reset: bool,
    },
    /// Notifications from elsewhere, all at once.
    NotifyFlood {
        /// The node.
        node: String,
        /// The channel.
        channel: String,
        /// How many.
        count: u32,
        /// The length of each payload.
        bytes: u32,
    },
    /// Lasting. Messages that nobody asked for, between any two replies.
    Unsolicited {
        /// The node.
        node: String,
        /// The message.
        message: Unsolicited,
        /// In how many of a hundred places.
        percent: u8,
    },
}

/// Faults of servers and their sessions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFault {
    /// The node is gone at once, with everything that is not durable; it restarts when the fault ends.
    Crash {
        /// The node.
        node: String,
        /// For how long after the restart it answers 57P03.
        recovery: Micros,
    },
    /// A session's process crashes: that session reads end-of-file, all others a WARNING 57P02, and the node recovers.
    CrashSession {
        /// The node.
        node: String,
        /// Which session; of several, they crash together.
        sessions: Sessions,
        /// For how long it answers 57P03.
        recovery: Micros,
    },
    /// The next statements fail so, whatever they are.
    Fail {
        /// The node.
        node: String,
        /// The SQLSTATE, such as `40P01`, `40001`, `23505` (a deferred constraint, at COMMIT).
        sqlstate: String,
        /// At which step.
        at: FailAt,
        /// How many of them.
        count: u32,
    },
    /// Lasting. A foreign session holds an ACCESS EXCLUSIVE lock on the table: a convoy forms.
    LockConvoy {
        /// The node.
        node: String,
        /// The table.
        table: String,
    },
    /// Lasting. Further sessions than so many get FATAL 53300.
    MaxSessions {
        /// The node.
        node: String,
        /// The limit.
        sessions: u32,
    },
    /// Lasting. Nothing on the node moves, as under SIGSTOP; the kernel still takes bytes.
    Pause {
        /// The node.
        node: String,
    },
    /// Lasting. New sessions fail before they are authenticated.
    Refuse {
        /// The node.
        node: String,
        /// With what.
        why: Refusal,
    },
    /// Lasting. A server setting that new and open sessions get, such as `statement_timeout`.
    Setting {
        /// The node.
        node: String,
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Shutdown by the operator; it restarts when the fault ends.
    Shutdown {
        /// The node.
        node: String,
        /// Immediate: WARNING 57P01 as a notice, end-of-file, crash recovery. Else fast: FATAL 57P01.
        immediate: bool,
        /// For how long after the restart it answers 57P03.
        recovery: Micros,
    },
    /// Lasting. Every statement takes this much longer.
    Slow {
        /// The node.
        node: String,
        /// How much.
        by: Micros,
    },
    /// FATAL 57P01, as by `pg_terminate_backend`.
    Terminate {
        /// The node.
        node: String,
        /// Which sessions.
        sessions: Sessions,
    },
    /// Lasting. Backends do not notice that their clients are gone: statements run to their end, locks stay.
    Zombies {
        /// The node.
        node: String,
    },
}

/// Faults of replication.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicationFault {
    /// Lasting. The WAL stream to the standby is broken; afterwards it catches up.
    BreakStream {
        /// The standby.
        node: String,
    },
    /// Recovery cancels what conflicts with it: error 40001, or FATAL for idle transactions.
    Conflict {
        /// The standby.
        node: String,
        /// Which sessions.
        sessions: Sessions,
    },
    /// A new, empty standby joins and copies everything from the primary.
    Join {
        /// Its name.
        node: String,
    },
    /// Lasting. The synchronous standby is away: commits wait.
    LoseSyncStandby {
        /// The standby.
        node: String,
    },
    /// Lasting. Replay on the standby stands still.
    PauseReplay {
        /// The standby.
        node: String,
    },
    /// The standby becomes a primary.
    Promote {
        /// The standby.
        node: String,
        /// What it does not have of the old primary's WAL.
        lost: LostTail,
        /// Whether the old primary is stopped; else it stays writable.
        fenced: bool,
    },
    /// Lasting. Records reach the standby this much later.
    ReceiveDelay {
        /// The standby.
        node: String,
        /// How much.
        by: Micros,
    },
    /// A former primary comes back as a standby of the present one.
    Rejoin {
        /// The node.
        node: String,
        /// How.
        how: Rejoin,
    },
    /// Lasting. Received records are replayed this much later.
    ReplayDelay {
        /// The standby.
        node: String,
        /// How much.
        by: Micros,
    },
}

/// What becomes of cancel requests.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelFate {
    /// They take effect this much later, and their connections close then.
    Delayed(Micros),
    /// They are never answered.
    Hang,
    /// Their connections close at once; they take effect this much later, on whatever runs then.
    Late(Micros),
    /// Their connections close at once; nothing happens.
    Lost,
}

/// A message that nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unsolicited {
    /// A NoticeResponse.
    Notice,
    /// A NotificationResponse, on a channel that nobody listens to.
    Notification,
    /// A ParameterStatus that repeats a value.
    ParameterStatus,
}

/// At which step the next statement fails.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailAt {
    /// At COMMIT, which rolls back then.
    Commit,
    /// At the execution of any statement but transaction control.
    Execute,
    /// At Parse.
    Parse,
}

/// Why sessions are refused.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// 28P01: wrong password.
    Password,
    /// 57P03: shutting down.
    ShuttingDown,
    /// 57P03: starting up.
    StartingUp,
    /// 53300: too many clients.
    TooMany,
}

/// Which sessions of a node.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sessions {
    /// All.
    All,
    /// Those that do nothing and have no transaction.
    Idle,
    /// Those with a transaction but no statement.
    IdleInTransaction,
    /// Those that run a statement.
    InQuery,
    /// The one of the trigger.
    Trigger,
}

/// What a promoted standby does not have.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostTail {
    /// Nothing: it received everything first.
    Nothing,
    /// The last so many commits of the old primary, and whatever it had not received.
    Commits(u32),
    /// Whatever it had not received at that instant.
    Unreceived,
}

/// How a former primary comes back.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejoin {
    /// As it is: its WAL has diverged, replication fails, it serves what it has.
    Diverged,
    /// Rewound to where the timelines part.
    Rewound,
}

names!(ProtocolFault:
    Cancel => "protocol.cancel",
    CommitWithoutReady => "protocol.commit_without_ready",
    NotifyFlood => "protocol.notify_flood",
    Unsolicited => "protocol.unsolicited",
);

names!(ServerFault:
    Crash => "server.crash",
    CrashSession => "server.crash_session",
    Fail => "server.fail",
    LockConvoy => "server.lock_convoy",
    MaxSessions => "server.max_sessions",
    Pause => "server.pause",
    Refuse => "server.refuse",
    Setting => "server.setting",
    Shutdown => "server.shutdown",
    Slow => "server.slow",
    Terminate => "server.terminate",
    Zombies => "server.zombies",
);

names!(ReplicationFault:
    BreakStream => "replication.break_stream",
    Conflict => "replication.conflict",
    Join => "replication.join",
    LoseSyncStandby => "replication.lose_sync_standby",
    PauseReplay => "replication.pause_replay",
    Promote => "replication.promote",
    ReceiveDelay => "replication.receive_delay",
    Rejoin => "replication.rejoin",
    ReplayDelay => "replication.replay_delay",
);

debug_as_source!(
    CancelFate,
    FailAt,
    LostTail,
    ProtocolFault,
    Refusal,
    Rejoin,
    ReplicationFault,
    ServerFault,
    Sessions,
    Unsolicited,
);
