//! Patience: the bound on every wait for a server that fell silent, for calls on a lease and for streams.
//!
//! Between them and the runtime's timers: a stream's timer exists only while it waits. It decides nothing but that the time
//! is over; the work stays in flight, and is cancelled when the lease ends.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::statement::on;
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::Lease;
use crate::runtime::{BoxFuture, Runtime};

/// How long the next piece of a stream may take.
pub(super) struct Patience {
    runtime: Arc<dyn Runtime>,
    span: Option<Duration>,
    timer: Option<BoxFuture<'static, ()>>,
}

/// The time is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overdue(Duration);

impl Patience {
    pub(super) fn new(lease: &Lease) -> Self {
        Self {
            runtime: Arc::clone(lease.runtime()),
            span: lease.answer_timeout(),
            timer: None,
        }
    }

    /// Takes the result of a poll; when it is pending for too long, the time is over.
    pub(super) fn poll<T>(&mut self, cx: &mut Context<'_>, polled: Poll<T>) -> Poll<Result<T, Overdue>> {
        let (Poll::Pending, Some(span)) = (&polled, self.span) else {
            self.timer = None;
            return polled.map(Ok);
        };
        let runtime = &self.runtime;
        let timer = self
            .timer
            .get_or_insert_with(|| runtime.sleep_until(runtime.now() + span));
        Pin::new(timer).poll(cx).map(|()| Err(Overdue(span)))
    }
}

impl Overdue {
    /// The error of the wait: the work itself may go on.
    pub(super) fn error(self, lease: &Lease, phase: Phase) -> Error {
        let outcome = match phase {
            Phase::Preparing => Outcome::NotExecuted,
            _ => Outcome::Unknown,
        };
        let error = Error::new(ErrorKind::Timeout, outcome, phase);
        on(lease, error.with_spent(vec![(phase, self.0)]))
    }
}

impl Lease {
    /// Waits for one call's answer, as long as the pool allows.
    pub(super) async fn patiently<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(span) = self.answer_timeout() else {
            return work.await;
        };
        match self.limit(self.runtime().now() + span, work).await {
            Some(done) => done,
            None => Err(Overdue(span).error(self, phase)),
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("span", &self.span)
            .finish_non_exhaustive()
    }
}
