//! The fence: a request enters a session only with the ticket of the lease that holds it now.
//!
//! A handle that outlived its lease (a task took it along) finds the gate closed, before a byte of its request is queued.
//! The lock is held while a request is queued, never across an await.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The right to send requests, until the lease it was given for ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Counted over the session's life.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

/// Gives out tickets and checks them.
#[derive(Debug, Default)]
pub(super) struct Fence {
    lease: AtomicU64,
    gate: Mutex<()>,
}

/// Proof that a ticket is good; while it lives, it stays good.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    fence: &'a Fence,
    _gate: MutexGuard<'a, ()>,
}

impl Admitted<'_> {
    /// Whatever was admitted was the last of its lease: the ticket is void from here on.
    pub(super) fn was_last(&self) {
        self.fence.turn();
    }
}

impl Fence {
    /// The ticket of the present lease.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.lease.load(Ordering::Acquire))
    }

    /// Ends the present lease: its ticket is void from here on.
    pub(super) fn close(&self) {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn();
    }

    fn turn(&self) {
        // Nobody else writes: the gate is locked.
        self.lease
            .store(self.lease.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Lets a request in, if its ticket is that of the present lease.
    pub(super) fn admit(&self, ticket: Ticket) -> Option<Admitted<'_>> {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        (self.ticket() == ticket).then_some(Admitted {
            fence: self,
            _gate: gate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Fence;

    #[test]
    fn a_ticket_is_good_until_its_lease_ends() {
        let fence = Fence::default();
        let first = fence.ticket();
        assert!(fence.admit(first).is_some());
        fence.close();
        assert!(fence.admit(first).is_none());
        assert!(fence.admit(fence.ticket()).is_some());
    }

    #[test]
    fn nothing_follows_the_last_request_of_a_lease() {
        let fence = Fence::default();
        let ticket = fence.ticket();
        let admitted = fence.admit(ticket).expect("a good ticket");
        admitted.was_last();
        drop(admitted);
        assert!(fence.admit(ticket).is_none());
    }
}
