//! One subscriber of a channel: what it was told, what it still has to be told, and what it lost.
//!
//! A plain machine, part of the listener's. It puts events into its outlet for as long as there is room, and keeps count
//! of what it could not put there.

use super::super::event::{GapCause, ListenEvent, Notification};
use super::Refusal;
use crate::Instant;

/// Where a subscriber's events go.
pub(in super::super) trait Outlet {
    /// Queues the event, unless there is no room.
    fn put(&mut self, event: ListenEvent) -> Put;

    /// The word for whoever waits for the subscription to begin. The first one counts.
    fn answer(&mut self, answer: Result<(), Refusal>);

    /// Nobody has been given the word yet.
    fn is_waiting(&self) -> bool;

    /// Nothing is delivered any more. `last` is what is still to be told and found no room.
    fn end(self, last: Option<ListenEvent>);
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Put {
    Done,
    Full,
    /// Nobody can read it any more.
    Gone,
}

#[derive(Debug)]
pub(super) struct Subscriber<Q> {
    pub(super) outlet: Q,
    /// `Subscribed` is in the queue.
    is_subscribed: bool,
    loss: Option<Loss>,
}

/// A gap that is not over.
#[derive(Debug)]
struct Loss {
    cause: GapCause,
    since: Instant,
    /// Dropped since the last `Gap` that was queued.
    dropped: u64,
    /// All of this is in the queue.
    is_told: bool,
}

impl<Q: Outlet> Subscriber<Q> {
    pub(super) fn new(outlet: Q) -> Self {
        Self {
            outlet,
            is_subscribed: false,
            loss: None,
        }
    }

    /// What is to be queued next, if there were room. `live`: the server has acknowledged LISTEN and is believed.
    pub(super) fn due(&self, live: bool) -> Option<ListenEvent> {
        match &self.loss {
            _ if !self.is_subscribed => live.then_some(ListenEvent::Subscribed),
            None => None,
            Some(loss) if !loss.is_told => Some(ListenEvent::Gap {
                cause: loss.cause,
                since: loss.since,
                dropped: loss.dropped,
            }),
            Some(_) => live.then_some(ListenEvent::Resumed),
        }
    }

    /// What was due is in the queue.
    pub(super) fn placed(&mut self) {
        match &mut self.loss {
            _ if !self.is_subscribed => self.is_subscribed = true,
            None => {}
            Some(loss) if !loss.is_told => {
                loss.is_told = true;
                loss.dropped = 0;
            }
            Some(_) => self.loss = None,
        }
    }

    /// Queues what is due; `false` when something is left that needs room.
    pub(super) fn flush(&mut self, live: bool) -> bool {
        while let Some(event) = self.due(live) {
            if self.outlet.put(event) != Put::Done {
                return false;
            }
            self.placed();
        }
        true
    }

    /// A notification of a live channel; `false` when something is left that needs room.
    pub(super) fn notify(&mut self, now: Instant, notification: &Notification) -> bool {
        let flushed = self.flush(true);
        if flushed && self.outlet.put(ListenEvent::Notification(notification.clone())) == Put::Done {
            return true;
        }
        // What comes before `Subscribed` was never promised.
        if self.is_subscribed {
            self.overflow(now);
        }
        false
    }

    fn overflow(&mut self, now: Instant) {
        match &mut self.loss {
            Some(loss) if !loss.is_told => loss.dropped += 1,
            loss => {
                *loss = Some(Loss {
                    cause: GapCause::Overflow,
                    since: now,
                    dropped: 1,
                    is_told: false,
                });
            }
        }
    }

    /// Notifications may be missing from here on; `false` when the word of it needs room.
    pub(super) fn lose(&mut self, cause: GapCause, since: Instant) -> bool {
        if !self.is_subscribed {
            return true;
        }
        match &mut self.loss {
            // The same gap goes on: one word about it is enough, unless it has another cause now.
            Some(loss) if loss.is_told && loss.cause != GapCause::Overflow && cause != GapCause::PoolClosed => {}
            Some(loss) if !loss.is_told => {
                loss.cause = cause;
                loss.since = loss.since.min(since);
            }
            loss => {
                *loss = Some(Loss {
                    cause,
                    since,
                    dropped: 0,
                    is_told: false,
                });
            }
        }
        self.flush(false)
    }

    /// The subscription is over.
    pub(super) fn end(self) {
        // A gap that nobody could be told of is told last; nothing else is due to somebody who leaves.
        let last = self.due(false);
        self.outlet.end(last);
    }
}
