//! Requests on a session: each enters under the fence, in the mode it needs, and is counted until its answer was read.
//!
//! Between lease and tokio-postgres. A request is queued in its first poll and nowhere else, so that a future that was
//! never polled sent nothing, and one that was dropped later is known to be in flight. It never retries.

use std::fmt;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};

use futures_util::TryStreamExt;
use tokio_postgres::RowStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::BorrowToSql;

use super::block::{self, Block};
use super::fence::Ticket;
use super::wire::Steering;
use super::{Ended, Mode, Prepared, Session, mark};
use crate::runtime::{BoxFuture, point};

/// Why a request failed, as far as the session knows.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The ticket was void: the lease had ended. Nothing was sent.
    Fenced,
    /// The BEGIN READ ONLY ahead of it was refused: it ran by itself, in whatever mode.
    NotBegun(tokio_postgres::Error),
    /// A value could not be encoded. Nothing was sent.
    NotSent(tokio_postgres::Error),
    /// The server answered with an error.
    Database(tokio_postgres::Error),
    /// The session ended; the reason is its own last word, if it had one.
    Lost {
        /// Not a byte went to the server since the request was queued.
        untouched: bool,
        /// No other request was with it: what the session last said of its transaction still holds.
        alone: bool,
        reason: Option<Arc<tokio_postgres::Error>>,
    },
    /// The answer was not one this library can follow.
    Protocol(tokio_postgres::Error),
}

/// A request whose answer has not been read to its end. Dropping it leaves the session with something to drain.
#[derive(Debug)]
#[must_use]
pub(crate) struct Flight {
    session: Arc<Session>,
    ticket: Ticket,
    entry: Entry,
}

/// How a request came into the session.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Its number, counted over the session's life.
    number: u64,
    /// Nothing else was in flight then.
    first: bool,
}

/// Around the first poll of a request, in which the caller's values are encoded and may panic.
struct Encoding<'a> {
    session: &'a Session,
    done: bool,
}

type Response<T> = Result<T, tokio_postgres::Error>;

/// A request on its way into the session; made by [`Session::request`].
struct Entering<'a, T, F> {
    session: &'a Arc<Session>,
    ticket: Ticket,
    mode: Mode,
    request: Pin<&'a mut F>,
    /// Its result is its whole answer, which its caller may read from the wire itself.
    is_whole: bool,
    /// Nothing of its lease enters after it.
    is_last: bool,
    steering: Steering<'a>,
    entered: bool,
    entry: Entry,
    written_before: u64,
    /// Boxed, because most requests have none.
    block: Option<Box<Block<T>>>,
}

/// A request whose result is its whole answer, which lands with it.
struct Whole<'a, T, F>(Entering<'a, T, F>);

impl Flight {
    /// The answer was read to its end.
    pub(crate) fn landed(self) {
        self.session.in_flight.land(self.ticket);
    }

    /// The server answered with an error, or the session ended: the answer ends by itself.
    pub(crate) fn failed(self, error: tokio_postgres::Error) -> Failure {
        let failure = match self.session.classify(error, false) {
            Failure::Lost { untouched, reason, .. } => {
                let alone = self.session.is_sole(self.entry);
                Failure::Lost {
                    untouched,
                    alone,
                    reason,
                }
            }
            other => other,
        };
        self.landed();
        failure
    }
}

impl Session {
    /// Runs a prepared statement; queued in its first poll. Where the server does not keep it, its text goes along.
    ///
    /// In a box of its own: it has room for the preparing of a text, which tokio-postgres is never given. The future of the
    /// whole call stays small, and small boxes are cheap.
    pub(crate) fn rows<'a, P, I>(&'a self, prepared: &'a Prepared, values: I) -> BoxFuture<'a, Response<RowStream>>
    where
        P: BorrowToSql + Send + 'a,
        I: IntoIterator<Item = P> + Send + 'a,
        I::IntoIter: ExactSizeIterator + Send,
    {
        match &prepared.text {
            None => Box::pin(self.client.query_raw(&prepared.statement, values)),
            Some(text) => {
                let types = prepared.statement.params().iter().cloned();
                Box::pin(self.client.query_typed_raw(text, values.into_iter().zip(types)))
            }
        }
    }

    /// Like [`rows`](Self::rows), for their number only.
    pub(crate) fn count<'a, P, I>(&'a self, prepared: &'a Prepared, values: I) -> BoxFuture<'a, Response<u64>>
    where
        P: BorrowToSql + Send + 'a,
        I: IntoIterator<Item = P> + Send + 'a,
        I::IntoIter: ExactSizeIterator + Send,
    {
        if prepared.text.is_none() {
            return Box::pin(self.client.execute_raw(&prepared.statement, values));
        }
        let rows = self.rows(prepared, values);
        Box::pin(async move {
            let mut rows = Box::pin(rows.await?);
            while rows.try_next().await?.is_some() {}
            Ok(rows.rows_affected().unwrap_or_default())
        })
    }

    /// The ticket of a lease that begins.
    pub(crate) fn ticket(&self) -> Ticket {
        self.fence.ticket()
    }

    /// How many requests ever entered.
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Acquire)
    }

    /// How many leases the session has served.
    pub(crate) fn leases(&self) -> u64 {
        self.fence.ticket().number()
    }

    /// Ends the lease: from here on nothing but settling enters.
    pub(crate) fn close_fence(&self) {
        self.fence.close();
    }

    /// Sends what `request` queues in its first poll, and waits for its first result.
    ///
    /// The flight that comes with the result must be landed once the whole answer was read. The request comes pinned: by
    /// value, every layer it passes through would have room for it.
    pub(crate) fn request<'a, T, F>(
        self: &'a Arc<Self>,
        ticket: Ticket,
        mode: Mode,
        request: Pin<&'a mut F>,
    ) -> impl Future<Output = Result<(T, Flight), Failure>> + use<'a, T, F>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        self.entering(ticket, mode, request)
    }

    /// Like [`request`](Self::request), for a request whose result is its whole answer: it has landed then.
    pub(crate) fn request_whole<'a, T, F>(
        self: &'a Arc<Self>,
        ticket: Ticket,
        mode: Mode,
        request: Pin<&'a mut F>,
    ) -> impl Future<Output = Result<T, Failure>> + use<'a, T, F>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        Whole(Entering {
            is_whole: true,
            ..self.entering(ticket, mode, request)
        })
    }

    /// Like [`request_whole`](Self::request_whole), for the last request of a lease: nothing else of it enters after.
    pub(crate) fn request_last<'a, T, F>(
        self: &'a Arc<Self>,
        ticket: Ticket,
        request: Pin<&'a mut F>,
    ) -> impl Future<Output = Result<T, Failure>> + use<'a, T, F>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        Whole(Entering {
            is_whole: true,
            is_last: true,
            ..self.entering(ticket, Mode::Template, request)
        })
    }

    /// Puts a request on the books, for one that is queued elsewhere under the fence.
    pub(super) fn take_off(self: &Arc<Self>, ticket: Ticket) -> Flight {
        Flight {
            session: Arc::clone(self),
            ticket,
            entry: self.book(),
        }
    }

    fn book(&self) -> Entry {
        Entry {
            number: self.entered.fetch_add(1, Ordering::AcqRel),
            first: self.in_flight.enter(),
        }
    }

    fn entering<'a, T, F>(
        self: &'a Arc<Self>,
        ticket: Ticket,
        mode: Mode,
        request: Pin<&'a mut F>,
    ) -> Entering<'a, T, F> {
        Entering {
            session: self,
            ticket,
            mode,
            request,
            is_whole: false,
            is_last: false,
            steering: self.wire.steering(),
            entered: false,
            entry: Entry::default(),
            written_before: 0,
            block: None,
        }
    }

    /// Brings the session into `mode` ahead of the next request, in the same flight of bytes.
    ///
    /// The server's own report is believed where there is one (14 and later); without it the setting is sent each time.
    ///
    /// Not behind a pooler, where a SET would reach other clients: what only reads is put into a block of its own there.
    pub(super) fn ensure_mode(&self, mode: Mode) {
        if self.is_pooled() {
            return;
        }
        let read_only = mode != Mode::Template;
        let asked = self.asked_read_only.load(Ordering::Acquire);
        let reported = self.observed.brief().read_only();
        let sure = match reported {
            Some(reported) => asked == read_only && (!read_only || reported || self.in_flight.count() != 0),
            None => !read_only && !asked,
        };
        if sure {
            return;
        }
        let sql = match mode {
            Mode::ReadOnly | Mode::ReadOnlyBlock => "SET default_transaction_read_only = on",
            Mode::Template => "RESET default_transaction_read_only",
        };
        self.asked_read_only.store(read_only, Ordering::Release);
        self.queue(self.client.batch_execute(sql));
    }

    /// Queues a request whose answer nobody reads; the driver pages past it.
    fn queue<T>(&self, request: impl Future<Output = T>) {
        let mut request = std::pin::pin!(request);
        let _ = request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    /// A value that panicked while it was encoded has left half a request in tokio-postgres's buffer, where it would go out
    /// ahead of the next one. A text that cannot be sent clears the buffer.
    pub(super) fn forget_half_requests(&self) {
        self.queue(self.client.batch_execute("\0"));
    }

    /// Brings the session into the template's mode at once, for requests this library does not see.
    pub(crate) fn leave_read_only(&self) {
        self.ensure_mode(Mode::Template);
    }

    /// Whether the server confirms that new transactions on this session are read only.
    ///
    /// Without reports (13) the setting was queued right before the request, which is all that can be known. Behind a pooler
    /// every request that only reads was in a block of its own, or failed.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_pooled() || self.reports_read_only()
    }

    fn reports_read_only(&self) -> bool {
        self.observed
            .brief()
            .read_only()
            .unwrap_or_else(|| self.asked_read_only.load(Ordering::Acquire))
    }

    pub(super) fn mode_was_reset(&self) {
        self.asked_read_only.store(false, Ordering::Release);
    }

    /// The last answer was that of SELECT, INSERT, UPDATE or DELETE.
    pub(crate) fn answered_plainly(&self) -> bool {
        self.observed.brief().tag_is_plain()
    }

    pub(super) fn lost(&self, written_before: Option<u64>) -> Failure {
        let (untouched, reason) = self.last_word(written_before);
        Failure::Lost {
            untouched,
            alone: false,
            reason,
        }
    }

    fn last_word(&self, written_before: Option<u64>) -> (bool, Option<Arc<tokio_postgres::Error>>) {
        let reason = match self.ended() {
            Some(Ended::Failed(error)) => Some(Arc::clone(error)),
            _ => None,
        };
        let untouched = written_before.is_some_and(|before| self.observed.written() == before);
        (untouched, reason)
    }

    /// Nobody but the callers of requests that enter under the fence needs the wire to be moved.
    fn may_be_steered(&self) -> bool {
        self.preparing.load(Ordering::Acquire) == 0 && self.marks.load(Ordering::Acquire) & mark::RAW == 0
    }

    /// Nothing else was in flight when this request entered, and nothing has entered since.
    fn is_sole(&self, entry: Entry) -> bool {
        entry.first && self.entered.load(Ordering::Acquire) == entry.number + 1
    }

    /// Sorts a tokio-postgres error by what it means for the session. `at_once`: it came before any answer could.
    pub(super) fn classify(&self, error: tokio_postgres::Error, at_once: bool) -> Failure {
        if let Some(code) = error.code() {
            if *code == SqlState::INVALID_SQL_STATEMENT_NAME {
                // The server lost statements we prepared; others of the cache, and tokio-postgres's, are lost with them.
                self.mark_broken();
            }
            return Failure::Database(error);
        }
        if error.is_closed() || self.ended().is_some() {
            return self.lost(None);
        }
        if at_once {
            return Failure::NotSent(error);
        }
        // Not even an I/O error means that the session ended: those reach the driver only, and a row that cannot be taken
        // apart is one here.
        self.mark_broken();
        Failure::Protocol(error)
    }
}

impl<T, F: Future<Output = Result<T, tokio_postgres::Error>>> Future for Entering<'_, T, F> {
    type Output = Result<(T, Flight), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let value = ready!(self.poll_answer(cx))?;
        if let Some(error) = self.block.as_mut().and_then(|block| block.refusal(cx)) {
            return Poll::Ready(Err(self.not_begun(error)));
        }
        let flight = Flight {
            session: Arc::clone(self.session),
            ticket: self.ticket,
            entry: self.entry,
        };
        Poll::Ready(Ok((value, flight)))
    }
}

impl<T, F: Future<Output = Result<T, tokio_postgres::Error>>> Future for Whole<'_, T, F> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let entering = &mut self.0;
        if entering.block.is_some() {
            return entering.poll_block(cx);
        }
        let polled = entering.poll_answer(cx);
        // Only now is it known to be in one.
        if entering.block.is_some() {
            return match polled {
                Poll::Ready(answer) => entering.keep(cx, answer),
                Poll::Pending => Poll::Pending,
            };
        }
        let answer = ready!(polled)?;
        entering.session.in_flight.land(entering.ticket);
        Poll::Ready(Ok(answer))
    }
}

impl Drop for Encoding<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.session.forget_half_requests();
        }
    }
}

impl<T, F: Future<Output = Result<T, tokio_postgres::Error>>> Entering<'_, T, F> {
    /// The request's answer, once that to the COMMIT behind it is there, too.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        let kept = self.block.as_mut().and_then(|block| block.take());
        let answer = match kept {
            Some(answer) => answer,
            None => ready!(self.poll_answer(cx)),
        };
        self.keep(cx, answer)
    }

    fn keep(&mut self, cx: &mut Context<'_>, answer: Result<T, Failure>) -> Poll<Result<T, Failure>> {
        let Some(block) = &mut self.block else {
            return Poll::Ready(answer);
        };
        if let Some(error) = block.refusal(cx) {
            let failure = self.not_begun(error);
            self.session.in_flight.land(self.ticket);
            return Poll::Ready(Err(failure));
        }
        if !block.is_over(cx) {
            block.keep(answer);
            return Poll::Pending;
        }
        if answer.is_ok() {
            self.session.in_flight.land(self.ticket);
        }
        Poll::Ready(answer)
    }

    /// What follows a BEGIN that was refused ran by itself.
    fn not_begun(&self, error: tokio_postgres::Error) -> Failure {
        self.session.mark_broken();
        Failure::NotBegun(error)
    }

    /// The answer. A failed request has landed; one that gave a result is still in flight.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        let polled = if !self.entered {
            self.enter(cx)?
        } else if self.steering.steer(cx) {
            self.request.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        } else {
            self.request.as_mut().poll(cx)
        };
        let answer = ready!(polled);
        self.steering.leave();
        Poll::Ready(answer.map_err(|error| self.failed(error)))
    }

    fn failed(&self, error: tokio_postgres::Error) -> Failure {
        let session = self.session;
        let at_once = !self.entered;
        let failure = match session.classify(error, at_once) {
            Failure::Lost { .. } => {
                let (untouched, reason) = session.last_word(Some(self.written_before));
                Failure::Lost {
                    untouched,
                    alone: session.is_sole(self.entry),
                    reason,
                }
            }
            other => other,
        };
        session.in_flight.land(self.ticket);
        failure
    }

    /// The first poll, under the fence: what it queues is in the session before the ticket can be voided.
    fn enter(&mut self, cx: &mut Context<'_>) -> Result<Poll<F::Output>, Failure> {
        let Some(admitted) = self.session.fence.admit(self.ticket) else {
            return Err(Failure::Fenced);
        };
        let hold = self.session.wire.hold();
        self.written_before = self.session.observed.written();
        self.session.ensure_mode(self.mode);
        let pooled = self.session.is_pooled();
        let block = self.mode == Mode::ReadOnlyBlock || (pooled && self.mode == Mode::ReadOnly);
        let begin = block.then(|| block::queued(&self.session.client, "BEGIN READ ONLY"));
        self.entry = self.session.book();
        let mut encoding = Encoding {
            session: self.session,
            done: false,
        };
        // Taken before anything can be answered: whatever is, wakes.
        let steers = self.is_whole && !block && self.entry.first && self.session.may_be_steered();
        if steers {
            self.steering
                .take(NonZeroU64::MIN.saturating_add(self.entry.number), cx);
        }
        let mut unwoken = Context::from_waker(Waker::noop());
        let mut polled = self.request.as_mut().poll(if steers { &mut unwoken } else { cx });
        encoding.done = true;
        if block {
            // Nothing hangs on its answer: nothing can have changed.
            let commit = block::queued(&self.session.client, "COMMIT");
            if pooled {
                self.block = Some(Box::new(Block::new(begin.flatten(), commit)));
            }
        }
        // Stays false when the request ended here: nothing can have come back yet.
        self.entered = polled.is_pending();
        // With others before it, it leaves together with theirs.
        let has_left = self.entry.first && hold.push();
        if steers && polled.is_pending() && !has_left {
            self.steering.leave();
            polled = self.request.as_mut().poll(cx);
        }
        drop(hold);
        if self.is_last {
            admitted.was_last();
        }
        drop(admitted);
        point!(self.session.runtime, "fence.admitted");
        Ok(polled)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced => "the handle outlived its lease",
            Self::NotBegun(_) => "its transaction was not begun",
            Self::NotSent(_) => "a value could not be encoded",
            Self::Database(_) => "the server answered with an error",
            Self::Lost { .. } => "the session ended",
            Self::Protocol(_) => "the answer was not understood",
        })
    }
}
