//! O1: a commit that was acknowledged is on the timeline that survives, and its row is in the table at the end.
//!
//! A commit is lost only where a promotion left it behind: on a timeline that parted before it. Such a loss is never
//! silent: the run's end state lists it.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Index;
use super::{Oracle, Violation};
use crate::history::{Event, EventKind};
use crate::scenario::{Fate, Op};

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let Some(rows) = &index.case.end.ledger else { return };
    let rows: BTreeSet<u64> = rows.iter().copied().collect();
    let survivors = Survivors::of(index);
    for call in index.calls.values() {
        let Some((ended, Fate::Committed, kept)) = call.ended() else {
            continue;
        };
        for op in kept.iter().filter(|op| is_insert(call.op(), **op)) {
            let Some(commit) = index.commits.get(op).and_then(|commits| commits.first()) else {
                // That it is not in the ledger is the outcome's concern.
                continue;
            };
            let survives = survivors.has(commit);
            if survives != rows.contains(op) {
                let text = match survives {
                    true => format!("the acknowledged commit of {op} is not there at the end"),
                    false => format!("{op} is there at the end, though its timeline was left behind"),
                };
                found.push(Violation::new(Oracle::O1, text).with(commit).with(ended));
            }
        }
    }
}

/// Marks of acknowledged commits that a promotion left behind.
pub(super) fn lost(index: &Index<'_>) -> Vec<u64> {
    let survivors = Survivors::of(index);
    let committed = index.calls.values().filter_map(|call| match call.ended() {
        Some((_, Fate::Committed, kept)) => Some(kept),
        _ => None,
    });
    let is_lost = |op: &&u64| {
        let commits = index.commits.get(*op);
        commits.is_some_and(|commits| commits.iter().all(|commit| !survivors.has(commit)))
    };
    committed.flatten().filter(is_lost).copied().collect()
}

/// Whether a mark is that of a row in the table `ledger`.
fn is_insert(op: Option<&Op>, mark: u64) -> bool {
    matches!(
        (op, mark % 100),
        (Some(Op::Insert { .. } | Op::WriteOn { .. } | Op::Lease { .. }), 0)
            | (Some(Op::Function { .. } | Op::Pin { .. }), 50)
    )
}

/// For each timeline that leads to the surviving one, the position up to which it counts.
struct Survivors(BTreeMap<u32, u64>);

impl Survivors {
    fn of(index: &Index<'_>) -> Self {
        let mut parents = BTreeMap::new();
        for event in index.case.server.events() {
            if let EventKind::Promoted {
                timeline,
                parent,
                switch,
            } = event.kind
            {
                parents.insert(timeline, (parent, switch));
            }
        }
        let mut timeline = index.case.end.timeline;
        let mut limit = u64::MAX;
        let mut counts = BTreeMap::from([(timeline, limit)]);
        while let Some(&(parent, switch)) = parents.get(&timeline) {
            limit = limit.min(switch);
            if counts.insert(parent, limit).is_some() {
                break;
            }
            timeline = parent;
        }
        Self(counts)
    }

    fn has(&self, commit: &Event) -> bool {
        match commit.kind {
            EventKind::Committed { lsn, timeline, .. } => self.0.get(&timeline).is_some_and(|limit| lsn <= *limit),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::history::Durability;

    fn committed(op: u64, lsn: u64, timeline: u32) -> EventKind {
        EventKind::Committed {
            pid: 1,
            xid: Some(1),
            lsn,
            timeline,
            ops: vec![op],
            durability: Durability::Local,
        }
    }

    #[test]
    fn an_acknowledged_row_that_is_gone_is_found() {
        let mut bench = Bench::new(vec![Op::Insert { idempotent: false }]);
        bench.asked(0);
        bench.server(committed(0, 10, 1));
        bench.ended(0, Fate::Committed, &[0]);
        bench.end.ledger = Some(vec![0]);
        bench.finds(&[]);
        bench.end.ledger = Some(Vec::new());
        bench.finds(&[Oracle::O1]);
        // Left behind by a promotion: unavoidable.
        bench.server(EventKind::Promoted {
            timeline: 2,
            parent: 1,
            switch: 9,
        });
        bench.end.timeline = 2;
        bench.finds(&[]);
        bench.end.ledger = Some(vec![0]);
        bench.finds(&[Oracle::O1]);
    }
}
