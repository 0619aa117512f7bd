//! Hand-offs: one-place channels through which a waiter gets its session, recycled between waiters.
//!
//! Between ledger and checkout. A channel goes back to the shelf only when it is certainly empty and nobody else can
//! send; else it is dropped, and what is in it goes back to the pool by its own guard.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_util::task::AtomicWaker;

use super::checkout::Granted;

/// What comes through a hand-off.
#[derive(Debug)]
pub(super) enum Delivery {
    /// The pool was closed.
    Closed,
    /// A session.
    Session(Granted),
    /// The pool is overloaded: refused after this wait.
    Shed(Duration),
}

/// A one-place channel with one waiter, who has the other clone while a delivery is due.
///
/// The waiter registers its waker here and not with the channel, which would allocate a listener for each wait.
#[derive(Clone)]
pub(super) struct HandOff {
    ends: Arc<Ends>,
}

struct Ends {
    sender: Sender<Delivery>,
    receiver: Receiver<Delivery>,
    waiter: AtomicWaker,
}

/// Channels between uses. Bounded by the most waiters and leases there were at once.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    spare: Vec<HandOff>,
}

impl HandOff {
    fn new() -> Self {
        let (sender, receiver) = async_channel::bounded(1);
        let ends = Ends {
            sender,
            receiver,
            waiter: AtomicWaker::new(),
        };
        Self { ends: Arc::new(ends) }
    }

    /// Delivers, once. A waiter that has left meanwhile gives the delivery back to its own guard.
    pub(super) fn deliver(&self, delivery: Delivery) {
        if self.ends.sender.try_send(delivery).is_ok() {
            self.ends.waiter.wake();
        }
    }

    /// Waits for the delivery.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Delivery> {
        if let Some(delivery) = self.take() {
            return Poll::Ready(delivery);
        }
        self.ends.waiter.register(cx.waker());
        // Once more: it may have come before the waker was there.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&self) -> Option<Delivery> {
        // Nearly always empty at the first look, and seen so without a write.
        if self.ends.receiver.is_empty() {
            return None;
        }
        self.ends.receiver.try_recv().ok()
    }

    /// Nobody can deliver after this; what was delivered is given out.
    pub(super) fn shut(&self) -> Option<Delivery> {
        self.ends.receiver.close();
        self.take()
    }
}

impl Shelf {
    pub(super) fn take(&mut self) -> HandOff {
        self.spare.pop().unwrap_or_else(HandOff::new)
    }

    /// Takes back the channel that a lease came through, if it had to wait for one.
    pub(super) fn take_back(&mut self, channel: Option<HandOff>) {
        if let Some(channel) = channel {
            self.put(channel);
        }
    }

    /// Takes back a channel whose delivery was received, or whose waiter left before it was granted anything.
    pub(super) fn put(&mut self, channel: HandOff) {
        debug_assert!(channel.ends.receiver.is_empty(), "a recycled hand-off holds a delivery");
        // One delivery per wait: whoever still holds the other clone has used it.
        self.spare.push(channel);
    }
}

impl fmt::Debug for HandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOff")
            .field("delivered", &!self.ends.receiver.is_empty())
            .finish_non_exhaustive()
    }
}
