//! What goes wrong on a node at present: data that sessions, acceptance and replication look at.
//!
//! Set through the cluster's handles and by injected faults; it acts on nothing by itself.

use std::time::Duration;

use crate::fault::{CancelFate, FailAt, Refusal, Unsolicited};
use crate::wire::Report;

/// The faults of one node.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// What becomes of cancel requests.
    pub(crate) cancel: Option<CancelFate>,
    /// The next COMMIT ends the connection behind its CommandComplete: with a reset, or not.
    pub(crate) cut_commit: Option<bool>,
    /// The next so many statements fail so, at that step.
    pub(crate) fail: Option<Failing>,
    /// The most sessions, instead of `max_connections`.
    pub(crate) max_sessions: Option<usize>,
    /// Nothing moves.
    pub(crate) paused: bool,
    pub(crate) refuse: Option<Refusal>,
    /// A setting is another one than the node is configured with.
    pub(crate) setting: bool,
    /// Every statement takes this much longer.
    pub(crate) slow: Option<Duration>,
    /// Messages nobody asked for: which, and in how many of a hundred places.
    pub(crate) unsolicited: Option<(Unsolicited, u8)>,
    /// Sessions do not notice that their clients are gone.
    pub(crate) zombies: bool,
}

/// Statements to come that fail.
#[derive(Clone)]
pub(crate) struct Failing {
    pub(crate) sqlstate: String,
    pub(crate) at: FailAt,
    pub(crate) count: u32,
}

impl Faults {
    /// The error of a statement that is made to fail at this step; one fewer is left then.
    pub(crate) fn fail_at(&mut self, at: FailAt) -> Option<Report> {
        let failing = self.fail.as_mut().filter(|failing| failing.at == at)?;
        let report = Report::error(&failing.sqlstate, message_of(&failing.sqlstate));
        failing.count -= 1;
        if failing.count == 0 {
            self.fail = None;
        }
        Some(report)
    }
}

/// The last words to a client that is not let in.
pub(crate) fn refusal(why: Refusal, user: &str) -> Report {
    match why {
        Refusal::Password => {
            let text = format!("password authentication failed for user \"{user}\"");
            Report::fatal("28P01", text)
        }
        Refusal::ShuttingDown => Report::fatal("57P03", "the database system is shutting down"),
        Refusal::StartingUp => Report::fatal("57P03", "the database system is starting up"),
        Refusal::TooMany => Report::fatal("53300", "sorry, too many clients already"),
    }
}

/// PostgreSQL's words for the errors that are injected most.
fn message_of(sqlstate: &str) -> &'static str {
    match sqlstate {
        "23505" => "duplicate key value violates unique constraint",
        "40001" => "could not serialize access due to concurrent update",
        "40P01" => "deadlock detected",
        "53200" => "out of memory",
        "55P03" => "canceling statement due to lock timeout",
        "57014" => "canceling statement due to user request",
        _ => "an injected fault",
    }
}
