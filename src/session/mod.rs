//! One authenticated connection and its server-side state.
//!
//! The station between pool and runtime: `dial` makes a session, encrypted by `tls` and let in as far as `auth_gate`
//! allows, the `driver` moves its bytes through the `tap`, requests enter through the fence (`request`) and leave by the
//! `wire`, an only one's caller reads the answer itself (`helm`), `transaction` queues BEGIN and counts what was seen of
//! it, `template` runs what each session begins with, and `settle` brings a used session back to its pristine state or
//! says that it cannot. It never chooses who may use a session; that is the pool's.

mod abandoned;
mod auth_gate;
mod block;
mod bound;
mod cancel_request;
mod clean_up;
mod dial;
mod driver;
mod fence;
mod guarded;
mod helm;
mod in_flight;
mod observer;
mod request;
mod settle;
mod statements;
mod tap;
mod template;
mod tls;
mod transaction;
mod unnamed;
mod unshown;
mod wire;

#[cfg(fuzzing)]
pub use self::observer::fuzz_tap;

pub use self::abandoned::Abandoned;
pub(crate) use self::abandoned::Dropped;
pub(crate) use self::clean_up::Reach;
pub(crate) use self::dial::{DialError, DialPlan, dial};
pub(crate) use self::driver::Driver;
pub(crate) use self::fence::Ticket;
#[cfg(test)]
pub(crate) use self::observer::Transactions;
pub(crate) use self::request::{Failure, Flight};
pub(crate) use self::settle::{Need, SettleError, settle};
pub(crate) use self::statements::{CacheLimits, Prepared};
pub(crate) use self::template::{Template, TemplateError};
pub(crate) use self::tls::Tls;
pub(crate) use self::transaction::{Beginning, TransactionFacts};
pub(crate) use self::unshown::Unshown;
pub(crate) use self::wire::{Ended, Ending, Notifications};

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use async_channel::Sender;
use event_listener::Event;
use futures_channel::oneshot;
use tokio_postgres::Client;

use self::bound::RawConnection;
use self::cancel_request::CancelRequest;
use self::dial::Address;
use self::driver::Job;
use self::fence::Fence;
use self::in_flight::InFlight;
use self::statements::StatementCache;
use self::tap::Observed;
use self::wire::Wire;
use crate::config::Pooling;
use crate::runtime::{Endpoint, Runtime, point};
use crate::sql;

/// Jobs a session's driver may have waiting: one settling, and the prepares of one lease's concurrent calls.
const INBOX: usize = 64;

/// What a pool wants of its sessions.
#[derive(Clone, Debug)]
pub(crate) struct SessionSettings {
    pub(crate) statement_cache: CacheLimits,
    /// How long a dropped request may go on before it is cancelled.
    pub(crate) cancel_after: Duration,
    /// What each session runs before anybody gets it, and after each clean-up.
    pub(crate) template: Arc<Template>,
    /// Cancel requests sent for any session of the pool.
    pub(crate) cancels: Arc<AtomicU64>,
    /// What is between session and server.
    pub(crate) pooling: Pooling,
}

/// The mode a request needs its session in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the session's template has it.
    Template,
    /// `default_transaction_read_only = on`.
    ReadOnly,
    /// The same, inside BEGIN READ ONLY and COMMIT: for what could otherwise commit and go on in another mode.
    ReadOnlyBlock,
}

/// One session. The last clone of the `Arc` closes it politely.
pub(crate) struct Session {
    client: Client,
    observed: Observed,
    wire: Arc<Wire>,
    ending: Arc<Ending>,
    inbox: Sender<Job>,
    runtime: Arc<dyn Runtime>,
    address: Address,
    pid: i32,
    key: i32,
    settings: SessionSettings,
    statements: Mutex<StatementCache>,
    fence: Fence,
    /// Requests whose answer was not read to its end.
    in_flight: InFlight,
    /// Requests that ever entered.
    entered: AtomicU64,
    /// Statements being prepared in the driver; each may take several round trips.
    preparing: AtomicU32,
    /// Notified when `preparing` falls.
    prepared: Event,
    marks: AtomicU8,
    /// Whether the last mode we asked for is read only.
    asked_read_only: AtomicBool,
}

/// Counts a statement that is being prepared, for as long as its job lives.
struct Preparing {
    session: Arc<Session>,
}

/// What happened to a session since its lease began; see [`Session::verdict`].
mod mark {
    /// Something ran that may leave traces: the full clean-up is due.
    pub(super) const DIRTY: u8 = 1;
    /// The session cannot be used again.
    pub(super) const BROKEN: u8 = 2;
    /// Something may be under way that was not counted: a drain is due.
    pub(super) const RAW: u8 = 8;
    /// A cancel request was written whose delivery is not certain yet.
    pub(super) const CANCELLING: u8 = 16;
}

/// What a returned session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: it is pristine.
    Clean,
    /// Settling, before anybody may have it.
    Settle(Need),
    /// To be closed.
    Broken,
}

impl Session {
    fn new(
        client: Client,
        connection: RawConnection,
        observed: Observed,
        runtime: Arc<dyn Runtime>,
        address: Address,
        (pid, key): (i32, i32),
        settings: SessionSettings,
    ) -> (Arc<Self>, Driver) {
        let (inbox, jobs) = async_channel::bounded(INBOX);
        let ending = Arc::new(Ending::default());
        observed.read_for(Waker::from(Arc::clone(&ending)));
        let wire = Arc::new(Wire::new(connection, Arc::clone(&ending)));
        let statements = Mutex::new(StatementCache::new(settings.statement_cache));
        let session = Self {
            client,
            observed,
            wire: Arc::clone(&wire),
            ending: Arc::clone(&ending),
            inbox,
            runtime,
            address,
            pid,
            key,
            settings,
            statements,
            fence: Fence::default(),
            in_flight: InFlight::default(),
            entered: AtomicU64::new(0),
            preparing: AtomicU32::new(0),
            prepared: Event::new(),
            marks: AtomicU8::new(0),
            asked_read_only: AtomicBool::new(false),
        };
        (Arc::new(session), Driver::new(wire, jobs, ending))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.address.endpoint
    }

    /// Keeps the notifications that come from here on, up to `bound` of them at a time. For a listener's session.
    pub(crate) fn notifications(&self, bound: usize) -> Notifications {
        self.wire.notifications(bound)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The server's version as `server_version_num` has it, if it could be read.
    pub(crate) fn server_version(&self) -> Option<u32> {
        self.observed.facts().server_version
    }

    /// Whether each transaction may run on another server connection, which other clients use, too.
    pub(crate) fn is_pooled(&self) -> bool {
        self.settings.pooling != Pooling::Direct
    }

    /// Whether the server says it is a standby (14 and later). What a pooler says of it may be long past.
    pub(crate) fn in_hot_standby(&self) -> Option<bool> {
        if self.is_pooled() {
            return None;
        }
        self.observed.facts().in_hot_standby
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ending.ended()
    }

    /// Ends the session at once, whatever runs on it.
    pub(crate) fn kill(&self) {
        self.ending.kill();
    }

    pub(crate) fn mark_dirty(&self) {
        self.marks.fetch_or(mark::DIRTY, Ordering::AcqRel);
    }

    pub(crate) fn mark_broken(&self) {
        self.marks.fetch_or(mark::BROKEN, Ordering::AcqRel);
    }

    /// Requests that this library does not see may be queued from now on: the session is drained before anything else.
    pub(crate) fn mark_raw(&self) {
        self.marks.fetch_or(mark::DIRTY | mark::RAW, Ordering::AcqRel);
        self.ending.wake_driver();
    }

    /// The last answer said that a transaction is open.
    pub(crate) fn is_in_transaction(&self) -> bool {
        matches!(
            self.observed.facts().status,
            observer::Status::InTransaction | observer::Status::Failed
        )
    }

    /// Asks the server to stop what runs on this session, and waits until the request has been delivered.
    ///
    /// A late one hits the drain of the settling, which this call puts on the books.
    pub(crate) async fn cancel(&self) {
        // Stopped instead of what it leads up to, a SET or BEGIN would let that run unprotected.
        while self.observed.facts().opening && self.ending.ended().is_none() {
            let pause = self.runtime.now() + settle::CANCEL_AGAIN;
            self.runtime.sleep_until(pause).await;
        }
        // Until the delivery is certain, a signal may arrive at any time: a session given back before is closed.
        self.marks.fetch_or(mark::CANCELLING, Ordering::AcqRel);
        match self.request_cancel().await {
            CancelRequest::Delivered | CancelRequest::NotSent => {
                self.marks.fetch_or(mark::RAW, Ordering::AcqRel);
                self.marks.fetch_and(!mark::CANCELLING, Ordering::AcqRel);
            }
            CancelRequest::InDoubt(_) => {}
        }
    }

    async fn request_cancel(&self) -> CancelRequest {
        self.settings.cancels.fetch_add(1, Ordering::Relaxed);
        cancel_request::send(&*self.runtime, &self.address, self.pid, self.key).await
    }

    /// What is known of work whose answer nobody waited for; `None` when there is none.
    pub(crate) fn dropped(&self) -> Option<Dropped> {
        let in_flight = self.in_flight.count();
        let preparing = self.preparing.load(Ordering::Acquire);
        (in_flight != 0 || preparing != 0).then(|| Dropped::new(&self.observed.facts(), in_flight))
    }

    /// What the session needs before the next borrower may have it.
    pub(crate) fn verdict(&self) -> Verdict {
        let marks = self.marks.load(Ordering::Acquire);
        let brief = self.observed.brief();
        if marks & (mark::BROKEN | mark::CANCELLING) != 0 || brief.plans_lost() || self.ending.ended().is_some() {
            return Verdict::Broken;
        }
        let dropped = self.in_flight.count() + u64::from(self.preparing.load(Ordering::Acquire)) != 0;
        // A cancel request may have hit the very statement that sets the session's mode.
        let unsure = dropped || marks & mark::RAW != 0;
        let need = Need {
            cancel: dropped,
            drain: unsure || !brief.is_settled(),
            // A pooled session is another client's next, and keeps nothing that is ours.
            clean_up: !self.is_pooled() && (unsure || marks & mark::DIRTY != 0),
        };
        if need == Need::default() {
            Verdict::Clean
        } else {
            Verdict::Settle(need)
        }
    }

    /// Forgets what the last lease did, after settling or when there was nothing to settle.
    pub(crate) fn reset_marks(&self) {
        self.marks.store(0, Ordering::Release);
        self.in_flight.reset(self.fence.ticket());
    }

    fn statements(&self) -> MutexGuard<'_, StatementCache> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job for the driver; `false` when the driver is gone or its queue is full.
    pub(crate) fn submit(&self, job: crate::runtime::BoxFuture<'static, ()>) -> bool {
        let queued = self.inbox.try_send(Job(job)).is_ok();
        self.ending.wake_driver();
        queued
    }

    /// The statement for `sql`, if the cache has it.
    pub(crate) fn cached(&self, sql: &str) -> Option<Prepared> {
        self.statements().get(sql)
    }

    /// The statement for `sql`, from the cache or newly parsed by the server.
    ///
    /// The parse runs in the driver and goes on when this future is dropped, so that no server statement is lost track of.
    ///
    /// Under the fence: what is put on the books here is waited for by whoever ends the lease.
    pub(crate) async fn prepare(self: &Arc<Self>, ticket: Ticket, sql: &str) -> Result<Prepared, Failure> {
        if let Some(prepared) = self.cached(sql) {
            return Ok(prepared);
        }
        let Some(admitted) = self.fence.admit(ticket) else {
            return Err(Failure::Fenced);
        };
        let preparing = Preparing::new(self);
        drop(admitted);
        let (reply, answer) = oneshot::channel();
        let text: Arc<str> = Arc::from(sql);
        let job = Box::pin(async move {
            let session = &preparing.session;
            let prepared = session.client.prepare(&text).await.map(|statement| {
                let unnamed = session.settings.pooling == Pooling::Unnamed;
                if unnamed {
                    session.observed.types_are_known(&statement);
                }
                let prepared = Prepared {
                    statement,
                    text: unnamed.then(|| Arc::clone(&text)),
                    reach: clean_up::reach(&text),
                    commits: sql::commits(&text),
                };
                session.statements().insert(&text, prepared.clone());
                prepared
            });
            drop(preparing);
            let _ = reply.send(prepared);
        });
        let queued = self.inbox.send(Job(job)).await;
        self.ending.wake_driver();
        if queued.is_err() {
            return Err(self.lost(None));
        }
        point!(self.runtime, "prepare.queued");
        match answer.await {
            Ok(Ok(prepared)) => Ok(prepared),
            Ok(Err(error)) => Err(self.prepare_failed(error)),
            Err(oneshot::Canceled) => Err(self.lost(None)),
        }
    }

    /// Drops a statement from the cache: the server said that its plan is of no use any more.
    pub(crate) fn forget(&self, sql: &str) {
        self.statements().remove(sql);
    }

    fn prepare_failed(&self, error: tokio_postgres::Error) -> Failure {
        use tokio_postgres::error::SqlState;
        if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) {
            // tokio-postgres's own type look-ups are gone from the server for good.
            self.mark_broken();
        }
        self.classify(error, false)
    }
}

impl Preparing {
    fn new(session: &Arc<Session>) -> Self {
        session.preparing.fetch_add(1, Ordering::AcqRel);
        Self {
            session: Arc::clone(session),
        }
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.session.preparing.fetch_sub(1, Ordering::AcqRel);
        self.session.prepared.notify(usize::MAX);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The client goes before the statement cache (fields drop in order), so that the statements in it find nobody to
        // send their Close to: the server forgets them with the session.
        self.inbox.close();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("pid", &self.pid)
            .field("endpoint", &self.address.endpoint)
            .field("observed", &self.observed)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
