//! The one run-and-retry loop: route, check out, run, and try again where nothing can have happened twice.
//!
//! The middle of every interaction's way. What may be tried again is decided by outcome alone: a statement that was not
//! executed, or a read whose session was lost. A write whose reply was lost is never sent again.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::future::{Either, select};

use super::parameters::Parameters;
use super::rows::RowStream;
use super::statement::{self, Answer, Keep, Ready};
use crate::Instant;
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::{ConnectionPool, Lease};
use crate::route::{Access, NamedPools};

/// How often a read whose session was lost is sent again, or a statement whose plan was of no use.
const RETRIES: usize = 2;
/// How many sessions that turn out to be dead, before anything was sent, a call may meet: after a server's restart a pool
/// can hold many that nobody has told yet. Each costs the server nothing and is closed by it.
const DEAD_SESSIONS: usize = 32;

/// An interaction as ordered.
pub struct Order<'a> {
    pub(super) db: &'a NamedPools,
    pub(super) sql: Cow<'a, str>,
    pub(super) parameters: Parameters<'a>,
    pub(super) access: Access,
    pub(super) dirty: bool,
    pub(super) pool: Option<&'a str>,
    pub(super) deadline: Option<Instant>,
    pub(super) cancel: Option<&'a Cancel>,
    pub(super) at: &'static Location<'static>,
}

/// Why a call stops waiting for its statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
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
pub(super) async fn collect(order: &Order<'_>, keep: Keep) -> Result<Answer, Error> {
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
pub(super) async fn stream(order: &Order<'_>) -> Result<RowStream, Error> {
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
            let (rows, flight) = begun.inspect_err(|error| forget_stale(&lease, &order.sql, error))?;
            let prepared = ready.prepared().clone();
            drop(ready);
            Ok(RowStream::new(lease, rows, flight, prepared, order.access))
        };
        match result.await {
            Ok(rows) => return Ok(rows),
            Err(error) => tries.after(order, error)?,
        }
    }
}

/// One call's way through its tries.
#[derive(Debug, Default)]
struct Tries {
    made: usize,
    dead: usize,
    /// Fixed by the first try, for all of them.
    deadline: Option<Instant>,
    /// When the present phase began. `None` for a call that cannot be stopped, which looks at no clock.
    since: Option<Instant>,
    /// Whether each phase is timed, or only the one in which a call is stopped.
    detailed: bool,
    spent: Vec<(Phase, Duration)>,
}

impl Tries {
    /// A phase is over.
    fn lap(&mut self, order: &Order<'_>, phase: Phase) {
        if self.detailed {
            self.account(order, phase);
        }
    }

    fn account(&mut self, order: &Order<'_>, phase: Phase) {
        if let Some(since) = self.since {
            let now = order.db.runtime().now();
            self.spent.push((phase, now - since));
            self.since = Some(now);
        }
    }

    /// The error of a call that was stopped in `phase`.
    fn stopped(&mut self, order: &Order<'_>, stop: Stop, outcome: Outcome, phase: Phase) -> Error {
        self.account(order, phase);
        stop.error(outcome, phase).with_spent(std::mem::take(&mut self.spent))
    }

    /// Lets the loop go round again, or gives the error to the caller.
    fn after(&mut self, order: &Order<'_>, error: Error) -> Result<(), Error> {
        let lost = matches!(error.kind(), ErrorKind::Lost);
        if lost && error.outcome() == Outcome::NotExecuted && self.dead < DEAD_SESSIONS {
            self.dead += 1;
            tracing::debug!(%error, dead = self.dead, "an interaction met a dead session");
            return Ok(());
        }
        let nothing_happened = statement::plan_is_stale(&error) || statement::statement_is_gone(&error);
        let harmless = lost && order.access == Access::Read;
        if self.made < RETRIES && (nothing_happened || harmless) {
            self.made += 1;
            tracing::debug!(%error, tries = self.made, "an interaction is tried again");
            return Ok(());
        }
        Err(error)
    }
}

/// One try on one session.
async fn run_once(order: &Order<'_>, pool: &ConnectionPool, tries: &mut Tries, keep: Keep) -> Result<Answer, Error> {
    let lease = &order.check_out(pool, tries).await?;
    let ready = match order.ready_at_once(lease)? {
        Some(ready) => {
            tries.lap(order, Phase::Preparing);
            ready
        }
        // Boxed, because it is rare and large: every call would carry the room for it.
        None => {
            Box::pin(async {
                order
                    .within(lease, tries, Phase::Preparing, pin!(order.ready(lease)))
                    .await
            })
            .await?
        }
    };
    let mut running = pin!(ready.run(lease, keep));
    let stop = match order.unless_stopped(lease, tries.deadline, running.as_mut()).await {
        Ok(answer) => return answer.inspect_err(|error| forget_stale(lease, &order.sql, error)),
        Err(stop) => stop,
    };
    if order.access == Access::Read {
        // Nothing can have changed; the session is cancelled and settled after the lease.
        let error = tries.stopped(order, stop, Outcome::RolledBack, Phase::Executing);
        return Err(statement::on(lease, error));
    }
    let grace = pool.runtime().now() + pool.config().cancel_grace;
    let mut answer = None;
    // Both are waited for: a cancel request that is still under way when the session goes back costs the session.
    // Boxed, because it is rare and large: every call would carry the room for it.
    let mut both = Box::pin(futures_util::future::join(lease.session().cancel(), async {
        answer = Some(running.await);
    }));
    lease.limit(grace, both.as_mut()).await;
    drop(both);
    let mut stopped = |outcome| statement::on(lease, tries.stopped(order, stop, outcome, Phase::Executing));
    match answer {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) if error.outcome() == Outcome::RolledBack => {
            Err(stopped(Outcome::RolledBack).with_source(error))
        }
        Some(Err(error)) => Err(error),
        None => Err(stopped(Outcome::Unknown)),
    }
}

fn forget_stale(lease: &Lease, sql: &str, error: &Error) {
    if statement::plan_is_stale(error) {
        lease.session().forget(sql);
    }
}

impl Order<'_> {
    /// Looks the order over, and finds its pool and its deadline.
    fn prepare(&self, tries: &mut Tries) -> Result<ConnectionPool, Error> {
        self.parameters.check_form()?;
        statement::check_text(&self.sql)?;
        if self.cancel.is_some_and(Cancel::is_cancelled) {
            return Err(tries.stopped(self, Stop::Cancelled, Outcome::NotExecuted, Phase::Checking));
        }
        let pool = self.db.choose(self.access, self.pool)?;
        let span = pool.config().interaction_timeout;
        if self.deadline.is_none() && span.is_none() && self.cancel.is_none() {
            return Ok(pool);
        }
        // A bound that is only the pool's, and long, needs no exact clock, and no account of every phase.
        tries.detailed =
            self.deadline.is_some() || self.cancel.is_some() || span.is_some_and(|span| !pool.is_long(span));
        let now = if tries.detailed {
            pool.runtime().now()
        } else {
            pool.coarse_now()
        };
        tries.since.get_or_insert(now);
        tries.deadline = tries.deadline.or(self.deadline).or_else(|| Some(now + span?));
        if tries.deadline.is_some_and(|deadline| deadline <= now) {
            let error = tries.stopped(self, Stop::TimedOut, Outcome::NotExecuted, Phase::Checking);
            return Err(error.with_pool(&pool.config().name));
        }
        Ok(pool)
    }

    async fn check_out(&self, pool: &ConnectionPool, tries: &mut Tries) -> Result<Lease, Error> {
        let checkout = pool.checkout_until(self.at, tries.deadline);
        let lease = match self.cancel {
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
        Ok(lease)
    }

    /// The statement, if the session has it in its cache.
    fn ready_at_once(&self, lease: &Lease) -> Result<Option<Ready<'_>>, Error> {
        if self.dirty {
            lease.session().mark_dirty();
        }
        Ready::cached(lease, &self.sql, &self.parameters, self.access).transpose()
    }

    async fn ready(&self, lease: &Lease) -> Result<Ready<'_>, Error> {
        if self.dirty {
            lease.session().mark_dirty();
        }
        Ready::new(lease, &self.sql, &self.parameters, self.access).await
    }

    /// Runs `work` until the order is stopped; for work that can simply be dropped.
    async fn within<T>(
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
                let outcome = match (phase, self.access) {
                    (Phase::Preparing, _) => Outcome::NotExecuted,
                    (_, Access::Read) => Outcome::RolledBack,
                    (_, Access::Write) => Outcome::Unknown,
                };
                Err(statement::on(lease, tries.stopped(self, stop, outcome, phase)))
            }
        }
    }

    /// Polls `work` until it is done, the deadline passes, or the caller cancels.
    async fn unless_stopped<T>(
        &self,
        lease: &Lease,
        deadline: Option<Instant>,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Stop> {
        let deadline = deadline.unwrap_or(Instant::FAR_FUTURE);
        let Some(cancel) = self.cancel else {
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

impl fmt::Debug for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("sql", &self.sql)
            .field("parameters", &self.parameters)
            .field("access", &self.access)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
