//! Faults and their triggers as plain data: what goes wrong, when, and for how long.
//!
//! Part of a scenario: it is generated, shrunk, saved and printed, so it holds names and numbers only. The layers N
//! (network) and T (time, scheduler) are applied by the run itself, P, S and R (protocol, server, replication) by
//! whoever plays the servers, through [`ServerFaults`].

mod deeds;
pub(crate) mod injector;
mod network;
mod server;

pub use self::injector::FaultReport;
pub use self::network::{Answer, ConnectFate, Connections, CutPart, Delay, Jitter, Link, NetworkFault, Ways};
pub use self::server::{
    CancelFate, FailAt, LostTail, ProtocolFault, Refusal, Rejoin, ReplicationFault, ServerFault, Sessions, Unsolicited,
};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pipe::Direction;
use crate::schedule::Schedule;
use crate::source::debug_as_source;

/// One thing that goes wrong.
///
/// ```
/// use gdbpool_sim::fault::{Connections, Fault, FaultKind, Micros, NetworkFault, ServerEvent, Trigger};
///
/// // The connection whose commit has just become durable breaks before the reply is read.
/// let fault = Fault {
///     trigger: Trigger::Server { event: ServerEvent::CommitDurable, node: None, nth: 1 },
///     what: FaultKind::Network(NetworkFault::Reset { connections: Connections::Trigger }),
///     span: None,
/// };
/// let text = format!("{fault:?}");
/// assert!(text.starts_with("Fault { trigger: Trigger::Server { event: ServerEvent::CommitDurable, node: None, "));
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    pub trigger: Trigger,
    /// What it does.
    pub what: FaultKind,
    /// How long a lasting fault lasts; `None` is until the faults of the run are stopped. Of no meaning for those that
    /// happen at an instant.
    pub span: Option<Micros>,
}

/// When a fault begins. Counts start at one; a trigger fires once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// At an instant of virtual time, counted from the start of the run.
    At(Micros),
    /// Just before the first byte of a message enters the lane.
    Message {
        /// Whose connections are counted; `Connections::Trigger` counts the messages of all.
        connections: Connections,
        /// The lane.
        direction: Direction,
        /// PostgreSQL's type byte (`'Q'`, `'Z'`, ...), or one of [`START_UP`], [`CANCEL`], [`ENCRYPT`] for the packets
        /// that have none; `None` counts all.
        kind: Option<char>,
        /// Which of them.
        nth: u64,
    },
    /// When the library passes a named point (it must be built with `--cfg gdbpool_points`).
    Point {
        /// The point's name.
        name: String,
        /// Which passing.
        nth: u64,
    },
    /// When a server's history has such an event.
    Server {
        /// The kind of event.
        event: ServerEvent,
        /// On which node; `None` counts all nodes together.
        node: Option<String>,
        /// Which of them.
        nth: u64,
    },
}

impl Trigger {
    /// What it counts to, if it counts.
    #[must_use]
    pub fn nth(&self) -> Option<u64> {
        match self {
            Self::At(_) => None,
            Self::Message { nth, .. } | Self::Point { nth, .. } | Self::Server { nth, .. } => Some(*nth),
        }
    }

    /// What it counts to, to be changed.
    pub fn nth_mut(&mut self) -> Option<&mut u64> {
        match self {
            Self::At(_) => None,
            Self::Message { nth, .. } | Self::Point { nth, .. } | Self::Server { nth, .. } => Some(nth),
        }
    }
}

/// The message kind of a start-up packet.
pub const START_UP: char = '^';

/// The message kind of a CancelRequest.
pub const CANCEL: char = '!';

/// The message kind of an SSLRequest or GSSENCRequest, and of the one-byte answer to it.
pub const ENCRYPT: char = '?';

/// The kinds of events in a server's history that can trigger a fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServerEvent {
    /// A cancel request was read.
    CancelArrived,
    /// A COMMIT (or an autocommit statement) is in the local WAL; its reply is not sent.
    CommitDurable,
    /// A statement starts to wait for synchronous replication.
    CommitWaitBegan,
    /// The node crashed.
    Crashed,
    /// A session now listens (committed).
    Listened,
    /// A statement starts to wait for a lock.
    LockWaitBegan,
    /// A notification was sent to a session.
    NotifyDelivered,
    /// A NOTIFY was executed; its transaction has not ended.
    NotifyQueued,
    /// A standby became a primary.
    Promoted,
    /// The node accepts connections again.
    Restarted,
    /// A transaction was rolled back.
    RolledBack,
    /// A session ended.
    SessionClosed,
    /// A session is authenticated and ready.
    SessionOpened,
    /// A statement starts.
    StatementBegan,
    /// A statement ended, well or not.
    StatementEnded,
    /// A transaction block starts.
    TransactionBegan,
    /// A session no longer listens (committed).
    Unlistened,
    /// A standby replayed a record.
    WalApplied,
}

/// What a fault does, by layer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// Layer N: links, connections, names.
    Network(NetworkFault),
    /// Layer P: what a server says and when it listens to cancels.
    Protocol(ProtocolFault),
    /// Layer R: WAL, lag, promotion.
    Replication(ReplicationFault),
    /// Layer S: servers and their sessions.
    Server(ServerFault),
    /// Layer T: clocks and the scheduler.
    Time(TimeFault),
}

/// Faults of clocks and of the scheduler.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeFault {
    /// The clock jumps forward, as after a suspend: every timer within `by` is due at once.
    Jump {
        /// How far.
        by: Micros,
    },
    /// Another schedule while it lasts.
    Reschedule {
        /// The schedule.
        schedule: Schedule,
    },
    /// A host's clock is off while it lasts.
    Skew {
        /// The host.
        host: String,
        /// Microseconds that its clock shows more than the true time.
        micros: i64,
    },
    /// Tasks that nobody woke are polled.
    SpuriousWakes {
        /// After how many of a hundred polls one more task is woken for nothing.
        percent: u8,
    },
}

/// Microseconds of virtual time: a span, or an instant counted from the start of the run.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Micros(pub u64);

/// Who applies faults of the layers P, S and R: the servers of a run, registered with
/// [`Sim::add_server_faults`](crate::Sim::add_server_faults).
///
/// Called between two polls, before any other task has its turn; no lock of the run is held. Kinds of the other layers
/// are never given to it.
pub trait ServerFaults: Send + Sync {
    /// Begins a fault. False if it found nothing to apply itself to (no such node, no such session): it is then
    /// counted as not applied. `connection` is the ordinal of the connection whose message or event was the trigger.
    fn begin(&self, what: &FaultKind, connection: Option<u64>) -> bool;

    /// Ends a lasting fault that was begun. Those that are over by themselves are ended too, to no effect.
    fn end(&self, what: &FaultKind);
}

impl FaultKind {
    /// The name under which coverage counts this kind of fault, such as `network.partition`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Network(fault) => fault.name(),
            Self::Protocol(fault) => fault.name(),
            Self::Replication(fault) => fault.name(),
            Self::Server(fault) => fault.name(),
            Self::Time(fault) => fault.name(),
        }
    }

    /// The names of all kinds.
    pub fn names() -> impl Iterator<Item = &'static str> {
        [
            NetworkFault::NAMES,
            ProtocolFault::NAMES,
            ReplicationFault::NAMES,
            ServerFault::NAMES,
            TimeFault::NAMES,
        ]
        .into_iter()
        .flatten()
        .copied()
    }
}

impl Micros {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// The span.
    #[must_use]
    pub const fn span(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl From<Duration> for Micros {
    /// Rounds down; spans over 584,000 years become that.
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }
}

/// Gives an enum of faults its coverage names, from one list.
macro_rules! names {
    ($of:ident: $($variant:ident => $name:literal),+ $(,)?) => {
        impl $of {
            /// The coverage names of all kinds.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The coverage name of this kind.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)+
                }
            }
        }
    };
}
use names;

names!(TimeFault:
    Jump => "time.jump",
    Reschedule => "time.reschedule",
    Skew => "time.skew",
    SpuriousWakes => "time.spurious_wakes",
);

debug_as_source!(Fault, FaultKind, Micros, ServerEvent, TimeFault, Trigger);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_fault_survives_its_file_and_prints_as_source() {
        let fault = Fault {
            trigger: Trigger::Message {
                connections: Connections::Nth {
                    to: Some("n0".to_owned()),
                    nth: 2,
                },
                direction: Direction::ToClient,
                kind: Some('Z'),
                nth: 3,
            },
            what: FaultKind::Time(TimeFault::Reschedule {
                schedule: Schedule::Pct { depth: 3 },
            }),
            span: Some(Micros::from_millis(5)),
        };
        let file = serde_json::to_string(&fault).unwrap();
        assert_eq!(serde_json::from_str::<Fault>(&file).unwrap(), fault);
        assert_eq!(
            format!("{fault:?}"),
            "Fault { trigger: Trigger::Message { connections: Connections::Nth { to: Some(\"n0\".into()), nth: 2 }, \
             direction: Direction::ToClient, kind: Some('Z'), nth: 3 }, what: FaultKind::Time(TimeFault::Reschedule { \
             schedule: Schedule::Pct { depth: 3 } }), span: Some(Micros(5000)) }"
        );
    }

    #[test]
    fn coverage_names_are_unique() {
        let names: Vec<_> = FaultKind::names().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
