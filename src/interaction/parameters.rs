//! Parameters of a statement: given by value or by reference, checked against what the server expects.
//!
//! Values only; checked after prepare and before anything of the statement is sent.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type, WrongType};

use super::named;
use crate::error::{BadInput, Error};
use crate::session::Unshown;

/// What a caller gave for `$1`, `$2`, …
#[derive(Default)]
pub(crate) enum Parameters<'a> {
    #[default]
    None,
    Borrowed(&'a [&'a (dyn ToSql + Sync)]),
    /// Most calls have one value: it needs no list.
    Owned(Bound, Vec<Bound>),
    /// Until the call runs: then the text gets numbers for its names, and the values are [`Owned`](Self::Owned).
    Named(Vec<(Cow<'a, str>, Bound)>),
    /// Given in a way that is refused when the call runs.
    Refused(Box<BadInput>),
}

/// A value that the call owns, with the name of its type for error messages.
pub(crate) enum Bound {
    /// Most values are keys: they need no box.
    Int4(i32),
    Int8(i64),
    Other(Box<dyn Value>),
}

/// What is asked of a value that the call owns.
pub(crate) trait Value: ToSql + Send + Sync {
    fn type_name(&self) -> &'static str;
    fn fits(&self, expected: &Type) -> bool;
}

/// The values in order; see [`Parameters::values`]. A word in size: it lies in the future of every statement, twice.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a>(&'a Parameters<'a>);

/// The values that are still to come.
pub(crate) struct ValuesIter<'a> {
    parameters: &'a Parameters<'a>,
    at: usize,
}

impl Bound {
    pub(crate) fn new<T: ToSql + Send + Sync + 'static>(value: T) -> Self {
        let any: &dyn Any = &value;
        match (any.downcast_ref(), any.downcast_ref()) {
            (Some(value), _) => Self::Int4(*value),
            (_, Some(value)) => Self::Int8(*value),
            _ => Self::Other(Box::new(value)),
        }
    }

    fn value(&self) -> &dyn Value {
        match self {
            Self::Int4(value) => value,
            Self::Int8(value) => value,
            Self::Other(value) => &**value,
        }
    }
}

impl<T: ToSql + Send + Sync> Value for T {
    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn fits(&self, expected: &Type) -> bool {
        T::accepts(expected)
    }
}

impl<'a> IntoIterator for Values<'a> {
    type Item = Unshown<'a>;
    type IntoIter = ValuesIter<'a>;

    fn into_iter(self) -> ValuesIter<'a> {
        ValuesIter {
            parameters: self.0,
            at: 0,
        }
    }
}

impl<'a> Iterator for ValuesIter<'a> {
    type Item = Unshown<'a>;

    fn next(&mut self) -> Option<Unshown<'a>> {
        let at = self.at;
        self.at += 1;
        match self.parameters {
            Parameters::Owned(first, _) if at == 0 => Some(Unshown(first.value())),
            Parameters::Owned(_, more) => more.get(at - 1).map(|bound| Unshown(bound.value())),
            Parameters::Borrowed(values) => values.get(at).map(|value| Unshown(*value)),
            Parameters::None | Parameters::Named(_) | Parameters::Refused(_) => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.parameters.len().saturating_sub(self.at);
        (left, Some(left))
    }
}

impl ExactSizeIterator for ValuesIter<'_> {}

impl<'a> Parameters<'a> {
    pub(crate) fn bind(&mut self, bound: Bound) {
        match self {
            Self::None => *self = Self::Owned(bound, Vec::new()),
            Self::Owned(_, more) => more.push(bound),
            Self::Borrowed(_) | Self::Named(_) => *self = Self::mixed(),
            Self::Refused(_) => {}
        }
    }

    pub(crate) fn bind_named(&mut self, name: Cow<'a, str>, bound: Bound) {
        match self {
            Self::None => *self = Self::Named(vec![(name, bound)]),
            Self::Named(named) => named.push((name, bound)),
            Self::Owned(..) | Self::Borrowed(_) => *self = Self::mixed(),
            Self::Refused(_) => {}
        }
    }

    pub(crate) fn borrow(&mut self, values: &'a [&'a (dyn ToSql + Sync)]) {
        match self {
            Self::None => *self = Self::Borrowed(values),
            Self::Owned(..) | Self::Borrowed(_) | Self::Named(_) => *self = Self::mixed(),
            Self::Refused(_) => {}
        }
    }

    fn mixed() -> Self {
        Self::Refused(Box::new(BadInput::MixedParameters))
    }

    /// Turns names into numbers: gives the text for it, if there were any. What is wrong comes with [`check_form`].
    ///
    /// [`check_form`]: Self::check_form
    pub(crate) fn number_names(&mut self, sql: &str) -> Option<String> {
        let Self::Named(named) = self else {
            return None;
        };
        let named = std::mem::take(named);
        *self = Self::None;
        let names: Vec<&str> = named.iter().map(|(name, _)| &**name).collect();
        match named::rewrite(sql, &names) {
            Ok(rewritten) => {
                let mut places = rewritten.places.into_iter();
                let mut bounds: Vec<_> = named.into_iter().map(|(_, bound)| (places.next(), bound)).collect();
                bounds.sort_by_key(|(place, _)| *place);
                for (_, bound) in bounds {
                    self.bind(bound);
                }
                Some(rewritten.sql)
            }
            Err(wrong) => {
                *self = Self::Refused(Box::new(wrong));
                None
            }
        }
    }

    /// The values, in the form tokio-postgres takes them.
    pub(crate) fn values(&self) -> Values<'_> {
        Values(self)
    }

    /// Names the first thing that does not fit before anything is asked of a server.
    pub(crate) fn check_form(&self) -> Result<(), Error> {
        match self {
            Self::Refused(wrong) => Err(Error::bad_input((**wrong).clone())),
            _ => Ok(()),
        }
    }

    /// Names it as wrong that there are values at all.
    pub(crate) fn check_none(&self) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            _ => Err(Error::bad_input(BadInput::BatchParameters)),
        }
    }

    /// Names the first parameter that does not fit the statement.
    pub(crate) fn check(&self, statement: &Statement) -> Result<(), Error> {
        let expected = statement.params();
        check_count(expected.len(), self.len())?;
        if let Self::Owned(first, more) = self {
            let values = std::iter::once(first).chain(more);
            for (at, (bound, expected)) in values.zip(expected).enumerate() {
                let value = bound.value();
                if !value.fits(expected) {
                    return Err(Error::bad_input(BadInput::ParameterType {
                        position: at + 1,
                        given: value.type_name().into(),
                        expected: expected.name().into(),
                    }));
                }
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        match self {
            Self::None | Self::Refused(_) => 0,
            Self::Named(named) => named.len(),
            Self::Borrowed(values) => values.len(),
            Self::Owned(_, more) => 1 + more.len(),
        }
    }
}

/// Names a wrong number of values.
pub(crate) fn check_count(placeholders: usize, given: usize) -> Result<(), Error> {
    if placeholders == given {
        return Ok(());
    }
    Err(Error::bad_input(BadInput::ParameterCount { placeholders, given }))
}

/// Names the value that could not be encoded. tokio-postgres knows which one, and for a wrong type both types, but says
/// so only in words: "error serializing parameter 0", caused by "cannot convert between the Rust type `i32` and …".
pub(crate) fn not_encoded(error: tokio_postgres::Error, statement: &Statement) -> Error {
    let at = error
        .to_string()
        .rsplit(' ')
        .next()
        .and_then(|at| at.parse::<usize>().ok())
        .unwrap_or_default();
    let position = at + 1;
    let expected = statement
        .params()
        .get(at)
        .map(|expected| expected.name().to_owned())
        .unwrap_or_default();
    let wrong = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<WrongType>());
    if let Some(wrong) = wrong {
        let words = wrong.to_string();
        let given = words.split('`').nth(1).unwrap_or(&words).to_owned();
        return Error::bad_input(BadInput::ParameterType {
            position,
            given,
            expected,
        });
    }
    Error::bad_input(BadInput::ParameterValue { position, expected }).with_source(error)
}

impl fmt::Debug for Parameters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // How many, never what: parameters are data of the application's users.
        f.debug_struct("Parameters")
            .field("count", &self.len())
            .finish_non_exhaustive()
    }
}
