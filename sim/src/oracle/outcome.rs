//! O2: what a caller was told of its work is true: committed is in the server's ledger, not executed and rolled back are
//! not, and an answer belongs to its question. O3: nothing takes effect twice, unless it was declared safe to repeat.

use std::collections::BTreeMap;

use super::index::{CallView, Index};
use super::{Oracle, Violation};
use crate::history::{End, EventKind};
use crate::scenario::{Answer, Fate, Say, call_of};

/// Statements of a call that do not write.
const READS: std::ops::Range<u64> = 60..70;

/// The statement of a handle that was taken along: it may be in its transaction, and nowhere else (see pinning).
const ESCAPED: u64 = 80;

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    for call in index.calls.values() {
        fates(index, call, found);
        answers(index, call, found);
    }
    twice(index, found);
}

fn fates(index: &Index<'_>, call: &CallView<'_>, found: &mut Vec<Violation>) {
    let Some((ended, fate, kept)) = call.ended() else {
        return;
    };
    let number = call.asked.call;
    let done = index.commits.range(number * 100..(number + 1) * 100);
    let done = done.filter(|(op, _)| !READS.contains(&(**op % 100)) && **op % 100 != ESCAPED && !call.is_read());
    match fate {
        Fate::Committed => {
            for op in kept.iter().filter(|op| !is_done(index, **op)) {
                let text = format!("told that {op} is committed, and no server committed it");
                found.push(Violation::new(Oracle::O2, text).with(ended));
            }
            for (op, commits) in done.filter(|(op, _)| !kept.contains(op)) {
                let text = format!("{op} was not to be part of the commit, and is");
                found.push(Violation::new(Oracle::O2, text).with(commits[0]).with(ended));
            }
        }
        Fate::NotExecuted | Fate::RolledBack => {
            for (op, commits) in done {
                let text = format!("told that {op} is not done ({fate:?}), and it is committed");
                found.push(Violation::new(Oracle::O2, text).with(commits[0]).with(ended));
            }
        }
        Fate::Unknown => {}
    }
}

/// A statement's mark is in a commit, or a notification's payload is in a queue.
fn is_done(index: &Index<'_>, op: u64) -> bool {
    index.commits.contains_key(&op) || {
        let wanted = op.to_string();
        index
            .case
            .server
            .events()
            .iter()
            .any(|event| matches!(&event.kind, EventKind::NotifyQueued { payload, .. } if **payload == *wanted))
    }
}

fn answers(index: &Index<'_>, call: &CallView<'_>, found: &mut Vec<Violation>) {
    for event in &call.events {
        match &event.say {
            Say::Statement {
                answer: Answer::Foreign(how),
                ..
            } => {
                let text = format!("the answer belongs to another question: {how}");
                found.push(Violation::new(Oracle::O2, text).with(*event));
            }
            Say::Statement {
                op,
                answer: Answer::Done(_),
            } if index.begun.contains_key(op) && !has_ended_well(index, *op) => {
                let text = format!("told that {op} was done, and no server ended it well");
                found.push(Violation::new(Oracle::O2, text).with(*event));
            }
            _ => {}
        }
    }
}

fn has_ended_well(index: &Index<'_>, wanted: u64) -> bool {
    index.case.server.events().iter().any(|event| {
        matches!(&event.kind, EventKind::StatementEnded { op: Some(op), end: End::Tag(_), .. } if *op == wanted)
    })
}

fn twice(index: &Index<'_>, found: &mut Vec<Violation>) {
    for (op, commits) in &index.commits {
        let Some(call) = index.call(*op) else { continue };
        if call.is_read() || call.is_idempotent() || READS.contains(&(op % 100)) || commits.len() < 2 {
            continue;
        }
        let text = format!("{op} took effect {} times", commits.len());
        let violation = Violation::new(Oracle::O3, text);
        found.push(
            commits
                .iter()
                .fold(violation, |violation, commit| violation.with(*commit)),
        );
    }
    let mut payloads: BTreeMap<u64, u32> = BTreeMap::new();
    for event in index.case.server.events() {
        if let EventKind::NotifyQueued { payload, .. } = &event.kind
            && let Ok(op) = payload.parse::<u64>()
            && index.calls.contains_key(&call_of(op))
        {
            let count = payloads.entry(op).or_default();
            *count += 1;
            if *count == 2 {
                let text = format!("the notification {op} was sent twice");
                found.push(Violation::new(Oracle::O3, text).with(event));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::history::Status;
    use crate::scenario::Op;

    fn insert() -> Bench {
        let mut bench = Bench::new(vec![Op::Insert { idempotent: false }]);
        bench.asked(0);
        bench
    }

    #[test]
    fn a_commit_that_never_was_is_found() {
        let mut bench = insert();
        bench.ended(0, Fate::Committed, &[0]);
        bench.finds(&[Oracle::O2]);
    }

    #[test]
    fn a_rollback_that_was_a_commit_is_found() {
        for fate in [Fate::RolledBack, Fate::NotExecuted] {
            let mut bench = insert();
            bench.committed(1, &[0]);
            bench.ended(0, fate, &[0]);
            bench.finds(&[Oracle::O2]);
        }
        let mut bench = insert();
        bench.committed(1, &[0]);
        bench.ended(0, Fate::Unknown, &[0]);
        bench.finds(&[]);
    }

    #[test]
    fn what_was_taken_back_and_committed_all_the_same_is_found() {
        let mut bench = insert();
        bench.committed(1, &[0, 1]);
        bench.ended(0, Fate::Committed, &[0]);
        bench.finds(&[Oracle::O2]);
    }

    #[test]
    fn an_answer_to_another_question_is_found() {
        let mut bench = Bench::new(vec![Op::Read { row: 0, marked: true }]);
        bench.asked(0);
        bench.statement(0, Answer::Foreign("row 3".into()));
        bench.ended(0, Fate::Unknown, &[]);
        bench.finds(&[Oracle::O2]);
    }

    #[test]
    fn an_answer_that_no_server_gave_is_found() {
        let mut bench = insert();
        bench.open(1, "primary");
        bench.began(1, 0, Status::Idle);
        bench.statement(0, Answer::Done(1));
        bench.finds(&[Oracle::O2]);
    }

    #[test]
    fn an_effect_that_comes_twice_is_found() {
        let mut bench = insert();
        bench.committed(1, &[0]);
        bench.committed(2, &[0]);
        bench.ended(0, Fate::Committed, &[0]);
        bench.finds(&[Oracle::O3]);
        let mut bench = Bench::new(vec![Op::Notify { channel: 0 }]);
        bench.asked(0);
        bench.queued("alpha", "0");
        bench.ended(0, Fate::Committed, &[0]);
        bench.finds(&[]);
        bench.queued("alpha", "0");
        bench.finds(&[Oracle::O3]);
    }
}
