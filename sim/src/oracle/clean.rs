//! O7: in a failed transaction nothing but its end comes from the pool itself. O8: a session that is given out is
//! pristine: no transaction of somebody else, no settings, temporary tables, cursors, channels, locks left behind.

use std::collections::BTreeMap;

use super::index::Index;
use super::{Oracle, Violation};
use crate::history::{EventKind, Leftover, Status};
use crate::scenario::call_of;

/// What may follow a failure, from the pool: words that end a transaction or go back in it.
const ENDS: [&str; 5] = ["ABORT", "COMMIT", "END", "RELEASE", "ROLLBACK"];

/// Settings that the library keeps in step itself, statement by statement.
const KEPT_IN_STEP: [&str; 2] = ["default_transaction_read_only", "transaction_read_only"];

/// Where a backend stands.
#[derive(Default)]
struct Seen {
    last_call: Option<u64>,
    /// When the open transaction began.
    transaction: Option<u64>,
}

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut seen: BTreeMap<i32, Seen> = BTreeMap::new();
    for event in index.case.server.events() {
        let Some(pid) = event.kind.pid() else { continue };
        let seen = seen.entry(pid).or_default();
        match &event.kind {
            EventKind::Found { op, leftovers, .. } if seen.last_call != Some(call_of(*op)) => {
                let wrong: Vec<_> = leftovers.iter().filter(|left| !is_kept_in_step(left)).collect();
                if !wrong.is_empty() && index.call(*op).is_some() {
                    let text = format!("backend {pid} was given to {op} with {wrong:?} left over");
                    found.push(Violation::new(Oracle::O8, text).with(event));
                }
            }
            EventKind::StatementBegan { op, status, text, .. } => {
                if *status == Status::Idle {
                    seen.transaction = Some(event.seq);
                }
                if *status == Status::Failed && op.is_none() && !may_follow_failure(text) {
                    let words = format!("backend {pid} got \"{text}\" in a failed transaction");
                    found.push(Violation::new(Oracle::O7, words).with(event));
                }
                let Some(op) = op else { continue };
                let is_new = seen.last_call.replace(call_of(*op)) != Some(call_of(*op));
                let asked = index.call(*op).map(|call| call.asked);
                if let Some(asked) = asked
                    && is_new
                    && *status != Status::Idle
                    && seen.transaction.is_some_and(|began| began < asked.after)
                {
                    let text =
                        format!("backend {pid} was given to {op} inside a transaction that began before it asked");
                    found.push(Violation::new(Oracle::O8, text).with(asked).with(event));
                }
            }
            _ => {}
        }
    }
}

fn is_kept_in_step(left: &Leftover) -> bool {
    matches!(left, Leftover::Setting(name) if KEPT_IN_STEP.contains(&&**name))
}

fn may_follow_failure(text: &str) -> bool {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    // The clients' own statement that fails for certain carries no mark.
    ENDS.contains(&word.to_ascii_uppercase().as_str()) || text.starts_with("INSERT INTO items")
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::scenario::Op;

    fn two_updates() -> Bench {
        let mut bench = Bench::new(vec![Op::Update { row: 0 }, Op::Update { row: 1 }]);
        bench.open(1, "primary");
        bench
    }

    #[test]
    fn leftovers_are_found() {
        let mut bench = two_updates();
        bench.asked(0);
        for (left, wrong) in [("default_transaction_read_only", false), ("lock_timeout", true)] {
            bench.server(EventKind::Found {
                pid: 1,
                op: 0,
                leftovers: vec![Leftover::Setting(left.into())],
            });
            bench.finds(if wrong { &[Oracle::O8] } else { &[] });
        }
    }

    #[test]
    fn the_transaction_of_somebody_else_is_found() {
        let mut bench = two_updates();
        bench.asked(0);
        bench.text(1, "BEGIN", Status::Idle);
        bench.began(1, 0, Status::Transaction);
        bench.asked(1);
        bench.server(EventKind::RolledBack {
            pid: 2,
            xid: None,
            ops: Vec::new(),
        });
        bench.finds(&[]);
        bench.began(1, 100, Status::Transaction);
        bench.finds(&[Oracle::O6, Oracle::O8]);
    }

    #[test]
    fn a_question_in_a_failed_transaction_is_found() {
        let mut bench = two_updates();
        bench.text(1, "ROLLBACK", Status::Failed);
        bench.finds(&[]);
        bench.text(1, "SELECT 1", Status::Failed);
        bench.finds(&[Oracle::O7]);
    }
}
