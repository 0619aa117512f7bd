//! O15: once faults have stopped, every call ends and a probe that writes, reads and listens succeeds. O16: after the pools
//! are closed no task, timer or session is left. O18: whoever has a deadline hears by then, or by the grace that a write
//! has.

use std::time::Duration;

use super::index::{CallView, Index};
use super::{Oracle, Violation};
use crate::scenario::{Op, Say};

/// The pools' grace for the last word on a write, which may be needed for the statement and for its COMMIT.
const GRACE: Duration = Duration::from_millis(500);

/// What may come on top: the way of the last message, and rest of the machine.
const EPSILON: Duration = Duration::from_millis(1_500);

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let end = index.case.end;
    for panic in &end.panics {
        found.push(Violation::new(Oracle::O15, format!("a panic: {panic}")));
    }
    for call in &end.pending {
        let violation = Violation::new(Oracle::O15, format!("call {call} never ended"));
        let asked = index.calls.get(call).map(|call| call.asked);
        found.push(match asked {
            Some(asked) => violation.with(asked),
            None => violation,
        });
    }
    if let Some(probe) = &end.probe {
        let text = format!("with nothing wrong any more, the probe failed: {probe}");
        found.push(Violation::new(Oracle::O15, text));
    }
    if end.tasks > 0 || end.timers > 0 {
        let text = format!("after close, {} tasks and {} timers are left", end.tasks, end.timers);
        found.push(Violation::new(Oracle::O16, text));
    }
    for session in &end.sessions {
        let text = format!(
            "after close, backend {} of pool {} is left on node {}",
            session.pid, session.application, session.node
        );
        found.push(Violation::new(Oracle::O16, text));
    }
    for call in index.calls.values() {
        deadline(index, call, found);
    }
}

fn deadline(index: &Index<'_>, call: &CallView<'_>, found: &mut Vec<Violation>) {
    // Of these, the deadline is that of a part.
    if matches!(
        call.op(),
        Some(Op::Lease { .. } | Op::Listen { .. } | Op::Pin { .. } | Op::Wrong { .. }) | None
    ) {
        return;
    }
    let cancelled = call.first(|say| matches!(say, Say::Cancelled)).map(|event| event.at);
    let Some(until) = [call.deadline(), cancelled].into_iter().flatten().min() else {
        return;
    };
    let Some((ended, ..)) = call.ended() else { return };
    let latest = until + GRACE + GRACE + EPSILON + index.jumps().span();
    if ended.at > latest {
        let text = format!("had to end by {until:?}, ended at {:?}", ended.at);
        found.push(Violation::new(Oracle::O18, text).with(call.asked).with(ended));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::scenario::{Fate, SessionEnd};

    #[test]
    fn what_never_ends_is_found() {
        let mut bench = Bench::new(vec![Op::Update { row: 0 }]);
        bench.asked(0);
        bench.end.pending = vec![0];
        bench.finds(&[Oracle::O15]);
        bench.end.pending.clear();
        bench.end.probe = Some("timeout".into());
        bench.finds(&[Oracle::O15]);
        bench.end.probe = None;
        bench.end.panics = vec!["deadlock".into()];
        bench.finds(&[Oracle::O15]);
    }

    #[test]
    fn what_is_left_over_is_found() {
        let mut bench = Bench::new(Vec::new());
        bench.end.tasks = 1;
        bench.finds(&[Oracle::O16]);
        bench.end.tasks = 0;
        bench.end.sessions = vec![SessionEnd {
            pid: 1,
            node: 0,
            application: "primary".into(),
        }];
        bench.finds(&[Oracle::O16]);
    }

    #[test]
    fn a_deadline_that_is_missed_is_found() {
        let mut bench = Bench::new(vec![Op::Update { row: 0 }]);
        bench.asked_until(0, Duration::from_millis(10));
        bench.pass(Duration::from_millis(500));
        let mut late = bench.clone();
        bench.ended(0, Fate::Unknown, &[]);
        bench.finds(&[]);
        late.pass(Duration::from_secs(3));
        late.ended(0, Fate::Unknown, &[]);
        late.finds(&[Oracle::O18]);
    }
}
