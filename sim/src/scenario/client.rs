//! The clients' history: what each asked for, what it was told, and when, beside the server's own history.
//!
//! A plain machine. The runner writes it, oracles read it. `after` ties it to the server's order: so many server events
//! had happened.

use gdbpool::{Error, ErrorKind, Instant, Outcome};

/// What clients asked and were told, in one order.
#[derive(Clone, Debug, Default)]
pub struct ClientHistory {
    /// The events, in order.
    pub events: Vec<ClientEvent>,
}

/// One thing that a client did or heard.
#[derive(Clone, Debug)]
pub struct ClientEvent {
    /// Its place in the order of all clients.
    pub seq: u64,
    /// How many server events had happened before it.
    pub after: u64,
    /// When, in virtual time.
    pub at: Instant,
    /// The call it belongs to, as [`call_of`](super::call_of) gives it.
    pub call: u64,
    /// What.
    pub say: Say,
}

/// What a client did or heard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Say {
    /// A call begins.
    Asked {
        /// It was declared a read.
        read: bool,
        /// The pool it names.
        pool: Option<String>,
        /// When it has to be over.
        deadline: Option<Instant>,
        /// It was declared safe to be sent twice.
        idempotent: bool,
    },
    /// The caller set the call's `Cancel`.
    Cancelled,
    /// The call is over, and the caller was told, or dropped it.
    Ended {
        /// What the caller was told of its work.
        fate: Fate,
        /// The error, if it was one.
        failure: Option<Failure>,
        /// Marks of the writes that are there if the work was committed.
        kept: Vec<u64>,
    },
    /// The caller dropped the future.
    Dropped,
    /// A subscription's event.
    Heard(Heard),
    /// A session was leased.
    Leased {
        /// The backend.
        pid: i32,
        /// Its pool.
        pool: String,
    },
    /// A transaction was pinned.
    Pinned {
        /// The backend.
        pid: i32,
    },
    /// A pinned transaction is about to end: by commit, rollback, drop, or because its time is over.
    Unpinning,
    /// The lease was given back.
    Returned,
    /// A statement inside a call, with the answer.
    Statement {
        /// Its mark.
        op: u64,
        /// The answer.
        answer: Answer,
    },
}

/// What a statement gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An error.
    Failed(Failure),
    /// It was done: rows given or changed.
    Done(u64),
    /// Rows of another question.
    Foreign(String),
}

/// What a caller was told of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    Committed,
    /// It never began.
    NotExecuted,
    /// It was taken back.
    RolledBack,
    /// Nobody knows, or nobody asked.
    Unknown,
}

/// An event of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The caller cancelled it.
    CancelAsked,
    /// The barrier: `closed()` returned.
    Closed,
    /// What was queued at the barrier has been read: nothing may follow.
    Drained,
    /// Its stream ended.
    End,
    /// Notifications may be missing from here on, and since that instant.
    Gap(Instant),
    /// A notification.
    Notification {
        /// The channel.
        channel: String,
        /// The payload.
        payload: String,
    },
    /// Nothing is missed from here on.
    Resumed,
    /// It has begun.
    Subscribed,
}

/// An error, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind's name.
    pub kind: &'static str,
    /// What the server said.
    pub sqlstate: Option<String>,
    /// The backend.
    pub pid: Option<i32>,
    /// All words.
    pub text: String,
}

impl ClientHistory {
    /// Writes down what a client did or heard.
    pub fn record(&mut self, after: u64, at: Instant, call: u64, say: Say) {
        let seq = self.events.len() as u64;
        self.events.push(ClientEvent {
            seq,
            after,
            at,
            call,
            say,
        });
    }

    /// The events of one call.
    pub fn of(&self, call: u64) -> impl Iterator<Item = &ClientEvent> {
        self.events.iter().filter(move |event| event.call == call)
    }
}

impl std::fmt::Display for ClientEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "@{} {:?} call {} {:?}", self.after, self.at, self.call, self.say)
    }
}

impl Fate {
    /// What an error says of the work.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error.outcome() {
            Outcome::Committed => Self::Committed,
            Outcome::NotExecuted => Self::NotExecuted,
            Outcome::RolledBack => Self::RolledBack,
            // What is added to the library later says nothing that could be checked here.
            _ => Self::Unknown,
        }
    }
}

impl Failure {
    /// An error as data.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        Self {
            kind: kind_name(error.kind()),
            sqlstate: error.database().map(|report| report.code().code().to_owned()),
            pid: error.backend_pid(),
            text,
        }
    }
}

fn kind_name(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::BadInput(_) => "BadInput",
        ErrorKind::Cancelled => "Cancelled",
        ErrorKind::CheckoutTimeout(_) => "CheckoutTimeout",
        ErrorKind::Connect => "Connect",
        ErrorKind::Database => "Database",
        ErrorKind::Decode => "Decode",
        ErrorKind::LeaseEnded => "LeaseEnded",
        ErrorKind::LeftOpen => "LeftOpen",
        ErrorKind::ListenUnsupported => "ListenUnsupported",
        ErrorKind::Lost => "Lost",
        ErrorKind::Panicked => "Panicked",
        ErrorKind::PinExpired { .. } => "PinExpired",
        ErrorKind::PoolClosed => "PoolClosed",
        ErrorKind::Protocol => "Protocol",
        ErrorKind::QueueFull => "QueueFull",
        ErrorKind::RowCount { .. } => "RowCount",
        ErrorKind::RuntimeGone => "RuntimeGone",
        ErrorKind::Shed => "Shed",
        ErrorKind::Timeout => "Timeout",
        ErrorKind::TransactionControl => "TransactionControl",
        ErrorKind::TransactionFailed => "TransactionFailed",
        ErrorKind::User => "User",
        _ => "other",
    }
}
