//! What happened in a run that is worth happening sometimes: rare moments, found in the two histories and counted.
//!
//! A plain machine beside the runner. A search that never sees one of them is told so by its coverage.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{ClientHistory, Heard, Say};
use crate::coverage::Coverage;
use crate::history::{EventKind, History, Status};

/// The moments, by their names in the coverage.
pub(crate) const MOMENTS: [&str; 5] = [
    "moment.cancel_that_comes_too_late",
    "moment.listener_cancelled_amid_notifications",
    "moment.pin_lost_with_its_session",
    "moment.promotion_in_an_open_transaction",
    "moment.unknown_outcome_that_was_a_commit",
];

/// Counts the moments of a run.
pub(super) fn count(server: &History, clients: &ClientHistory, coverage: &mut Coverage) {
    let seen = [
        cancel_too_late(server),
        cancelled_amid_notifications(server, clients),
        pin_lost(clients),
        promotion_in_transaction(server),
        unknown_commit(server, clients),
    ];
    for (name, _) in MOMENTS.iter().zip(seen).filter(|(_, seen)| *seen) {
        coverage.hit(name);
    }
}

fn cancel_too_late(server: &History) -> bool {
    let late = |kind: &EventKind| matches!(kind, EventKind::CancelArrived { hit: false, .. });
    server.events().iter().any(|event| late(&event.kind))
}

/// A server sends a notification between a subscriber's cancel and its barrier.
fn cancelled_amid_notifications(server: &History, clients: &ClientHistory) -> bool {
    let mut cancelled = BTreeMap::new();
    clients.events.iter().any(|event| match &event.say {
        Say::Heard(Heard::CancelAsked) => {
            cancelled.insert(event.call, event.after);
            false
        }
        Say::Heard(Heard::Closed) => {
            let from = cancelled.remove(&event.call).unwrap_or(event.after);
            let is_sent = |kind: &EventKind| matches!(kind, EventKind::NotifySent { .. });
            let between = server
                .events()
                .iter()
                .filter(|done| (from..event.after).contains(&done.seq));
            between.into_iter().any(|event| is_sent(&event.kind))
        }
        _ => false,
    })
}

fn pin_lost(clients: &ClientHistory) -> bool {
    let mut pinned = BTreeSet::new();
    clients.events.iter().any(|event| match &event.say {
        Say::Pinned { .. } => {
            pinned.insert(event.call);
            false
        }
        Say::Ended {
            failure: Some(failure), ..
        } => failure.kind == "Lost" && pinned.contains(&event.call),
        _ => false,
    })
}

fn promotion_in_transaction(server: &History) -> bool {
    let mut open = BTreeSet::new();
    server.events().iter().any(|event| {
        match &event.kind {
            EventKind::StatementEnded {
                pid,
                status: Status::Transaction,
                ..
            } => drop(open.insert(*pid)),
            EventKind::Promoted { .. } => return !open.is_empty(),
            EventKind::StatementEnded { pid, .. } | EventKind::SessionClosed { pid, .. } => drop(open.remove(pid)),
            _ => {}
        }
        false
    })
}

fn unknown_commit(server: &History, clients: &ClientHistory) -> bool {
    let committed: BTreeSet<u64> = server
        .events()
        .iter()
        .flat_map(|event| match &event.kind {
            EventKind::Committed { ops, .. } => ops.as_slice(),
            _ => &[],
        })
        .copied()
        .collect();
    clients.events.iter().any(|event| match &event.say {
        Say::Ended {
            fate: super::Fate::Unknown,
            failure: Some(_),
            kept,
        } => kept.iter().any(|op| committed.contains(op)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use gdbpool::Instant;

    use super::*;

    #[test]
    fn a_promotion_counts_only_beside_an_open_transaction() {
        for (status, wanted) in [(Status::Transaction, 1), (Status::Idle, 0)] {
            let mut server = History::new();
            let at = Instant::from_nanos(0);
            server.record(
                at,
                0,
                EventKind::StatementEnded {
                    pid: 1,
                    op: None,
                    end: crate::history::End::Tag("BEGIN".into()),
                    changed: 0,
                    xid: None,
                    status,
                },
            );
            server.record(
                at,
                1,
                EventKind::Promoted {
                    timeline: 2,
                    parent: 1,
                    switch: 1,
                },
            );
            let mut coverage = Coverage::default();
            count(&server, &ClientHistory::default(), &mut coverage);
            assert_eq!(coverage.count("moment.promotion_in_an_open_transaction"), wanted);
        }
    }
}
