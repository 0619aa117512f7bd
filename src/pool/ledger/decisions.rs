//! What goes into the ledger and what comes out of it: the vocabulary between the machine and its shell.
//!
//! Plain values, small enough to be returned in registers or on the stack: none of them owns heap memory.

use std::panic::Location;
use std::time::Duration;

use super::slot::SlotId;
use super::waiters::WaiterId;
use crate::Instant;
use crate::pool::close_reason::CloseReason;

/// The answer to a caller that wants a session for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkout {
    /// Nothing will come: neither now nor later.
    Refused(Refusal),
    /// This session, after a ping if it has been unused for long.
    Session { slot: SlotId, ping: bool },
    /// In line. The shell wakes upkeep if [`Ledger::wake_for_waiter`](super::Ledger::wake_for_waiter) says so.
    Wait(WaiterId),
}

/// Why a checkout was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The pool is closed.
    Closed,
    /// As many callers wait as may.
    QueueFull,
}

/// What the shell has to do after an event, once the ledger's lock is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Effects {
    /// Hand this over.
    pub(crate) grant: Option<Grant>,
    /// Close this session, then say [`closed`](super::Ledger::closed).
    pub(crate) close: Option<SlotId>,
    /// A hold that had been reported as overlong has ended.
    pub(crate) late: Option<Hold>,
    /// Upkeep has something to do, or must look again earlier than it meant to.
    pub(crate) wake_upkeep: bool,
}

/// What a waiter receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// A session of its own, after a ping if it has been unused for long.
    Session { waiter: WaiterId, slot: SlotId, ping: bool },
}

/// In which condition a session comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// Not usable.
    Broken(CloseReason),
    /// Proven idle, with the template's settings.
    Clean,
    /// Being cancelled, drained or cleaned; [`settled`](super::Ledger::settled) follows, or upkeep closes it.
    Settling { deadline: Instant },
}

/// How settling ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Not usable.
    Broken(CloseReason),
    /// Proven idle, with the template's settings.
    Clean,
}

/// How a dial failed, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// The server has no room or is starting up (53300, 57P03): the pause grows twice as fast.
    Overloaded,
    /// Will fail again until somebody changes something (password, database name): the longest pause at once.
    Permanent,
    /// Anything else.
    Transient,
}

/// A session that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) slot: SlotId,
    /// Where it was checked out.
    pub(crate) at: &'static Location<'static>,
    /// For how long so far.
    pub(crate) held: Duration,
}

/// A waiter that is refused because the pool is overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shed {
    pub(crate) waiter: WaiterId,
    /// Where it asked.
    pub(crate) at: &'static Location<'static>,
    pub(crate) waited: Duration,
}
