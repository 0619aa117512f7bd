//! The choice of functions and operators by their names and the types of their arguments (manual, chapter 10).
//!
//! A part of analysis. A plain machine.

use super::{Analyser, Typed, settled, unsupported};
use crate::postgres::engine::ast::{self, Expression};
use crate::postgres::engine::functions::aggregates::Aggregate;
use crate::postgres::engine::functions::{self, Argument, Function, Returns, Run, math};
use crate::postgres::engine::plan::{AggregateCall, Comparison, Ex};
use crate::postgres::engine::types::cast::{self, Context};
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{BOOL, INTERVAL, Scalar, TEXT, Type, UNKNOWN};
use crate::wire::Report;

const HINT: &str = "No operator matches the given name and argument types. You might need to add explicit type casts.";

impl Analyser<'_> {
    pub(super) fn call(&mut self, call: &ast::Call, at: usize) -> Result<Typed, Report> {
        if let Some(schema) = call.schema.as_deref()
            && schema != "pg_catalog"
        {
            let shown = format!("{schema}.{}", call.name);
            let values = self.values(&call.arguments)?;
            return Err(self.no_function(&shown, &values, at));
        }
        let aggregate = if call.star {
            (call.name == "count").then_some(Aggregate::CountAll)
        } else {
            Aggregate::named(&call.name)
        };
        if let Some(aggregate) = aggregate {
            return self.aggregate(aggregate, call, at);
        }
        if call.filter.is_some() || call.distinct || !call.order.is_empty() || call.star {
            if functions::named(&call.name).next().is_none() && functions::is_known_elsewhere(&call.name) {
                return Err(unsupported(&format!("{}()", call.name)));
            }
            let message = format!("{} is not an aggregate function", call.name);
            return Err(self.at(at, "42809", message));
        }
        let values = self.values(&call.arguments)?;
        match (call.name.as_str(), values.len()) {
            ("coalesce", 1..) => {
                let (values, of) = self.matched(values, "COALESCE", at)?;
                return Ok(Typed::new(Ex::Coalesce(values), of));
            }
            ("greatest" | "least", 1..) => {
                let what = call.name.to_ascii_uppercase();
                let (values, of) = self.matched(values, &what, at)?;
                return Ok(Typed::new(Ex::Extreme(call.name == "greatest", values), of));
            }
            ("nullif", 2) => {
                let (left, right) = two(values);
                let of = if left.of.is_unknown() { right.of } else { left.of };
                let Ex::Compare(_, left, right) = self.comparison(Comparison::Equal, "=", left, right, at)?.ex else {
                    return Err(unsupported("NULLIF of rows"));
                };
                return Ok(Typed::new(Ex::NullIf(left, right), settled(of)));
            }
            ("pg_typeof", 1) => {
                let of = values[0].of;
                return Ok(Typed::new(Ex::Const(Datum::Oid(of.oid())), Type::of(Scalar::Regtype)));
            }
            _ => {}
        }
        if functions::named(&call.name).next().is_none() && values.len() == 1 {
            // A type's name is a cast.
            let known = Scalar::named(&call.name).filter(|_| !call.name.contains(' '));
            if let Some(scalar) = known {
                let to = Type::of(scalar);
                let value = values
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| Typed::new(Ex::Const(Datum::Null), UNKNOWN));
                let ex = self.coerce(value, (to, -1), Context::Explicit, at)?;
                return Ok(Typed::new(ex, to));
            }
        }
        self.apply(&call.name, values, at)
    }

    pub(super) fn values(&mut self, expressions: &[Expression]) -> Result<Vec<Typed>, Report> {
        expressions
            .iter()
            .map(|expression| self.expression(expression))
            .collect()
    }

    /// A call of the function or operator that fits best.
    pub(super) fn apply(&mut self, name: &str, values: Vec<Typed>, at: usize) -> Result<Typed, Report> {
        let (function, arguments, of) = self.chosen(name, values, at)?;
        if matches!(function.run, Run::Set(..)) {
            let scope = self.scope();
            if scope.clause != "SELECT" || scope.in_aggregate {
                let message = format!("set-returning functions are not allowed in {}", scope.clause);
                return Err(self.at(at, "0A000", message));
            }
            scope.sets.push((function, arguments));
            let set = scope.sets.len() - 1;
            return Ok(Typed::new(Ex::Set(set), of));
        }
        Ok(Typed::new(Ex::Call(function, arguments), of))
    }

    /// The function, its arguments in the types it wants, and what it gives.
    pub(super) fn chosen(
        &mut self,
        name: &str,
        values: Vec<Typed>,
        at: usize,
    ) -> Result<(&'static Function, Vec<Ex>, Type), Report> {
        let types: Vec<Type> = values.iter().map(|typed| typed.of).collect();
        let Some(function) = choose(name, &types) else {
            return Err(self.no_function(name, &values, at));
        };
        let function = function.map_err(|()| {
            let shown = shown(name, &types);
            let (what, hint) = if is_operator(name) {
                (
                    "operator",
                    "Could not choose a best candidate operator. You might need to add explicit type casts.",
                )
            } else {
                (
                    "function",
                    "Could not choose a best candidate function. You might need to add explicit type casts.",
                )
            };
            self.at(at, "42725", format!("{what} {shown} is not unique")).hint(hint)
        })?;
        let element = element_of(function, &types);
        let mut arguments = Vec::with_capacity(values.len());
        for (place, typed) in values.into_iter().enumerate() {
            let to = match wanted(function, place) {
                Argument::Is(of) => of,
                Argument::AnyElement => element,
                Argument::AnyArray => Type::array(element.scalar),
                Argument::Any => settled(typed.of),
            };
            arguments.push(self.coerce(typed, (to, -1), Context::Implicit, at)?);
        }
        let of = match function.returns {
            Returns::Is(of) => of,
            Returns::Element => element,
            Returns::Array => Type::array(element.scalar),
        };
        Ok((function, arguments, of))
    }

    fn no_function(&self, name: &str, values: &[Typed], at: usize) -> Report {
        let types: Vec<Type> = values.iter().map(|typed| typed.of).collect();
        if is_operator(name) {
            if ["~", "~*", "!~", "!~*"].contains(&name) {
                return unsupported("regular expressions");
            }
            return self
                .at(at, "42883", format!("operator does not exist: {}", shown(name, &types)))
                .hint(HINT);
        }
        if functions::is_known_elsewhere(name) || functions::named(name).next().is_some() && types.contains(&UNKNOWN) {
            return unsupported(&format!("the function {}", shown(name, &types)));
        }
        let hint = "No function matches the given name and argument types. You might need to add explicit type casts.";
        self.at(at, "42883", format!("function {} does not exist", shown(name, &types)))
            .hint(hint)
    }

    fn aggregate(&mut self, aggregate: Aggregate, call: &ast::Call, at: usize) -> Result<Typed, Report> {
        let (clause, inside) = (self.scope().clause, self.scope().in_aggregate);
        if inside {
            return Err(self.at(at, "42803", "aggregate function calls cannot be nested"));
        }
        if !["SELECT", "HAVING", "ORDER BY"].contains(&clause) {
            return Err(self.at(at, "42803", format!("aggregate functions are not allowed in {clause}")));
        }
        self.scope().in_aggregate = true;
        let parts = self.aggregate_parts(call);
        self.scope().in_aggregate = false;
        let (values, order, filter) = parts?;
        let types: Vec<Type> = values.iter().map(|typed| typed.of).collect();
        let Some((wanted, result)) = aggregate.signature(&types) else {
            if functions::is_known_elsewhere(&call.name) && !types.is_empty() && types[0].array {
                return Err(unsupported(&format!("{} of this type", call.name)));
            }
            let hint =
                "No function matches the given name and argument types. You might need to add explicit type casts.";
            let message = format!("function {} does not exist", shown(&call.name, &types));
            return Err(self.at(at, "42883", message).hint(hint));
        };
        let mut arguments = Vec::with_capacity(values.len());
        for (typed, to) in values.into_iter().zip(wanted) {
            let to = if to.is_unknown() { TEXT } else { to };
            arguments.push(self.coerce(typed, (to, -1), Context::Implicit, at)?);
        }
        let scope = self.scope();
        scope.aggregates.push(AggregateCall {
            function: aggregate,
            arguments,
            result,
            distinct: call.distinct,
            order,
            filter,
        });
        let place = scope.aggregates.len() - 1;
        Ok(Typed::new(Ex::Aggregate(place), result))
    }

    #[expect(clippy::type_complexity, reason = "three parts of one call")]
    fn aggregate_parts(&mut self, call: &ast::Call) -> Result<(Vec<Typed>, Vec<(Ex, bool, bool)>, Option<Ex>), Report> {
        let values = self.values(&call.arguments)?;
        let mut order = Vec::new();
        for key in &call.order {
            let typed = self.expression(&key.key)?;
            let typed = self.settle(typed)?;
            order.push((typed.ex, key.descending, key.nulls_first));
        }
        let filter = match &call.filter {
            Some(filter) => {
                let typed = self.expression(filter)?;
                Some(self.boolean(typed, "FILTER", filter.at)?)
            }
            None => None,
        };
        Ok((values, order, filter))
    }

    /// An operator between two values.
    pub(super) fn binary(&mut self, operator: &str, left: Typed, right: Typed, at: usize) -> Result<Typed, Report> {
        if let Some(comparison) = Comparison::of(operator) {
            return self.comparison(comparison, operator, left, right, at);
        }
        if let Some(function) = math::operator(operator) {
            let (a, b) = match (left.of, right.of) {
                (a, b) if a.is_unknown() => (b, b),
                (a, b) if b.is_unknown() => (a, a),
                same => same,
            };
            if let Some(common) = math::common(a, b) {
                let common = if operator == "^" {
                    crate::postgres::engine::types::FLOAT8
                } else {
                    common
                };
                let left = self.coerce(left, (common, -1), Context::Implicit, at)?;
                let right = self.coerce(right, (common, -1), Context::Implicit, at)?;
                return Ok(Typed::new(Ex::Call(function, vec![left, right]), common));
            }
            if left.of.is_unknown() && right.of.is_unknown() {
                let hint = "Could not choose a best candidate operator. You might need to add explicit type casts.";
                let message = format!("operator is not unique: unknown {operator} unknown");
                return Err(self.at(at, "42725", message).hint(hint));
            }
        }
        self.apply(operator, vec![left, right], at)
    }

    pub(super) fn comparison(
        &mut self,
        comparison: Comparison,
        operator: &str,
        left: Typed,
        right: Typed,
        at: usize,
    ) -> Result<Typed, Report> {
        let compare = |left: Ex, right: Ex| Typed::new(Ex::Compare(comparison, Box::new(left), Box::new(right)), BOOL);
        if let (Ex::Row(_), Ex::Row(_)) = (&left.ex, &right.ex) {
            return Ok(compare(left.ex, right.ex));
        }
        let (a, b) = match (left.of, right.of) {
            (a, b) if a.is_unknown() && b.is_unknown() => (TEXT, TEXT),
            (a, b) if a.is_unknown() => (b, b),
            (a, b) if b.is_unknown() => (a, a),
            same => same,
        };
        // Values of these kinds compare across their types as they are.
        let dates = |of: Type| of.category() == b'D';
        let oids = |of: Type| {
            !of.array
                && matches!(
                    of.scalar,
                    Scalar::Oid | Scalar::Regclass | Scalar::Regtype | Scalar::Regnamespace
                )
        };
        let integer = |of: Type| of.number_rank().is_some_and(|rank| rank <= 2);
        let alike = math::common(a, b).is_some()
            || (a.is_string() && b.is_string())
            || (dates(a) && dates(b))
            || (oids(a) && (oids(b) || integer(b)))
            || (integer(a) && oids(b));
        let comparable = |of: Type| !of.is(Scalar::Json) && !of.is(Scalar::Void) && !of.is(Scalar::Record);
        if !(comparable(a) && comparable(b)) || !(alike || a == b) {
            let types = [left.of, right.of];
            return Err(self
                .at(
                    at,
                    "42883",
                    format!("operator does not exist: {}", shown(operator, &types)),
                )
                .hint(HINT));
        }
        let to = |given: Type, wanted: Type| if given.is_unknown() { wanted } else { given };
        let (to_left, to_right) = (to(left.of, a), to(right.of, b));
        let left = self.coerce(left, (to_left, -1), Context::Implicit, at)?;
        let right = self.coerce(right, (to_right, -1), Context::Implicit, at)?;
        Ok(compare(left, right))
    }

    pub(super) fn unary(&mut self, operator: &str, value: Typed, at: usize) -> Result<Typed, Report> {
        if value.of.number_rank().is_some() || value.of == INTERVAL {
            match operator {
                "+" => return Ok(value),
                "-" => return Ok(Typed::new(Ex::Call(&math::NEGATE, vec![value.ex]), value.of)),
                "@" => return self.apply("abs", vec![value], at),
                _ => {}
            }
        }
        let message = format!("operator does not exist: {operator} {}", value.of.shown());
        Err(self.at(at, "42883", message).hint(HINT))
    }
}

fn two(values: Vec<Typed>) -> (Typed, Typed) {
    let mut values = values.into_iter();
    let mut next = || {
        values
            .next()
            .unwrap_or_else(|| Typed::new(Ex::Const(Datum::Null), UNKNOWN))
    };
    (next(), next())
}

fn is_operator(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// A call as errors show it.
fn shown(name: &str, types: &[Type]) -> String {
    let names: Vec<String> = types.iter().map(|of| of.shown()).collect();
    match names.as_slice() {
        [left, right] if is_operator(name) => format!("{left} {name} {right}"),
        _ => format!("{name}({})", names.join(", ")),
    }
}

/// What the argument at a place may be.
fn wanted(function: &Function, place: usize) -> Argument {
    let last = function.arguments.len().saturating_sub(1);
    function
        .arguments
        .get(place.min(last))
        .copied()
        .unwrap_or(Argument::Any)
}

/// What `AnyElement` stands for.
fn element_of(function: &Function, types: &[Type]) -> Type {
    let mut found = UNKNOWN;
    for (place, of) in types.iter().enumerate() {
        match wanted(function, place) {
            Argument::AnyArray if of.array => return of.element(),
            Argument::AnyElement if !of.is_unknown() => found = *of,
            _ => {}
        }
    }
    settled(found)
}

/// The best function; `None` if there is none, an error if there are several.
fn choose(name: &str, types: &[Type]) -> Option<Result<&'static Function, ()>> {
    let fits_count = |function: &&'static Function| {
        let count = function.arguments.len();
        if function.variadic {
            types.len() + 1 >= count
        } else {
            types.len() == count
        }
    };
    let candidates: Vec<&'static Function> = functions::named(name).filter(fits_count).collect();
    let exact = |function: &Function, place: usize| wanted(function, place) == Argument::Is(types[place]);
    let all =
        |function: &&&'static Function| !function.variadic && (0..types.len()).all(|place| exact(function, place));
    if let Some(function) = candidates.iter().find(all) {
        return Some(Ok(function));
    }
    // One unknown side of an operator is taken to be like the other one.
    if let ([a, b], true) = (types, is_operator(name))
        && a.is_unknown() != b.is_unknown()
    {
        let known = if a.is_unknown() { *b } else { *a };
        let both = |function: &&&'static Function| {
            function
                .arguments
                .iter()
                .all(|argument| *argument == Argument::Is(known))
        };
        if let Some(function) = candidates.iter().find(both) {
            return Some(Ok(function));
        }
    }
    let mut left: Vec<&'static Function> = candidates
        .into_iter()
        .filter(|function| accepts(function, types))
        .collect();
    keep_best(&mut left, |function| {
        (0..types.len()).filter(|place| exact(function, *place)).count()
    });
    keep_best(&mut left, |function| {
        let preferred = |place: &usize| match wanted(function, *place) {
            Argument::Is(of) => !types[*place].is_unknown() && (of == types[*place] || of.is_preferred()),
            _ => false,
        };
        (0..types.len()).filter(preferred).count()
    });
    for place in (0..types.len()).filter(|place| types[*place].is_unknown()) {
        prefer_strings(&mut left, place);
    }
    if left.len() > 1 && types.iter().any(|of| of.is_unknown()) {
        // Unknown ones are like the known ones, if these are all alike.
        let mut known = types.iter().copied().filter(|of| !of.is_unknown());
        if let Some(first) = known.next()
            && known.all(|of| of == first)
        {
            let assumed = vec![first; types.len()];
            let like: Vec<_> = left
                .iter()
                .copied()
                .filter(|function| accepts(function, &assumed))
                .collect();
            if !like.is_empty() {
                left = like;
                keep_best(&mut left, |function| {
                    (0..types.len())
                        .filter(|place| wanted(function, *place) == Argument::Is(first))
                        .count()
                });
            }
        }
    }
    match left.as_slice() {
        [] => None,
        [function] => Some(Ok(function)),
        _ => Some(Err(())),
    }
}

fn accepts(function: &Function, types: &[Type]) -> bool {
    let element = element_of(function, types);
    types.iter().enumerate().all(|(place, of)| {
        of.is_unknown()
            || match wanted(function, place) {
                Argument::Any => true,
                Argument::AnyArray => of.array && of.element() == element,
                Argument::AnyElement => !of.array && cast::context(*of, element) == Some(Context::Implicit),
                Argument::Is(wanted) => cast::context(*of, wanted) == Some(Context::Implicit),
            }
    })
}

fn keep_best(left: &mut Vec<&'static Function>, score: impl Fn(&'static Function) -> usize) {
    let best = left.iter().map(|function| score(function)).max().unwrap_or(0);
    left.retain(|function| score(function) == best);
}

/// At an unknown argument strings are preferred, else the one category that all agree on and its preferred type.
fn prefer_strings(left: &mut Vec<&'static Function>, place: usize) {
    let category = |function: &&'static Function| match wanted(function, place) {
        Argument::Is(of) => Some(of.category()),
        _ => None,
    };
    let string = left.iter().any(|function| category(function) == Some(b'S'));
    let first = left.first().and_then(category);
    let chosen = if string {
        Some(b'S')
    } else if left.iter().all(|function| category(function) == first) {
        first
    } else {
        None
    };
    let Some(chosen) = chosen else { return };
    left.retain(|function| category(function) == Some(chosen));
    let preferred =
        |function: &&'static Function| matches!(wanted(function, place), Argument::Is(of) if of.is_preferred());
    if left.iter().any(preferred) {
        left.retain(preferred);
    }
}
