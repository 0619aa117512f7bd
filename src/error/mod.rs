//! The one error type: what happened, in which phase, and what became of the work.
//!
//! A value made wherever a call can end; nothing here acts. Messages name the offender; they never hold a password or
//! a parameter's value. `Display` tells one fact; causes come from `source()`.

mod bad_input;
mod timeout;

pub use self::bad_input::BadInput;
pub(crate) use self::bad_input::{check_channel, check_payload};
pub use self::timeout::{CheckoutReport, Holder, TimeoutCause};

use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

/// What the library returns when something failed.
///
/// One pointer wide. [`kind`](Self::kind) says what happened, [`outcome`](Self::outcome) what became of the work,
/// [`phase`](Self::phase) how far it got.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    phase: Phase,
    pool: Option<Arc<str>>,
    pid: Option<i32>,
    spent: Vec<(Phase, Duration)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input cannot be used; nothing was sent.
    BadInput(BadInput),
    /// The caller's [`Cancel`](crate::Cancel) was set.
    Cancelled,
    /// No session could be had before the deadline; the report says why.
    CheckoutTimeout(Box<CheckoutReport>),
    /// A session could not be made.
    Connect,
    /// The server answered with an error; see [`Error::database`] and [`Error::sqlstate`].
    Database,
    /// A column's value could not be turned into the type asked for.
    Decode,
    /// The handle outlived the lease it came from.
    LeaseEnded,
    /// A batch ended inside a transaction that it had begun: it is rolled back.
    LeftOpen,
    /// LISTEN has no effect: the pool's connections lead to a connection pooler that shares them by transaction or statement
    /// (such as PgBouncer in transaction mode) and voids it. Give the pool a direct address.
    ListenUnsupported,
    /// The session broke while the work was on it; the source says how.
    Lost,
    /// The call panicked while it ran on its own; the source has the panic's words.
    Panicked,
    /// The pool is closed, or closing.
    PoolClosed,
    /// The server's answer was not one this library understands.
    Protocol,
    /// The queue for sessions is full: `max_waiters` callers already wait.
    QueueFull,
    /// A statement gave another number of rows than the caller asked for.
    RowCount {
        /// What the caller asked for, in words.
        wanted: &'static str,
        /// How many rows came, counted up to two.
        got: usize,
    },
    /// The pool is overloaded and refused the caller, which had waited for longer than the target of
    /// [`PoolConfig::shed`](crate::PoolConfig::shed).
    Shed,
    /// The executor was shut down before a call that ran on its own had ended.
    RuntimeGone,
    /// The lease time of a pinned transaction ran out: it was rolled back.
    PinExpired {
        /// Where the transaction was pinned.
        at: &'static Location<'static>,
        /// How long it might stay open.
        lease_time: Duration,
    },
    /// The call's deadline passed while the work was on a session.
    Timeout,
    /// Something in the transaction began or ended one by itself: what is part of it cannot be told any more.
    TransactionControl,
    /// A statement had failed in the transaction, so that it could only be rolled back.
    TransactionFailed,
    /// The application's own error; made by [`Error::user`], to be had back by [`Error::downcast_ref`].
    User,
}

/// What became of the work of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The server confirmed the work.
    Committed,
    /// The server never began it.
    NotExecuted,
    /// The server began it and took it back.
    RolledBack,
    /// The reply was lost: the server may or may not have done it.
    Unknown,
}

/// How far a call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Checking the caller's input, before anything was sent.
    Checking,
    /// Waiting in the queue for a session.
    Queued,
    /// Making a session: look-up, dial, start-up, authentication.
    Connecting,
    /// Asking an idle session whether it still answers.
    Validating,
    /// Having the server parse a statement.
    Preparing,
    /// Waiting for a statement's answer.
    Executing,
    /// Reading its rows, or moving COPY data.
    Reading,
    /// Waiting for the answer to COMMIT.
    Committing,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, outcome: Outcome, phase: Phase) -> Self {
        Self(Box::new(Inner {
            kind,
            outcome,
            phase,
            pool: None,
            pid: None,
            spent: Vec::new(),
            source: None,
        }))
    }

    pub(crate) fn bad_input(input: BadInput) -> Self {
        Self::new(ErrorKind::BadInput(input), Outcome::NotExecuted, Phase::Checking)
    }

    /// The application's own error, to be returned from a function interaction, which is rolled back then.
    ///
    /// ```
    /// #[derive(Debug, PartialEq)]
    /// struct NotEnough {
    ///     missing: i64,
    /// }
    /// # impl std::fmt::Display for NotEnough {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{} missing", self.missing) }
    /// # }
    /// # impl std::error::Error for NotEnough {}
    ///
    /// let error = gdbpool::Error::user(NotEnough { missing: 3 });
    /// assert_eq!(error.downcast_ref::<NotEnough>(), Some(&NotEnough { missing: 3 }));
    /// ```
    #[must_use]
    pub fn user(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorKind::User, Outcome::NotExecuted, Phase::Executing).with_source(error)
    }

    /// The cause of this type, at whatever depth.
    #[must_use]
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(cause) = next {
            if let Some(found) = cause.downcast_ref() {
                return Some(found);
            }
            next = cause.source();
        }
        None
    }

    /// Takes back what was known of the outcome, for one who knows better.
    #[must_use]
    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    #[must_use]
    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    #[must_use]
    pub(crate) fn with_pool(mut self, pool: &Arc<str>) -> Self {
        self.0.pool.get_or_insert_with(|| Arc::clone(pool));
        self
    }

    #[must_use]
    pub(crate) fn with_pid(mut self, pid: i32) -> Self {
        self.0.pid.get_or_insert(pid);
        self
    }

    #[must_use]
    pub(crate) fn with_spent(mut self, spent: Vec<(Phase, Duration)>) -> Self {
        self.0.spent = spent;
        self
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What became of the work.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// How far the call got.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// What a call whose deadline passed, or that was cancelled, had spent its time on, phase by phase, over all its tries.
    /// Empty for other errors, and when nothing had begun; a checkout has it in its [`CheckoutReport`].
    #[must_use]
    pub fn spent(&self) -> &[(Phase, Duration)] {
        &self.0.spent
    }

    /// The name of the pool, once one was chosen.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        self.0.pool.as_deref()
    }

    /// The process id of the server's backend, once a session was chosen.
    #[must_use]
    pub fn backend_pid(&self) -> Option<i32> {
        self.0.pid
    }

    /// The server's own error report, if the server sent one.
    #[must_use]
    pub fn database(&self) -> Option<&DbError> {
        self.downcast_ref()
    }

    /// For a lost outcome, whatever the server said while it was lost: `08007` (transaction resolution unknown) of a
    /// transaction, `40003` (statement completion unknown) of a statement. Else the server's SQLSTATE, if there is one. What the server said is in [`database`](Self::database).
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        if self.0.outcome == Outcome::Unknown {
            return Some(match self.0.phase {
                Phase::Committing => &SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                _ => &SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN,
            });
        }
        self.database().map(DbError::code)
    }

    /// Whether doing the same work again, as a whole, is safe and may succeed.
    ///
    /// Never true when the outcome is [`Outcome::Unknown`] or [`Outcome::Committed`], or for bad input.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.0.outcome {
            Outcome::Committed | Outcome::Unknown => false,
            Outcome::NotExecuted => matches!(
                self.0.kind,
                ErrorKind::CheckoutTimeout(_)
                    | ErrorKind::Connect
                    | ErrorKind::Lost
                    | ErrorKind::QueueFull
                    | ErrorKind::Shed
            ),
            // A session may be lost with the server's words, such as 57P01.
            Outcome::RolledBack => {
                let conflicts = [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED];
                matches!(self.0.kind, ErrorKind::Lost)
                    || self.sqlstate().is_some_and(|state| conflicts.contains(&state))
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pool) = &self.0.pool {
            write!(f, "pool \"{pool}\": ")?;
        }
        match &self.0.kind {
            ErrorKind::BadInput(input) => write!(f, "{input}")?,
            ErrorKind::Cancelled => f.write_str("cancelled by the caller")?,
            ErrorKind::CheckoutTimeout(report) => write!(f, "{report}")?,
            ErrorKind::Connect => f.write_str("no session could be made")?,
            ErrorKind::Database => match self.database() {
                Some(report) => {
                    write!(f, "the server answered {} {}", report.severity(), report.code().code())?;
                }
                None => f.write_str("the server answered with an error")?,
            },
            ErrorKind::Decode => f.write_str("a value could not be read as the type asked for")?,
            ErrorKind::LeaseEnded => f.write_str("the handle outlived its lease")?,
            ErrorKind::LeftOpen => f.write_str("the batch left a transaction open, which is rolled back")?,
            ErrorKind::ListenUnsupported => {
                f.write_str(
                    "LISTEN has no effect here: a connection pooler in transaction or statement mode voids it",
                )?;
            }
            ErrorKind::Lost => f.write_str("the session was lost")?,
            ErrorKind::Panicked => f.write_str("the call panicked")?,
            ErrorKind::PoolClosed => f.write_str("the pool is closed")?,
            ErrorKind::Protocol => f.write_str("the server's answer was not understood")?,
            ErrorKind::QueueFull => f.write_str("the queue for sessions is full")?,
            ErrorKind::RowCount { wanted, got } => {
                let more = if *got > 1 { " or more" } else { "" };
                write!(f, "wanted {wanted}, got {got}{more}")?;
            }
            ErrorKind::Shed => f.write_str("refused, because the pool is overloaded")?,
            ErrorKind::RuntimeGone => f.write_str("the executor was shut down")?,
            ErrorKind::PinExpired { at, lease_time } => {
                write!(f, "the transaction pinned at {at} was rolled back after {lease_time:?}")?;
            }
            ErrorKind::Timeout => f.write_str("the deadline passed")?,
            ErrorKind::TransactionControl => f.write_str("the transaction was begun or ended from inside")?,
            ErrorKind::TransactionFailed => f.write_str("a statement had failed in the transaction")?,
            ErrorKind::User => f.write_str("the application failed")?,
        }
        for (at, (phase, span)) in self.0.spent.iter().enumerate() {
            write!(f, "{} {span:?} {phase}", if at == 0 { ":" } else { "," })?;
        }
        if let Some(pid) = self.0.pid {
            write!(f, " (backend {pid})")?;
        }
        write!(f, "; {}, {}", self.0.phase, self.0.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committed => "committed",
            Self::NotExecuted => "not executed",
            Self::RolledBack => "rolled back",
            Self::Unknown => "outcome unknown",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checking => "while checking the input",
            Self::Queued => "while waiting for a session",
            Self::Connecting => "while connecting",
            Self::Validating => "while validating a session",
            Self::Preparing => "while preparing",
            Self::Executing => "while executing",
            Self::Reading => "while moving rows",
            Self::Committing => "while committing",
        })
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("outcome", &self.0.outcome)
            .field("phase", &self.0.phase)
            .field("pool", &self.0.pool)
            .field("backend_pid", &self.0.pid)
            .field("spent", &self.0.spent)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}
