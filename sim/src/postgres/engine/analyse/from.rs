//! What stands after FROM: tables, views, functions, subqueries, joins.
//!
//! A part of analysis. A plain machine.

use std::sync::Arc;

use super::scope::{ScopeColumn, columns_of, shifted};
use super::{Analyser, Typed, unsupported};
use crate::postgres::engine::ast::{From, JoinCondition, JoinKind, ObjectName};
use crate::postgres::engine::catalog::ObjectBody;
use crate::postgres::engine::functions::{Function, Run};
use crate::postgres::engine::plan::{Comparison, Ex, OutputColumn, Source};
use crate::postgres::engine::types::{BOOL, INT8, TEXT, Type};
use crate::postgres::engine::views;
use crate::wire::Report;

impl Analyser<'_> {
    /// All items of FROM, crossed; their columns are put into the scope.
    pub(super) fn sources(&mut self, items: &[From]) -> Result<Source, Report> {
        let mut source = Source::Nothing;
        let mut columns: Vec<ScopeColumn> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let (right, right_columns) = self.source_item(item, &columns)?;
            self.no_duplicates(&columns, &right_columns)?;
            if at == 0 {
                (source, columns) = (right, right_columns);
                continue;
            }
            columns.extend(shifted(right_columns, source.width()));
            source = Source::Join {
                kind: JoinKind::Cross,
                left: Box::new(source),
                right: Box::new(right),
                condition: None,
                equal: Vec::new(),
            };
        }
        self.scope().columns = columns;
        Ok(source)
    }

    fn no_duplicates(&self, left: &[ScopeColumn], right: &[ScopeColumn]) -> Result<(), Report> {
        let twice = right
            .iter()
            .find(|column| !column.relation.is_empty() && left.iter().any(|other| other.relation == column.relation));
        match twice {
            Some(column) => {
                let message = format!("table name \"{}\" specified more than once", column.relation);
                Err(Report::error("42712", message))
            }
            None => Ok(()),
        }
    }

    /// One item; what stands before it can be seen by functions and LATERAL.
    fn source_item(&mut self, item: &From, before: &[ScopeColumn]) -> Result<(Source, Vec<ScopeColumn>), Report> {
        match item {
            From::Table { name, alias, columns } => self.table_source(name, alias.as_deref(), columns),
            From::Query { query, alias, columns } => {
                let kept = std::mem::replace(&mut self.scope().columns, before.to_vec());
                let plan = self.query(query, None);
                self.scope().columns = kept;
                let plan = plan?;
                let alias = alias.clone().unwrap_or_default();
                let mut outputs = plan.columns.clone();
                self.rename(&mut outputs, columns, &alias)?;
                let columns = named(&outputs, &alias);
                Ok((Source::Query(Arc::new(plan)), columns))
            }
            From::Function {
                call,
                alias,
                columns,
                ordinality,
                at,
            } => {
                let kept = std::mem::replace(&mut self.scope().columns, before.to_vec());
                let clause = std::mem::replace(&mut self.scope().clause, "FROM");
                let chosen = self.values(&call.arguments).and_then(|values| {
                    let special = ["coalesce", "greatest", "least", "nullif"];
                    if special.contains(&call.name.as_str()) {
                        return Err(unsupported(&format!("{} in FROM", call.name)));
                    }
                    self.chosen(&call.name, values, *at)
                });
                self.scope().columns = kept;
                self.scope().clause = clause;
                let (function, arguments, of) = chosen?;
                let alias = alias.clone();
                let mut outputs = function_columns(function, of, alias.as_deref());
                let width = outputs.len();
                if *ordinality {
                    outputs.push(output("ordinality", INT8));
                }
                let relation = alias.unwrap_or_else(|| call.name.clone());
                self.rename(&mut outputs, columns, &relation)?;
                let source = Source::Function {
                    function,
                    arguments,
                    ordinality: *ordinality,
                    width,
                };
                Ok((source, named(&outputs, &relation)))
            }
            From::Join { .. } => self.join(item, before),
        }
    }

    fn table_source(
        &mut self,
        name: &ObjectName,
        alias: Option<&str>,
        names: &[String],
    ) -> Result<(Source, Vec<ScopeColumn>), Report> {
        let relation = alias.unwrap_or(&name.name).to_owned();
        if name.schema.is_none() {
            for (level, scope) in self.scopes.iter().rev().enumerate() {
                if let Some(at) = scope.commons.iter().rposition(|common| common.name == name.name) {
                    let mut outputs = scope.commons[at].columns.clone();
                    let width = outputs.len();
                    self.rename(&mut outputs, names, &relation)?;
                    return Ok((Source::Common { level, at, width }, named(&outputs, &relation)));
                }
            }
        }
        if let Some(view) = views::named(name.schema.as_deref(), &name.name) {
            let mut outputs: Vec<OutputColumn> = view.columns.iter().map(|(name, of)| output(name, *of)).collect();
            self.rename(&mut outputs, names, &relation)?;
            return Ok((Source::View(view), named(&outputs, &relation)));
        }
        let oid = self.relation(name)?;
        match self.engine.catalog.object(oid).map(|object| &object.kind) {
            Some(ObjectBody::Table(table, _)) => {
                let mut columns = columns_of(table, &relation);
                if names.len() > columns.len() {
                    let (have, want) = (columns.len(), names.len());
                    let message =
                        format!("table \"{relation}\" has {have} columns available but {want} columns specified");
                    return Err(self.at(name.at, "42P10", message));
                }
                for (column, name) in columns.iter_mut().zip(names) {
                    column.name.clone_from(name);
                }
                let source = Source::Table {
                    oid,
                    width: table.columns.len(),
                    lookup: None,
                };
                Ok((source, columns))
            }
            Some(ObjectBody::Sequence(_)) => {
                let outputs = [
                    output("last_value", INT8),
                    output("log_cnt", INT8),
                    output("is_called", BOOL),
                ];
                Ok((Source::Sequence(oid), named(&outputs, &relation)))
            }
            _ => Err(self.at(name.at, "42809", format!("cannot open relation \"{}\"", name.name))),
        }
    }

    /// The OID of a relation that must be there.
    pub(super) fn relation(&self, name: &ObjectName) -> Result<u32, Report> {
        let found = self.engine.find_relation(self.pid, name.schema.as_deref(), &name.name);
        found.ok_or_else(|| {
            let shown = match &name.schema {
                Some(schema) => format!("{schema}.{}", name.name),
                None => name.name.clone(),
            };
            if views::is_known_elsewhere(&name.name) {
                return unsupported(&format!("the system catalog {shown}"));
            }
            self.at(name.at, "42P01", format!("relation \"{shown}\" does not exist"))
        })
    }

    fn join(&mut self, item: &From, before: &[ScopeColumn]) -> Result<(Source, Vec<ScopeColumn>), Report> {
        let From::Join {
            left,
            right,
            kind,
            condition,
        } = item
        else {
            return Err(unsupported("this join"));
        };
        let (left, left_columns) = self.source_item(left, before)?;
        let (right, right_columns) = self.source_item(right, &left_columns)?;
        self.no_duplicates(&left_columns, &right_columns)?;
        let width = left.width();
        let right_columns = shifted(right_columns, width);
        let mut columns = [left_columns.clone(), right_columns.clone()].concat();
        let condition = match condition {
            JoinCondition::None => None,
            JoinCondition::On(expression) => {
                let kept = std::mem::replace(&mut self.scope().columns, columns.clone());
                let clause = std::mem::replace(&mut self.scope().clause, "JOIN conditions");
                let typed = self.expression(expression);
                self.scope().clause = clause;
                self.scope().columns = kept;
                Some(self.boolean(typed?, "JOIN/ON", expression.at)?)
            }
            JoinCondition::Using(names) => {
                Some(self.using(names, *kind, (&left_columns, &right_columns), &mut columns)?)
            }
            JoinCondition::Natural => {
                let shared = left_columns
                    .iter()
                    .filter(|column| !column.merged && right_columns.iter().any(|other| other.name == column.name));
                let names: Vec<String> = shared.map(|column| column.name.clone()).collect();
                match names.is_empty() {
                    true => None,
                    false => Some(self.using(&names, *kind, (&left_columns, &right_columns), &mut columns)?),
                }
            }
        };
        let equal = condition
            .as_ref()
            .map_or_else(Vec::new, |condition| super::lookups::equalities(condition, width));
        let source = Source::Join {
            kind: *kind,
            left: Box::new(left),
            right: Box::new(right),
            condition,
            equal,
        };
        Ok((source, columns))
    }

    /// USING: equal columns of both sides, of which only one is seen.
    fn using(
        &mut self,
        names: &[String],
        kind: JoinKind,
        (left, right): (&[ScopeColumn], &[ScopeColumn]),
        columns: &mut [ScopeColumn],
    ) -> Result<Ex, Report> {
        if kind == JoinKind::Full {
            return Err(unsupported("FULL JOIN with USING"));
        }
        let mut parts = Vec::new();
        let mut front = Vec::new();
        for name in names {
            let find = |columns: &[ScopeColumn], side: &str| {
                let mut found = columns.iter().filter(|column| column.name == *name && !column.merged);
                let first = found.next().cloned();
                first.ok_or_else(|| {
                    let message = format!("column \"{name}\" specified in USING clause does not exist in {side} table");
                    Report::error("42703", message)
                })
            };
            let (a, b) = (find(left, "left")?, find(right, "right")?);
            let typed = |column: &ScopeColumn| Typed::new(Ex::column(column.at), column.of);
            parts.push(self.comparison(Comparison::Equal, "=", typed(&a), typed(&b), 0)?.ex);
            // The side that is never padded with NULL is the one to show.
            let (shown, hidden) = if kind == JoinKind::Right { (b, a) } else { (a, b) };
            for column in columns.iter_mut() {
                column.merged = column.merged || column.at == hidden.at;
            }
            front.push(shown.at);
        }
        // Joined columns come first in `*`.
        let rank = |column: &ScopeColumn| front.iter().position(|at| *at == column.at).unwrap_or(usize::MAX);
        columns.sort_by_key(rank);
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Ex::And(parts)
        })
    }
}

fn output(name: &str, of: Type) -> OutputColumn {
    OutputColumn {
        name: name.to_owned(),
        of,
        modifier: -1,
        origin: (0, 0),
    }
}

/// Output columns as columns of a relation.
fn named(outputs: &[OutputColumn], relation: &str) -> Vec<ScopeColumn> {
    let column = |(at, output): (usize, &OutputColumn)| ScopeColumn {
        relation: relation.to_owned(),
        name: output.name.clone(),
        of: output.of,
        modifier: output.modifier,
        origin: output.origin,
        at,
        merged: false,
    };
    outputs.iter().enumerate().map(column).collect()
}

/// The columns of a function's rows; a single one takes the alias for its name.
fn function_columns(function: &Function, of: Type, alias: Option<&str>) -> Vec<OutputColumn> {
    match function.run {
        Run::Set(_, columns) if columns.len() > 1 => columns.iter().map(|(name, of)| output(name, *of)).collect(),
        Run::Set(_, [(name, _)]) => vec![output(alias.unwrap_or(name), of)],
        _ => vec![output(
            alias.unwrap_or(function.name),
            if of.is_unknown() { TEXT } else { of },
        )],
    }
}
