//! `Sim`: the handle a test holds on one run: seed, clock, tasks, network.
//!
//! The door into the executor; it holds no policy of its own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use gdbpool::{Endpoint, Instant};

use crate::coverage::Coverage;
use crate::executor::{Origin, Shared};
use crate::fault::{Fault, FaultKind, FaultReport, Micros, ServerFaults, Trigger};
use crate::manual::Manual;
use crate::network::{ConnectMode, Listener};
use crate::pipe::{self, PipeEnd, PipeOptions};
use crate::runtime::SimRuntime;
use crate::schedule::{Choices, Schedule};
use crate::trace::{TraceEvent, TraceSummary};

/// One deterministic run: everything in it follows from the seed and from what the test does.
///
/// Dropping it drops every task, in spawn order.
///
/// ```
/// use gdbpool::Runtime;
/// use gdbpool_sim::Sim;
/// use std::time::Duration;
///
/// let sim = Sim::new(1);
/// let runtime = sim.runtime();
/// sim.block_on(async {
///     runtime.sleep_until(runtime.now() + Duration::from_secs(3600)).await;
/// });
/// assert_eq!(sim.now().as_nanos(), 3_600_000_000_000);
/// ```
pub struct Sim {
    pub(crate) shared: Arc<Shared>,
}

impl Sim {
    /// A run at time zero with [`Schedule::Random`] and a budget of 10 million polls.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Shared::new(seed),
        }
    }

    /// A run with the given schedule.
    #[must_use]
    pub fn with_schedule(seed: u64, schedule: Schedule) -> Self {
        let sim = Self::new(seed);
        sim.set_schedule(schedule);
        sim
    }

    /// Another schedule from now on; the fair ones, [`Schedule::Random`] and [`Schedule::Fifo`], are for the phase in
    /// which everything must come to its end. Of no effect while choices are replayed.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.shared.lock().chooser.set_schedule(schedule);
    }

    /// The schedule in force.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.shared.lock().chooser.schedule()
    }

    /// The choices so far that were not first-in first-out.
    #[must_use]
    pub fn choices(&self) -> Choices {
        self.shared.lock().chooser.taken().clone()
    }

    /// From now on takes these choices, and the first of those ready where there is none, whatever the schedule.
    pub fn replay_choices(&self, choices: Choices) {
        self.shared.lock().chooser.replay(choices);
    }

    /// The number that fixes this run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The runtime to give to the code under test; for faults of links its host is `app`.
    #[must_use]
    pub fn runtime(&self) -> SimRuntime {
        self.runtime_of("app")
    }

    /// The runtime of a named host, for programs with links of their own.
    #[must_use]
    pub fn runtime_of(&self, host: &str) -> SimRuntime {
        SimRuntime::new(Arc::clone(&self.shared), host.into())
    }

    /// Runs `future` to its end together with all tasks; the clock jumps whenever nothing is ready.
    ///
    /// # Panics
    /// On a deadlock (nothing ready, no timer, `future` pending), on a spent step budget, and when a task panics (see
    /// [`Sim::tolerate_panics`]); the first two name the seed. Also when called from inside a task.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.shared.block_on(future)
    }

    /// Runs everything that is ready, without moving the clock.
    pub fn run_until_idle(&self) {
        let now = self.now();
        self.shared.run_until(now);
    }

    /// Runs everything that is due within `span`; afterwards the clock has moved by exactly `span`.
    pub fn advance(&self, span: Duration) {
        let horizon = self.now() + span;
        self.shared.run_until(horizon);
    }

    /// Starts `future` as a task of the code under test and gives a handle to its result.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> SimTask<T> {
        let (sender, result) = oneshot::channel();
        let task = async move {
            // Nobody waits for the result when the handle was dropped.
            let _ = sender.send(future.await);
        };
        self.shared.spawn(Box::pin(task), Origin::Runtime);
        SimTask { result }
    }

    /// A future that the test polls by hand, one poll at a time.
    pub fn manual<F: Future>(&self, future: F) -> Manual<F> {
        Manual::new(Arc::clone(&self.shared), future)
    }

    /// The virtual present.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.now()
    }

    /// Polls so far: of tasks, of `block_on`'s future and by hand.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.shared.lock().steps
    }

    /// Sets how many polls this run may take before it counts as a livelock. Default: 10 million.
    pub fn set_step_budget(&self, polls: u64) {
        self.shared.lock().step_budget = polls;
    }

    /// Unfinished tasks of the code under test: spawned through [`SimRuntime`] or [`Sim::spawn`], servers not counted.
    #[must_use]
    pub fn live_tasks(&self) -> usize {
        self.shared.tasks_of(Origin::Runtime)
    }

    /// Timers the code under test waits for; those of servers and pipes are not counted.
    #[must_use]
    pub fn pending_timers(&self) -> usize {
        self.shared.timers_of(Origin::Runtime)
    }

    /// The hash of all that happened so far: equal runs have equal hashes.
    #[must_use]
    pub fn trace_hash(&self) -> u128 {
        self.shared.lock().trace.hash()
    }

    /// How many events [`Sim::trace_hash`] covers.
    #[must_use]
    pub fn trace_events(&self) -> u64 {
        self.shared.lock().trace.last()
    }

    /// The hash with its steps, to find where two runs begin to differ.
    #[must_use]
    pub fn trace_summary(&self) -> TraceSummary {
        self.shared.lock().trace.summary()
    }

    /// Keeps the last `events` events from now on, for [`Sim::kept_trace`]. Default: none.
    pub fn keep_trace(&self, events: usize) {
        self.shared.lock().trace.keep_last(events);
    }

    /// Keeps the events with these numbers from now on, for [`Sim::kept_trace`].
    pub fn keep_trace_between(&self, events: Range<u64>) {
        self.shared.lock().trace.keep_between(events);
    }

    /// The events kept, in order. The way to the last one is shown by [`causes`](crate::causes).
    #[must_use]
    pub fn kept_trace(&self) -> Vec<TraceEvent> {
        self.shared.lock().trace.kept()
    }

    /// Plans faults: each begins when its trigger fires.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.shared.lock();
        for fault in faults {
            state.injector.plan(fault);
        }
        // What is due already comes before the first poll.
        let now = state.now;
        state.injector.due(now);
        drop(state);
        self.shared.conditions_changed();
    }

    /// Begins a fault now.
    pub fn inject(&self, what: FaultKind, span: Option<Micros>) {
        let trigger = Trigger::At(Micros(self.now().as_nanos() / 1_000));
        let id = self.shared.lock().injector.plan(Fault { trigger, what, span });
        self.shared.begin_fault(id, None);
        while self.shared.do_next_deed() {}
    }

    /// Ends all faults that last, and disarms all that have not begun: the network heals, servers come back.
    pub fn stop_faults(&self) {
        self.shared.stop_faults();
    }

    /// What became of all faults so far, in the order in which they were planned.
    #[must_use]
    pub fn fault_reports(&self) -> Vec<FaultReport> {
        self.shared.lock().injector.reports()
    }

    /// Adds somebody who applies faults of servers; the first who can apply a fault gets it.
    pub fn add_server_faults(&self, servers: Arc<dyn ServerFaults>) {
        self.shared.lock().server_faults.push(servers);
    }

    /// What the run has seen so far.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.shared.lock().coverage.clone()
    }

    /// Counts under `name` when the condition holds; see [`sometimes!`](crate::sometimes).
    pub fn sometimes(&self, name: &str, condition: bool) {
        self.shared.sometimes(name, condition);
    }

    /// From now on a panicking task only ends itself; its text is kept for [`Sim::task_panics`].
    pub fn tolerate_panics(&self) {
        self.shared.lock().tolerate_panics = true;
    }

    /// The texts of tolerated panics, in order.
    #[must_use]
    pub fn task_panics(&self) -> Vec<String> {
        self.shared.lock().panics.clone()
    }

    /// Two connected ends with the default capacity (64 KiB) and no latency.
    #[must_use]
    pub fn pipe(&self) -> (PipeEnd, PipeEnd) {
        self.pipe_with(PipeOptions::default())
    }

    /// Two connected ends: the first is the client's, the second the server's.
    #[must_use]
    pub fn pipe_with(&self, options: PipeOptions) -> (PipeEnd, PipeEnd) {
        pipe::pair(&self.shared, options, ["".into(), "".into()])
    }

    /// Accepts connections to a TCP address from now on.
    #[must_use]
    pub fn listen(&self, address: SocketAddr) -> Listener {
        self.listen_at(Endpoint::Tcp(address))
    }

    /// Accepts connections to any endpoint from now on.
    ///
    /// # Panics
    /// If somebody listens there already.
    #[must_use]
    pub fn listen_at(&self, endpoint: Endpoint) -> Listener {
        Listener::open(Arc::clone(&self.shared), endpoint)
    }

    /// What happens to connects to `endpoint` from now on. Default: [`ConnectMode::Accept`].
    pub fn set_connect_mode(&self, endpoint: &Endpoint, mode: ConnectMode) {
        self.shared.lock().network.set_mode(endpoint, mode);
    }

    /// Capacity, latency and chunk size of connections made from now on.
    pub fn set_pipe_options(&self, options: PipeOptions) {
        self.shared.lock().network.options = options;
    }

    /// When each connect to `endpoint` began, in order, whatever became of it.
    #[must_use]
    pub fn connect_attempts(&self, endpoint: &Endpoint) -> Vec<Instant> {
        self.shared.lock().network.attempts(endpoint)
    }

    /// Says at which host an address is, for faults of links and hosts. Default: the address itself is the host.
    pub fn place(&self, address: IpAddr, host: &str) {
        self.shared.lock().network.place(address, host);
    }

    /// Adds one address to what `host` resolves to; repeated calls add further addresses, in order.
    pub fn add_host(&self, host: &str, address: IpAddr) {
        self.shared.lock().network.add_host(host, address);
    }

    /// Takes all addresses of `host` away: it no longer resolves.
    pub fn remove_host(&self, host: &str) {
        self.shared.lock().network.remove_host(host);
    }

    /// Look-ups of `host` never complete from now on.
    pub fn hang_host(&self, host: &str) {
        self.shared.lock().network.hang_host(host);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim {{ seed: {}, {} }}", self.seed(), *self.shared.lock())
    }
}

/// The result of a task started with [`Sim::spawn`]: a future. Dropping it lets the task run on.
#[derive(Debug)]
pub struct SimTask<T> {
    result: oneshot::Receiver<T>,
}

impl<T> Future for SimTask<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.result)
            .poll(cx)
            .map(|result| result.expect("the task ended without a result"))
    }
}
