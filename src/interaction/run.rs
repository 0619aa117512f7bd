//! The builder of an interaction: what is asked, of whom, until when, and in which form the answer is wanted.
//!
//! Between the user's handle and the loop in `attempt.rs`. It collects; nothing happens before it is awaited.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql};

use super::attempt::{self, Asked, Order};
use super::batch::{self, BatchResult};
use super::dry_run::{self, DryRun};
use super::parameters::Bound;
use super::rows::RowStream;
use super::spawn::AsyncResult;
use super::statement::{Answer, Keep};
use super::typed::{self, FromRow};
use crate::cancel::Cancel;
use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase};
use crate::route::{Access, NamedPools};
use crate::runtime::BoxFuture;
use crate::{Instant, observe};

/// One interaction, to be awaited: made by [`InteractionPool::run`](crate::InteractionPool::run).
///
/// Nothing happens before it is awaited. One SQL text is one statement and commits by itself.
///
/// # Errors
/// Every error says what became of the work ([`Error::outcome`]), how far it got ([`Error::phase`]) and where.
///
/// # Cancel safety
/// The future may be dropped at any point. Before anything was sent, nothing happened; after, the statement is cancelled
/// in the background and its outcome is unknown to the caller. The session is never given to anybody else before it is
/// proved clean.
#[must_use = "an interaction runs when it is awaited"]
pub struct Run<'db, 'v, O = Rows> {
    order: Order<'db, 'v>,
    output: PhantomData<fn() -> O>,
}

/// Answers as all rows.
#[derive(Debug)]
pub struct Rows(());
/// Answers as exactly one row.
#[derive(Debug)]
pub struct One(());
/// Answers as one row or none.
#[derive(Debug)]
pub struct Opt(());
/// Answers as the one column of exactly one row.
#[derive(Debug)]
pub struct Scalar<T>(PhantomData<T>);
/// Answers as the number of rows.
#[derive(Debug)]
pub struct Count(());
/// Answers as all rows, each read into a `T`.
#[derive(Debug)]
pub struct Typed<T>(PhantomData<T>);
/// Answers as one result for each of several statements.
#[derive(Debug)]
pub struct Batch(());
/// Answers as a stream of rows.
#[derive(Debug)]
pub struct Stream(());

impl<'db, 'v> Run<'db, 'v> {
    pub(crate) fn new(db: &'db Arc<NamedPools>, sql: Cow<'v, str>, at: &'static Location<'static>) -> Self {
        Self {
            order: Order {
                db,
                asked: Asked::new(sql, at),
            },
            output: PhantomData,
        }
    }
}

impl<'db, 'v, O> Run<'db, 'v, O> {
    /// The value of the next placeholder: `$1`, then `$2`, and so on. The call owns it.
    ///
    /// A value of a type or number that the statement does not take is an error when the call is awaited, before anything is
    /// executed: [`BadInput::ParameterType`](crate::BadInput::ParameterType),
    /// [`BadInput::ParameterCount`](crate::BadInput::ParameterCount).
    pub fn bind<T: ToSql + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.order.asked.parameters.bind(Bound::new(value));
        self
    }

    /// The values of all placeholders, borrowed. Not together with [`bind`](Self::bind), which is
    /// [`BadInput::MixedParameters`](crate::BadInput::MixedParameters).
    pub fn args(mut self, values: &'v [&'v (dyn ToSql + Sync)]) -> Self {
        self.order.asked.parameters.borrow(values);
        self
    }

    /// The value of a named placeholder: `:name` in the text. The call owns it. The name stands here without its colon.
    ///
    /// Names are looked for only with `bind_named`, and not in strings, quoted names and comments; `::` and `:=` are left
    /// alone. One name may stand in several places. A bound `n` and the array slice `[1:n]` look the same: write `[1 : n]`.
    ///
    /// What does not fit is an error when the call is awaited, before anything is sent:
    /// [`BadInput::UnboundName`](crate::BadInput::UnboundName), [`BadInput::UnusedName`](crate::BadInput::UnusedName),
    /// [`BadInput::DuplicateName`](crate::BadInput::DuplicateName), for a `$1` in the text
    /// [`BadInput::MixedPlaceholders`](crate::BadInput::MixedPlaceholders), together with [`bind`](Self::bind) or
    /// [`args`](Self::args) [`BadInput::MixedParameters`](crate::BadInput::MixedParameters). Errors about a value count it
    /// by the first place of its name.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// let rename = "UPDATE users SET name = :name, renamed = now() WHERE id = :id AND name <> :name";
    /// db.run(rename).bind_named("id", 42i32).bind_named("name", "Ann").execute().await?;
    /// # Ok(())
    /// # });
    /// ```
    pub fn bind_named<T: ToSql + Send + Sync + 'static>(mut self, name: impl Into<Cow<'v, str>>, value: T) -> Self {
        self.order.asked.parameters.bind_named(name.into(), Bound::new(value));
        self
    }

    /// Declares that the statement only reads: it goes to the default read set, and the server refuses to change table
    /// rows, wherever it runs.
    ///
    /// The server's check does not cover effects outside tables: `pg_notify`, large objects, `COPY … TO` a file,
    /// `set_config`. A read whose session is lost is sent again elsewhere, so those may happen twice.
    pub fn read(mut self) -> Self {
        self.order.asked.access = Access::Read;
        self
    }

    /// Declares that running the statement twice is the same as running it once: a write whose reply was lost is then sent
    /// again, twice at most and within its deadline, instead of failing with an unknown outcome.
    ///
    /// Nobody checks it. Triggers and rules count, and so does what others may do in between: an idempotent `UPDATE … SET
    /// state = 'done'` can undo what somebody else did after the first time.
    pub fn idempotent(mut self) -> Self {
        self.order.asked.idempotent = true;
        self
    }

    /// Declares that the statement may leave something behind in the session that its text does not show: by a trigger, a
    /// view, an operator, a default that draws from a sequence, a function of yours that overloads a built-in's name. The
    /// full clean-up follows it.
    pub fn dirty(mut self) -> Self {
        self.order.asked.dirty = true;
        self
    }

    /// Runs on the pool of this name; [`BadInput::UnknownPool`](crate::BadInput::UnknownPool) if there is none.
    pub fn on_pool(mut self, name: impl Into<Cow<'v, str>>) -> Self {
        self.order.asked.pool = Some(name.into());
        self
    }

    /// Gives up after this long, checkout included. Default: the pool's
    /// [`interaction_timeout`](crate::PoolConfig::interaction_timeout).
    ///
    /// A write that was already sent is cancelled, and the call waits up to
    /// [`cancel_grace`](crate::PoolConfig::cancel_grace) longer for the server's last word on it.
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

    /// Gives up when `cancel` is set; see [`timeout`](Self::timeout) for what happens to a write.
    pub fn cancel_on(mut self, cancel: &Cancel) -> Self {
        self.order.asked.cancel = Some(cancel.clone());
        self
    }

    /// All rows. This is the default.
    pub fn rows(self) -> Run<'db, 'v, Rows> {
        self.into_output()
    }

    /// Exactly one row; [`ErrorKind::RowCount`] otherwise.
    pub fn one(self) -> Run<'db, 'v, One> {
        self.into_output()
    }

    /// One row or none; [`ErrorKind::RowCount`] for more.
    pub fn opt(self) -> Run<'db, 'v, Opt> {
        self.into_output()
    }

    /// The first column of exactly one row; [`ErrorKind::RowCount`] for another number of rows, [`ErrorKind::Decode`] when
    /// `T` cannot hold the value, such as NULL without an `Option`.
    pub fn scalar<T: FromSqlOwned>(self) -> Run<'db, 'v, Scalar<T>> {
        self.into_output()
    }

    /// No rows, but how many the statement changed or gave.
    pub fn execute(self) -> Run<'db, 'v, Count> {
        self.into_output()
    }

    /// The rows one by one, as the server sends them. The stream holds the session until it is read to its end or dropped;
    /// the deadline and `cancel_on` end when the stream begins.
    pub fn stream(self) -> Run<'db, 'v, Stream> {
        self.into_output()
    }

    /// All rows, each read into a `T`: a tuple of up to twelve columns, or a type of yours that is [`FromRow`].
    ///
    /// Number and types of the columns are checked before anything is executed
    /// ([`BadInput::ColumnCount`](crate::BadInput::ColumnCount), [`BadInput::ColumnType`](crate::BadInput::ColumnType));
    /// NULL in a column that is no `Option` is [`ErrorKind::Decode`], and its source names the column.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// let users = db.run("SELECT id, name FROM users").typed::<(i32, Option<String>)>().await?;
    /// for (id, name) in users {
    ///     println!("{id}: {}", name.as_deref().unwrap_or("-"));
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub fn typed<T: FromRow>(mut self) -> Run<'db, 'v, Typed<T>> {
        self.order.asked.columns = Some(T::check);
        self.into_output()
    }

    /// Several statements in one text, without values, as one message: one [`BatchResult`](crate::BatchResult) for each,
    /// with its rows as text.
    ///
    /// Without BEGIN in the text the server runs them as one transaction. One that the text begins and does not end is rolled
    /// back, and the call fails with [`ErrorKind::LeftOpen`]. With [`read`](Self::read) the batch runs in a READ ONLY
    /// transaction of its own, and a statement that begins or ends one, or a text that names `transaction_read_only`, is
    /// [`BadInput::TransactionControl`](crate::BadInput::TransactionControl). The full clean-up follows. `COPY … FROM STDIN`
    /// ends the session: use [`Lease::copy_in`](crate::Lease::copy_in).
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// let results = db.run("DELETE FROM carts WHERE stale; SELECT count(*) FROM carts").batch().await?;
    /// println!("{} gone, {:?} left", results[0].rows_affected(), results[1].rows()[0].get(0));
    /// # Ok(())
    /// # });
    /// ```
    pub fn batch(self) -> Run<'db, 'v, Batch> {
        self.into_output()
    }

    /// The statement's text with its values written into it, for logs and for trying it by hand. It is not executed.
    ///
    /// The server parses the statement, which tells the types, and renders each value, in a READ ONLY transaction. See
    /// [`DryRun`] for what the text is good for.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// let dry = db.run("DELETE FROM users WHERE name = $1").bind("O'Hara").dry_run().await?;
    /// assert_eq!(dry.text(), "DELETE FROM users WHERE name = ('O''Hara'::pg_catalog.text)");
    /// # Ok(())
    /// # });
    /// ```
    pub fn dry_run(self) -> Run<'db, 'v, DryRun> {
        self.into_output()
    }

    pub(super) fn order_mut(&mut self) -> &mut Order<'db, 'v> {
        &mut self.order
    }

    fn into_output<P>(self) -> Run<'db, 'v, P> {
        Run {
            order: self.order,
            output: PhantomData,
        }
    }
}

impl<O: Output> Run<'_, 'static, O> {
    /// Starts the call on the pool's runtime, and gives the handle to wait for it.
    ///
    /// The call owns what it needs: a text and names that are `String`s or constants, values given by
    /// [`bind`](Run::bind) or [`bind_named`](Run::bind_named).
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// # let name = String::from("Ann");
    /// let insert = db.run("INSERT INTO users (name) VALUES ($1)").bind(name).execute().spawn();
    /// // … something else, and then:
    /// assert_eq!(insert.await?, 1);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// Borrowed values cannot be taken along:
    ///
    /// ```compile_fail,E0597
    /// # async fn example(db: gdbpool::InteractionPool) -> Result<(), gdbpool::Error> {
    /// let name = String::from("Ann");
    /// let values: [&(dyn gdbpool::types::ToSql + Sync); 1] = [&name];
    /// let insert = db.run("INSERT INTO users (name) VALUES ($1)").args(&values).spawn();
    /// # insert.await.map(drop)
    /// # }
    /// ```
    pub fn spawn(self) -> AsyncResult<O::Value> {
        let Order { db, asked } = self.order;
        let runtime = Arc::clone(db.runtime());
        let db = Arc::clone(db);
        AsyncResult::start(&*runtime, async move {
            let run = Run::<'_, '_, O> {
                order: Order { db: &db, asked },
                output: PhantomData,
            };
            run.await
        })
    }
}

/// What an awaited [`Run`] gives. Implemented by the library's output markers only.
pub trait Output: sealed::Sealed + 'static {
    /// The answer.
    type Value: Send + 'static;

    /// The name of an output that is not read at once, as a call inside a transaction must be.
    #[doc(hidden)]
    const IN_PARTS: Option<&'static str> = None;

    #[doc(hidden)]
    fn run<'a>(order: Order<'a, 'a>) -> BoxFuture<'a, Result<Self::Value, Error>>;

    #[doc(hidden)]
    fn check_in_one() -> Result<(), Error> {
        match Self::IN_PARTS {
            None => Ok(()),
            Some(name) => Err(Error::bad_input(BadInput::Conflict {
                reason: format!("{name} does not run inside a transaction that is pinned: its handle() has what does"),
            })),
        }
    }
}

mod sealed {
    #[expect(unnameable_types, reason = "the sealing trait of Output")]
    pub trait Sealed {}
}

macro_rules! collected_output {
    ($($marker:ty, [$($generics:tt)*], $keep:expr, $value:ty, $finish:expr;)*) => {$(
        impl<$($generics)*> sealed::Sealed for $marker {}
        impl<$($generics)*> Output for $marker {
            type Value = $value;

            fn run<'a>(order: Order<'a, 'a>) -> BoxFuture<'a, Result<Self::Value, Error>> {
                Box::pin(async move {
                    let answer = attempt::collect(&order, $keep).await?;
                    ($finish)(answer).map_err(|error| order.not_as_asked(error))
                })
            }
        }
    )*};
}

collected_output! {
    Rows, [], Keep::Rows, Vec<Row>, |answer: Answer| Ok(answer.rows);
    One, [], Keep::First, Row, one;
    Opt, [], Keep::First, Option<Row>, opt;
    Count, [], Keep::Count, u64, |answer: Answer| Ok(answer.affected);
    Scalar<T>, [T: FromSqlOwned + Send + 'static], Keep::First, T, scalar;
}

impl<T: FromRow> sealed::Sealed for Typed<T> {}

impl<T: FromRow> Output for Typed<T> {
    type Value = Vec<T>;

    fn run<'a>(order: Order<'a, 'a>) -> BoxFuture<'a, Result<Self::Value, Error>> {
        Box::pin(async move {
            let answer = attempt::collect(&order, Keep::Rows).await?;
            let read: Result<_, Error> = answer.rows.iter().map(typed::read).collect();
            read.map_err(|error| order.not_as_asked(error))
        })
    }
}

impl sealed::Sealed for Batch {}

impl Output for Batch {
    type Value = Vec<BatchResult>;

    const IN_PARTS: Option<&'static str> = Some("batch()");

    fn run<'a>(order: Order<'a, 'a>) -> BoxFuture<'a, Result<Self::Value, Error>> {
        Box::pin(async move { batch::run(&order).await })
    }
}

impl sealed::Sealed for DryRun {}

impl Output for DryRun {
    type Value = Self;

    const IN_PARTS: Option<&'static str> = Some("dry_run()");

    fn run<'a>(order: Order<'a, 'a>) -> BoxFuture<'a, Result<Self::Value, Error>> {
        Box::pin(async move { dry_run::run(order).await })
    }
}

impl sealed::Sealed for Stream {}

impl Output for Stream {
    type Value = RowStream;

    const IN_PARTS: Option<&'static str> = Some("stream()");

    fn run<'a>(order: Order<'a, 'a>) -> BoxFuture<'a, Result<Self::Value, Error>> {
        Box::pin(async move { attempt::stream(&order).await })
    }
}

// One lifetime for both: a `Run` can always be taken for one of the shorter of its two.
impl<'a, O: Output> IntoFuture for Run<'a, 'a, O> {
    type Output = Result<O::Value, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        if self.order.asked.inside.is_some()
            && let Err(refused) = O::check_in_one()
        {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let asked = &mut self.order.asked;
        let span = observe::interaction(Some(&asked.sql));
        if let Some(numbered) = asked.parameters.number_names(&asked.sql) {
            asked.sql = numbered.into();
        }
        observe::within(span, O::run(self.order))
    }
}

fn one(answer: Answer) -> Result<Row, Error> {
    match opt_of(answer, "one row")? {
        Some(row) => Ok(row),
        None => Err(row_count("one row", 0)),
    }
}

fn opt(answer: Answer) -> Result<Option<Row>, Error> {
    opt_of(answer, "one row or none")
}

fn scalar<T: FromSqlOwned>(answer: Answer) -> Result<T, Error> {
    let row = one(answer)?;
    row.try_get(0)
        .map_err(|source| Error::new(ErrorKind::Decode, Outcome::Committed, Phase::Reading).with_source(source))
}

fn opt_of(answer: Answer, wanted: &'static str) -> Result<Option<Row>, Error> {
    match answer.seen {
        0 | 1 => Ok(answer.first),
        more => Err(row_count(wanted, more)),
    }
}

/// The statement itself has run by then.
fn row_count(wanted: &'static str, got: usize) -> Error {
    Error::new(
        ErrorKind::RowCount {
            wanted,
            got: got.min(2),
        },
        Outcome::Committed,
        Phase::Reading,
    )
}

impl<O> fmt::Debug for Run<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}
