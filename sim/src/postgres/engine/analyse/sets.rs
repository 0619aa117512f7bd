//! VALUES, UNION, INTERSECT and EXCEPT: rows of several queries in common types.
//!
//! A part of analysis. A plain machine.

use super::query::{bare, sort_key, wrapped};
use super::{Analyser, Typed, unsupported};
use crate::postgres::engine::ast::{self, Body, Expression, Order, Query};
use crate::postgres::engine::plan::{BodyPlan, Ex, OutputColumn, SelectPlan};
use crate::postgres::engine::types::Type;
use crate::postgres::engine::types::cast::Context;
use crate::wire::Report;

impl Analyser<'_> {
    pub(super) fn values_body(
        &mut self,
        rows: &[Vec<Expression>],
        wanted: Option<&[Type]>,
    ) -> Result<SelectPlan, Report> {
        let width = rows.first().map_or(0, Vec::len);
        self.scope().clause = "VALUES";
        let mut columns: Vec<Vec<Typed>> = vec![Vec::new(); width];
        for row in rows {
            if row.len() != width {
                let at = row.first().map_or(0, |value| value.at);
                return Err(self.at(at, "42601", "VALUES lists must all be the same length"));
            }
            for (at, value) in row.iter().enumerate() {
                let typed = self.expression(value)?;
                columns[at].push(typed);
            }
        }
        let mut plan_rows: Vec<Vec<Ex>> = vec![Vec::new(); rows.len()];
        let mut outputs = Vec::with_capacity(width);
        for (at, column) in columns.into_iter().enumerate() {
            let unknown = column.iter().all(|typed| typed.of.is_unknown());
            let wish = wanted.and_then(|wanted| wanted.get(at)).copied().filter(|_| unknown);
            let (values, of) = match wish {
                Some(of) => {
                    let values = column
                        .into_iter()
                        .map(|typed| self.coerce(typed, (of, -1), Context::Implicit, 0));
                    (values.collect::<Result<Vec<_>, _>>()?, of)
                }
                None => self.matched(column, "VALUES", 0)?,
            };
            for (row, value) in plan_rows.iter_mut().zip(values) {
                row.push(value);
            }
            outputs.push(OutputColumn {
                name: format!("column{}", at + 1),
                of,
                modifier: -1,
                origin: (0, 0),
            });
        }
        Ok(bare(BodyPlan::Values(plan_rows), outputs))
    }

    pub(super) fn combined(&mut self, body: &Body, wanted: Option<&[Type]>) -> Result<SelectPlan, Report> {
        let Body::Combined {
            operator,
            all,
            left,
            right,
        } = body
        else {
            return Err(unsupported("this query"));
        };
        let part = |body: &Body| Query {
            with: Vec::new(),
            recursive: false,
            body: body.clone(),
            order: Vec::new(),
            limit: None,
            offset: None,
            locking: Vec::new(),
        };
        let mut left = self.query(&part(left), wanted)?;
        let types: Vec<Type> = left.columns.iter().map(|column| column.of).collect();
        let mut right = self.query(&part(right), Some(&types))?;
        let name = match operator {
            ast::SetOperator::Union => "UNION",
            ast::SetOperator::Intersect => "INTERSECT",
            ast::SetOperator::Except => "EXCEPT",
        };
        if left.columns.len() != right.columns.len() {
            let message = format!("each {name} query must have the same number of columns");
            return Err(Report::error("42601", message));
        }
        let mut columns = Vec::new();
        for (a, b) in left.columns.iter().zip(&right.columns) {
            let of = self.common_type(&[a.of, b.of], name, 0)?;
            columns.push(OutputColumn {
                name: a.name.clone(),
                of,
                modifier: -1,
                origin: (0, 0),
            });
        }
        let types: Vec<Type> = columns.iter().map(|column| column.of).collect();
        left = self.retyped(left, &types)?;
        right = self.retyped(right, &types)?;
        let body = BodyPlan::Combined {
            operator: *operator,
            all: *all,
            left: Box::new(left),
            right: Box::new(right),
        };
        Ok(bare(body, columns))
    }

    /// The query with its columns cast.
    pub(super) fn retyped(&mut self, plan: SelectPlan, types: &[Type]) -> Result<SelectPlan, Report> {
        if plan.columns.iter().zip(types).all(|(column, of)| column.of == *of) {
            return Ok(plan);
        }
        let mut outer = wrapped(plan);
        if let BodyPlan::Select(core) = &mut outer.body {
            for (at, of) in types.iter().enumerate() {
                let typed = Typed::new(Ex::column(at), outer.columns[at].of);
                core.targets[at] = self.coerce(typed, (*of, -1), Context::Implicit, 0)?;
                outer.columns[at].of = *of;
            }
        }
        Ok(outer)
    }

    /// ORDER BY where only the result's columns can be named.
    pub(super) fn ordered_by_output(&mut self, mut plan: SelectPlan, order: &[Order]) -> Result<SelectPlan, Report> {
        for key in order {
            let Some(at) = self.output_position(&key.key, &plan.columns)? else {
                return Err(unsupported("ORDER BY expressions over UNION or VALUES"));
            };
            plan.order.push(sort_key(at, key));
        }
        Ok(plan)
    }
}
