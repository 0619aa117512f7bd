//! A deterministic PostgreSQL cluster in one process and one thread, for tests of applications over `gdbpool`.
//!
//! Put your application on a simulated cluster and let it fail over in the middle of a handler: the application, its pool,
//! tokio-postgres and the wire protocol are the real ones; servers, network, executor and clock are simulated, in virtual
//! time, and follow from one seed. Such a test takes a millisecond or two, and is the same at each run.
//!
//! ```
//! use std::time::Duration;
//!
//! use gdbpool::{Error, InteractionPool, PoolConfig, Runtime};
//! use gdbpool_sim::fault::{Fault, FaultKind, LostTail, Micros, ServerEvent, ServerFault, Trigger};
//! use gdbpool_sim::{Cluster, ClusterConfig, Sim};
//!
//! /// A handler of the application: it knows nothing of the simulator.
//! async fn count_visit(db: &InteractionPool) -> Result<i64, Error> {
//!     db.transact(|tx| async move {
//!         let visits = tx.query_one("SELECT n FROM visits FOR UPDATE", &[]).await?;
//!         let n = visits.get::<_, i64>(0) + 1;
//!         tx.execute("UPDATE visits SET n = $1", &[&n]).await?;
//!         Ok(n)
//!     })
//!     .await
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let sim = Sim::new(7);
//! let cluster = Cluster::new(&sim, ClusterConfig::new().standbys(1));
//! cluster.set_up("CREATE TABLE visits (n int8 NOT NULL); INSERT INTO visits VALUES (41)").unwrap();
//!
//! // The primary crashes when the handler's third statement (BEGIN, SELECT, UPDATE) begins.
//! let event = ServerEvent::StatementBegan;
//! let trigger = Trigger::Server { event, node: Some("n0".into()), nth: 3 };
//! let crash = ServerFault::Crash { node: "n0".into(), recovery: Micros::from_secs(1) };
//! sim.set_faults([Fault { trigger, what: FaultKind::Server(crash), span: None }]);
//!
//! sim.block_on(async {
//!     let dsn = "host=n0,n1 user=app dbname=postgres target_session_attrs=read-write";
//!     let db = InteractionPool::builder(sim.runtime()).pool(PoolConfig::new("visits", dsn)?).open().await?;
//!     let handler = sim.spawn({
//!         let db = db.clone();
//!         async move { count_visit(&db).await }
//!     });
//!     // The operator notices after five seconds; they cost nothing.
//!     sim.runtime().sleep_until(sim.now() + Duration::from_secs(5)).await;
//!     cluster.node("n1").promote(LostTail::Nothing, true);
//!
//!     assert_eq!(handler.await?, 42, "the pool ran the function again on the new primary");
//!     assert_eq!(cluster.execute("n1", "SELECT n FROM visits").unwrap(), [[Some("42".to_owned())]]);
//!     Ok(())
//! })
//! # }
//! ```
//!
//! To try every place at which a server can fail, loop over events, their ordinals and seeds: `examples/failover.rs` does
//! so, and finds a handler's fault that way. What happened is told by [`Cluster::history`] (each statement, commit and
//! notification on each node, in order) and [`Sim::keep_trace`] (each message, wake and fault). Code over bare
//! tokio-postgres runs here, too: give `connect_raw` the stream that [`SimRuntime`]'s `connect` opens.
//!
//! # What is here
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
//! # What is not
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
#[doc(hidden)]
pub mod doc;
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
