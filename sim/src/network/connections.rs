//! The connections of a run by number and host, as faults name them.
//!
//! A list beside the links; it keeps no connection alive.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fault::Connections;
use crate::fault::injector::Sight;
use crate::pipe::{Connection, WeakConnection};

/// All connections that were made by a connect and are not over.
#[derive(Default)]
pub(crate) struct Registry {
    open: Vec<Entry>,
    total: u64,
    totals: BTreeMap<Arc<str>, u64>,
}

struct Entry {
    ordinal: u64,
    to: Arc<str>,
    nth: u64,
    nth_to: u64,
    connection: WeakConnection,
}

impl Registry {
    /// A connection to `to` is established.
    pub(crate) fn add(&mut self, ordinal: u64, to: &Arc<str>, connection: &Connection) {
        self.open.retain(|entry| entry.connection.get().is_some());
        self.total += 1;
        let count = self.totals.entry(Arc::clone(to)).or_default();
        *count += 1;
        self.open.push(Entry {
            ordinal,
            to: Arc::clone(to),
            nth: self.total,
            nth_to: *count,
            connection: connection.downgrade(),
        });
    }

    /// How triggers see the connection of this ordinal; one that no connect made has no number.
    pub(crate) fn sight<'a>(&self, ordinal: u64, to: &'a str) -> Sight<'a> {
        let entry = self.open.iter().find(|entry| entry.ordinal == ordinal);
        let (nth, nth_to) = entry.map_or((0, 0), |entry| (entry.nth, entry.nth_to));
        Sight {
            to,
            nth,
            nth_to,
            newest: nth > 0 && nth == self.total,
            newest_to: nth_to > 0 && self.totals.get(to).is_some_and(|&count| count == nth_to),
        }
    }

    /// The open connections meant; `trigger` is the ordinal of the one that fired the trigger.
    pub(crate) fn pick(&self, connections: &Connections, trigger: Option<u64>) -> Vec<Connection> {
        let meant = self.open.iter().filter(|entry| match connections {
            Connections::Trigger => trigger == Some(entry.ordinal),
            _ => self.sight(entry.ordinal, &entry.to).is(connections),
        });
        meant.filter_map(|entry| entry.connection.get()).collect()
    }

    /// All open connections.
    pub(crate) fn all(&self) -> Vec<Connection> {
        self.open.iter().filter_map(|entry| entry.connection.get()).collect()
    }
}
