//! Why no session could be had in time: the report a checkout timeout carries. Values only.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::{Error, Phase};

/// Why a checkout timed out, the most telling reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutCause {
    /// Every session is leased to somebody: the holders are in the report.
    AllLeased,
    /// The server refuses the credentials or the database (class 28, 3D): see the last connect error.
    AuthenticationFailed,
    /// The dial or start-up has not answered yet.
    ConnectHangs,
    /// The last attempts to connect failed: see the last connect error.
    ConnectFails,
    /// Sessions are being closed and have not ended yet.
    Closing,
    /// The server is starting, stopping or recovering (57P03).
    ServerNotReady,
    /// Returned sessions have not yet proved clean.
    Settling,
    /// The server has no free connection slot (53300).
    TooManyConnections,
    /// An idle session was asked whether it still answers, and has not answered.
    ValidationHangs,
    /// Sessions changed hands while the caller waited, but others were first in the queue.
    WaitingTurn,
}

/// Who holds a session: where it was checked out, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The place in the caller's source that checked the session out.
    pub at: &'static Location<'static>,
    /// How long it has been held.
    pub held: Duration,
}

/// What a checkout timeout knows: the phases it spent its time in, the pool's counts, the holders, the last error.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckoutReport {
    /// Why, in one word.
    pub cause: TimeoutCause,
    /// The phase in which the deadline passed.
    pub phase: Phase,
    /// Time spent in the queue (which includes waiting for new sessions).
    pub queued: Duration,
    /// Time spent validating idle sessions.
    pub validating: Duration,
    /// How many callers were still before this one in the queue.
    pub ahead: usize,
    /// Idle sessions at that moment.
    pub idle: u32,
    /// Leased sessions.
    pub leased: u32,
    /// Returned sessions that have not yet proved clean.
    pub settling: u32,
    /// Attempts to connect under way.
    pub connecting: u32,
    /// Sessions being closed.
    pub closing: u32,
    /// The pool's maximum.
    pub max: u32,
    /// The longest holders, longest first, up to five.
    pub holders: Vec<Holder>,
    /// The last failure to connect since the last success, if any.
    pub last_connect_error: Option<Arc<Error>>,
}

impl fmt::Display for TimeoutCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllLeased => "every session is leased",
            Self::AuthenticationFailed => "the server refuses the credentials or the database",
            Self::ConnectHangs => "connecting has not been answered",
            Self::ConnectFails => "connecting fails",
            Self::Closing => "sessions are still being closed",
            Self::ServerNotReady => "the server is not ready",
            Self::Settling => "returned sessions have not proved clean yet",
            Self::TooManyConnections => "the server has no free connection slot",
            Self::ValidationHangs => "an idle session does not answer",
            Self::WaitingTurn => "others were first in the queue",
        })
    }
}

impl fmt::Display for CheckoutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no session in time: {} ", self.cause)?;
        write!(
            f,
            "(queued {:?}, validating {:?}, {} ahead; {} of {} leased, {} idle, {} settling, {} connecting, {} closing",
            self.queued,
            self.validating,
            self.ahead,
            self.leased,
            self.max,
            self.idle,
            self.settling,
            self.connecting,
            self.closing
        )?;
        if let Some(holder) = self.holders.first() {
            write!(f, "; longest held {:?}, taken at {}", holder.held, holder.at)?;
        }
        if let Some(error) = &self.last_connect_error {
            f.write_str("; last connect error")?;
            if let Some(state) = error.sqlstate() {
                write!(f, " ({})", state.code())?;
            }
            write!(f, ": {error}")?;
            let mut next = std::error::Error::source(&**error);
            while let Some(cause) = next {
                write!(f, ": {cause}")?;
                next = cause.source();
            }
        }
        f.write_str(")")
    }
}
