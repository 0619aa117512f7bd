//! A transaction as its users hold it: the handle a function interaction is given, and what it offers.
//!
//! Between the user's function and one lease. The handle is fenced: used after its transaction has ended, also from a task
//! that took a clone along, it errs. It never commits: that is done by whoever runs the function.

mod core;
mod options;
mod receipt;
mod watch;

pub(super) use self::core::{Core, Over};
pub(super) use self::options::{Options, backstop};

pub use self::options::Isolation;
pub use self::receipt::Receipt;

use std::fmt;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::copy::{CopyIn, CopyOut};
use super::lease_calls::LeaseRows;
use super::statement::{check_text, on};
use crate::error::{BadInput, Error, ErrorKind};

/// The transaction that a function interaction runs in; see [`InteractionPool::transact`](crate::InteractionPool::transact).
///
/// BEGIN travels with the first statement. Clones are the same transaction: their calls are pipelined when they are polled
/// together. When the function has ended the transaction is over, for all clones: whatever is called then is
/// [`ErrorKind::LeaseEnded`](crate::ErrorKind::LeaseEnded).
///
/// A statement that fails leaves the transaction fit for nothing but its end, as always in PostgreSQL; what may fail goes
/// into a [`savepoint`](Self::savepoint). Raw SQL that begins, ends or divides a transaction is refused before it is sent:
/// [`BadInput::TransactionControl`](crate::BadInput::TransactionControl).
#[derive(Clone)]
pub struct Transaction {
    core: Arc<Core>,
    /// In how many savepoints it stands.
    depth: u32,
}

/// An open savepoint, as far as this side goes.
struct Level<'a> {
    core: &'a Core,
    depth: u32,
}

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.core.surface(self.depth);
    }
}

impl Transaction {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, depth: 0 }
    }

    /// All rows of one statement.
    ///
    /// # Errors
    /// [`ErrorKind::Database`](crate::ErrorKind::Database) with the server's words,
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the session broke, which rolls everything back;
    /// [`ErrorKind::BadInput`](crate::ErrorKind::BadInput) when the values do not fit the placeholders.
    ///
    /// # Cancel safety
    /// May be dropped at any point; what was sent runs on in the transaction, and ends with it.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.core.call(sql, self.core.lease().query(sql, values)).await
    }

    /// The one row of a statement.
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`ErrorKind::RowCount`](crate::ErrorKind::RowCount) for another number of rows.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn query_one(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        self.core.call(sql, self.core.lease().query_one(sql, values)).await
    }

    /// The one row of a statement, if there is one.
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`ErrorKind::RowCount`](crate::ErrorKind::RowCount) for more than one row.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn query_opt(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        self.core.call(sql, self.core.lease().query_opt(sql, values)).await
    }

    /// How many rows a statement changed or gave.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.core.call(sql, self.core.lease().execute(sql, values)).await
    }

    /// Several statements without parameters, as one message. Results are discarded.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn batch(&self, sql: &str) -> Result<(), Error> {
        self.core.call(sql, self.core.lease().batch(sql)).await
    }

    /// Rows as the server sends them.
    ///
    /// # Errors
    /// As [`query`](Self::query); each row can be an error, too.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query); rows that are not read are dropped with the transaction.
    pub async fn query_stream<'a>(&'a self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<LeaseRows<'a>, Error> {
        self.core.call(sql, self.core.lease().query_stream(sql, values)).await
    }

    /// Begins a `COPY … FROM STDIN`.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// May be dropped at any point: nothing is copied.
    pub async fn copy_in(&self, sql: &str) -> Result<CopyIn<'_>, Error> {
        self.core.call(sql, self.core.lease().copy_in(sql)).await
    }

    /// Begins a `COPY … TO STDOUT`.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// As [`query_stream`](Self::query_stream).
    pub async fn copy_out(&self, sql: &str) -> Result<CopyOut<'_>, Error> {
        self.core.call(sql, self.core.lease().copy_out(sql)).await
    }

    /// Runs `function` inside a savepoint: on `Err` what it did is taken back, and the transaction goes on as if it had
    /// not been called.
    ///
    /// The function is given a handle of its own, for savepoints in this one. What other clones of this handle do meanwhile
    /// is part of the savepoint, too, and a second savepoint of this handle is refused until the first is over.
    ///
    /// # Errors
    /// What `function` returns; as [`query`](Self::query) when the savepoint cannot be set or released;
    /// [`BadInput::Conflict`](crate::BadInput::Conflict) while this handle has another one open.
    ///
    /// # Cancel safety
    /// No: dropped half-way, the savepoint stays, and what was done in it stays part of the transaction.
    pub async fn savepoint<T, F, Fut>(&self, function: F) -> Result<T, Error>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        if !self.core.deepen(self.depth) {
            return Err(on(
                self.core.lease(),
                Error::bad_input(BadInput::Conflict {
                    reason: "a savepoint of this handle is open: its function has a handle for savepoints in it".into(),
                }),
            ));
        }
        let level = Level {
            core: &self.core,
            depth: self.depth,
        };
        let name = self.core.new_name();
        self.control(&format!("SAVEPOINT {name}")).await?;
        let inner = Self {
            core: Arc::clone(&self.core),
            depth: self.depth + 1,
        };
        let done = function(inner).await;
        let ended = match done {
            Ok(value) => {
                let released = self.control(&format!("RELEASE SAVEPOINT {name}")).await;
                released.map(|()| value)
            }
            Err(error) => {
                self.core.own_rollback(true);
                let taken_back = self
                    .control(&format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"))
                    .await;
                // Anything else may have been answered with that tag, or still be.
                if taken_back.is_err_and(|error| matches!(error.kind(), ErrorKind::LeaseEnded)) {
                    self.core.own_rollback(false);
                }
                // Its own error says more than that of a session that is gone.
                Err(error)
            }
        };
        drop(level);
        ended
    }

    /// The process id of the server's backend.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.core.lease().backend_pid()
    }

    /// A name that nothing else in this session has.
    pub(super) fn new_name(&self) -> String {
        self.core.new_name()
    }

    /// A statement that comes only once: it takes no place in the session's cache.
    pub(super) async fn run_once(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let done = self.execute(sql, values).await;
        self.core.lease().session().forget(sql);
        done
    }

    /// Like [`run_once`](Self::run_once), for rows. The plan stays while the name does.
    pub(super) async fn run_rows_once(&self, sql: &str) -> Result<Vec<Row>, Error> {
        self.query(sql, &[]).await
    }

    async fn control(&self, sql: &str) -> Result<(), Error> {
        check_text(sql).map_err(|error| on(self.core.lease(), error))?;
        self.core.call_unchecked(self.core.lease().batch(sql)).await
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transaction").field(&self.core).finish()
    }
}
