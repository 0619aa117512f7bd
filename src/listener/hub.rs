//! The hub of a pool's listener, and the list of all hubs: where subscriptions come in.
//!
//! Between the user's handle and the listener's task, which it starts with the first subscriber and which ends with the
//! last one. It decides nothing about channels.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use futures_util::task::AtomicWaker;

use super::outlet::Arrival;
use super::task;
use crate::pool::{Beside, ConnectionPool};

/// The listeners of all pools of one [`InteractionPool`](crate::InteractionPool).
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    hubs: Mutex<Vec<Arc<Hub>>>,
}

/// One pool's listener, whether or not it has anything to do.
pub(super) struct Hub {
    pub(super) beside: Beside,
    desk: Mutex<Desk>,
    /// The task.
    pub(super) waker: AtomicWaker,
    /// Notified when the task has ended.
    rested: Event,
}

#[derive(Default)]
struct Desk {
    arrivals: Vec<Arrival>,
    is_running: bool,
}

impl Listeners {
    /// The hub of this pool; made when first asked for.
    pub(super) fn of(&self, pool: &ConnectionPool) -> Arc<Hub> {
        let beside = pool.beside();
        let mut hubs = self.lock();
        hubs.retain(|hub| !hub.beside.closed.is_cancelled() || hub.is_running());
        if let Some(hub) = hubs.iter().find(|hub| hub.beside.closed.is_same(&beside.closed)) {
            return Arc::clone(hub);
        }
        let hub = Arc::new(Hub {
            beside,
            desk: Mutex::default(),
            waker: AtomicWaker::new(),
            rested: Event::new(),
        });
        hubs.push(Arc::clone(&hub));
        hub
    }

    /// Waits until the listeners of closed pools have ended their connections; they bound that themselves, by
    /// `close_timeout`.
    pub(crate) async fn rest(&self) {
        let closed: Vec<Arc<Hub>> = {
            let hubs = self.lock();
            let closed = hubs.iter().filter(|hub| hub.beside.closed.is_cancelled());
            closed.cloned().collect()
        };
        for hub in closed {
            hub.at_rest().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_running(&self) -> bool {
        self.lock().is_running
    }

    /// Hands a new subscriber to the task, which is started if there is none.
    pub(super) fn enlist(self: &Arc<Self>, arrival: Arrival) {
        let mut desk = self.lock();
        desk.arrivals.push(arrival);
        let start = !mem::replace(&mut desk.is_running, true);
        drop(desk);
        if start {
            let task = task::run(Arc::clone(self));
            self.beside.runtime.spawn(Box::pin(task));
        } else {
            self.waker.wake();
        }
    }

    pub(super) fn take_arrivals(&self) -> Vec<Arrival> {
        mem::take(&mut self.lock().arrivals)
    }

    /// The task has nothing to do: `true` when it may end.
    pub(super) fn rest(&self) -> bool {
        let mut desk = self.lock();
        if !desk.arrivals.is_empty() {
            return false;
        }
        desk.is_running = false;
        drop(desk);
        self.rested.notify(usize::MAX);
        true
    }

    /// The task was dropped by its executor.
    pub(super) fn abandoned(&self) {
        let mut desk = self.lock();
        desk.is_running = false;
        let arrivals = mem::take(&mut desk.arrivals);
        drop(desk);
        drop(arrivals);
        self.rested.notify(usize::MAX);
    }

    async fn at_rest(&self) {
        while self.is_running() {
            let rested = self.rested.listen();
            if self.is_running() {
                rested.await;
            }
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("pool", &self.beside.name)
            .field("is_running", &self.is_running())
            .finish_non_exhaustive()
    }
}
