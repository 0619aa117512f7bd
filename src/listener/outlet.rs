//! The outlet of one subscriber: the sending end of its queue, and the words for whoever waits at its beginning and end.
//!
//! Between the machine, which fills it, and the subscription that the user holds. It never waits and decides nothing.

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_channel::{Sender, TrySendError};
use futures_channel::oneshot;

use super::event::ListenEvent;
use super::machine::{Outlet, Put, Refusal};
use crate::cancel::Cancel;

/// A subscriber on its way to the machine.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) channel: String,
    pub(super) mouth: Mouth,
    /// The user's flag, if there is one.
    pub(super) cancel: Option<Cancel>,
}

/// See the file's header. Dropping it ends the subscription.
pub(super) struct Mouth {
    /// Let go of before the queue: who finds the queue at its end may take the last word out of it.
    ties: Ties,
    queue: Sender<ListenEvent>,
    reply: Option<oneshot::Sender<Result<(), Refusal>>>,
}

/// What a subscription and its outlet share.
#[derive(Clone, Debug, Default)]
pub(super) struct Ties {
    /// The subscription is to end, or has ended.
    pub(super) stop: Cancel,
    /// Nothing is delivered any more.
    pub(super) done: Cancel,
    /// What found no room in the queue before the end.
    pub(super) last: Arc<OnceLock<ListenEvent>>,
}

impl Mouth {
    pub(super) fn new(queue: Sender<ListenEvent>, reply: oneshot::Sender<Result<(), Refusal>>, ties: Ties) -> Self {
        let reply = Some(reply);
        Self { ties, queue, reply }
    }

    /// The subscription's own flag; its end sets it, too.
    pub(super) fn stop(&self) -> &Cancel {
        &self.ties.stop
    }

    pub(super) fn queue(&self) -> &Sender<ListenEvent> {
        &self.queue
    }
}

impl Outlet for Mouth {
    fn put(&mut self, event: ListenEvent) -> Put {
        match self.queue.try_send(event) {
            Ok(()) => Put::Done,
            Err(TrySendError::Full(_)) => Put::Full,
            Err(TrySendError::Closed(_)) => Put::Gone,
        }
    }

    fn answer(&mut self, answer: Result<(), Refusal>) {
        if let Some(reply) = self.reply.take() {
            // Nobody waits any more when the future was dropped.
            let _ = reply.send(answer);
        }
    }

    fn is_waiting(&self) -> bool {
        self.reply.is_some()
    }

    fn end(self, last: Option<ListenEvent>) {
        if let Some(last) = last {
            let _ = self.ties.last.set(last);
        }
    }
}

impl Drop for Mouth {
    fn drop(&mut self) {
        self.ties.stop.cancel();
        self.ties.done.cancel();
    }
}

impl fmt::Debug for Mouth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mouth")
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}
