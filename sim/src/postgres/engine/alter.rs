//! ALTER TABLE, and the check of present rows against constraints that are new.
//!
//! A part of `define`. A plain machine.

use std::collections::BTreeSet;

use super::Engine;
use super::analyse::Analyser;
use super::ast::{Alteration, ColumnDefinition, ObjectName};
use super::catalog::{Default, ForeignKey, TableDefinition};
use super::door::{Moment, Row};
use super::execute::{Context, Stop, made};
use super::heap::View;
use super::locks::TableLock;
use super::parser::judge_unsupported as unsupported;
use super::relations::taken;
use super::types::datum::Datum;
use crate::wire::Report;

impl Engine {
    pub(super) fn alter_table(
        &mut self,
        pid: i32,
        name: &ObjectName,
        if_exists: bool,
        actions: &[Alteration],
        at: Moment,
    ) -> Result<(), Stop> {
        self.require_writable(pid, "ALTER TABLE")?;
        if if_exists && self.find_relation(pid, name.schema.as_deref(), &name.name).is_none() {
            let notice = Report::notice("00000", format!("relation \"{}\" does not exist, skipping", name.name));
            self.session_mut(pid).notice(notice);
            return Ok(());
        }
        let oid = self.existing_table(pid, name)?;
        self.lock_table(pid, oid, TableLock::AccessExclusive)?;
        for action in actions {
            let Some((definition, _)) = self.catalog.table(oid) else {
                return Ok(());
            };
            let changed = (**definition).clone();
            self.alter(pid, changed, action, at)?;
        }
        Ok(())
    }

    fn alter(&mut self, pid: i32, mut table: TableDefinition, action: &Alteration, at: Moment) -> Result<(), Stop> {
        let column = |table: &TableDefinition, name: &str| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
            table.column(name).ok_or_else(|| Report::error("42703", message))
        };
        match action {
            Alteration::AddColumn(definition, skip) => return self.alter_add(pid, table, definition, *skip, at),
            Alteration::AddConstraint(constraint) => {
                let before = table.clone();
                self.add_constraint(pid, &mut table, constraint)?;
                self.validate(pid, &before, &table, at)?;
            }
            Alteration::DropColumn(name, skip) => {
                if *skip && table.column(name).is_none() {
                    return Ok(());
                }
                let place = column(&table, name)?;
                table.columns[place].dropped = true;
                table.columns[place].not_null = false;
                table.columns[place].default = None;
                table.columns[place].name = format!("........pg.dropped.{}........", place + 1);
                table.indexes.retain(|index| !index.columns.contains(&place));
                table.foreign_keys.retain(|key| !key.columns.contains(&place));
            }
            Alteration::DropConstraint(name, skip) => {
                let count =
                    |table: &TableDefinition| table.indexes.len() + table.foreign_keys.len() + table.checks.len();
                let before = count(&table);
                table.indexes.retain(|index| !(index.constraint && index.name == *name));
                table.foreign_keys.retain(|key| key.name != *name);
                table.checks.retain(|check| check.name != *name);
                if count(&table) == before && !skip {
                    let message = format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name);
                    return Err(Report::error("42704", message).into());
                }
            }
            Alteration::DropDefault(name) => {
                let place = column(&table, name)?;
                table.columns[place].default = None;
            }
            Alteration::DropNotNull(name) => {
                let place = column(&table, name)?;
                table.columns[place].not_null = false;
            }
            Alteration::RenameColumn(from, to) => {
                let place = column(&table, from)?;
                if table.column(to).is_some() {
                    let message = format!("column \"{to}\" of relation \"{}\" already exists", table.name);
                    return Err(Report::error("42701", message).into());
                }
                if !table.checks.is_empty() {
                    return Err(unsupported("renaming columns of tables with CHECK constraints").into());
                }
                table.columns[place].name.clone_from(to);
            }
            Alteration::RenameTable(to) => {
                if !self.free_name(pid, &table.schema, to)? {
                    return Err(taken(to).into());
                }
                table.name.clone_from(to);
            }
            Alteration::SetDefault(name, value) => {
                let place = column(&table, name)?;
                let (of, modifier) = (table.columns[place].of, table.columns[place].modifier);
                Analyser::new(self, pid, "").fixed().constant(value, of, modifier)?;
                table.columns[place].default = Some(Default::Expression(value.clone()));
            }
            Alteration::SetNotNull(name) => {
                let before = table.clone();
                let place = column(&table, name)?;
                table.columns[place].not_null = true;
                self.validate(pid, &before, &table, at)?;
            }
        }
        self.redefine(pid, table, false);
        Ok(())
    }

    fn alter_add(
        &mut self,
        pid: i32,
        mut table: TableDefinition,
        definition: &ColumnDefinition,
        skip: bool,
        at: Moment,
    ) -> Result<(), Stop> {
        if table.column(&definition.name).is_some() {
            let message = format!(
                "column \"{}\" of relation \"{}\" already exists",
                definition.name, table.name
            );
            if skip {
                self.session_mut(pid)
                    .notice(Report::notice("42701", format!("{message}, skipping")));
                return Ok(());
            }
            return Err(Report::error("42701", message).into());
        }
        self.add_column(pid, &mut table, definition)?;
        let place = table.columns.len() - 1;
        for constraint in &definition.constraints {
            self.add_constraint(pid, &mut table, constraint)?;
        }
        let default = Analyser::new(self, pid, "").fixed().default(&table, place)?;
        let view = self.view(pid);
        let mut values = Vec::new();
        let rows = self
            .catalog
            .table(table.oid)
            .map_or(0, |(_, heap)| heap.rows.values().map(Vec::len).sum());
        for _ in 0..rows {
            values.push(Context::new(self, pid, at, &[], view).value(&default, &[])?);
        }
        if rows > 0 && table.columns[place].not_null && values.iter().any(Datum::is_null) {
            let message = format!(
                "column \"{}\" of relation \"{}\" contains null values",
                definition.name, table.name
            );
            return Err(Report::error("23502", message).into());
        }
        let mut values = values.into_iter();
        self.rewrite(pid, table.oid, |data| {
            let mut wider = data.to_vec();
            wider.push(values.next().unwrap_or(Datum::Null));
            made(wider)
        });
        self.redefine(pid, table, true);
        Ok(())
    }

    /// Checks the present rows against constraints that are new.
    fn validate(
        &mut self,
        pid: i32,
        before: &TableDefinition,
        after: &TableDefinition,
        at: Moment,
    ) -> Result<(), Stop> {
        let mut view = self.view(pid);
        view.commits = self.transactions.commits();
        let rows: Vec<Row> = self.catalog.table(after.oid).map_or_else(Vec::new, |(_, heap)| {
            let visible = heap
                .rows
                .keys()
                .filter_map(|row| heap.visible(*row, &self.transactions, view));
            visible.map(|version| version.data.clone()).collect()
        });
        for (place, column) in after.columns.iter().enumerate() {
            let new = column.not_null && !before.columns[place].not_null;
            if new && rows.iter().any(|row| row[place].is_null()) {
                let message = format!(
                    "column \"{}\" of relation \"{}\" contains null values",
                    column.name, after.name
                );
                return Err(Report::error("23502", message).into());
            }
        }
        for index in &after.indexes[before.indexes.len().min(after.indexes.len())..] {
            let names: Vec<String> = index.columns.iter().map(|at| after.columns[*at].name.clone()).collect();
            self.no_duplicates(pid, after.oid, &index.columns, &names, &index.name)?;
        }
        for check in &after.checks[before.checks.len().min(after.checks.len())..] {
            let condition = Analyser::new(self, pid, "").fixed().check(after, &check.condition)?;
            for row in &rows {
                let value = Context::new(self, pid, at, &[], view).value(&condition, row)?;
                if value == Datum::Bool(false) {
                    let message = format!(
                        "check constraint \"{}\" of relation \"{}\" is violated by some row",
                        check.name, after.name
                    );
                    return Err(Report::error("23514", message).into());
                }
            }
        }
        for key in &after.foreign_keys[before.foreign_keys.len().min(after.foreign_keys.len())..] {
            self.validate_reference(after, key, &rows, view)?;
        }
        Ok(())
    }

    fn validate_reference(
        &self,
        table: &TableDefinition,
        key: &ForeignKey,
        rows: &[Row],
        view: View,
    ) -> Result<(), Stop> {
        let Some((_, parent)) = self.catalog.table(key.referenced) else {
            return Ok(());
        };
        let visible = parent
            .rows
            .keys()
            .filter_map(|row| parent.visible(*row, &self.transactions, view));
        let of =
            |columns: &[usize], data: &[Datum]| -> Vec<Datum> { columns.iter().map(|at| data[*at].clone()).collect() };
        let known: BTreeSet<Vec<Datum>> = visible
            .map(|version| of(&key.referenced_columns, &version.data))
            .collect();
        let mut wanted = rows
            .iter()
            .map(|row| of(&key.columns, row))
            .filter(|values| !values.iter().any(Datum::is_null));
        if wanted.any(|values| !known.contains(&values)) {
            let message = format!(
                "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
                table.name, key.name
            );
            return Err(Report::error("23503", message).into());
        }
        Ok(())
    }
}
