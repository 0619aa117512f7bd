//! How many requests of the present lease have an answer that was not read to its end.
//!
//! Beside the fence. A count belongs to the lease it was begun under: what a handle that outlived its lease reads to its
//! end later is not taken off the next lease's count. A plain machine but for being shared between threads.

use std::sync::atomic::{AtomicU64, Ordering};

use super::fence::Ticket;

/// The number of the lease, and the count, in one word.
#[derive(Debug, Default)]
pub(super) struct InFlight(AtomicU64);

const COUNT: u64 = u32::MAX as u64;

fn lease(ticket: Ticket) -> u64 {
    ticket.number() << 32
}

impl InFlight {
    /// A request begins; true when it is the only one.
    pub(super) fn enter(&self) -> bool {
        self.0.fetch_add(1, Ordering::AcqRel) & COUNT == 0
    }

    /// The answer to a request of the lease with this ticket was read.
    pub(super) fn land(&self, ticket: Ticket) {
        let one_less = |now: u64| (now & !COUNT == lease(ticket) && now & COUNT != 0).then(|| now - 1);
        // Refused for a lease that is over: its count is gone, too.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire) & COUNT
    }

    /// Forgets all requests; from here on those of the lease with this ticket count.
    pub(super) fn reset(&self, ticket: Ticket) {
        self.0.store(lease(ticket), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fence::Fence;
    use super::InFlight;

    #[test]
    fn what_an_old_lease_reads_is_not_taken_off_the_next_ones_count() {
        let (fence, in_flight) = (Fence::default(), InFlight::default());
        let first = fence.ticket();
        assert!(in_flight.enter());
        assert!(!in_flight.enter());
        in_flight.land(first);
        assert_eq!(in_flight.count(), 1);
        fence.close();
        let second = fence.ticket();
        in_flight.reset(second);
        assert!(in_flight.enter());
        in_flight.land(first);
        assert_eq!(in_flight.count(), 1, "the old lease's");
        in_flight.land(second);
        in_flight.land(second);
        assert_eq!(in_flight.count(), 0);
    }
}
