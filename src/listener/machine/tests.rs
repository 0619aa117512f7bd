//! The machine against a model of a server: each missing notification lies inside a gap, the order is kept, nothing comes
//! after the end, and the server keeps no channel that nobody subscribes to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Limits, Machine, Outlet, Put, Refusal, Step, SubscriberId};
use crate::Instant;
use crate::listener::event::{GapCause, ListenEvent, Notification};

const CHANNELS: [&str; 2] = ["a", "b"];

/// A subscriber's queue, which the reader keeps.
#[derive(Debug)]
struct Queue {
    channel: &'static str,
    capacity: usize,
    waiting: VecDeque<ListenEvent>,
    /// All that was ever queued, each with the number of notifications published by then.
    log: Vec<(u64, ListenEvent)>,
    is_answered: bool,
    is_ended: bool,
    last: Option<ListenEvent>,
}

#[derive(Debug)]
struct Fake {
    queue: Rc<RefCell<Queue>>,
    published: Rc<RefCell<u64>>,
}

impl Outlet for Fake {
    fn put(&mut self, event: ListenEvent) -> Put {
        let mut queue = self.queue.borrow_mut();
        assert!(!queue.is_ended, "nothing comes after the end");
        if queue.waiting.len() >= queue.capacity {
            return Put::Full;
        }
        queue.waiting.push_back(event.clone());
        queue.log.push((*self.published.borrow(), event));
        Put::Done
    }

    fn answer(&mut self, _answer: Result<(), Refusal>) {
        self.queue.borrow_mut().is_answered = true;
    }

    fn is_waiting(&self) -> bool {
        !self.queue.borrow().is_answered
    }

    fn end(self, last: Option<ListenEvent>) {
        let mut queue = self.queue.borrow_mut();
        queue.is_ended = true;
        queue.last = last;
    }
}

/// What the server sends.
#[derive(Debug)]
enum Frame {
    Answer,
    Notification(String, u64),
}

/// One connection, as the server sees it.
#[derive(Debug, Default)]
struct Server {
    channels: BTreeSet<String>,
    requests: VecDeque<String>,
    frames: VecDeque<Frame>,
}

#[derive(Debug)]
struct World {
    machine: Machine<Fake>,
    now: Instant,
    /// There while the connection is.
    server: Option<Server>,
    is_dialling: bool,
    is_rested: bool,
    /// The server acknowledges LISTEN, and sends no notification.
    voids: bool,
    published: Rc<RefCell<u64>>,
    sent: BTreeMap<&'static str, Vec<u64>>,
    subscribers: Vec<(SubscriberId, Rc<RefCell<Queue>>)>,
}

#[derive(Clone, Debug)]
enum Op {
    Subscribe(usize, usize),
    End(usize),
    Read(usize),
    Publish(usize),
    Serve,
    Deliver,
    Cut,
    Dial(bool),
    Wait(u64),
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..2usize, 1..4usize).prop_map(|(channel, capacity)| Op::Subscribe(channel, capacity)),
        2 => (0..8usize).prop_map(Op::End),
        4 => (0..8usize).prop_map(Op::Read),
        8 => (0..2usize).prop_map(Op::Publish),
        8 => Just(Op::Serve),
        8 => Just(Op::Deliver),
        1 => Just(Op::Cut),
        4 => any::<bool>().prop_map(Op::Dial),
        2 => (1..3_000u64).prop_map(Op::Wait),
    ]
}

fn limits() -> Limits {
    Limits {
        heartbeat: Duration::from_millis(5_000),
        answer: Duration::from_millis(2_000),
        backoff: (Duration::from_millis(100), Duration::from_millis(1_000)),
        self_test: true,
    }
}

impl World {
    fn new() -> Self {
        Self {
            machine: Machine::new(limits()),
            now: Instant::from_nanos(1),
            server: None,
            is_dialling: false,
            is_rested: false,
            voids: false,
            published: Rc::default(),
            sent: CHANNELS.map(|channel| (channel, Vec::new())).into(),
            subscribers: Vec::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Subscribe(channel, capacity) => self.subscribe(CHANNELS[channel], capacity),
            Op::End(at) => {
                if let Some((id, _)) = self.subscribers.get(at) {
                    self.machine.end(*id);
                }
            }
            Op::Read(at) => self.read(at),
            Op::Publish(channel) => self.publish(CHANNELS[channel]),
            Op::Serve => self.serve(),
            Op::Deliver => self.deliver(),
            Op::Cut => {
                if self.server.take().is_some() {
                    self.machine.lost(self.now, 7);
                }
            }
            Op::Dial(works) => self.dial(works),
            Op::Wait(millis) => self.now = self.now + Duration::from_millis(millis),
            Op::Close => self.machine.close(),
        }
        self.steps();
        self.check_channels();
    }

    fn subscribe(&mut self, channel: &'static str, capacity: usize) {
        let queue = Rc::new(RefCell::new(Queue {
            channel,
            capacity,
            waiting: VecDeque::new(),
            log: Vec::new(),
            is_answered: false,
            is_ended: false,
            last: None,
        }));
        let fake = Fake {
            queue: Rc::clone(&queue),
            published: Rc::clone(&self.published),
        };
        self.is_rested = false;
        let id = self.machine.subscribe(channel, fake);
        self.subscribers.push((id, queue));
    }

    /// Takes one event, and lets what waits for room have it, as the task does.
    fn read(&mut self, at: usize) {
        let Some((id, queue)) = self.subscribers.get(at) else {
            return;
        };
        queue.borrow_mut().waiting.pop_front();
        let stalled: Vec<_> = self.machine.stalled().collect();
        if stalled.contains(id)
            && let Some((event, fake)) = self.machine.due_to(*id)
            && fake.put(event) == Put::Done
        {
            self.machine.placed(*id);
        }
    }

    fn publish(&mut self, channel: &'static str) {
        let number = {
            let mut published = self.published.borrow_mut();
            *published += 1;
            *published
        };
        if let Some(sent) = self.sent.get_mut(channel) {
            sent.push(number);
        }
        self.send(channel, number);
    }

    fn send(&mut self, channel: &str, number: u64) {
        if let Some(server) = &mut self.server
            && !self.voids
            && server.channels.contains(channel)
        {
            let notification = Frame::Notification(channel.into(), number);
            // Servers also send notifications ahead of the end of an answer.
            match server.frames.back() {
                Some(Frame::Answer) if number % 2 == 1 => server.frames.insert(server.frames.len() - 1, notification),
                _ => server.frames.push_back(notification),
            }
        }
    }

    /// The server takes one request.
    fn serve(&mut self) {
        let Some(server) = &mut self.server else { return };
        let Some(sql) = server.requests.pop_front() else { return };
        for statement in sql.split("; ").filter(|statement| !statement.is_empty()) {
            let name = statement.split('"').nth(1).expect("a quoted name").to_owned();
            if statement.starts_with("LISTEN") {
                server.channels.insert(name);
            } else {
                assert!(server.channels.remove(&name), "UNLISTEN only for what was listened to");
            }
        }
        server.frames.push_back(Frame::Answer);
    }

    /// The client takes one frame.
    fn deliver(&mut self) {
        match self.server.as_mut().and_then(|server| server.frames.pop_front()) {
            Some(Frame::Answer) => self.machine.answered(self.now, Ok(()), 7),
            Some(Frame::Notification(channel, number)) => {
                let notification = Notification::new(&channel, &number.to_string(), 1);
                self.machine.notified(self.now, &notification);
            }
            None => {}
        }
    }

    fn dial(&mut self, works: bool) {
        if !std::mem::take(&mut self.is_dialling) {
            return;
        }
        if works {
            self.server = Some(Server::default());
            self.machine.connected(self.now, 7);
        } else {
            self.machine.dial_failed(self.now, None, 7);
        }
    }

    /// Carries out what the machine wants.
    fn steps(&mut self) {
        while !self.is_rested
            && let Some(step) = self.machine.next(self.now, 7)
        {
            match step {
                Step::Dial => self.is_dialling = true,
                Step::Send(sql) => self.request(sql),
                Step::Beat => self.request(String::new()),
                Step::SelfTest(channel) => {
                    self.send(&channel, 0);
                    self.machine.test_sent(self.now, true, 7);
                }
                Step::Cut => {
                    self.is_dialling = false;
                    self.server = None;
                }
                Step::HangUp => {
                    self.server = None;
                    self.machine.lost(self.now, 7);
                }
                Step::Rest => self.is_rested = true,
            }
        }
    }

    fn request(&mut self, sql: String) {
        let server = self.server.as_mut().expect("requests are for a connection");
        server.requests.push_back(sql);
    }

    /// When a channel's last subscriber has ended, the server does not have it.
    fn check_channels(&self) {
        for channel in CHANNELS {
            let of_it = || {
                self.subscribers
                    .iter()
                    .filter(|(_, queue)| queue.borrow().channel == channel)
            };
            let all_ended = of_it().all(|(_, queue)| queue.borrow().is_ended);
            let kept = self
                .server
                .as_ref()
                .is_some_and(|server| server.channels.contains(channel));
            assert!(!(all_ended && kept), "{channel} is still listened to");
        }
    }

    /// Lets everything come to rest on a server that works.
    fn come_to_rest(&mut self) {
        for _ in 0..200 {
            for op in [Op::Dial(true), Op::Serve, Op::Deliver, Op::Wait(40)] {
                self.apply(&op);
            }
            for at in 0..self.subscribers.len() {
                self.apply(&Op::Read(at));
            }
        }
    }

    /// Follows what a subscriber was told.
    fn check(&self, queue: &Queue) {
        let sent = &self.sent[queue.channel];
        // From which number on nothing may be missing; `None` inside a gap and before the beginning.
        let mut sure_after: Option<u64> = None;
        let (mut newest, mut begun) = (0, false);
        for (published, event) in &queue.log {
            match event {
                ListenEvent::Subscribed => {
                    assert!(!begun, "subscribed twice");
                    (begun, sure_after) = (true, Some(*published));
                }
                ListenEvent::Notification(notification) => {
                    let number: u64 = notification.payload().parse().expect("a number");
                    assert!(begun && number > newest, "{number} after {newest}");
                    let after = sure_after.expect("a notification inside a gap").max(newest);
                    let missing = sent.iter().find(|&&n| n > after && n < number);
                    assert_eq!(missing, None, "missing without a gap, before {number}");
                    newest = number;
                }
                ListenEvent::Gap { .. } => {
                    assert!(begun, "a gap before the beginning");
                    sure_after = None;
                }
                ListenEvent::Resumed => {
                    assert!(begun && sure_after.is_none(), "resumed without a gap");
                    sure_after = Some(*published);
                }
            }
        }
        if !queue.is_ended {
            let after = sure_after.expect("all is well in the end").max(newest);
            let missing = sent.iter().find(|&&n| n > after);
            assert_eq!(missing, None, "missing at the end");
        }
    }
}

proptest! {
    #[test]
    fn a_listener_never_lies(ops in proptest::collection::vec(op(), 0..120)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.come_to_rest();
        for channel in CHANNELS {
            world.publish(channel);
        }
        world.come_to_rest();
        for (_, queue) in &world.subscribers {
            world.check(&queue.borrow());
        }
        for at in 0..world.subscribers.len() {
            world.apply(&Op::End(at));
        }
        world.come_to_rest();
        prop_assert!(world.subscribers.iter().all(|(_, queue)| queue.borrow().is_ended));
        prop_assert!(world.server.is_none(), "no connection without subscribers");
    }

    #[test]
    fn a_closed_pool_ends_everything_and_says_so(ops in proptest::collection::vec(op(), 0..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.apply(&Op::Subscribe(0, 1));
        // Those who had begun and had not been ended.
        let places = &world.machine.places;
        let due: Vec<bool> = world
            .subscribers
            .iter()
            .map(|(id, queue)| places.contains_key(id) && !queue.borrow().log.is_empty())
            .collect();
        world.apply(&Op::Close);
        prop_assert!(world.server.is_none() && world.is_rested);
        for ((_, queue), due) in world.subscribers.iter().zip(due) {
            let queue = queue.borrow();
            prop_assert!(queue.is_ended);
            let told = queue.log.iter().map(|(_, event)| event).chain(&queue.last);
            let closed = told.filter(|event| is_gap(event, GapCause::PoolClosed)).count();
            prop_assert_eq!(closed, usize::from(due));
        }
    }
}

fn events(queue: &Rc<RefCell<Queue>>) -> Vec<ListenEvent> {
    queue.borrow().log.iter().map(|(_, event)| event.clone()).collect()
}

fn is_gap(event: &ListenEvent, wanted: GapCause) -> bool {
    matches!(event, ListenEvent::Gap { cause, .. } if *cause == wanted)
}

#[test]
fn a_pooler_that_voids_listen_is_found_and_never_believed() {
    let mut world = World::new();
    world.voids = true;
    world.apply(&Op::Subscribe(0, 8));
    for _ in 0..400 {
        for op in [Op::Dial(true), Op::Serve, Op::Deliver, Op::Wait(40)] {
            world.apply(&op);
        }
    }
    let queue = Rc::clone(&world.subscribers[0].1);
    let told = events(&queue);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(is_gap(&told[1], GapCause::Unsupported), "{told:?}");
    // The next one is not even let in.
    world.apply(&Op::Subscribe(1, 8));
    for _ in 0..400 {
        for op in [Op::Dial(true), Op::Serve, Op::Deliver, Op::Wait(40)] {
            world.apply(&op);
        }
    }
    let late = world.subscribers[1].1.borrow();
    assert!(late.is_answered && late.log.is_empty());
    drop(late);
    // With the pooler out of the way, the self-test passes and the gap is over.
    world.voids = false;
    world.come_to_rest();
    assert_eq!(events(&queue).last(), Some(&ListenEvent::Resumed));
}

/// A notification proves that LISTEN was done; its answer, which comes after, is not taken for one to what was asked since.
#[test]
fn an_answer_that_comes_behind_its_proof_says_nothing_new() {
    let mut world = World::new();
    world.apply(&Op::Subscribe(0, 8));
    for op in [Op::Dial(true), Op::Serve, Op::Publish(0), Op::Deliver] {
        world.apply(&op);
    }
    assert_eq!(events(&world.subscribers[0].1).len(), 2, "the notification came first");
    // UNLISTEN is on its way when the next one comes, and LISTEN's answer behind it.
    for op in [Op::End(0), Op::Subscribe(0, 8), Op::Deliver] {
        world.apply(&op);
    }
    let late = Rc::clone(&world.subscribers[1].1);
    assert_eq!((events(&late), late.borrow().is_answered), (Vec::new(), false));
    world.come_to_rest();
    world.apply(&Op::Publish(0));
    world.come_to_rest();
    assert_eq!(events(&late).len(), 2);
    world.check(&late.borrow());
}

#[test]
fn a_silent_server_is_given_up_after_a_heartbeat_without_an_answer() {
    let mut world = World::new();
    world.apply(&Op::Subscribe(0, 8));
    world.come_to_rest();
    let since = world.now;
    // Nothing is served any more.
    for _ in 0..100 {
        world.apply(&Op::Wait(100));
    }
    let told = events(&world.subscribers[0].1);
    let Some(ListenEvent::Gap { cause, since: said, .. }) = told.last() else {
        panic!("{told:?}");
    };
    assert_eq!(*cause, GapCause::Silent);
    assert!(*said <= since, "the last sign of life");
    assert!(world.server.is_none());
}

#[test]
fn what_overflows_is_counted_and_told_where_it_was_lost() {
    let mut world = World::new();
    world.apply(&Op::Subscribe(0, 2));
    world.come_to_rest();
    for _ in 0..10 {
        world.apply(&Op::Publish(0));
        world.apply(&Op::Deliver);
    }
    world.come_to_rest();
    let told = events(&world.subscribers[0].1);
    let numbers: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            ListenEvent::Notification(notification) => Some(notification.payload().to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, ["1", "2"]);
    assert!(is_gap(&told[3], GapCause::Overflow), "{told:?}");
    assert!(matches!(told[3], ListenEvent::Gap { dropped: 8, .. }), "{told:?}");
    assert_eq!(told[4], ListenEvent::Resumed);
    assert_eq!(told.len(), 5);
}
