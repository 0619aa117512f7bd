//! GROUP BY: which expressions are keys, and the rest over keys and aggregates.
//!
//! A part of analysis. A plain machine.

use super::{Analyser, unsupported};
use crate::postgres::engine::ast::{self, Expression, Node};
use crate::postgres::engine::functions::Function;
use crate::postgres::engine::plan::{AggregateCall, BodyPlan, Ex, Grouping, OutputColumn, SelectPlan, Source};
use crate::wire::Report;

impl Analyser<'_> {
    pub(super) fn group_keys(
        &mut self,
        group: &[Expression],
        targets: &[ast::Target],
        columns: &[OutputColumn],
        values: &[Ex],
    ) -> Result<Vec<Ex>, Report> {
        let mut keys = Vec::with_capacity(group.len());
        for key in group {
            self.scope().clause = "GROUP BY";
            let by_number = matches!(key.node, Node::Number(_));
            // A column of the tables goes before one of the result.
            let value = match &key.node {
                Node::Column(parts) if parts.len() == 1 => match self.column(parts, key.at) {
                    Ok(typed) => Some(typed.ex),
                    Err(report) if report.sqlstate == "42703" => None,
                    Err(report) => return Err(report),
                },
                _ => None,
            };
            let value = match value {
                Some(value) => value,
                None => match self.output_position(key, columns)? {
                    Some(at) if by_number || !targets.is_empty() => values[at].clone(),
                    _ => {
                        let typed = self.expression(key)?;
                        self.settle(typed)?.ex
                    }
                },
            };
            if value.any(&|part| matches!(part, Ex::Aggregate(_))) {
                return Err(self.at(key.at, "42803", "aggregate functions are not allowed in GROUP BY"));
            }
            keys.push(value);
        }
        self.scope().clause = "SELECT";
        Ok(keys)
    }

    pub(super) fn grouped(
        &mut self,
        keys: Vec<Ex>,
        aggregates: Vec<AggregateCall>,
        mut having: Option<Ex>,
        targets: &mut [Ex],
        sets: &mut [(&'static Function, Vec<Ex>)],
        group: &[Expression],
    ) -> Result<Grouping, Report> {
        let determined = self.determined_tables(&keys);
        let shape = Shape {
            keys: &keys,
            aggregates: aggregates.len(),
            determined: &determined,
        };
        let at = group.first().map_or(0, |key| key.at);
        for target in targets.iter_mut().chain(having.iter_mut()) {
            self.regroup(target, &shape, at)?;
        }
        for (_, arguments) in sets.iter_mut() {
            for argument in arguments {
                self.regroup(argument, &shape, at)?;
            }
        }
        Ok(Grouping {
            keys,
            aggregates,
            having,
        })
    }

    /// The columns of tables whose primary keys are among the group's keys: they have one value in each group.
    fn determined_tables(&mut self, keys: &[Ex]) -> Vec<usize> {
        let columns = self.scope().columns.clone();
        let is_key = |at: usize| keys.contains(&Ex::column(at));
        let mut found = Vec::new();
        for column in &columns {
            let Some((table, _)) = self.engine.catalog.table(column.origin.0) else {
                continue;
            };
            let Some(primary) = table.indexes.iter().find(|index| index.primary) else {
                continue;
            };
            let has_key = |key: &usize| {
                columns.iter().any(|other| {
                    other.relation == column.relation
                        && usize::try_from(other.origin.1).is_ok_and(|number| number == key + 1)
                        && is_key(other.at)
                })
            };
            if primary.columns.iter().all(has_key) {
                found.push(column.at);
            }
        }
        found
    }

    /// Puts columns of the grouped row in place of keys, aggregates and determined columns.
    fn regroup(&mut self, ex: &mut Ex, shape: &Shape<'_>, at: usize) -> Result<(), Report> {
        if let Some(key) = shape.keys.iter().position(|key| key == ex) {
            *ex = Ex::column(key);
            return Ok(());
        }
        match ex {
            Ex::Aggregate(place) => {
                *ex = Ex::column(shape.keys.len() + *place);
                return Ok(());
            }
            Ex::Column { level: 0, at: column } => {
                if shape.determined.contains(column) {
                    *ex = Ex::column(shape.keys.len() + shape.aggregates + *column);
                    return Ok(());
                }
                let found = self.scope().columns.iter().find(|other| other.at == *column).cloned();
                let name = found.map_or_else(
                    || "?".to_owned(),
                    |column| format!("{}.{}", column.relation, column.name),
                );
                let message =
                    format!("column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function");
                return Err(self.at(at, "42803", message));
            }
            _ => {}
        }
        if let Some(query) = ex.query()
            && query_looks_out(query, 1)
        {
            return Err(unsupported("correlated subqueries over groups"));
        }
        let mut result = Ok(());
        ex.for_each_child_mut(&mut |part| {
            if result.is_ok() {
                result = self.regroup(part, shape, at);
            }
        });
        result
    }
}

struct Shape<'a> {
    keys: &'a [Ex],
    aggregates: usize,
    determined: &'a [usize],
}

/// Whether a query names columns of the one `level` queries around it.
fn query_looks_out(query: &SelectPlan, level: usize) -> bool {
    let in_body = match &query.body {
        BodyPlan::Combined { left, right, .. } => query_looks_out(left, level + 1) || query_looks_out(right, level + 1),
        BodyPlan::Values(rows) => rows.iter().flatten().any(|ex| looks_out(ex, level)),
        BodyPlan::Select(core) => {
            source_looks_out(&core.from, level)
                || core.filter.iter().chain(&core.targets).any(|ex| looks_out(ex, level))
                || core
                    .sets
                    .iter()
                    .any(|(_, arguments)| arguments.iter().any(|ex| looks_out(ex, level)))
                || core.grouping.as_ref().is_some_and(|grouping| {
                    let aggregates = grouping
                        .aggregates
                        .iter()
                        .flat_map(|call| call.arguments.iter().chain(&call.filter));
                    aggregates
                        .chain(&grouping.keys)
                        .chain(&grouping.having)
                        .any(|ex| looks_out(ex, level))
                })
        }
    };
    in_body || query.limit.iter().chain(&query.offset).any(|ex| looks_out(ex, level))
}

fn looks_out(ex: &Ex, level: usize) -> bool {
    ex.any(&|part| match part {
        Ex::Column { level: found, .. } => *found == level,
        other => other.query().is_some_and(|query| query_looks_out(query, level + 1)),
    })
}

fn source_looks_out(source: &Source, level: usize) -> bool {
    match source {
        Source::Join {
            left, right, condition, ..
        } => {
            source_looks_out(left, level)
                || source_looks_out(right, level)
                || condition.iter().any(|ex| looks_out(ex, level))
        }
        Source::Query(query) => query_looks_out(query, level + 1),
        Source::Function { arguments, .. } => arguments.iter().any(|ex| looks_out(ex, level)),
        _ => false,
    }
}
