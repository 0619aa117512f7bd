//! How faults of the network begin and end: link faults change conditions, connection faults hit connections.
//!
//! Between the deeds of faults and the pipes. Locks are taken one after another, the run's first, never both.

use crate::executor::Shared;
use crate::fault::{Connections, NetworkFault};
use crate::pipe::{ArmedCut, Connection};

impl Shared {
    /// Begins a fault; false if there is nothing that it hits yet.
    pub(crate) fn begin_network(&self, id: usize, fault: &NetworkFault, trigger: Option<u64>) -> bool {
        let Some(connections) = fault.connections() else {
            self.lock().network.links.begin(id, fault.clone());
            self.conditions_changed();
            return true;
        };
        let mut state = self.lock();
        let hit = state.network.connections.pick(connections, trigger);
        let comes = hit.is_empty() && matches!(connections, Connections::Nth { .. });
        if comes {
            state.network.to_come.push((id, fault.clone()));
        }
        drop(state);
        for connection in &hit {
            self.hit(id, fault, connection);
        }
        !hit.is_empty()
    }

    pub(crate) fn end_network(&self, id: usize, fault: &NetworkFault) {
        let mut state = self.lock();
        state.network.links.end(id);
        state.network.to_come.retain(|(of, _)| *of != id);
        let gone = state.network.half_open.remove(&id).unwrap_or_default();
        drop(state);
        for connection in gone.iter().filter_map(|connection| connection.get()) {
            connection.reset("network.half_open");
        }
        if fault.connections().is_none() {
            self.conditions_changed();
        }
    }

    /// Clogs a host, or undoes that.
    pub(crate) fn clog_host(&self, host: &str, on: bool) {
        self.lock().network.links.clog(host, on);
        self.conditions_changed();
    }

    /// A connection is established: faults that waited for it hit it.
    pub(crate) fn established(&self, ordinal: u64, connection: &Connection) {
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.network.to_come);
        if waiting.is_empty() {
            return;
        }
        let to = connection.to();
        let sight = state.network.connections.sight(ordinal, &to);
        let (hits, rest) = waiting
            .into_iter()
            .partition(|(_, fault)| fault.connections().is_some_and(|connections| sight.is(connections)));
        state.network.to_come = rest;
        let hits: Vec<(usize, NetworkFault)> = hits;
        for (id, _) in &hits {
            state.fault_applied(*id);
        }
        drop(state);
        for (id, fault) in &hits {
            self.hit(*id, fault, connection);
        }
    }

    fn hit(&self, id: usize, fault: &NetworkFault, connection: &Connection) {
        match *fault {
            NetworkFault::Cut {
                direction,
                kind,
                skip,
                at,
                then,
                ..
            } => connection.arm(direction, ArmedCut { kind, skip, at, then }),
            NetworkFault::Fin { direction, .. } => connection.finish(direction, self.now()),
            NetworkFault::HalfOpen { buffer, .. } => {
                connection.lose_peer(usize::try_from(buffer).unwrap_or(usize::MAX));
                let gone = connection.downgrade();
                self.lock().network.half_open.entry(id).or_default().push(gone);
            }
            NetworkFault::Reset { .. } => connection.reset("network.reset"),
            _ => {}
        }
    }

    /// Link faults, or watchers, have changed: every connection gets its new conditions, waiting connects look again.
    pub(crate) fn conditions_changed(&self) {
        let mut state = self.lock();
        let now = state.now;
        let watched = state.injector.watches_messages();
        let open = state.network.connections.all();
        let waiting = std::mem::take(&mut state.network.waiting);
        drop(state);
        for connection in open {
            let conditions = self.lock().network.links.conditions(&connection.hosts());
            connection.set_conditions(conditions, watched, now);
        }
        for waker in waiting {
            waker.wake();
        }
    }
}

impl NetworkFault {
    /// The connections of a fault that hits connections.
    fn connections(&self) -> Option<&Connections> {
        match self {
            Self::Cut { connections, .. }
            | Self::Fin { connections, .. }
            | Self::HalfOpen { connections, .. }
            | Self::Reset { connections } => Some(connections),
            _ => None,
        }
    }
}
