//! BEGIN READ ONLY and COMMIT around one request, queued with it, and their answers.
//!
//! Beside the request, for sessions behind a transaction pooler, which have no mode of their own. The answers are read, so
//! that the session is at rest when the request's own answer is given. It queues and waits; what follows is the request's.

use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::error::Severity;

use super::Failure;
use crate::runtime::BoxFuture;

/// The answer to a text that was queued.
type Answer = BoxFuture<'static, Result<(), tokio_postgres::Error>>;

/// See the file's header.
pub(super) struct Block<T> {
    begin: Option<Answer>,
    refused: Option<tokio_postgres::Error>,
    commit: Option<Answer>,
    /// The request's own, until that to COMMIT is there.
    answer: Option<Result<T, Failure>>,
}

impl<T> Block<T> {
    pub(super) fn new(begin: Option<Answer>, commit: Option<Answer>) -> Self {
        Self {
            begin,
            refused: None,
            commit,
            answer: None,
        }
    }

    /// Why the server would not begin it. Its answer comes before the request's.
    pub(super) fn refusal(&mut self, cx: &mut Context<'_>) -> Option<tokio_postgres::Error> {
        if let Some(begin) = &mut self.begin
            && let Poll::Ready(begun) = begin.as_mut().poll(cx)
        {
            self.begin = None;
            self.refused = begun.err().filter(leaves_the_session);
        }
        self.refused.take()
    }

    /// Whether COMMIT was answered, in whatever way: nothing can have changed.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(commit) = &mut self.commit
            && commit.as_mut().poll(cx).is_ready()
        {
            self.commit = None;
        }
        self.commit.is_none()
    }

    /// Keeps the request's answer.
    pub(super) fn keep(&mut self, answer: Result<T, Failure>) {
        self.answer = Some(answer);
    }

    /// The request's answer, if it is kept.
    pub(super) fn take(&mut self) -> Option<Result<T, Failure>> {
        self.answer.take()
    }
}

/// What ends the session ends the request with it.
fn leaves_the_session(error: &tokio_postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(|report| report.parsed_severity());
    severity.is_some_and(|severity| !matches!(severity, Severity::Fatal | Severity::Panic))
}

/// Queues a text, whose answer may be read or not; `None` when the session has ended.
pub(super) fn queued(client: &Client, sql: &str) -> Option<Answer> {
    // Queued by its first poll, or not at all.
    let request = pin!(client.simple_query_raw(sql));
    let Poll::Ready(Ok(answer)) = request.poll(&mut Context::from_waker(Waker::noop())) else {
        return None;
    };
    let mut answer = Box::pin(answer);
    Some(Box::pin(async move {
        while Pin::new(&mut answer).try_next().await?.is_some() {}
        Ok(())
    }))
}

impl<T> fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("begun", &self.begin.is_none())
            .field("over", &self.commit.is_none())
            .finish_non_exhaustive()
    }
}
