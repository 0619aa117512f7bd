//! What a run leaves: both histories, and the state of everything at its end.
//!
//! Values. Filled by the runner, judged by the oracles.

use gdbpool::Instant;

use super::client::ClientHistory;
use crate::coverage::Coverage;
use crate::history::History;
use crate::schedule::Choices;

/// A run that is over.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// What the servers did.
    pub server: History,
    /// What the clients asked and were told.
    pub clients: ClientHistory,
    /// The state at the end.
    pub end: EndState,
    /// The hash of everything that happened: equal scenarios have equal hashes.
    pub trace_hash: u128,
    /// The schedule's choices that were not first-in first-out.
    pub choices: Choices,
    /// What was seen in it.
    pub coverage: Coverage,
    /// Statements that the servers began.
    pub statements: u64,
}

/// The state at the end of a run.
#[derive(Clone, Debug)]
pub struct EndState {
    /// When the faults were stopped: before is the safety phase, after it the liveness phase.
    pub healed: Instant,
    /// When the pools were closed.
    pub finished: Instant,
    /// The words of panics, and of the run's own end by deadlock or livelock.
    pub panics: Vec<String>,
    /// Calls that had not ended when the liveness phase was over.
    pub pending: Vec<u64>,
    /// Why the probe at the end failed, if it did.
    pub probe: Option<String>,
    /// The pools before they were closed.
    pub pools: Vec<PoolEnd>,
    /// Sessions that the servers still had after the pools were closed.
    pub sessions: Vec<SessionEnd>,
    /// Marks in the table `ledger` of the primary, in order; `None` when it could not be read.
    pub ledger: Option<Vec<u64>>,
    /// The timeline of the primary.
    pub timeline: u32,
    /// Tasks of the library that were left after the pools were closed.
    pub tasks: usize,
    /// Timers of the library that were left after the pools were closed.
    pub timers: usize,
}

impl Default for EndState {
    /// Nothing is left, at the beginning of time.
    fn default() -> Self {
        let start = Instant::from_nanos(0);
        Self {
            healed: start,
            finished: start,
            panics: Vec::new(),
            pending: Vec::new(),
            probe: None,
            pools: Vec::new(),
            sessions: Vec::new(),
            ledger: None,
            timeline: 1,
            tasks: 0,
            timers: 0,
        }
    }
}

/// A pool at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolEnd {
    /// Its name.
    pub name: String,
    /// The most sessions it may have.
    pub max: u32,
    /// Sessions it has.
    pub size: u32,
    /// Those that are idle.
    pub idle: u32,
    /// Callers that were served past an older one.
    pub overtakes: u64,
    /// The pool's own report, in words.
    pub report: String,
}

/// A session that is left on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// The backend.
    pub pid: i32,
    /// The node's number.
    pub node: u32,
    /// `application_name`: the pool.
    pub application: String,
}
