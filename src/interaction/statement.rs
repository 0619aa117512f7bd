//! One statement on one lease: prepare, check, send, read. The part that every way of running SQL shares.
//!
//! Between the run loop and the session. It knows no deadline and does not retry; it says what failed and how far it got.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Row, Statement};

use super::failure::{self, Circumstance};
use super::parameters::{self, Parameters};
use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase};
use crate::pool::Lease;
use crate::route::Access;
use crate::session::{Mode, Prepared, Reach};
use crate::sql;

/// What to keep of a statement's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// All rows.
    Rows,
    /// The first row, and how many there are.
    First,
    /// How many rows the statement changed or gave.
    Count,
}

/// A statement's whole answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    /// With [`Keep::First`]: the first row.
    pub(super) first: Option<Row>,
    /// How many rows came.
    pub(super) seen: usize,
    pub(super) affected: u64,
}

/// A statement that was parsed by the server and whose parameters fit.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    prepared: Prepared,
    access: Access,
    parameters: &'a Parameters<'a>,
    in_transaction: bool,
}

impl<'a> Ready<'a> {
    /// Takes `sql` from the session's cache, if it is there, and checks the parameters against it.
    pub(super) fn cached(
        lease: &Lease,
        sql: &str,
        parameters: &'a Parameters<'a>,
        access: Access,
    ) -> Option<Result<Self, Error>> {
        let prepared = lease.session().cached(sql)?;
        Some(Self::checked(lease, prepared, parameters, access))
    }

    /// Prepares `sql` on the lease's session and checks the parameters against it.
    pub(super) async fn new(
        lease: &Lease,
        sql: &str,
        parameters: &'a Parameters<'a>,
        access: Access,
    ) -> Result<Self, Error> {
        check_scope(lease, sql)?;
        let prepared = lease.session().prepare(lease.ticket(), sql).await;
        let prepared = prepared.map_err(|failure| on(lease, failure::prepare_error(failure, sql, access)))?;
        Self::checked(lease, prepared, parameters, access)
    }

    fn checked(
        lease: &Lease,
        prepared: Prepared,
        parameters: &'a Parameters<'a>,
        access: Access,
    ) -> Result<Self, Error> {
        parameters
            .check(&prepared.statement)
            .map_err(|error| on(lease, error))?;
        Ok(Self {
            prepared,
            access,
            parameters,
            in_transaction: false,
        })
    }

    /// Like [`new`](Self::new), inside a transaction that is open.
    pub(super) async fn inside(lease: &Lease, sql: &str, parameters: &'a Parameters<'a>) -> Result<Self, Error> {
        let ready = Self::new(lease, sql, parameters, Access::Write).await?;
        Ok(Self {
            in_transaction: true,
            ..ready
        })
    }

    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    pub(super) fn statement(&self) -> &Statement {
        &self.prepared.statement
    }

    fn mode(&self) -> Mode {
        match self.access {
            // What is not known to leave the session alone could commit, or set another mode, on its way.
            Access::Read if self.prepared.reach != Reach::Nothing => Mode::ReadOnlyBlock,
            Access::Read => Mode::ReadOnly,
            Access::Write => Mode::Template,
        }
    }

    fn circumstance(&self, phase: Phase) -> Circumstance<'_> {
        Circumstance {
            phase,
            access: self.access,
            in_transaction: self.in_transaction,
            commits: self.prepared.commits,
            statement: Some(&self.prepared.statement),
        }
    }

    /// Runs the statement and reads its whole answer.
    pub(super) async fn run(&self, lease: &Lease, keep: Keep) -> Result<Answer, Error> {
        let session = lease.session();
        self.mark(lease);
        let whole = async {
            let rows = session.rows(&self.prepared, self.parameters.values()).await?;
            let mut rows = pin!(rows);
            let mut answer = Answer::default();
            while let Some(row) = rows.try_next().await? {
                answer.seen += 1;
                match keep {
                    Keep::Rows => answer.rows.push(row),
                    Keep::First if answer.seen == 1 => answer.first = Some(row),
                    Keep::First | Keep::Count => {}
                }
            }
            answer.affected = rows.rows_affected().unwrap_or_default();
            Ok(answer)
        };
        let answer = session
            .request_whole(lease.ticket(), self.mode(), pin!(whole))
            .await
            .map_err(|failure| self.failed(lease, failure))?;
        self.finish(lease)?;
        Ok(answer)
    }

    /// Starts the statement; its rows are read by the caller.
    pub(super) async fn start(
        &self,
        lease: &Lease,
    ) -> Result<(tokio_postgres::RowStream, crate::session::Flight), Error> {
        let session = lease.session();
        self.mark(lease);
        let start = session.rows(&self.prepared, self.parameters.values());
        let started = session
            .request(lease.ticket(), self.mode(), pin!(start))
            .await
            .map_err(|failure| self.failed(lease, failure))?;
        self.check_mode(lease)?;
        Ok(started)
    }

    pub(super) fn failed(&self, lease: &Lease, failure: crate::session::Failure) -> Error {
        let error = on(lease, failure::error(failure, self.circumstance(Phase::Executing)));
        if let Some(text) = &self.prepared.text
            && is_outdated(lease, &error)
        {
            lease.session().forget(text);
        }
        error
    }

    /// What the statement may leave behind is on the books before it is sent.
    fn mark(&self, lease: &Lease) {
        if self.prepared.reach != Reach::Nothing {
            lease.session().mark_dirty();
        }
    }

    /// The answer is in: was it what the text and the mode promised?
    pub(super) fn finish(&self, lease: &Lease) -> Result<(), Error> {
        let session = lease.session();
        if !session.answered_plainly() {
            session.mark_dirty();
        }
        self.check_mode(lease)
    }

    /// The mode was set in the same flight of bytes, and its answer came first.
    fn check_mode(&self, lease: &Lease) -> Result<(), Error> {
        let session = lease.session();
        if self.access == Access::Read && !session.is_read_only() {
            // The setting did not take: an operator's cancel hit the very SET, or the server is no PostgreSQL.
            session.mark_broken();
            let error = Error::new(ErrorKind::Protocol, Outcome::Unknown, Phase::Executing);
            return Err(on(lease, error.with_source("the session did not become read only")));
        }
        Ok(())
    }
}

/// Whether the server says that the plan it keeps is of no use any more, and nothing was done.
pub(super) fn plan_is_stale(error: &Error) -> bool {
    let stale = |report: &DbError| {
        *report.code() == SqlState::FEATURE_NOT_SUPPORTED && report.routine() == Some("RevalidateCachedQuery")
    };
    // A procedure can have committed before it met a stale plan of its own.
    error.outcome() != Outcome::Unknown && error.database().is_some_and(stale)
}

/// Whether a statement's types may have changed since they were asked for, where the server keeps none of it.
pub(super) fn is_outdated(lease: &Lease, error: &Error) -> bool {
    let refused = |report: &DbError| report.code().code().starts_with("42");
    lease.session().is_pooled() && error.database().is_some_and(refused)
}

/// Whether the session lost its statements, and nothing was done.
pub(super) fn statement_is_gone(error: &Error) -> bool {
    error.outcome() != Outcome::Unknown && error.sqlstate() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME)
}

pub(super) fn on(lease: &Lease, error: Error) -> Error {
    error.with_pool(lease.pool_name()).with_pid(lease.backend_pid())
}

/// Names what makes a text one that cannot be sent.
pub(super) fn check_text(sql: &str) -> Result<(), Error> {
    if sql.as_bytes().contains(&0) {
        let at = sql.find('\0').unwrap_or_default();
        return Err(Error::bad_input(BadInput::NulInText { at }));
    }
    Ok(())
}

/// Names what would outlive its transaction in a session that is another client's next.
pub(super) fn check_scope(lease: &Lease, sql: &str) -> Result<(), Error> {
    if lease.session().is_pooled()
        && let Some(words) = sql::session_state(sql)
    {
        return Err(on(lease, Error::bad_input(BadInput::SessionState { words })));
    }
    Ok(())
}

/// Checks borrowed values of a lease's own calls.
pub(super) fn check_count(statement: &Statement, given: usize) -> Result<(), Error> {
    parameters::check_count(statement.params().len(), given)
}
