//! Hand-offs: one-place channels through which a waiter gets its session, recycled between waiters.
//!
//! Between ledger and checkout. A channel goes back to the shelf only when it is certainly empty and nobody else can
//! send; else it is dropped, and what is in it goes back to the pool by its own guard.

use std::fmt;
use std::pin::Pin;

use async_channel::{Receiver, Sender};

use super::checkout::Granted;

/// What comes through a hand-off.
#[derive(Debug)]
pub(super) enum Delivery {
    /// The pool was closed.
    Closed,
    /// A session.
    Session(Granted),
}

/// Both ends of a one-place channel; the waiter keeps the receiving one.
pub(super) struct HandOff {
    sender: Sender<Delivery>,
    pub(super) receiver: Pin<Box<Receiver<Delivery>>>,
}

/// Channels between uses. Bounded by the most waiters there were at once.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    spare: Vec<HandOff>,
}

impl HandOff {
    fn new() -> Self {
        let (sender, receiver) = async_channel::bounded(1);
        Self {
            sender,
            receiver: Box::pin(receiver),
        }
    }

    /// The end through which the pool delivers, once.
    pub(super) fn sender(&self) -> Sender<Delivery> {
        self.sender.clone()
    }

    /// Nobody can deliver after this; what was delivered is given out.
    pub(super) fn shut(&self) -> Option<Delivery> {
        self.receiver.close();
        self.receiver.try_recv().ok()
    }
}

impl Shelf {
    pub(super) fn take(&mut self) -> HandOff {
        self.spare.pop().unwrap_or_else(HandOff::new)
    }

    /// Takes back a channel whose delivery was received, or whose waiter left before it was granted anything.
    pub(super) fn put(&mut self, channel: HandOff) {
        debug_assert!(channel.receiver.is_empty(), "a recycled hand-off holds a delivery");
        // One delivery per wait: whoever still holds the other sender has used it.
        self.spare.push(channel);
    }
}

impl fmt::Debug for HandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOff")
            .field("delivered", &!self.receiver.is_empty())
            .finish_non_exhaustive()
    }
}
