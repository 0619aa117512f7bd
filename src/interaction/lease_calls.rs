//! SQL on a lease: what tokio-postgres's `Client` offers, on a session that is yours, behind the fence.
//!
//! Beside the run loop: nothing here routes or retries. Everything marks the session as used, so that the full clean-up
//! follows the lease.

use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::failure::{self, Circumstance};
use super::patience::Patience;
use super::statement::{check_count, check_scope, check_text, is_outdated, on, plan_is_stale};
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::Lease;
use crate::route::Access;
use crate::session::{Failure, Flight, Mode, Prepared, Unshown};
use crate::sql::{self, Commits};

impl Lease {
    /// All rows of one statement.
    ///
    /// # Errors
    /// [`ErrorKind::Database`] with the server's words; [`ErrorKind::Lost`] when the session broke;
    /// [`ErrorKind::BadInput`] when the values do not fit the placeholders.
    ///
    /// # Cancel safety
    /// May be dropped at any point: what was sent and not answered is cancelled and drained after the lease, and whether it
    /// was done is unknown until then.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        match self.try_query(sql, values).await {
            Err(error) if self.can_prepare_again(sql, &error) => self.try_query(sql, values).await,
            done => done,
        }
    }

    async fn try_query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let prepared = self.ready(sql, values.len()).await?;
        self.whole(&prepared, async {
            let rows = self
                .session()
                .rows(&prepared, values.iter().copied().map(Unshown))
                .await?;
            rows.try_collect().await
        })
        .await
    }

    /// The one row of a statement.
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`ErrorKind::RowCount`] for another number of rows.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn query_one(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        self.query_opt(sql, values)
            .await?
            .ok_or_else(|| on(self, row_count("one row", 0)))
    }

    /// The one row of a statement, if there is one.
    ///
    /// # Errors
    /// As [`query`](Self::query), and [`ErrorKind::RowCount`] for more than one row.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn query_opt(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        let mut rows = self.query(sql, values).await?;
        match rows.len() {
            0 | 1 => Ok(rows.pop()),
            more => Err(on(self, row_count("one row or none", more))),
        }
    }

    /// How many rows a statement changed or gave.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        match self.try_execute(sql, values).await {
            Err(error) if self.can_prepare_again(sql, &error) => self.try_execute(sql, values).await,
            done => done,
        }
    }

    async fn try_execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let prepared = self.ready(sql, values.len()).await?;
        let counted = self.session().count(&prepared, values.iter().copied().map(Unshown));
        self.whole(&prepared, counted).await
    }

    /// Several statements without parameters, as one message. Results are discarded.
    ///
    /// Without BEGIN in it, the server runs them as one transaction.
    ///
    /// # Errors
    /// As [`query`](Self::query). `COPY … FROM STDIN` in it ends the session: use [`copy_in`](Self::copy_in).
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn batch(&self, sql: &str) -> Result<(), Error> {
        check_text(sql).map_err(|error| on(self, error))?;
        check_scope(self, sql)?;
        self.session().mark_dirty();
        let request = self.session().client().batch_execute(sql);
        let work = async {
            let sent = self
                .session()
                .request_whole(self.ticket(), Mode::Template, pin!(request))
                .await;
            sent.map_err(|failure| self.failed(failure, Phase::Executing, sql::commits(sql), None))
        };
        self.patiently(Phase::Executing, work).await
    }

    /// Rows as the server sends them.
    ///
    /// # Errors
    /// As [`query`](Self::query); each row can be an error, too.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query); a dropped stream cancels what is left.
    pub async fn query_stream<'a>(&'a self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<LeaseRows<'a>, Error> {
        match self.try_stream(sql, values).await {
            Err(error) if self.can_prepare_again(sql, &error) => self.try_stream(sql, values).await,
            done => done,
        }
    }

    async fn try_stream<'a>(&'a self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<LeaseRows<'a>, Error> {
        let prepared = self.ready(sql, values.len()).await?;
        let start = self.session().rows(&prepared, values.iter().copied().map(Unshown));
        let (rows, flight) = self.begin(&prepared, start).await?;
        Ok(LeaseRows {
            rows: Box::pin(rows),
            flight: Some(flight),
            commits: prepared.commits,
            patience: Patience::new(self),
            lease: self,
        })
    }

    /// Parses a statement, or finds it in the session's cache, so that a later call need not wait for it.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// Yes: the parse goes on in the background and ends up in the cache.
    pub async fn prepare(&self, sql: &str) -> Result<(), Error> {
        check_text(sql).map_err(|error| on(self, error))?;
        self.session().mark_dirty();
        self.prepared(sql).await.map(drop)
    }

    /// The client underneath, for libraries that want one.
    ///
    /// What is done with it is not seen by this library: the full clean-up follows the lease, the fence does not hold,
    /// a [`CancelToken`](tokio_postgres::CancelToken) taken from it may, if kept, stop a later borrower's statement, and
    /// values given to it show in what tokio-postgres logs at debug level. Behind a
    /// [`transaction_pooler`](crate::PoolConfig::transaction_pooler) nothing is refused and nothing cleaned up: what is SET
    /// through it reaches other clients.
    #[must_use]
    pub fn raw(&self) -> &Client {
        let session = self.session();
        session.mark_raw();
        session.leave_read_only();
        session.client()
    }

    async fn prepared(&self, sql: &str) -> Result<Prepared, Error> {
        check_scope(self, sql)?;
        let work = async {
            let prepared = self.session().prepare(self.ticket(), sql).await;
            prepared.map_err(|failure| on(self, failure::prepare_error(failure, sql, Access::Write)))
        };
        self.patiently(Phase::Preparing, work).await
    }

    /// Prepares, checks the number of values, and puts the session down for the full clean-up.
    pub(super) async fn ready(&self, sql: &str, values: usize) -> Result<Prepared, Error> {
        check_text(sql).map_err(|error| on(self, error))?;
        self.session().mark_dirty();
        let prepared = self.prepared(sql).await?;
        check_count(&prepared.statement, values).map_err(|error| on(self, error))?;
        Ok(prepared)
    }

    /// Starts an answer that will be read in parts.
    pub(super) async fn begin<T>(
        &self,
        prepared: &Prepared,
        start: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<(T, Flight), Error> {
        let work = async {
            let begun = self.session().request(self.ticket(), Mode::Template, pin!(start)).await;
            begun.map_err(|failure| self.failed(failure, Phase::Executing, prepared.commits, Some(&prepared.statement)))
        };
        self.patiently(Phase::Executing, work).await
    }

    async fn whole<T>(
        &self,
        prepared: &Prepared,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let (answer, flight) = self.begin(prepared, pin!(answer)).await?;
        flight.landed();
        Ok(answer)
    }

    /// The server's plan was of no use any more, nothing was done, and no transaction was spoilt by it.
    fn can_prepare_again(&self, sql: &str, error: &Error) -> bool {
        if is_outdated(self, error) {
            self.session().forget(sql);
        }
        if !plan_is_stale(error) {
            return false;
        }
        self.session().forget(sql);
        !self.session().is_in_transaction()
    }

    pub(super) fn failed(
        &self,
        failure: Failure,
        phase: Phase,
        commits: Commits,
        statement: Option<&Statement>,
    ) -> Error {
        let in_transaction = self.session().is_in_transaction();
        let at = Circumstance {
            phase,
            access: Access::Write,
            in_transaction,
            commits,
            statement,
        };
        on(self, failure::error(failure, at))
    }
}

fn row_count(wanted: &'static str, got: usize) -> Error {
    Error::new(
        ErrorKind::RowCount {
            wanted,
            got: got.min(2),
        },
        Outcome::Unknown,
        Phase::Reading,
    )
}

/// Rows as they come, on a lease; made by [`Lease::query_stream`]. A row can be an error, which ends the stream.
///
/// # Cancel safety
/// Waiting for a row may be given up and taken up again. A dropped stream cancels what the server still has to say.
pub struct LeaseRows<'a> {
    rows: Pin<Box<tokio_postgres::RowStream>>,
    flight: Option<Flight>,
    commits: Commits,
    patience: Patience,
    lease: &'a Lease,
}

impl Stream for LeaseRows<'_> {
    type Item = Result<Row, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.flight.is_none() {
            return Poll::Ready(None);
        }
        let (lease, commits) = (this.lease, this.commits);
        let polled = this.rows.as_mut().poll_next(cx);
        let next = match ready!(this.patience.poll(cx, polled)) {
            Ok(next) => next,
            Err(overdue) => {
                // Not landed: what is still to come is cancelled with the lease.
                this.flight = None;
                return Poll::Ready(Some(Err(overdue.error(lease, Phase::Reading))));
            }
        };
        Poll::Ready(match (next, &mut this.flight) {
            (Some(Ok(row)), _) => Some(Ok(row)),
            (Some(Err(error)), flight) => flight
                .take()
                .map(|flight| Err(lease.failed(flight.failed(error), Phase::Reading, commits, None))),
            (None, flight) => {
                if let Some(flight) = flight.take() {
                    flight.landed();
                }
                None
            }
        })
    }
}

impl fmt::Debug for LeaseRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseRows")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
