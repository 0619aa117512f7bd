//! What became of requests whose future was dropped: told from the tap, before and after the drain. A plain machine.
//!
//! Beside settling, which drains or cancels what was dropped; the pool makes an event of what is found here. It says
//! `Unknown` wherever more than one reading fits.

use super::observer::{Facts, Status};

/// What became of work that nobody waited for to its end: its future, stream or lease was dropped, or its deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abandoned {
    /// The server took the cancel request: what the statement did was undone, except what a procedure had committed on its
    /// way.
    Cancelled,
    /// The server ran it to its end; outside a transaction, it is committed.
    Completed,
    /// The server ended it with an error of its own; what it did was undone, except what a procedure had committed on its
    /// way.
    Failed,
    /// The server never began it.
    NotExecuted,
    /// It was part of a transaction that was rolled back.
    RolledBack,
    /// Several requests were dropped together and not all ended well, or the session was lost before it could be known.
    Unknown,
}

/// What was known of a session when its last user left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Requests whose answer nobody had read to its end.
    pub(super) in_flight: u64,
    pub(super) outstanding: u64,
    pub(super) ready: u64,
    pub(super) failed_at: u64,
    pub(super) cancelled: u64,
    pub(super) commits: u64,
    pub(super) rollbacks: u64,
    pub(super) in_transaction: bool,
}

impl Dropped {
    pub(super) fn new(facts: &Facts, in_flight: u64) -> Self {
        Self {
            in_flight,
            outstanding: facts.outstanding as u64,
            ready: facts.ready,
            failed_at: facts.failed_at,
            cancelled: facts.cancelled,
            commits: facts.transactions.commits,
            rollbacks: facts.transactions.rollbacks,
            in_transaction: matches!(facts.status, Status::InTransaction | Status::Failed),
        }
    }

    /// What became of it, once the session is drained and before anything else is sent.
    pub(super) fn fate(&self, after: &Facts) -> Abandoned {
        if self.in_flight == 0 {
            // Only being prepared.
            return Abandoned::NotExecuted;
        }
        let still_open = matches!(after.status, Status::InTransaction | Status::Failed);
        let committed = after.transactions.commits != self.commits;
        if still_open && self.in_transaction && !committed {
            return Abandoned::RolledBack;
        }
        let failed_since = after.failed_at > self.ready;
        // With nothing outstanding, either the whole answer had come before anybody read it, or the request had not left
        // yet: an error right before may be its own or that of an earlier request.
        let failed_before = self.outstanding == 0 && self.failed_at == self.ready;
        if failed_before || (failed_since && self.in_flight > 1) || still_open {
            return Abandoned::Unknown;
        }
        if failed_since {
            return if after.cancelled > self.cancelled {
                Abandoned::Cancelled
            } else {
                Abandoned::Failed
            };
        }
        if after.transactions.rollbacks != self.rollbacks {
            return if committed {
                Abandoned::Unknown
            } else {
                Abandoned::RolledBack
            };
        }
        Abandoned::Completed
    }
}

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::NotExecuted => "not executed",
            Self::RolledBack => "rolled back",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Abandoned, Dropped, Facts, Status};

    fn facts(status: Status, ready: u64, failed_at: u64, cancelled: u64) -> Facts {
        Facts {
            status,
            ready,
            failed_at,
            cancelled,
            ..Facts::default()
        }
    }

    #[test]
    fn it_is_told_only_when_one_reading_fits() {
        let running = Facts {
            outstanding: 1,
            ..facts(Status::Idle, 7, 3, 0)
        };
        let answered = facts(Status::Idle, 7, 3, 0);
        let just_failed = facts(Status::Idle, 7, 7, 0);
        let inside = Facts {
            outstanding: 1,
            ..facts(Status::InTransaction, 7, 3, 0)
        };
        let cases = [
            (&running, 1, facts(Status::Idle, 9, 3, 0), Abandoned::Completed),
            (&running, 1, facts(Status::Idle, 9, 8, 0), Abandoned::Failed),
            (&running, 1, facts(Status::Idle, 9, 8, 1), Abandoned::Cancelled),
            (&running, 2, facts(Status::Idle, 9, 8, 1), Abandoned::Unknown),
            (&running, 2, facts(Status::Idle, 9, 3, 0), Abandoned::Completed),
            (&answered, 1, facts(Status::Idle, 8, 3, 0), Abandoned::Completed),
            (&just_failed, 1, facts(Status::Idle, 8, 7, 0), Abandoned::Unknown),
            (&running, 0, facts(Status::Idle, 9, 3, 0), Abandoned::NotExecuted),
            (&running, 1, facts(Status::InTransaction, 9, 3, 0), Abandoned::Unknown),
            (&inside, 1, facts(Status::InTransaction, 9, 3, 0), Abandoned::RolledBack),
            (&inside, 1, facts(Status::Failed, 9, 8, 1), Abandoned::RolledBack),
            (&inside, 1, facts(Status::Idle, 9, 3, 0), Abandoned::Completed),
        ];
        for (row, (before, in_flight, after, fate)) in cases.into_iter().enumerate() {
            assert_eq!(Dropped::new(before, in_flight).fate(&after), fate, "row {row}");
        }
        let mut refused = facts(Status::Idle, 9, 3, 0);
        refused.transactions.rollbacks = 1;
        let fate = Dropped::new(&inside, 1).fate(&refused);
        assert_eq!(
            fate,
            Abandoned::RolledBack,
            "a COMMIT that the server answered with ROLLBACK"
        );
    }
}
