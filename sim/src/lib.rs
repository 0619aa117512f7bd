//! A deterministic PostgreSQL cluster in one process and one thread, for tests of applications over `gdbpool`.
//!
//! - [`Sim`]: one run, fixed by its seed: executor, virtual clock, network; [`Manual`] polls a future by hand.
//! - [`SimRuntime`]: the library's `Runtime` inside that run.
//! - [`PipeEnd`], [`PipeControl`], [`Listener`], [`ConnectMode`]: connections and the ways they fail.
//! - [`wire`]: the server's side of the protocol.
//! - [`Cluster`]: a primary and its standbys: real sessions over the wire, SQL, WAL, lag, promotion, crashes; [`History`] is
//!   its truth, [`fault`] what can be made to go wrong.
//! - [`scenario`]: clusters, client programs, faults and schedules as data, made by proptest; [`oracle`]: what has to hold.
//! - [`ScriptedServer`]: a server that answers what a test tells it to, over an honest small model of a session.
//!
//! What a cluster does not do as PostgreSQL does: COPY in binary form, physical replication slots and the replication
//! protocol for clients, TLS, function calls of the old protocol, `pg_hba.conf`; privileges are not checked. SQL that the
//! engine does not know answers 0A000, never a wrong row.
//!
//! What is scripted is not checked against PostgreSQL: statements without a script and outside the few verbs the
//! session model knows answer 0A000. Locks are counted, never waited for. Cuts at byte offsets can shift between two
//! runs in one process where tokio-postgres's process-global statement names grow by a digit.

#![forbid(unsafe_code)]

mod coverage;
mod executor;
pub mod fault;
mod history;
mod manual;
mod network;
pub mod oracle;
mod pipe;
mod postgres;
mod random;
mod runtime;
pub mod scenario;
mod schedule;
mod script;
mod shrink;
mod sim;
mod source;
mod sql;
mod trace;
mod value;
pub mod wire;

pub use crate::coverage::{Coverage, POINTS, SQLSTATES};
pub use crate::history::{Closing, Durability, End, Event, EventKind, History, Leftover, Role, Status, op_of};
pub use crate::manual::Manual;
pub use crate::network::{ConnectMode, Listener};
pub use crate::pipe::{Cut, Direction, PipeControl, PipeEnd, PipeOptions, PipeReader, PipeWriter};
pub use crate::postgres::{Authentication, BackendView, Cluster, ClusterConfig, DirectError, NodeHandle};
pub use crate::random::Stream;
pub use crate::runtime::SimRuntime;
pub use crate::schedule::{Choices, Schedule};
pub use crate::script::{
    Answer, CancelMode, CancelView, Kill, RowSet, ScriptedServer, SessionView, StartStep, StartUp, Step,
};
pub use crate::shrink::{SHRINK_TRIES, shrink};
pub use crate::sim::{Sim, SimTask};
pub use crate::source::rust_source;
pub use crate::trace::{TraceEvent, TraceSummary, causes, first_difference};
pub use crate::value::{Type, Value};
