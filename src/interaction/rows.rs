//! Row streams: rows as the server sends them, on a session that is held until they are read or dropped.
//!
//! At the end of an interaction's way. Backpressure is the server's: rows that are not read stay there.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio_postgres::Row;

use super::failure::{self, Circumstance};
use super::patience::Patience;
use super::statement::on;
use crate::error::{Error, Phase};
use crate::pool::Lease;
use crate::route::Access;
use crate::session::{Flight, Prepared};

/// Rows as they come; made by [`Run::stream`](crate::Run::stream).
///
/// Holds its session: read it to the end or drop it. A row can be an error, which ends the stream.
///
/// # Cancel safety
/// Waiting for a row may be given up and taken up again. A dropped stream cancels what the server still has to say.
pub struct RowStream {
    rows: Pin<Box<tokio_postgres::RowStream>>,
    flight: Option<Flight>,
    prepared: Prepared,
    access: Access,
    patience: Patience,
    lease: Lease,
}

impl RowStream {
    pub(super) fn new(
        lease: Lease,
        rows: tokio_postgres::RowStream,
        flight: Flight,
        prepared: Prepared,
        access: Access,
    ) -> Self {
        Self {
            rows: Box::pin(rows),
            flight: Some(flight),
            prepared,
            access,
            patience: Patience::new(&lease),
            lease,
        }
    }

    /// How many rows the statement changed or gave, once the stream has ended.
    #[must_use]
    pub fn rows_affected(&self) -> Option<u64> {
        self.rows.rows_affected()
    }

    /// The process id of the backend that sends the rows.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.lease.backend_pid()
    }

    fn failed(&mut self, error: tokio_postgres::Error) -> Option<Error> {
        let failure = self.flight.take()?.failed(error);
        let at = Circumstance {
            phase: Phase::Reading,
            access: self.access,
            in_transaction: false,
            commits: self.prepared.commits,
            statement: Some(&self.prepared.statement),
        };
        Some(on(&self.lease, failure::error(failure, at)))
    }

    fn ended(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.landed();
            if !self.lease.session().answered_plainly() {
                self.lease.session().mark_dirty();
            }
        }
    }
}

impl Stream for RowStream {
    type Item = Result<Row, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.flight.is_none() {
            return Poll::Ready(None);
        }
        let polled = this.rows.as_mut().poll_next(cx);
        let next = match ready!(this.patience.poll(cx, polled)) {
            Ok(next) => next,
            Err(overdue) => {
                // Not landed: what is still to come is cancelled with the lease.
                this.flight = None;
                return Poll::Ready(Some(Err(overdue.error(&this.lease, Phase::Reading))));
            }
        };
        Poll::Ready(match next {
            Some(Ok(row)) => Some(Ok(row)),
            Some(Err(error)) => this.failed(error).map(Err),
            None => {
                this.ended();
                None
            }
        })
    }
}

impl fmt::Debug for RowStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
