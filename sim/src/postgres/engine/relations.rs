//! What definitions do to relations: make, drop, empty, redefine, each with how it is taken back and logged.
//!
//! Under `define`, and under the clean-up of temporary tables. A plain machine.

use std::sync::Arc;

use super::Engine;
use super::ast::ObjectKind;
use super::catalog::{ObjectBody, Sequence, TableDefinition};
use super::door::Moment;
use super::execute::Stop;
use super::heap::Heap;
use super::locks::TableLock;
use super::session::Undo;
use super::wal::Change;
use crate::wire::Report;

impl Engine {
    fn done(&mut self, pid: i32, temporary: bool, undo: Undo, change: Option<Change>) {
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            transaction.undo.push(undo);
            if temporary {
                transaction.uses_temporary = true;
            } else {
                transaction.changes.extend(change);
            }
        }
    }

    /// Puts in a new table.
    pub(super) fn make_table(&mut self, pid: i32, definition: TableDefinition) -> Result<(), Stop> {
        let xid = self.assign_xid(pid);
        let oid = definition.oid;
        let mut heap = Heap::default();
        for index in &definition.indexes {
            heap.add_index(index.oid, index.columns.clone());
        }
        let definition = Arc::new(definition);
        if definition.temporary.is_some() {
            let on_commit = definition.on_commit;
            self.session_mut(pid).temporary.push((oid, on_commit));
        }
        self.catalog.add(xid, ObjectBody::Table(Arc::clone(&definition), heap));
        let change = Change::DefineTable(Arc::clone(&definition), None);
        self.done(pid, definition.temporary.is_some(), Undo::Created(oid), Some(change));
        self.lock_table(pid, oid, TableLock::AccessExclusive)
    }

    pub(super) fn make_sequence(&mut self, pid: i32, sequence: Sequence) {
        let xid = self.assign_xid(pid);
        let (oid, temporary) = (sequence.oid, sequence.temporary.is_some());
        let change = Change::DefineSequence(Arc::new(sequence.clone()));
        self.catalog.add(xid, ObjectBody::Sequence(sequence));
        self.done(pid, temporary, Undo::Created(oid), Some(change));
    }

    /// Gives a table another definition; its lock is held.
    pub(super) fn redefine(&mut self, pid: i32, definition: TableDefinition, rewritten: bool) {
        let xid = self.assign_xid(pid);
        let Some((old, _)) = self.catalog.table(definition.oid) else {
            return;
        };
        let old = Arc::clone(old);
        let temporary = old.temporary.is_some();
        let definition = Arc::new(definition);
        self.catalog.redefine(Arc::clone(&definition), xid);
        let rows = rewritten.then(|| self.newest_rows(definition.oid));
        let change = Change::DefineTable(definition, rows);
        self.done(pid, temporary, Undo::Defined(old), Some(change));
    }

    /// The rows as they are after all changes, also those of the transaction at work.
    fn newest_rows(&self, table: u32) -> Vec<(u64, super::door::Row)> {
        let Some((_, heap)) = self.catalog.table(table) else {
            return Vec::new();
        };
        let live = heap.rows.iter().filter_map(|(row, versions)| {
            let newest = versions.last().filter(|version| version.ended_by == 0)?;
            Some((*row, newest.data.clone()))
        });
        live.collect()
    }

    /// Rewrites all rows of a table alike.
    pub(super) fn rewrite(
        &mut self,
        pid: i32,
        table: u32,
        change: impl FnMut(&[super::types::datum::Datum]) -> super::door::Row,
    ) {
        let Some(heap) = self.catalog.heap_mut(table) else {
            return;
        };
        let old = Box::new(heap.clone());
        heap.rewrite(change);
        self.done(pid, true, Undo::Replaced { table, heap: old }, None);
    }

    /// Drops a table, the sequences that go with it, and, like CASCADE, the foreign keys that refer to it.
    pub(super) fn drop_table(&mut self, pid: i32, oid: u32) -> Result<(), Stop> {
        self.lock_table(pid, oid, TableLock::AccessExclusive)?;
        let owned: Vec<u32> = self
            .catalog
            .objects()
            .filter(|(_, object)| matches!(&object.kind, ObjectBody::Sequence(sequence) if sequence.owner == Some(oid)))
            .map(|(sequence, _)| sequence)
            .collect();
        for (child, _) in self.catalog.referencing(oid) {
            if child != oid {
                self.lock_table(pid, child, TableLock::AccessExclusive)?;
                if let Some((definition, _)) = self.catalog.table(child) {
                    let mut changed = (**definition).clone();
                    changed.foreign_keys.retain(|key| key.referenced != oid);
                    self.redefine(pid, changed, false);
                }
            }
        }
        for sequence in owned {
            self.mark_dropped(pid, sequence);
        }
        self.mark_dropped(pid, oid);
        Ok(())
    }

    /// Notes that the transaction drops an object; it goes when that commits.
    pub(super) fn mark_dropped(&mut self, pid: i32, oid: u32) {
        let xid = self.assign_xid(pid);
        self.catalog.version += 1;
        let Some(object) = self.catalog.object_mut(oid) else {
            return;
        };
        object.dropped_by = xid;
        let temporary = match &object.kind {
            ObjectBody::Table(table, _) => table.temporary.is_some(),
            ObjectBody::Sequence(sequence) => sequence.temporary.is_some(),
            ObjectBody::Index(_) => false,
        };
        self.done(pid, temporary, Undo::Dropped(oid), Some(Change::DropRelation(oid)));
    }

    /// TRUNCATE; its lock is held.
    pub(super) fn empty_table(&mut self, pid: i32, oid: u32, _at: Moment) -> Result<(), Stop> {
        let temporary = self
            .catalog
            .table(oid)
            .is_some_and(|(table, _)| table.temporary.is_some());
        self.assign_xid(pid);
        if let Some(heap) = self.catalog.heap_mut(oid) {
            let empty = heap.emptied();
            let old = std::mem::replace(heap, empty);
            let undo = Undo::Replaced {
                table: oid,
                heap: Box::new(old),
            };
            self.done(pid, temporary, undo, Some(Change::Truncate(oid)));
        }
        Ok(())
    }

    /// Starts a sequence over, with the transaction.
    pub(super) fn restart_sequence(&mut self, pid: i32, oid: u32) {
        let Some(sequence) = self.catalog.sequence_mut(oid) else {
            return;
        };
        let undo = Undo::Restarted {
            sequence: oid,
            last: sequence.last,
            is_called: sequence.is_called,
        };
        sequence.last = sequence.start;
        sequence.is_called = false;
        sequence.logged = 0;
        let (temporary, change) = (
            sequence.temporary.is_some(),
            Change::DefineSequence(Arc::new(sequence.clone())),
        );
        self.done(pid, temporary, undo, Some(change));
    }

    /// DISCARD TEMP, and the end of a session.
    pub(super) fn drop_temporary(&mut self, pid: i32) {
        let tables = std::mem::take(&mut self.session_mut(pid).temporary);
        let mut gone: Vec<u32> = tables.into_iter().map(|(oid, _)| oid).collect();
        let mine = |object: &super::catalog::Object| match &object.kind {
            ObjectBody::Sequence(sequence) => sequence.temporary == Some(pid),
            ObjectBody::Table(table, _) => table.temporary == Some(pid),
            ObjectBody::Index(_) => false,
        };
        gone.extend(
            self.catalog
                .objects()
                .filter(|(_, object)| mine(object))
                .map(|(oid, _)| oid),
        );
        for oid in gone {
            self.catalog.remove(oid);
        }
    }

    /// Waits for, or refuses, a name that is taken already.
    pub(super) fn free_name(&mut self, pid: i32, schema: &str, name: &str) -> Result<bool, Stop> {
        let own = self.xid(pid).unwrap_or(u64::MAX);
        let database = self.session(pid).database.clone();
        if self
            .catalog
            .find(&database, schema, name, &self.transactions, own)
            .is_some()
        {
            return Ok(false);
        }
        if let Some(xid) = self
            .catalog
            .in_progress(&database, schema, name, &self.transactions, own)
        {
            let resource = super::locks::Resource::Transaction(xid);
            let holders = self.locks.holders(resource);
            return Err(self.wait_for(pid, resource, super::locks::Mode::Share, holders, String::new()));
        }
        Ok(true)
    }
}

/// The refusal of a name that is taken.
pub(super) fn taken(name: &str) -> Report {
    Report::error("42P07", format!("relation \"{name}\" already exists"))
}

/// The refusal of a name that is not there.
pub(super) fn missing(kind: ObjectKind, shown: &str) -> Report {
    match kind {
        ObjectKind::Schema => Report::error("3F000", format!("schema \"{shown}\" does not exist")),
        ObjectKind::Table => Report::error("42P01", format!("table \"{shown}\" does not exist")),
        ObjectKind::Sequence => Report::error("42P01", format!("sequence \"{shown}\" does not exist")),
        ObjectKind::Index => Report::error("42704", format!("index \"{shown}\" does not exist")),
    }
}
