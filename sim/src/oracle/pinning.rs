//! O6: every statement of a transaction runs on one backend, between its beginning and its end nothing foreign does, and a
//! pinned transaction is never moved: when its backend is lost or its time is over, it says so.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{CallView, Index};
use super::{Oracle, Violation};
use crate::history::{Event, EventKind, Status};
use crate::scenario::{Answer, Op, Say, call_of};

/// The statement of a handle that was taken along, and one that every function has.
const ESCAPED: u64 = 80;
const ALWAYS: u64 = 50;

/// The statement that a client tries after its pinned transaction's time is over.
const LATE: u64 = 70;

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    foreign(index, found);
    escaped(index, found);
    for call in index.calls.values() {
        if let Some(Op::Pin { .. }) = call.op() {
            moved(index, call, found);
            late(call, found);
        }
    }
}

/// Statements of two calls within one transaction.
fn foreign(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut open: BTreeMap<i32, (&Event, u64)> = BTreeMap::new();
    for event in index.case.server.events() {
        match &event.kind {
            EventKind::StatementBegan { pid, op, status, .. } => {
                if *status == Status::Idle {
                    open.remove(pid);
                }
                let Some(op) = op else { continue };
                // A statement of its own is over by itself; the next one says that it begins idle.
                let (first, call) = *open.entry(*pid).or_insert((event, call_of(*op)));
                if call != call_of(*op) && *status != Status::Idle {
                    let text = format!("backend {pid} ran {op} inside the transaction of call {call}");
                    found.push(Violation::new(Oracle::O6, text).with(first).with(event));
                }
            }
            EventKind::Committed { pid, .. }
            | EventKind::RolledBack { pid, .. }
            | EventKind::SessionClosed { pid, .. } => {
                open.remove(pid);
            }
            _ => {}
        }
    }
}

/// A handle's statement that took effect outside of its transaction.
fn escaped(index: &Index<'_>, found: &mut Vec<Violation>) {
    for (op, commits) in index.commits.iter().filter(|(op, _)| **op % 100 == ESCAPED) {
        for commit in commits {
            let EventKind::Committed { ops, .. } = &commit.kind else {
                continue;
            };
            if !ops.contains(&(op - ESCAPED + ALWAYS)) {
                let text = format!("{op} took effect through a handle whose transaction was over");
                found.push(Violation::new(Oracle::O6, text).with(*commit));
            }
        }
    }
}

/// A pinned transaction on two backends.
fn moved(index: &Index<'_>, call: &CallView<'_>, found: &mut Vec<Violation>) {
    let number = call.asked.call;
    let begun = index.begun.range(number * 100..(number + 1) * 100);
    let begun: Vec<_> = begun.flat_map(|(_, events)| events.iter().copied()).collect();
    let pids: BTreeSet<i32> = begun.iter().filter_map(|event| event.kind.pid()).collect();
    let pinned = call.events.iter().find_map(|event| match event.say {
        Say::Pinned { pid } => Some(pid),
        _ => None,
    });
    let wrong = match pinned {
        Some(pinned) => pids.iter().any(|pid| *pid != pinned),
        None => pids.len() > 1,
    };
    if wrong {
        let text = format!("the pinned transaction of call {number} ran on backends {pids:?}");
        let violation = Violation::new(Oracle::O6, text);
        found.push(begun.iter().fold(violation, |violation, event| violation.with(*event)));
    }
}

/// Used after its time.
fn late(call: &CallView<'_>, found: &mut Vec<Violation>) {
    for event in &call.events {
        if let Say::Statement {
            op,
            answer: Answer::Done(_),
        } = &event.say
            && op % 100 == LATE
        {
            let text = "a pinned transaction could be used after its lease time";
            found.push(Violation::new(Oracle::O6, text).with(*event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::fault::Micros;
    use crate::scenario::{Fate, PinEnd};

    fn pin(end: PinEnd) -> Op {
        Op::Pin {
            rows: vec![0, 1],
            hold: Micros(0),
            lease: None,
            cursor: false,
            end,
        }
    }

    #[test]
    fn a_pin_that_moves_is_found() {
        let mut bench = Bench::new(vec![pin(PinEnd::Rollback)]);
        bench.open(1, "primary");
        bench.open(2, "primary");
        bench.asked(0);
        bench.began(1, 0, Status::Transaction);
        bench.say(0, Say::Pinned { pid: 1 });
        bench.ran(1, 1, Status::Transaction, 0);
        bench.finds(&[]);
        bench.ran(2, 50, Status::Transaction, 0);
        bench.finds(&[Oracle::O6]);
    }

    #[test]
    fn a_guest_in_a_transaction_is_found() {
        let mut bench = Bench::new(vec![pin(PinEnd::Rollback), Op::Update { row: 1 }]);
        bench.open(1, "primary");
        bench.asked(0);
        bench.asked(1);
        bench.began(1, 0, Status::Transaction);
        bench.began(1, 100, Status::Transaction);
        bench.finds(&[Oracle::O6]);
    }

    #[test]
    fn a_handle_that_outlives_its_transaction_is_found() {
        let mut bench = Bench::new(vec![Op::Function {
            rows: vec![0],
            savepoint: crate::scenario::Savepoint::None,
            end: crate::scenario::FunctionEnd::Escape,
        }]);
        bench.asked(0);
        bench.committed(1, &[0, 50, 80]);
        bench.ended(0, Fate::Committed, &[0, 50]);
        bench.finds(&[]);
        bench.committed(1, &[80]);
        bench.finds(&[Oracle::O3, Oracle::O6]);
    }

    #[test]
    fn a_pin_that_outlives_its_time_is_found() {
        let mut bench = Bench::new(vec![pin(PinEnd::Expire)]);
        bench.asked(0);
        bench.statement(70, Answer::Done(1));
        bench.ended(0, Fate::RolledBack, &[]);
        bench.finds(&[Oracle::O6]);
    }
}
