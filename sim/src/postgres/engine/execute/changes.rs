//! The three changes of a row, each with how it is taken back, logged, and noted for serializable transactions.
//!
//! A part of execution, under INSERT, UPDATE, DELETE, COPY and the actions of foreign keys. A plain machine.

use std::sync::Arc;

use super::{Context, Row, Stop};
use crate::postgres::engine::catalog::TableDefinition;
use crate::postgres::engine::session::Undo;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::wal::Change;

impl Context<'_> {
    /// Puts in a row whose constraints hold; its number.
    pub(super) fn put_row(&mut self, table: &Arc<TableDefinition>, data: Row) -> Result<u64, Stop> {
        let (xid, command) = (self.own(), self.view.command);
        self.note_write(table, &[&data])?;
        let Some(heap) = self.engine.catalog.heap_mut(table.oid) else {
            return Ok(0);
        };
        let row = heap.insert(xid, command, data.clone());
        let oid = table.oid;
        self.done(table, Undo::Inserted { table: oid, row }, || Change::Insert {
            table: oid,
            row,
            data,
        });
        Ok(row)
    }

    /// Gives a locked row other values.
    pub(super) fn change_row(
        &mut self,
        table: &Arc<TableDefinition>,
        row: u64,
        old: &[Datum],
        data: Row,
    ) -> Result<(), Stop> {
        let (xid, command) = (self.own(), self.view.command);
        self.note_write(table, &[old, &data])?;
        let oldest = self.engine.oldest_view();
        let engine = &mut *self.engine;
        let Some(heap) = engine.catalog.heap_mut(table.oid) else {
            return Ok(());
        };
        heap.prune(row, &engine.transactions, oldest);
        heap.end(row, xid, command);
        heap.put(row, xid, command, data.clone());
        let oid = table.oid;
        self.done(table, Undo::Updated { table: oid, row }, || Change::Update {
            table: oid,
            row,
            data,
        });
        Ok(())
    }

    /// Takes a locked row away.
    pub(super) fn drop_row(&mut self, table: &Arc<TableDefinition>, row: u64, old: &[Datum]) -> Result<(), Stop> {
        let (xid, command) = (self.own(), self.view.command);
        self.note_write(table, &[old])?;
        if let Some(heap) = self.engine.catalog.heap_mut(table.oid) {
            heap.end(row, xid, command);
        }
        let oid = table.oid;
        self.done(table, Undo::Deleted { table: oid, row }, || Change::Delete {
            table: oid,
            row,
        });
        Ok(())
    }

    fn done(&mut self, table: &TableDefinition, undo: Undo, change: impl FnOnce() -> Change) {
        if let Some(transaction) = self.session_mut().transaction.as_mut() {
            transaction.undo.push(undo);
            if table.temporary.is_none() {
                transaction.changes.push(change());
            } else {
                transaction.uses_temporary = true;
            }
        }
    }

    fn note_write(&mut self, table: &TableDefinition, rows: &[&[Datum]]) -> Result<(), Stop> {
        if !self.engine.is_serializable(self.pid) {
            return Ok(());
        }
        let mut keys = Vec::new();
        for index in &table.indexes {
            for row in rows {
                keys.push((index.oid, index.columns.iter().map(|at| row[*at].clone()).collect()));
            }
        }
        self.engine.note_write(self.pid, table.oid, keys)
    }
}
