//! Transactions: begin, savepoints, commit, rollback, and how changes are taken back.
//!
//! Under the verbs of `control` and the runner. A plain machine.

use std::sync::Arc;

use super::Engine;
use super::ast::{Isolation, OnCommit};
use super::catalog::Catalog;
use super::door::{Facts, Moment, Role, Wait};
use super::execute::{Context, Stop, check_deferred};
use super::heap::View;
use super::locks::{Mode, Resource, TableLock};
use super::serializable::Read;
use super::session::{Deferred, Kind, Mark, Transaction, Undo};
use super::types::datum::Datum;
use super::wal::{Change, Lsn, WalKind};
use crate::wire::Report;

impl Engine {
    pub(super) fn begin(&mut self, pid: i32, kind: Kind, at: Moment) {
        let hot = self.session(pid).values.hot();
        let (mut isolation, deferrable) = (hot.isolation, hot.deferrable);
        let standby = self.role.is_standby();
        let read_only = standby || hot.read_only;
        if standby && isolation == Isolation::Serializable {
            isolation = Isolation::RepeatableRead;
        }
        let session = self.session_mut(pid);
        session.facts = Facts::default();
        session.transaction = Some(Transaction {
            kind,
            failed: false,
            xid: None,
            isolation,
            read_only,
            deferrable,
            in_recovery: standby,
            snapshot: None,
            snapshot_lsn: Lsn::default(),
            command: 0,
            undo: Vec::new(),
            changes: Vec::new(),
            notifies: Vec::new(),
            channels: Vec::new(),
            deferred: Vec::new(),
            constraints_all: None,
            constraints: std::collections::BTreeMap::new(),
            savepoints: Vec::new(),
            values: session.values.clone(),
            started: at.wall,
            serializable: None,
            uses_temporary: false,
        });
    }

    /// The transaction's number, given now if it has none.
    pub(super) fn assign_xid(&mut self, pid: i32) -> u64 {
        if let Some(xid) = self.xid(pid) {
            return xid;
        }
        let xid = self.transactions.begin();
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            transaction.xid = Some(xid);
        }
        // Nobody else can have the lock of a new number.
        let _ = self.locks.acquire(pid, Resource::Transaction(xid), Mode::Exclusive);
        xid
    }

    /// Refuses to write in a transaction that may not.
    pub(super) fn require_writable(&self, pid: i32, what: &str) -> Result<(), Report> {
        let transaction = self.session(pid).transaction.as_ref();
        if transaction.is_some_and(|transaction| transaction.read_only) {
            let message = format!("cannot execute {what} in a read-only transaction");
            return Err(Report::error("25006", message));
        }
        Ok(())
    }

    /// Refuses what a standby cannot do at all.
    pub(super) fn require_primary(&self, what: &str) -> Result<(), Report> {
        match self.role {
            Role::Primary { .. } => Ok(()),
            Role::Standby { .. } => {
                let message = format!("cannot execute {what} during recovery");
                Err(Report::error("25006", message))
            }
        }
    }

    /// Notes that a session waits for a lock; the reason to stop with.
    pub(super) fn wait_for(
        &mut self,
        pid: i32,
        resource: Resource,
        mode: Mode,
        holders: Vec<i32>,
        what: String,
    ) -> Stop {
        self.locks.wait(pid, resource, mode);
        Stop::Wait(Wait::Lock { holders, what })
    }

    /// Takes a table's lock until the transaction ends.
    pub(super) fn lock_table(&mut self, pid: i32, oid: u32, mode: TableLock) -> Result<(), Stop> {
        let (resource, mode) = (Resource::Table(oid), Mode::Table(mode));
        match self.locks.acquire(pid, resource, mode) {
            Ok(()) => Ok(()),
            Err(holders) => Err(self.wait_for(pid, resource, mode, holders, String::new())),
        }
    }

    /// What a statement that begins now sees; later attempts of it see the same.
    pub(super) fn view(&mut self, pid: i32) -> View {
        let (commits, lsn) = (self.transactions.commits(), self.position());
        let session = self.session_mut(pid);
        let fixed = match session.running.as_mut() {
            Some(running) => {
                if running.commits.is_none() {
                    running.snapshot_lsn = lsn;
                }
                *running.commits.get_or_insert(commits)
            }
            None => commits,
        };
        let Some(transaction) = session.transaction.as_mut() else {
            return View {
                commits: fixed,
                own: u64::MAX,
                command: 0,
            };
        };
        let first = transaction.isolation > Isolation::ReadCommitted && transaction.snapshot.is_none();
        let serializable = first && transaction.isolation == Isolation::Serializable;
        if first {
            transaction.snapshot = Some(fixed);
            transaction.snapshot_lsn = lsn;
        }
        let view = transaction.view(fixed);
        if serializable {
            let number = self.serializable.begin(fixed);
            if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
                transaction.serializable = Some(number);
            }
        }
        view
    }

    /// The log position that a statement's reads go with.
    pub(super) fn position(&self) -> Lsn {
        match self.role {
            Role::Primary { .. } => self.wal.end(),
            Role::Standby { .. } => self.recovery.replayed.unwrap_or_default(),
        }
    }

    pub(super) fn is_serializable(&self, pid: i32) -> bool {
        let transaction = self.session(pid).transaction.as_ref();
        transaction.is_some_and(|transaction| transaction.serializable.is_some())
    }

    pub(super) fn note_read(&mut self, pid: i32, read: Read) -> Result<(), Stop> {
        let number = self
            .session(pid)
            .transaction
            .as_ref()
            .and_then(|transaction| transaction.serializable);
        match number {
            Some(number) => Ok(self.serializable.read(number, read)?),
            None => Ok(()),
        }
    }

    pub(super) fn note_write(&mut self, pid: i32, table: u32, keys: Vec<(u32, Vec<Datum>)>) -> Result<(), Stop> {
        let number = self
            .session(pid)
            .transaction
            .as_ref()
            .and_then(|transaction| transaction.serializable);
        match number {
            Some(number) => Ok(self.serializable.write(number, table, keys)?),
            None => Ok(()),
        }
    }

    /// How many commits the session with the oldest view sees: row versions that ended before are seen by nobody.
    pub(super) fn oldest_view(&self) -> u64 {
        let mut oldest = self.transactions.commits();
        for session in self.sessions.values() {
            let transaction = session
                .transaction
                .as_ref()
                .and_then(|transaction| transaction.snapshot);
            let running = session.running.as_ref().and_then(|running| running.commits);
            let cursors = session
                .portals
                .values()
                .filter_map(|portal| portal.view.map(|view| view.commits));
            oldest = transaction
                .into_iter()
                .chain(running)
                .chain(cursors)
                .fold(oldest, u64::min);
        }
        oldest
    }

    /// How much the session's transaction has done.
    pub(super) fn mark(&self, pid: i32) -> Mark {
        let locks = self.locks.mark(pid);
        match self.session(pid).transaction.as_ref() {
            None => Mark::default(),
            Some(transaction) => Mark {
                undo: transaction.undo.len(),
                changes: transaction.changes.len(),
                notifies: transaction.notifies.len(),
                channels: transaction.channels.len(),
                deferred: transaction.deferred.len(),
                locks,
            },
        }
    }

    /// Takes back what was done after the mark; locks stay.
    pub(super) fn undo_to(&mut self, pid: i32, mark: Mark) {
        let Some(transaction) = self.session_mut(pid).transaction.as_mut() else {
            return;
        };
        let undo = transaction.undo.split_off(mark.undo.min(transaction.undo.len()));
        transaction.changes.truncate(mark.changes);
        transaction.notifies.truncate(mark.notifies);
        transaction.channels.truncate(mark.channels);
        transaction.deferred.truncate(mark.deferred);
        for step in undo.into_iter().rev() {
            take_back(&mut self.catalog, step);
        }
    }

    /// An error was reported: the transaction can only be rolled back now, to a savepoint or altogether.
    pub(crate) fn fail(&mut self, pid: i32) {
        let Some(session) = self.sessions.get_mut(&pid) else {
            return;
        };
        session.running = None;
        session.copy = None;
        self.locks.stop_waiting(pid);
        let session = self.session_mut(pid);
        let Some(transaction) = session.transaction.as_mut() else {
            return;
        };
        if transaction.kind != Kind::Block {
            return self.roll_back(pid);
        }
        if transaction.failed {
            return;
        }
        transaction.failed = true;
        let (mark, values, depth) = match transaction.savepoints.last() {
            Some(savepoint) => (savepoint.mark, savepoint.values.clone(), transaction.savepoints.len()),
            None => (Mark::default(), transaction.values.clone(), 0),
        };
        session.values = values;
        session.unreported = true;
        session
            .portals
            .retain(|_, portal| (portal.hold && portal.rows.is_some()) || portal.depth < depth);
        self.undo_to(pid, mark);
        self.locks.release_after(pid, mark.locks);
        if depth == 0 {
            self.abort_number(pid);
        }
    }

    fn abort_number(&mut self, pid: i32) {
        let Some(transaction) = self.session_mut(pid).transaction.as_mut() else {
            return;
        };
        let serializable = transaction.serializable.take();
        if let Some(xid) = transaction.xid {
            self.transactions.abort(xid);
        }
        if let Some(number) = serializable {
            self.serializable.abort(number);
        }
    }

    /// Ends the transaction without a trace, but for sequences and session locks.
    pub(super) fn roll_back(&mut self, pid: i32) {
        self.undo_to(pid, Mark::default());
        self.abort_number(pid);
        self.locks.release_after(pid, 0);
        let session = self.session_mut(pid);
        let Some(transaction) = session.transaction.take() else {
            return;
        };
        session.unreported |= !session.values.is(&transaction.values);
        session.values = transaction.values;
        session.facts = Facts {
            xid: transaction.xid,
            rolled_back: true,
            ..Facts::default()
        };
        session
            .portals
            .retain(|_, portal| portal.hold && portal.rows.is_some() && portal.view.is_none());
        session.running = None;
        self.temporary_gone(pid);
    }

    /// Takes temporary tables off the session's list that a rollback has taken away.
    fn temporary_gone(&mut self, pid: i32) {
        let mut list = std::mem::take(&mut self.session_mut(pid).temporary);
        list.retain(|(oid, _)| self.catalog.object(*oid).is_some());
        self.session_mut(pid).temporary = list;
    }

    /// Commits. What must wait for a standby gives the log position to wait for, and goes on with [`Engine::finish_commit`].
    pub(super) fn commit(&mut self, pid: i32, at: Moment) -> Result<Option<Lsn>, Stop> {
        self.check_deferred(pid, at)?;
        self.hold_cursors(pid, at)?;
        self.on_commit(pid, at)?;
        let Some(transaction) = self.session_mut(pid).transaction.as_mut() else {
            return Ok(None);
        };
        let mut changes = std::mem::take(&mut transaction.changes);
        let snapshot_lsn = Some(transaction.snapshot_lsn).filter(|lsn| *lsn != Lsn::default());
        let notifies = !transaction.notifies.is_empty();
        if notifies {
            self.assign_xid(pid);
        }
        // New sequences go out as they are now, with the values that are logged ahead.
        for change in &mut changes {
            if let Change::DefineSequence(sequence) = change
                && let Some(present) = self.catalog.sequence(sequence.oid)
            {
                let mut present = present.clone();
                let ahead = present.increment.saturating_mul(present.logged);
                present.last = present.last.saturating_add(ahead).min(present.most);
                present.logged = 0;
                *sequence = Arc::new(present);
            }
        }
        let xid = self.xid(pid);
        let mut commit_lsn = None;
        if let Some(xid) = xid {
            let timeline = self.role.timeline();
            commit_lsn = Some(self.wal.write(timeline, at.wall, WalKind::Commit { xid, changes }));
        }
        self.session_mut(pid).facts = Facts {
            xid,
            commit_lsn,
            snapshot_lsn,
            rolled_back: false,
        };
        let waits = self.synchronous && !["off", "local"].contains(&self.commit_level(pid));
        match commit_lsn.filter(|_| waits) {
            Some(lsn) => Ok(Some(lsn)),
            None => {
                self.finish_commit(pid);
                Ok(None)
            }
        }
    }

    fn check_deferred(&mut self, pid: i32, at: Moment) -> Result<(), Stop> {
        let Some(transaction) = self.session_mut(pid).transaction.as_mut() else {
            return Ok(());
        };
        if transaction.deferred.is_empty() {
            return Ok(());
        }
        let checks = transaction.deferred.clone();
        self.check_now(pid, &checks, at)
    }

    /// Looks at constraints that were put off.
    pub(super) fn check_now(&mut self, pid: i32, checks: &[Deferred], at: Moment) -> Result<(), Stop> {
        let mut view = self.view(pid);
        view.commits = self.transactions.commits();
        check_deferred(&mut Context::new(self, pid, at, &[], view), checks)
    }

    fn on_commit(&mut self, pid: i32, at: Moment) -> Result<(), Stop> {
        for (oid, action) in self.session(pid).temporary.clone() {
            match action {
                OnCommit::PreserveRows => {}
                OnCommit::Drop => self.drop_table(pid, oid)?,
                OnCommit::DeleteRows => {
                    let used = self
                        .session(pid)
                        .transaction
                        .as_ref()
                        .is_some_and(|transaction| transaction.uses_temporary);
                    if used {
                        self.empty_table(pid, oid, at)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a committed transaction seen by others.
    pub(super) fn finish_commit(&mut self, pid: i32) {
        let session = self.session_mut(pid);
        let Some(transaction) = session.transaction.take() else {
            return;
        };
        session.unreported |= session.values.forget_local();
        session.portals.retain(|_, portal| portal.hold && portal.rows.is_some());
        for portal in session.portals.values_mut() {
            portal.view = None;
            portal.depth = 0;
        }
        if let Some(xid) = transaction.xid {
            self.transactions.commit(xid);
        }
        if let Some(number) = transaction.serializable {
            self.serializable.commit(number, self.transactions.commits());
        }
        self.finish_notify(pid, transaction.channels, transaction.notifies);
        self.clean(pid, &transaction.undo);
        self.locks.release_after(pid, 0);
    }

    /// Forgets for good what the committed transaction dropped, ended or replaced, if nobody sees it any more.
    fn clean(&mut self, pid: i32, undo: &[Undo]) {
        let oldest = self.oldest_view();
        for step in undo {
            match step {
                Undo::Deleted { table, row } | Undo::Updated { table, row } => {
                    let transactions = &self.transactions;
                    if let Some(heap) = self.catalog.heap_mut(*table) {
                        heap.prune(*row, transactions, oldest);
                    }
                }
                Undo::Dropped(oid) => {
                    self.catalog.remove(*oid);
                    self.session_mut(pid).temporary.retain(|(table, _)| table != oid);
                }
                Undo::DroppedSchema(database, name, _) => {
                    self.catalog.set_schema(database, name, None);
                }
                _ => {}
            }
        }
    }

    pub(super) fn write_wal(&mut self, wall: i64, kind: WalKind) -> Lsn {
        self.wal.write(self.role.timeline(), wall, kind)
    }
}

fn take_back(catalog: &mut Catalog, step: Undo) {
    match step {
        Undo::Created(oid) => catalog.remove(oid),
        Undo::CreatedSchema(database, name) => catalog.set_schema(&database, &name, None),
        Undo::Defined(definition) => catalog.redefine(definition, 0),
        Undo::Dropped(oid) => {
            catalog.version += 1;
            if let Some(object) = catalog.object_mut(oid) {
                object.dropped_by = 0;
            }
        }
        Undo::DroppedSchema(database, name, state) => catalog.set_schema(&database, &name, Some(state)),
        Undo::Deleted { table, row } => {
            if let Some(heap) = catalog.heap_mut(table) {
                heap.revive(row);
            }
        }
        Undo::Inserted { table, row } => {
            if let Some(heap) = catalog.heap_mut(table) {
                heap.unmake(row);
            }
        }
        Undo::Updated { table, row } => {
            if let Some(heap) = catalog.heap_mut(table) {
                heap.unmake(row);
                heap.revive(row);
            }
        }
        Undo::Replaced { table, heap: old } => {
            if let Some(heap) = catalog.heap_mut(table) {
                *heap = *old;
            }
        }
        Undo::Restarted {
            sequence,
            last,
            is_called,
        } => {
            if let Some(sequence) = catalog.sequence_mut(sequence) {
                sequence.last = last;
                sequence.is_called = is_called;
            }
        }
    }
}
