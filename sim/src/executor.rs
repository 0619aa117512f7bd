//! The single-thread executor and its virtual clock: tasks, ready queue, timers, budget.
//!
//! Everything in a run is polled from here. Which of the ready tasks comes next is the seed's choice; time moves only
//! when nothing is ready, straight to the next timer. It never reads a clock, starts a thread or holds its lock while
//! foreign code (a poll, a wake, a drop) runs.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use gdbpool::{BoxFuture, Instant};

use crate::coverage::Coverage;
use crate::fault::ServerFaults;
use crate::fault::injector::Injector;
use crate::network::Network;
use crate::random::Stream;
use crate::schedule::{Chooser, Schedule};
use crate::trace::{Event, Trace};

/// Who a task or timer belongs to: the code under test, or the simulated world around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Runtime,
    World,
}

/// The future given to `block_on`; spawned tasks count from one.
const MAIN: u64 = 0;

/// Polls after which a run counts as a livelock.
const STEP_BUDGET: u64 = 10_000_000;

/// What all handles of one run share.
pub(crate) struct Shared {
    pub(crate) seed: u64,
    state: Mutex<State>,
}

/// Everything that changes during a run, behind one lock.
pub(crate) struct State {
    pub(crate) now: Instant,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) chooser: Chooser,
    pub(crate) coverage: Coverage,
    pub(crate) injector: Injector,
    pub(crate) server_faults: Vec<Arc<dyn ServerFaults>>,
    /// By how many microseconds the clocks of hosts are off.
    pub(crate) skews: BTreeMap<String, i64>,
    /// After how many of a hundred polls one more task is woken for nothing.
    pub(crate) spurious: u8,
    pub(crate) step_budget: u64,
    pub(crate) steps: u64,
    pub(crate) pipes: u64,
    pub(crate) servers: u64,
    pub(crate) tolerate_panics: bool,
    pub(crate) panics: Vec<String>,
    random: Stream,
    wakes: Stream,
    tasks: BTreeMap<u64, Task>,
    next_task: u64,
    ready: VecDeque<u64>,
    main_queued: Option<bool>,
    main_woken_by: u64,
    timers: BTreeMap<TimerKey, Timer>,
    next_timer: u64,
    running: bool,
    closed: bool,
}

struct Task {
    future: Option<BoxFuture<'static, ()>>,
    origin: Origin,
    queued: bool,
    /// The event that woke it.
    woken_by: u64,
    waker: Waker,
}

/// Somebody who waits for an instant.
struct Timer {
    origin: Origin,
    /// The event that set it.
    set_by: u64,
    waker: Waker,
}

/// When a timer is due, and its number.
pub(crate) type TimerKey = (Instant, u64);

/// What to do next.
enum Next {
    Idle,
    Main,
    Task(Turn),
}

/// One task taken out of the table to be polled.
struct Turn {
    id: u64,
    future: BoxFuture<'static, ()>,
    waker: Waker,
}

struct TaskWaker {
    id: u64,
    shared: Weak<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().make_ready(self.id);
        }
    }
}

impl Shared {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            now: Instant::from_nanos(0),
            network: Network::default(),
            trace: Trace::default(),
            chooser: Chooser::new(seed, Schedule::Random),
            coverage: Coverage::default(),
            injector: Injector::new(seed),
            server_faults: Vec::new(),
            skews: BTreeMap::new(),
            spurious: 0,
            step_budget: STEP_BUDGET,
            steps: 0,
            pipes: 0,
            servers: 0,
            tolerate_panics: false,
            panics: Vec::new(),
            random: Stream::new(seed, "runtime", 0),
            wakes: Stream::new(seed, "wakes", 0),
            tasks: BTreeMap::new(),
            next_task: MAIN + 1,
            ready: VecDeque::new(),
            main_queued: None,
            main_woken_by: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            running: false,
            closed: false,
        };
        Arc::new(Self {
            seed,
            state: Mutex::new(state),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug here; the state is still whole enough to report the first one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Instant {
        self.lock().now
    }

    pub(crate) fn record(&self, event: Event, words: &[u64]) {
        self.lock().record(event, words);
    }

    pub(crate) fn random(&self) -> u64 {
        let mut state = self.lock();
        let number = state.random.draw();
        state.record(Event::Random, &[]);
        number
    }

    /// Calls met faults of these kinds.
    pub(crate) fn felt<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return;
        }
        let mut state = self.lock();
        for name in names {
            state.felt(name.as_ref());
        }
    }

    pub(crate) fn sometimes(&self, name: &str, condition: bool) {
        let mut state = self.lock();
        match condition {
            true => state.coverage.hit(name),
            false => state.coverage.declare(name),
        }
    }

    pub(crate) fn spawn(self: &Arc<Self>, future: BoxFuture<'static, ()>, origin: Origin) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return;
        }
        let id = state.next_task;
        state.next_task += 1;
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            shared: Arc::downgrade(self),
        }));
        state.tasks.insert(
            id,
            Task {
                future: Some(future),
                origin,
                queued: false,
                woken_by: 0,
                waker,
            },
        );
        state.make_ready(id);
    }

    /// Registers `waker` for `at`; replaces the waker of `old` when it is given.
    pub(crate) fn set_timer(&self, at: Instant, old: Option<TimerKey>, origin: Origin, waker: Waker) -> TimerKey {
        let mut state = self.lock();
        let key = old.unwrap_or_else(|| state.timer_key(at));
        let set_by = state.trace.last();
        let timer = Timer { origin, set_by, waker };
        let replaced = state.timers.insert(key, timer);
        drop(state);
        drop(replaced);
        key
    }

    pub(crate) fn clear_timer(&self, key: TimerKey) {
        let removed = self.lock().timers.remove(&key);
        drop(removed);
    }

    pub(crate) fn tasks_of(&self, origin: Origin) -> usize {
        self.lock().tasks.values().filter(|task| task.origin == origin).count()
    }

    pub(crate) fn timers_of(&self, origin: Origin) -> usize {
        self.lock()
            .timers
            .values()
            .filter(|timer| timer.origin == origin)
            .count()
    }

    /// Runs `future` to its end, together with every task, moving the clock as needed.
    pub(crate) fn block_on<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let running = self.enter(true);
        let mut future = std::pin::pin!(future);
        let waker = Waker::from(Arc::new(TaskWaker {
            id: MAIN,
            shared: Arc::downgrade(self),
        }));
        loop {
            match self.next(Instant::FAR_FUTURE) {
                Next::Main => {
                    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                        drop(running);
                        return output;
                    }
                }
                Next::Task(turn) => self.poll_task(turn),
                Next::Idle => {
                    let report = self.lock().to_string();
                    panic!(
                        "deadlock in the run with seed {}: the future is pending, nothing is ready and no timer is set ({report})",
                        self.seed
                    );
                }
            }
        }
    }

    /// Runs tasks until nothing is ready and no timer up to `horizon` is left; the clock then shows `horizon`.
    pub(crate) fn run_until(self: &Arc<Self>, horizon: Instant) {
        let _running = self.enter(false);
        while let Next::Task(turn) = self.next(horizon) {
            self.poll_task(turn);
        }
        let mut state = self.lock();
        state.now = state.now.max(horizon);
    }

    /// One poll from outside the ready queue: counts as a step.
    pub(crate) fn manual_step(&self, ordinal: u64) {
        let mut state = self.lock();
        state.record(Event::Manual, &[ordinal]);
        state.count_step();
        let exhausted = state.exhausted(self.seed);
        drop(state);
        if let Some(report) = exhausted {
            panic!("{report}");
        }
    }

    /// Drops every task in spawn order, then all that waits in the network.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        loop {
            let Some((_, task)) = self.lock().tasks.pop_first() else {
                break;
            };
            drop(task);
        }
        let mut state = self.lock();
        let leftovers = (
            mem::take(&mut state.network),
            mem::take(&mut state.timers),
            mem::take(&mut state.ready),
            mem::take(&mut state.server_faults),
        );
        drop(state);
        drop(leftovers);
    }

    fn enter(&self, main: bool) -> Running<'_> {
        let mut state = self.lock();
        let nested = mem::replace(&mut state.running, true);
        if !nested && main {
            state.main_queued = Some(false);
            state.make_ready(MAIN);
        }
        drop(state);
        assert!(
            !nested,
            "the simulator cannot be driven from inside one of its own tasks (seed {})",
            self.seed
        );
        Running { shared: self }
    }

    fn next(&self, horizon: Instant) -> Next {
        loop {
            // Faults come between two polls: nobody else has a turn between a trigger and what it triggers.
            if self.do_next_deed() {
                continue;
            }
            let mut state = self.lock();
            if let Some(id) = state.pick() {
                state.count_step();
                state.record_poll(id);
                if let Some(report) = state.exhausted(self.seed) {
                    drop(state);
                    panic!("{report}");
                }
                state.wake_for_nothing();
                match state.take(id) {
                    Some(next) => return next,
                    None => continue,
                }
            }
            let Some(due) = state.next_due(horizon) else {
                return Next::Idle;
            };
            drop(state);
            for Timer { set_by, waker, .. } in due {
                self.lock().record_timer(set_by);
                waker.wake();
            }
        }
    }

    fn poll_task(&self, turn: Turn) {
        let Turn { id, mut future, waker } = turn;
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| match future.as_mut().poll(&mut context) {
            Poll::Pending => Some(future),
            Poll::Ready(()) => {
                drop(future);
                None
            }
        }));
        let mut state = self.lock();
        if let Ok(Some(future)) = polled {
            if let Some(task) = state.tasks.get_mut(&id) {
                task.future = Some(future);
            }
            return;
        }
        let finished = state.tasks.remove(&id);
        let tolerate = state.tolerate_panics;
        if let (Err(panic), true) = (&polled, tolerate) {
            let text = panic_text(panic.as_ref());
            state.panics.push(text);
        }
        drop(state);
        drop(finished);
        if let (Err(panic), false) = (polled, tolerate) {
            resume_unwind(panic);
        }
    }
}

impl State {
    pub(crate) fn record(&mut self, event: Event, words: &[u64]) {
        self.record_text(event, words, String::new);
    }

    /// Records an event with a text for readers; the text is no part of the hash.
    pub(crate) fn record_text(&mut self, event: Event, words: &[u64], text: impl FnOnce() -> String) {
        self.trace.record(event, self.now, words, text);
    }

    fn record_poll(&mut self, id: u64) {
        let woken_by = match self.tasks.get(&id) {
            Some(task) => task.woken_by,
            None => self.main_woken_by,
        };
        self.trace.turn(Event::Poll, self.now, &[id], woken_by);
    }

    fn record_timer(&mut self, set_by: u64) {
        self.trace.turn(Event::Timer, self.now, &[], set_by);
    }

    /// A fault begins or ends.
    pub(crate) fn note_fault(&mut self, id: usize, begins: bool) {
        let text = {
            let what = &self.injector.fault(id).what;
            let verb = if begins { "begins" } else { "ends" };
            format!("{verb}: {what:?}")
        };
        self.record_text(Event::Fault, &[id as u64, u64::from(begins)], || text);
    }

    /// Somebody's call met a fault of this kind.
    pub(crate) fn felt(&mut self, name: &str) {
        self.coverage.hit(&format!("fault.{name}.noticed"));
    }

    /// Wakes some task that nobody woke, if the faults in force say so.
    fn wake_for_nothing(&mut self) {
        if self.spurious == 0 || self.wakes.at(self.steps) % 100 >= u64::from(self.spurious) {
            return;
        }
        let from = self.wakes.at(self.steps ^ u64::MAX) % self.next_task.max(1);
        let chosen = self.tasks.range(from..).next().or_else(|| self.tasks.iter().next());
        let id = chosen.map_or(MAIN, |(id, _)| *id);
        self.felt("time.spurious_wakes");
        self.make_ready(id);
    }

    fn make_ready(&mut self, id: u64) {
        let by = self.trace.last();
        let (queued, woken_by) = if id == MAIN {
            match &mut self.main_queued {
                Some(queued) => (queued, &mut self.main_woken_by),
                None => return,
            }
        } else {
            match self.tasks.get_mut(&id) {
                Some(task) => (&mut task.queued, &mut task.woken_by),
                None => return,
            }
        };
        if !mem::replace(queued, true) {
            *woken_by = by;
            self.ready.push_back(id);
        }
    }

    fn pick(&mut self) -> Option<u64> {
        if self.ready.is_empty() {
            return None;
        }
        let place = self.chooser.task(&self.ready);
        self.ready.remove(place)
    }

    fn take(&mut self, id: u64) -> Option<Next> {
        if id == MAIN {
            self.main_queued = Some(false);
            return Some(Next::Main);
        }
        let task = self.tasks.get_mut(&id)?;
        task.queued = false;
        let future = task.future.take()?;
        Some(Next::Task(Turn {
            id,
            future,
            waker: task.waker.clone(),
        }))
    }

    /// Moves the clock to what comes first, timers or faults, if that is not past `horizon`, and gives the timers due
    /// then, in the order in which they are to be woken; `None` if nothing comes.
    fn next_due(&mut self, horizon: Instant) -> Option<Vec<Timer>> {
        let timer = self.timers.keys().next().map(|&(at, _)| at);
        let fault = self.injector.next_at();
        let at = [timer, fault].into_iter().flatten().min().filter(|&at| at <= horizon)?;
        self.now = self.now.max(at);
        self.injector.due(self.now);
        let mut due = Vec::new();
        if fault == Some(at) {
            // Its faults first, at this very instant.
            return Some(due);
        }
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > at {
                break;
            }
            due.push(entry.remove());
        }
        let mut ordered = Vec::with_capacity(due.len());
        while !due.is_empty() {
            ordered.push(due.remove(self.chooser.timer(due.len())));
        }
        Some(ordered)
    }

    fn timer_key(&mut self, at: Instant) -> TimerKey {
        let id = self.next_timer;
        self.next_timer += 1;
        (at, id)
    }

    fn count_step(&mut self) {
        self.steps += 1;
    }

    fn exhausted(&self, seed: u64) -> Option<String> {
        (self.steps > self.step_budget).then(|| {
            format!(
                "livelock in the run with seed {seed}: the budget of {} polls is spent ({self})",
                self.step_budget
            )
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |origin| self.tasks.values().filter(|task| task.origin == origin).count();
        write!(
            f,
            "time {:?}, {} steps, {} tasks of the code under test, {} of the simulated world, {} timers",
            self.now,
            self.steps,
            of(Origin::Runtime),
            of(Origin::World),
            self.timers.len()
        )
    }
}

/// Marks the run as being driven, until dropped.
struct Running<'a> {
    shared: &'a Shared,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.running = false;
        state.main_queued = None;
        state.ready.retain(|&id| id != MAIN);
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| "a panic without text".to_owned())
}
