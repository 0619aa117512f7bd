//! The line: the listener's own connection, the requests under way on it, and the notifications that came.
//!
//! Between the listener's task and the session. Notifications are taken before answers: when an answer is there, all
//! notifications that came before it have been taken. It decides nothing.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};

use super::machine::Refusal;
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::Beside;
use crate::runtime::BoxFuture;
use crate::session::{DialError, Driver, Notifications, Session, dial};

/// Notifications that may wait between the wire and the listener's task; with these waiting, the wire is not read.
const WAITING: usize = 256;

/// A dial: the connection; or why not, where trying again will not help.
pub(super) type Dialled = Result<Line, Option<Refusal>>;

/// A connection that is up.
pub(super) struct Line {
    session: Arc<Session>,
    driver: BoxFuture<'static, ()>,
    notifications: Notifications,
    /// In the order of the requests.
    answers: VecDeque<Pending>,
}

enum Pending {
    Waiting(BoxFuture<'static, Result<(), tokio_postgres::Error>>),
    There(Result<(), tokio_postgres::Error>),
}

/// What a look at the line found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) notifications: Vec<tokio_postgres::Notification>,
    pub(super) answers: Vec<Result<(), Refusal>>,
    pub(super) is_over: bool,
}

impl Line {
    /// Dials, within the pool's `connect_timeout`.
    pub(super) async fn dial(beside: Beside) -> Dialled {
        let deadline = beside.runtime.now() + beside.connect_timeout;
        match dial(&beside.runtime, &beside.plan, deadline).await {
            Ok((session, driver)) => Ok(Self::new(session, driver)),
            Err(error) => {
                tracing::debug!(pool = &*beside.name, %error, "the listener could not connect");
                Err(refusal(&beside, error))
            }
        }
    }

    fn new(session: Arc<Session>, driver: Driver) -> Self {
        Self {
            notifications: session.notifications(WAITING),
            session,
            driver: Box::pin(driver.run()),
            answers: VecDeque::new(),
        }
    }

    /// Queues a text of several statements as one request.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, sql: String) {
        let session = Arc::clone(&self.session);
        self.queue(cx, Box::pin(async move { session.client().batch_execute(&sql).await }));
    }

    /// Queues a request without effect.
    pub(super) fn beat(&mut self, cx: &mut Context<'_>) {
        let session = Arc::clone(&self.session);
        self.queue(cx, Box::pin(async move { session.client().check_connection().await }));
    }

    /// A request is queued in its first poll.
    fn queue(&mut self, cx: &mut Context<'_>, mut request: BoxFuture<'static, Result<(), tokio_postgres::Error>>) {
        self.answers.push_back(match request.as_mut().poll(cx) {
            Poll::Ready(answer) => Pending::There(answer),
            Poll::Pending => Pending::Waiting(request),
        });
    }

    /// Moves the bytes, and takes what came.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Found {
        let mut found = Found {
            is_over: self.driver.as_mut().poll(cx).is_ready(),
            ..Found::default()
        };
        while let Some(notification) = self.notifications.take() {
            found.notifications.push(notification);
        }
        while let Some(pending) = self.answers.front_mut() {
            let answer = match pending {
                Pending::Waiting(request) => match request.as_mut().poll(cx) {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => break,
                },
                Pending::There(answer) => std::mem::replace(answer, Ok(())),
            };
            match answer {
                Ok(()) => found.answers.push(Ok(())),
                Err(error) if error.code().is_some() => found.answers.push(Err(Refusal::Server(Arc::new(error)))),
                // No answer, but an end: the driver is about to say so.
                Err(_) => {
                    self.session.kill();
                    break;
                }
            }
            self.answers.pop_front();
        }
        found
    }

    /// Says goodbye, and waits for the server to hang up, within the pool's `close_timeout`.
    pub(super) async fn hang_up(self, beside: Beside) {
        let Self {
            session,
            driver,
            notifications,
            answers,
        } = self;
        drop((answers, notifications, session));
        within(&beside, beside.close_timeout, driver).await;
    }
}

/// Sends a notification from a connection of its own. Gives whether the server took it, and the rest of that connection.
pub(super) async fn notify(beside: Beside, channel: String) -> (bool, Option<BoxFuture<'static, ()>>) {
    let Ok(line) = Line::dial(beside.clone()).await else {
        return (false, None);
    };
    let Line { session, driver, .. } = line;
    // The name is ours: letters, digits and underscores.
    let sql = format!("SELECT pg_catalog.pg_notify('{channel}', '')");
    let sent = async {
        match select(Box::pin(session.client().batch_execute(&sql)), driver).await {
            Either::Left((sent, driver)) => (sent.is_ok(), Some(driver)),
            Either::Right(_) => (false, None),
        }
    };
    let Some((sent, driver)) = within(&beside, beside.ping_timeout, sent).await else {
        return (false, None);
    };
    drop(session);
    let close_timeout = beside.close_timeout;
    let farewell = driver.map(|driver| -> BoxFuture<'static, ()> {
        Box::pin(async move {
            within(&beside, close_timeout, driver).await;
        })
    });
    (sent, farewell)
}

/// Runs a future for so long at most.
async fn within<T>(beside: &Beside, span: Duration, future: impl Future<Output = T>) -> Option<T> {
    let sleep = beside.runtime.sleep_until(beside.runtime.now() + span);
    match select(std::pin::pin!(future), sleep).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

/// What refuses the credentials or the database will do so again.
fn refusal(beside: &Beside, error: DialError) -> Option<Refusal> {
    let code = error.refusal()?.code();
    if !code.starts_with("28") && !code.starts_with("3D") {
        return None;
    }
    let error = Error::new(ErrorKind::Connect, Outcome::NotExecuted, Phase::Connecting).with_source(error);
    Some(Refusal::Connect(Arc::new(error.with_pool(&beside.name))))
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("session", &self.session)
            .field("answers", &self.answers.len())
            .finish_non_exhaustive()
    }
}
