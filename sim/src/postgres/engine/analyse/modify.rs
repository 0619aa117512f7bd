//! INSERT, UPDATE and DELETE: columns, assignments, conflicts, RETURNING.
//!
//! A part of analysis. A plain machine.

use std::sync::Arc;

use super::scope::{Scope, columns_of, shifted};
use super::{Analyser, Typed, unsupported};
use crate::postgres::engine::ast::{self, Body, Expression, Node, ObjectName};
use crate::postgres::engine::catalog::{ObjectBody, TableDefinition};
use crate::postgres::engine::plan::{
    BodyPlan, CommonPlan, ConflictPlan, ConflictUpdate, Ex, InsertColumn, ModifyKind, ModifyPlan, OutputColumn,
    SelectPlan, Source,
};
use crate::postgres::engine::types::Type;
use crate::postgres::engine::views;
use crate::wire::Report;

impl Analyser<'_> {
    /// The table to be changed.
    pub(super) fn target_table(&self, name: &ObjectName) -> Result<Arc<TableDefinition>, Report> {
        if views::named(name.schema.as_deref(), &name.name).is_some() {
            let message = format!("permission denied: \"{}\" is a system catalog", name.name);
            return Err(Report::error("42501", message));
        }
        let oid = self.relation(name)?;
        match self.engine.catalog.object(oid).map(|object| &object.kind) {
            Some(ObjectBody::Table(table, _)) => Ok(Arc::clone(table)),
            Some(ObjectBody::Sequence(_)) => Err(Report::error(
                "42809",
                format!("cannot change sequence \"{}\"", name.name),
            )),
            _ => Err(Report::error("42809", format!("\"{}\" is an index", name.name))),
        }
    }

    fn no_column(&self, table: &TableDefinition, name: &str, at: usize) -> Report {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
        self.at(at, "42703", message)
    }

    fn checks(&mut self, table: &TableDefinition) -> Result<Vec<(String, Ex)>, Report> {
        let checks = table
            .checks
            .iter()
            .map(|check| Ok((check.name.clone(), self.check(table, &check.condition)?)));
        checks.collect()
    }

    pub(in crate::postgres::engine) fn table_checks(
        mut self,
        table: &TableDefinition,
    ) -> Result<Vec<(String, Ex)>, Report> {
        self.checks(table)
    }

    pub(super) fn insert(&mut self, insert: &ast::Insert) -> Result<ModifyPlan, Report> {
        self.scopes.push(Scope::clause("INSERT"));
        let plan = self.insert_inside(insert);
        self.scopes.pop();
        plan
    }

    fn insert_inside(&mut self, insert: &ast::Insert) -> Result<ModifyPlan, Report> {
        let with = self.with(&insert.with, false)?;
        let table = self.target_table(&insert.table)?;
        let mut targets = Vec::new();
        for (name, at) in &insert.columns {
            let column = table.column(name).ok_or_else(|| self.no_column(&table, name, *at))?;
            if targets.contains(&column) {
                let message = format!("column \"{name}\" specified more than once");
                return Err(self.at(*at, "42701", message));
            }
            targets.push(column);
        }
        if insert.columns.is_empty() {
            targets = (0..table.columns.len())
                .filter(|at| !table.columns[*at].dropped)
                .collect();
        }
        let (source, given) = self.insert_source(insert, &table, &targets)?;
        let mut columns = Vec::with_capacity(table.columns.len());
        for at in 0..table.columns.len() {
            let place = targets
                .iter()
                .position(|target| *target == at)
                .filter(|place| *place < given.len());
            columns.push(match place.and_then(|place| given[place].clone()) {
                Some(ex) if insert.overriding != Some(false) || table.columns[at].identity.is_none() => {
                    InsertColumn::Source(ex)
                }
                _ => InsertColumn::Default(self.default(&table, at)?),
            });
        }
        let checks = self.checks(&table)?;
        let alias = insert.alias.clone().unwrap_or_else(|| table.name.clone());
        self.scope().columns = columns_of(&table, &alias);
        let conflict = match &insert.conflict {
            Some(conflict) => Some(self.conflict(conflict, &table, &alias)?),
            None => None,
        };
        let (returning, outputs) = self.returning(&insert.returning)?;
        Ok(ModifyPlan {
            with,
            table: table.oid,
            kind: ModifyKind::Insert {
                source,
                columns,
                conflict,
            },
            returning,
            columns: outputs,
            checks,
        })
    }

    /// The rows to insert, and for each target where its value comes from; `None` is the default.
    #[expect(clippy::type_complexity, reason = "a query and its columns")]
    fn insert_source(
        &mut self,
        insert: &ast::Insert,
        table: &TableDefinition,
        targets: &[usize],
    ) -> Result<(Option<Box<SelectPlan>>, Vec<Option<Ex>>), Report> {
        let Some(query) = &insert.source else {
            return Ok((None, Vec::new()));
        };
        let plain = query.with.is_empty() && query.order.is_empty() && query.limit.is_none() && query.offset.is_none();
        if let (Body::Values(rows), true) = (&query.body, plain) {
            return self.insert_values(insert, rows, table, targets);
        }
        let wanted: Vec<Type> = targets.iter().map(|at| table.columns[*at].of).collect();
        let plan = self.query(query, Some(&wanted))?;
        self.count_columns(insert, plan.columns.len(), targets.len(), query_position(query))?;
        let mut given = Vec::with_capacity(plan.columns.len());
        for (place, output) in plan.columns.iter().enumerate() {
            let column = &table.columns[targets[place]];
            self.no_identity(insert, column)?;
            let typed = Typed {
                ex: Ex::column(place),
                of: output.of,
                modifier: output.modifier,
            };
            let at = insert.columns.get(place).map_or(0, |(_, at)| *at);
            given.push(Some(self.assign(
                typed,
                &column.name,
                (column.of, column.modifier),
                at,
            )?));
        }
        Ok((Some(Box::new(plan)), given))
    }

    #[expect(clippy::type_complexity, reason = "a query and its columns")]
    fn insert_values(
        &mut self,
        insert: &ast::Insert,
        rows: &[Vec<Expression>],
        table: &TableDefinition,
        targets: &[usize],
    ) -> Result<(Option<Box<SelectPlan>>, Vec<Option<Ex>>), Report> {
        let width = rows.first().map_or(0, Vec::len);
        let mut plan_rows = Vec::with_capacity(rows.len());
        self.scopes.push(Scope::clause("VALUES"));
        let analysed = (|| {
            for row in rows {
                let at = row.first().map_or(0, |value| value.at);
                if row.len() != width {
                    return Err(self.at(at, "42601", "VALUES lists must all be the same length"));
                }
                self.count_columns(insert, row.len(), targets.len(), at)?;
                let mut values = Vec::with_capacity(row.len());
                for (place, value) in row.iter().enumerate() {
                    let column = &table.columns[targets[place]];
                    if value.node == Node::Default {
                        values.push(self.default(table, targets[place])?);
                        continue;
                    }
                    self.no_identity(insert, column)?;
                    let typed = self.expression(value)?;
                    values.push(self.assign(typed, &column.name, (column.of, column.modifier), value.at)?);
                }
                plan_rows.push(values);
            }
            Ok(())
        })();
        self.scopes.pop();
        analysed?;
        let columns = (0..width)
            .map(|place| {
                let column = &table.columns[targets[place]];
                OutputColumn {
                    name: column.name.clone(),
                    of: column.of,
                    modifier: column.modifier,
                    origin: (0, 0),
                }
            })
            .collect();
        let plan = SelectPlan {
            with: Vec::new(),
            body: BodyPlan::Values(plan_rows),
            order: Vec::new(),
            limit: None,
            offset: None,
            columns,
            locks: Vec::new(),
        };
        Ok((
            Some(Box::new(plan)),
            (0..width).map(|place| Some(Ex::column(place))).collect(),
        ))
    }

    fn count_columns(&self, insert: &ast::Insert, given: usize, targets: usize, at: usize) -> Result<(), Report> {
        if given > targets {
            return Err(self.at(at, "42601", "INSERT has more expressions than target columns"));
        }
        if given < targets && !insert.columns.is_empty() {
            let at = insert.columns.get(given).map_or(at, |(_, at)| *at);
            return Err(self.at(at, "42601", "INSERT has more target columns than expressions"));
        }
        Ok(())
    }

    fn no_identity(
        &self,
        insert: &ast::Insert,
        column: &crate::postgres::engine::catalog::Column,
    ) -> Result<(), Report> {
        if column.identity == Some(true) && insert.overriding.is_none() {
            let name = &column.name;
            return Err(Report::error(
                "428C9",
                format!("cannot insert a non-DEFAULT value into column \"{name}\""),
            )
            .detail(format!(
                "Column \"{name}\" is an identity column defined as GENERATED ALWAYS."
            ))
            .hint("Use OVERRIDING SYSTEM VALUE to override."));
        }
        Ok(())
    }

    fn conflict(
        &mut self,
        conflict: &ast::Conflict,
        table: &TableDefinition,
        alias: &str,
    ) -> Result<ConflictPlan, Report> {
        let mut indexes = Vec::new();
        if let Some(name) = &conflict.constraint {
            let found = table
                .indexes
                .iter()
                .find(|index| index.name == *name && index.constraint);
            let found = found.ok_or_else(|| {
                let message = format!("constraint \"{name}\" for table \"{}\" does not exist", table.name);
                Report::error("42704", message)
            })?;
            indexes.push(found.oid);
        } else if !conflict.columns.is_empty() {
            let columns: Result<Vec<usize>, Report> = conflict
                .columns
                .iter()
                .map(|name| {
                    let missing = || Report::error("42703", format!("column \"{name}\" does not exist"));
                    table.column(name).ok_or_else(missing)
                })
                .collect();
            let found = table.unique_over(&columns?);
            let found = found.ok_or_else(|| {
                let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
                Report::error("42P10", message)
            })?;
            if found.deferrable {
                let message =
                    "ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters";
                return Err(Report::error("55000", message));
            }
            indexes.push(found.oid);
        } else if conflict.update.is_some() {
            return Err(Report::error(
                "42601",
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )
            .hint("For example, ON CONFLICT (column_name)."));
        }
        let update = match &conflict.update {
            None => None,
            Some((assignments, filter)) => {
                let mut columns = columns_of(table, alias);
                columns.extend(shifted(columns_of(table, "excluded"), table.columns.len()));
                // The bare names are the table's.
                for column in &mut columns {
                    column.merged = column.relation == "excluded";
                }
                let kept = std::mem::replace(&mut self.scope().columns, columns);
                let update = self.assignments(assignments, table).and_then(|assignments| {
                    let filter = self.filter(filter.as_ref())?;
                    Ok(ConflictUpdate { assignments, filter })
                });
                self.scope().columns = kept;
                Some(update?)
            }
        };
        Ok(ConflictPlan { indexes, update })
    }

    fn filter(&mut self, filter: Option<&Expression>) -> Result<Option<Ex>, Report> {
        let Some(filter) = filter else { return Ok(None) };
        self.scope().clause = "WHERE";
        let typed = self.expression(filter)?;
        self.boolean(typed, "WHERE", filter.at).map(Some)
    }

    fn assignments(
        &mut self,
        assignments: &[ast::Assignment],
        table: &TableDefinition,
    ) -> Result<Vec<(usize, Ex)>, Report> {
        self.scope().clause = "UPDATE";
        let mut found: Vec<(usize, Ex)> = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let name = &assignment.column;
            let at = table
                .column(name)
                .ok_or_else(|| self.no_column(table, name, assignment.at))?;
            if found.iter().any(|(other, _)| *other == at) {
                let message = format!("multiple assignments to same column \"{name}\"");
                return Err(self.at(assignment.at, "42601", message));
            }
            let column = &table.columns[at];
            let value = if assignment.value.node == Node::Default {
                self.default(table, at)?
            } else {
                if column.identity == Some(true) {
                    let message = format!("column \"{name}\" can only be updated to DEFAULT");
                    let detail = format!("Column \"{name}\" is an identity column defined as GENERATED ALWAYS.");
                    return Err(self.at(assignment.at, "428C9", message).detail(detail));
                }
                let typed = self.expression(&assignment.value)?;
                self.assign(typed, name, (column.of, column.modifier), assignment.value.at)?
            };
            found.push((at, value));
        }
        Ok(found)
    }

    fn returning(&mut self, targets: &[ast::Target]) -> Result<(Vec<Ex>, Vec<OutputColumn>), Report> {
        self.scope().clause = "RETURNING";
        self.targets(targets, None)
    }

    pub(super) fn update(&mut self, update: &ast::Update) -> Result<ModifyPlan, Report> {
        self.scopes.push(Scope::clause("UPDATE"));
        let plan = self.changing(
            &update.with,
            &update.table,
            update.alias.as_deref(),
            &update.from,
            |analyser, table, mut from| {
                let assignments = analyser.assignments(&update.assignments, table)?;
                let filter = analyser.filter(update.filter.as_ref())?;
                analyser.choose_lookups(&mut from, filter.as_ref());
                let (returning, columns) = analyser.returning(&update.returning)?;
                let kind = ModifyKind::Update {
                    from,
                    filter,
                    assignments,
                };
                Ok((kind, returning, columns))
            },
        );
        self.scopes.pop();
        plan
    }

    pub(super) fn delete(&mut self, delete: &ast::Delete) -> Result<ModifyPlan, Report> {
        self.scopes.push(Scope::clause("DELETE"));
        let plan = self.changing(
            &delete.with,
            &delete.table,
            delete.alias.as_deref(),
            &delete.using,
            |analyser, _, mut from| {
                let filter = analyser.filter(delete.filter.as_ref())?;
                analyser.choose_lookups(&mut from, filter.as_ref());
                let (returning, columns) = analyser.returning(&delete.returning)?;
                Ok((ModifyKind::Delete { from, filter }, returning, columns))
            },
        );
        self.scopes.pop();
        plan
    }

    /// What UPDATE and DELETE have in common: the table, and what stands after FROM or USING.
    fn changing(
        &mut self,
        with: &[ast::CommonTable],
        name: &ObjectName,
        alias: Option<&str>,
        items: &[ast::From],
        rest: impl FnOnce(&mut Self, &TableDefinition, Source) -> Result<(ModifyKind, Vec<Ex>, Vec<OutputColumn>), Report>,
    ) -> Result<ModifyPlan, Report> {
        let with: Vec<CommonPlan> = self.with(with, false)?;
        let table = self.target_table(name)?;
        let item = ast::From::Table {
            name: name.clone(),
            alias: alias.map(str::to_owned),
            columns: Vec::new(),
        };
        let all: Vec<ast::From> = std::iter::once(item).chain(items.iter().cloned()).collect();
        let hidden = self.scope().commons.iter().any(|common| common.name == name.name) && name.schema.is_none();
        if hidden {
            return Err(unsupported("WITH queries named like the table to be changed"));
        }
        let from = self.sources(&all)?;
        let (kind, returning, columns) = rest(self, &table, from)?;
        let checks = self.checks(&table)?;
        Ok(ModifyPlan {
            with,
            table: table.oid,
            kind,
            returning,
            columns,
            checks,
        })
    }
}

fn query_position(query: &ast::Query) -> usize {
    match &query.body {
        Body::Select(select) => select.targets.first().map_or(0, |target| target.value.at),
        _ => 0,
    }
}
