//! COPY on a lease: data in and out, wrapped so that what is dropped half-way is known to the session.
//!
//! Beside the run loop. A copy in that is not finished is taken back by the server.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use tokio_postgres::{CopyInSink, CopyOutStream};

use super::patience::Patience;
use crate::error::{Error, ErrorKind, Phase};
use crate::pool::Lease;
use crate::session::Flight;
use crate::sql::Commits;

/// Data on its way into `COPY … FROM STDIN`; made by [`Lease::copy_in`].
///
/// A `futures` sink of [`Bytes`]. [`finish`](Self::finish), or closing the sink, ends it.
///
/// # Cancel safety
/// Waiting for the sink may be given up and taken up again. Dropped before its end, the server takes all of it back.
pub struct CopyIn<'a> {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    flight: Option<Flight>,
    patience: Patience,
    lease: &'a Lease,
}

/// Data coming out of `COPY … TO STDOUT`; made by [`Lease::copy_out`].
///
/// A stream of [`Bytes`], of which an item can be an error, which ends the stream.
///
/// # Cancel safety
/// Waiting for data may be given up and taken up again. A dropped stream cancels what the server still has to say.
pub struct CopyOut<'a> {
    stream: Pin<Box<CopyOutStream>>,
    flight: Option<Flight>,
    patience: Patience,
    lease: &'a Lease,
}

impl Lease {
    /// Begins a `COPY … FROM STDIN`.
    ///
    /// # Errors
    /// As [`query`](Self::query). A COPY that the server refuses, and any other statement, costs the session:
    /// tokio-postgres has then sent one end of copy more than there were copies.
    ///
    /// # Cancel safety
    /// May be dropped at any point: nothing is copied.
    pub async fn copy_in(&self, sql: &str) -> Result<CopyIn<'_>, Error> {
        let prepared = self.ready(sql, 0).await?;
        let begun = self
            .begin(&prepared, self.session().client().copy_in(&prepared.statement))
            .await;
        let (sink, flight) = begun.inspect_err(|error| {
            // Refused at the fence, it never reached the session.
            if !matches!(error.kind(), ErrorKind::LeaseEnded) {
                self.session().mark_broken();
            }
        })?;
        Ok(CopyIn {
            sink: Box::pin(sink),
            flight: Some(flight),
            patience: Patience::new(self),
            lease: self,
        })
    }

    /// Begins a `COPY … TO STDOUT`.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// # Cancel safety
    /// May be dropped at any point; so may the stream: what is left is cancelled.
    pub async fn copy_out(&self, sql: &str) -> Result<CopyOut<'_>, Error> {
        let prepared = self.ready(sql, 0).await?;
        let (stream, flight) = self
            .begin(&prepared, self.session().client().copy_out(&prepared.statement))
            .await?;
        Ok(CopyOut {
            stream: Box::pin(stream),
            flight: Some(flight),
            patience: Patience::new(self),
            lease: self,
        })
    }
}

impl CopyIn<'_> {
    /// Ends the copy and gives the number of rows.
    ///
    /// # Errors
    /// As [`Lease::query`]: the server refuses bad data here.
    ///
    /// # Cancel safety
    /// No: dropped after the end was sent, whether the rows are there is unknown.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let finished = std::future::poll_fn(|cx| self.poll_part(cx, |sink, cx| sink.poll_finish(cx))).await?;
        match finished {
            Ok(rows) => {
                self.landed();
                Ok(rows)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// One part of the copy, as long as the pool's patience lasts.
    fn poll_part<T>(
        &mut self,
        cx: &mut Context<'_>,
        part: impl FnOnce(Pin<&mut CopyInSink<Bytes>>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Error>> {
        let polled = part(self.sink.as_mut(), cx);
        let lease = self.lease;
        self.patience
            .poll(cx, polled)
            .map_err(|overdue| overdue.error(lease, Phase::Reading))
    }

    fn landed(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.landed();
        }
    }

    /// tokio-postgres says "connection closed" for a sink whose copy the server has ended; the answer says why.
    fn failed(&mut self, error: tokio_postgres::Error) -> Error {
        let failure = match self.flight.take() {
            Some(flight) => flight.failed(error),
            None => crate::session::Failure::Fenced,
        };
        self.lease.failed(failure, Phase::Reading, Commits::Never, None)
    }
}

impl Sink<Bytes> for CopyIn<'_> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(self.poll_part(cx, |sink, cx| sink.poll_ready(cx)))?;
        Poll::Ready(ready.map_err(|error| self.failed(error)))
    }

    fn start_send(mut self: Pin<&mut Self>, item: Bytes) -> Result<(), Error> {
        let sent = self.sink.as_mut().start_send(item);
        sent.map_err(|error| self.failed(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = ready!(self.poll_part(cx, |sink, cx| sink.poll_flush(cx)))?;
        Poll::Ready(flushed.map_err(|error| self.failed(error)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let closed = ready!(self.poll_part(cx, |sink, cx| sink.poll_finish(cx)))?;
        Poll::Ready(match closed {
            Ok(_) => {
                self.landed();
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        })
    }
}

impl Stream for CopyOut<'_> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.flight.is_none() {
            return Poll::Ready(None);
        }
        let polled = this.stream.as_mut().poll_next(cx);
        let next = match ready!(this.patience.poll(cx, polled)) {
            Ok(next) => next,
            Err(overdue) => {
                // Not landed: what is still to come is cancelled with the lease.
                this.flight = None;
                return Poll::Ready(Some(Err(overdue.error(this.lease, Phase::Reading))));
            }
        };
        let Some(flight) = (match next {
            Some(Ok(data)) => return Poll::Ready(Some(Ok(data))),
            Some(Err(error)) => {
                let failure = this.flight.take().map(|flight| flight.failed(error));
                return Poll::Ready(
                    failure.map(|failure| Err(this.lease.failed(failure, Phase::Reading, Commits::Never, None))),
                );
            }
            None => this.flight.take(),
        }) else {
            return Poll::Ready(None);
        };
        flight.landed();
        Poll::Ready(None)
    }
}

impl fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
