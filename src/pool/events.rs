//! `PoolEvent`: what happens around the pools, as a stream, for those who watch.
//!
//! Beside the pool's path: the shell sends, outside the lock, and only while somebody reads. It decides nothing.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use super::close_reason::CloseReason;
use crate::error::{Error, Holder};
use crate::observe::{Broadcast, Heard, Reader};
use crate::session::Abandoned;

/// How far a reader of events may fall behind, unless the builder says otherwise.
pub(crate) const EVENTS: usize = 1_024;

/// Something that happened around a pool. `pool` is its name, `pid` the process id of the server's backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PoolEvent {
    /// Work ended that nobody waited for any more: a future, stream or lease was dropped, or a deadline had passed. Told once
    /// the session has settled, or ended.
    #[non_exhaustive]
    Abandoned {
        /// The pool's name.
        pool: Arc<str>,
        /// The process id of the server's backend; `None` for a caller that left the queue.
        pid: Option<i32>,
        /// Where the session was asked for.
        at: &'static Location<'static>,
        /// What became of the work.
        outcome: Abandoned,
    },
    /// A session was made, and its template run.
    #[non_exhaustive]
    Connected {
        /// The pool's name.
        pool: Arc<str>,
        /// The process id of the server's backend.
        pid: i32,
        /// How long it took, from look-up to template.
        took: Duration,
    },
    /// A session could not be made.
    #[non_exhaustive]
    ConnectFailed {
        /// The pool's name.
        pool: Arc<str>,
        /// Why.
        error: Arc<Error>,
    },
    /// This reader was too slow: so many events are missing here.
    Lagged(u64),
    /// A session is held for longer than the hold warning; told once per lease.
    #[non_exhaustive]
    OverlongHold {
        /// The pool's name.
        pool: Arc<str>,
        /// Who holds it, and for how long so far.
        holder: Holder,
    },
    /// The pool was closed.
    #[non_exhaustive]
    PoolClosed {
        /// The pool's name.
        pool: Arc<str>,
    },
    /// A session has ended.
    #[non_exhaustive]
    SessionClosed {
        /// The pool's name.
        pool: Arc<str>,
        /// The process id of the server's backend.
        pid: i32,
        /// Why.
        reason: CloseReason,
    },
    /// A returned session had not proved clean in time, and is closed.
    #[non_exhaustive]
    SettleOverdue {
        /// The pool's name.
        pool: Arc<str>,
        /// The process id of the server's backend.
        pid: i32,
    },
    /// A caller was refused because the pool is overloaded.
    #[non_exhaustive]
    Shed {
        /// The pool's name.
        pool: Arc<str>,
        /// Where it asked.
        at: &'static Location<'static>,
        /// How long it had waited.
        waited: Duration,
    },
}

impl PoolEvent {
    /// The name of the pool it happened to; `None` for [`Lagged`](Self::Lagged).
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        match self {
            Self::Lagged(_) => None,
            Self::Abandoned { pool, .. }
            | Self::Connected { pool, .. }
            | Self::ConnectFailed { pool, .. }
            | Self::OverlongHold { pool, .. }
            | Self::PoolClosed { pool }
            | Self::SessionClosed { pool, .. }
            | Self::SettleOverdue { pool, .. }
            | Self::Shed { pool, .. } => Some(pool),
        }
    }
}

/// A stream of [`PoolEvent`]s, in the order they happened, from the moment it was made.
///
/// It never holds up a pool: a reader that falls behind by more than the capacity loses the oldest events and sees
/// [`PoolEvent::Lagged`] in their place. It ends when the pools are gone.
#[must_use = "events are only kept for streams that are read"]
pub struct Events {
    reader: Reader<PoolEvent>,
    /// Only of this pool.
    pool: Option<Arc<str>>,
}

impl Events {
    pub(crate) fn new(sender: &Broadcast<PoolEvent>, pool: Option<Arc<str>>) -> Self {
        Self {
            reader: sender.subscribe(),
            pool,
        }
    }
}

impl Stream for Events {
    type Item = PoolEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PoolEvent>> {
        loop {
            let event = match ready!(self.reader.poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Heard::Lagged(lost)) => PoolEvent::Lagged(lost),
                Some(Heard::Item(event)) => event,
            };
            match (&self.pool, event.pool()) {
                (Some(wanted), Some(pool)) if **wanted != *pool => {}
                _ => return Poll::Ready(Some(event)),
            }
        }
    }
}

impl fmt::Display for PoolEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pool) = self.pool() {
            write!(f, "{pool}: ")?;
        }
        match self {
            Self::Abandoned { pid, at, outcome, .. } => {
                write!(f, "work taken at {at} was abandoned: {outcome}")?;
                pid.map_or(Ok(()), |pid| write!(f, " (backend {pid})"))
            }
            Self::Connected { pid, took, .. } => write!(f, "connected in {took:?} (backend {pid})"),
            Self::ConnectFailed { error, .. } => write!(f, "a connect failed: {error}"),
            Self::Lagged(lost) => write!(f, "{lost} events are missing"),
            Self::OverlongHold { holder, .. } => {
                write!(f, "a lease taken at {} is held for {:?}", holder.at, holder.held)
            }
            Self::PoolClosed { .. } => f.write_str("closed"),
            Self::SessionClosed { pid, reason, .. } => write!(f, "a session ended: {reason} (backend {pid})"),
            Self::SettleOverdue { pid, .. } => write!(f, "a session did not settle in time (backend {pid})"),
            Self::Shed { at, waited, .. } => write!(f, "a caller at {at} was refused after {waited:?}"),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("reader", &self.reader)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
