//! The listener's policy: which channels the server is to have, who is told what, when to connect again, what is overdue.
//!
//! A plain machine, between the hub, which feeds it, and the task, which carries out its steps. One connection, many
//! channels, many subscribers of each; answers come in the order of the requests.
//!
//! LISTEN for a channel is never sent while an UNLISTEN for it is unanswered: a notification that comes before the answer
//! to a LISTEN is therefore a proof that this LISTEN has taken effect.

mod backoff;
mod connection;
mod subscriber;
#[cfg(test)]
mod tests;

pub(super) use self::subscriber::{Outlet, Put};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use self::backoff::Backoff;
use self::subscriber::Subscriber;
use super::event::{GapCause, ListenEvent, Notification};
use crate::Instant;
use crate::error::Error;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A connection silent for so long is asked for a sign of life.
    pub(super) heartbeat: Duration,
    /// How long any answer may take, counted from the last sign of life.
    pub(super) answer: Duration,
    pub(super) backoff: (Duration, Duration),
    pub(super) self_test: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SubscriberId(u64);

/// Why a subscription could not begin, or a request failed.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// The server answered with an error.
    Server(Arc<tokio_postgres::Error>),
    /// No connection, and trying again will not help.
    Connect(Arc<Error>),
    PoolClosed,
    /// LISTEN has no effect on this connection.
    Unsupported,
    /// The executor dropped the listener.
    Dropped,
}

/// What the task is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Dial,
    /// Send this text as one request; its answer comes back through [`Machine::answered`].
    Send(String),
    /// Send a request without effect; likewise.
    Beat,
    /// Send a notification on this channel from another connection.
    SelfTest(String),
    /// Drop the dial or the connection at once.
    Cut,
    /// End the connection politely.
    HangUp,
    /// End the task: there is nothing to do until somebody subscribes.
    Rest,
}

/// A request whose answer is awaited.
#[derive(Debug)]
enum Request {
    Listen(Vec<Arc<str>>),
    Unlisten(Arc<str>),
    Beat,
    TestListen,
    TestUnlisten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Idle,
    Pause(Instant),
    Dialling,
    Up,
    Closing,
}

/// The self-test of one connection: does a notification from another connection arrive while this one is quiet?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    /// Done, or not wanted.
    Over,
    /// The private channel is yet to be asked for.
    Due,
    /// Its LISTEN is under way.
    Listening,
    /// LISTEN was acknowledged: the notification is to be sent.
    Ready,
    /// It is being sent.
    Sending,
    /// It has been sent and must come until then.
    Awaited(Instant),
    /// It has not come: is the server there at all?
    Doubted,
    /// The private channel is to be left.
    Leaving,
}

#[derive(Debug)]
struct Channel<Q> {
    stage: Stage,
    /// The server has acknowledged it at least once, on whichever connection.
    is_known: bool,
    subscribers: BTreeMap<SubscriberId, Subscriber<Q>>,
    /// Ended, and waiting for the server to have no such channel.
    leaving: Vec<Subscriber<Q>>,
}

/// What the server has, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Absent,
    Listening,
    Live,
    Unlistening,
}

#[derive(Debug)]
pub(super) struct Machine<Q> {
    limits: Limits,
    channels: BTreeMap<Arc<str>, Channel<Q>>,
    /// The channel of each subscriber.
    places: BTreeMap<SubscriberId, Arc<str>>,
    next_id: u64,
    link: Link,
    backoff: Backoff,
    /// Requests without an answer, and when they were sent.
    sent: VecDeque<(Instant, Request)>,
    /// The channels of the last connection are to be asked for on this one.
    relisten: bool,
    /// Channels whose stage may not be the wanted one.
    due: BTreeSet<Arc<str>>,
    /// Subscribers with something due that found no room.
    stalled: BTreeSet<SubscriberId>,
    /// The last sign of life.
    life: Instant,
    test: Test,
    test_channel: String,
    /// A self-test failed, and none has passed since: LISTEN's acknowledgements are worth nothing.
    is_suspect: bool,
    is_closed: bool,
    /// The connection or dial was given up; the task has not been told yet.
    cut: bool,
}

impl<Q: Outlet> Machine<Q> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            channels: BTreeMap::new(),
            places: BTreeMap::new(),
            next_id: 0,
            link: Link::Idle,
            backoff: Backoff::new(limits.backoff),
            sent: VecDeque::new(),
            relisten: false,
            due: BTreeSet::new(),
            stalled: BTreeSet::new(),
            life: Instant::from_nanos(0),
            test: Test::Over,
            test_channel: String::new(),
            is_suspect: false,
            is_closed: false,
            cut: false,
        }
    }

    /// A new subscriber of a channel.
    pub(super) fn subscribe(&mut self, channel: &str, mut outlet: Q) -> SubscriberId {
        let id = SubscriberId(self.next_id);
        self.next_id += 1;
        if self.is_closed {
            outlet.answer(Err(Refusal::PoolClosed));
            outlet.end(None);
            return id;
        }
        let trusted = !self.is_suspect;
        let (name, place) = match self.channels.get_key_value(channel) {
            Some((name, _)) => (Arc::clone(name), self.channels.get_mut(channel)),
            None => {
                let name: Arc<str> = channel.into();
                let place = self.channels.entry(Arc::clone(&name)).or_insert_with(Channel::new);
                (name, Some(place))
            }
        };
        let Some(place) = place else { return id };
        if place.stage != Stage::Unlistening {
            // They are no longer the last ones: the server keeps the channel.
            for leaving in place.leaving.drain(..) {
                leaving.end();
            }
        }
        let mut subscriber = Subscriber::new(outlet);
        if place.stage == Stage::Live && trusted {
            subscriber.outlet.answer(Ok(()));
            if !subscriber.flush(true) {
                self.stalled.insert(id);
            }
        }
        place.subscribers.insert(id, subscriber);
        self.places.insert(id, Arc::clone(&name));
        self.due.insert(name);
        id
    }

    /// Ends a subscription: nothing is delivered to it from here on.
    pub(super) fn end(&mut self, id: SubscriberId) {
        self.stalled.remove(&id);
        let Some(name) = self.places.remove(&id) else { return };
        let Some(channel) = self.channels.get_mut(&name) else {
            return;
        };
        let Some(subscriber) = channel.subscribers.remove(&id) else {
            return;
        };
        if !channel.subscribers.is_empty() {
            subscriber.end();
        } else if channel.stage == Stage::Absent {
            subscriber.end();
            self.channels.remove(&name);
            self.due.remove(&name);
        } else {
            channel.leaving.push(subscriber);
            self.due.insert(name);
        }
    }

    /// The pool is closed: everybody is told, and the connection ends.
    pub(super) fn close(&mut self) {
        if mem::replace(&mut self.is_closed, true) {
            return;
        }
        let since = self.life;
        for channel in self.channels.values_mut() {
            for (_, mut subscriber) in mem::take(&mut channel.subscribers) {
                subscriber.outlet.answer(Err(Refusal::PoolClosed));
                subscriber.lose(GapCause::PoolClosed, since);
                channel.leaving.push(subscriber);
            }
        }
        self.places.clear();
        self.stalled.clear();
        if self.link != Link::Up && self.link != Link::Closing {
            self.cut |= self.link == Link::Dialling;
            self.link = Link::Idle;
            self.disconnected();
        }
    }

    /// The task is gone, with all it had.
    pub(super) fn abandon(&mut self) {
        for channel in mem::take(&mut self.channels).into_values() {
            for mut subscriber in channel.subscribers.into_values() {
                subscriber.outlet.answer(Err(Refusal::Dropped));
                subscriber.lose(GapCause::ConnectionLost, self.life);
                subscriber.end();
            }
            for subscriber in channel.leaving {
                subscriber.end();
            }
        }
        self.places.clear();
        self.stalled.clear();
        self.due.clear();
        self.sent.clear();
        self.test = Test::Over;
        self.link = Link::Idle;
        self.cut = false;
    }
}

impl<Q: Outlet> Machine<Q> {
    /// Subscribers with something due that found no room.
    pub(super) fn stalled(&self) -> impl Iterator<Item = SubscriberId> {
        self.stalled.iter().copied()
    }

    /// What is due to a stalled subscriber.
    pub(super) fn due_to(&mut self, id: SubscriberId) -> Option<(ListenEvent, &mut Q)> {
        let live = self.is_live(self.places.get(&id)?);
        let channel = self.channels.get_mut(self.places.get(&id)?)?;
        let subscriber = channel.subscribers.get_mut(&id)?;
        let event = subscriber.due(live)?;
        Some((event, &mut subscriber.outlet))
    }

    /// What was due to a stalled subscriber found room.
    pub(super) fn placed(&mut self, id: SubscriberId) {
        let Some(name) = self.places.get(&id).cloned() else {
            return;
        };
        let live = self.is_live(&name);
        let channel = self.channels.get_mut(&name);
        let Some(subscriber) = channel.and_then(|channel| channel.subscribers.get_mut(&id)) else {
            return;
        };
        subscriber.placed();
        if subscriber.flush(live) {
            self.stalled.remove(&id);
        }
    }

    fn is_live(&self, name: &str) -> bool {
        !self.is_suspect
            && self
                .channels
                .get(name)
                .is_some_and(|channel| channel.stage == Stage::Live)
    }

    /// Tells a channel's subscribers what is due to them.
    fn flush(&mut self, name: &str) {
        let live = self.is_live(name);
        let Some(channel) = self.channels.get_mut(name) else {
            return;
        };
        for (id, subscriber) in &mut channel.subscribers {
            if live {
                subscriber.outlet.answer(Ok(()));
            }
            if !subscriber.flush(live) {
                self.stalled.insert(*id);
            }
        }
    }
}

impl<Q> Channel<Q> {
    fn new() -> Self {
        Self {
            stage: Stage::Absent,
            is_known: false,
            subscribers: BTreeMap::new(),
            leaving: Vec::new(),
        }
    }
}
