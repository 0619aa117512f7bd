//! Expressions: each kind to its analysed form and type.
//!
//! A part of analysis. A plain machine.

use std::sync::Arc;

use super::{Analyser, Typed, settled, unsupported};
use crate::postgres::engine::ast::{Expression, Node, Quantity, Query};
use crate::postgres::engine::plan::{Comparison, Ex, SelectPlan};
use crate::postgres::engine::types::cast::Context;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::numeric::Numeric;
use crate::postgres::engine::types::text::too_many_digits;
use crate::postgres::engine::types::{BOOL, INT4, INT8, JSONB, NUMERIC, RECORD, Scalar, TEXT, Type, UNKNOWN, text};
use crate::wire::Report;

impl Analyser<'_> {
    pub(super) fn expression(&mut self, expression: &Expression) -> Result<Typed, Report> {
        self.nested(|analyser| analyser.node(expression))
    }

    fn boxed(&mut self, expression: &Expression) -> Result<Box<Ex>, Report> {
        let typed = self.expression(expression)?;
        Ok(Box::new(self.settle(typed)?.ex))
    }

    fn condition(&mut self, expression: &Expression, of: &str) -> Result<Ex, Report> {
        let typed = self.expression(expression)?;
        self.boolean(typed, of, expression.at)
    }

    fn node(&mut self, expression: &Expression) -> Result<Typed, Report> {
        let at = expression.at;
        Ok(match &expression.node {
            Node::Null => Typed::new(Ex::Const(Datum::Null), UNKNOWN),
            Node::Bool(value) => Typed::new(Ex::Const(Datum::Bool(*value)), BOOL),
            Node::Text(value) => Typed::new(Ex::Const(Datum::text(value)), UNKNOWN),
            Node::Bits(digits) => Typed::new(
                Ex::Const(text::read(Type::of(Scalar::Bit), digits)?),
                Type::of(Scalar::Bit),
            ),
            Node::Number(digits) => number(digits)?,
            Node::Parameter(number) => self.parameter(*number, at)?,
            Node::Column(parts) => self.column(parts, at)?,
            Node::Star(_) => return Err(self.at(at, "42601", "syntax error at or near \"*\"")),
            Node::Default => return Err(self.at(at, "42601", "DEFAULT is not allowed in this context")),
            Node::And(left, right) => {
                let parts = vec![self.condition(left, "AND")?, self.condition(right, "AND")?];
                Typed::new(Ex::And(flattened(parts, true)), BOOL)
            }
            Node::Or(left, right) => {
                let parts = vec![self.condition(left, "OR")?, self.condition(right, "OR")?];
                Typed::new(Ex::Or(flattened(parts, false)), BOOL)
            }
            Node::Not(value) => Typed::new(Ex::Not(Box::new(self.condition(value, "NOT")?)), BOOL),
            Node::IsNull(value, negated) => Typed::new(Ex::IsNull(self.boxed(value)?, *negated), BOOL),
            Node::IsBool(value, wanted, negated) => {
                let value = Box::new(self.condition(value, "IS")?);
                Typed::new(Ex::IsBool(value, *wanted, *negated), BOOL)
            }
            Node::IsDistinct(left, right, negated) => {
                let (left, right) = (self.expression(left)?, self.expression(right)?);
                let compared = self.comparison(Comparison::Equal, "=", left, right, at)?;
                match compared.ex {
                    Ex::Compare(_, left, right) => Typed::new(Ex::Distinct(left, right, *negated), BOOL),
                    other => Typed::new(other, BOOL),
                }
            }
            Node::Unary(operator, value) => {
                let value = self.expression(value)?;
                self.unary(operator, value, at)?
            }
            Node::Binary(operator, left, right) => self.binary_node(operator, left, right, at)?,
            Node::Between { .. } => self.between(&expression.node, at)?,
            Node::Like { .. } => self.like(&expression.node)?,
            Node::In { value, list, negated } => self.is_in(value, list, *negated, at)?,
            Node::InQuery { value, query, negated } => {
                let value = self.expression(value)?;
                let found = self.quantified_query(Comparison::Equal, "=", value, query, false, at)?;
                if *negated {
                    Typed::new(Ex::Not(Box::new(found.ex)), BOOL)
                } else {
                    found
                }
            }
            Node::Quantified {
                operator,
                value,
                array,
                all,
            } => self.quantified(operator, value, array, *all, at)?,
            Node::Exists(query) => Typed::new(Ex::Exists(Arc::new(self.query(query, None)?)), BOOL),
            Node::Subquery(query) => {
                let (plan, of) = self.one_column(query, at)?;
                Typed::new(Ex::Subquery(plan), of)
            }
            Node::ArrayQuery(query) => {
                let (plan, of) = self.one_column(query, at)?;
                Typed::new(Ex::ArrayQuery(plan, of), Type::array(of.scalar))
            }
            Node::Case { .. } => self.case(&expression.node, at)?,
            Node::Cast(value, name) => {
                let (to, modifier) = self.type_named(name)?;
                self.cast_node(value, to, modifier, at)?
            }
            Node::Call(call) => self.call(call, at)?,
            Node::Array(items) => self.array(items, None, at)?,
            Node::Row(items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    let typed = self.expression(item)?;
                    values.push(self.settle(typed)?.ex);
                }
                Typed::new(Ex::Row(values), RECORD)
            }
            Node::Index(value, index) => self.index(value, index, at)?,
        })
    }

    fn parameter(&mut self, number: usize, at: usize) -> Result<Typed, Report> {
        if number == 0 || self.fixed {
            return Err(self.at(at, "42P02", format!("there is no parameter ${number}")));
        }
        if self.parameters.len() < number {
            self.parameters.resize(number, None);
        }
        let of = self.parameters[number - 1].unwrap_or(UNKNOWN);
        Ok(Typed::new(Ex::Parameter(number - 1), of))
    }

    fn binary_node(
        &mut self,
        operator: &str,
        left: &Expression,
        right: &Expression,
        at: usize,
    ) -> Result<Typed, Report> {
        if let (Node::Row(left), Node::Row(right), Some(comparison)) =
            (&left.node, &right.node, Comparison::of(operator))
        {
            if left.len() != right.len() {
                return Err(self.at(at, "42601", "unequal number of entries in row expressions"));
            }
            let (mut lefts, mut rights) = (Vec::new(), Vec::new());
            for (left, right) in left.iter().zip(right) {
                let (left, right) = (self.expression(left)?, self.expression(right)?);
                if let Ex::Compare(_, left, right) = self.comparison(comparison, operator, left, right, at)?.ex {
                    lefts.push(*left);
                    rights.push(*right);
                }
            }
            let compare = Ex::Compare(comparison, Box::new(Ex::Row(lefts)), Box::new(Ex::Row(rights)));
            return Ok(Typed::new(compare, BOOL));
        }
        let left = self.expression(left)?;
        let right = self.expression(right)?;
        self.binary(operator, left, right, at)
    }

    fn between(&mut self, node: &Node, at: usize) -> Result<Typed, Report> {
        let Node::Between {
            value,
            low,
            high,
            negated,
            symmetric,
        } = node
        else {
            return Err(unsupported("this expression"));
        };
        let value = self.expression(value)?;
        let (low, high) = (self.expression(low)?, self.expression(high)?);
        let mut range = |low: Typed, high: Typed| -> Result<Ex, Report> {
            let above = self.comparison(Comparison::GreaterOrEqual, ">=", value.clone(), low, at)?;
            let below = self.comparison(Comparison::LessOrEqual, "<=", value.clone(), high, at)?;
            Ok(Ex::And(vec![above.ex, below.ex]))
        };
        let mut found = range(low.clone(), high.clone())?;
        if *symmetric {
            found = Ex::Or(vec![found, range(high, low)?]);
        }
        Ok(Typed::new(
            if *negated { Ex::Not(Box::new(found)) } else { found },
            BOOL,
        ))
    }

    fn like(&mut self, node: &Node) -> Result<Typed, Report> {
        let Node::Like {
            value,
            pattern,
            escape,
            insensitive,
            negated,
        } = node
        else {
            return Err(unsupported("this expression"));
        };
        let operator = match (insensitive, negated) {
            (false, false) => "~~",
            (false, true) => "!~~",
            (true, false) => "~~*",
            (true, true) => "!~~*",
        };
        let (left, right) = (self.expression(value)?, self.expression(pattern)?);
        let strings = |of: Type| of.is_string() || of.is_unknown();
        if !strings(left.of) || !strings(right.of) {
            let message = format!(
                "operator does not exist: {} {operator} {}",
                left.of.shown(),
                right.of.shown()
            );
            let hint =
                "No operator matches the given name and argument types. You might need to add explicit type casts.";
            return Err(self.at(value.at, "42883", message).hint(hint));
        }
        let mut text = |typed: Typed, at: usize| self.coerce(typed, (TEXT, -1), Context::Implicit, at).map(Box::new);
        let (left, right) = (text(left, value.at)?, text(right, pattern.at)?);
        let escape = match escape {
            Some(escape) => {
                let typed = self.expression(escape)?;
                Some(Box::new(self.coerce(
                    typed,
                    (TEXT, -1),
                    Context::Implicit,
                    escape.at,
                )?))
            }
            None => None,
        };
        let like = Ex::Like {
            value: left,
            pattern: right,
            escape,
            insensitive: *insensitive,
            negated: *negated,
        };
        Ok(Typed::new(like, BOOL))
    }

    fn is_in(&mut self, value: &Expression, list: &[Expression], negated: bool, at: usize) -> Result<Typed, Report> {
        if let Node::Row(_) = value.node {
            let mut parts = Vec::with_capacity(list.len());
            for item in list {
                parts.push(self.binary_node("=", value, item, at)?.ex);
            }
            let found = Ex::Or(parts);
            return Ok(Typed::new(if negated { Ex::Not(Box::new(found)) } else { found }, BOOL));
        }
        let value = self.expression(value)?;
        let items = self.values(list)?;
        // The value's type decides, and takes its own from the list if it has none.
        let mut types = vec![value.of];
        types.extend(items.iter().map(|item| item.of));
        let anchor = if value.of.is_unknown() {
            let common = self.common_type(&types, "IN", at)?;
            let ex = self.coerce(value, (common, -1), Context::Implicit, at)?;
            Typed::new(ex, common)
        } else {
            value
        };
        let mut compared = Vec::with_capacity(items.len());
        for item in items {
            match self.comparison(Comparison::Equal, "=", anchor.clone(), item, at)?.ex {
                Ex::Compare(_, _, item) => compared.push(*item),
                _ => return Err(unsupported("this IN")),
            }
        }
        let found = Ex::In {
            value: Box::new(anchor.ex),
            list: compared,
            negated,
        };
        Ok(Typed::new(found, BOOL))
    }

    fn quantified(
        &mut self,
        operator: &str,
        value: &Expression,
        array: &Quantity,
        all: bool,
        at: usize,
    ) -> Result<Typed, Report> {
        let Some(comparison) = Comparison::of(operator) else {
            return Err(unsupported(&format!("{operator} with ANY or ALL")));
        };
        let value = self.expression(value)?;
        let array = match array {
            Quantity::Query(query) => return self.quantified_query(comparison, operator, value, query, all, at),
            Quantity::Array(array) => array,
        };
        let typed = self.expression(array)?;
        let (value, typed) = match (value.of, typed.of) {
            (a, b) if b.is_unknown() => {
                let a = settled(a);
                let value = self.coerce(value, (a, -1), Context::Implicit, at)?;
                let array_type = Type::array(a.scalar);
                let array = self.coerce(typed, (array_type, -1), Context::Implicit, array.at)?;
                (Typed::new(value, a), Typed::new(array, array_type))
            }
            _ => (value, typed),
        };
        if !typed.of.array {
            return Err(self.at(at, "42809", "op ANY/ALL (array) requires array on right side"));
        }
        let element = Typed::new(Ex::Const(Datum::Null), typed.of.element());
        let Ex::Compare(_, value, _) = self.comparison(comparison, operator, value, element, at)?.ex else {
            return Err(unsupported("this ANY"));
        };
        let found = Ex::Quantified {
            comparison,
            value,
            array: Box::new(typed.ex),
            all,
        };
        Ok(Typed::new(found, BOOL))
    }

    fn quantified_query(
        &mut self,
        comparison: Comparison,
        operator: &str,
        value: Typed,
        query: &Query,
        all: bool,
        at: usize,
    ) -> Result<Typed, Report> {
        let plan = self.query(query, Some(&[value.of]))?;
        if plan.columns.len() != 1 {
            return Err(self.at(at, "42601", "subquery has too many columns"));
        }
        let of = plan.columns[0].of;
        let column = Typed::new(Ex::Const(Datum::Null), of);
        let Ex::Compare(_, value, _) = self.comparison(comparison, operator, value, column, at)?.ex else {
            return Err(unsupported("rows compared with a subquery"));
        };
        let found = Ex::QuantifiedQuery {
            comparison,
            value,
            query: Arc::new(plan),
            all,
        };
        Ok(Typed::new(found, BOOL))
    }

    fn one_column(&mut self, query: &Query, at: usize) -> Result<(Arc<SelectPlan>, Type), Report> {
        let plan = self.query(query, None)?;
        match plan.columns.as_slice() {
            [column] => {
                let of = column.of;
                Ok((Arc::new(plan), of))
            }
            _ => Err(self.at(at, "42601", "subquery must return only one column")),
        }
    }

    fn case(&mut self, node: &Node, at: usize) -> Result<Typed, Report> {
        let Node::Case {
            operand,
            branches,
            otherwise,
        } = node
        else {
            return Err(unsupported("this expression"));
        };
        let operand = match operand {
            Some(operand) => {
                let typed = self.expression(operand)?;
                Some(self.settle(typed)?)
            }
            None => None,
        };
        let mut conditions = Vec::with_capacity(branches.len());
        let mut results = Vec::with_capacity(branches.len() + 1);
        for (condition, result) in branches {
            conditions.push(match &operand {
                None => self.condition(condition, "CASE/WHEN")?,
                Some(operand) => {
                    let value = self.expression(condition)?;
                    match self.comparison(Comparison::Equal, "=", operand.clone(), value, at)?.ex {
                        Ex::Compare(_, _, value) => *value,
                        _ => return Err(unsupported("CASE over rows")),
                    }
                }
            });
            results.push(self.expression(result)?);
        }
        match otherwise {
            Some(otherwise) => {
                let otherwise = self.expression(otherwise)?;
                results.insert(0, otherwise);
            }
            None => results.insert(0, Typed::new(Ex::Const(Datum::Null), UNKNOWN)),
        }
        let (mut values, of) = self.matched(results, "CASE", at)?;
        let otherwise_value = values.remove(0);
        let case = Ex::Case {
            operand: operand.map(|operand| Box::new(operand.ex)),
            branches: conditions.into_iter().zip(values).collect(),
            otherwise: otherwise.is_some().then(|| Box::new(otherwise_value)),
        };
        Ok(Typed::new(case, of))
    }

    fn cast_node(&mut self, value: &Expression, to: Type, modifier: i32, at: usize) -> Result<Typed, Report> {
        // An array constructor takes its elements' type from the cast.
        if let (Node::Array(items), true) = (&value.node, to.array) {
            return self.array(items, Some(to.element()), at);
        }
        let typed = self.expression(value)?;
        let ex = self.coerce(typed, (to, modifier), Context::Explicit, value.at)?;
        Ok(Typed { ex, of: to, modifier })
    }

    fn array(&mut self, items: &[Expression], element: Option<Type>, at: usize) -> Result<Typed, Report> {
        let values = self.values(items)?;
        let (values, element) = match element {
            Some(element) => {
                let coerced = values
                    .into_iter()
                    .map(|typed| self.coerce(typed, (element, -1), Context::Explicit, at));
                (coerced.collect::<Result<Vec<_>, _>>()?, element)
            }
            None if values.is_empty() => {
                let hint = "Explicitly cast to the desired type, for example ARRAY[]::integer[].";
                return Err(self.at(at, "42P18", "cannot determine type of empty array").hint(hint));
            }
            None => self.matched(values, "ARRAY", at)?,
        };
        if element.array {
            return Err(unsupported("arrays of more than one dimension"));
        }
        Ok(Typed::new(Ex::Array(element, values), Type::array(element.scalar)))
    }

    fn index(&mut self, value: &Expression, index: &Expression, at: usize) -> Result<Typed, Report> {
        let (value, index_value) = (self.expression(value)?, self.expression(index)?);
        if value.of == JSONB {
            return self.apply("->", vec![value, index_value], at);
        }
        if !value.of.array {
            let message = format!(
                "cannot subscript type {} because it does not support subscripting",
                value.of.shown()
            );
            return Err(self.at(at, "42804", message));
        }
        let index_value = self.coerce(index_value, (INT4, -1), Context::Assignment, index.at)?;
        let of = value.of.element();
        Ok(Typed::new(Ex::Index(Box::new(value.ex), Box::new(index_value)), of))
    }
}

/// A number takes the narrowest of integer, bigint and numeric.
fn number(digits: &str) -> Result<Typed, Report> {
    if let Ok(value) = digits.parse::<i32>() {
        return Ok(Typed::new(Ex::Const(Datum::Int4(value)), INT4));
    }
    if let Ok(value) = digits.parse::<i64>() {
        return Ok(Typed::new(Ex::Const(Datum::Int8(value)), INT8));
    }
    let value = Numeric::parse(digits).ok_or_else(too_many_digits)?;
    Ok(Typed::new(Ex::Const(Datum::Numeric(value)), NUMERIC))
}

/// `a AND b AND c` as one list.
fn flattened(parts: Vec<Ex>, and: bool) -> Vec<Ex> {
    let mut flat = Vec::new();
    for part in parts {
        match part {
            Ex::And(inner) if and => flat.extend(inner),
            Ex::Or(inner) if !and => flat.extend(inner),
            other => flat.push(other),
        }
    }
    flat
}
