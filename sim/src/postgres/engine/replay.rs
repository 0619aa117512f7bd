//! The log's two ends: what a primary gives out and a standby replays; crashes, base copies, changes of role.
//!
//! Called by the server's replication. A plain machine. Replay makes a commit visible at once and as a whole, as PostgreSQL does.

use std::sync::Arc;

use super::Engine;
use super::catalog::{ObjectBody, Sequence};
use super::door::{Receiver, Role, WalReceiver};
use super::heap::Heap;
use super::locks::Locks;
use super::serializable::Serializable;
use super::wal::{Change, Lsn, WalKind, WalRecord};

impl Engine {
    /// Records written since the last call.
    pub(crate) fn take_wal(&mut self) -> Vec<Arc<WalRecord>> {
        self.wal.take()
    }

    /// Where the next record begins on a primary; where replay is on a standby.
    pub(crate) fn wal_position(&self) -> Lsn {
        self.position()
    }

    /// Commits of sessions that want it wait from now on until a standby has confirmed them, or do so no more.
    pub(crate) fn set_synchronous(&mut self, synchronous: bool) {
        self.synchronous = synchronous;
    }

    pub(crate) fn set_receive_lsn(&mut self, lsn: Lsn) {
        self.recovery.received = Some(lsn);
    }

    pub(crate) fn set_replay_paused(&mut self, paused: bool) {
        self.recovery.paused = paused;
    }

    pub(crate) fn set_receivers(&mut self, receivers: Vec<Receiver>) {
        self.receivers = receivers;
    }

    pub(crate) fn set_wal_receiver(&mut self, receiver: Option<WalReceiver>) {
        self.wal_receiver = receiver;
    }

    /// Makes the node a standby, or promotes it: a promoted one writes its first record on the new timeline.
    pub(crate) fn set_role(&mut self, role: Role, wall: i64) {
        let promoted = self.role.is_standby() && !role.is_standby();
        self.role = role;
        match role {
            Role::Primary { timeline } if promoted => {
                let replayed = self.recovery.replayed.unwrap_or_default();
                self.wal.follow(replayed);
                self.wal.forget();
                self.recovery.paused = false;
                self.wal_receiver = None;
                self.wal.write(timeline, wall, WalKind::EndOfRecovery);
                for oid in self.sequences() {
                    if let Some(sequence) = self.catalog.sequence_mut(oid) {
                        sequence.logged = 0;
                    }
                }
            }
            Role::Primary { .. } => {}
            Role::Standby { .. } => {
                let end = self.wal.end();
                self.recovery.replayed.get_or_insert(end);
                self.recovery.received.get_or_insert(end);
            }
        }
        for session in self.sessions.values_mut() {
            session.unreported = true;
        }
    }

    fn sequences(&self) -> Vec<u32> {
        let sequences = self
            .catalog
            .objects()
            .filter(|(_, object)| matches!(object.kind, ObjectBody::Sequence(_)));
        sequences.map(|(oid, _)| oid).collect()
    }

    /// Replays one record. Sessions that use a table the record needs for itself are in conflict: end their statements or sessions,
    /// then call again.
    pub(crate) fn apply(&mut self, record: &Arc<WalRecord>) -> Result<(), Vec<i32>> {
        match &record.kind {
            WalKind::Checkpoint | WalKind::EndOfRecovery => {
                self.recovery.checkpoint = record.start;
                self.recovery.checkpoint_timeline = record.timeline;
            }
            WalKind::Sequence { oid, last, is_called } => {
                if let Some(sequence) = self.catalog.sequence_mut(*oid) {
                    sequence.last = *last;
                    sequence.is_called = *is_called;
                    sequence.logged = 0;
                }
            }
            WalKind::Commit { xid, changes } => {
                let mut users: Vec<i32> = Vec::new();
                for table in changes.iter().filter_map(Change::exclusive) {
                    for pid in self.locks.users_of_table(table) {
                        if !users.contains(&pid) {
                            users.push(pid);
                        }
                    }
                }
                if !users.is_empty() {
                    return Err(users);
                }
                for change in changes {
                    self.replay(*xid, change);
                }
                self.transactions.commit(*xid);
                self.recovery.last_commit = Some(record.wall);
                self.prune_replayed(changes);
            }
        }
        self.recovery.replayed = Some(record.end);
        self.recovery.received = self.recovery.received.max(Some(record.end));
        self.wal.follow(record.end);
        if let Role::Standby { timeline } = &mut self.role {
            *timeline = record.timeline;
        }
        Ok(())
    }

    fn replay(&mut self, xid: u64, change: &Change) {
        match change {
            Change::Lock(_) => {}
            Change::CreateSchema { database, name } => self.catalog.set_schema(database, name, Some((0, 0))),
            Change::DropSchema { database, name } => self.catalog.set_schema(database, name, None),
            Change::DefineSequence(sequence) => self.replay_sequence(sequence),
            Change::DefineTable(definition, rows) => {
                if self.catalog.table(definition.oid).is_some() {
                    if let Some(rows) = rows
                        && let Some(heap) = self.catalog.heap_mut(definition.oid)
                    {
                        let mut fresh = heap.emptied();
                        for (row, data) in rows {
                            fresh.put(*row, 0, 0, Arc::clone(data));
                        }
                        *heap = fresh;
                    }
                    self.catalog.redefine(Arc::clone(definition), 0);
                } else {
                    let mut heap = Heap::default();
                    for index in &definition.indexes {
                        heap.add_index(index.oid, index.columns.clone());
                    }
                    self.catalog.add(0, ObjectBody::Table(Arc::clone(definition), heap));
                }
            }
            Change::DropRelation(oid) => self.catalog.remove(*oid),
            Change::Insert { table, row, data } => {
                if let Some(heap) = self.catalog.heap_mut(*table) {
                    heap.put(*row, xid, 0, Arc::clone(data));
                }
            }
            Change::Update { table, row, data } => {
                if let Some(heap) = self.catalog.heap_mut(*table) {
                    heap.end(*row, xid, 0);
                    heap.put(*row, xid, 0, Arc::clone(data));
                }
            }
            Change::Delete { table, row } => {
                if let Some(heap) = self.catalog.heap_mut(*table) {
                    heap.end(*row, xid, 0);
                }
            }
            Change::Truncate(oid) => {
                if let Some(heap) = self.catalog.heap_mut(*oid) {
                    let empty = heap.emptied();
                    *heap = empty;
                }
            }
        }
    }

    fn replay_sequence(&mut self, sequence: &Arc<Sequence>) {
        match self.catalog.sequence_mut(sequence.oid) {
            Some(known) => *known = (**sequence).clone(),
            None => self.catalog.add(0, ObjectBody::Sequence((**sequence).clone())),
        }
    }

    fn prune_replayed(&mut self, changes: &[Change]) {
        let oldest = self.oldest_view();
        for change in changes {
            if let Change::Update { table, row, .. } | Change::Delete { table, row } = change {
                let transactions = &self.transactions;
                if let Some(heap) = self.catalog.heap_mut(*table) {
                    heap.prune(*row, transactions, oldest);
                }
            }
        }
    }

    /// The node as a base backup has it: all that is committed, no sessions, nothing in progress.
    pub(crate) fn base_copy(&self) -> Self {
        let mut copy = Self {
            catalog: self.catalog.clone(),
            events: Vec::new(),
            locks: self.locks.clone(),
            node: self.node.clone(),
            notified: 0,
            parsed: std::collections::BTreeMap::new(),
            plans: std::collections::BTreeMap::new(),
            receivers: Vec::new(),
            recovery: self.recovery,
            requests: Vec::new(),
            role: self.role,
            serializable: self.serializable.clone(),
            sessions: self.sessions.clone(),
            synchronous: false,
            transactions: self.transactions.clone(),
            drawn: self.drawn,
            unsupported: 0,
            wal: self.wal.clone(),
            wal_receiver: None,
        };
        copy.stop_all();
        copy.wal.forget();
        copy
    }

    /// All sessions are gone and what was in progress is undone; what was committed is there. `started` is when it is up again.
    pub(crate) fn crash(&mut self, started: i64) {
        self.stop_all();
        self.node.started = started;
        self.synchronous = false;
        self.requests.clear();
        // Values that were logged ahead are not given again.
        for oid in self.sequences() {
            if let Some(sequence) = self.catalog.sequence_mut(oid) {
                if sequence.logged > 0 {
                    let ahead = sequence.increment.saturating_mul(sequence.logged);
                    sequence.last = sequence.last.saturating_add(ahead).min(sequence.most);
                }
                sequence.logged = 0;
            }
        }
    }

    fn stop_all(&mut self) {
        let pids: Vec<i32> = self.sessions.keys().copied().collect();
        for pid in pids {
            self.close(pid);
        }
        self.locks = Locks::default();
        self.serializable = Serializable::default();
    }
}
