//! Evaluation of expressions, with SQL's three-valued logic.
//!
//! A part of execution. A plain machine.

use super::{Context, Stop};
use crate::postgres::engine::functions::{Function, Run, strings};
use crate::postgres::engine::plan::{Comparison, Ex, SelectPlan};
use crate::postgres::engine::types::cast::{Context as CastContext, cast, fit};
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{Scalar, Type};
use crate::wire::Report;

impl Context<'_> {
    /// The value of an expression over a row.
    pub(crate) fn value(&mut self, expression: &Ex, row: &[Datum]) -> Result<Datum, Stop> {
        Ok(match expression {
            Ex::Const(value) => value.clone(),
            Ex::Column { level: 0, at } => row.get(*at).cloned().unwrap_or(Datum::Null),
            Ex::Column { level, at } => {
                let outer = self
                    .outer
                    .len()
                    .checked_sub(*level)
                    .and_then(|found| self.outer.get(found));
                outer.and_then(|row| row.get(*at)).cloned().unwrap_or(Datum::Null)
            }
            Ex::Parameter(at) => self.parameters.get(*at).cloned().unwrap_or(Datum::Null),
            Ex::Compare(comparison, left, right) => {
                let (left, right) = (self.value(left, row)?, self.value(right, row)?);
                compared(*comparison, &left, &right)
            }
            Ex::And(parts) => self.junction(parts, row, false)?,
            Ex::Or(parts) => self.junction(parts, row, true)?,
            Ex::Not(part) => match self.value(part, row)? {
                Datum::Bool(value) => Datum::Bool(!value),
                _ => Datum::Null,
            },
            Ex::Call(function, arguments) => self.call(function, arguments, row)?,
            Ex::Cast {
                value,
                from,
                to,
                modifier,
                context,
            } => {
                let value = self.value(value, row)?;
                self.cast(value, (*from, *to), *modifier, *context)?
            }
            Ex::IsNull(part, negated) => Datum::Bool(self.value(part, row)?.is_null() != *negated),
            Ex::IsBool(part, wanted, negated) => {
                let found = match self.value(part, row)? {
                    Datum::Bool(value) => Some(value),
                    _ => None,
                };
                Datum::Bool((found == *wanted) != *negated)
            }
            Ex::Distinct(left, right, negated) => {
                let (left, right) = (self.value(left, row)?, self.value(right, row)?);
                Datum::Bool((left != right) != *negated)
            }
            Ex::Case { .. } => self.case(expression, row)?,
            Ex::Coalesce(parts) => {
                for part in parts {
                    let value = self.value(part, row)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Datum::Null
            }
            Ex::NullIf(left, right) => {
                let (left, right) = (self.value(left, row)?, self.value(right, row)?);
                if !left.is_null() && left == right {
                    Datum::Null
                } else {
                    left
                }
            }
            Ex::Extreme(greatest, parts) => self.extreme(*greatest, parts, row)?,
            Ex::In { value, list, negated } => self.is_in(value, list, *negated, row)?,
            Ex::Like { .. } => self.like(expression, row)?,
            Ex::Array(element, parts) => {
                let items: Result<Vec<Datum>, Stop> = parts.iter().map(|part| self.value(part, row)).collect();
                Datum::array(*element, items?)
            }
            Ex::Row(parts) => {
                let items: Result<Vec<Datum>, Stop> = parts.iter().map(|part| self.value(part, row)).collect();
                Datum::Record(items?.into())
            }
            Ex::Index(array, at) => {
                let (array, at) = (self.value(array, row)?, self.value(at, row)?);
                let at = at.as_i64().and_then(|at| usize::try_from(at - 1).ok());
                match (&array, at) {
                    (Datum::Array(array), Some(at)) => array.items.get(at).cloned().unwrap_or(Datum::Null),
                    _ => Datum::Null,
                }
            }
            Ex::Set(at) => self.sets.get(*at).cloned().unwrap_or(Datum::Null),
            Ex::Quantified { .. } | Ex::QuantifiedQuery { .. } => self.quantified(expression, row)?,
            Ex::Exists(query) => Datum::Bool(!self.subquery(query, row)?.is_empty()),
            Ex::Subquery(query) => {
                let mut values = self.subquery(query, row)?;
                if values.len() > 1 {
                    let message = "more than one row returned by a subquery used as an expression";
                    return Err(Report::error("21000", message).into());
                }
                values.pop().unwrap_or(Datum::Null)
            }
            Ex::ArrayQuery(query, element) => Datum::array(*element, self.subquery(query, row)?),
            // Analysis has replaced these by columns.
            Ex::Aggregate(_) => Datum::Null,
        })
    }

    /// Whether a condition holds; NULL does not.
    pub(crate) fn holds(&mut self, condition: Option<&Ex>, row: &[Datum]) -> Result<bool, Stop> {
        match condition {
            None => Ok(true),
            Some(condition) => Ok(self.value(condition, row)?.is_true()),
        }
    }

    fn junction(&mut self, parts: &[Ex], row: &[Datum], ends_at: bool) -> Result<Datum, Stop> {
        let mut unknown = false;
        for part in parts {
            match self.value(part, row)? {
                Datum::Bool(value) if value == ends_at => return Ok(Datum::Bool(ends_at)),
                Datum::Bool(_) => {}
                _ => unknown = true,
            }
        }
        Ok(if unknown { Datum::Null } else { Datum::Bool(!ends_at) })
    }

    fn call(&mut self, function: &'static Function, arguments: &[Ex], row: &[Datum]) -> Result<Datum, Stop> {
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.value(argument, row)?);
        }
        if function.strict && values.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        match function.run {
            Run::Plain(run) => run(self, &values),
            Run::Once(run) => {
                if let Some(remembered) = self.engine.remembered(self.pid) {
                    return Ok(remembered);
                }
                let answer = run(self, &values);
                // A sleep is over when the statement starts over, and then is not slept again.
                let kept = match &answer {
                    Ok(value) => Some(value.clone()),
                    Err(Stop::Wait(super::Wait::Sleep { .. })) => Some(Datum::Void),
                    Err(_) => None,
                };
                if let Some(kept) = kept {
                    self.engine.remember(self.pid, kept);
                }
                answer
            }
            Run::Set(..) => Err(Report::error(
                "0A000",
                "set-valued function called in context that cannot accept a set",
            )
            .into()),
        }
    }

    /// The rows of a set-returning function.
    pub(super) fn rows_of(
        &mut self,
        function: &'static Function,
        arguments: &[Ex],
        row: &[Datum],
    ) -> Result<Vec<super::Row>, Stop> {
        let values: Result<Vec<Datum>, Stop> = arguments.iter().map(|argument| self.value(argument, row)).collect();
        let values = values?;
        if function.strict && values.iter().any(Datum::is_null) {
            return Ok(Vec::new());
        }
        match function.run {
            Run::Set(run, _) => run(self, &values),
            Run::Plain(run) => Ok(vec![super::made(vec![run(self, &values)?])]),
            Run::Once(_) => Ok(vec![super::made(vec![self.call(function, arguments, row)?])]),
        }
    }

    fn cast(
        &mut self,
        value: Datum,
        (from, to): (Type, Type),
        modifier: i32,
        context: CastContext,
    ) -> Result<Datum, Stop> {
        if value.is_null() {
            return Ok(value);
        }
        let named = matches!(to.scalar, Scalar::Regclass | Scalar::Regnamespace | Scalar::Regtype) && !to.array;
        if named && let Some(name) = value.as_str() {
            let oid = match to.scalar {
                Scalar::Regclass => self.engine.regclass(self.pid, name)?,
                Scalar::Regtype => self.engine.regtype(name)?,
                _ => self.engine.regnamespace(self.pid, name)?,
            };
            return Ok(Datum::Oid(oid));
        }
        if let (Datum::Oid(oid), Scalar::Regclass, true) = (&value, from.scalar, to.is_string()) {
            let name = self.engine.relation_name(*oid).unwrap_or_else(|| oid.to_string());
            return Ok(Datum::text(strings::quote_ident(&name)));
        }
        let value = cast(value, from, to)?;
        Ok(fit(value, to, modifier, context)?)
    }

    fn case(&mut self, expression: &Ex, row: &[Datum]) -> Result<Datum, Stop> {
        let Ex::Case {
            operand,
            branches,
            otherwise,
        } = expression
        else {
            return Ok(Datum::Null);
        };
        let operand = match operand {
            Some(operand) => Some(self.value(operand, row)?),
            None => None,
        };
        for (condition, result) in branches {
            let condition = self.value(condition, row)?;
            let taken = match &operand {
                Some(operand) => compared(Comparison::Equal, operand, &condition).is_true(),
                None => condition.is_true(),
            };
            if taken {
                return self.value(result, row);
            }
        }
        match otherwise {
            Some(otherwise) => self.value(otherwise, row),
            None => Ok(Datum::Null),
        }
    }

    fn extreme(&mut self, greatest: bool, parts: &[Ex], row: &[Datum]) -> Result<Datum, Stop> {
        let mut best = Datum::Null;
        for part in parts {
            let value = self.value(part, row)?;
            let better = best.is_null() || (if greatest { value > best } else { value < best });
            if !value.is_null() && better {
                best = value;
            }
        }
        Ok(best)
    }

    fn is_in(&mut self, value: &Ex, list: &[Ex], negated: bool, row: &[Datum]) -> Result<Datum, Stop> {
        let value = self.value(value, row)?;
        let mut unknown = value.is_null();
        for item in list {
            let item = self.value(item, row)?;
            match compared(Comparison::Equal, &value, &item) {
                Datum::Bool(true) => return Ok(Datum::Bool(!negated)),
                Datum::Null => unknown = true,
                _ => {}
            }
        }
        Ok(if unknown { Datum::Null } else { Datum::Bool(negated) })
    }

    fn like(&mut self, expression: &Ex, row: &[Datum]) -> Result<Datum, Stop> {
        let Ex::Like {
            value,
            pattern,
            escape,
            insensitive,
            negated,
        } = expression
        else {
            return Ok(Datum::Null);
        };
        let (value, pattern) = (self.value(value, row)?, self.value(pattern, row)?);
        let escape = match escape {
            None => Some('\\'),
            Some(escape) => {
                let escape = self.value(escape, row)?;
                let mut chars = escape.as_str().unwrap_or_default().chars();
                let (first, more) = (chars.next(), chars.next().is_some());
                if more {
                    let hint = "Escape string must be empty or one character.";
                    return Err(Report::error("22019", "invalid escape string").hint(hint).into());
                }
                first
            }
        };
        let (Some(value), Some(pattern)) = (value.as_str(), pattern.as_str()) else {
            return Ok(Datum::Null);
        };
        let found = strings::like(value, pattern, escape, *insensitive)?;
        Ok(Datum::Bool(found != *negated))
    }

    fn quantified(&mut self, expression: &Ex, row: &[Datum]) -> Result<Datum, Stop> {
        let (comparison, value, items, all) = match expression {
            Ex::Quantified {
                comparison,
                value,
                array,
                all,
            } => {
                let value = self.value(value, row)?;
                let Datum::Array(array) = self.value(array, row)? else {
                    return Ok(Datum::Null);
                };
                (*comparison, value, array.items.clone(), *all)
            }
            Ex::QuantifiedQuery {
                comparison,
                value,
                query,
                all,
            } => {
                let value = self.value(value, row)?;
                (*comparison, value, self.subquery(query, row)?, *all)
            }
            _ => return Ok(Datum::Null),
        };
        let mut unknown = false;
        for item in &items {
            match compared(comparison, &value, item) {
                Datum::Bool(holds) if holds != all => return Ok(Datum::Bool(!all)),
                Datum::Bool(_) => {}
                _ => unknown = true,
            }
        }
        Ok(if unknown { Datum::Null } else { Datum::Bool(all) })
    }

    /// The first column of a query inside an expression.
    fn subquery(&mut self, query: &SelectPlan, row: &[Datum]) -> Result<Vec<Datum>, Stop> {
        let tracking = std::mem::replace(&mut self.tracking, false);
        let sets = std::mem::take(&mut self.sets);
        let rows = self.query(query, row);
        self.tracking = tracking;
        self.sets = sets;
        let first = |row: super::Row| row.first().cloned().unwrap_or(Datum::Null);
        Ok(rows?.into_iter().map(first).collect())
    }
}

/// A comparison in three-valued logic.
pub(super) fn compared(comparison: Comparison, left: &Datum, right: &Datum) -> Datum {
    if left.is_null() || right.is_null() {
        return Datum::Null;
    }
    if let (Datum::Record(a), Datum::Record(b)) = (left, right) {
        return compared_records(comparison, a, b);
    }
    Datum::Bool(comparison.holds(left.cmp(right)))
}

fn compared_records(comparison: Comparison, a: &[Datum], b: &[Datum]) -> Datum {
    let mut unknown = false;
    for (a, b) in a.iter().zip(b) {
        if a.is_null() || b.is_null() {
            unknown = true;
            if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
                return Datum::Null;
            }
        } else if a != b {
            return Datum::Bool(comparison.holds(a.cmp(b)));
        }
    }
    if unknown {
        Datum::Null
    } else {
        Datum::Bool(comparison.holds(std::cmp::Ordering::Equal))
    }
}
