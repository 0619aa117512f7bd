//! Function interactions: a transaction around a user's function, run again as a whole where that is safe.
//!
//! Between the user's handle and the transaction. It checks out, runs, commits or abandons; whether again is the machine's
//! in `rerun.rs`, what became of it the transaction's to say.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_postgres::error::SqlState;

use super::attempt::{Asked, Order, Stop, Tries};
use super::rerun::{self, Cause, RERUNS, Reruns};
use super::spawn::{self, AsyncResult};
use super::statement::on;
use super::transaction::{Core, Isolation, Options, Over, Receipt, Transaction};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::ConnectionPool;
use crate::route::{Access, NamedPools};
use crate::runtime::BoxFuture;
use crate::{Instant, observe};

/// A function over a transaction, to be awaited; made by [`InteractionPool::transact`](crate::InteractionPool::transact)
/// and by [`InteractionPool::run`](crate::InteractionPool::run) with a function.
///
/// Nothing happens before it is awaited. `Ok` commits, `Err`, a panic and a drop roll back. The function is run again as a
/// whole when the server found a conflict (SQLSTATE 40001, 40P01) or the session was lost before COMMIT was written, after
/// a random pause, until the deadline, and at most [`reruns`](Self::reruns) times: it must borrow or clone what it captures
/// for each run, and do nothing outside the transaction that must not happen twice.
///
/// # Errors
/// What the function returned, with what became of the work ([`Error::outcome`]); never `Ok` unless the server said that it
/// committed. [`Error::user`] carries errors of your own.
///
/// # Cancel safety
/// The future may be dropped at any point: before COMMIT was written, everything is rolled back; after, whether it was
/// committed is unknown to the caller.
#[must_use = "an interaction runs when it is awaited"]
pub struct Transact<'db, 'v, F> {
    pub(super) order: Order<'db, 'v>,
    pub(super) options: Options,
    reruns: u32,
    pub(super) function: F,
}

impl<'db, 'v, F> Transact<'db, 'v, F> {
    pub(crate) fn new(db: &'db Arc<NamedPools>, function: F, at: &'static Location<'static>) -> Self {
        Self {
            order: Order {
                db,
                asked: Asked::new(Cow::Borrowed(""), at),
            },
            options: Options::default(),
            reruns: RERUNS,
            function,
        }
    }

    /// How far the transaction is kept apart from others. Default: as the server has it, which is read committed.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.options.isolation = Some(isolation);
        self
    }

    /// Declares that the function only reads: it goes to the default read set, in a READ ONLY transaction. A text that
    /// would make it another one is [`BadInput::TransactionControl`](crate::BadInput::TransactionControl).
    pub fn read(mut self) -> Self {
        self.order.asked.access = Access::Read;
        self.options.read_only = true;
        self
    }

    /// With [`Isolation::Serializable`] and [`read`](Self::read): waits for a snapshot that no conflict can end.
    pub fn deferrable(mut self) -> Self {
        self.options.deferrable = true;
        self
    }

    /// Runs on the pool of this name; [`BadInput::UnknownPool`](crate::BadInput::UnknownPool) if there is none.
    pub fn on_pool(mut self, name: impl Into<Cow<'v, str>>) -> Self {
        self.order.asked.pool = Some(name.into());
        self
    }

    /// Gives up after this long, checkout and all runs included. Default: the pool's
    /// [`interaction_timeout`](crate::PoolConfig::interaction_timeout).
    ///
    /// While COMMIT waits for its answer, the call waits up to [`cancel_grace`](crate::PoolConfig::cancel_grace) longer.
    pub fn timeout(mut self, span: Duration) -> Self {
        let now = self.order.db.runtime().now();
        self.order.asked.deadline = Some(now + span);
        self
    }

    /// Gives up at this instant of the pool's runtime; see [`timeout`](Self::timeout).
    pub fn deadline(mut self, at: Instant) -> Self {
        self.order.asked.deadline = Some(at);
        self
    }

    /// Gives up when `cancel` is set; see [`timeout`](Self::timeout).
    pub fn cancel_on(mut self, cancel: &Cancel) -> Self {
        self.order.asked.cancel = Some(cancel.clone());
        self
    }

    /// How often the function may be run again. Default: 10; 0 for one that must run once at most.
    pub fn reruns(mut self, limit: u32) -> Self {
        self.reruns = limit;
        self
    }
}

impl<'a, F, Fut, T> IntoFuture for Transact<'a, 'a, F>
where
    F: FnMut(Transaction) -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, Error>> + Send + 'a,
    T: Send + 'a,
{
    type Output = Result<T, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        let work = Box::pin(async move {
            let (order, options) = (&self.order, self.options);
            let (value, _) = run(order, options, self.reruns, &mut self.function).await?;
            Ok(value)
        });
        observe::within(observe::interaction(None), work)
    }
}

impl<F, Fut, T> Transact<'_, 'static, F>
where
    F: FnMut(Transaction) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, Error>> + Send + 'static,
    T: Send + 'static,
{
    /// Runs on its own, on the pool's runtime: the handle gives the result to whoever awaits it.
    ///
    /// What the function captures must be its own, and is cloned for each run:
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// let name = String::from("Ann");
    /// let insert = db.transact(move |tx| {
    ///     let name = name.clone();
    ///     async move { tx.execute("INSERT INTO users (name) VALUES ($1)", &[&name]).await }
    /// });
    /// assert_eq!(insert.spawn().await?, 1);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// Borrowed captures cannot be taken along:
    ///
    /// ```compile_fail,E0597
    /// # async fn example(db: gdbpool::InteractionPool) -> Result<u64, gdbpool::Error> {
    /// let name = String::from("Ann");
    /// let name = &name;
    /// let insert = db.transact(move |tx| async move {
    ///     tx.execute("INSERT INTO users (name) VALUES ($1)", &[name]).await
    /// });
    /// insert.spawn().await
    /// # }
    /// ```
    pub fn spawn(self) -> AsyncResult<T> {
        let db = Arc::clone(self.order.db);
        let runtime = Arc::clone(db.runtime());
        let Self {
            order: Order { asked, .. },
            options,
            reruns,
            function,
        } = self;
        AsyncResult::start(&*runtime, async move {
            let transact = Transact {
                order: Order { db: &db, asked },
                options,
                reruns,
                function: caught(function),
            };
            transact.await
        })
    }
}

/// The function with its panics as errors: what became of its work is the transaction's to say, as with any other error.
fn caught<F, Fut, T>(mut function: F) -> impl FnMut(Transaction) -> BoxFuture<'static, Result<T, Error>>
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T, Error>> + Send + 'static,
    T: Send + 'static,
{
    move |tx| match catch_unwind(AssertUnwindSafe(|| function(tx))) {
        Ok(running) => Box::pin(AssertUnwindSafe(running).catch_unwind().map(|ended| {
            let caught = |panic: Box<_>| Err(spawn::panicked(&*panic, Outcome::NotExecuted));
            ended.unwrap_or_else(caught)
        })),
        Err(panic) => Box::pin(std::future::ready(Err(spawn::panicked(&*panic, Outcome::NotExecuted)))),
    }
}

/// Ends the transaction however its run ends.
struct Running(Arc<Core>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abandon(Over::Ended);
    }
}

/// Runs the function until it is committed, or it is certain that it will not be.
async fn run<F, Fut, T>(
    order: &Order<'_, '_>,
    options: Options,
    limit: u32,
    function: &mut F,
) -> Result<(T, Receipt), Error>
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let mut tries = Tries::default();
    let mut reruns = Reruns::new(limit);
    order.db.earn_retry();
    let mut last = None;
    loop {
        let pool = order.prepare(&mut tries).map_err(|error| after(&mut last, error))?;
        let mut run = Ran::default();
        let error = match run_once(order, options, &pool, &mut tries, function, &mut run).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !run.called && tries.met_dead_session(&error) {
            continue;
        }
        let again = match rerun::cause(&error, run.failed_with.as_ref()) {
            Some(Cause::Lost) if !order.db.may_retry() => None,
            Some(_) => reruns.next(),
            None => None,
        };
        let Some(longest) = again else {
            return Err(after(&mut last, error));
        };
        tracing::debug!(%error, runs = reruns.made(), "a function is run again");
        order.db.count_retry();
        last = Some(error);
        pause(&pool, &tries, rerun::jitter(longest, pool.runtime().random())).await;
    }
}

/// The error of a run that did not come to anything: behind it stands that of the run before, which was rolled back.
fn after(last: &mut Option<Error>, error: Error) -> Error {
    match last.take() {
        Some(last) if error.outcome() == Outcome::NotExecuted && std::error::Error::source(&error).is_none() => {
            error.with_outcome(Outcome::RolledBack).with_source(last)
        }
        _ => error,
    }
}

/// Waits, but not beyond the call's deadline, which the next try finds passed.
async fn pause(pool: &ConnectionPool, tries: &Tries, span: Duration) {
    let until = pool.runtime().now() + span;
    let until = tries.deadline().map_or(until, |deadline| until.min(deadline));
    pool.runtime().sleep_until(until).await;
}

/// What is known of a run that came to nothing.
#[derive(Debug, Default)]
struct Ran {
    /// The function was called.
    called: bool,
    /// SQLSTATE of a failure that it kept to itself.
    failed_with: Option<SqlState>,
}

/// One run in one transaction.
async fn run_once<F, Fut, T>(
    order: &Order<'_, '_>,
    options: Options,
    pool: &ConnectionPool,
    tries: &mut Tries,
    function: &mut F,
    run: &mut Ran,
) -> Result<(T, Receipt), Error>
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let core = Core::new(order.check_out(pool, tries).await?, options);
    let running = Running(Arc::clone(&core));
    if core.lease().session().ended().is_some() {
        // Found dead before the function is called: another one will do.
        let dead = Error::new(ErrorKind::Lost, Outcome::NotExecuted, Phase::Queued);
        return Err(on(core.lease(), dead));
    }
    run.called = true;
    let value = call(order, &core, tries, function).await?;
    let receipt = commit(order, &core, pool, tries)
        .await
        .inspect_err(|_| run.failed_with = core.failed_with())?;
    drop(running);
    Ok((value, receipt))
}

/// The function itself, until the order is stopped.
pub(super) async fn call<F, Fut, T>(
    order: &Order<'_, '_>,
    core: &Arc<Core>,
    tries: &mut Tries,
    function: &mut F,
) -> Result<T, Error>
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let result = {
        let running = pin!(function(Transaction::new(Arc::clone(core))));
        order.unless_stopped(core.lease(), tries.deadline(), running).await
    };
    match result {
        Ok(result) => result.map_err(|error| became(core, error)),
        Err(stop) => {
            core.close(Over::Ended);
            let outcome = core.outcome_when_stopped().await;
            Err(stopped(order, core, tries, stop, Phase::Executing, outcome))
        }
    }
}

async fn commit(
    order: &Order<'_, '_>,
    core: &Core,
    pool: &ConnectionPool,
    tries: &mut Tries,
) -> Result<Receipt, Error> {
    let mut committing = pin!(core.commit());
    let stop = match order
        .unless_stopped(core.lease(), tries.deadline(), committing.as_mut())
        .await
    {
        Ok(done) => return done,
        Err(stop) => stop,
    };
    // What was asked cannot be taken back; a late answer is still the answer.
    let grace = pool.runtime().now() + pool.config().cancel_grace;
    match core.lease().limit(grace, committing).await {
        Some(done) => done,
        None => Err(stopped(order, core, tries, stop, Phase::Committing, Outcome::Unknown)),
    }
}

fn stopped(order: &Order<'_, '_>, core: &Core, tries: &mut Tries, stop: Stop, phase: Phase, outcome: Outcome) -> Error {
    on(core.lease(), tries.stopped(order, stop, outcome, phase))
}

/// The error that a function returned, with what became of its work.
pub(super) fn became(core: &Core, error: Error) -> Error {
    let outcome = core.outcome();
    let here = core.lease().backend_pid();
    // Whatever came of a session tells which; and what came of none was not executed anywhere.
    let is_ours = match error.backend_pid() {
        Some(pid) => pid == here && error.pool() == Some(core.lease().pool_name()),
        None => error.outcome() == Outcome::NotExecuted,
    };
    if is_ours {
        return on(core.lease(), error.with_outcome(outcome));
    }
    // It tells of other work, with an outcome of its own.
    let user = Error::new(ErrorKind::User, outcome, Phase::Executing);
    on(core.lease(), user.with_source(error))
}

impl<F> fmt::Debug for Transact<'_, '_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transact")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
