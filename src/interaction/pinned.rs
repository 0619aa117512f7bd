//! Pinned transactions: a transaction that stays open between calls, on its own connection, for a bounded time.
//!
//! Between `.partial()`, which makes one, and `.within()`, which uses it. When its lease time is over it is rolled back, by
//! the pool's upkeep if nobody else comes by. It is never moved to another connection.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::cursor::Cursor;
use super::statement::on;
use super::transaction::{Core, Over, Receipt, Transaction};
use crate::Instant;
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::Alarm;

/// What a `.partial()` interaction gives: its result, and the transaction it left open.
#[derive(Debug)]
pub struct Partial<T> {
    /// What the interaction gave.
    pub result: T,
    /// The open transaction.
    pub transaction: PinnedTransaction,
}

/// An open transaction, pinned to its connection until it is committed, rolled back, expired or dropped.
///
/// Made by [`Run::partial`](crate::Run::partial) and [`Transact::partial`](crate::Transact::partial); more interactions run
/// in it by [`Run::within`](crate::Run::within) and [`Transact::within`](crate::Transact::within). It takes one session of
/// its pool, for at most its lease time: then it is rolled back, and whatever is called later is
/// [`ErrorKind::PinExpired`](crate::ErrorKind::PinExpired), which says where it was made. The server is told to end it
/// somewhat later by itself, in case this process cannot.
///
/// When its session is lost, so is the transaction: it is rolled back, and every later call says
/// [`ErrorKind::Lost`](crate::ErrorKind::Lost).
///
/// Dropping it rolls back.
#[must_use = "a pinned transaction that is dropped is rolled back"]
pub struct PinnedTransaction {
    core: Arc<Core>,
    expires_at: Instant,
    lease_time: Duration,
    /// When its time is over, and when an end that was under way then has had its grace.
    _alarms: [Option<Alarm>; 2],
}

/// Rolls the transaction back when it is woken.
struct Expiry {
    core: Weak<Core>,
    why: Over,
    /// Also when it is ending already.
    in_any_case: bool,
}

impl Wake for Expiry {
    fn wake(self: Arc<Self>) {
        let Some(core) = self.core.upgrade() else { return };
        if core.expire(self.why) {
            tracing::warn!(pid = core.lease().backend_pid(), why = ?self.why, "a pinned transaction expired");
        } else if self.in_any_case {
            core.abandon(self.why);
        }
    }
}

/// An end that is under way when the lease time is over has as long again, and is cancelled then.
fn last_call(expires_at: Instant, lease_time: Duration) -> Instant {
    expires_at + lease_time
}

impl PinnedTransaction {
    /// From now on the transaction has `lease_time`.
    pub(super) fn new(core: Arc<Core>, at: &'static Location<'static>, lease_time: Duration) -> Self {
        let lease = core.lease();
        let expires_at = lease.runtime().now() + lease_time;
        let why = Over::Expired { at, lease_time };
        let alarm = |at, in_any_case| {
            let core = Arc::downgrade(&core);
            let expiry = Expiry { core, why, in_any_case };
            lease.alarm(at, Waker::from(Arc::new(expiry)))
        };
        let alarms = [alarm(expires_at, false), alarm(last_call(expires_at, lease_time), true)];
        Self {
            core,
            expires_at,
            lease_time,
            _alarms: alarms,
        }
    }

    pub(super) fn core(&mut self) -> &Arc<Core> {
        &self.core
    }

    /// The transaction as functions have it: for calls that need no builder.
    ///
    /// The handle outlives this call, but not the transaction.
    #[must_use]
    pub fn handle(&mut self) -> Transaction {
        Transaction::new(Arc::clone(&self.core))
    }

    /// When the transaction is rolled back if it has not ended before, on the clock of the pool's runtime.
    #[must_use]
    pub fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// The process id of the server's backend: the same for as long as the transaction lives.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.core.lease().backend_pid()
    }

    /// A server-side cursor over the rows of `sql`, which gives them in batches of `batch` rows; see
    /// [`Transaction::cursor`].
    ///
    /// # Errors
    /// As [`Transaction::cursor`].
    ///
    /// # Cancel safety
    /// As [`Transaction::cursor`].
    pub async fn cursor(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)], batch: u32) -> Result<Cursor, Error> {
        self.handle().cursor(sql, values, batch).await
    }

    /// Commits. A commit that is under way when the lease time is over has as long again, and is cancelled then.
    ///
    /// # Errors
    /// Whatever keeps it from being committed, with what became of the work: `Ok` only if the server said so.
    ///
    /// # Cancel safety
    /// No: dropped after COMMIT was written, whether it was committed is unknown.
    pub async fn commit(self) -> Result<Receipt, Error> {
        let core = &self.core;
        self.in_time(core.commit_open(), Phase::Committing, Outcome::Unknown)
            .await
    }

    /// Rolls back, and waits until the server has done so.
    ///
    /// # Errors
    /// When the transaction was over before, or its session is lost; nothing of it is kept in any case.
    ///
    /// # Cancel safety
    /// Yes: a dropped future only stops waiting.
    pub async fn rollback(self) -> Result<(), Error> {
        let core = &self.core;
        self.in_time(core.roll_back(), Phase::Executing, Outcome::RolledBack)
            .await
    }

    /// Waits for an end that is under way: the lease time does not cut it, but bounds it.
    async fn in_time<T>(
        &self,
        end: impl Future<Output = Result<T, Error>>,
        phase: Phase,
        overdue: Outcome,
    ) -> Result<T, Error> {
        let lease = self.core.lease();
        // Stopped at its last call, it has an answer soon after.
        let bound = last_call(self.expires_at, self.lease_time) + lease.cancel_grace();
        match lease.limit(bound, end).await {
            Some(done) => done,
            None => Err(on(lease, Error::new(ErrorKind::Timeout, overdue, phase))),
        }
    }
}

impl Drop for PinnedTransaction {
    fn drop(&mut self) {
        self.core.abandon(Over::Ended);
    }
}

impl fmt::Debug for PinnedTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedTransaction")
            .field("core", &self.core)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
