//! O11: slots: at the end every one is idle again, and the server never has more sessions than they are. O12: callers are
//! served in the order they came.

use std::collections::BTreeMap;

use super::index::{CallView, Index};
use super::{Oracle, Violation};
use crate::history::EventKind;
use crate::scenario::{Op, Say};

/// Connections of a pool's listener, which take no slot: the one that listens, its successor, and the self-test's.
const BESIDE: usize = 3;

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    at_the_end(index, found);
    at_once(index, found);
    order(index, found);
}

fn at_the_end(index: &Index<'_>, found: &mut Vec<Violation>) {
    for pool in &index.case.end.pools {
        if pool.idle != pool.size || pool.size > pool.max {
            let text = format!(
                "at the end, not all slots of pool {} are idle again: {pool:?}",
                pool.name
            );
            found.push(Violation::new(Oracle::O11, text));
        }
        if pool.overtakes > 0 {
            let text = format!("pool {} let {} callers overtake others", pool.name, pool.overtakes);
            found.push(Violation::new(Oracle::O12, text));
        }
    }
}

/// How many sessions the servers have at once. Servers notice late when a connection breaks, so only where none does.
fn at_once(index: &Index<'_>, found: &mut Vec<Violation>) {
    if !index.is_faultless() {
        return;
    }
    let mut live: BTreeMap<&str, usize> = BTreeMap::new();
    for event in index.case.server.events() {
        let Some(session) = event.kind.pid().and_then(|pid| index.sessions.get(&pid)) else {
            continue;
        };
        let count = live.entry(session.application).or_default();
        match event.kind {
            EventKind::SessionOpened { .. } => *count += 1,
            EventKind::SessionClosed { .. } => *count -= 1,
            _ => continue,
        }
        let limit = usize::from(index.case.scenario.topology.size_of(session.application)) + BESIDE;
        if *count > limit {
            let text = format!("pool {} has {count} sessions, over {limit}", session.application);
            found.push(Violation::new(Oracle::O11, text).with(event));
        }
    }
}

/// Whoever came later is not served before: judged by first statements, where nothing is wrong and nobody leaves.
fn order(index: &Index<'_>, found: &mut Vec<Violation>) {
    if !index.is_faultless() {
        return;
    }
    let topology = &index.case.scenario.topology;
    // Between its checkout and its first statement a call prepares: as many as there are sessions may pass it there.
    let bound = usize::from(topology.write_size) * 2 + 2;
    let served: Vec<_> = index
        .calls
        .values()
        .filter_map(|call| Some((call, first_statement(index, call)?)))
        .collect();
    for (call, began) in &served {
        let overtakers = served.iter().filter(|(other, other_began)| {
            other.asked.at > call.asked.at && other.asked.after > call.asked.after && other_began < began
        });
        let count = overtakers.count();
        if count > bound {
            let text = format!("{count} callers that came later were served first, over {bound}");
            found.push(Violation::new(Oracle::O12, text).with(call.asked));
        }
    }
}

/// When its first statement began, of a call that waits for a session of the write pool and for nothing else.
fn first_statement(index: &Index<'_>, call: &CallView<'_>) -> Option<u64> {
    let is_of_write_pool = matches!(
        call.op(),
        Some(Op::Function { .. } | Op::Insert { .. } | Op::Lease { .. } | Op::Pin { .. } | Op::Update { .. })
    );
    if !is_of_write_pool || call.first(|say| matches!(say, Say::Cancelled | Say::Dropped)).is_some() {
        return None;
    }
    let number = call.asked.call;
    let begun = index.begun.range(number * 100..(number + 1) * 100);
    begun.flat_map(|(_, events)| events.iter().map(|event| event.seq)).min()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::history::Status;
    use crate::scenario::PoolEnd;

    fn pool() -> PoolEnd {
        PoolEnd {
            name: "primary".into(),
            max: 2,
            size: 2,
            idle: 2,
            overtakes: 0,
            report: String::new(),
        }
    }

    #[test]
    fn a_slot_that_does_not_come_back_is_found() {
        let mut bench = Bench::new(Vec::new());
        bench.end.pools = vec![pool()];
        bench.finds(&[]);
        bench.end.pools = vec![PoolEnd { idle: 1, ..pool() }];
        bench.finds(&[Oracle::O11]);
        bench.end.pools = vec![PoolEnd { overtakes: 1, ..pool() }];
        bench.finds(&[Oracle::O12]);
    }

    #[test]
    fn more_sessions_than_slots_are_found() {
        let mut bench = Bench::new(Vec::new());
        for pid in 1..=5 {
            bench.open(pid, "primary");
        }
        bench.finds(&[]);
        bench.open(6, "primary");
        bench.finds(&[Oracle::O11]);
    }

    #[test]
    fn a_caller_that_many_overtake_is_found() {
        let mut bench = Bench::new((0..10).map(|_| Op::Update { row: 0 }).collect());
        bench.open(1, "primary");
        bench.asked(0);
        for call in 1..10 {
            bench.pass(std::time::Duration::from_millis(1));
            bench.text(1, "SELECT 1", Status::Idle);
            bench.asked(call);
        }
        for call in 1..10 {
            bench.began(1, call * 100, Status::Idle);
        }
        bench.finds(&[]);
        bench.began(1, 0, Status::Idle);
        bench.finds(&[Oracle::O12]);
    }
}
