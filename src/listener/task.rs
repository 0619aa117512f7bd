//! The listener's task: one per pool, there while it has subscribers. It feeds the machine and carries out its steps.
//!
//! Between hub, machine and line. It holds no policy: what is to be done, and when, the machine says. Its subscribers are
//! told when its executor drops it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use async_channel::Sender;
use futures_core::Stream;
use futures_util::future::select;
use futures_util::stream::FuturesUnordered;

use super::event::{ListenEvent, Notification};
use super::hub::Hub;
use super::line::{self, Dialled, Line};
use super::machine::{Limits, Machine, Step, SubscriberId};
use super::outlet::Mouth;
use crate::Instant;
use crate::cancel::Cancel;
use crate::runtime::{BoxFuture, point};

/// So many rounds in one turn, then other tasks have theirs.
const ROUNDS: u32 = 16;

struct Task {
    hub: Arc<Hub>,
    machine: Machine<Mouth>,
    pool_closed: Option<BoxFuture<'static, ()>>,
    /// One per subscriber: its cancel flags, and the end of its queue.
    watches: FuturesUnordered<BoxFuture<'static, SubscriberId>>,
    link: Link,
    test: Option<BoxFuture<'static, (bool, Option<BoxFuture<'static, ()>>)>>,
    /// The end of the self-test's connection.
    farewell: Option<BoxFuture<'static, ()>>,
    /// Who waits for room, and with what.
    stalls: BTreeMap<SubscriberId, Stall>,
    timer: Option<(Instant, BoxFuture<'static, ()>)>,
    is_done: bool,
}

enum Link {
    Down,
    Dialling(BoxFuture<'static, Dialled>),
    Up(Line),
    Closing(BoxFuture<'static, ()>),
}

/// An event that waits for room in a full queue.
struct Stall {
    event: ListenEvent,
    sending: BoxFuture<'static, bool>,
}

/// Runs the listener of one hub until nobody subscribes.
///
/// The task's state is there before the task is: one that is dropped without ever being polled tells its subscribers, too.
pub(super) fn run(hub: Arc<Hub>) -> impl Future<Output = ()> + Send + 'static {
    let mut task = Task::new(hub);
    std::future::poll_fn(move |cx| task.poll(cx))
}

impl Task {
    fn new(hub: Arc<Hub>) -> Self {
        let beside = &hub.beside;
        let limits = Limits {
            heartbeat: beside.listen_heartbeat,
            answer: beside.ping_timeout,
            backoff: beside.backoff,
            self_test: beside.listen_self_test,
        };
        let closed = beside.closed.clone();
        Self {
            machine: Machine::new(limits),
            pool_closed: Some(Box::pin(async move { closed.cancelled().await })),
            watches: FuturesUnordered::new(),
            link: Link::Down,
            test: None,
            farewell: None,
            stalls: BTreeMap::new(),
            timer: None,
            is_done: false,
            hub,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.hub.waker.register(cx.waker());
        for _ in 0..ROUNDS {
            let now = self.hub.beside.runtime.now();
            self.poll_pool(cx);
            let mut moved = self.take_arrivals();
            moved |= self.poll_watches(cx);
            moved |= self.poll_link(cx, now);
            moved |= self.poll_test(cx, now);
            moved |= self.poll_stalls(cx);
            moved |= self.carry_out(cx, now);
            if self.is_done {
                return Poll::Ready(());
            }
            if !moved && !self.poll_timer(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_pool(&mut self, cx: &mut Context<'_>) {
        if let Some(closed) = &mut self.pool_closed
            && closed.as_mut().poll(cx).is_ready()
        {
            self.pool_closed = None;
            self.machine.close();
        }
    }

    fn take_arrivals(&mut self) -> bool {
        let arrivals = self.hub.take_arrivals();
        let some = !arrivals.is_empty();
        for arrival in arrivals {
            let queue = arrival.mouth.queue().clone();
            let stop = arrival.mouth.stop().clone();
            let id = self.machine.subscribe(&arrival.channel, arrival.mouth);
            self.watches.push(watch(id, queue, arrival.cancel, stop));
        }
        some
    }

    fn poll_watches(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(id)) = Pin::new(&mut self.watches).poll_next(cx) {
            self.machine.end(id);
            moved = true;
        }
        moved
    }

    fn random(&self) -> u64 {
        self.hub.beside.runtime.random()
    }

    fn poll_link(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        match &mut self.link {
            Link::Down => false,
            Link::Dialling(dial) => {
                let Poll::Ready(dialled) = dial.as_mut().poll(cx) else {
                    return false;
                };
                let random = self.random();
                self.link = match dialled {
                    Ok(line) => {
                        self.machine.connected(now, random);
                        Link::Up(line)
                    }
                    Err(refusal) => {
                        self.machine.dial_failed(now, refusal.as_ref(), random);
                        Link::Down
                    }
                };
                true
            }
            Link::Up(line) => {
                let found = line.poll(cx);
                let moved = found.is_over || !found.notifications.is_empty() || !found.answers.is_empty();
                for message in found.notifications {
                    let notification = Notification::new(message.channel(), message.payload(), message.process_id());
                    self.machine.notified(now, &notification);
                }
                for answer in found.answers {
                    let random = self.random();
                    self.machine.answered(now, answer, random);
                }
                if found.is_over {
                    self.ended(now);
                }
                moved
            }
            Link::Closing(closing) => {
                let over = closing.as_mut().poll(cx).is_ready();
                if over {
                    self.ended(now);
                }
                over
            }
        }
    }

    fn ended(&mut self, now: Instant) {
        point!(self.hub.beside.runtime, "listener.lost");
        self.link = Link::Down;
        self.test = None;
        let random = self.random();
        self.machine.lost(now, random);
    }

    fn poll_test(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if let Some(farewell) = &mut self.farewell
            && farewell.as_mut().poll(cx).is_ready()
        {
            self.farewell = None;
        }
        let Some(test) = &mut self.test else { return false };
        let Poll::Ready((sent, farewell)) = test.as_mut().poll(cx) else {
            return false;
        };
        self.test = None;
        self.farewell = farewell;
        let random = self.random();
        self.machine.test_sent(now, sent, random);
        true
    }

    /// Puts what is due to those whose queues were full, as soon as there is room.
    fn poll_stalls(&mut self, cx: &mut Context<'_>) -> bool {
        let stalled: BTreeSet<SubscriberId> = self.machine.stalled().collect();
        self.stalls.retain(|id, _| stalled.contains(id));
        let mut moved = false;
        for id in stalled {
            let Some((event, mouth)) = self.machine.due_to(id) else {
                // A wait for room that nobody polls would keep a wake-up from others who wait for it.
                self.stalls.remove(&id);
                continue;
            };
            let stall = match self.stalls.remove(&id) {
                // What is due may have grown since.
                Some(stall) if stall.event == event => stall,
                _ => Stall::new(event, mouth),
            };
            let stall = self.stalls.entry(id).or_insert(stall);
            if let Poll::Ready(placed) = stall.sending.as_mut().poll(cx) {
                self.stalls.remove(&id);
                if placed {
                    self.machine.placed(id);
                    moved = true;
                }
            }
        }
        moved
    }

    fn carry_out(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        while let Some(step) = self.machine.next(now, self.random()) {
            moved = true;
            match (step, &mut self.link) {
                (Step::Dial, _) => {
                    point!(self.hub.beside.runtime, "listener.dialling");
                    self.link = Link::Dialling(Box::pin(Line::dial(self.hub.beside.clone())));
                }
                (Step::Send(sql), Link::Up(line)) => {
                    line.send(cx, sql);
                    point!(self.hub.beside.runtime, "listener.listen_sent");
                }
                (Step::Beat, Link::Up(line)) => line.beat(cx),
                (Step::SelfTest(channel), _) => {
                    self.test = Some(Box::pin(line::notify(self.hub.beside.clone(), channel)));
                }
                (Step::HangUp, link) => {
                    self.test = None;
                    *link = match std::mem::replace(link, Link::Down) {
                        Link::Up(line) => Link::Closing(Box::pin(line.hang_up(self.hub.beside.clone()))),
                        other => other,
                    };
                }
                (Step::Cut, link) => {
                    *link = Link::Down;
                    self.test = None;
                }
                (Step::Send(_) | Step::Beat, _) => debug_assert!(false, "a request without a connection"),
                (Step::Rest, _) => {
                    self.is_done = self.hub.rest();
                    break;
                }
            }
        }
        moved
    }

    /// Waits until the machine wants to be asked again; `true` when that is now.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.machine.wake_at() else {
            self.timer = None;
            return false;
        };
        let runtime = &self.hub.beside.runtime;
        // A timer that rings too early is cheaper than a new one for every sign of life.
        let rings = match &mut self.timer {
            Some((rings, timer)) if *rings <= at => timer,
            timer => &mut timer.insert((at, runtime.sleep_until(at))).1,
        };
        let rung = rings.as_mut().poll(cx).is_ready();
        if rung {
            self.timer = None;
        }
        rung
    }
}

/// Waits for the end of a subscription: one of its flags is set, or nobody can read its queue any more.
///
/// It keeps the queue open; the end of the subscription from our side sets `stop`, too.
fn watch(
    id: SubscriberId,
    queue: Sender<ListenEvent>,
    cancel: Option<Cancel>,
    stop: Cancel,
) -> BoxFuture<'static, SubscriberId> {
    Box::pin(async move {
        let flags = async {
            match cancel {
                Some(cancel) => {
                    select(pin!(cancel.cancelled()), pin!(stop.cancelled())).await;
                }
                None => stop.cancelled().await,
            }
        };
        select(pin!(flags), pin!(queue.closed())).await;
        id
    })
}

impl Stall {
    fn new(event: ListenEvent, mouth: &Mouth) -> Self {
        let (queue, waiting) = (mouth.queue().clone(), event.clone());
        Self {
            event,
            sending: Box::pin(async move { queue.send(waiting).await.is_ok() }),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.is_done {
            // No more waits for room: what is dropped first could keep a queue open.
            self.stalls.clear();
            self.machine.abandon();
            self.hub.abandoned();
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}
