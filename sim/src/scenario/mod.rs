//! Scenarios: a cluster, programs of clients over `gdbpool`, faults and a schedule, all as plain data.
//!
//! Made by a strategy or by hand, run, judged by [`check`](crate::oracle::check), shrunk, saved, printed. The
//! types here only say what happens; nothing in this file does it.

mod client;
mod end;
mod faults;
mod file;
mod listen;
mod marks;
mod pin;
mod play;
mod property;
mod run;
mod seen;
mod session;
mod statements;
mod strategy;
mod world;
mod wrong;

pub use self::client::{Answer, ClientEvent, ClientHistory, Failure, Fate, Heard, Say};
pub use self::end::{EndState, PoolEnd, Ran, SessionEnd};
pub use self::faults::{FaultClass, any_fault, faults};
pub use self::file::{FileError, SavedScenario, as_test, replay_line};
pub use self::marks::{CHANNELS, PROBE, ROWS, call_of, mark};
pub use self::property::{prove, still_fails};
pub use self::run::{Broken, check_run, run};
pub(crate) use self::seen::MOMENTS;
pub use self::strategy::{
    clients, functions, leases, operations, pins, reads_and_writes, scenarios, scenarios_of, steps, subscriptions,
    topologies, wrongs,
};

use serde::{Deserialize, Serialize};

use crate::fault::{Delay, Fault, Micros};
use crate::schedule::{Choices, Schedule};
use crate::source::debug_as_source;

/// Everything that a run follows from.
///
/// ```
/// use gdbpool_sim::scenario::Scenario;
///
/// // The same seed gives the same scenario.
/// assert_eq!(Scenario::from_seed(7), Scenario::from_seed(7));
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Fixes every choice of the run that is not written down here.
    pub seed: u64,
    /// The nodes, the links and the pools.
    pub topology: Topology,
    /// What each client does. 1 to 6 of them.
    pub clients: Vec<Client>,
    /// What goes wrong, until it is stopped for the second phase.
    pub faults: Vec<Fault>,
    /// Which of several ready tasks comes next.
    pub schedule: Schedule,
    /// The schedule's choices, written down: they hold instead of those the seed would give.
    pub choices: Option<Choices>,
}

/// The nodes, the links and the pools. The primary is node `n0`, the standbys are `n1` and so on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// How many standbys. 0 to 3; each has a read pool of its own, and together those are the balanced set.
    pub standbys: u8,
    /// Sessions of the write pool. 1 to 8.
    pub write_size: u8,
    /// Sessions of each read pool. 1 to 8.
    pub read_size: u8,
    /// How long bytes are under way.
    pub latency: Delay,
    /// How much later standbys replay what they receive.
    pub replay_delay: Micros,
    /// Bytes that a connection takes before its writer has to wait, in each direction. At least 16.
    pub socket_buffer: u32,
    /// Commits wait for a standby.
    pub synchronous: bool,
}

/// One client: steps, one after the other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The steps. At most 99.
    pub steps: Vec<Step>,
}

/// One call on the library, and how its caller behaves.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How long the client rests before it.
    pub pause: Micros,
    /// The call.
    pub op: Op,
    /// The call's own deadline, counted from its start. Without one the pool's default holds.
    pub timeout: Option<Micros>,
    /// What the caller does with it.
    pub patience: Patience,
}

/// What a caller does with a call that it has begun.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Patience {
    /// Waits for the end.
    Await,
    /// Sets the call's `Cancel` after this long.
    Cancel(Micros),
    /// Polls so many times and drops the future: an even number at once, an odd one when it would be polled again.
    Drop(u32),
    /// Lets it run on its own (`spawn()`), and waits for the handle. Calls that cannot be spawned are awaited.
    Spawn,
}

/// A call on the library's public interface. `row` is a row of the table `items`, taken modulo their number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// A function interaction.
    Function {
        /// Rows that it updates, in this order.
        rows: Vec<u8>,
        /// Whether the last update is in a savepoint, and what becomes of that.
        savepoint: Savepoint,
        /// How the function ends.
        end: FunctionEnd,
    },
    /// A row is added to `ledger`.
    Insert {
        /// The call says that it may be sent twice.
        idempotent: bool,
    },
    /// A session is checked out, used by hand, and given back.
    Lease {
        /// What is left behind in it.
        leaves: Leaves,
        /// How long it is held.
        hold: Micros,
    },
    /// A subscription: events are read for a while, then it is cancelled and the barrier awaited.
    Listen {
        /// The channel, taken modulo their number.
        channel: u8,
        /// For how long.
        span: Micros,
        /// It feeds a queue of the client's own; else it is a stream.
        queue: bool,
    },
    /// A notification.
    Notify {
        /// The channel, taken modulo their number.
        channel: u8,
    },
    /// A partial interaction, more inside its pinned transaction, and its end.
    Pin {
        /// Rows that are updated, the first by the partial interaction itself, in this order.
        rows: Vec<u8>,
        /// Rest between two of them.
        hold: Micros,
        /// How long the transaction may stay open; `None` is the pool's default.
        lease: Option<Micros>,
        /// A cursor reads all rows before the end.
        cursor: bool,
        /// The end.
        end: PinEnd,
    },
    /// One row is read with `.read()`.
    Read {
        /// Which.
        row: u8,
        /// The statement has a mark of its own, so that it is not in any session's cache.
        marked: bool,
    },
    /// One row is read on a pool by its name, taken modulo their number.
    ReadOn {
        /// Which pool: 0 is the write pool, then the read pools.
        pool: u8,
        /// Which row.
        row: u8,
    },
    /// A statement that takes a while (`pg_sleep`).
    Slow {
        /// How long.
        span: Micros,
        /// It is declared a write, as every call is that says nothing.
        write: bool,
    },
    /// One row is updated.
    Update {
        /// Which.
        row: u8,
    },
    /// A statement that fails for certain, and whose caller is told so.
    Wrong {
        /// How.
        how: Wrong,
    },
    /// An update that says it is a read: the server has to refuse it.
    WriteAsRead {
        /// Which row.
        row: u8,
    },
    /// A row is added to `ledger`, on a pool by its name: refused where that leads to a standby.
    WriteOn {
        /// Which pool: 0 is the write pool, then the read pools.
        pool: u8,
    },
}

/// Whether a function uses a savepoint, and what becomes of that.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Savepoint {
    /// It is kept.
    Kept,
    /// None is used.
    None,
    /// It is taken back.
    TakenBack,
}

/// How a function ends.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FunctionEnd {
    /// It returns `Ok`.
    Commit,
    /// It gives its handle to a task, which uses it about when the function returns `Ok`.
    Escape,
    /// It returns the application's own error.
    Fail,
    /// It panics.
    Panic,
    /// A statement of it fails, it keeps that to itself, and returns `Ok`.
    Swallow,
}

/// How a pinned transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinEnd {
    /// By commit.
    Commit,
    /// Its handle is dropped.
    Drop,
    /// Its client waits until its lease time is over, and tries to use it.
    Expire,
    /// By rollback.
    Rollback,
    /// By commit, after a statement failed.
    SpoiltCommit,
}

/// What is wrong with a statement that fails for certain.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrong {
    /// It divides by zero: 22012.
    Division,
    /// It names a prepared statement that is not there: 26000.
    NoStatement,
    /// It names a table that is not there: 42P01.
    NoTable,
    /// It goes back to a savepoint outside of a transaction: 25P01.
    NoTransaction,
    /// It asks a standby what only a primary has: 55000. On a primary it succeeds.
    Standby,
}

/// What a lease leaves behind in its session.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leaves {
    /// An advisory lock.
    AdvisoryLock,
    /// A transaction in which a statement failed.
    FailedTransaction,
    /// A channel that is listened to.
    Listen,
    /// Nothing.
    Nothing,
    /// An open transaction that wrote.
    OpenTransaction,
    /// A setting.
    Setting,
    /// A temporary table.
    TempTable,
}

debug_as_source!(
    Client,
    FunctionEnd,
    Leaves,
    Op,
    Patience,
    PinEnd,
    Savepoint,
    Scenario,
    Step,
    Topology,
    Wrong,
);

impl Scenario {
    /// How many things happen in it: steps of clients and faults. What shrinking makes small.
    #[must_use]
    pub fn size(&self) -> usize {
        self.faults.len() + self.clients.iter().map(|client| client.steps.len()).sum::<usize>()
    }
}

impl Topology {
    /// The name of the write pool.
    pub const WRITE_POOL: &'static str = "primary";

    /// The names of all pools, the write pool first.
    #[must_use]
    pub fn pools(&self) -> Vec<String> {
        let reads = (1..=self.standbys).map(|node| format!("replica-{node}"));
        std::iter::once(Self::WRITE_POOL.to_owned()).chain(reads).collect()
    }

    /// The name of one pool: 0 is the write pool; beyond the last one they begin anew.
    #[must_use]
    pub fn pool(&self, number: u8) -> String {
        match number % (self.standbys + 1) {
            0 => Self::WRITE_POOL.to_owned(),
            node => format!("replica-{node}"),
        }
    }

    /// The most sessions of a pool of this name.
    #[must_use]
    pub fn size_of(&self, pool: &str) -> u8 {
        if pool == Self::WRITE_POOL {
            self.write_size
        } else {
            self.read_size
        }
    }
}
