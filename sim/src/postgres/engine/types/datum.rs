//! One value of SQL, and the order of values.
//!
//! What rows hold, keys are made of and parameters bring. A plain machine. The order is PostgreSQL's for each type: byte order
//! for strings (the C collation), NaN above all numbers, NULL last.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Type;
use super::json::Json;
use super::numeric::Numeric;

/// One value.
#[derive(Clone, Debug)]
pub(crate) enum Datum {
    Null,
    Array(Arc<Array>),
    /// The digits of a bit string.
    Bit(Arc<str>),
    Bool(bool),
    Bytea(Arc<[u8]>),
    /// Days since 2000-01-01.
    Date(i32),
    Float4(f32),
    Float8(f64),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Interval(Interval),
    /// The text of a `json`, as it was given.
    Json(Arc<str>),
    Jsonb(Arc<Json>),
    Lsn(u64),
    Numeric(Numeric),
    /// Also `regclass`, `regtype`, `regnamespace` and `xid`.
    Oid(u32),
    Record(Arc<[Datum]>),
    /// All character strings.
    Text(Arc<str>),
    /// Microseconds since 2000-01-01, with or without time zone.
    Timestamp(i64),
    Uuid([u8; 16]),
    Void,
    Xid8(u64),
}

/// An array of one dimension, or an empty one.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) element: Type,
    pub(crate) items: Vec<Datum>,
}

/// A span of time in the three units that do not mix.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) micros: i64,
}

impl Datum {
    pub(crate) fn text(value: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(value.as_ref()))
    }

    pub(crate) fn array(element: Type, items: Vec<Self>) -> Self {
        Self::Array(Arc::new(Array { element, items }))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(crate) fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// The characters of a string.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Json(text) | Self::Bit(text) => Some(text),
            _ => None,
        }
    }

    /// An integer of any width.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int2(value) => Some(i64::from(*value)),
            Self::Int4(value) => Some(i64::from(*value)),
            Self::Int8(value) => Some(*value),
            Self::Oid(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// A number as PostgreSQL would cast it to double precision.
    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float4(value) => Some(f64::from(*value)),
            Self::Float8(value) => Some(*value),
            Self::Numeric(value) => Some(value.to_f64()),
            #[expect(clippy::cast_precision_loss, reason = "what a cast to double precision does")]
            other => other.as_i64().map(|value| value as f64),
        }
    }

    /// A number as a numeric; floats are not.
    pub(crate) fn as_numeric(&self) -> Option<Numeric> {
        match self {
            Self::Numeric(value) => Some(*value),
            other => other.as_i64().map(Numeric::from_i64),
        }
    }

    /// Roughly how many bytes it takes in a row or a log record.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Null | Self::Void => 0,
            Self::Bool(_) => 1,
            Self::Int2(_) => 2,
            Self::Date(_) | Self::Float4(_) | Self::Int4(_) | Self::Oid(_) => 4,
            Self::Bit(text) | Self::Json(text) | Self::Text(text) => text.len() + 1,
            Self::Bytea(bytes) => bytes.len() + 4,
            Self::Array(array) => 20 + array.items.iter().map(Self::weight).sum::<usize>(),
            Self::Record(items) => 20 + items.iter().map(Self::weight).sum::<usize>(),
            Self::Interval(_) | Self::Jsonb(_) | Self::Numeric(_) | Self::Uuid(_) => 16,
            Self::Float8(_) | Self::Int8(_) | Self::Lsn(_) | Self::Timestamp(_) | Self::Xid8(_) => 8,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int2(_)
            | Self::Int4(_)
            | Self::Int8(_)
            | Self::Oid(_)
            | Self::Numeric(_)
            | Self::Float4(_)
            | Self::Float8(_) => 1,
            Self::Text(_) | Self::Json(_) | Self::Bit(_) => 2,
            Self::Bytea(_) => 3,
            Self::Date(_) => 4,
            Self::Timestamp(_) => 5,
            Self::Interval(_) => 6,
            Self::Jsonb(_) => 7,
            Self::Lsn(_) => 8,
            Self::Uuid(_) => 9,
            Self::Xid8(_) => 10,
            Self::Array(_) => 11,
            Self::Record(_) => 12,
            Self::Void => 13,
            Self::Null => 14,
        }
    }
}

impl Interval {
    /// Its length with months of 30 days, as comparisons use it.
    fn span(self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * 86_400_000_000 + i128::from(self.micros)
    }
}

impl Ord for Datum {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int4(a), Self::Int4(b)) => a.cmp(b),
            (Self::Int8(a), Self::Int8(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Bytea(a), Self::Bytea(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::Date(a), Self::Timestamp(b)) => (i64::from(*a) * super::datetime::DAY).cmp(b),
            (Self::Timestamp(a), Self::Date(b)) => a.cmp(&(i64::from(*b) * super::datetime::DAY)),
            (Self::Interval(a), Self::Interval(b)) => a.span().cmp(&b.span()),
            (Self::Jsonb(a), Self::Jsonb(b)) => a.cmp(b),
            (Self::Lsn(a), Self::Lsn(b)) | (Self::Xid8(a), Self::Xid8(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a.items.cmp(&b.items),
            (Self::Record(a), Self::Record(b)) => a.cmp(b),
            _ => match (self.as_str(), other.as_str()) {
                (Some(a), Some(b)) => a.as_bytes().cmp(b.as_bytes()),
                _ if self.rank() == 1 && other.rank() == 1 => compare_numbers(self, other),
                _ => self.rank().cmp(&other.rank()),
            },
        }
    }
}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Datum {}

fn compare_numbers(a: &Datum, b: &Datum) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a.cmp(&b);
    }
    if let (Some(a), Some(b)) = (a.as_numeric(), b.as_numeric()) {
        return a.compare(&b);
    }
    let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_kinds_compare_by_value_and_nan_is_last() {
        assert_eq!(Datum::Int2(3), Datum::Int8(3));
        assert!(Datum::Float8(f64::NAN) > Datum::Float8(f64::INFINITY));
        assert_eq!(Datum::Float8(0.0), Datum::Float8(-0.0));
        assert!(Datum::Null > Datum::Int4(i32::MAX));
        assert!(Datum::text("B") < Datum::text("a"));
    }
}
