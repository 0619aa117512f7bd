//! A connection as the network's faults see it: both ends at once, by what can befall them.
//!
//! Beside the ends of a pipe. A weak one does not keep the bytes alive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use gdbpool::Instant;

use super::lane::{ArmedCut, Wire};
use super::{Conditions, Direction};

pub(crate) struct Connection {
    wire: Arc<Mutex<Wire>>,
}

#[derive(Clone)]
pub(crate) struct WeakConnection {
    wire: Weak<Mutex<Wire>>,
}

impl Connection {
    pub(super) fn new(wire: Arc<Mutex<Wire>>) -> Self {
        Self { wire }
    }

    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection {
            wire: Arc::downgrade(&self.wire),
        }
    }

    /// The connecting host and the accepting one.
    pub(crate) fn hosts(&self) -> [Arc<str>; 2] {
        self.lock().hosts.clone()
    }

    pub(crate) fn to(&self) -> Arc<str> {
        Arc::clone(&self.lock().hosts[1])
    }

    pub(crate) fn set_conditions(&self, conditions: [Conditions; 2], watched: bool, now: Instant) {
        self.change(|wire| {
            let same = wire
                .lanes
                .iter()
                .zip(&conditions)
                .all(|(lane, new)| lane.conditions == *new);
            wire.watched = watched;
            if same {
                return Vec::new();
            }
            wire.set_conditions(conditions, now);
            wire.wakers()
        });
    }

    /// Both ends get `ConnectionReset`; `by` is the coverage name of the fault.
    pub(crate) fn reset(&self, by: &'static str) {
        self.change(|wire| {
            wire.break_now();
            wire.broken_by = Some(by);
            wire.wakers()
        });
    }

    /// A lane ends as if its writer had closed it.
    pub(crate) fn finish(&self, direction: Direction, now: Instant) {
        self.change(|wire| {
            wire.broken_by = Some("network.fin");
            wire.finish(direction.lane(), now);
            wire.wakers()
        });
    }

    /// Nothing arrives any more, and `buffer` bytes are still taken.
    pub(crate) fn lose_peer(&self, buffer: usize) {
        self.change(|wire| {
            wire.half_open = Some(buffer);
            wire.wakers()
        });
    }

    pub(crate) fn arm(&self, direction: Direction, cut: ArmedCut) {
        self.change(|wire| {
            wire.lanes[direction.lane()].cuts.push(cut);
            Vec::new()
        });
    }

    /// Cuts that have not come about are called off; what one has silenced breaks for good, as when its ends find out.
    pub(crate) fn end_cuts(&self) {
        self.change(|wire| {
            let aimed = wire.broken_by == Some("network.cut");
            let mut silenced = false;
            for lane in &mut wire.lanes {
                lane.cuts.clear();
                silenced |= std::mem::take(&mut lane.silenced);
                lane.cut = lane.cut.filter(|_| !aimed);
            }
            if !silenced {
                return Vec::new();
            }
            wire.break_now();
            wire.broken_by = Some("network.cut");
            wire.wakers()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Wire) -> Vec<Waker>) {
        let mut wire = self.lock();
        let wakers = change(&mut wire);
        drop(wire);
        for waker in wakers {
            waker.wake();
        }
    }
}

impl WeakConnection {
    /// The connection, unless it is over.
    pub(crate) fn get(&self) -> Option<Connection> {
        let wire = self.wire.upgrade()?;
        let connection = Connection { wire };
        let over = connection.lock().is_over();
        (!over).then_some(connection)
    }
}
