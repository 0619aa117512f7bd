//! Casts between types: which ones there are and when they happen by themselves, and how values change.
//!
//! Used by analysis to choose and by evaluation to do. A plain machine. Casts to `regclass` and its like need the catalog and are
//! done where it is.

use std::sync::Arc;

use super::datum::Datum;
use super::json::Json;
use super::numeric::Numeric;
use super::{Scalar, Type, datetime, text};
use crate::wire::Report;

/// When a cast may happen, from the most to the least free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Context {
    Implicit,
    Assignment,
    Explicit,
}

/// The freest context in which a value of `from` becomes one of `to`; `None` if there is no such cast.
pub(crate) fn context(from: Type, to: Type) -> Option<Context> {
    if from == to || from.is_unknown() {
        return Some(Context::Implicit);
    }
    if from.array != to.array {
        // Through text: into strings on assignment, out of strings when asked for.
        return if to.is_string() {
            Some(Context::Assignment)
        } else {
            from.is_string().then_some(Context::Explicit)
        };
    }
    let scalars = context_of_scalars(from.scalar, to.scalar)?;
    Some(if from.array {
        scalars.max(Context::Assignment)
    } else {
        scalars
    })
}

fn context_of_scalars(from: Scalar, to: Scalar) -> Option<Context> {
    use Scalar::{
        Bit, Bool, Bpchar, Date, Float4, Float8, Int2, Int4, Int8, Json, Jsonb, Name, Numeric, Oid, Regclass,
        Regnamespace, Regtype, Text, Timestamp, TimestampTz, Varchar, Xid, Xid8,
    };
    if let (Some(a), Some(b)) = (Type::of(from).number_rank(), Type::of(to).number_rank()) {
        return Some(if a <= b { Context::Implicit } else { Context::Assignment });
    }
    let registered = |of: Scalar| matches!(of, Regclass | Regnamespace | Regtype);
    Some(match (from, to) {
        (Text, Varchar | Bpchar | Name) | (Varchar, Text | Name | Bpchar | Regclass) | (Text, Regclass) => {
            Context::Implicit
        }
        (Bpchar, Text | Varchar | Name) | (Name, Text) => Context::Implicit,
        (Name, Varchar | Bpchar) => Context::Assignment,
        (Int2 | Int4 | Int8, Oid | Regclass | Regnamespace | Regtype) => Context::Implicit,
        (Oid, of) | (of, Oid) if registered(of) => Context::Implicit,
        (Oid | Regclass | Regnamespace | Regtype, Int8 | Int4) => Context::Assignment,
        (Date, Timestamp | TimestampTz) | (Timestamp, TimestampTz) => Context::Implicit,
        (Timestamp | TimestampTz, Date) | (TimestampTz, Timestamp) => Context::Assignment,
        (Json, Jsonb) | (Jsonb, Json) => Context::Assignment,
        (Int4, Bool) | (Bool, Int4) | (Int4 | Int8, Bit) | (Bit, Int4 | Int8) => Context::Explicit,
        (Jsonb, Bool | Int2 | Int4 | Int8 | Float4 | Float8 | Numeric) | (Xid8, Xid) => Context::Explicit,
        (_, to) if Type::of(to).is_string() => Context::Assignment,
        (from, _) if Type::of(from).is_string() => Context::Explicit,
        _ => return None,
    })
}

/// Changes a value of `from` into one of `to`.
pub(crate) fn cast(value: Datum, from: Type, to: Type) -> Result<Datum, Report> {
    if value.is_null() || from == to {
        return Ok(value);
    }
    if to.array && from.array {
        let Datum::Array(array) = &value else {
            return Ok(value);
        };
        let items = array.items.iter().cloned();
        let items: Result<Vec<Datum>, Report> = items.map(|item| cast(item, from.element(), to.element())).collect();
        return Ok(Datum::array(to.element(), items?));
    }
    if from.is_string() || from.is_unknown() {
        if to.is_string() {
            return Ok(match (to.scalar, value.as_str()) {
                (Scalar::Name, Some(text)) => Datum::text(text::cut(text, 63)),
                _ => value,
            });
        }
        return text::read(to, value.as_str().unwrap_or_default());
    }
    if to.is_string() {
        return Ok(match (&value, from.scalar) {
            (Datum::Bool(value), _) => Datum::text(if *value { "true" } else { "false" }),
            _ => Datum::text(text::write(&value, from)),
        });
    }
    cast_scalar(value, to)
}

fn cast_scalar(value: Datum, to: Type) -> Result<Datum, Report> {
    let overflow = || Report::error("22003", format!("{} out of range", to.shown()));
    Ok(match (to.scalar, &value) {
        (Scalar::Int2, value) if is_number(value) => {
            let number = whole(value, to)?.ok_or_else(overflow)?;
            Datum::Int2(i16::try_from(number).map_err(|_| overflow())?)
        }
        (Scalar::Int4, value) if is_number(value) => {
            let number = whole(value, to)?.ok_or_else(overflow)?;
            Datum::Int4(i32::try_from(number).map_err(|_| overflow())?)
        }
        (Scalar::Int8, value) if is_number(value) => Datum::Int8(whole(value, to)?.ok_or_else(overflow)?),
        (Scalar::Oid | Scalar::Regclass | Scalar::Regnamespace | Scalar::Regtype, value) if is_number(value) => {
            let number = whole(value, to)?.ok_or_else(overflow)?;
            let oid = u32::try_from(number).map_err(|_| Report::error("22003", "OID out of range"))?;
            Datum::Oid(oid)
        }
        #[expect(clippy::cast_possible_truncation, reason = "real is the narrower type")]
        (Scalar::Float4, value) if is_number(value) => Datum::Float4(value.as_f64().unwrap_or(f64::NAN) as f32),
        (Scalar::Float8, value) if is_number(value) => Datum::Float8(value.as_f64().unwrap_or(f64::NAN)),
        (Scalar::Numeric, Datum::Float4(value)) => {
            Datum::Numeric(Numeric::from_f64(f64::from(*value), 6).ok_or_else(text::too_many_digits)?)
        }
        (Scalar::Numeric, Datum::Float8(value)) => {
            Datum::Numeric(Numeric::from_f64(*value, 15).ok_or_else(text::too_many_digits)?)
        }
        (Scalar::Numeric, value) if is_number(value) => {
            Datum::Numeric(value.as_numeric().ok_or_else(text::too_many_digits)?)
        }
        (Scalar::Bool, Datum::Int4(value)) => Datum::Bool(*value != 0),
        (Scalar::Int4, Datum::Bool(value)) => Datum::Int4(i32::from(*value)),
        (Scalar::Timestamp | Scalar::TimestampTz, Datum::Date(days)) => {
            Datum::Timestamp(i64::from(*days) * datetime::DAY)
        }
        (Scalar::Timestamp | Scalar::TimestampTz, Datum::Timestamp(_)) => value,
        (Scalar::Date, Datum::Timestamp(micros)) => {
            let days = i32::try_from(micros.div_euclid(datetime::DAY));
            Datum::Date(days.map_err(|_| Report::error("22008", "date out of range for timestamp"))?)
        }
        (Scalar::Json, Datum::Jsonb(json)) => Datum::Json(Arc::from(json.to_string())),
        (Scalar::Jsonb, Datum::Json(json)) => text::read(super::JSONB, json)?,
        (Scalar::Xid, Datum::Xid8(xid)) => Datum::Oid(u32::try_from(xid & 0xffff_ffff).unwrap_or(0)),
        (Scalar::Int4, Datum::Bit(bits)) => Datum::Int4(u32::from_str_radix(bits, 2).unwrap_or(0).cast_signed()),
        (Scalar::Int8, Datum::Bit(bits)) => Datum::Int8(u64::from_str_radix(bits, 2).unwrap_or(0).cast_signed()),
        (_, Datum::Jsonb(json)) => match (&**json, to.scalar) {
            (Json::Bool(value), Scalar::Bool) => Datum::Bool(*value),
            (Json::Number(number), _) if to.number_rank().is_some() => {
                return cast_scalar(Datum::Numeric(*number), to);
            }
            (other, _) => {
                let kind = match other {
                    Json::Null => "null",
                    Json::Bool(_) => "boolean",
                    Json::Number(_) => "numeric",
                    Json::Text(_) => "string",
                    Json::Array(_) => "array",
                    Json::Object(_) => "object",
                };
                return Err(Report::error(
                    "22023",
                    format!("cannot cast jsonb {kind} to type {}", to.shown()),
                ));
            }
        },
        _ => {
            return Err(Report::error(
                "0A000",
                format!("gdbpool-sim does not support this cast to {}", to.shown()),
            ));
        }
    })
}

/// Fits a value to the modifier of its type: `varchar(3)`, `numeric(5, 2)`, `bit(32)`.
pub(crate) fn fit(value: Datum, of: Type, modifier: i32, context: Context) -> Result<Datum, Report> {
    if modifier < 0 || of.array {
        return Ok(value);
    }
    match (&value, of.scalar) {
        (Datum::Text(characters), Scalar::Varchar | Scalar::Bpchar) => {
            let most = usize::try_from(modifier - 4).unwrap_or(0);
            let length = characters.chars().count();
            if length > most {
                let kept: String = characters.chars().take(most).collect();
                let only_blanks = characters.chars().skip(most).all(|c| c == ' ');
                if context != Context::Explicit && !only_blanks {
                    let name = of.shown();
                    return Err(Report::error(
                        "22001",
                        format!("value too long for type {name}({most})"),
                    ));
                }
                return Ok(Datum::text(kept));
            }
            if of.scalar == Scalar::Bpchar && length < most {
                return Ok(Datum::text(format!("{characters}{}", " ".repeat(most - length))));
            }
            Ok(value)
        }
        (Datum::Numeric(number), Scalar::Numeric) if !number.is_nan() => {
            let (precision, scale) = ((modifier - 4) >> 16 & 0xffff, (modifier - 4) & 0x7ff);
            let (precision, scale) = (precision.unsigned_abs(), scale.unsigned_abs());
            let rounded = number.rounded(scale).ok_or_else(text::too_many_digits)?;
            let most = (precision - scale) as usize;
            if rounded.whole_digits() > most {
                let detail = format!(
                    "A field with precision {precision}, scale {scale} must round to an absolute value less than {}{}.",
                    if most == 0 {
                        "1".to_owned()
                    } else {
                        format!("10^{most}")
                    },
                    ""
                );
                return Err(Report::error("22003", "numeric field overflow").detail(detail));
            }
            Ok(Datum::Numeric(rounded))
        }
        (Datum::Bit(bits), Scalar::Bit) => {
            let length = usize::try_from(modifier).unwrap_or(0);
            if bits.len() != length && context != Context::Explicit {
                let message = format!("bit string length {} does not match type bit({length})", bits.len());
                return Err(Report::error("22026", message));
            }
            let fitted: String = bits.chars().chain(std::iter::repeat('0')).take(length).collect();
            Ok(Datum::Bit(Arc::from(fitted)))
        }
        _ => Ok(value),
    }
}

fn is_number(value: &Datum) -> bool {
    matches!(value, Datum::Float4(_) | Datum::Float8(_) | Datum::Numeric(_)) || value.as_i64().is_some()
}

/// A whole number; floats are rounded half to even, numerics half away from zero. `None` is out of range.
fn whole(value: &Datum, to: Type) -> Result<Option<i64>, Report> {
    Ok(match value {
        Datum::Numeric(number) if number.is_nan() => {
            return Err(Report::error("0A000", format!("cannot convert NaN to {}", to.shown())));
        }
        Datum::Numeric(number) => number.to_i64(),
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
        Datum::Float4(_) | Datum::Float8(_) => {
            let rounded = value.as_f64().unwrap_or(f64::NAN).round_ties_even();
            let range = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
            range.contains(&rounded).then_some(rounded as i64)
        }
        other => other.as_i64(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn numbers_widen_by_themselves_and_narrow_on_assignment() {
        assert_eq!(context(INT4, INT8), Some(Context::Implicit));
        assert_eq!(context(INT8, INT4), Some(Context::Assignment));
        assert_eq!(context(TEXT, INT4), Some(Context::Explicit));
        assert_eq!(context(BOOL, DATE), None);
        let report = cast(Datum::Int8(1 << 40), INT8, INT4).expect_err("too large");
        assert_eq!(
            (report.sqlstate.as_str(), report.message.as_str()),
            ("22003", "integer out of range")
        );
        assert_eq!(
            cast(Datum::Float8(2.5), FLOAT8, INT4).expect("a number"),
            Datum::Int4(2)
        );
    }

    #[test]
    fn modifiers_cut_or_refuse() {
        let long = fit(
            Datum::text("abcd"),
            Type::of(Scalar::Varchar),
            3 + 4,
            Context::Assignment,
        )
        .expect_err("too long");
        assert_eq!(long.message, "value too long for type character varying(3)");
        let cut = fit(Datum::text("abcd"), Type::of(Scalar::Varchar), 3 + 4, Context::Explicit).expect("cut");
        assert_eq!(cut, Datum::text("abc"));
    }
}
