//! The functions and operators of SQL: which there are, by name and types, and what they do.
//!
//! Chosen by analysis, called by evaluation. A plain machine. One file per family; aggregates are a kind of their own.

mod advisory;
pub(crate) mod aggregates;
mod arrays;
mod json;
pub(crate) mod math;
mod sequences;
pub(crate) mod strings;
pub(crate) mod system;
mod time;
mod write_ahead;

use std::fmt;

use super::door::Row;
use super::execute::{Context, Stop};
use super::types::Type;
use super::types::datum::Datum;

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Any,
    AnyArray,
    /// One type for all arguments that say so.
    AnyElement,
    Is(Type),
}

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returns {
    /// An array of what `AnyElement` stands for.
    Array,
    /// What `AnyElement` stands for, or the element of `AnyArray`.
    Element,
    Is(Type),
}

/// How a call is done.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Its answer depends on its arguments and the session's state only.
    Plain(fn(&mut Context<'_>, &[Datum]) -> Result<Datum, Stop>),
    /// It must not be done twice when a statement starts over after a wait: the first answer is remembered.
    Once(fn(&mut Context<'_>, &[Datum]) -> Result<Datum, Stop>),
    /// It gives rows, of these columns.
    Set(
        fn(&mut Context<'_>, &[Datum]) -> Result<Vec<Row>, Stop>,
        &'static [(&'static str, Type)],
    ),
}

/// A function or operator.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static [Argument],
    pub(crate) returns: Returns,
    pub(crate) run: Run,
    /// NULL in, NULL out, without a call.
    pub(crate) strict: bool,
    /// The same arguments always give the same answer.
    pub(crate) immutable: bool,
    /// The last argument may be given any number of times, also not at all.
    pub(crate) variadic: bool,
}

impl Function {
    const fn lax(mut self) -> Self {
        self.strict = false;
        self
    }

    const fn variadic(mut self) -> Self {
        self.variadic = true;
        self.strict = false;
        self
    }

    const fn stable(mut self) -> Self {
        self.immutable = false;
        self
    }

    const fn element(mut self) -> Self {
        self.returns = Returns::Element;
        self
    }

    const fn array(mut self) -> Self {
        self.returns = Returns::Array;
        self
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

const fn plain(
    name: &'static str,
    arguments: &'static [Argument],
    returns: Type,
    run: fn(&mut Context<'_>, &[Datum]) -> Result<Datum, Stop>,
) -> Function {
    Function {
        name,
        arguments,
        returns: Returns::Is(returns),
        run: Run::Plain(run),
        strict: true,
        immutable: true,
        variadic: false,
    }
}

const fn once(
    name: &'static str,
    arguments: &'static [Argument],
    returns: Type,
    run: fn(&mut Context<'_>, &[Datum]) -> Result<Datum, Stop>,
) -> Function {
    let mut function = plain(name, arguments, returns, run).stable();
    function.run = Run::Once(run);
    function
}

const fn set(
    name: &'static str,
    arguments: &'static [Argument],
    columns: &'static [(&'static str, Type)],
    run: fn(&mut Context<'_>, &[Datum]) -> Result<Vec<Row>, Stop>,
) -> Function {
    let returns = if columns.len() == 1 {
        columns[0].1
    } else {
        super::types::RECORD
    };
    let mut function = plain(name, arguments, returns, no_scalar).stable();
    function.run = Run::Set(run, columns);
    function
}

/// Stands where a set-returning function has nothing to run for a single value; never reached.
fn no_scalar(_: &mut Context<'_>, _: &[Datum]) -> Result<Datum, Stop> {
    Ok(Datum::Null)
}

const FAMILIES: [&[Function]; 9] = [
    math::FUNCTIONS,
    strings::FUNCTIONS,
    time::FUNCTIONS,
    arrays::FUNCTIONS,
    json::FUNCTIONS,
    system::FUNCTIONS,
    sequences::FUNCTIONS,
    advisory::FUNCTIONS,
    write_ahead::FUNCTIONS,
];

/// The functions, or operators, of that name.
pub(crate) fn named(name: &str) -> impl Iterator<Item = &'static Function> {
    let families = FAMILIES.iter().flat_map(|family| family.iter());
    families.filter(move |function| function.name == name)
}

/// Whether PostgreSQL has a function of that name, which then is only not supported.
pub(crate) fn is_known_elsewhere(name: &str) -> bool {
    include_str!("known.txt").lines().any(|known| known == name)
}

// Helpers for the families.

fn text(value: &Datum) -> &str {
    value.as_str().unwrap_or_default()
}

fn int(value: &Datum) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn float(value: &Datum) -> f64 {
    value.as_f64().unwrap_or_default()
}
