//! Carries out what the injector says: faults begin and end, for the network, the clock, the scheduler and the servers.
//!
//! The one place where faults of all layers meet. Called between two polls, or at once for faults of the network, whose
//! trigger may be a message that must not be on its way before. No lock is held while servers are called.

use std::sync::Arc;

use super::injector::Deed;
use super::{FaultKind, ServerEvent, ServerFaults, TimeFault};
use crate::executor::Shared;
use crate::fault::injector::Sight;
use crate::pipe::{Connection, Direction};

impl Shared {
    /// Does the next thing that faults have to do; false if there is nothing.
    pub(crate) fn do_next_deed(&self) -> bool {
        let Some(deed) = self.lock().injector.take() else {
            return false;
        };
        match deed {
            Deed::Begin(id, connection) => self.begin_fault(id, connection),
            Deed::Clog(host, on) => self.clog_host(&host, on),
            Deed::End(id) => self.end_fault(id),
        }
        true
    }

    /// Something happened at a server. `connection` is the one it happened to.
    pub(crate) fn happened(&self, node: &str, event: ServerEvent, connection: Option<u64>) {
        let fired = self.lock().injector.server_event(node, event);
        self.fire(fired, connection);
    }

    /// A message is about to enter a lane.
    pub(crate) fn message_begins(&self, connection: u64, to: &str, lane: Direction, kind: Option<char>) {
        let fired = {
            let mut state = self.lock();
            let sight = state.network.connections.sight(connection, to);
            let sight = Sight { to, ..sight };
            state.injector.message(&sight, lane, kind)
        };
        self.fire(fired, Some(connection));
    }

    /// The library passed a named point.
    #[cfg_attr(
        not(gdbpool_points),
        expect(dead_code, reason = "the library has no points in this build")
    )]
    pub(crate) fn point(&self, name: &str) {
        let fired = {
            let mut state = self.lock();
            state.coverage.hit(&format!("point.{name}"));
            state.injector.point(name)
        };
        self.fire(fired, None);
    }

    /// Faults whose triggers have fired: those of the network begin now, the others after the present poll.
    fn fire(&self, fired: Vec<usize>, connection: Option<u64>) {
        for id in fired {
            let mut state = self.lock();
            if matches!(state.injector.fault(id).what, FaultKind::Network(_)) {
                drop(state);
                self.begin_fault(id, connection);
            } else {
                state.injector.queue(Deed::Begin(id, connection));
            }
        }
    }

    pub(crate) fn begin_fault(&self, id: usize, connection: Option<u64>) {
        let mut state = self.lock();
        let now = state.now;
        if !state.injector.begin(id, now) {
            return;
        }
        state.note_fault(id, true);
        let what = state.injector.fault(id).what.clone();
        drop(state);
        let applied = match &what {
            FaultKind::Network(fault) => self.begin_network(id, fault, connection),
            FaultKind::Time(fault) => self.lock().begin_time(fault),
            FaultKind::Protocol(_) | FaultKind::Replication(_) | FaultKind::Server(_) => {
                self.servers().iter().any(|servers| servers.begin(&what, connection))
            }
        };
        if applied {
            self.lock().fault_applied(id);
        }
    }

    pub(crate) fn end_fault(&self, id: usize) {
        let mut state = self.lock();
        let now = state.now;
        if !state.injector.end(id, now) {
            return;
        }
        state.note_fault(id, false);
        let what = state.injector.fault(id).what.clone();
        drop(state);
        match &what {
            FaultKind::Network(fault) => self.end_network(id, fault),
            FaultKind::Time(fault) => self.lock().end_time(fault),
            FaultKind::Protocol(_) | FaultKind::Replication(_) | FaultKind::Server(_) => {
                for servers in self.servers() {
                    servers.end(&what);
                }
            }
        }
    }

    /// Ends all faults that last; none begins any more. What has its own way to an end, such as a swizzle, takes it.
    pub(crate) fn stop_faults(&self) {
        let lasting = self.lock().injector.stop();
        for id in lasting {
            self.end_fault(id);
        }
        while self.do_next_deed() {}
        let connections = self.lock().network.connections.all();
        connections.iter().for_each(Connection::end_cuts);
    }

    fn servers(&self) -> Vec<Arc<dyn ServerFaults>> {
        self.lock().server_faults.clone()
    }
}

impl crate::executor::State {
    fn begin_time(&mut self, fault: &TimeFault) -> bool {
        match fault {
            TimeFault::Jump { by } => self.now = self.now + by.span(),
            TimeFault::Reschedule { schedule } => self.chooser.interlude(Some(*schedule)),
            TimeFault::Skew { host, micros } => {
                self.skews.insert(host.clone(), *micros);
            }
            TimeFault::SpuriousWakes { percent } => self.spurious = *percent,
        }
        // There is always a clock and a schedule; whether anybody feels it is another matter.
        true
    }

    fn end_time(&mut self, fault: &TimeFault) {
        match fault {
            TimeFault::Jump { .. } => {}
            TimeFault::Reschedule { .. } => self.chooser.interlude(None),
            TimeFault::Skew { host, .. } => {
                self.skews.remove(host);
            }
            TimeFault::SpuriousWakes { .. } => self.spurious = 0,
        }
    }

    /// A fault found something to apply itself to.
    pub(crate) fn fault_applied(&mut self, id: usize) {
        if self.injector.applied(id) {
            let name = self.injector.fault(id).what.name();
            self.coverage.hit(&format!("fault.{name}.applied"));
        }
    }
}
