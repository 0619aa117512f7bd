//! The lease: the guard a caller holds while a session is out.
//!
//! Between checkout and whatever runs on the session. Dropping it only queues and wakes: the session goes back when it
//! is provably clean, settles in its own driver first, or is closed. It runs no SQL itself.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::deadlines::{Elapsed, Stay};
use super::handoff::HandOff;
use super::ledger::SlotId;
use super::shared::Shared;
use crate::Instant;
use crate::runtime::{Endpoint, Runtime};
use crate::session::{Session, Ticket};

/// A session that is yours until the lease is dropped.
///
/// The next borrower never sees anything of what you did: transactions are rolled back, settings reset, temporary tables,
/// cursors, `LISTEN`s, advisory locks and prepared statements removed, and a statement that still runs is cancelled.
/// That happens after the drop, in the background, and nobody waits for it but the session itself.
///
/// The methods that run SQL take `&self`: futures of one lease that are polled together are pipelined.
///
/// ```
/// # gdbpool_sim::doc::with_pool(async |pool| {
/// let lease = pool.checkout().await?;
/// lease.batch("CREATE TEMP TABLE scratch (n int)").await?;
/// lease.execute("INSERT INTO scratch VALUES ($1)", &[&1i32]).await?;
/// drop(lease); // `scratch` is gone before anybody else gets the session
/// # Ok(())
/// # });
/// ```
#[must_use = "a lease that is dropped at once gives the session back"]
pub struct Lease {
    pool: Arc<Shared>,
    slot: SlotId,
    /// Taken only by `drop` and by the checkout itself.
    session: Option<Arc<Session>>,
    ticket: Ticket,
    /// The channel it came through, on its way back to the shelf: who waited need not take the pool's lock for it.
    hand_off: Option<HandOff>,
    discard: bool,
    /// The session went back before the lease was dropped; see [`Lease::end`].
    ended: AtomicBool,
}

impl Lease {
    pub(super) fn new(pool: Arc<Shared>, slot: SlotId, session: Arc<Session>, hand_off: Option<HandOff>) -> Self {
        let ticket = session.ticket();
        Self {
            pool,
            slot,
            session: Some(session),
            ticket,
            hand_off,
            discard: false,
            ended: AtomicBool::new(false),
        }
    }

    /// Whether the session went back already.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// How long the last word on stopped work may take.
    pub(crate) fn cancel_grace(&self) -> Duration {
        self.pool.config.cancel_grace
    }

    /// Gives the session back now, although others may still hold this lease: their calls find the fence closed.
    pub(crate) fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            let session = Arc::clone(self.session());
            self.pool.give_back(self.slot, session, self.discard, None);
        }
    }

    /// Gives the session back without using it, for the checkout that found it dead.
    pub(super) fn take_apart(mut self) -> (SlotId, Arc<Session>, Option<HandOff>) {
        let session = Arc::clone(self.session());
        self.session = None;
        (self.slot, session, self.hand_off.take())
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        // Present until `drop` or `take_apart`, both of which own the lease.
        self.session.as_ref().expect("a lease holds its session")
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    pub(crate) fn pool_name(&self) -> &Arc<str> {
        &self.pool.config.name
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.pool.runtime
    }

    /// How long one answer may take.
    pub(crate) fn answer_timeout(&self) -> Option<Duration> {
        self.pool.config.answer_timeout
    }

    /// How long an interaction may take.
    pub(crate) fn interaction_timeout(&self) -> Option<Duration> {
        self.pool.config.interaction_timeout
    }

    /// Wakes at `at`, from the pool's upkeep, unless the alarm is dropped before.
    pub(crate) fn alarm(&self, at: Instant, waker: Waker) -> Option<Alarm> {
        let stay = self.pool.deadlines.set(at, waker)?;
        Some(Alarm {
            pool: Arc::clone(&self.pool),
            stay,
        })
    }

    /// Runs `future` until `at` at the latest.
    pub(crate) async fn limit<F: Future>(&self, at: Instant, future: F) -> Option<F::Output> {
        self.pool.deadlines.limit(at, future).await.ok()
    }

    /// Like [`limit`](Self::limit), for a future that has its place already.
    pub(crate) fn limit_pinned<'a, F: Future>(
        &'a self,
        at: Instant,
        future: Pin<&'a mut F>,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> + use<'a, F> {
        self.pool.deadlines.limit_pinned(at, future)
    }

    /// The process id of the server's backend.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.session().pid()
    }

    /// The address the session was dialled at.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.session().endpoint()
    }

    /// The server's version, as `server_version_num` has it, if the server reported one.
    #[must_use]
    pub fn server_version(&self) -> Option<u32> {
        self.session().server_version()
    }

    /// Whether the server said, in its last report, that it is a standby. `None` before PostgreSQL 14.
    #[must_use]
    pub fn is_standby(&self) -> Option<bool> {
        self.session().in_hot_standby()
    }

    /// Ends the session instead of giving it back; the pool makes a new one when somebody needs it.
    pub fn discard(mut self) {
        self.discard = true;
    }
}

/// A wake that is due at an instant; made by [`Lease::alarm`].
pub(crate) struct Alarm {
    pool: Arc<Shared>,
    stay: Stay,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.pool.deadlines.unset(self.stay);
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("stay", &self.stay)
            .finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && !*self.ended.get_mut()
        {
            let hand_off = self.hand_off.take();
            self.pool.give_back(self.slot, session, self.discard, hand_off);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("pool", self.pool_name())
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
