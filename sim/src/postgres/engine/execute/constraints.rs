//! Constraints: NOT NULL, CHECK, unique keys, foreign keys and their actions, now or at the end of the transaction.
//!
//! A part of execution. A plain machine. A key that another transaction has in its hands makes the statement wait for that
//! transaction.

use std::sync::Arc;

use super::rows::Locked;
use super::{Context, Row, Stop, made};
use crate::postgres::engine::ast::{Action, LockWait, RowLock};
use crate::postgres::engine::catalog::{ForeignKey, IndexDefinition, TableDefinition};
use crate::postgres::engine::functions::strings::shown;
use crate::postgres::engine::heap::Fate;
use crate::postgres::engine::locks::{Mode, Resource, TableLock};
use crate::postgres::engine::plan::Ex;
use crate::postgres::engine::session::Deferred;
use crate::postgres::engine::types::datum::Datum;
use crate::wire::Report;

/// What foreign keys and deferrable unique keys have to look at when the statement is done.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A row with these values is new.
    Made { row: u64, data: Row },
    /// A row with these values went away, or got the others.
    Lost { old: Row, new: Option<Row> },
}

impl Context<'_> {
    /// NOT NULL and CHECK.
    pub(super) fn check_row(
        &mut self,
        table: &TableDefinition,
        checks: &[(String, Ex)],
        data: &Row,
    ) -> Result<(), Stop> {
        let failing = || format!("Failing row contains ({}).", row_text(data));
        for (at, column) in table.columns.iter().enumerate() {
            if column.not_null && !column.dropped && data[at].is_null() {
                let message = format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, table.name
                );
                let report = Report::error("23502", message).detail(failing());
                return Err(report.table(&table.schema, &table.name).column(&column.name).into());
            }
        }
        for (name, condition) in checks {
            if self.value(condition, data)? == Datum::Bool(false) {
                let message = format!(
                    "new row for relation \"{}\" violates check constraint \"{name}\"",
                    table.name
                );
                let report = Report::error("23514", message).detail(failing());
                return Err(report.table(&table.schema, &table.name).constraint(name).into());
            }
        }
        Ok(())
    }

    /// The unique keys of a row that is about to be there; `row` is its number if it has one.
    pub(super) fn check_unique(
        &mut self,
        table: &Arc<TableDefinition>,
        data: &Row,
        row: Option<u64>,
    ) -> Result<(), Stop> {
        for index in table.indexes.iter().filter(|index| index.unique && !index.deferrable) {
            if self.same_key(table, index, data, row)?.is_some() {
                return Err(duplicate(table, index, data).into());
            }
        }
        Ok(())
    }

    /// Another row that has this row's key; waits for transactions that may yet give it back.
    pub(super) fn same_key(
        &mut self,
        table: &Arc<TableDefinition>,
        index: &IndexDefinition,
        data: &[Datum],
        row: Option<u64>,
    ) -> Result<Option<u64>, Stop> {
        let key = key_of(&index.columns, data);
        if key.iter().any(Datum::is_null) {
            return Ok(None);
        }
        let own = self.xid().unwrap_or(u64::MAX);
        let mut blocker = None;
        if let Some((_, heap)) = self.engine.catalog.table(table.oid) {
            let fate = |xid| self.engine.transactions.fate(xid);
            for other in heap.lookup(index.oid, &key) {
                if Some(*other) == row {
                    continue;
                }
                for version in heap.rows.get(other).into_iter().flatten() {
                    if key_of(&index.columns, &version.data) != key {
                        continue;
                    }
                    if version.made_by != own && fate(version.made_by) == Fate::InProgress {
                        blocker = Some(version.made_by);
                    } else if version.ended_by == 0 {
                        return Ok(Some(*other));
                    } else if version.ended_by != own && fate(version.ended_by) == Fate::InProgress {
                        blocker = Some(version.ended_by);
                    }
                }
            }
        }
        match blocker {
            Some(xid) => {
                let what = format!("while inserting index tuple (0,1) in relation \"{}\"", index.name);
                Err(self.wait_for_transaction(xid, what))
            }
            None => Ok(None),
        }
    }

    fn wait_for_transaction(&mut self, xid: u64, what: String) -> Stop {
        let resource = Resource::Transaction(xid);
        let holders = self.engine.locks.holders(resource);
        self.engine.wait_for(self.pid, resource, Mode::Share, holders, what)
    }

    /// Looks after foreign keys, and deferrable unique keys, when a statement's changes are done.
    pub(super) fn fire(&mut self, table: &Arc<TableDefinition>, events: Vec<Event>) -> Result<(), Stop> {
        let referencing = self.engine.catalog.referencing(table.oid);
        let deferrable = table.indexes.iter().any(|index| index.unique && index.deferrable);
        if table.foreign_keys.is_empty() && referencing.is_empty() && !deferrable {
            return Ok(());
        }
        for event in events {
            match event {
                Event::Made { row, data } => {
                    self.made_row(table, row, &data)?;
                }
                Event::Lost { old, new } => {
                    for (other, at) in &referencing {
                        self.lost_row(*other, *at, &old, new.as_ref())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn made_row(&mut self, table: &Arc<TableDefinition>, row: u64, data: &Row) -> Result<(), Stop> {
        for index in table.indexes.iter().filter(|index| index.unique && index.deferrable) {
            if self.is_deferred(&index.name, index.deferred) {
                self.defer(Deferred::Unique {
                    table: table.oid,
                    row,
                    index: index.oid,
                });
            } else if self.same_key(table, index, data, Some(row))?.is_some() {
                return Err(duplicate(table, index, data).into());
            }
        }
        for key in &table.foreign_keys {
            if key.deferrable && self.is_deferred(&key.name, key.deferred) {
                self.defer(Deferred::Reference {
                    table: table.oid,
                    row,
                    key: key.name.clone(),
                });
            } else {
                self.check_reference(table, key, data)?;
            }
        }
        Ok(())
    }

    fn is_deferred(&self, name: &str, initially: bool) -> bool {
        let transaction = self.session().transaction.as_ref();
        transaction.map_or(initially, |transaction| {
            let named = transaction.constraints.get(name).copied();
            named.or(transaction.constraints_all).unwrap_or(initially)
        })
    }

    fn defer(&mut self, check: Deferred) {
        if let Some(transaction) = self.session_mut().transaction.as_mut() {
            transaction.deferred.push(check);
        }
    }

    /// The referenced row must be there; it is locked so that it stays.
    fn check_reference(&mut self, table: &TableDefinition, key: &ForeignKey, data: &[Datum]) -> Result<(), Stop> {
        let mut values = key_of(&key.columns, data);
        if values.iter().any(Datum::is_null) {
            return Ok(());
        }
        let Some(parent) = self
            .engine
            .catalog
            .table(key.referenced)
            .map(|(parent, _)| Arc::clone(parent))
        else {
            return Ok(());
        };
        self.engine.lock_table(self.pid, parent.oid, TableLock::RowShare)?;
        // In the order of the index.
        if let Some(index) = parent.index(key.index) {
            let pairs: Vec<(usize, Datum)> = key.referenced_columns.iter().copied().zip(values).collect();
            let by_column = |at: &usize| {
                pairs
                    .iter()
                    .find(|(column, _)| column == at)
                    .map(|(_, value)| value.clone())
            };
            values = index.columns.iter().filter_map(by_column).collect();
        }
        for row in self.live_rows(parent.oid, key.index, &values) {
            match self.lock_row((parent.oid, row), RowLock::KeyShare, LockWait::Wait)? {
                Locked::Gone | Locked::Skipped => {}
                Locked::Same | Locked::Changed(_) => return Ok(()),
            }
        }
        // A row this very statement has put in.
        if !self.live_rows(parent.oid, key.index, &values).is_empty() && parent.oid == table.oid {
            return Ok(());
        }
        let message = format!(
            "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
            table.name, key.name
        );
        let names = column_names(table, &key.columns);
        let detail = format!(
            "Key ({names})=({}) is not present in table \"{}\".",
            row_text(&key_of(&key.columns, data)),
            parent.name
        );
        let report = Report::error("23503", message).detail(detail);
        Err(report.table(&table.schema, &table.name).constraint(&key.name).into())
    }

    /// Rows with a key that are there for this transaction and for those that come after it.
    fn live_rows(&self, table: u32, index: u32, key: &[Datum]) -> Vec<u64> {
        let own = self.xid().unwrap_or(u64::MAX);
        let Some((definition, heap)) = self.engine.catalog.table(table) else {
            return Vec::new();
        };
        let Some(columns) = definition.index(index).map(|index| &index.columns) else {
            return Vec::new();
        };
        let fate = |xid| self.engine.transactions.fate(xid);
        let live = |row: &u64| {
            heap.rows.get(row).into_iter().flatten().any(|version| {
                let made = version.made_by == own || matches!(fate(version.made_by), Fate::Committed(_));
                let ended = version.ended_by == own || matches!(fate(version.ended_by), Fate::Committed(_));
                made && (version.ended_by == 0 || !ended) && key_of(columns, &version.data) == key
            })
        };
        heap.lookup(index, key).iter().copied().filter(live).collect()
    }

    /// A row of a referenced table went away or changed its key: what becomes of those that refer to it.
    fn lost_row(&mut self, child: u32, at: usize, old: &Row, new: Option<&Row>) -> Result<(), Stop> {
        let Some(child) = self.engine.catalog.table(child).map(|(child, _)| Arc::clone(child)) else {
            return Ok(());
        };
        let key = child.foreign_keys[at].clone();
        let values = key_of(&key.referenced_columns, old);
        if new.is_some_and(|new| key_of(&key.referenced_columns, new) == values) || values.iter().any(Datum::is_null) {
            return Ok(());
        }
        let action = if new.is_some() { key.on_update } else { key.on_delete };
        if action == Action::Nothing && key.deferrable && self.is_deferred(&key.name, key.deferred) {
            self.defer(Deferred::Referenced {
                table: child.oid,
                key: key.name.clone(),
                values,
            });
            return Ok(());
        }
        let rows = self.referring(&child, &key, &values)?;
        match action {
            Action::Nothing | Action::Restrict => match rows.is_empty() {
                true => Ok(()),
                // Under NO ACTION another row may have taken the key over.
                false if action == Action::Nothing && self.is_replaced(&key, &values) => Ok(()),
                false => Err(self.still_referenced(&child, &key, &values).into()),
            },
            Action::Cascade | Action::SetDefault | Action::SetNull => {
                self.engine.lock_table(self.pid, child.oid, TableLock::RowExclusive)?;
                let mut events = Vec::new();
                for (row, data) in rows {
                    events.extend(self.act(&child, &key, (row, data), action, new)?);
                }
                // The next command, so that what the actions did is seen by what they cause.
                self.next_command();
                self.fire(&child, events)
            }
        }
    }

    fn next_command(&mut self) {
        self.view.command += 1;
        let command = self.view.command;
        if let Some(transaction) = self.session_mut().transaction.as_mut() {
            transaction.command = command;
        }
    }

    fn is_replaced(&self, key: &ForeignKey, values: &[Datum]) -> bool {
        !self.live_rows(key.referenced, key.index, values).is_empty()
    }

    /// The rows that refer to a key, locked.
    fn referring(
        &mut self,
        child: &Arc<TableDefinition>,
        key: &ForeignKey,
        values: &[Datum],
    ) -> Result<Vec<(u64, Row)>, Stop> {
        self.engine.lock_table(self.pid, child.oid, TableLock::RowShare)?;
        let own = self.xid().unwrap_or(u64::MAX);
        let Some((_, heap)) = self.engine.catalog.table(child.oid) else {
            return Ok(Vec::new());
        };
        let fate = |xid| self.engine.transactions.fate(xid);
        let mut found = Vec::new();
        for (row, versions) in &heap.rows {
            let newest = versions
                .iter()
                .rev()
                .find(|version| version.made_by == own || matches!(fate(version.made_by), Fate::Committed(_)));
            let Some(version) = newest else { continue };
            let ended = version.ended_by == own || matches!(fate(version.ended_by), Fate::Committed(_));
            if (version.ended_by == 0 || !ended) && key_of(&key.columns, &version.data) == values {
                found.push((*row, version.data.clone()));
            }
        }
        Ok(found)
    }

    fn act(
        &mut self,
        child: &Arc<TableDefinition>,
        key: &ForeignKey,
        (row, data): (u64, Row),
        action: Action,
        new: Option<&Row>,
    ) -> Result<Vec<Event>, Stop> {
        match self.lock_row((child.oid, row), RowLock::Update, LockWait::Wait)? {
            Locked::Gone | Locked::Skipped => return Ok(Vec::new()),
            Locked::Same | Locked::Changed(_) => {}
        }
        if action == Action::Cascade && new.is_none() {
            self.drop_row(child, row, &data)?;
            return Ok(vec![Event::Lost { old: data, new: None }]);
        }
        let mut values = data.to_vec();
        for (at, column) in key.columns.iter().enumerate() {
            values[*column] = match (action, new) {
                (Action::Cascade, Some(new)) => new[key.referenced_columns[at]].clone(),
                (Action::SetDefault, _) => self.default_of(child, *column)?,
                _ => Datum::Null,
            };
        }
        let changed = made(values);
        self.check_row(child, &[], &changed)?;
        self.check_unique(child, &changed, Some(row))?;
        self.change_row(child, row, &data, changed.clone())?;
        let mut events = vec![Event::Lost {
            old: data,
            new: Some(changed.clone()),
        }];
        if action == Action::SetDefault {
            events.push(Event::Made { row, data: changed });
        }
        Ok(events)
    }

    fn default_of(&mut self, table: &Arc<TableDefinition>, column: usize) -> Result<Datum, Stop> {
        let default = self.engine.analysed_default(self.pid, table, column)?;
        self.value(&default, &[])
    }

    fn still_referenced(&self, child: &TableDefinition, key: &ForeignKey, values: &[Datum]) -> Report {
        let parent = self
            .engine
            .catalog
            .table(key.referenced)
            .map(|(parent, _)| Arc::clone(parent));
        let (schema, name, names) = parent.map_or_else(Default::default, |parent| {
            (
                parent.schema.clone(),
                parent.name.clone(),
                column_names(&parent, &key.referenced_columns),
            )
        });
        let message = format!(
            "update or delete on table \"{name}\" violates foreign key constraint \"{}\" on table \"{}\"",
            key.name, child.name
        );
        let detail = format!(
            "Key ({names})=({}) is still referenced from table \"{}\".",
            row_text(values),
            child.name
        );
        Report::error("23503", message)
            .detail(detail)
            .table(schema, name)
            .constraint(&key.name)
    }
}

/// The constraints that wait for the end of the transaction.
pub(crate) fn check_deferred(context: &mut Context<'_>, checks: &[Deferred]) -> Result<(), Stop> {
    for check in checks {
        let (Deferred::Unique { table, .. } | Deferred::Reference { table, .. } | Deferred::Referenced { table, .. }) =
            check;
        let Some(definition) = context.engine.catalog.table(*table).map(|(table, _)| Arc::clone(table)) else {
            continue;
        };
        match check {
            Deferred::Unique { row, index, .. } => {
                let data = context.present(*table, *row);
                if let (Some(data), Some(index)) = (data, definition.index(*index))
                    && context.same_key(&definition, index, &data, Some(*row))?.is_some()
                {
                    return Err(duplicate(&definition, index, &data).into());
                }
            }
            Deferred::Reference { row, key, .. } => {
                let key = definition.foreign_keys.iter().find(|found| found.name == *key).cloned();
                if let (Some(data), Some(key)) = (context.present(*table, *row), key) {
                    context.check_reference(&definition, &key, &data)?;
                }
            }
            Deferred::Referenced { key, values, .. } => {
                let Some(key) = definition.foreign_keys.iter().find(|found| found.name == *key).cloned() else {
                    continue;
                };
                let rows = context.referring(&definition, &key, values)?;
                if !rows.is_empty() && !context.is_replaced(&key, values) {
                    return Err(context.still_referenced(&definition, &key, values).into());
                }
            }
        }
    }
    Ok(())
}

impl Context<'_> {
    /// The values a row has for this transaction now, if it is there.
    fn present(&self, table: u32, row: u64) -> Option<Row> {
        let own = self.xid().unwrap_or(u64::MAX);
        let (_, heap) = self.engine.catalog.table(table)?;
        let newest = heap.rows.get(&row)?.last()?;
        (newest.made_by == own && newest.ended_by == 0).then(|| newest.data.clone())
    }
}

fn key_of(columns: &[usize], data: &[Datum]) -> Vec<Datum> {
    columns
        .iter()
        .map(|at| data.get(*at).cloned().unwrap_or(Datum::Null))
        .collect()
}

fn column_names(table: &TableDefinition, columns: &[usize]) -> String {
    let names: Vec<&str> = columns.iter().map(|at| table.columns[*at].name.as_str()).collect();
    names.join(", ")
}

/// Values as they stand in the details of errors.
fn row_text(values: &[Datum]) -> String {
    let text = |value: &Datum| {
        if value.is_null() {
            "null".to_owned()
        } else {
            shown(value)
        }
    };
    values.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The refusal of a key that is there already.
pub(super) fn duplicate(table: &TableDefinition, index: &IndexDefinition, data: &[Datum]) -> Report {
    let message = format!("duplicate key value violates unique constraint \"{}\"", index.name);
    let names = column_names(table, &index.columns);
    let detail = format!(
        "Key ({names})=({}) already exists.",
        row_text(&key_of(&index.columns, data))
    );
    Report::error("23505", message)
        .detail(detail)
        .table(&table.schema, &table.name)
        .constraint(&index.name)
}
