//! BEGIN on a session, and what the tap has seen of transactions.
//!
//! Between the transaction handle and the fence. BEGIN is queued and not waited for: it travels with the first statement,
//! and its answer is read when that one's is there. What becomes of the transaction is judged elsewhere.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio_postgres::SimpleQueryStream;

use super::fence::Ticket;
use super::observer::{Status, Transactions};
use super::request::{Failure, Flight};
use super::{Mode, Session};
use crate::runtime::point;

/// What the tap has counted, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct TransactionFacts {
    pub(crate) seen: Transactions,
    /// Requests written in full.
    pub(crate) sent: u64,
    /// The last status said that a transaction is open, failed or not.
    pub(crate) is_open: bool,
    /// The last status said that it can only end.
    pub(crate) is_failed: bool,
}

/// A BEGIN whose answer was not read yet. Dropping it leaves the session with something to drain.
pub(crate) struct Beginning {
    answer: Pin<Box<SimpleQueryStream>>,
    read: Option<Result<(), tokio_postgres::Error>>,
    flight: Option<Flight>,
}

impl Session {
    pub(crate) fn transaction_facts(&self) -> TransactionFacts {
        let facts = self.observed.facts();
        TransactionFacts {
            seen: facts.transactions,
            sent: facts.sent,
            is_open: matches!(facts.status, Status::InTransaction | Status::Failed),
            is_failed: facts.status == Status::Failed,
        }
    }

    /// Queues a BEGIN. Also says what was counted right before it.
    pub(crate) fn begin(self: &Arc<Self>, ticket: Ticket, sql: &str) -> Result<(Beginning, TransactionFacts), Failure> {
        let Some(admitted) = self.fence.admit(ticket) else {
            return Err(Failure::Fenced);
        };
        self.ensure_mode(Mode::Template);
        let before = self.transaction_facts();
        let flight = self.take_off(ticket);
        let begin = pin!(self.client.simple_query_raw(sql));
        // Queued by its first poll, or not at all: the session has ended then.
        let Poll::Ready(Ok(answer)) = begin.poll(&mut Context::from_waker(Waker::noop())) else {
            flight.landed();
            return Err(self.lost(Some(self.observed.written())));
        };
        drop(admitted);
        point!(self.runtime, "transaction.begin_queued");
        let beginning = Beginning {
            answer: Box::pin(answer),
            read: None,
            flight: Some(flight),
        };
        Ok((beginning, before))
    }
}

impl Beginning {
    /// The server's answer, once it is there: it comes before that of the statement that was sent behind it.
    pub(crate) fn answer(&mut self) -> Option<Result<(), tokio_postgres::Error>> {
        self.read(&mut Context::from_waker(Waker::noop()));
        self.read.take()
    }

    /// Whether the answer was read to its end, and not taken yet.
    pub(crate) fn is_read(&self) -> bool {
        self.read.is_some()
    }

    /// Reads what is there of the answer. Left unread, an answer that comes in several pieces would hold up those behind it.
    pub(crate) fn read(&mut self, cx: &mut Context<'_>) {
        while self.read.is_none() {
            self.read = match self.answer.as_mut().poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(_))) => continue,
                Poll::Ready(None) => Some(Ok(())),
                Poll::Ready(Some(Err(error))) => Some(Err(error)),
            };
            if let Some(flight) = self.flight.take() {
                flight.landed();
            }
        }
    }
}

impl fmt::Debug for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beginning")
            .field("flight", &self.flight)
            .finish_non_exhaustive()
    }
}
