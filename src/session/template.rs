//! The session template beyond start-up options: texts and functions that each new session runs, and runs again after each
//! full clean-up.
//!
//! Between dial and pool, and the last part of settling. Nobody else has the session meanwhile; the caller has the
//! deadline. It decides nothing about when.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::observer::Status;
use super::{Failure, Mode, Session, Ticket, Unshown, mark, settle};
use crate::config::{OnConnect, Setup, SetupSession};
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::runtime::BoxFuture;

/// More texts than this are not pipelined.
const PIPELINED: usize = 16;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What the sessions of a pool run, in order.
#[derive(Clone)]
pub(crate) struct Template {
    steps: Vec<OnConnect>,
    /// Nothing in it needs what is before it to be answered.
    blind: bool,
}

/// Which step of a template failed, and how.
#[derive(Debug)]
pub(crate) struct TemplateError {
    step: usize,
    of: usize,
    kind: &'static str,
    source: AnyError,
}

/// The session was left in a transaction, or with something under way.
#[derive(Debug)]
struct NotAtRest;

/// A session while a hook has it.
struct Door {
    /// Weak, because a kept handle must not keep the session.
    session: Weak<Session>,
    ticket: Ticket,
    pid: i32,
}

impl Template {
    pub(crate) fn new(steps: Vec<OnConnect>) -> Self {
        // A statement that SQL's PREPARE made is there until the clean-up's answer has named it.
        let is_blind = |step: &OnConnect| match step {
            OnConnect::Hook(_) => false,
            OnConnect::Sql(text) => !text.to_ascii_lowercase().contains("prepare"),
        };
        let blind = steps.len() <= PIPELINED && steps.iter().all(is_blind);
        Self { steps, blind }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Its texts, if they can be queued behind the clean-up without waiting for its answer.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        self.blind.then(|| {
            self.steps
                .iter()
                .filter_map(|step| match step {
                    OnConnect::Hook(_) => None,
                    OnConnect::Sql(text) => Some(&**text),
                })
                .collect()
        })
    }
}

impl Session {
    /// Runs the template. The session is at rest before and after, or this fails.
    ///
    /// # Cancel safety
    /// No: a session whose template was not run to its end is not usable.
    pub(crate) async fn set_up(self: &Arc<Self>) -> Result<(), TemplateError> {
        let template = Arc::clone(&self.settings.template);
        for (at, step) in template.steps.iter().enumerate() {
            let (kind, result) = match step {
                OnConnect::Hook(hook) => {
                    let ticket = self.ticket();
                    self.in_flight.reset(ticket);
                    let door = Door {
                        session: Arc::downgrade(self),
                        ticket,
                        pid: self.pid,
                    };
                    let called = hook.call(Setup::new(Arc::new(door))).await;
                    // Whatever it left behind finds the gate closed.
                    self.close_fence();
                    ("on_connect function", called)
                }
                OnConnect::Sql(text) => {
                    let ran = self.client.batch_execute(text).await;
                    ("on_connect_sql text", ran.map_err(Into::into))
                }
            };
            let result = match result {
                Ok(()) => self.come_to_rest().await,
                failed => failed,
            };
            result.map_err(|source| TemplateError {
                step: at + 1,
                of: template.steps.len(),
                kind,
                source,
            })?;
        }
        Ok(())
    }

    async fn come_to_rest(self: &Arc<Self>) -> Result<(), AnyError> {
        let busy = self.in_flight.count() != 0 || self.preparing.load(Ordering::Acquire) != 0;
        if !busy && !self.observed.brief().is_settled() {
            // An error that the function did not mind reaches it before the answer ends.
            settle::drain(self).await.map_err(|_| NotAtRest)?;
        }
        let broken = self.marks.load(Ordering::Acquire) & mark::BROKEN != 0;
        let brief = self.observed.brief();
        if busy || broken || !brief.is_settled() || brief.plans_lost() || self.observed.facts().status != Status::Idle {
            return Err(Box::new(NotAtRest));
        }
        self.in_flight.reset(self.ticket());
        Ok(())
    }
}

impl Door {
    fn session(&self) -> Result<Arc<Session>, Error> {
        self.session
            .upgrade()
            .ok_or_else(|| Error::new(ErrorKind::LeaseEnded, Outcome::NotExecuted, Phase::Checking))
    }

    async fn whole<T>(
        &self,
        session: &Arc<Session>,
        request: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let request = pin!(request);
        let answer = session.request_whole(self.ticket, Mode::Template, request).await;
        answer.map_err(|failure| error(failure, Phase::Executing))
    }
}

impl SetupSession for Door {
    fn batch<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let session = self.session()?;
            self.whole(&session, session.client.batch_execute(sql)).await
        })
    }

    fn query<'a>(&'a self, sql: &'a str, args: &'a [&'a (dyn ToSql + Sync)]) -> BoxFuture<'a, Result<Vec<Row>, Error>> {
        Box::pin(async move {
            let session = self.session()?;
            let prepared = session.prepare(self.ticket, sql).await;
            let prepared = prepared.map_err(|failure| error(failure, Phase::Preparing))?;
            check_count(prepared.statement.params().len(), args.len())?;
            self.whole(&session, async {
                let values = args.iter().map(|value| Unshown(*value));
                let rows = session.client.query_raw(&prepared.statement, values).await?;
                rows.try_collect().await
            })
            .await
        })
    }

    fn execute<'a>(&'a self, sql: &'a str, args: &'a [&'a (dyn ToSql + Sync)]) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async move {
            let session = self.session()?;
            let prepared = session.prepare(self.ticket, sql).await;
            let prepared = prepared.map_err(|failure| error(failure, Phase::Preparing))?;
            check_count(prepared.statement.params().len(), args.len())?;
            let values = args.iter().map(|value| Unshown(*value));
            self.whole(&session, session.client.execute_raw(&prepared.statement, values))
                .await
        })
    }

    fn pid(&self) -> i32 {
        self.pid
    }
}

fn check_count(placeholders: usize, given: usize) -> Result<(), Error> {
    if placeholders == given {
        return Ok(());
    }
    Err(Error::bad_input(crate::error::BadInput::ParameterCount {
        placeholders,
        given,
    }))
}

/// Nothing that a hook does is of use to anybody when it fails: the session is given up.
fn error(failure: Failure, phase: Phase) -> Error {
    let (kind, outcome) = match &failure {
        Failure::Fenced => (ErrorKind::LeaseEnded, Outcome::NotExecuted),
        Failure::Database(_) if phase == Phase::Preparing => (ErrorKind::Database, Outcome::NotExecuted),
        Failure::Database(_) => (ErrorKind::Database, Outcome::RolledBack),
        Failure::Lost { .. } => (ErrorKind::Lost, Outcome::Unknown),
        Failure::NotSent(_) => (ErrorKind::Protocol, Outcome::NotExecuted),
        Failure::NotBegun(_) | Failure::Protocol(_) => (ErrorKind::Protocol, Outcome::Unknown),
    };
    let error = Error::new(kind, outcome, phase);
    match failure {
        Failure::Database(source)
        | Failure::NotBegun(source)
        | Failure::NotSent(source)
        | Failure::Protocol(source) => error.with_source(source),
        Failure::Lost {
            reason: Some(source), ..
        } => error.with_source(source),
        Failure::Fenced | Failure::Lost { reason: None, .. } => error,
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("steps", &self.steps.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} failed (step {} of {} of the session template)",
            self.kind, self.step, self.of
        )
    }
}

impl std::error::Error for TemplateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl fmt::Display for NotAtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it left a transaction open, or something under way")
    }
}

impl std::error::Error for NotAtRest {}
