//! Oracles: what has to hold of every run, judged from the server's history, the clients' history and the end state.
//!
//! Plain functions over data: they run nothing. One file per family; each states in its header what it holds to be true.
//! Where a fault makes something unavoidable, the oracle names the fault and looks away; nowhere else.

mod cancel;
mod clean;
mod durability;
mod index;
mod listening;
mod liveness;
mod outcome;
mod pinning;
mod protocol;
mod routing;
mod slots;
#[cfg(test)]
mod testing;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::cancel::{ANSWER, PIN};
use self::index::Index;
use crate::history::History;
use crate::scenario::{ClientHistory, EndState, Ran, Scenario};

/// Which promise was broken: the names of the study, `routing` for those of routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Oracle {
    /// An acknowledged commit is there at the end.
    O1,
    /// What the caller was told of its work is true.
    O2,
    /// Nothing is done twice.
    O3,
    /// A transaction runs on one backend, with nothing foreign in it.
    O6,
    /// In a failed transaction only its end follows from the pool.
    O7,
    /// A session that is given out is pristine.
    O8,
    /// A subscription gets everything once, in order, or a gap; after its barrier, nothing.
    O9,
    /// A cancel request stops only the statement of who asked for it.
    O10,
    /// No slot is lost, and there are no more sessions than that.
    O11,
    /// Callers are served in the order they came.
    O12,
    /// Once nothing is wrong any more, everything comes to its end.
    O15,
    /// At the end nothing is left over.
    O16,
    /// The server understands everything the client says.
    O17,
    /// Whoever has a deadline hears by then.
    O18,
    /// Interactions run where they should, and reads change nothing.
    Routing,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub oracle: Oracle,
    /// How, in words.
    pub text: String,
    /// The events that show it, in order.
    pub events: Vec<String>,
}

/// What oracles look at.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What was run.
    pub scenario: &'a Scenario,
    /// What the servers did.
    pub server: &'a History,
    /// What the clients were told.
    pub clients: &'a ClientHistory,
    /// How it ended.
    pub end: &'a EndState,
}

/// Everything that is wrong with a run, the oracles in order.
#[must_use]
pub fn check(scenario: &Scenario, ran: &Ran) -> Vec<Violation> {
    judge(Case {
        scenario,
        server: &ran.server,
        clients: &ran.clients,
        end: &ran.end,
    })
}

/// Like [`check`], of a case put together by hand.
#[must_use]
pub fn judge(case: Case<'_>) -> Vec<Violation> {
    let index = Index::of(case);
    let mut found = Vec::new();
    let families = [
        durability::check,
        outcome::check,
        pinning::check,
        clean::check,
        listening::check,
        cancel::check,
        slots::check,
        liveness::check,
        protocol::check,
        routing::check,
    ];
    for family in families {
        family(&index, &mut found);
    }
    found
}

/// The run's loss report: marks of acknowledged commits that a promotion left behind.
#[must_use]
pub fn lost_commits(scenario: &Scenario, ran: &Ran) -> Vec<u64> {
    let (server, clients, end) = (&ran.server, &ran.clients, &ran.end);
    durability::lost(&Index::of(Case {
        scenario,
        server,
        clients,
        end,
    }))
}

impl Violation {
    pub(crate) fn new(oracle: Oracle, text: impl Into<String>) -> Self {
        Self {
            oracle,
            text: text.into(),
            events: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, event: &impl fmt::Display) -> Self {
        self.events.push(event.to_string());
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.oracle, self.text)?;
        for event in &self.events {
            write!(f, "\n    {event}")?;
        }
        Ok(())
    }
}
