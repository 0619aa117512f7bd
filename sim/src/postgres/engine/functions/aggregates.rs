//! Aggregates: one value from many rows.
//!
//! Chosen by analysis, fed by grouping. A plain machine.

use std::collections::BTreeSet;

use super::text;
use crate::postgres::engine::execute::Stop;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::numeric::Numeric;
use crate::postgres::engine::types::text::too_many_digits;
use crate::postgres::engine::types::{
    BOOL, BYTEA, FLOAT4, FLOAT8, INT2, INT4, INT8, INTERVAL, JSONB, NUMERIC, TEXT, Type,
};
use crate::wire::Report;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    ArrayAgg,
    Avg,
    BoolAnd,
    BoolOr,
    Count,
    CountAll,
    JsonbAgg,
    Max,
    Min,
    StringAgg,
    Sum,
}

impl Aggregate {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "array_agg" => Self::ArrayAgg,
            "avg" => Self::Avg,
            "bool_and" | "every" => Self::BoolAnd,
            "bool_or" => Self::BoolOr,
            "count" => Self::Count,
            "jsonb_agg" => Self::JsonbAgg,
            "max" => Self::Max,
            "min" => Self::Min,
            "string_agg" => Self::StringAgg,
            "sum" => Self::Sum,
            _ => return None,
        })
    }

    /// The types its arguments are cast to and the type it gives; `None` if there is no such aggregate.
    pub(crate) fn signature(self, given: &[Type]) -> Option<(Vec<Type>, Type)> {
        let first = given.first().copied();
        let first = first.map(|of| {
            if of.is_unknown() && self != Self::Count {
                TEXT
            } else {
                of
            }
        });
        let one = |of: Type, gives: Type| (given.len() == 1).then(|| (vec![of], gives));
        match (self, first) {
            (Self::CountAll, _) => given.is_empty().then(|| (Vec::new(), INT8)),
            (Self::Count, Some(of)) => one(of, INT8),
            (Self::ArrayAgg, Some(of)) if !of.array => one(of, Type::array(of.scalar)),
            (Self::JsonbAgg, Some(of)) => one(of, JSONB),
            (Self::BoolAnd | Self::BoolOr, Some(of)) if of == BOOL || of == TEXT => one(BOOL, BOOL),
            (Self::Max | Self::Min, Some(of)) if of != BOOL && of != JSONB => one(
                if of.is_string() { TEXT } else { of },
                if of.is_string() { TEXT } else { of },
            ),
            (Self::StringAgg, Some(of)) if given.len() == 2 => {
                let of = if of == BYTEA { BYTEA } else { TEXT };
                let strings = given
                    .iter()
                    .all(|given| given.is_string() || given.is_unknown() || *given == BYTEA);
                strings.then(|| (vec![of, of], of))
            }
            (Self::Sum, Some(of)) => one(
                of,
                match of {
                    INT2 | INT4 => INT8,
                    INT8 | NUMERIC => NUMERIC,
                    FLOAT4 | FLOAT8 | INTERVAL => of,
                    _ => return None,
                },
            ),
            (Self::Avg, Some(of)) => one(
                of,
                match of {
                    INT2 | INT4 | INT8 | NUMERIC => NUMERIC,
                    FLOAT4 | FLOAT8 => FLOAT8,
                    _ => return None,
                },
            ),
            _ => None,
        }
    }

    /// The aggregate of rows of arguments, in their order.
    pub(crate) fn apply(self, rows: &[Vec<Datum>], result: Type, distinct: bool) -> Result<Datum, Stop> {
        if self == Self::CountAll {
            return Ok(count(rows.len()));
        }
        let mut seen = BTreeSet::new();
        let kept = rows.iter().filter(|row| !distinct || seen.insert(&row[0]));
        if matches!(self, Self::ArrayAgg | Self::JsonbAgg) {
            let items: Vec<Datum> = kept.map(|row| row[0].clone()).collect();
            if items.is_empty() {
                return Ok(Datum::Null);
            }
            if self == Self::JsonbAgg {
                let items: Result<Vec<_>, Stop> = items.iter().map(super::json::of).collect();
                let json = crate::postgres::engine::types::json::Json::Array(items?);
                return Ok(Datum::Jsonb(std::sync::Arc::new(json)));
            }
            return Ok(Datum::array(result.element(), items));
        }
        let kept: Vec<&Vec<Datum>> = kept.filter(|row| !row[0].is_null()).collect();
        let values = kept.iter().map(|row| &row[0]);
        Ok(match self {
            Self::Count => count(kept.len()),
            _ if kept.is_empty() => Datum::Null,
            Self::BoolAnd => Datum::Bool(values.clone().all(Datum::is_true)),
            Self::BoolOr => Datum::Bool(values.clone().any(Datum::is_true)),
            Self::Max => values.max().cloned().unwrap_or(Datum::Null),
            Self::Min => values.min().cloned().unwrap_or(Datum::Null),
            Self::StringAgg => string_agg(&kept),
            Self::Sum => sum(values, result)?,
            Self::Avg => average(&kept, result)?,
            Self::ArrayAgg | Self::CountAll | Self::JsonbAgg => Datum::Null,
        })
    }
}

fn count(rows: usize) -> Datum {
    Datum::Int8(i64::try_from(rows).unwrap_or(i64::MAX))
}

fn string_agg(rows: &[&Vec<Datum>]) -> Datum {
    if let Datum::Bytea(_) = &rows[0][0] {
        let mut joined = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            for part in row.iter().rev().skip(usize::from(at == 0)) {
                if let Datum::Bytea(bytes) = part {
                    joined.extend(&bytes[..]);
                }
            }
        }
        return Datum::Bytea(joined.into());
    }
    let mut joined = String::new();
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            joined.push_str(text(&row[1]));
        }
        joined.push_str(text(&row[0]));
    }
    Datum::text(joined)
}

fn sum<'a>(values: impl Iterator<Item = &'a Datum>, result: Type) -> Result<Datum, Stop> {
    let overflow = || Stop::from(Report::error("22003", "bigint out of range"));
    if result == INT8 {
        let total = values.map(super::int).try_fold(0i64, i64::checked_add);
        return Ok(Datum::Int8(total.ok_or_else(overflow)?));
    }
    if result == NUMERIC {
        let mut total = Numeric::from_i64(0);
        for value in values {
            let value = value.as_numeric().unwrap_or(Numeric::NAN);
            total = total.add(value).ok_or_else(too_many_digits)?;
        }
        return Ok(Datum::Numeric(total));
    }
    if result == INTERVAL {
        return Err(Report::error("0A000", "gdbpool-sim does not support sums of intervals").into());
    }
    let total: f64 = values.map(super::float).sum();
    #[expect(clippy::cast_possible_truncation, reason = "real is the narrower type")]
    Ok(if result == FLOAT4 {
        Datum::Float4(total as f32)
    } else {
        Datum::Float8(total)
    })
}

fn average(rows: &[&Vec<Datum>], result: Type) -> Result<Datum, Stop> {
    let values = rows.iter().map(|row| &row[0]);
    if result == FLOAT8 {
        let total: f64 = values.map(super::float).sum();
        #[expect(clippy::cast_precision_loss, reason = "a number of rows")]
        return Ok(Datum::Float8(total / rows.len() as f64));
    }
    let Datum::Numeric(total) = sum(values, NUMERIC)? else {
        return Ok(Datum::Null);
    };
    let rows = Numeric::from_i64(i64::try_from(rows.len()).unwrap_or(i64::MAX));
    Ok(Datum::Numeric(total.divide(rows).ok_or_else(too_many_digits)?))
}
