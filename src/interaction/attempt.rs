//! The one run-and-retry loop: route, check out, run, and try again where nothing can have happened twice.
//!
//! The middle of every interaction's way. What may be tried again is decided by outcome alone: a statement that was not
//! executed, or a read whose session was lost. A write whose reply was lost is never sent again, unless its caller said that
//! doing it twice is the same as doing it once.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio_postgres::Column;

use super::parameters::Parameters;
use super::partial;
use super::rows::RowStream;
use super::statement::{self, Answer, Keep, Ready};
use super::transaction::Core;
use crate::Instant;
use crate::cancel::Cancel;
use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase};
use crate::observe;
use crate::pool::{ConnectionPool, Lease, Watch};
use crate::route::{Access, NamedPools};

/// How often a read (or an idempotent write) whose session was lost is sent again, or a statement whose plan was of no use.
const RETRIES: u8 = 2;
/// How many sessions that turn out to be dead, before anything was sent, a call may meet: after a server's restart a pool
/// can hold many that nobody has told yet. Each costs the server nothing and is closed by it.
const DEAD_SESSIONS: u8 = 32;

/// An interaction as ordered: of whom, and what.
pub struct Order<'db, 'v> {
    pub(super) db: &'db Arc<NamedPools>,
    pub(super) asked: Asked<'v>,
}

/// What is asked: apart from the pools' handle, so that a call that runs on its own can take it along.
pub(super) struct Asked<'v> {
    pub(super) sql: Cow<'v, str>,
    pub(super) parameters: Parameters<'v>,
    pub(super) access: Access,
    pub(super) dirty: bool,
    pub(super) idempotent: bool,
    /// What the columns of the answer must be.
    pub(super) columns: Option<Check>,
    pub(super) pool: Option<Cow<'v, str>>,
    pub(super) deadline: Option<Instant>,
    pub(super) cancel: Option<Cancel>,
    /// The transaction to run in, where one is open.
    pub(super) inside: Option<Arc<Core>>,
    pub(super) at: &'static Location<'static>,
}

impl<'v> Asked<'v> {
    pub(super) fn new(sql: Cow<'v, str>, at: &'static Location<'static>) -> Self {
        Self {
            sql,
            parameters: Parameters::None,
            access: Access::Write,
            dirty: false,
            idempotent: false,
            columns: None,
            pool: None,
            deadline: None,
            cancel: None,
            inside: None,
            at,
        }
    }
}

/// Names the first column that does not fit what the rows are read into.
pub(super) type Check = fn(&[Column]) -> Result<(), BadInput>;

/// Why a call stops waiting for its statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    TimedOut,
}

impl Stop {
    fn error(self, outcome: Outcome, phase: Phase) -> Error {
        let kind = match self {
            Self::Cancelled => ErrorKind::Cancelled,
            Self::TimedOut => ErrorKind::Timeout,
        };
        Error::new(kind, outcome, phase)
    }
}

/// Runs the order and gives its whole answer.
pub(super) async fn collect(order: &Order<'_, '_>, keep: Keep) -> Result<Answer, Error> {
    if let Some(core) = &order.asked.inside {
        // Boxed, because it is rare and large: every call would carry the room for it.
        return Box::pin(partial::collect(order, core, keep)).await;
    }
    let mut tries = Tries::default();
    loop {
        let pool = order.prepare(&mut tries)?;
        match run_once(order, &pool, &mut tries, keep).await {
            Ok(answer) => return Ok(answer),
            Err(error) => tries.after(order, error)?,
        }
    }
}

/// Runs the order and gives its rows as they come.
pub(super) async fn stream(order: &Order<'_, '_>) -> Result<RowStream, Error> {
    let mut tries = Tries::default();
    loop {
        let pool = order.prepare(&mut tries)?;
        let result = async {
            let lease = order.check_out(&pool, &mut tries).await?;
            let ready = order
                .within(&lease, &mut tries, Phase::Preparing, pin!(order.ready(&lease)))
                .await?;
            let begun = order
                .within(&lease, &mut tries, Phase::Executing, pin!(ready.start(&lease)))
                .await;
            let (rows, flight) = begun.inspect_err(|error| forget_stale(&lease, &order.asked.sql, error))?;
            let prepared = ready.prepared().clone();
            drop(ready);
            Ok(RowStream::new(lease, rows, flight, prepared, order.asked.access))
        };
        match result.await {
            Ok(rows) => return Ok(rows),
            Err(error) => tries.after(order, error)?,
        }
    }
}

/// One call's way through its tries.
#[derive(Debug, Default)]
pub(super) struct Tries {
    made: u8,
    dead: u8,
    /// Fixed by the first try, for all of them.
    pub(super) deadline: Option<Instant>,
    /// When the present phase began. `None` for a call that cannot be stopped, which looks at no clock.
    since: Option<Instant>,
    /// Whether each phase is timed, or only the one in which a call is stopped.
    detailed: bool,
    spent: Vec<(Phase, Duration)>,
}

impl Tries {
    /// A phase is over.
    fn lap(&mut self, order: &Order<'_, '_>, phase: Phase) {
        if self.detailed {
            self.account(order, phase);
        }
    }

    fn account(&mut self, order: &Order<'_, '_>, phase: Phase) {
        if let Some(since) = self.since {
            let now = order.db.runtime().now();
            self.spent.push((phase, now - since));
            self.since = Some(now);
        }
    }

    /// The error of a call that was stopped in `phase`.
    pub(super) fn stopped(&mut self, order: &Order<'_, '_>, stop: Stop, outcome: Outcome, phase: Phase) -> Error {
        self.account(order, phase);
        stop.error(outcome, phase).with_spent(std::mem::take(&mut self.spent))
    }

    /// The call's own deadline, once its first try has fixed it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the session turned out to be dead before anything was sent, and another one may be tried.
    pub(super) fn met_dead_session(&mut self, error: &Error) -> bool {
        let dead = matches!(error.kind(), ErrorKind::Lost) && error.outcome() == Outcome::NotExecuted;
        if dead && self.dead < DEAD_SESSIONS {
            self.dead += 1;
            tracing::debug!(%error, dead = self.dead, "an interaction met a dead session");
            return true;
        }
        false
    }

    /// Lets the loop go round again, or gives the error to the caller.
    pub(super) fn after(&mut self, order: &Order<'_, '_>, error: Error) -> Result<(), Error> {
        if self.met_dead_session(&error) {
            order.db.count_retry();
            return Ok(());
        }
        let lost = matches!(error.kind(), ErrorKind::Lost);
        let nothing_happened = statement::plan_is_stale(&error) || statement::statement_is_gone(&error);
        let harmless = lost && (order.asked.access == Access::Read || order.asked.idempotent);
        if self.made < RETRIES && (nothing_happened || harmless) {
            self.made += 1;
            order.db.count_retry();
            tracing::debug!(%error, tries = self.made, "an interaction is tried again");
            return Ok(());
        }
        Err(error)
    }
}

/// One try on one session.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` would have room for its arguments twice"
)]
fn run_once<'a>(
    order: &'a Order<'_, '_>,
    pool: &'a ConnectionPool,
    tries: &'a mut Tries,
    keep: Keep,
) -> impl Future<Output = Result<Answer, Error>> {
    async move {
        // For both waits, of the checkout and of the answer: it is the call that has a place, not each of its phases.
        let mut watch = pool.watch();
        let lease = order.check_out_watched(pool, &mut watch, tries).await?;
        run_on(order, pool, &lease, &mut watch, tries, keep).await
    }
}

/// What follows the checkout. On its own, so that both parts of a try have the same room.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` would have room for its arguments twice"
)]
fn run_on<'a>(
    order: &'a Order<'_, '_>,
    pool: &'a ConnectionPool,
    lease: &'a Lease,
    watch: &'a mut Watch<'_>,
    tries: &'a mut Tries,
    keep: Keep,
) -> impl Future<Output = Result<Answer, Error>> {
    async move {
        let at_once = order
            .ready_at_once(lease)?
            .inspect(|_| tries.lap(order, Phase::Preparing));
        let ready = match at_once {
            Some(ready) => ready,
            None => order.ready_later(lease, tries).await?,
        };
        let mut running = pin!(ready.run(lease, keep));
        let stopped = match &order.asked.cancel {
            None => {
                let deadline = tries.deadline.unwrap_or(Instant::FAR_FUTURE);
                let done = watch.limit_pinned(deadline, running.as_mut()).await;
                done.map_err(|_| Stop::TimedOut)
            }
            Some(_) => Box::pin(order.unless_stopped(lease, tries.deadline, running.as_mut())).await,
        };
        let stop = match stopped {
            Ok(answer) => return answer.inspect_err(|error| forget_stale(lease, &order.asked.sql, error)),
            Err(stop) => stop,
        };
        // Boxed, because it is rare and large: every call would carry the room for it.
        Box::pin(order.give_up(lease, pool, tries, running, stop)).await
    }
}

pub(super) fn forget_stale(lease: &Lease, sql: &str, error: &Error) {
    if statement::plan_is_stale(error) {
        lease.session().forget(sql);
    }
}

impl<'db> Order<'db, '_> {
    /// Looks the order over, and finds its pool and its deadline.
    pub(super) fn prepare(&self, tries: &mut Tries) -> Result<ConnectionPool, Error> {
        self.asked.parameters.check_form()?;
        statement::check_text(&self.asked.sql)?;
        if self.asked.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Err(tries.stopped(self, Stop::Cancelled, Outcome::NotExecuted, Phase::Checking));
        }
        let pool = self.db.choose(self.asked.access, self.asked.pool.as_deref())?;
        let span = pool.config().interaction_timeout;
        if self.asked.deadline.is_none() && span.is_none() && self.asked.cancel.is_none() {
            return Ok(pool);
        }
        // A bound that is only the pool's, and long, needs no exact clock, and no account of every phase.
        tries.detailed = self.asked.deadline.is_some()
            || self.asked.cancel.is_some()
            || span.is_some_and(|span| !pool.is_long(span));
        let now = if tries.detailed {
            pool.runtime().now()
        } else {
            pool.coarse_now()
        };
        tries.since.get_or_insert(now);
        tries.deadline = tries.deadline.or(self.asked.deadline).or_else(|| Some(now + span?));
        if tries.deadline.is_some_and(|deadline| deadline <= now) {
            let error = tries.stopped(self, Stop::TimedOut, Outcome::NotExecuted, Phase::Checking);
            return Err(error.with_pool(&pool.config().name));
        }
        Ok(pool)
    }

    /// An order of nothing, under the same terms.
    pub(super) fn frame<'a>(&self) -> Order<'a, 'a>
    where
        Self: 'a,
        'db: 'a,
    {
        Order {
            db: self.db,
            asked: Asked {
                deadline: self.asked.deadline,
                cancel: self.asked.cancel.clone(),
                ..Asked::new(Cow::Borrowed(""), self.asked.at)
            },
        }
    }

    /// The error of an answer that is not as it was asked for: inside a transaction nothing is final yet.
    pub(super) fn not_as_asked(&self, error: Error) -> Error {
        match &self.asked.inside {
            Some(core) => statement::on(core.lease(), error.with_outcome(Outcome::Unknown)),
            None => error,
        }
    }

    /// The tries of a call inside an open transaction, of which there is one.
    pub(super) fn tries_inside(&self, lease: &Lease) -> Result<Tries, Error> {
        let mut tries = Tries {
            detailed: true,
            ..Tries::default()
        };
        if self.asked.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Err(tries.stopped(self, Stop::Cancelled, Outcome::NotExecuted, Phase::Checking));
        }
        let now = lease.runtime().now();
        tries.since = Some(now);
        let longest = lease.interaction_timeout().map(|span| now + span);
        tries.deadline = self.asked.deadline.or(longest);
        Ok(tries)
    }

    pub(super) async fn check_out(&self, pool: &ConnectionPool, tries: &mut Tries) -> Result<Lease, Error> {
        self.check_out_watched(pool, &mut pool.watch(), tries).await
    }

    async fn check_out_watched<'a>(
        &self,
        pool: &'a ConnectionPool,
        watch: &mut Watch<'a>,
        tries: &mut Tries,
    ) -> Result<Lease, Error> {
        let checkout = pool.checkout_watched(watch, self.asked.at, tries.deadline);
        let lease = match &self.asked.cancel {
            None => checkout.await?,
            // Boxed, like all that is rare: every call would carry the room for it.
            Some(cancel) => match select(Box::pin(checkout), Box::pin(cancel.cancelled())).await {
                Either::Left((lease, _)) => lease?,
                Either::Right(_) => {
                    let error = tries.stopped(self, Stop::Cancelled, Outcome::NotExecuted, Phase::Queued);
                    return Err(error.with_pool(&pool.config().name));
                }
            },
        };
        tries.lap(self, Phase::Queued);
        let namespace = pool.config().target.dbname.as_deref();
        observe::checked_out(pool.name(), namespace, lease.endpoint());
        Ok(lease)
    }

    /// The statement, if the session has it in its cache.
    fn ready_at_once(&self, lease: &Lease) -> Result<Option<Ready<'_>>, Error> {
        if self.asked.dirty {
            lease.session().mark_dirty();
        }
        let cached = Ready::cached(lease, &self.asked.sql, &self.asked.parameters, self.asked.access);
        cached.map(|ready| self.fits(lease, ready?)).transpose()
    }

    /// The statement is prepared first. Boxed, because it is rare and large: every call would carry the room for it.
    fn ready_later<'a, 't>(
        &'a self,
        lease: &'t Lease,
        tries: &'t mut Tries,
    ) -> Pin<Box<impl Future<Output = Result<Ready<'a>, Error>>>> {
        Box::pin(async move {
            self.within(lease, tries, Phase::Preparing, pin!(self.ready(lease)))
                .await
        })
    }

    pub(super) async fn ready(&self, lease: &Lease) -> Result<Ready<'_>, Error> {
        if self.asked.dirty {
            lease.session().mark_dirty();
        }
        let ready = Ready::new(lease, &self.asked.sql, &self.asked.parameters, self.asked.access).await?;
        self.fits(lease, ready)
    }

    /// The columns are what the rows will be read into, which is known before anything runs.
    pub(super) fn fits<'r>(&self, lease: &Lease, ready: Ready<'r>) -> Result<Ready<'r>, Error> {
        if let Some(check) = self.asked.columns {
            check(ready.statement().columns()).map_err(|wrong| statement::on(lease, Error::bad_input(wrong)))?;
        }
        Ok(ready)
    }

    /// Runs `work` until the order is stopped; for work that can simply be dropped.
    pub(super) async fn within<T>(
        &self,
        lease: &Lease,
        tries: &mut Tries,
        phase: Phase,
        work: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        match self.unless_stopped(lease, tries.deadline, work).await {
            Ok(done) => {
                tries.lap(self, phase);
                done
            }
            Err(stop) => {
                let outcome = match (phase, self.asked.access) {
                    (Phase::Preparing, _) => Outcome::NotExecuted,
                    (_, Access::Read) => Outcome::RolledBack,
                    (_, Access::Write) => Outcome::Unknown,
                };
                Err(statement::on(lease, tries.stopped(self, stop, outcome, phase)))
            }
        }
    }

    /// Stops what runs on the session, and waits a little for the server's last word on it.
    pub(super) async fn give_up<T>(
        &self,
        lease: &Lease,
        pool: &ConnectionPool,
        tries: &mut Tries,
        running: Pin<&mut impl Future<Output = Result<T, Error>>>,
        stop: Stop,
    ) -> Result<T, Error> {
        if self.asked.access == Access::Read {
            // Nothing can have changed; the session is cancelled and settled after the lease.
            let error = tries.stopped(self, stop, Outcome::RolledBack, Phase::Executing);
            return Err(statement::on(lease, error));
        }
        let grace = pool.runtime().now() + pool.config().cancel_grace;
        let mut answer = None;
        // Both are waited for: a cancel request that is still under way when the session goes back costs the session.
        let both = futures_util::future::join(lease.session().cancel(), async {
            answer = Some(running.await);
        });
        lease.limit(grace, both).await;
        let mut stopped = |outcome| statement::on(lease, tries.stopped(self, stop, outcome, Phase::Executing));
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) if error.outcome() == Outcome::RolledBack => {
                Err(stopped(Outcome::RolledBack).with_source(error))
            }
            Some(Err(error)) => Err(error),
            None => Err(stopped(Outcome::Unknown)),
        }
    }

    /// Polls `work` until it is done, the deadline passes, or the caller cancels.
    ///
    /// A block instead of an `async fn`, which would have room for its arguments twice.
    pub(super) fn unless_stopped<'a, T>(
        &'a self,
        lease: &'a Lease,
        deadline: Option<Instant>,
        mut work: Pin<&'a mut impl Future<Output = T>>,
    ) -> impl Future<Output = Result<T, Stop>> {
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        async move {
            let Some(cancel) = &self.asked.cancel else {
                return lease.limit_pinned(deadline, work).await.map_err(|_| Stop::TimedOut);
            };
            let mut either = Box::new(select(work.as_mut(), Box::pin(cancel.cancelled())));
            match lease.limit_pinned(deadline, Pin::new(&mut *either)).await {
                Ok(Either::Left((done, _))) => Ok(done),
                Ok(Either::Right(_)) => Err(Stop::Cancelled),
                Err(_) => Err(Stop::TimedOut),
            }
        }
    }
}

impl fmt::Debug for Order<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("sql", &self.asked.sql)
            .field("parameters", &self.asked.parameters)
            .field("access", &self.asked.access)
            .field("pool", &self.asked.pool)
            .finish_non_exhaustive()
    }
}
