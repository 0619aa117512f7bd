//! O10: a cancel request stops only a statement whose owner asked for it: by cancelling, dropping, a deadline, the end of a
//! lease time, or by having left.

use std::time::Duration;

use super::index::{CallView, Index};
use super::{Oracle, Violation};
use crate::history::{Event, EventKind};
use crate::scenario::{Op, Say};

/// Longer than this no answer is waited for by the pools of a run.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// How long transactions of a run may stay pinned when their call says nothing.
pub(crate) const PIN: Duration = Duration::from_secs(5);

/// The pools' long deadlines go by a clock that may be so much behind.
const COARSE: Duration = Duration::from_secs(1);

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    // A server that says a request was dealt with, and deals with it later, cannot be defended against.
    if index.has_late_cancels() {
        return;
    }
    for event in index.case.server.events() {
        let EventKind::CancelArrived {
            hit: true,
            op: Some(op),
            ..
        } = event.kind
        else {
            continue;
        };
        // The runner's own probe is cut off when its time is up, and tells nobody.
        let Some(call) = index.call(op).filter(|call| call.step.is_some()) else {
            continue;
        };
        if !has_asked(call, event) {
            let text = format!("a cancel request stopped {op}, whose owner asked for none");
            found.push(Violation::new(Oracle::O10, text).with(call.asked).with(event));
        }
    }
}

fn has_asked(call: &CallView<'_>, hit: &Event) -> bool {
    let before = |of: &dyn Fn(&Say) -> bool| call.first(of).is_some_and(|event| event.after <= hit.seq);
    let over = call.deadline().is_some_and(|deadline| deadline <= hit.at);
    let left = before(&|say| {
        matches!(
            say,
            Say::Cancelled | Say::Dropped | Say::Ended { .. } | Say::Unpinning | Say::Returned
        )
    });
    let lease = match call.op() {
        Some(Op::Pin { lease, .. }) => Some(lease.map_or(PIN, |span| span.span())),
        _ => None,
    };
    let pinned = call.first(|say| matches!(say, Say::Pinned { .. }));
    let expired = match (lease, pinned) {
        (Some(span), Some(pinned)) => pinned.at + span <= hit.at,
        _ => false,
    };
    over || left || expired || hit.at - call.asked.at + COARSE >= ANSWER
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::history::Status;

    #[test]
    fn a_hit_on_a_neighbour_is_found() {
        let mut bench = Bench::new(vec![Op::Update { row: 0 }, Op::Update { row: 1 }]);
        bench.open(1, "primary");
        bench.asked(0);
        bench.began(1, 0, Status::Idle);
        bench.say(0, Say::Dropped);
        let hit = |op| EventKind::CancelArrived {
            pid: 1,
            hit: true,
            op: Some(op),
        };
        bench.server(hit(0));
        bench.finds(&[]);
        bench.asked(1);
        bench.began(1, 100, Status::Idle);
        bench.server(hit(100));
        bench.finds(&[Oracle::O10]);
    }
}
