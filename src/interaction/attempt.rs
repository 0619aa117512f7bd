//! The one run-and-retry loop: route, check out, run, and try again where nothing can have happened twice.
//!
//! The middle of every interaction's way. What may be tried again is decided by outcome alone: a statement that was not
//! executed, or a read whose session was lost. A write whose reply was lost is never sent again.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::pin::pin;

use futures_util::future::{Either, select};

use super::parameters::Parameters;
use super::rows::RowStream;
use super::statement::{self, Answer, Keep, Ready};
use crate::Instant;
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::{ConnectionPool, Lease};
use crate::route::{Access, NamedPools};

/// How often work that did not happen is tried again.
const RETRIES: usize = 2;

/// An interaction as ordered.
pub struct Order<'a> {
    pub(super) db: &'a NamedPools,
    pub(super) sql: Cow<'a, str>,
    pub(super) parameters: Parameters<'a>,
    pub(super) access: Access,
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
        let (pool, deadline) = order.prepare()?;
        let result = async {
            let lease = order.check_out(&pool, deadline).await?;
            run_on(order, &lease, &pool, deadline, keep).await
        };
        match result.await {
            Ok(answer) => return Ok(answer),
            Err(error) => tries.after(order, error)?,
        }
    }
}

/// Runs the order and gives its rows as they come.
pub(super) async fn stream(order: &Order<'_>) -> Result<RowStream, Error> {
    let mut tries = Tries::default();
    loop {
        let (pool, deadline) = order.prepare()?;
        let result = async {
            let lease = order.check_out(&pool, deadline).await?;
            let begun = async {
                let ready = order.ready(&lease).await?;
                let (rows, flight) = ready.start(&lease).await?;
                Ok((rows, flight, ready.statement().clone()))
            };
            let begun = order.within(&lease, deadline, Phase::Executing, begun).await;
            let (rows, flight, statement) = begun.inspect_err(|error| forget_stale(&lease, &order.sql, error))?;
            Ok(RowStream::new(lease, rows, flight, statement, order.access))
        };
        match result.await {
            Ok(rows) => return Ok(rows),
            Err(error) => tries.after(order, error)?,
        }
    }
}

#[derive(Debug, Default)]
struct Tries {
    made: usize,
}

impl Tries {
    /// Lets the loop go round again, or gives the error to the caller.
    fn after(&mut self, order: &Order<'_>, error: Error) -> Result<(), Error> {
        let lost = matches!(error.kind(), ErrorKind::Lost);
        let nothing_happened = (lost && error.outcome() == Outcome::NotExecuted)
            || statement::plan_is_stale(&error)
            || statement::statement_is_gone(&error);
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
async fn run_on(
    order: &Order<'_>,
    lease: &Lease,
    pool: &ConnectionPool,
    deadline: Option<Instant>,
    keep: Keep,
) -> Result<Answer, Error> {
    let ready = order
        .within(lease, deadline, Phase::Preparing, order.ready(lease))
        .await?;
    let mut running = pin!(ready.run(lease, keep));
    let stop = match select(running.as_mut(), pin!(order.stopped(lease, deadline))).await {
        Either::Left((answer, _)) => return answer.inspect_err(|error| forget_stale(lease, &order.sql, error)),
        Either::Right((stop, _)) => stop,
    };
    if order.access == Access::Read {
        // Nothing can have changed; the session is cancelled and settled after the lease.
        return Err(statement::on(lease, stop.error(Outcome::RolledBack, Phase::Executing)));
    }
    let grace = pool.runtime().now() + pool.config().cancel_grace;
    let mut answer = None;
    // Both are waited for: a cancel request that is still under way when the session goes back costs the session.
    let both = futures_util::future::join(lease.session().cancel(), async { answer = Some(running.await) });
    lease.limit(grace, both).await;
    match answer {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) if error.outcome() == Outcome::RolledBack => {
            Err(statement::on(lease, stop.error(Outcome::RolledBack, Phase::Executing)).with_source(error))
        }
        Some(Err(error)) => Err(error),
        None => Err(statement::on(lease, stop.error(Outcome::Unknown, Phase::Executing))),
    }
}

fn forget_stale(lease: &Lease, sql: &str, error: &Error) {
    if statement::plan_is_stale(error) {
        lease.session().forget(sql);
    }
}

impl Order<'_> {
    /// Looks the order over, and finds its pool and its deadline.
    fn prepare(&self) -> Result<(ConnectionPool, Option<Instant>), Error> {
        self.parameters.check_form()?;
        statement::check_text(&self.sql)?;
        if self.cancel.is_some_and(Cancel::is_cancelled) {
            return Err(Stop::Cancelled.error(Outcome::NotExecuted, Phase::Checking));
        }
        let pool = self.db.choose(self.access, self.pool)?;
        let deadline = self.deadline.or_else(|| {
            let span = pool.config().interaction_timeout?;
            Some(pool.runtime().now() + span)
        });
        if deadline.is_some_and(|deadline| deadline <= pool.runtime().now()) {
            let error = Stop::TimedOut.error(Outcome::NotExecuted, Phase::Checking);
            return Err(error.with_pool(&pool.config().name));
        }
        Ok((pool, deadline))
    }

    async fn check_out(&self, pool: &ConnectionPool, deadline: Option<Instant>) -> Result<Lease, Error> {
        let Some(cancel) = self.cancel else {
            return pool.checkout_until(self.at, deadline).await;
        };
        let checkout = pin!(pool.checkout_until(self.at, deadline));
        match select(checkout, pin!(cancel.cancelled())).await {
            Either::Left((lease, _)) => lease,
            Either::Right(_) => {
                let error = Stop::Cancelled.error(Outcome::NotExecuted, Phase::Queued);
                Err(error.with_pool(&pool.config().name))
            }
        }
    }

    async fn ready(&self, lease: &Lease) -> Result<Ready<'_>, Error> {
        Ready::new(lease, &self.sql, &self.parameters, self.access).await
    }

    /// Runs `work` until the order is stopped; for work that can simply be dropped.
    async fn within<T>(
        &self,
        lease: &Lease,
        deadline: Option<Instant>,
        phase: Phase,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match select(pin!(work), pin!(self.stopped(lease, deadline))).await {
            Either::Left((done, _)) => done,
            Either::Right((stop, _)) => {
                let outcome = match (phase, self.access) {
                    (Phase::Preparing, _) => Outcome::NotExecuted,
                    (_, Access::Read) => Outcome::RolledBack,
                    (_, Access::Write) => Outcome::Unknown,
                };
                Err(statement::on(lease, stop.error(outcome, phase)))
            }
        }
    }

    /// Completes when the deadline passes or the caller cancels; never, if there is neither.
    async fn stopped(&self, lease: &Lease, deadline: Option<Instant>) -> Stop {
        let cancelled = async {
            match self.cancel {
                Some(cancel) => cancel.cancelled().await,
                None => std::future::pending().await,
            }
        };
        match lease.limit(deadline.unwrap_or(Instant::FAR_FUTURE), cancelled).await {
            Some(()) => Stop::Cancelled,
            None => Stop::TimedOut,
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
