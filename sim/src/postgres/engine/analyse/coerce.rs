//! Casts that analysis puts in: literals and parameters take the types their places ask for.
//!
//! A part of analysis. A plain machine.

use super::{Analyser, Typed, settled};
use crate::postgres::engine::functions::math;
use crate::postgres::engine::plan::Ex;
use crate::postgres::engine::types::cast::{self, Context};
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{BOOL, Scalar, TEXT, Type, text};
use crate::wire::Report;

impl Analyser<'_> {
    /// The expression as a value of a type, if the context allows the cast.
    pub(super) fn coerce(
        &mut self,
        typed: Typed,
        (to, modifier): (Type, i32),
        context: Context,
        at: usize,
    ) -> Result<Ex, Report> {
        let fitted = |ex: Ex, from: Type| {
            if modifier < 0 {
                return ex;
            }
            Ex::Cast {
                value: Box::new(ex),
                from,
                to,
                modifier,
                context,
            }
        };
        if typed.of == to {
            let fits = modifier < 0 || typed.modifier == modifier;
            return Ok(if fits { typed.ex } else { fitted(typed.ex, to) });
        }
        if typed.of.is_unknown() {
            match &typed.ex {
                Ex::Parameter(number) => {
                    self.parameters[*number] = Some(to);
                    return Ok(fitted(typed.ex, to));
                }
                Ex::Const(Datum::Null) => return Ok(typed.ex),
                Ex::Const(value) if !is_registered(to) => {
                    let read = text::read(to, value.as_str().unwrap_or_default());
                    let read =
                        read.map_err(|report| report.position(super::super::lexer::characters(self.text, at)))?;
                    return Ok(fitted(Ex::Const(read), to));
                }
                _ => {}
            }
        }
        match cast::context(typed.of, to) {
            Some(least) if least <= context => Ok(Ex::Cast {
                value: Box::new(typed.ex),
                from: settled(typed.of),
                to,
                modifier,
                context,
            }),
            _ => {
                let message = format!("cannot cast type {} to {}", typed.of.shown(), to.shown());
                Err(self.at(at, "42846", message))
            }
        }
    }

    /// The type of an unknown literal or parameter that nothing else has given one.
    pub(super) fn settle(&mut self, typed: Typed) -> Result<Typed, Report> {
        if !typed.of.is_unknown() {
            return Ok(typed);
        }
        let ex = self.coerce(typed, (TEXT, -1), Context::Implicit, 0)?;
        Ok(Typed::new(ex, TEXT))
    }

    pub(super) fn boolean(&mut self, typed: Typed, clause: &str, at: usize) -> Result<Ex, Report> {
        if typed.of == BOOL || typed.of.is_unknown() {
            return self.coerce(typed, (BOOL, -1), Context::Implicit, at);
        }
        let message = format!(
            "argument of {clause} must be type boolean, not type {}",
            typed.of.shown()
        );
        Err(self.at(at, "42804", message))
    }

    /// A value for a column.
    pub(super) fn assign(
        &mut self,
        typed: Typed,
        name: &str,
        (to, modifier): (Type, i32),
        at: usize,
    ) -> Result<Ex, Report> {
        let allowed = cast::context(typed.of, to).is_some_and(|context| context <= Context::Assignment);
        if !allowed {
            let message = format!(
                "column \"{name}\" is of type {} but expression is of type {}",
                to.shown(),
                typed.of.shown()
            );
            return Err(self
                .at(at, "42804", message)
                .hint("You will need to rewrite or cast the expression."));
        }
        self.coerce(typed, (to, modifier), Context::Assignment, at)
    }

    /// One type for values that stand side by side, as in CASE, COALESCE, VALUES, UNION.
    pub(super) fn common_type(&self, types: &[Type], what: &str, at: usize) -> Result<Type, Report> {
        let mut known = types.iter().copied().filter(|of| !of.is_unknown());
        let Some(mut found) = known.next() else {
            return Ok(TEXT);
        };
        for of in known {
            if of == found {
                continue;
            }
            if let Some(number) = math::common(found, of) {
                found = number;
            } else if of.category() != found.category() {
                let message = format!("{what} types {} and {} cannot be matched", found.shown(), of.shown());
                return Err(self.at(at, "42804", message));
            } else if !found.is_preferred() && cast::context(found, of) == Some(Context::Implicit) {
                found = of;
            } else if cast::context(of, found) != Some(Context::Implicit) {
                let message = format!("{what} could not convert type {} to {}", of.shown(), found.shown());
                return Err(self.at(at, "42846", message));
            }
        }
        Ok(found)
    }

    /// Values in their common type.
    pub(super) fn matched(&mut self, values: Vec<Typed>, what: &str, at: usize) -> Result<(Vec<Ex>, Type), Report> {
        let types: Vec<Type> = values.iter().map(|typed| typed.of).collect();
        let common = self.common_type(&types, what, at)?;
        let coerced = values
            .into_iter()
            .map(|typed| self.coerce(typed, (common, -1), Context::Implicit, at));
        Ok((coerced.collect::<Result<_, _>>()?, common))
    }
}

/// Whether texts of the type are names that the catalog knows.
fn is_registered(of: Type) -> bool {
    !of.array && matches!(of.scalar, Scalar::Regclass | Scalar::Regnamespace | Scalar::Regtype)
}
