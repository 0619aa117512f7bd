//! Partial interactions: what opens a pinned transaction, and what runs inside one.
//!
//! Between the builders and the transaction. A partial interaction runs once: what it leaves open cannot be run again.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Order, Tries};
use super::function::{self, Transact};
use super::pinned::{Partial, PinnedTransaction};
use super::run::{Output, Run};
use super::statement::{self, Answer, Keep, Ready};
use super::transaction::{Core, Options, Over, Transaction, backstop};
use crate::error::{BadInput, Error, Phase};
use crate::observe;
use crate::route::Access;
use crate::runtime::BoxFuture;

/// A partial interaction of SQL, to be awaited; made by [`Run::partial`].
#[must_use = "an interaction runs when it is awaited"]
pub struct PartialRun<'db, 'v, O> {
    run: Run<'db, 'v, O>,
    lease_time: Option<Duration>,
}

/// A partial function interaction, to be awaited; made by [`Transact::partial`].
#[must_use = "an interaction runs when it is awaited"]
pub struct PartialTransact<'db, 'v, F> {
    transact: Transact<'db, 'v, F>,
    lease_time: Option<Duration>,
}

/// A function inside a pinned transaction, to be awaited; made by [`Transact::within`].
#[must_use = "an interaction runs when it is awaited"]
pub struct Within<'db, 'v, F> {
    transact: Transact<'db, 'v, F>,
    core: Arc<Core>,
}

impl<'db, 'v, O: Output> Run<'db, 'v, O> {
    /// Runs the statement as the first of a transaction, and leaves that open: the result comes with a
    /// [`PinnedTransaction`], for more interactions by [`within`](Self::within), and for its end.
    ///
    /// Needs an answer that is read at once: rows, one, opt, scalar, typed or execute.
    /// [`BadInput::Conflict`](crate::BadInput::Conflict) otherwise.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// use gdbpool::Partial;
    ///
    /// let next = "SELECT id FROM jobs WHERE state = 'new' LIMIT 1 FOR UPDATE SKIP LOCKED";
    /// let Partial { result: id, mut transaction } = db.run(next).scalar::<i32>().partial().await?;
    /// // ... the work itself; the job stays locked
    /// let done = "UPDATE jobs SET state = 'done' WHERE id = $1";
    /// db.run(done).bind(id).execute().within(&mut transaction).await?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # });
    /// ```
    pub fn partial(self) -> PartialRun<'db, 'v, O> {
        PartialRun {
            run: self,
            lease_time: None,
        }
    }

    /// Runs the statement inside a pinned transaction, on its connection.
    ///
    /// The route is the transaction's: `on_pool` and `read` say nothing then. A deadline that passes, and a cancel, roll the
    /// whole transaction back.
    ///
    /// One interaction at a time: the transaction is borrowed until it is over.
    ///
    /// ```compile_fail,E0499
    /// # async fn example(db: gdbpool::InteractionPool) -> Result<(), gdbpool::Error> {
    /// let mut transaction = db.run("SELECT 1").partial().await?.transaction;
    /// let first = db.run("SELECT 2").within(&mut transaction);
    /// let second = db.run("SELECT 3").within(&mut transaction);
    /// first.await?;
    /// second.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn within(mut self, transaction: &'v mut PinnedTransaction) -> Self {
        self.order_mut().asked.inside = Some(Arc::clone(transaction.core()));
        self
    }
}

impl<'db, 'v, F> Transact<'db, 'v, F> {
    /// Runs the function, and leaves its transaction open: the result comes with a [`PinnedTransaction`]. It runs once.
    pub fn partial(self) -> PartialTransact<'db, 'v, F> {
        PartialTransact {
            transact: self,
            lease_time: None,
        }
    }

    /// Runs the function inside a pinned transaction, in a savepoint: on `Err` what it did is taken back, and the
    /// transaction goes on. It runs once.
    pub fn within(self, transaction: &'v mut PinnedTransaction) -> Within<'db, 'v, F> {
        Within {
            core: Arc::clone(transaction.core()),
            transact: self,
        }
    }
}

impl<O> PartialRun<'_, '_, O> {
    /// How long the transaction may stay open. Default: the pool's [`pin_timeout`](crate::PoolConfig::pin_timeout). 1 ms to 1 day.
    pub fn lease_time(mut self, span: Duration) -> Self {
        self.lease_time = Some(span);
        self
    }
}

impl<F> PartialTransact<'_, '_, F> {
    /// How long the transaction may stay open after the function has returned. Default: the pool's
    /// [`pin_timeout`](crate::PoolConfig::pin_timeout). 1 ms to 1 day.
    pub fn lease_time(mut self, span: Duration) -> Self {
        self.lease_time = Some(span);
        self
    }
}

impl<'a, O: Output> IntoFuture for PartialRun<'a, 'a, O> {
    type Output = Result<Partial<O::Value>, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        let span = observe::interaction(Some(&self.run.order_mut().asked.sql));
        let work = Box::pin(async move {
            let order = self.run.order_mut();
            order.asked.parameters.check_form()?;
            statement::check_text(&order.asked.sql)?;
            let read_only = order.asked.access == Access::Read;
            let options = Options {
                read_only,
                ..Options::default()
            };
            O::check_in_one()?;
            let (opening, mut tries) = Opening::new(order, options, self.lease_time).await?;
            order.asked.inside = Some(Arc::clone(&opening.core));
            let pinning = order.frame();
            let result = self.run.into_future().await;
            let result = result.map_err(|error| function::became(&opening.core, error))?;
            let transaction = opening.pin(&pinning, &mut tries).await?;
            Ok(Partial { result, transaction })
        });
        observe::within(span, work)
    }
}

impl<'a, F, Fut, T> IntoFuture for PartialTransact<'a, 'a, F>
where
    F: FnMut(Transaction) -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, Error>> + Send + 'a,
    T: Send + 'a,
{
    type Output = Result<Partial<T>, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let work = Box::pin(async move {
            let Transact {
                order,
                options,
                mut function,
                ..
            } = self.transact;
            let (opening, mut tries) = Opening::new(&order, options, self.lease_time).await?;
            let result = function::call(&order, &opening.core, &mut tries, &mut function).await?;
            let transaction = opening.pin(&order, &mut tries).await?;
            Ok(Partial { result, transaction })
        });
        observe::within(observe::interaction(None), work)
    }
}

impl<'a, F, Fut, T> IntoFuture for Within<'a, 'a, F>
where
    F: FnMut(Transaction) -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, Error>> + Send + 'a,
    T: Send + 'a,
{
    type Output = Result<T, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Transact {
                order, mut function, ..
            } = self.transact;
            let core = self.core;
            let transaction = Transaction::new(Arc::clone(&core));
            let mut tries = order.tries_inside(core.lease())?;
            let running = pin!(transaction.savepoint(&mut function));
            match order.unless_stopped(core.lease(), tries.deadline, running).await {
                Ok(done) => done.map_err(|error| function::became(&core, error)),
                Err(stop) => {
                    core.close(Over::Ended);
                    let outcome = core.outcome_when_stopped().await;
                    core.abandon(Over::Ended);
                    let error = tries.stopped(&order, stop, outcome, Phase::Executing);
                    Err(statement::on(core.lease(), error))
                }
            }
        })
    }
}

const SHORTEST_LEASE: Duration = Duration::from_millis(1);
const LONGEST_LEASE: Duration = Duration::from_secs(86_400);

/// A transaction on its way to being pinned. Dropped on the way, it is rolled back.
struct Opening {
    core: Arc<Core>,
    lease_time: Duration,
    pinned: bool,
}

impl Opening {
    async fn new(
        order: &Order<'_, '_>,
        options: Options,
        lease_time: Option<Duration>,
    ) -> Result<(Self, Tries), Error> {
        if order.asked.inside.is_some() {
            return Err(Error::bad_input(BadInput::Conflict {
                reason: "partial() opens a transaction, and within() names another one".into(),
            }));
        }
        let mut tries = Tries::default();
        let pool = order.prepare(&mut tries)?;
        let lease_time = lease_time.unwrap_or(pool.config().pin_timeout);
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease_time) {
            return Err(Error::bad_input(BadInput::OutOfBounds {
                setting: "lease_time",
                given: format!("{lease_time:?}"),
                bounds: "1 ms to 1 day",
            }));
        }
        let lease = order.check_out(&pool, &mut tries).await?;
        let opening = Self {
            core: Core::new(lease, options),
            lease_time,
            pinned: false,
        };
        Ok((opening, tries))
    }

    /// From here on the transaction has its lease time, by the server's clock, too.
    async fn pin(mut self, order: &Order<'_, '_>, tries: &mut Tries) -> Result<PinnedTransaction, Error> {
        let lease = self.core.lease();
        let backstop = backstop(self.lease_time, lease.server_version());
        let told = pin!(self.core.call_unchecked(lease.batch(&backstop)));
        match order.unless_stopped(lease, tries.deadline, told).await {
            Ok(told) => told.map_err(|error| function::became(&self.core, error))?,
            Err(stop) => {
                let error = tries.stopped(order, stop, self.core.outcome(), Phase::Executing);
                return Err(statement::on(lease, error));
            }
        }
        self.pinned = true;
        let core = Arc::clone(&self.core);
        Ok(PinnedTransaction::new(core, order.asked.at, self.lease_time))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.pinned {
            self.core.abandon(Over::Ended);
        }
    }
}

/// Runs the order's statement inside a transaction that is open, and gives its whole answer.
pub(super) async fn collect(order: &Order<'_, '_>, core: &Arc<Core>, keep: Keep) -> Result<Answer, Error> {
    let asked = &order.asked;
    asked.parameters.check_form()?;
    statement::check_text(&asked.sql)?;
    let lease = core.lease();
    let mut tries = order.tries_inside(lease)?;
    let running = pin!(core.call(&asked.sql, async {
        let ready = order.fits(lease, Ready::inside(lease, &asked.sql, &asked.parameters).await?)?;
        ready.run(lease, keep).await
    }));
    match order.unless_stopped(lease, tries.deadline, running).await {
        Ok(done) => done,
        Err(stop) => {
            core.close(Over::Ended);
            let outcome = core.outcome_when_stopped().await;
            core.abandon(Over::Ended);
            let error = tries.stopped(order, stop, outcome, Phase::Executing);
            Err(statement::on(lease, error))
        }
    }
}

impl<O> fmt::Debug for PartialRun<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialRun")
            .field("run", &self.run)
            .field("lease_time", &self.lease_time)
            .finish()
    }
}

impl<F> fmt::Debug for PartialTransact<'_, '_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialTransact")
            .field("transact", &self.transact)
            .field("lease_time", &self.lease_time)
            .finish()
    }
}

impl<F> fmt::Debug for Within<'_, '_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within")
            .field("transact", &self.transact)
            .field("core", &self.core)
            .finish()
    }
}
