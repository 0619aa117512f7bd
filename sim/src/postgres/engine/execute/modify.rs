//! INSERT, UPDATE and DELETE.
//!
//! A part of execution. A plain machine.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::constraints::Event;
use super::rows::Locked;
use super::{Context, Row, Stop, joined, made};
use crate::postgres::engine::ast::{LockWait, RowLock};
use crate::postgres::engine::catalog::TableDefinition;
use crate::postgres::engine::locks::TableLock;
use crate::postgres::engine::plan::{
    ConflictPlan, ConflictUpdate, Ex, InsertColumn, ModifyKind, ModifyPlan, SelectPlan, Source,
};
use crate::postgres::engine::types::datum::Datum;
use crate::wire::Report;

impl Context<'_> {
    pub(crate) fn modify(&mut self, plan: &ModifyPlan) -> Result<(usize, Vec<Row>), Stop> {
        self.outer.push(made(Vec::new()));
        self.commons.push(Vec::new());
        let changed = self.modify_inside(plan);
        self.commons.pop();
        self.outer.pop();
        changed
    }

    fn modify_inside(&mut self, plan: &ModifyPlan) -> Result<(usize, Vec<Row>), Stop> {
        self.engine.lock_table(self.pid, plan.table, TableLock::RowExclusive)?;
        self.with(&plan.with)?;
        let table = self
            .engine
            .catalog
            .table(plan.table)
            .map(|(table, _)| Arc::clone(table));
        let Some(table) = table else {
            return Ok((0, Vec::new()));
        };
        let mut events = Vec::new();
        let changed = match &plan.kind {
            ModifyKind::Insert {
                source,
                columns,
                conflict,
            } => self.insert(plan, &table, source.as_deref(), columns, conflict.as_ref(), &mut events),
            ModifyKind::Update {
                from,
                filter,
                assignments,
            } => self.update(plan, &table, (from, filter.as_ref()), assignments, &mut events),
            ModifyKind::Delete { from, filter } => self.delete(plan, &table, (from, filter.as_ref()), &mut events),
        }?;
        self.fire(&table, events)?;
        Ok(changed)
    }

    fn returned(&mut self, plan: &ModifyPlan, row: &[Datum], rows: &mut Vec<Row>) -> Result<(), Stop> {
        if !plan.returning.is_empty() {
            let values: Result<Vec<Datum>, Stop> = plan.returning.iter().map(|ex| self.value(ex, row)).collect();
            rows.push(made(values?));
        }
        Ok(())
    }

    fn insert(
        &mut self,
        plan: &ModifyPlan,
        table: &Arc<TableDefinition>,
        source: Option<&SelectPlan>,
        columns: &[InsertColumn],
        conflict: Option<&ConflictPlan>,
        events: &mut Vec<Event>,
    ) -> Result<(usize, Vec<Row>), Stop> {
        let given = match source {
            Some(source) => self.query(source, &[])?,
            None => vec![made(Vec::new())],
        };
        let (mut count, mut rows) = (0, Vec::new());
        for given in given {
            let mut values = Vec::with_capacity(columns.len());
            for column in columns {
                let (InsertColumn::Default(value) | InsertColumn::Source(value)) = column;
                values.push(self.value(value, &given)?);
            }
            let data = made(values);
            self.check_row(table, &plan.checks, &data)?;
            if let Some(conflict) = conflict
                && let Some(row) = self.conflicting(table, conflict, &data)?
            {
                if let Some(update) = &conflict.update
                    && let Some(changed) = self.resolve(plan, table, row, update, &data, events)?
                {
                    count += 1;
                    self.returned(plan, &changed, &mut rows)?;
                }
                continue;
            }
            self.check_unique(table, &data, None)?;
            let row = self.put_row(table, data.clone())?;
            events.push(Event::Made {
                row,
                data: data.clone(),
            });
            count += 1;
            self.returned(plan, &data, &mut rows)?;
        }
        Ok((count, rows))
    }

    /// A row that stands in the way of ON CONFLICT's insertion.
    fn conflicting(
        &mut self,
        table: &Arc<TableDefinition>,
        conflict: &ConflictPlan,
        data: &Row,
    ) -> Result<Option<u64>, Stop> {
        for index in table.indexes.iter().filter(|index| index.unique) {
            if (conflict.indexes.is_empty() || conflict.indexes.contains(&index.oid))
                && let Some(row) = self.same_key(table, index, data, None)?
            {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// ON CONFLICT DO UPDATE on one row; its new values, unless the condition does not hold.
    fn resolve(
        &mut self,
        plan: &ModifyPlan,
        table: &Arc<TableDefinition>,
        row: u64,
        update: &ConflictUpdate,
        excluded: &Row,
        events: &mut Vec<Event>,
    ) -> Result<Option<Row>, Stop> {
        let own = self.own();
        let newest = self
            .engine
            .catalog
            .table(table.oid)
            .and_then(|(_, heap)| heap.rows.get(&row)?.last().cloned());
        let Some(newest) = newest else { return Ok(None) };
        if newest.made_by == own && newest.made_at >= self.view.command {
            let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
            let hint =
                "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.";
            return Err(Report::error("21000", message).hint(hint).into());
        }
        let old = match self.lock_row((table.oid, row), RowLock::Update, LockWait::Wait)? {
            Locked::Same => newest.data,
            Locked::Changed(data) => data,
            Locked::Gone | Locked::Skipped => return Ok(None),
        };
        let both = joined(&old, excluded);
        if !self.holds(update.filter.as_ref(), &both)? {
            return Ok(None);
        }
        let data = self.assigned(&old, &update.assignments, &both)?;
        self.replace(plan, table, (row, old), data.clone(), events)?;
        Ok(Some(data))
    }

    fn assigned(&mut self, old: &Row, assignments: &[(usize, Ex)], row: &[Datum]) -> Result<Row, Stop> {
        let mut values = old.to_vec();
        for (at, value) in assignments {
            values[*at] = self.value(value, row)?;
        }
        Ok(made(values))
    }

    fn replace(
        &mut self,
        plan: &ModifyPlan,
        table: &Arc<TableDefinition>,
        (row, old): (u64, Row),
        data: Row,
        events: &mut Vec<Event>,
    ) -> Result<(), Stop> {
        self.check_row(table, &plan.checks, &data)?;
        self.check_unique(table, &data, Some(row))?;
        self.change_row(table, row, &old, data.clone())?;
        let changed = |columns: &[usize]| columns.iter().any(|at| old[*at] != data[*at]);
        let refers = table.foreign_keys.iter().any(|key| changed(&key.columns));
        let unique = table
            .indexes
            .iter()
            .any(|index| index.unique && changed(&index.columns));
        if refers || unique {
            events.push(Event::Made {
                row,
                data: data.clone(),
            });
        }
        if unique {
            events.push(Event::Lost { old, new: Some(data) });
        }
        Ok(())
    }

    /// The rows to change, each locked and with its values now: number, table row, row of FROM.
    fn matching(
        &mut self,
        table: &TableDefinition,
        (from, filter): (&Source, Option<&Ex>),
        strength: RowLock,
        mut each: impl FnMut(&mut Self, u64, Row, Row) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let width = table.columns.len();
        let before = std::mem::replace(&mut self.tracking, true);
        let tuples = self.source(from, &[]);
        self.tracking = before;
        let mut done = BTreeSet::new();
        for tuple in tuples? {
            if !self.holds(filter, &tuple.data)? {
                continue;
            }
            let Some((_, row)) = tuple.origins.first().copied().filter(|(oid, _)| *oid == table.oid) else {
                continue;
            };
            if done.contains(&row) {
                continue;
            }
            let (mut old, mut whole): (Row, Row) = (tuple.data[..width].into(), tuple.data);
            match self.lock_row((table.oid, row), strength, LockWait::Wait)? {
                Locked::Same => {}
                Locked::Gone | Locked::Skipped => continue,
                Locked::Changed(data) => {
                    whole = joined(&data, &whole[width..]);
                    old = data;
                    if !self.holds(filter, &whole)? {
                        continue;
                    }
                }
            }
            done.insert(row);
            each(self, row, old, whole)?;
        }
        Ok(())
    }

    fn update(
        &mut self,
        plan: &ModifyPlan,
        table: &Arc<TableDefinition>,
        from: (&Source, Option<&Ex>),
        assignments: &[(usize, Ex)],
        events: &mut Vec<Event>,
    ) -> Result<(usize, Vec<Row>), Stop> {
        let keys = assignments.iter().any(|(at, _)| table.is_key(*at));
        let strength = if keys { RowLock::Update } else { RowLock::NoKeyUpdate };
        let (mut count, mut rows) = (0, Vec::new());
        self.matching(table, from, strength, |context, row, old, whole| {
            let data = context.assigned(&old, assignments, &whole)?;
            context.replace(plan, table, (row, old), data.clone(), events)?;
            count += 1;
            context.returned(plan, &joined(&data, &whole[table.columns.len()..]), &mut rows)
        })?;
        Ok((count, rows))
    }

    fn delete(
        &mut self,
        plan: &ModifyPlan,
        table: &Arc<TableDefinition>,
        from: (&Source, Option<&Ex>),
        events: &mut Vec<Event>,
    ) -> Result<(usize, Vec<Row>), Stop> {
        let (mut count, mut rows) = (0, Vec::new());
        self.matching(table, from, RowLock::Update, |context, row, old, whole| {
            context.drop_row(table, row, &old)?;
            count += 1;
            context.returned(plan, &whole, &mut rows)?;
            events.push(Event::Lost { old, new: None });
            Ok(())
        })?;
        Ok((count, rows))
    }

    /// Puts in rows that came by COPY; each as long as the table is wide.
    pub(crate) fn copy_rows(
        &mut self,
        table: &Arc<TableDefinition>,
        checks: &[(String, Ex)],
        rows: Vec<Row>,
    ) -> Result<usize, Stop> {
        let mut events = Vec::new();
        let count = rows.len();
        for data in rows {
            self.check_row(table, checks, &data)?;
            self.check_unique(table, &data, None)?;
            let row = self.put_row(table, data.clone())?;
            events.push(Event::Made { row, data });
        }
        self.fire(table, events)?;
        Ok(count)
    }
}
