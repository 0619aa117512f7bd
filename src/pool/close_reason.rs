//! `CloseReason`: why a session ended, one word for statistics and events.
//!
//! A value beside the pool's path: the ledger and the driver choose it, reports count it. It decides nothing.

use std::fmt;

/// Why a pool ended a session, or found it ended. Counted per reason in the pool's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// An I/O or protocol error on the connection, or one that makes the session's state unknowable.
    Broken,
    /// The statements that return a session to its template failed.
    CleanUpFailed,
    /// The server ended it: shutdown, `pg_terminate_backend`, an idle timeout of its own, a crash.
    ClosedByServer,
    /// The caller that held it asked for it not to be used again.
    Discarded,
    /// It was opened before the pool retired all its sessions at once, for example after a failover.
    Epoch,
    /// Nobody used it for the idle timeout, and the pool held more than its minimum.
    IdleTimeout,
    /// It reached its maximum lifetime, less the jitter fixed at its birth.
    Lifetime,
    /// It did not answer the ping sent before a checkout.
    PingFailed,
    /// The pool was closed.
    PoolClosed,
    /// The pool was made smaller than the number of its sessions.
    Resized,
    /// After its return, cancelling, draining and clean-up took longer than their deadline.
    SettleOverdue,
    /// It was returned in a state that no clean-up can prove idle again.
    Unsettled,
}

impl CloseReason {
    /// Every reason, in the order of their names.
    pub const ALL: [Self; 12] = [
        Self::Broken,
        Self::CleanUpFailed,
        Self::ClosedByServer,
        Self::Discarded,
        Self::Epoch,
        Self::IdleTimeout,
        Self::Lifetime,
        Self::PingFailed,
        Self::PoolClosed,
        Self::Resized,
        Self::SettleOverdue,
        Self::Unsettled,
    ];

    /// A short lower-case name, stable across releases: usable as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::CleanUpFailed => "clean_up_failed",
            Self::ClosedByServer => "closed_by_server",
            Self::Discarded => "discarded",
            Self::Epoch => "epoch",
            Self::IdleTimeout => "idle_timeout",
            Self::Lifetime => "lifetime",
            Self::PingFailed => "ping_failed",
            Self::PoolClosed => "pool_closed",
            Self::Resized => "resized",
            Self::SettleOverdue => "settle_overdue",
            Self::Unsettled => "unsettled",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::CloseReason;

    #[test]
    fn the_list_is_complete_and_in_order() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason} stands in the wrong place");
        }
        assert!(CloseReason::ALL.is_sorted_by_key(|reason| reason.as_str()));
    }
}
