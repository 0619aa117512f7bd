//! Arithmetic and the functions of numbers.
//!
//! A family of functions. A plain machine. Operators get both sides in the same type.

use super::Argument::Is;
use super::{Function, float, int, once, plain};
use crate::postgres::engine::execute::{Context, Stop};
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::numeric::Numeric;
use crate::postgres::engine::types::text::too_many_digits;
use crate::postgres::engine::types::{FLOAT8, INT2, INT4, INT8, NUMERIC, Type};
use crate::wire::Report;

/// The operator of that name over two numbers of one type, which is also what it gives.
pub(crate) static ARITHMETIC: [Function; 6] = [
    plain("+", &[], INT4, |_, sides| {
        arithmetic(sides, i64::checked_add, |a, b| a + b, Numeric::add)
    }),
    plain("-", &[], INT4, |_, sides| {
        arithmetic(sides, i64::checked_sub, |a, b| a - b, Numeric::subtract)
    }),
    plain("*", &[], INT4, |_, sides| {
        arithmetic(sides, i64::checked_mul, |a, b| a * b, Numeric::multiply)
    }),
    plain("/", &[], INT4, |_, sides| {
        no_zero(sides)?;
        arithmetic(sides, i64::checked_div, |a, b| a / b, Numeric::divide)
    }),
    plain("%", &[], INT4, |_, sides| {
        no_zero(sides)?;
        let remainder = |a: i64, b: i64| Some(a.checked_rem(b).unwrap_or(0));
        arithmetic(sides, remainder, |a, b| a % b, Numeric::remainder)
    }),
    plain("^", &[], FLOAT8, |_, sides| power(sides)),
];

pub(crate) static NEGATE: Function = plain("-", &[], INT4, |_, values| negate(&values[0]));

pub(super) const FUNCTIONS: &[Function] = &[
    plain("abs", &[Is(INT2)], INT2, |_, v| absolute(&v[0])),
    plain("abs", &[Is(INT4)], INT4, |_, v| absolute(&v[0])),
    plain("abs", &[Is(INT8)], INT8, |_, v| absolute(&v[0])),
    plain("abs", &[Is(NUMERIC)], NUMERIC, |_, v| absolute(&v[0])),
    plain("abs", &[Is(FLOAT8)], FLOAT8, |_, v| absolute(&v[0])),
    plain("ceil", &[Is(NUMERIC)], NUMERIC, |_, v| towards(&v[0], false)),
    plain("ceil", &[Is(FLOAT8)], FLOAT8, |_, v| {
        Ok(Datum::Float8(float(&v[0]).ceil()))
    }),
    plain("ceiling", &[Is(NUMERIC)], NUMERIC, |_, v| towards(&v[0], false)),
    plain("ceiling", &[Is(FLOAT8)], FLOAT8, |_, v| {
        Ok(Datum::Float8(float(&v[0]).ceil()))
    }),
    plain("floor", &[Is(NUMERIC)], NUMERIC, |_, v| towards(&v[0], true)),
    plain("floor", &[Is(FLOAT8)], FLOAT8, |_, v| {
        Ok(Datum::Float8(float(&v[0]).floor()))
    }),
    plain("round", &[Is(NUMERIC)], NUMERIC, |_, v| round(&v[0], 0)),
    plain("round", &[Is(NUMERIC), Is(INT4)], NUMERIC, |_, v| {
        round(&v[0], int(&v[1]))
    }),
    plain("round", &[Is(FLOAT8)], FLOAT8, |_, v| {
        Ok(Datum::Float8(float(&v[0]).round_ties_even()))
    }),
    plain("trunc", &[Is(NUMERIC)], NUMERIC, |_, v| {
        Ok(v[0]
            .as_numeric()
            .map_or(Datum::Null, |n| Datum::Numeric(n.truncated(0))))
    }),
    plain("trunc", &[Is(FLOAT8)], FLOAT8, |_, v| {
        Ok(Datum::Float8(float(&v[0]).trunc()))
    }),
    plain("sign", &[Is(NUMERIC)], NUMERIC, |_, v| {
        let number = v[0].as_numeric().unwrap_or(Numeric::NAN);
        let sign = number.digits().map_or(0, i128::signum);
        Ok(Datum::Numeric(Numeric::new(sign, 0)))
    }),
    plain("sign", &[Is(FLOAT8)], FLOAT8, |_, v| {
        let value = float(&v[0]);
        Ok(Datum::Float8(if value == 0.0 { 0.0 } else { value.signum() }))
    }),
    plain("mod", &[Is(INT4), Is(INT4)], INT4, modulo),
    plain("mod", &[Is(INT8), Is(INT8)], INT8, modulo),
    plain("mod", &[Is(NUMERIC), Is(NUMERIC)], NUMERIC, modulo),
    plain("sqrt", &[Is(FLOAT8)], FLOAT8, |_, v| match float(&v[0]) {
        value if value < 0.0 => Err(Report::error("2201F", "cannot take square root of a negative number").into()),
        value => Ok(Datum::Float8(value.sqrt())),
    }),
    plain("power", &[Is(FLOAT8), Is(FLOAT8)], FLOAT8, |_, v| power(v)),
    plain("exp", &[Is(FLOAT8)], FLOAT8, |_, v| {
        Ok(Datum::Float8(float(&v[0]).exp()))
    }),
    plain("ln", &[Is(FLOAT8)], FLOAT8, |_, v| match float(&v[0]) {
        value if value <= 0.0 => Err(Report::error("2201E", "cannot take logarithm of zero").into()),
        value => Ok(Datum::Float8(value.ln())),
    }),
    plain("pi", &[], FLOAT8, |_, _| Ok(Datum::Float8(std::f64::consts::PI))),
    once("random", &[], FLOAT8, |context, _| {
        // 53 bits fit a float exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let value = (context.engine.random() >> 11) as f64 / (1u64 << 53) as f64;
        Ok(Datum::Float8(value))
    }),
    plain("&", &[Is(INT4), Is(INT4)], INT4, |_, v| bits(v, |a, b| a & b)),
    plain("&", &[Is(INT8), Is(INT8)], INT8, |_, v| bits(v, |a, b| a & b)),
    plain("|", &[Is(INT4), Is(INT4)], INT4, |_, v| bits(v, |a, b| a | b)),
    plain("|", &[Is(INT8), Is(INT8)], INT8, |_, v| bits(v, |a, b| a | b)),
    plain("#", &[Is(INT4), Is(INT4)], INT4, |_, v| bits(v, |a, b| a ^ b)),
    plain("#", &[Is(INT8), Is(INT8)], INT8, |_, v| bits(v, |a, b| a ^ b)),
];

/// The operator over numbers, if it is one of arithmetic.
pub(crate) fn operator(name: &str) -> Option<&'static Function> {
    ARITHMETIC.iter().find(|function| function.name == name)
}

fn shown(value: &Datum) -> &'static str {
    match value {
        Datum::Int2(_) => "smallint",
        Datum::Int8(_) => "bigint",
        _ => "integer",
    }
}

fn overflow(value: &Datum) -> Stop {
    Report::error("22003", format!("{} out of range", shown(value))).into()
}

/// A whole number in the type of `like`.
fn narrowed(like: &Datum, value: Option<i64>) -> Result<Datum, Stop> {
    let value = value.ok_or_else(|| overflow(like))?;
    Ok(match like {
        Datum::Int2(_) => Datum::Int2(i16::try_from(value).map_err(|_| overflow(like))?),
        Datum::Int4(_) => Datum::Int4(i32::try_from(value).map_err(|_| overflow(like))?),
        _ => Datum::Int8(value),
    })
}

fn arithmetic(
    sides: &[Datum],
    whole: impl Fn(i64, i64) -> Option<i64>,
    floating: impl Fn(f64, f64) -> f64,
    decimal: impl Fn(Numeric, Numeric) -> Option<Numeric>,
) -> Result<Datum, Stop> {
    let (a, b) = (&sides[0], &sides[1]);
    Ok(match (a, b) {
        (Datum::Numeric(a), Datum::Numeric(b)) => Datum::Numeric(decimal(*a, *b).ok_or_else(too_many_digits)?),
        (Datum::Float4(x), Datum::Float4(y)) => {
            #[expect(clippy::cast_possible_truncation, reason = "real is the narrower type")]
            let result = floating(f64::from(*x), f64::from(*y)) as f32;
            let finite = x.is_finite() && y.is_finite();
            Datum::Float4(checked(f64::from(result), finite).map(|_| result)?)
        }
        (Datum::Float8(x), Datum::Float8(y)) => {
            Datum::Float8(checked(floating(*x, *y), x.is_finite() && y.is_finite())?)
        }
        (a, b) => return narrowed(a, whole(int(a), int(b))),
    })
}

fn checked(result: f64, finite: bool) -> Result<f64, Stop> {
    if finite && result.is_infinite() {
        return Err(Report::error("22003", "value out of range: overflow").into());
    }
    Ok(result)
}

fn no_zero(sides: &[Datum]) -> Result<(), Stop> {
    let zero = match &sides[1] {
        Datum::Numeric(value) => value.is_zero(),
        Datum::Float4(value) => *value == 0.0,
        Datum::Float8(value) => *value == 0.0,
        value => value.as_i64() == Some(0),
    };
    if zero {
        Err(Report::error("22012", "division by zero").into())
    } else {
        Ok(())
    }
}

fn modulo(_: &mut Context<'_>, sides: &[Datum]) -> Result<Datum, Stop> {
    no_zero(sides)?;
    let remainder = |a: i64, b: i64| Some(a.checked_rem(b).unwrap_or(0));
    arithmetic(sides, remainder, |a, b| a % b, Numeric::remainder)
}

fn power(sides: &[Datum]) -> Result<Datum, Stop> {
    let (a, b) = (float(&sides[0]), float(&sides[1]));
    if a == 0.0 && b < 0.0 {
        return Err(Report::error("2201F", "zero raised to a negative power is undefined").into());
    }
    checked(a.powf(b), a.is_finite() && b.is_finite()).map(Datum::Float8)
}

fn negate(value: &Datum) -> Result<Datum, Stop> {
    Ok(match value {
        Datum::Float4(number) => Datum::Float4(-number),
        Datum::Float8(number) => Datum::Float8(-number),
        Datum::Numeric(number) => Datum::Numeric(number.negated()),
        Datum::Interval(span) => Datum::Interval(crate::postgres::engine::types::datum::Interval {
            months: -span.months,
            days: -span.days,
            micros: -span.micros,
        }),
        other => return narrowed(other, int(other).checked_neg()),
    })
}

fn absolute(value: &Datum) -> Result<Datum, Stop> {
    let negative = match value {
        Datum::Numeric(number) => number.is_negative(),
        Datum::Float8(number) => number.is_sign_negative(),
        other => int(other) < 0,
    };
    if negative { negate(value) } else { Ok(value.clone()) }
}

fn round(value: &Datum, digits: i64) -> Result<Datum, Stop> {
    let number = value.as_numeric().unwrap_or(Numeric::NAN);
    let rounded = if let Ok(scale) = u32::try_from(digits) {
        number.rounded(scale)
    } else {
        let unit = u32::try_from(-digits).ok().and_then(|power| 10i128.checked_pow(power));
        let unit = Numeric::new(unit.ok_or_else(too_many_digits)?, 0);
        let part = number.divide(unit).and_then(|part| part.rounded(0));
        part.and_then(|part| part.multiply(unit))
    };
    Ok(Datum::Numeric(rounded.ok_or_else(too_many_digits)?))
}

fn towards(value: &Datum, down: bool) -> Result<Datum, Stop> {
    let number = value.as_numeric().unwrap_or(Numeric::NAN);
    let cut = number.truncated(0);
    let step = match cut.compare(&number) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater if down => -1,
        std::cmp::Ordering::Less if !down => 1,
        _ => 0,
    };
    let moved = cut.add(Numeric::new(step, 0)).ok_or_else(too_many_digits)?;
    Ok(Datum::Numeric(moved))
}

fn bits(sides: &[Datum], apply: impl Fn(i64, i64) -> i64) -> Result<Datum, Stop> {
    narrowed(&sides[0], Some(apply(int(&sides[0]), int(&sides[1]))))
}

/// The type in which two kinds of numbers are added and compared.
pub(crate) fn common(a: Type, b: Type) -> Option<Type> {
    let (rank_a, rank_b) = (a.number_rank()?, b.number_rank()?);
    // An exact number and a real meet in double precision.
    let real = rank_a.max(rank_b) == 4 && rank_a != rank_b;
    Some(if real {
        FLOAT8
    } else if rank_a >= rank_b {
        a
    } else {
        b
    })
}
