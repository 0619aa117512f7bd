//! Routing: a write runs on the write pool or where it was sent by name, never on a standby by our choice; a read runs in
//! the balanced set or where it was sent by name, and changes no row; the balanced set is used as a whole.

use std::collections::BTreeMap;

use super::index::{CallView, Index};
use super::{Oracle, Violation};
use crate::history::{End, Event, EventKind, Role};
use crate::scenario::{Say, Topology};

/// Reads per pool from which on each of the set must have had one: the odds of less are under one in a million.
const MANY: usize = 14;

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut reads: BTreeMap<&str, usize> = BTreeMap::new();
    for event in index.case.server.events() {
        match &event.kind {
            EventKind::StatementBegan {
                pid,
                op: Some(op),
                role,
                ..
            } => {
                let (Some(call), Some(session)) = (index.call(*op), index.sessions.get(pid)) else {
                    continue;
                };
                if !may_run_on(index, call, session.application) {
                    let text = format!("{op} ran on pool {}", session.application);
                    found.push(Violation::new(Oracle::Routing, text).with(call.asked).with(event));
                }
                if *role == Role::Standby && !may_run_on_standby(call) {
                    let text = format!("{op} ran on a standby, and nobody sent it there");
                    found.push(Violation::new(Oracle::Routing, text).with(call.asked).with(event));
                }
                if is_balanced(call) {
                    *reads.entry(session.application).or_default() += 1;
                }
            }
            EventKind::StatementEnded {
                op: Some(op),
                changed,
                pid,
                ..
            } if *changed > 0
                && index.call(*op).is_some_and(CallView::is_read)
                && !was_unprotected(index, *pid, *op, event.seq) =>
            {
                let text = format!("{op} is a read, and changed {changed} rows");
                found.push(Violation::new(Oracle::Routing, text).with(event));
            }
            _ => {}
        }
    }
    balance(index, &reads, found);
}

fn is_balanced(call: &CallView<'_>) -> bool {
    matches!(
        call.asked.say,
        Say::Asked {
            read: true,
            pool: None,
            ..
        }
    )
}

fn may_run_on(index: &Index<'_>, call: &CallView<'_>, pool: &str) -> bool {
    let has_reads = index.case.scenario.topology.standbys > 0;
    match &call.asked.say {
        Say::Asked { pool: Some(named), .. } => pool == named,
        Say::Asked { read: true, .. } if has_reads => pool != Topology::WRITE_POOL,
        _ => pool == Topology::WRITE_POOL,
    }
}

/// Whether the server failed the SET that goes ahead of a read, in the same flight of bytes: of its own accord, as a fault has
/// it, or by a cancel request that strikes late. Then all that can be had is that nobody is told of a success.
fn was_unprotected(index: &Index<'_>, pid: i32, op: u64, seq: u64) -> bool {
    let Some(session) = index.sessions.get(&pid) else {
        return false;
    };
    let began = |event: &&&Event| matches!(event.kind, EventKind::StatementBegan { op: Some(of), .. } if of == op);
    let before = session.events.iter().filter(|event| event.seq < seq);
    let Some(read) = before.clone().rev().find(began).map(|event| event.seq) else {
        return false;
    };
    let set = before
        .filter(|event| event.seq < read)
        .rev()
        .find_map(|event| match &event.kind {
            EventKind::StatementBegan { text, .. } => Some((event.seq, text)),
            _ => None,
        });
    let Some((set, _)) = set.filter(|(_, text)| text.starts_with("SET default_transaction_read_only")) else {
        return false;
    };
    let between = || session.events.iter().filter(|event| (set..read).contains(&event.seq));
    let failed = between().any(|event| {
        matches!(
            &event.kind,
            EventKind::StatementEnded {
                end: End::Failed(_),
                ..
            }
        )
    });
    let was_hit = between().any(|event| matches!(event.kind, EventKind::CancelArrived { hit: true, .. }));
    let told = index
        .call(op)
        .and_then(|call| call.first(|say| matches!(say, Say::Ended { failure: None, .. })));
    let dropped = index
        .call(op)
        .and_then(|call| call.first(|say| matches!(say, Say::Dropped)));
    failed && (!was_hit || index.has_late_cancels()) && (told.is_none() || dropped.is_some())
}

/// Reads do, and what is sent to a pool by its name. All else goes to sessions that were asked for as of a primary.
fn may_run_on_standby(call: &CallView<'_>) -> bool {
    matches!(&call.asked.say, Say::Asked { read, pool, .. } if *read || pool.is_some())
}

fn balance(index: &Index<'_>, reads: &BTreeMap<&str, usize>, found: &mut Vec<Violation>) {
    let pools = index.case.scenario.topology.pools();
    let set = &pools[1..];
    if !index.is_faultless() || reads.values().sum::<usize>() < MANY * set.len() {
        return;
    }
    for pool in set.iter().filter(|pool| !reads.contains_key(pool.as_str())) {
        let text = format!("pool {pool} of the balanced set got no read: {reads:?}");
        found.push(Violation::new(Oracle::Routing, text));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::history::Status;
    use crate::scenario::Op;

    fn bench(op: Op) -> Bench {
        let mut bench = Bench::new(vec![op]);
        bench.scenario.topology.standbys = 2;
        bench.open(1, "primary");
        bench.open(2, "replica-1");
        bench.open(3, "replica-2");
        bench.asked(0);
        bench
    }

    #[test]
    fn a_write_on_a_standby_is_found() {
        let mut bench = bench(Op::Update { row: 0 });
        bench.began(1, 0, Status::Idle);
        bench.finds(&[]);
        bench.began(2, 0, Status::Idle);
        bench.finds(&[Oracle::Routing]);
    }

    #[test]
    fn a_write_on_a_primary_that_is_none_is_found() {
        let mut update = bench(Op::Update { row: 0 });
        update.began_on_standby(1, 0);
        update.finds(&[Oracle::Routing]);
        let mut named = bench(Op::WriteOn { pool: 1 });
        named.began_on_standby(2, 0);
        named.finds(&[]);
    }

    #[test]
    fn a_read_beside_its_name_is_found() {
        let mut bench = bench(Op::ReadOn { pool: 1, row: 0 });
        bench.began(2, 0, Status::Idle);
        bench.finds(&[]);
        bench.began(3, 0, Status::Idle);
        bench.finds(&[Oracle::Routing]);
    }

    #[test]
    fn a_read_that_changes_rows_is_found() {
        let mut bench = bench(Op::WriteAsRead { row: 0 });
        bench.ran(2, 0, Status::Idle, 1);
        bench.finds(&[Oracle::Routing]);
    }

    #[test]
    fn a_pool_that_gets_no_reads_is_found() {
        let mut bench = bench(Op::Read { row: 0, marked: true });
        for _ in 0..MANY * 2 {
            bench.began(2, 0, Status::Idle);
        }
        bench.finds(&[Oracle::Routing]);
        bench.began(3, 0, Status::Idle);
        bench.finds(&[]);
    }
}
