//! CREATE, ALTER, DROP, TRUNCATE: definitions checked and carried out.
//!
//! Called by `control`. A plain machine.

use std::sync::Arc;

use super::Engine;
use super::analyse::{Analyser, resolve_type};
use super::ast::{self, ColumnDefinition, Constraint, ConstraintKind, CreateTable, ObjectName, OnCommit};
use super::catalog::{Check, Column, Default, ForeignKey, IndexDefinition, Sequence, TableDefinition};
use super::door::Moment;
use super::execute::Stop;
use super::locks::TableLock;
use super::parser::judge_unsupported as unsupported;
use super::relations::taken;
use super::session::Undo;
use super::types::datum::Datum;
use super::types::{INT2, INT4, INT8, Type};
use super::wal::Change;
use crate::wire::Report;

impl Engine {
    pub(super) fn create_table(&mut self, pid: i32, create: &CreateTable, at: Moment) -> Result<(), Stop> {
        if !create.temporary {
            self.require_writable(pid, "CREATE TABLE")?;
        } else if self.role.is_standby() {
            return Err(Report::error("25006", "cannot execute CREATE TABLE in a read-only transaction").into());
        }
        let schema = self.creation_schema(pid, &create.name, create.temporary)?;
        let name = &create.name.name;
        if !self.free_name(pid, &schema, name)? {
            return self.exists_already(pid, name, create.if_not_exists);
        }
        let mut table = self.blank_table(pid, &schema, name, create.on_commit);
        for definition in &create.columns {
            self.add_column(pid, &mut table, definition)?;
        }
        let inline = create.columns.iter().flat_map(|column| &column.constraints);
        for constraint in inline.chain(&create.constraints) {
            self.add_constraint(pid, &mut table, constraint)?;
        }
        let _ = at;
        self.make_table(pid, table)
    }

    pub(super) fn exists_already(&mut self, pid: i32, name: &str, skip: bool) -> Result<(), Stop> {
        let report = taken(name);
        if !skip {
            return Err(report.into());
        }
        let notice = Report::notice("42P07", format!("relation \"{name}\" already exists, skipping"));
        self.session_mut(pid).notice(notice);
        Ok(())
    }

    pub(super) fn blank_table(&mut self, pid: i32, schema: &str, name: &str, on_commit: OnCommit) -> TableDefinition {
        let session = self.session(pid);
        let temporary = (schema == session.temporary_schema()).then_some(pid);
        TableDefinition {
            database: session.database.clone(),
            owner: self.current_user(pid).to_owned(),
            oid: self.catalog.new_oid(),
            schema: schema.to_owned(),
            name: name.to_owned(),
            columns: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            checks: Vec::new(),
            temporary,
            on_commit,
        }
    }

    pub(super) fn add_column(
        &mut self,
        pid: i32,
        table: &mut TableDefinition,
        definition: &ColumnDefinition,
    ) -> Result<(), Stop> {
        let name = &definition.name;
        if table.column(name).is_some() {
            return Err(Report::error("42701", format!("column \"{name}\" specified more than once")).into());
        }
        let (of, modifier) = resolve_type(&definition.of)?;
        let serial = definition.of.name.contains("serial");
        let mut default = definition.default.clone().map(Default::Expression);
        if let Some(Default::Expression(value)) = &default {
            // Wrong defaults are refused at once.
            Analyser::new(self, pid, "").fixed().constant(value, of, modifier)?;
        }
        if serial || definition.identity.is_some() {
            if definition.identity.is_some() && ![INT2, INT4, INT8].contains(&of) {
                let message = "identity column type must be smallint, integer, or bigint";
                return Err(Report::error("22023", message).into());
            }
            default = Some(Default::Sequence(self.serial(pid, table, name, of)?));
        }
        table.columns.push(Column {
            name: name.clone(),
            of,
            modifier,
            not_null: definition.not_null || serial,
            default,
            identity: definition.identity,
            dropped: false,
        });
        Ok(())
    }

    /// The sequence behind a serial or identity column.
    fn serial(&mut self, pid: i32, table: &TableDefinition, column: &str, of: Type) -> Result<u32, Stop> {
        let name = self.unused_name(pid, &table.schema, &format!("{}_{column}_seq", table.name), &[])?;
        let most = match of {
            INT2 => i64::from(i16::MAX),
            INT4 => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        let oid = self.catalog.new_oid();
        self.make_sequence(
            pid,
            Sequence {
                oid,
                database: table.database.clone(),
                schema: table.schema.clone(),
                name,
                last: 1,
                is_called: false,
                increment: 1,
                start: 1,
                most,
                logged: 0,
                owner: Some(table.oid),
                temporary: table.temporary,
            },
        );
        Ok(oid)
    }

    /// The name, or the first of `name1`, `name2` and so on that is free.
    fn unused_name(&mut self, pid: i32, schema: &str, name: &str, also: &[String]) -> Result<String, Stop> {
        let mut candidate = name.to_owned();
        let mut number = 0;
        while also.contains(&candidate) || !self.free_name(pid, schema, &candidate)? {
            number += 1;
            candidate = format!("{name}{number}");
        }
        Ok(candidate)
    }

    pub(super) fn add_constraint(
        &mut self,
        pid: i32,
        table: &mut TableDefinition,
        constraint: &Constraint,
    ) -> Result<(), Stop> {
        match &constraint.kind {
            ConstraintKind::Check(condition, text) => {
                Analyser::new(self, pid, text).fixed().check(table, condition)?;
                let columns = columns_in(condition, table);
                let middle = if columns.len() == 1 {
                    format!("_{}", columns[0])
                } else {
                    String::new()
                };
                let name = constraint.name.clone().unwrap_or_else(|| {
                    let taken: Vec<&str> = table.checks.iter().map(|check| check.name.as_str()).collect();
                    numbered(&format!("{}{middle}_check", table.name), &taken)
                });
                table.checks.push(Check {
                    name,
                    condition: condition.clone(),
                });
            }
            ConstraintKind::Primary(columns) => self.add_index(pid, table, columns, constraint, true)?,
            ConstraintKind::Unique(columns) => self.add_index(pid, table, columns, constraint, false)?,
            ConstraintKind::ForeignKey { .. } => self.add_foreign_key(pid, table, constraint)?,
        }
        Ok(())
    }

    fn add_index(
        &mut self,
        pid: i32,
        table: &mut TableDefinition,
        columns: &[String],
        constraint: &Constraint,
        primary: bool,
    ) -> Result<(), Stop> {
        if primary && table.indexes.iter().any(|index| index.primary) {
            let message = format!("multiple primary keys for table \"{}\" are not allowed", table.name);
            return Err(Report::error("42P16", message).into());
        }
        let places = places(table, columns)?;
        if primary {
            for at in &places {
                table.columns[*at].not_null = true;
            }
        }
        let wanted = if primary {
            format!("{}_pkey", table.name)
        } else {
            format!("{}_{}_key", table.name, columns.join("_"))
        };
        let name = match &constraint.name {
            Some(name) if !self.free_name(pid, &table.schema, name)? => return Err(taken(name).into()),
            Some(name) => name.clone(),
            None => {
                let also: Vec<String> = table.indexes.iter().map(|index| index.name.clone()).collect();
                self.unused_name(pid, &table.schema, &wanted, &also)?
            }
        };
        table.indexes.push(IndexDefinition {
            oid: self.catalog.new_oid(),
            name,
            columns: places,
            unique: true,
            primary,
            constraint: true,
            deferrable: constraint.deferrable,
            deferred: constraint.deferred,
        });
        Ok(())
    }

    fn add_foreign_key(&mut self, pid: i32, table: &mut TableDefinition, constraint: &Constraint) -> Result<(), Stop> {
        let ConstraintKind::ForeignKey {
            columns,
            table: referenced,
            referenced: names,
            on_delete,
            on_update,
        } = &constraint.kind
        else {
            return Ok(());
        };
        let own = referenced.schema.is_none() && referenced.name == table.name;
        let parent = if own {
            table.clone()
        } else {
            let oid = self.existing_table(pid, referenced)?;
            self.lock_table(pid, oid, TableLock::ShareRowExclusive)?;
            self.catalog
                .table(oid)
                .map(|(parent, _)| (**parent).clone())
                .ok_or_else(|| taken(&referenced.name))?
        };
        let places_here = places(table, columns)?;
        let index = if names.is_empty() {
            parent.indexes.iter().find(|index| index.primary).ok_or_else(|| {
                let message = format!("there is no primary key for referenced table \"{}\"", parent.name);
                Report::error("42704", message)
            })?
        } else {
            parent.unique_over(&places(&parent, names)?).ok_or_else(|| {
                let message = format!(
                    "there is no unique constraint matching given keys for referenced table \"{}\"",
                    parent.name
                );
                Report::error("42830", message)
            })?
        };
        let there = if names.is_empty() {
            index.columns.clone()
        } else {
            places(&parent, names)?
        };
        if there.len() != places_here.len() {
            let message = "number of referencing and referenced columns for foreign key disagree";
            return Err(Report::error("42830", message).into());
        }
        for (a, b) in places_here.iter().zip(&there) {
            let (a, b) = (&table.columns[*a], &parent.columns[*b]);
            let alike = a.of == b.of
                || (a.of.number_rank().is_some() && b.of.number_rank().is_some())
                || (a.of.is_string() && b.of.is_string());
            if !alike {
                let name = constraint
                    .name
                    .clone()
                    .unwrap_or_else(|| format!("{}_{}_fkey", table.name, columns.join("_")));
                let detail = format!(
                    "Key columns \"{}\" and \"{}\" are of incompatible types: {} and {}.",
                    a.name,
                    b.name,
                    a.of.shown(),
                    b.of.shown()
                );
                let message = format!("foreign key constraint \"{name}\" cannot be implemented");
                return Err(Report::error("42804", message).detail(detail).into());
            }
        }
        let name = constraint.name.clone().unwrap_or_else(|| {
            let taken: Vec<&str> = table.foreign_keys.iter().map(|key| key.name.as_str()).collect();
            numbered(&format!("{}_{}_fkey", table.name, columns.join("_")), &taken)
        });
        table.foreign_keys.push(ForeignKey {
            name,
            columns: places_here,
            referenced: parent.oid,
            index: index.oid,
            referenced_columns: there,
            on_delete: *on_delete,
            on_update: *on_update,
            deferrable: constraint.deferrable,
            deferred: constraint.deferred,
        });
        Ok(())
    }

    /// A table that must be there.
    pub(super) fn existing_table(&self, pid: i32, name: &ObjectName) -> Result<u32, Report> {
        let shown = shown(name);
        let missing = || Report::error("42P01", format!("relation \"{shown}\" does not exist"));
        let oid = self
            .find_relation(pid, name.schema.as_deref(), &name.name)
            .ok_or_else(missing)?;
        match self.catalog.table(oid) {
            Some(_) => Ok(oid),
            None => Err(Report::error("42809", format!("\"{}\" is not a table", name.name))),
        }
    }

    pub(super) fn create_index(&mut self, pid: i32, create: &ast::Statement) -> Result<(), Stop> {
        let ast::Statement::CreateIndex {
            name,
            table,
            columns,
            unique,
            if_not_exists,
        } = create
        else {
            return Ok(());
        };
        self.require_writable(pid, "CREATE INDEX")?;
        let oid = self.existing_table(pid, table)?;
        self.lock_table(pid, oid, TableLock::Share)?;
        let Some((definition, _)) = self.catalog.table(oid) else {
            return Ok(());
        };
        let mut changed = (**definition).clone();
        let places = places(&changed, columns)?;
        let wanted = format!("{}_{}_idx", changed.name, columns.join("_"));
        let name = match name {
            Some(name) if !self.free_name(pid, &changed.schema, name)? => {
                return self.exists_already(pid, name, *if_not_exists);
            }
            Some(name) => name.clone(),
            None => self.unused_name(pid, &changed.schema, &wanted, &[])?,
        };
        changed.indexes.push(IndexDefinition {
            oid: self.catalog.new_oid(),
            name: name.clone(),
            columns: places.clone(),
            unique: *unique,
            primary: false,
            constraint: false,
            deferrable: false,
            deferred: false,
        });
        if *unique {
            self.no_duplicates(pid, oid, &places, columns, &name)?;
        }
        self.redefine(pid, changed, false);
        Ok(())
    }

    /// A unique index is only made over keys that are unique already.
    pub(super) fn no_duplicates(
        &mut self,
        pid: i32,
        oid: u32,
        places: &[usize],
        names: &[String],
        index: &str,
    ) -> Result<(), Stop> {
        let mut view = self.view(pid);
        view.commits = self.transactions.commits();
        let Some((_, heap)) = self.catalog.table(oid) else {
            return Ok(());
        };
        let mut seen = std::collections::BTreeSet::new();
        for row in heap.rows.keys() {
            let Some(version) = heap.visible(*row, &self.transactions, view) else {
                continue;
            };
            let key: Vec<Datum> = places.iter().map(|at| version.data[*at].clone()).collect();
            if !key.iter().any(Datum::is_null) && !seen.insert(key.clone()) {
                let shown: Vec<String> = key.iter().map(super::functions::strings::shown).collect();
                let detail = format!("Key ({})=({}) is duplicated.", names.join(", "), shown.join(", "));
                let message = format!("could not create unique index \"{index}\"");
                return Err(Report::error("23505", message).detail(detail).into());
            }
        }
        Ok(())
    }

    pub(super) fn create_sequence(&mut self, pid: i32, create: &ast::Statement) -> Result<(), Stop> {
        let ast::Statement::CreateSequence {
            name,
            temporary,
            if_not_exists,
            start,
            increment,
        } = create
        else {
            return Ok(());
        };
        if !temporary || self.role.is_standby() {
            self.require_writable(pid, "CREATE SEQUENCE")?;
        }
        let schema = self.creation_schema(pid, name, *temporary)?;
        if !self.free_name(pid, &schema, &name.name)? {
            return self.exists_already(pid, &name.name, *if_not_exists);
        }
        let increment = increment.unwrap_or(1);
        if increment <= 0 {
            return Err(unsupported("sequences that do not ascend").into());
        }
        let start = start.unwrap_or(1);
        let sequence = Sequence {
            oid: self.catalog.new_oid(),
            database: self.session(pid).database.clone(),
            schema,
            name: name.name.clone(),
            last: start,
            is_called: false,
            increment,
            start,
            most: i64::MAX,
            logged: 0,
            owner: None,
            temporary: temporary.then_some(pid),
        };
        self.make_sequence(pid, sequence);
        Ok(())
    }

    pub(super) fn create_schema(&mut self, pid: i32, name: &str, if_not_exists: bool) -> Result<(), Stop> {
        self.require_writable(pid, "CREATE SCHEMA")?;
        let database = self.session(pid).database.clone();
        let xid = self.assign_xid(pid);
        if self.catalog.has_schema(&database, name, &self.transactions, xid) {
            if !if_not_exists {
                return Err(Report::error("42P06", format!("schema \"{name}\" already exists")).into());
            }
            let notice = Report::notice("42P06", format!("schema \"{name}\" already exists, skipping"));
            self.session_mut(pid).notice(notice);
            return Ok(());
        }
        self.catalog.set_schema(&database, name, Some((xid, 0)));
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            transaction
                .undo
                .push(Undo::CreatedSchema(database.clone(), name.to_owned()));
            transaction.changes.push(Change::CreateSchema {
                database,
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    /// What a column gets by default, analysed.
    pub(super) fn analysed_default(
        &self,
        pid: i32,
        table: &Arc<TableDefinition>,
        column: usize,
    ) -> Result<super::plan::Ex, Report> {
        Analyser::new(self, pid, "").fixed().default(table, column)
    }
}

pub(super) fn shown(name: &ObjectName) -> String {
    match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    }
}

fn places(table: &TableDefinition, names: &[String]) -> Result<Vec<usize>, Report> {
    let place = |name: &String| {
        let missing = || Report::error("42703", format!("column \"{name}\" named in key does not exist"));
        table.column(name).ok_or_else(missing)
    };
    names.iter().map(place).collect()
}

/// The name, or with a number behind it if it is taken.
fn numbered(name: &str, taken: &[&str]) -> String {
    let free = |candidate: &String| !taken.contains(&candidate.as_str());
    let numbers = (1..).map(|number| format!("{name}{number}"));
    std::iter::once(name.to_owned())
        .chain(numbers)
        .find(free)
        .unwrap_or_default()
}

/// The table's columns that an expression names.
fn columns_in(condition: &ast::Expression, table: &TableDefinition) -> Vec<String> {
    let text = format!("{:?}", condition.node);
    let named = |name: &String| text.contains(&format!("Column([{name:?}])"));
    table
        .columns
        .iter()
        .map(|column| column.name.clone())
        .filter(named)
        .collect()
}
