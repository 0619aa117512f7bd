//! From what a session saw to what the caller is told: kind, phase and outcome of a failed statement.
//!
//! A plain machine over values: the classification of `reference` column by column: nothing sent, answered with an error,
//! lost. It retries nothing.

use tokio_postgres::Statement;
use tokio_postgres::error::{Severity, SqlState};

use super::parameters;
use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase};
use crate::route::Access;
use crate::session::Failure;
use crate::sql::{self, Commits};

/// What is known about the work when it fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstance<'a> {
    pub(super) phase: Phase,
    pub(super) access: Access,
    /// The work is part of a transaction that has not been asked to commit.
    pub(super) in_transaction: bool,
    /// Whether its text can commit by itself.
    pub(super) commits: Commits,
    pub(super) statement: Option<&'a Statement>,
}

impl Circumstance<'_> {
    /// What became of work whose reply is not coming.
    pub(super) fn lost(&self, alone: bool) -> Outcome {
        let stays_open = alone && self.in_transaction && self.commits == Commits::Never;
        match (self.phase, self.access) {
            (Phase::Executing | Phase::Reading, Access::Write) if !stays_open => Outcome::Unknown,
            (Phase::Executing | Phase::Reading, _) => Outcome::RolledBack,
            _ => Outcome::NotExecuted,
        }
    }

    /// What became of work that the server answered with an error.
    fn refused(&self) -> Outcome {
        match (self.phase, self.access, self.commits) {
            (Phase::Preparing, ..) => Outcome::NotExecuted,
            (_, Access::Write, Commits::OnItsWay) => Outcome::Unknown,
            _ => Outcome::RolledBack,
        }
    }
}

/// The error of a failed request.
pub(super) fn error(failure: Failure, at: Circumstance<'_>) -> Error {
    match failure {
        Failure::Fenced => Error::new(ErrorKind::LeaseEnded, Outcome::NotExecuted, at.phase),
        // Not read-only then: it may have done anything.
        Failure::NotBegun(source) => Error::new(ErrorKind::Protocol, Outcome::Unknown, at.phase).with_source(source),
        Failure::NotSent(source) => match at.statement {
            Some(statement) => parameters::not_encoded(source, statement),
            None => Error::new(ErrorKind::Protocol, Outcome::NotExecuted, at.phase).with_source(source),
        },
        Failure::Database(source) if is_fatal(&source) => {
            Error::new(ErrorKind::Lost, at.lost(false), at.phase).with_source(source)
        }
        Failure::Database(source) if is_unresolved(&source) && at.access == Access::Write && !at.in_transaction => {
            Error::new(ErrorKind::Database, Outcome::Unknown, at.phase).with_source(source)
        }
        Failure::Database(source) => Error::new(ErrorKind::Database, at.refused(), at.phase).with_source(source),
        Failure::Lost {
            untouched,
            alone,
            reason,
        } => {
            let outcome = if untouched {
                Outcome::NotExecuted
            } else {
                at.lost(alone)
            };
            let error = Error::new(ErrorKind::Lost, outcome, at.phase);
            match reason {
                Some(reason) => error.with_source(reason),
                None => error,
            }
        }
        Failure::Protocol(source) => Error::new(ErrorKind::Protocol, at.lost(false), at.phase).with_source(source),
    }
}

/// The error of a statement that the server would not parse.
pub(super) fn prepare_error(failure: Failure, text: &str, access: Access) -> Error {
    let several = |source: &tokio_postgres::Error| {
        source.code() == Some(&SqlState::SYNTAX_ERROR) && sql::has_several_statements(text)
    };
    match failure {
        Failure::Database(source) if several(&source) => {
            Error::bad_input(BadInput::SeveralStatements).with_source(source)
        }
        other => error(
            other,
            Circumstance {
                phase: Phase::Preparing,
                access,
                in_transaction: false,
                commits: Commits::Never,
                statement: None,
            },
        ),
    }
}

/// What stands between us and the server lost the answer, and says so.
pub(super) fn is_unresolved(source: &tokio_postgres::Error) -> bool {
    let lost = [
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN,
    ];
    source.code().is_some_and(|code| lost.contains(code))
}

/// The server ends the session with such an error.
fn is_fatal(source: &tokio_postgres::Error) -> bool {
    let severity = source.as_db_error().and_then(|report| report.parsed_severity());
    matches!(severity, Some(Severity::Fatal | Severity::Panic))
}
