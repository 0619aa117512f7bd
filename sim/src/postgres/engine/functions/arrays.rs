//! The functions of arrays, and series.
//!
//! A family of functions. A plain machine. Arrays have one dimension, from 1.

use super::Argument::{AnyArray, AnyElement, Is};
use super::{Function, int, plain, set, text};
use crate::postgres::engine::catalog::row;
use crate::postgres::engine::door::Row;
use crate::postgres::engine::execute::{MAX_ROWS, Stop};
use crate::postgres::engine::types::datetime;
use crate::postgres::engine::types::datum::{Array, Datum};
use crate::postgres::engine::types::numeric::Numeric;
use crate::postgres::engine::types::{INT4, INT8, INTERVAL, NUMERIC, Scalar, TEXT, TIMESTAMP, TIMESTAMPTZ, Type};
use crate::wire::Report;

pub(super) const FUNCTIONS: &[Function] = &[
    plain("array_length", &[AnyArray, Is(INT4)], INT4, |_, v| dimension(v)),
    plain("array_upper", &[AnyArray, Is(INT4)], INT4, |_, v| dimension(v)),
    plain("array_lower", &[AnyArray, Is(INT4)], INT4, |_, v| {
        let length = dimension(v)?;
        Ok(if length.is_null() { length } else { Datum::Int4(1) })
    }),
    plain("cardinality", &[AnyArray], INT4, |_, v| Ok(count(items(&v[0]).len()))),
    plain("array_append", &[AnyArray, AnyElement], TEXT, |_, v| {
        with(&v[0], |items| items.push(v[1].clone()))
    })
    .array()
    .lax(),
    plain("array_prepend", &[AnyElement, AnyArray], TEXT, |_, v| {
        with(&v[1], |items| items.insert(0, v[0].clone()))
    })
    .array()
    .lax(),
    plain("array_cat", &[AnyArray, AnyArray], TEXT, |_, v| both(v))
        .array()
        .lax(),
    plain("||", &[AnyArray, AnyArray], TEXT, |_, v| both(v)).array().lax(),
    plain("||", &[AnyArray, AnyElement], TEXT, |_, v| {
        with(&v[0], |items| items.push(v[1].clone()))
    })
    .array()
    .lax(),
    plain("||", &[AnyElement, AnyArray], TEXT, |_, v| {
        with(&v[1], |items| items.insert(0, v[0].clone()))
    })
    .array()
    .lax(),
    plain("array_position", &[AnyArray, AnyElement], INT4, |_, v| {
        let at = items(&v[0]).iter().position(|item| item == &v[1]);
        Ok(at.map_or(Datum::Null, |at| count(at + 1)))
    })
    .lax(),
    plain("array_remove", &[AnyArray, AnyElement], TEXT, |_, v| {
        with(&v[0], |items| items.retain(|item| item != &v[1]))
    })
    .array()
    .lax(),
    plain("array_to_string", &[AnyArray, Is(TEXT)], TEXT, |_, v| {
        to_string(&v[0], text(&v[1]), None)
    }),
    plain("array_to_string", &[AnyArray, Is(TEXT), Is(TEXT)], TEXT, |_, v| {
        to_string(&v[0], text(&v[1]), v[2].as_str())
    })
    .lax(),
    plain(
        "string_to_array",
        &[Is(TEXT), Is(TEXT)],
        Type::array(Scalar::Text),
        |_, v| {
            let (whole, by) = (text(&v[0]), text(&v[1]));
            let parts: Vec<Datum> = match (whole, by) {
                ("", _) => Vec::new(),
                (whole, "") => vec![Datum::text(whole)],
                (whole, by) => whole.split(by).map(Datum::text).collect(),
            };
            Ok(Datum::array(TEXT, parts))
        },
    ),
    plain(
        "@>",
        &[AnyArray, AnyArray],
        crate::postgres::engine::types::BOOL,
        |_, v| contains(&v[0], &v[1]),
    ),
    plain(
        "<@",
        &[AnyArray, AnyArray],
        crate::postgres::engine::types::BOOL,
        |_, v| contains(&v[1], &v[0]),
    ),
    plain(
        "&&",
        &[AnyArray, AnyArray],
        crate::postgres::engine::types::BOOL,
        |_, v| Ok(Datum::Bool(items(&v[0]).iter().any(|item| items(&v[1]).contains(item)))),
    ),
    set("unnest", &[AnyArray], &[("unnest", TEXT)], |_, v| {
        Ok(items(&v[0]).iter().map(|item| row(vec![item.clone()])).collect())
    })
    .element(),
    set(
        "generate_subscripts",
        &[AnyArray, Is(INT4)],
        &[("generate_subscripts", INT4)],
        |_, v| Ok((1..=items(&v[0]).len()).map(|at| row(vec![count(at)])).collect()),
    ),
    set(
        "generate_series",
        &[Is(INT4), Is(INT4)],
        &[("generate_series", INT4)],
        |_, v| series(int(&v[0]), int(&v[1]), 1, narrow),
    ),
    set(
        "generate_series",
        &[Is(INT4), Is(INT4), Is(INT4)],
        &[("generate_series", INT4)],
        |_, v| series(int(&v[0]), int(&v[1]), int(&v[2]), narrow),
    ),
    set(
        "generate_series",
        &[Is(INT8), Is(INT8)],
        &[("generate_series", INT8)],
        |_, v| series(int(&v[0]), int(&v[1]), 1, Datum::Int8),
    ),
    set(
        "generate_series",
        &[Is(INT8), Is(INT8), Is(INT8)],
        &[("generate_series", INT8)],
        |_, v| series(int(&v[0]), int(&v[1]), int(&v[2]), Datum::Int8),
    ),
    set(
        "generate_series",
        &[Is(NUMERIC), Is(NUMERIC)],
        &[("generate_series", NUMERIC)],
        |_, v| {
            let whole = |value: &Datum| {
                value
                    .as_numeric()
                    .filter(|number| number.scale() == 0)
                    .and_then(Numeric::to_i64)
            };
            let (Some(from), Some(to)) = (whole(&v[0]), whole(&v[1])) else {
                return Err(Report::error("0A000", "gdbpool-sim does not support series of fractions").into());
            };
            series(from, to, 1, |value| Datum::Numeric(Numeric::from_i64(value)))
        },
    ),
    set(
        "generate_series",
        &[Is(TIMESTAMP), Is(TIMESTAMP), Is(INTERVAL)],
        &[("generate_series", TIMESTAMP)],
        |_, v| times(v),
    ),
    set(
        "generate_series",
        &[Is(TIMESTAMPTZ), Is(TIMESTAMPTZ), Is(INTERVAL)],
        &[("generate_series", TIMESTAMPTZ)],
        |_, v| times(v),
    ),
];

fn items(value: &Datum) -> &[Datum] {
    match value {
        Datum::Array(array) => &array.items,
        _ => &[],
    }
}

fn count(value: usize) -> Datum {
    Datum::Int4(i32::try_from(value).unwrap_or(i32::MAX))
}

fn narrow(value: i64) -> Datum {
    Datum::Int4(i32::try_from(value).unwrap_or(i32::MAX))
}

fn dimension(values: &[Datum]) -> Result<Datum, Stop> {
    let length = items(&values[0]).len();
    Ok(if length == 0 || int(&values[1]) != 1 {
        Datum::Null
    } else {
        count(length)
    })
}

fn with(value: &Datum, change: impl FnOnce(&mut Vec<Datum>)) -> Result<Datum, Stop> {
    let (element, mut changed) = match value {
        Datum::Array(array) => (array.element, array.items.clone()),
        _ => (TEXT, Vec::new()),
    };
    if value.is_null() {
        change(&mut changed);
        let element = changed
            .iter()
            .find_map(crate::postgres::engine::types::binary::type_of)
            .unwrap_or(TEXT);
        return Ok(Datum::array(element, changed));
    }
    change(&mut changed);
    Ok(Datum::array(element, changed))
}

fn both(values: &[Datum]) -> Result<Datum, Stop> {
    match (&values[0], &values[1]) {
        (Datum::Null, other) | (other, Datum::Null) => Ok(other.clone()),
        (a, b) => with(a, |joined| joined.extend(items(b).iter().cloned())),
    }
}

fn contains(whole: &Datum, part: &Datum) -> Result<Datum, Stop> {
    Ok(Datum::Bool(items(part).iter().all(|item| items(whole).contains(item))))
}

fn to_string(value: &Datum, by: &str, null: Option<&str>) -> Result<Datum, Stop> {
    let Datum::Array(array) = value else {
        return Ok(Datum::Null);
    };
    let Array { items, .. } = &**array;
    let parts = items.iter().filter_map(|item| match item {
        Datum::Null => null.map(str::to_owned),
        item => Some(super::strings::shown(item)),
    });
    Ok(Datum::text(parts.collect::<Vec<_>>().join(by)))
}

fn series(from: i64, to: i64, step: i64, make: impl Fn(i64) -> Datum) -> Result<Vec<Row>, Stop> {
    if step == 0 {
        return Err(Report::error("22023", "step size cannot equal zero").into());
    }
    let mut rows = Vec::new();
    let mut at = from;
    while if step > 0 { at <= to } else { at >= to } {
        if rows.len() >= MAX_ROWS {
            return Err(too_many());
        }
        rows.push(row(vec![make(at)]));
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(rows)
}

fn too_many() -> Stop {
    Report::error(
        "0A000",
        format!("gdbpool-sim does not support more than {MAX_ROWS} rows in one step of a statement"),
    )
    .into()
}

fn times(values: &[Datum]) -> Result<Vec<Row>, Stop> {
    let (Datum::Timestamp(from), Datum::Timestamp(to), Datum::Interval(step)) = (&values[0], &values[1], &values[2])
    else {
        return Ok(Vec::new());
    };
    let forward = datetime::add_interval(0, *step, 1).unwrap_or(0);
    if forward == 0 {
        return Err(Report::error("22023", "step size cannot equal zero").into());
    }
    let mut rows = Vec::new();
    let mut at = *from;
    while if forward > 0 { at <= *to } else { at >= *to } {
        if rows.len() >= MAX_ROWS {
            return Err(too_many());
        }
        rows.push(row(vec![Datum::Timestamp(at)]));
        at = datetime::add_interval(at, *step, 1).ok_or_else(|| Report::error("22008", "timestamp out of range"))?;
    }
    Ok(rows)
}
