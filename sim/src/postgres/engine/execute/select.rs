//! Queries: WITH, the body, order, limits, row locks.
//!
//! A part of execution. A plain machine.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Context, MAX_DEPTH, MAX_ROWS, Row, Stop, Tuple, made};
use crate::postgres::engine::ast::SetOperator;
use crate::postgres::engine::plan::{BodyPlan, CommonPlan, Distinct, Ex, SelectCore, SelectPlan, SortKey, Source};
use crate::postgres::engine::types::datum::Datum;
use crate::wire::Report;

impl Context<'_> {
    /// The rows of a query inside the row `around`.
    pub(crate) fn query(&mut self, plan: &SelectPlan, around: &[Datum]) -> Result<Vec<Row>, Stop> {
        if self.outer.len() >= MAX_DEPTH {
            return Err(Report::error("54001", "stack depth limit exceeded").into());
        }
        self.outer.push(around.iter().cloned().collect());
        self.commons.push(Vec::new());
        let rows = self.query_inside(plan);
        self.commons.pop();
        self.outer.pop();
        rows
    }

    fn query_inside(&mut self, plan: &SelectPlan) -> Result<Vec<Row>, Stop> {
        self.with(&plan.with)?;
        let offset = self.count(plan.offset.as_ref(), "OFFSET")?.unwrap_or(0);
        let limit = self.count(plan.limit.as_ref(), "LIMIT")?;
        let width = plan.columns.len();
        let before = self.tracking;
        self.tracking = !plan.locks.is_empty();
        let mut rows = self.body(plan)?;
        sort(&mut rows, &plan.order);
        if let BodyPlan::Select(core) = &plan.body
            && let Distinct::On(keys) = &core.distinct
        {
            let mut last: Option<Vec<Datum>> = None;
            rows.retain(|row| {
                let key: Vec<Datum> = keys.iter().map(|at| row.data[*at].clone()).collect();
                let new = last.as_ref() != Some(&key);
                last = Some(key);
                new
            });
        }
        let rows = if plan.locks.is_empty() {
            let kept = rows.into_iter().skip(offset);
            match limit {
                Some(limit) => kept.take(limit).collect(),
                None => kept.collect(),
            }
        } else {
            self.locked(plan, rows, (offset, limit))?
        };
        self.tracking = before;
        let cut = |row: Tuple| {
            if row.data.len() == width {
                row.data
            } else {
                row.data[..width].iter().cloned().collect()
            }
        };
        Ok(rows.into_iter().map(cut).collect())
    }

    /// Makes the rows of the WITH queries.
    pub(super) fn with(&mut self, with: &[CommonPlan]) -> Result<(), Stop> {
        for common in with {
            let rows = match common {
                CommonPlan::Modify(plan) => {
                    // Its changes are not seen by the rest of the statement, its rows are.
                    self.modify(plan)?.1
                }
                CommonPlan::Select(plan, None) => self.query(plan, &[])?,
                CommonPlan::Select(first, Some((step, all))) => self.recursive(first, step, *all)?,
            };
            if let Some(frame) = self.commons.last_mut() {
                frame.push(Arc::new(rows));
            }
        }
        Ok(())
    }

    fn recursive(&mut self, first: &SelectPlan, step: &SelectPlan, all: bool) -> Result<Vec<Row>, Stop> {
        let mut seen = BTreeSet::new();
        let mut fresh =
            |rows: Vec<Row>| -> Vec<Row> { rows.into_iter().filter(|row| all || seen.insert(row.clone())).collect() };
        let mut working = fresh(self.query(first, &[])?);
        let mut rows = working.clone();
        while !working.is_empty() {
            if let Some(frame) = self.commons.last_mut() {
                frame.push(Arc::new(working));
            }
            let next = self.query(step, &[]);
            if let Some(frame) = self.commons.last_mut() {
                frame.pop();
            }
            working = fresh(next?);
            rows.extend(working.iter().cloned());
            if rows.len() > MAX_ROWS {
                let message = format!("gdbpool-sim does not support recursion over more than {MAX_ROWS} rows");
                return Err(Report::error("0A000", message).into());
            }
        }
        Ok(rows)
    }

    fn count(&mut self, count: Option<&Ex>, clause: &str) -> Result<Option<usize>, Stop> {
        let Some(count) = count else { return Ok(None) };
        let Some(count) = self.value(count, &[])?.as_i64() else {
            return Ok(None);
        };
        let sqlstate = if clause == "LIMIT" { "2201W" } else { "2201X" };
        let count =
            usize::try_from(count).map_err(|_| Report::error(sqlstate, format!("{clause} must not be negative")))?;
        Ok(Some(count))
    }

    fn body(&mut self, plan: &SelectPlan) -> Result<Vec<Tuple>, Stop> {
        match &plan.body {
            BodyPlan::Values(rows) => {
                let mut made_rows = Vec::with_capacity(rows.len());
                for row in rows {
                    let values: Result<Vec<Datum>, Stop> = row.iter().map(|value| self.value(value, &[])).collect();
                    made_rows.push(Tuple::plain(made(values?)));
                }
                Ok(made_rows)
            }
            BodyPlan::Combined {
                operator,
                all,
                left,
                right,
            } => {
                let left = self.query(left, &[])?;
                let right = self.query(right, &[])?;
                Ok(combined(*operator, *all, left, right)
                    .into_iter()
                    .map(Tuple::plain)
                    .collect())
            }
            BodyPlan::Select(core) => self.select(core),
        }
    }

    fn select(&mut self, core: &SelectCore) -> Result<Vec<Tuple>, Stop> {
        let mut rows = match &core.from {
            Source::Nothing if core.filter.is_none() => vec![Tuple::plain(made(Vec::new()))],
            from => self.source(from, &[])?,
        };
        if core.filter.is_some() {
            let mut kept = Vec::new();
            for row in rows {
                if self.holds(core.filter.as_ref(), &row.data)? {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        if let Some(grouping) = &core.grouping {
            rows = self.grouped(grouping, rows, core.from.width())?;
        }
        let mut results = Vec::with_capacity(rows.len());
        for row in rows {
            if core.sets.is_empty() {
                results.push(self.target(core, &row)?);
            } else {
                self.expand(core, &row, &mut results)?;
            }
        }
        if core.distinct == Distinct::All {
            let mut seen = BTreeSet::new();
            results.retain(|row| seen.insert(row.data.clone()));
        }
        Ok(results)
    }

    pub(super) fn target(&mut self, core: &SelectCore, row: &Tuple) -> Result<Tuple, Stop> {
        let values: Result<Vec<Datum>, Stop> = core
            .targets
            .iter()
            .map(|target| self.value(target, &row.data))
            .collect();
        Ok(Tuple {
            data: made(values?),
            origins: row.origins.clone(),
        })
    }

    /// One row for each row of the set-returning functions among the targets; the shorter ones end in NULL.
    fn expand(&mut self, core: &SelectCore, row: &Tuple, results: &mut Vec<Tuple>) -> Result<(), Stop> {
        let mut sets = Vec::with_capacity(core.sets.len());
        for (function, arguments) in &core.sets {
            sets.push(self.rows_of(function, arguments, &row.data)?);
        }
        let longest = sets.iter().map(Vec::len).max().unwrap_or(0);
        if results.len() + longest > MAX_ROWS {
            let message = format!("gdbpool-sim does not support results of more than {MAX_ROWS} rows");
            return Err(Report::error("0A000", message).into());
        }
        for at in 0..longest {
            let value = |rows: &Vec<Row>| rows.get(at).and_then(|row| row.first()).cloned().unwrap_or(Datum::Null);
            self.sets = sets.iter().map(value).collect();
            results.push(self.target(core, row)?);
        }
        self.sets = Vec::new();
        Ok(())
    }
}

/// Sorts by keys among the values of the rows; equal rows stay in order.
fn sort(rows: &mut [Tuple], order: &[SortKey]) {
    if order.is_empty() {
        return;
    }
    rows.sort_by(|a, b| {
        for key in order {
            let (a, b) = (&a.data[key.key], &b.data[key.key]);
            let found = compare(a, b, key.descending, key.nulls_first);
            if found.is_ne() {
                return found;
            }
        }
        std::cmp::Ordering::Equal
    });
}

/// The order of two sort keys.
pub(super) fn compare(a: &Datum, b: &Datum, descending: bool, nulls_first: bool) -> std::cmp::Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) | (false, true) => {
            if a.is_null() == nulls_first {
                std::cmp::Ordering::Less
            } else {
                std::cmp::Ordering::Greater
            }
        }
        _ if descending => b.cmp(a),
        _ => a.cmp(b),
    }
}

fn combined(operator: SetOperator, all: bool, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    let mut rows = match operator {
        SetOperator::Union => [left, right].concat(),
        SetOperator::Intersect | SetOperator::Except => {
            let mut counts = std::collections::BTreeMap::<Row, usize>::new();
            for row in right {
                *counts.entry(row).or_default() += 1;
            }
            let wanted = operator == SetOperator::Intersect;
            let keep = |row: &Row| match counts.get_mut(row) {
                Some(count) if *count > 0 => {
                    if all {
                        *count -= 1;
                    }
                    wanted
                }
                _ => !wanted,
            };
            let mut keep = keep;
            left.into_iter().filter(|row| keep(row)).collect()
        }
    };
    if !all {
        let mut seen = BTreeSet::new();
        rows.retain(|row| seen.insert(row.clone()));
    }
    rows
}
