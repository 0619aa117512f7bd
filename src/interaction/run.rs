//! The builder of an interaction: what is asked, of whom, until when, and in which form the answer is wanted.
//!
//! Between the user's handle and the loop in `attempt.rs`. It collects; nothing happens before it is awaited.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql};

use super::attempt::{self, Order};
use super::parameters::{Bound, Parameters};
use super::rows::RowStream;
use super::statement::{Answer, Keep};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Outcome, Phase};
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
pub struct Run<'a, O = Rows> {
    order: Order<'a>,
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
/// Answers as a stream of rows.
#[derive(Debug)]
pub struct Stream(());

impl<'a> Run<'a> {
    pub(crate) fn new(db: &'a NamedPools, sql: Cow<'a, str>, at: &'static Location<'static>) -> Self {
        let order = Order {
            db,
            sql,
            parameters: Parameters::None,
            access: Access::Write,
            dirty: false,
            pool: None,
            deadline: None,
            cancel: None,
            at,
        };
        Self {
            order,
            output: PhantomData,
        }
    }
}

impl<'a, O> Run<'a, O> {
    /// The value of the next placeholder: `$1`, then `$2`, and so on. The call owns it.
    ///
    /// A value of a type or number that the statement does not take is an error when the call is awaited, before anything is
    /// executed: [`BadInput::ParameterType`](crate::BadInput::ParameterType),
    /// [`BadInput::ParameterCount`](crate::BadInput::ParameterCount).
    pub fn bind<T: ToSql + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.order.parameters.bind(Bound::new(value));
        self
    }

    /// The values of all placeholders, borrowed. Not together with [`bind`](Self::bind), which is
    /// [`BadInput::MixedParameters`](crate::BadInput::MixedParameters).
    pub fn args(mut self, values: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        self.order.parameters.borrow(values);
        self
    }

    /// Declares that the statement only reads: it goes to the default read set, and the server refuses to change table
    /// rows, wherever it runs.
    ///
    /// The server's check does not cover effects outside tables: `pg_notify`, large objects, `COPY … TO` a file,
    /// `set_config`. A read whose session is lost is sent again elsewhere, so those may happen twice.
    pub fn read(mut self) -> Self {
        self.order.access = Access::Read;
        self
    }

    /// Declares that the statement may leave something behind in the session that its text does not show: by a trigger, a
    /// view, an operator, a default that draws from a sequence, a function of yours that overloads a built-in's name. The
    /// full clean-up follows it.
    pub fn dirty(mut self) -> Self {
        self.order.dirty = true;
        self
    }

    /// Runs on the pool of this name; [`BadInput::UnknownPool`](crate::BadInput::UnknownPool) if there is none.
    pub fn on_pool(mut self, name: &'a str) -> Self {
        self.order.pool = Some(name);
        self
    }

    /// Gives up after this long, checkout included. Default: the pool's
    /// [`interaction_timeout`](crate::PoolConfig::interaction_timeout).
    ///
    /// A write that was already sent is cancelled, and the call waits up to
    /// [`cancel_grace`](crate::PoolConfig::cancel_grace) longer for the server's last word on it.
    pub fn timeout(mut self, span: Duration) -> Self {
        let now = self.order.db.runtime().now();
        self.order.deadline = Some(now + span);
        self
    }

    /// Gives up at this instant of the pool's runtime; see [`timeout`](Self::timeout).
    pub fn deadline(mut self, at: Instant) -> Self {
        self.order.deadline = Some(at);
        self
    }

    /// Gives up when `cancel` is set; see [`timeout`](Self::timeout) for what happens to a write.
    pub fn cancel_on(mut self, cancel: &'a Cancel) -> Self {
        self.order.cancel = Some(cancel);
        self
    }

    /// All rows. This is the default.
    pub fn rows(self) -> Run<'a, Rows> {
        self.into_output()
    }

    /// Exactly one row; [`ErrorKind::RowCount`] otherwise.
    pub fn one(self) -> Run<'a, One> {
        self.into_output()
    }

    /// One row or none; [`ErrorKind::RowCount`] for more.
    pub fn opt(self) -> Run<'a, Opt> {
        self.into_output()
    }

    /// The first column of exactly one row; [`ErrorKind::RowCount`] for another number of rows, [`ErrorKind::Decode`] when
    /// `T` cannot hold the value, such as NULL without an `Option`.
    pub fn scalar<T: FromSqlOwned>(self) -> Run<'a, Scalar<T>> {
        self.into_output()
    }

    /// No rows, but how many the statement changed or gave.
    pub fn execute(self) -> Run<'a, Count> {
        self.into_output()
    }

    /// The rows one by one, as the server sends them. The stream holds the session until it is read to its end or dropped;
    /// the deadline and `cancel_on` end when the stream begins.
    pub fn stream(self) -> Run<'a, Stream> {
        self.into_output()
    }

    fn into_output<P>(self) -> Run<'a, P> {
        Run {
            order: self.order,
            output: PhantomData,
        }
    }
}

/// What an awaited [`Run`] gives. Implemented by the library's output markers only.
pub trait Output: sealed::Sealed + 'static {
    /// The answer.
    type Value: Send;

    #[doc(hidden)]
    fn run(order: Order<'_>) -> BoxFuture<'_, Result<Self::Value, Error>>;
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

            fn run(order: Order<'_>) -> BoxFuture<'_, Result<Self::Value, Error>> {
                Box::pin(async move {
                    let answer = attempt::collect(&order, $keep).await?;
                    ($finish)(answer)
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

impl sealed::Sealed for Stream {}

impl Output for Stream {
    type Value = RowStream;

    fn run(order: Order<'_>) -> BoxFuture<'_, Result<Self::Value, Error>> {
        Box::pin(async move { attempt::stream(&order).await })
    }
}

impl<'a, O: Output> IntoFuture for Run<'a, O> {
    type Output = Result<O::Value, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        observe::interaction(&self.order.sql);
        O::run(self.order)
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

impl<O> fmt::Debug for Run<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}
