//! Queries: WITH, targets and their names, ORDER BY, DISTINCT, limits, locking clauses.
//!
//! A part of analysis. A plain machine.

use std::sync::Arc;

use super::scope::{Common, Scope};
use super::{Analyser, Typed, settled, unsupported};
use crate::postgres::engine::ast::{self, Body, Expression, Node, Order, Query, Select};
use crate::postgres::engine::plan::{
    BodyPlan, CommonPlan, Distinct, Ex, LockPlan, OutputColumn, SelectCore, SelectPlan, SortKey, Source,
};
use crate::postgres::engine::types::cast::Context;
use crate::postgres::engine::types::{INT8, Scalar, Type, UNKNOWN};
use crate::wire::Report;

impl Analyser<'_> {
    /// A query; `wanted` are the types its unknown columns take.
    pub(super) fn query(&mut self, query: &Query, wanted: Option<&[Type]>) -> Result<SelectPlan, Report> {
        self.nested(|analyser| {
            analyser.scopes.push(Scope::clause("SELECT"));
            let plan = analyser.query_inside(query, wanted);
            analyser.scopes.pop();
            plan
        })
    }

    fn query_inside(&mut self, query: &Query, wanted: Option<&[Type]>) -> Result<SelectPlan, Report> {
        let with = self.with(&query.with, query.recursive)?;
        let mut plan = match &query.body {
            Body::Select(select) => self.select(select, &query.order, wanted)?,
            Body::Values(rows) => {
                let plan = self.values_body(rows, wanted)?;
                self.ordered_by_output(plan, &query.order)?
            }
            Body::Combined { .. } => {
                let plan = self.combined(&query.body, wanted)?;
                self.ordered_by_output(plan, &query.order)?
            }
            Body::Query(inner) => {
                if query.order.is_empty() && query.limit.is_none() && query.offset.is_none() && query.with.is_empty() {
                    return self.query_inside(inner, wanted);
                }
                let plan = self.query(inner, wanted)?;
                let plan = wrapped(plan);
                self.ordered_by_output(plan, &query.order)?
            }
        };
        plan.with = with;
        self.scope().clause = "LIMIT";
        plan.limit = self.count(query.limit.as_ref(), "LIMIT")?;
        self.scope().clause = "OFFSET";
        plan.offset = self.count(query.offset.as_ref(), "OFFSET")?;
        self.locking(query, &mut plan)?;
        Ok(plan)
    }

    fn count(&mut self, count: Option<&Expression>, clause: &str) -> Result<Option<Ex>, Report> {
        let Some(count) = count else { return Ok(None) };
        let columns = std::mem::take(&mut self.scope().columns);
        let typed = self.expression(count);
        self.scope().columns = columns;
        let typed = typed.map_err(|report| match report.sqlstate.as_str() {
            "42703" => self.at(
                count.at,
                "42P10",
                format!("argument of {clause} must not contain variables"),
            ),
            _ => report,
        })?;
        self.coerce(typed, (INT8, -1), Context::Assignment, count.at).map(Some)
    }

    /// The WITH queries; each sees those before it.
    pub(super) fn with(&mut self, with: &[ast::CommonTable], recursive: bool) -> Result<Vec<CommonPlan>, Report> {
        let mut plans = Vec::with_capacity(with.len());
        for common in with {
            let (plan, mut columns) = match &*common.statement {
                ast::Statement::Query(query) => match (&query.body, recursive) {
                    (
                        Body::Combined {
                            operator: ast::SetOperator::Union,
                            all,
                            left,
                            right,
                        },
                        true,
                    ) => self.recursive(common, query, left, right, *all)?,
                    _ => {
                        let plan = self.query(query, None)?;
                        let columns = plan.columns.clone();
                        (CommonPlan::Select(Arc::new(plan), None), columns)
                    }
                },
                ast::Statement::Insert(insert) => modification(self.insert(insert)?),
                ast::Statement::Update(update) => modification(self.update(update)?),
                ast::Statement::Delete(delete) => modification(self.delete(delete)?),
                _ => return Err(unsupported("this statement in WITH")),
            };
            self.rename(&mut columns, &common.columns, &common.name)?;
            self.scope().commons.push(Common {
                name: common.name.clone(),
                columns,
            });
            plans.push(plan);
        }
        Ok(plans)
    }

    fn recursive(
        &mut self,
        common: &ast::CommonTable,
        query: &Query,
        left: &Body,
        right: &Body,
        all: bool,
    ) -> Result<(CommonPlan, Vec<OutputColumn>), Report> {
        let simple = query.with.is_empty() && query.order.is_empty() && query.limit.is_none() && query.offset.is_none();
        if !simple {
            return Err(unsupported("this form of WITH RECURSIVE"));
        }
        let body = |body: &Body| Query {
            with: Vec::new(),
            recursive: false,
            body: body.clone(),
            order: Vec::new(),
            limit: None,
            offset: None,
            locking: Vec::new(),
        };
        let first = self.query(&body(left), None)?;
        let mut columns = first.columns.clone();
        self.rename(&mut columns, &common.columns, &common.name)?;
        self.scope().commons.push(Common {
            name: common.name.clone(),
            columns: columns.clone(),
        });
        let types: Vec<Type> = columns.iter().map(|column| column.of).collect();
        let step = self.query(&body(right), Some(&types));
        self.scope().commons.pop();
        let step = step?;
        if step.columns.len() != columns.len() || step.columns.iter().zip(&columns).any(|(a, b)| a.of != b.of) {
            return Err(unsupported("WITH RECURSIVE whose parts have different types"));
        }
        Ok((
            CommonPlan::Select(Arc::new(first), Some((Arc::new(step), all))),
            columns,
        ))
    }

    /// Gives columns other names, as an alias does.
    pub(super) fn rename(&self, columns: &mut [OutputColumn], names: &[String], relation: &str) -> Result<(), Report> {
        if names.len() > columns.len() {
            let message = format!(
                "table \"{relation}\" has {} columns available but {} columns specified",
                columns.len(),
                names.len()
            );
            return Err(Report::error("42P10", message));
        }
        for (column, name) in columns.iter_mut().zip(names) {
            column.name.clone_from(name);
        }
        Ok(())
    }

    /// The column that a bare number or name in ORDER BY or GROUP BY stands for.
    pub(super) fn output_position(&self, key: &Expression, columns: &[OutputColumn]) -> Result<Option<usize>, Report> {
        match &key.node {
            Node::Number(digits) => match digits.parse::<usize>() {
                Ok(number) if (1..=columns.len()).contains(&number) => Ok(Some(number - 1)),
                _ => {
                    let message = format!("ORDER BY position {digits} is not in select list");
                    Err(self.at(key.at, "42P10", message))
                }
            },
            Node::Column(parts) if parts.len() == 1 => {
                let mut found = columns.iter().enumerate().filter(|(_, column)| column.name == parts[0]);
                Ok(found.next().map(|(at, _)| at))
            }
            _ => Ok(None),
        }
    }

    fn select(&mut self, select: &Select, order: &[Order], wanted: Option<&[Type]>) -> Result<SelectPlan, Report> {
        let mut from = self.sources(&select.from)?;
        let filter = match &select.filter {
            Some(filter) => {
                self.scope().clause = "WHERE";
                let typed = self.expression(filter)?;
                Some(self.boolean(typed, "WHERE", filter.at)?)
            }
            None => None,
        };
        self.scope().clause = "SELECT";
        let (mut targets, columns) = self.targets(&select.targets, wanted)?;
        let sort = self.sort_keys(order, &columns, &mut targets)?;
        let distinct = self.distinct(select, &columns, &mut targets, &sort)?;
        let keys = self.group_keys(&select.group, &select.targets, &columns, &targets)?;
        let having = match &select.having {
            Some(having) => {
                self.scope().clause = "HAVING";
                let typed = self.expression(having)?;
                Some(self.boolean(typed, "HAVING", having.at)?)
            }
            None => None,
        };
        let aggregates = std::mem::take(&mut self.scope().aggregates);
        let mut sets = std::mem::take(&mut self.scope().sets);
        let grouping = if !keys.is_empty() || !aggregates.is_empty() || having.is_some() {
            Some(self.grouped(keys, aggregates, having, &mut targets, &mut sets, &select.group)?)
        } else {
            None
        };
        self.choose_lookups(&mut from, filter.as_ref());
        let mut order = sort;
        if let Distinct::On(keys) = &distinct
            && order.is_empty()
        {
            order = keys
                .iter()
                .map(|key| SortKey {
                    key: *key,
                    descending: false,
                    nulls_first: false,
                })
                .collect();
        }
        let core = SelectCore {
            from,
            filter,
            grouping,
            targets,
            sets,
            distinct,
        };
        let mut plan = bare(BodyPlan::Select(Box::new(core)), columns);
        plan.order = order;
        Ok(plan)
    }

    /// The targets of SELECT or RETURNING, and the columns they make.
    pub(super) fn targets(
        &mut self,
        targets: &[ast::Target],
        wanted: Option<&[Type]>,
    ) -> Result<(Vec<Ex>, Vec<OutputColumn>), Report> {
        let (mut values, mut columns) = (Vec::new(), Vec::new());
        for target in targets {
            if let Node::Star(relation) = &target.value.node {
                for column in self.star(relation.as_deref(), target.value.at)? {
                    values.push(Ex::column(column.at));
                    columns.push(OutputColumn {
                        name: column.name,
                        of: column.of,
                        modifier: column.modifier,
                        origin: column.origin,
                    });
                }
                continue;
            }
            let typed = self.expression(&target.value)?;
            let wish = wanted.and_then(|wanted| wanted.get(values.len())).copied();
            let typed = match wish {
                Some(of) if typed.of.is_unknown() && of != UNKNOWN => {
                    let ex = self.coerce(typed, (of, -1), Context::Implicit, target.value.at)?;
                    Typed::new(ex, of)
                }
                _ => self.settle(typed)?,
            };
            let name = target.name.clone().unwrap_or_else(|| column_name(&target.value));
            columns.push(OutputColumn {
                name,
                of: settled(typed.of),
                modifier: typed.modifier,
                origin: self.origin(&typed.ex),
            });
            values.push(typed.ex);
        }
        if columns.len() > 1_664 {
            return Err(Report::error("54011", "target lists can have at most 1664 entries"));
        }
        Ok((values, columns))
    }

    fn origin(&mut self, ex: &Ex) -> (u32, i16) {
        let Ex::Column { level: 0, at } = ex else { return (0, 0) };
        let column = self.scope().columns.iter().find(|column| column.at == *at);
        column.map_or((0, 0), |column| column.origin)
    }

    fn sort_keys(
        &mut self,
        order: &[Order],
        columns: &[OutputColumn],
        targets: &mut Vec<Ex>,
    ) -> Result<Vec<SortKey>, Report> {
        let mut sort = Vec::with_capacity(order.len());
        for key in order {
            let at = match self.output_position(&key.key, columns)? {
                Some(at) => at,
                None => {
                    let clause = self.scope().clause;
                    let typed = self.expression(&key.key)?;
                    let typed = self.settle(typed)?;
                    self.scope().clause = clause;
                    place(targets, typed.ex)
                }
            };
            let json = columns.get(at).is_some_and(|column| column.of.is(Scalar::Json));
            if json {
                let message = "could not identify an ordering operator for type json";
                return Err(self.at(key.key.at, "42883", message));
            }
            sort.push(sort_key(at, key));
        }
        Ok(sort)
    }

    fn distinct(
        &mut self,
        select: &Select,
        columns: &[OutputColumn],
        targets: &mut Vec<Ex>,
        sort: &[SortKey],
    ) -> Result<Distinct, Report> {
        match &select.distinct {
            None => Ok(Distinct::None),
            Some(keys) if keys.is_empty() => {
                if targets.len() > columns.len() {
                    let message = "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
                    return Err(Report::error("42P10", message));
                }
                Ok(Distinct::All)
            }
            Some(keys) => {
                let mut places = Vec::with_capacity(keys.len());
                for key in keys {
                    let at = match self.output_position(key, columns)? {
                        Some(at) => at,
                        None => {
                            let typed = self.expression(key)?;
                            let typed = self.settle(typed)?;
                            place(targets, typed.ex)
                        }
                    };
                    places.push(at);
                }
                let initial: Vec<usize> = sort.iter().take(places.len()).map(|key| key.key).collect();
                if !initial.iter().all(|key| places.contains(key)) {
                    let message = "SELECT DISTINCT ON expressions must match initial ORDER BY expressions";
                    return Err(Report::error("42P10", message));
                }
                Ok(Distinct::On(places))
            }
        }
    }

    fn locking(&mut self, query: &Query, plan: &mut SelectPlan) -> Result<(), Report> {
        for clause in &query.locking {
            let name = lock_name(clause.strength);
            let refused = |what: &str| Report::error("0A000", format!("{name} is not allowed with {what}"));
            let core = match &plan.body {
                BodyPlan::Select(core) => core,
                BodyPlan::Values(_) => {
                    return Err(Report::error("0A000", format!("{name} cannot be applied to VALUES")));
                }
                BodyPlan::Combined { .. } => return Err(refused("UNION/INTERSECT/EXCEPT")),
            };
            if core.distinct != Distinct::None {
                return Err(refused("DISTINCT clause"));
            }
            if let Some(grouping) = &core.grouping {
                return Err(if !grouping.keys.is_empty() {
                    refused("GROUP BY clause")
                } else if grouping.having.is_some() {
                    refused("HAVING clause")
                } else {
                    refused("aggregate functions")
                });
            }
            if !core.sets.is_empty() {
                return Err(refused("set-returning functions in the target list"));
            }
            let mut tables = None;
            if !clause.of.is_empty() {
                let mut oids = Vec::new();
                for relation in &clause.of {
                    let found = self.scope().columns.iter().find(|column| column.relation == *relation);
                    let oid = found
                        .map(|column| column.origin.0)
                        .filter(|oid| *oid != 0)
                        .ok_or_else(|| {
                            let message = format!("relation \"{relation}\" in {name} clause not found in FROM clause");
                            Report::error("42P01", message)
                        })?;
                    oids.push(oid);
                }
                tables = Some(oids);
            }
            plan.locks.push(LockPlan {
                tables,
                strength: clause.strength,
                wait: clause.wait,
            });
        }
        Ok(())
    }
}

/// The clause as it is written.
pub(crate) fn lock_name(strength: ast::RowLock) -> &'static str {
    match strength {
        ast::RowLock::KeyShare => "FOR KEY SHARE",
        ast::RowLock::Share => "FOR SHARE",
        ast::RowLock::NoKeyUpdate => "FOR NO KEY UPDATE",
        ast::RowLock::Update => "FOR UPDATE",
    }
}

fn modification(plan: crate::postgres::engine::plan::ModifyPlan) -> (CommonPlan, Vec<OutputColumn>) {
    let columns = plan.columns.clone();
    (CommonPlan::Modify(Arc::new(plan)), columns)
}

pub(super) fn sort_key(at: usize, key: &Order) -> SortKey {
    SortKey {
        key: at,
        descending: key.descending,
        nulls_first: key.nulls_first,
    }
}

/// The target that is this expression; a new one behind the others if there is none.
fn place(targets: &mut Vec<Ex>, ex: Ex) -> usize {
    let volatile = matches!(ex, Ex::Set(_) | Ex::Aggregate(_));
    if let Some(at) = targets.iter().position(|target| *target == ex && !volatile) {
        return at;
    }
    targets.push(ex);
    targets.len() - 1
}

pub(super) fn bare(body: BodyPlan, columns: Vec<OutputColumn>) -> SelectPlan {
    SelectPlan {
        with: Vec::new(),
        body,
        order: Vec::new(),
        limit: None,
        offset: None,
        columns,
        locks: Vec::new(),
    }
}

/// A query around another one, with the same columns.
pub(super) fn wrapped(plan: SelectPlan) -> SelectPlan {
    let columns = plan.columns.clone();
    let core = SelectCore {
        targets: (0..columns.len()).map(Ex::column).collect(),
        from: Source::Query(Arc::new(plan)),
        filter: None,
        grouping: None,
        sets: Vec::new(),
        distinct: Distinct::None,
    };
    bare(BodyPlan::Select(Box::new(core)), columns)
}

/// The name PostgreSQL gives a column without AS.
pub(super) fn column_name(expression: &Expression) -> String {
    name_of(&expression.node).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// The name, and whether it is a strong one that a cast does not replace.
fn name_of(node: &Node) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match node {
        Node::Column(parts) => parts.last().map(|name| (name.clone(), true)),
        Node::Call(call) => strong(&call.name),
        Node::Cast(value, name) => match name_of(&value.node) {
            Some((name, true)) => Some((name, true)),
            _ => {
                let scalar = Scalar::named(&name.name);
                Some((
                    scalar.map_or(name.name.clone(), |scalar| scalar.facts().name.to_owned()),
                    false,
                ))
            }
        },
        Node::Bool(_) => Some(("bool".to_owned(), false)),
        Node::Case { otherwise, .. } => {
            let inner = otherwise.as_ref().and_then(|otherwise| name_of(&otherwise.node));
            match inner {
                Some((name, true)) => Some((name, true)),
                _ => Some(("case".to_owned(), false)),
            }
        }
        Node::Index(value, _) => name_of(&value.node),
        Node::Array(_) | Node::ArrayQuery(_) => strong("array"),
        Node::Row(_) => strong("row"),
        Node::Exists(_) => strong("exists"),
        Node::Subquery(query) => match &query.body {
            Body::Select(select) => select.targets.first().and_then(|target| {
                let named = target.name.clone().map(|name| (name, true));
                named.or_else(|| name_of(&target.value.node))
            }),
            _ => Some(("column1".to_owned(), true)),
        },
        _ => None,
    }
}
