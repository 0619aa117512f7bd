//! Slots: the right to hold one session, what state each is in, and the ids that name them.
//!
//! Plain data of the ledger, indexed by `SlotId::index`. It takes no decision: transitions are the machine's.

use std::panic::Location;

use crate::Instant;
use crate::pool::close_reason::CloseReason;

/// Names one session's stay in a slot.
///
/// The generation grows when a slot is freed, so an id kept too long is recognised and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SlotId {
    /// The slot's place, below the largest number of slots ever in use: fit to index a table beside the ledger.
    pub(crate) const fn index(self) -> usize {
        self.index as usize
    }
}

/// Where a slot stands. Each is in exactly one state, and in the list that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The shell is closing the session; its capacity is still used.
    Closing,
    /// A dial is under way, begun in this round of the backoff.
    Connecting { round: u32 },
    /// Will never be given out again; waits for upkeep to close it.
    Doomed,
    /// Free and clean, on the stack.
    Idle,
    /// Given to one caller, or granted and not delivered yet.
    Leased,
    /// Returned, not yet proven clean. Overdue from this instant on.
    Settling { deadline: Instant },
    /// Used by several short statements at once.
    Shared { users: u32, reserved: bool },
    /// Holds nothing; its index is on the free list.
    Vacant,
}

impl State {
    pub(super) const CLOSING: usize = 0;
    pub(super) const CONNECTING: usize = 1;
    pub(super) const DOOMED: usize = 2;
    pub(super) const IDLE: usize = 3;
    pub(super) const LEASED: usize = 4;
    pub(super) const SETTLING: usize = 5;
    pub(super) const SHARED: usize = 6;
    pub(super) const VACANT: usize = 7;

    /// The state without what it carries, to count by.
    pub(super) const fn kind(self) -> usize {
        match self {
            Self::Closing => Self::CLOSING,
            Self::Connecting { .. } => Self::CONNECTING,
            Self::Doomed => Self::DOOMED,
            Self::Idle => Self::IDLE,
            Self::Leased => Self::LEASED,
            Self::Settling { .. } => Self::SETTLING,
            Self::Shared { .. } => Self::SHARED,
            Self::Vacant => Self::VACANT,
        }
    }
}

/// What is already known about the end of a stay that somebody still uses. Ordered: the worse one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Nothing is wrong with it.
    Open,
    /// One of its users left work in flight: to settle when the last one leaves, overdue from this instant on.
    Settle(Instant),
    /// To close when the last user leaves.
    Close(CloseReason),
    /// The session is gone already.
    Ended,
}

/// One slot.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) fate: Fate,
    /// Why the session ends, once that is counted.
    pub(super) reason: Option<CloseReason>,
    /// The hold has been reported as overlong.
    pub(super) warned: bool,
    /// The ledger's epoch when the dial began.
    pub(super) epoch: u64,
    /// The place in line of the caller that holds it.
    pub(super) ticket: u64,
    /// End of life, jitter included.
    pub(super) expires: Instant,
    /// When the holder got it.
    pub(super) since: Instant,
    /// When it was last known alive: idle timeout and ping count from here.
    pub(super) used: Instant,
    /// Where the holder asked for it.
    pub(super) at: Option<&'static Location<'static>>,
}

impl Slot {
    pub(super) const VACANT: Self = Self {
        generation: 0,
        state: State::Vacant,
        fate: Fate::Open,
        reason: None,
        warned: false,
        epoch: 0,
        ticket: 0,
        expires: Instant::FAR_FUTURE,
        since: Instant::from_nanos(0),
        used: Instant::from_nanos(0),
        at: None,
    };
}
