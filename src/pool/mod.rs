//! One node's pool: who has which session, who is next, what may be opened and what must be closed.
//!
//! The station between route and session. The `ledger` decides, as a plain machine; `checkout`, `lease`, `connect` and
//! `upkeep` are the async shell around it. It never looks at the SQL that its borrowers run.

mod abandonment;
mod beside;
mod checkout;
mod clock;
mod close_reason;
mod connect;
mod deadlines;
mod events;
mod handoff;
mod lease;
mod ledger;
mod report;
mod shared;
mod stats;
mod status;
mod upkeep;

pub(crate) use self::beside::Beside;
pub use self::close_reason::CloseReason;
pub(crate) use self::deadlines::Watch;
pub(crate) use self::events::EVENTS;
pub use self::events::{Events, PoolEvent};
pub(crate) use self::lease::Alarm;
pub use self::lease::Lease;
#[cfg(fuzzing)]
pub use self::ledger::fuzz_ledger;
pub use self::stats::Stats;
pub use self::status::PoolStatus;

use std::borrow::BorrowMut;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use self::ledger::{Ledger, Limits};
use self::shared::Shared;
use crate::Instant;
use crate::config::PoolConfig;
use crate::error::{BadInput, Error, ErrorKind, Holder, Outcome, Phase};
use crate::observe::Broadcast;
use crate::runtime::Runtime;
use crate::session::{CacheLimits, DialPlan, SessionSettings, Template, Tls};

/// One named pool of sessions to one node. Cheap to clone; the last clone closes it.
///
/// Usually made by [`InteractionPool`](crate::InteractionPool), which runs interactions on several of them; use it
/// directly to hold a session over several calls.
#[derive(Clone)]
pub struct ConnectionPool {
    handle: Arc<Handle>,
}

/// Closes the pool when the last clone of it goes.
struct Handle {
    shared: Arc<Shared>,
}

/// What closing a pool cut.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// The pool's name.
    pub pool: String,
    /// Leases that were still out when the time was over, and were cut.
    pub cut: Vec<Holder>,
    /// Sessions that had not ended when the report was made.
    pub remaining: u32,
}

impl ConnectionPool {
    /// Opens a pool. Sessions are made when they are needed, or in the background up to
    /// [`min_size`](PoolConfig::min_size).
    ///
    /// # Errors
    /// [`ErrorKind::BadInput`] when a setting is outside its bounds, or names certificates that cannot be used; nothing was
    /// started then.
    pub fn open(runtime: Arc<dyn Runtime>, config: PoolConfig) -> Result<Self, Error> {
        Self::open_with(runtime, config, Broadcast::new(EVENTS))
    }

    /// Opens a pool that tells what happens to `events`.
    pub(crate) fn open_with(
        runtime: Arc<dyn Runtime>,
        config: PoolConfig,
        events: Broadcast<PoolEvent>,
    ) -> Result<Self, Error> {
        config.check()?;
        let now = runtime.now();
        let ledger = Ledger::new(limits(&config), now);
        let plan = plan(&config)?;
        let shared = Arc::new(Shared::new(Arc::clone(&runtime), config, plan, ledger, events));
        runtime.spawn(Box::pin(upkeep::run(Arc::clone(&shared))));
        Ok(Self {
            handle: Arc::new(Handle { shared }),
        })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(crate) fn config(&self) -> &PoolConfig {
        &self.shared().config
    }

    /// What a connection beside the pool's own needs to know.
    pub(crate) fn beside(&self) -> Beside {
        Beside::of(self.shared())
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.shared().runtime
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared().config.name
    }

    /// A session of your own, until the lease is dropped.
    ///
    /// Callers are served in the order they asked. Waits up to [`checkout_timeout`](PoolConfig::checkout_timeout).
    ///
    /// # Errors
    /// [`ErrorKind::CheckoutTimeout`] with a report that says why, [`ErrorKind::QueueFull`],
    /// [`ErrorKind::PoolClosed`].
    ///
    /// # Cancel safety
    /// Yes: a future dropped in the queue gives up its place; a session it was just given goes to the next one.
    #[track_caller]
    pub fn checkout(&self) -> impl Future<Output = Result<Lease, Error>> + Send + '_ {
        self.checkout_watched(self.watch(), Location::caller(), None)
    }

    /// Like [`checkout`](Self::checkout), but waits for `timeout` at most (and never longer than `checkout_timeout`).
    ///
    /// # Errors
    /// As [`checkout`](Self::checkout).
    ///
    /// # Cancel safety
    /// As [`checkout`](Self::checkout).
    #[track_caller]
    pub fn checkout_within(&self, timeout: Duration) -> impl Future<Output = Result<Lease, Error>> + Send + '_ {
        let deadline = self.runtime().now() + timeout;
        self.checkout_watched(self.watch(), Location::caller(), Some(deadline))
    }

    /// A place for one call in the table of deadlines.
    pub(crate) fn watch(&self) -> Watch<'_> {
        self.shared().deadlines.watch()
    }

    pub(crate) fn checkout_watched<'a>(
        &'a self,
        watch: impl BorrowMut<Watch<'a>> + Send,
        at: &'static Location<'static>,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<Lease, Error>> + Send {
        checkout::checkout(self.shared(), watch, at, deadline)
    }

    /// The pool's report at this instant.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let shared = self.shared();
        let now = shared.runtime.now();
        let books = shared.lock();
        PoolStatus::new(shared, &books, now)
    }

    /// What happens to this pool from now on; see [`InteractionPool::events`](crate::InteractionPool::events).
    pub fn events(&self) -> Events {
        Events::new(&self.shared().events, Some(Arc::clone(&self.shared().config.name)))
    }

    /// The present instant, a little old at most.
    pub(crate) fn coarse_now(&self) -> Instant {
        self.shared().coarse_now()
    }

    /// Whether a span is so long that the coarse clock is exact enough for it.
    pub(crate) fn is_long(&self, span: Duration) -> bool {
        self.shared().is_long(span)
    }

    /// How busy the pool is: callers and leases per session it may have. For balancing.
    pub(crate) fn load(&self) -> f64 {
        self.shared().lock().ledger.load()
    }

    /// The last failure to connect since the last success, if any.
    #[must_use]
    pub fn last_connect_error(&self) -> Option<Arc<Error>> {
        self.shared().lock().last_connect_error.clone()
    }

    /// Changes the bounds at run time, both ways. Never blocks: surplus idle sessions are closed at once, leased ones when
    /// they come back; waiters get new sessions as room appears.
    ///
    /// # Errors
    /// [`BadInput::OutOfBounds`] when `max` is not 1 to 10,000 or `min` is above it.
    pub fn resize(&self, min: u32, max: u32) -> Result<(), Error> {
        if !(1..=10_000).contains(&max) {
            return Err(out_of_bounds("size", max, "1 to 10,000"));
        }
        if min > max {
            return Err(out_of_bounds("min_size", min, "at most size"));
        }
        let shared = self.shared();
        if shared.lock().ledger.resize(min, max) {
            shared.wake_upkeep();
        }
        Ok(())
    }

    /// Retires all present sessions: idle ones are closed at once, leased ones when they come back. For password changes
    /// and the like.
    pub fn retire(&self) {
        let shared = self.shared();
        if shared.lock().ledger.bump_epoch() {
            shared.wake_upkeep();
        }
    }

    /// Retires all present sessions and waits until the last of them has ended; those still out after `timeout` are cut,
    /// and reported. The pool stays open: new callers get new sessions meanwhile, as far as its size allows.
    ///
    /// # Cancel safety
    /// Yes: the sessions are retired from the first poll on; a dropped future only stops waiting and cutting.
    pub async fn drain(&self, timeout: Duration) -> CloseReport {
        let shared = self.shared();
        self.retire();
        let retiring = shared.lock().ledger.retiring();
        let gone = |slots: &[ledger::SlotId]| {
            let books = shared.lock();
            !slots.iter().any(|slot| books.ledger.knows(*slot))
        };
        let deadline = shared.runtime.now() + timeout;
        let mut report = CloseReport {
            pool: self.name().into(),
            ..CloseReport::default()
        };
        if !self.poll_until(deadline, || gone(&retiring)).await {
            report.cut = cut(&mut shared.lock(), &retiring, deadline);
            // A lease that was cut keeps its slot until it is dropped; its session ends at once.
            self.poll_until(shared.runtime.now() + shared.config.close_timeout, || gone(&retiring))
                .await;
        }
        let books = shared.lock();
        report.remaining = retiring.iter().filter(|slot| books.ledger.knows(**slot)).count() as u32;
        report
    }

    /// Waits until [`min_size`](PoolConfig::min_size) sessions are open, for `timeout` at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with the last connect error as its source, if there was one.
    ///
    /// # Cancel safety
    /// Yes: the sessions are opened all the same.
    pub async fn warm_up(&self, timeout: Duration) -> Result<(), Error> {
        let shared = self.shared();
        let deadline = shared.runtime.now() + timeout;
        if self
            .poll_until(deadline, || self.open_sessions() >= self.status().min)
            .await
        {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Timeout, Outcome::NotExecuted, Phase::Connecting);
        let error = error
            .with_spent(vec![(Phase::Connecting, timeout)])
            .with_pool(&shared.config.name);
        Err(match self.last_connect_error() {
            Some(last) => error.with_source(last),
            None => error,
        })
    }

    /// Looks at `condition` every few milliseconds until it holds; `false` when `deadline` comes first. For rare waits that
    /// are not worth book-keeping.
    async fn poll_until(&self, deadline: Instant, condition: impl Fn() -> bool) -> bool {
        let runtime = self.runtime();
        while !condition() {
            let now = runtime.now();
            if now >= deadline {
                return false;
            }
            runtime.sleep_until(deadline.min(now + Duration::from_millis(5))).await;
        }
        true
    }

    fn open_sessions(&self) -> u32 {
        let status = self.status();
        status.idle + status.leased + status.settling + status.shared
    }

    /// Closes the pool: no more checkouts, waiters are turned away, idle sessions are closed, and leases get `timeout` to
    /// come back before they are cut. Reports what was cut. Closing a closed pool waits with it.
    ///
    /// # Cancel safety
    /// Yes: the pool is closed from the first poll on; a dropped future only stops waiting and cutting.
    pub async fn close(&self, timeout: Duration) -> CloseReport {
        let shared = self.shared();
        shared.shut();
        let deadline = shared.runtime.now() + timeout;
        let mut report = CloseReport {
            pool: self.name().into(),
            ..CloseReport::default()
        };
        if !self.drained_by(deadline).await {
            report.cut = cut_all(&mut shared.lock(), deadline);
            // What was cut only has to be noticed by the tasks that drive it.
            self.drained_by(shared.runtime.now() + shared.config.close_timeout)
                .await;
        }
        report.remaining = self.status().size;
        report
    }

    async fn drained_by(&self, deadline: Instant) -> bool {
        let shared = self.shared();
        let drained = async {
            loop {
                let listener = shared.drained.listen();
                if shared.lock().ledger.is_drained() {
                    return;
                }
                listener.await;
            }
        };
        let sleep = shared.runtime.sleep_until(deadline);
        let drained = std::pin::pin!(drained);
        match futures_util::future::select(drained, sleep).await {
            futures_util::future::Either::Left(_) => true,
            futures_util::future::Either::Right(_) => shared.lock().ledger.is_drained(),
        }
    }
}

/// Ends these sessions, whatever runs on them, and says who held them.
fn cut(books: &mut shared::Books, slots: &[ledger::SlotId], now: Instant) -> Vec<Holder> {
    books.kill(slots);
    let holds = books.ledger.holds(now);
    let of_these = holds.iter().filter(|hold| slots.contains(&hold.slot));
    of_these.map(report::holder).collect()
}

/// Ends every session that is out, and says who held them.
fn cut_all(books: &mut shared::Books, now: Instant) -> Vec<Holder> {
    let holders = books.ledger.holds(now).iter().map(report::holder).collect();
    books.kill_all();
    holders
}

fn out_of_bounds(setting: &'static str, given: u32, bounds: &'static str) -> Error {
    Error::bad_input(BadInput::OutOfBounds {
        setting,
        given: given.to_string(),
        bounds,
    })
}

fn limits(config: &PoolConfig) -> Limits {
    Limits {
        min: config.min,
        max: config.max,
        max_connecting: config.max_connecting,
        max_waiters: config.max_waiters,
        max_lifetime: config.max_lifetime,
        lifetime_jitter: 0.1,
        idle_timeout: config.idle_timeout,
        ping_after: config.ping_after,
        hold_warning: config.hold_warning,
        shed: config.shed,
        backoff_base: config.backoff.0,
        backoff_cap: config.backoff.1,
    }
}

fn plan(config: &PoolConfig) -> Result<DialPlan, Error> {
    let mut target = config.target.clone();
    target.start_up.set(&config.settings);
    let (entries, bytes) = config.statement_cache;
    Ok(DialPlan {
        pool: Arc::clone(&config.name),
        password: config.password.clone(),
        tls: Tls::of(&target, config.tls.as_ref())?,
        target: Arc::new(target),
        settings: SessionSettings {
            statement_cache: CacheLimits { entries, bytes },
            cancel_after: config.cancel_after,
            template: Arc::new(Template::new(config.on_connect.clone())),
            cancels: Arc::default(),
            pooling: config.pooler.pooling(),
        },
    })
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool")
            .field("status", &self.status())
            .finish()
    }
}
