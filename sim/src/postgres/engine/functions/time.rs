//! Clocks, dates, timestamps and intervals; sleeping.
//!
//! A family of functions. A plain machine: the clocks are those of the moment a statement is run with.

use std::time::Duration;

use super::Argument::Is;
use super::{Function, float, int, once, plain, text};
use crate::postgres::engine::door::Wait;
use crate::postgres::engine::execute::{Context, Stop};
use crate::postgres::engine::types::datetime::{self, DAY};
use crate::postgres::engine::types::datum::{Datum, Interval};
use crate::postgres::engine::types::numeric::Numeric;
use crate::postgres::engine::types::{DATE, FLOAT8, INT4, INTERVAL, NUMERIC, TEXT, TIMESTAMP, TIMESTAMPTZ, VOID};
use crate::wire::Report;

pub(super) const FUNCTIONS: &[Function] = &[
    plain("now", &[], TIMESTAMPTZ, started).stable(),
    plain("current_timestamp", &[], TIMESTAMPTZ, started).stable(),
    plain("transaction_timestamp", &[], TIMESTAMPTZ, started).stable(),
    plain("localtimestamp", &[], TIMESTAMP, started).stable(),
    plain("current_date", &[], DATE, |context, _| {
        let days = context.started().div_euclid(DAY);
        Ok(Datum::Date(i32::try_from(days).unwrap_or(0)))
    })
    .stable(),
    plain("statement_timestamp", &[], TIMESTAMPTZ, |context, _| {
        Ok(Datum::Timestamp(context.at.wall))
    })
    .stable(),
    once("clock_timestamp", &[], TIMESTAMPTZ, |context, _| {
        Ok(Datum::Timestamp(context.at.wall))
    }),
    once("pg_sleep", &[Is(FLOAT8)], VOID, |context, v| {
        sleep(context, float(&v[0]))
    }),
    once("pg_sleep_for", &[Is(INTERVAL)], VOID, |context, v| {
        let Datum::Interval(span) = v[0] else {
            return Ok(Datum::Null);
        };
        let micros = datetime::add_interval(0, span, 1).unwrap_or(i64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a time to sleep")]
        sleep(context, micros as f64 / 1e6)
    }),
    plain("+", &[Is(DATE), Is(INT4)], DATE, |_, v| moved_date(&v[0], int(&v[1]))),
    plain("-", &[Is(DATE), Is(INT4)], DATE, |_, v| moved_date(&v[0], -int(&v[1]))),
    plain("-", &[Is(DATE), Is(DATE)], INT4, |_, v| match (&v[0], &v[1]) {
        (Datum::Date(a), Datum::Date(b)) => Ok(Datum::Int4(a - b)),
        _ => Ok(Datum::Null),
    }),
    plain("+", &[Is(DATE), Is(INTERVAL)], TIMESTAMP, |_, v| moved(&v[0], &v[1], 1)),
    plain("-", &[Is(DATE), Is(INTERVAL)], TIMESTAMP, |_, v| {
        moved(&v[0], &v[1], -1)
    }),
    plain("+", &[Is(TIMESTAMP), Is(INTERVAL)], TIMESTAMP, |_, v| {
        moved(&v[0], &v[1], 1)
    }),
    plain("-", &[Is(TIMESTAMP), Is(INTERVAL)], TIMESTAMP, |_, v| {
        moved(&v[0], &v[1], -1)
    }),
    plain("+", &[Is(TIMESTAMPTZ), Is(INTERVAL)], TIMESTAMPTZ, |_, v| {
        moved(&v[0], &v[1], 1)
    }),
    plain("-", &[Is(TIMESTAMPTZ), Is(INTERVAL)], TIMESTAMPTZ, |_, v| {
        moved(&v[0], &v[1], -1)
    }),
    plain("+", &[Is(INTERVAL), Is(TIMESTAMPTZ)], TIMESTAMPTZ, |_, v| {
        moved(&v[1], &v[0], 1)
    }),
    plain("+", &[Is(INTERVAL), Is(TIMESTAMP)], TIMESTAMP, |_, v| {
        moved(&v[1], &v[0], 1)
    }),
    plain("-", &[Is(TIMESTAMP), Is(TIMESTAMP)], INTERVAL, |_, v| {
        difference(&v[0], &v[1])
    }),
    plain("-", &[Is(TIMESTAMPTZ), Is(TIMESTAMPTZ)], INTERVAL, |_, v| {
        difference(&v[0], &v[1])
    }),
    plain("+", &[Is(INTERVAL), Is(INTERVAL)], INTERVAL, |_, v| {
        combined(&v[0], &v[1], 1)
    }),
    plain("-", &[Is(INTERVAL), Is(INTERVAL)], INTERVAL, |_, v| {
        combined(&v[0], &v[1], -1)
    }),
    plain("*", &[Is(INTERVAL), Is(FLOAT8)], INTERVAL, |_, v| {
        times(&v[0], float(&v[1]))
    }),
    plain("*", &[Is(FLOAT8), Is(INTERVAL)], INTERVAL, |_, v| {
        times(&v[1], float(&v[0]))
    }),
    plain("/", &[Is(INTERVAL), Is(FLOAT8)], INTERVAL, |_, v| {
        if float(&v[1]) == 0.0 {
            return Err(Report::error("22012", "division by zero").into());
        }
        times(&v[0], 1.0 / float(&v[1]))
    }),
    plain("date_trunc", &[Is(TEXT), Is(TIMESTAMP)], TIMESTAMP, |_, v| truncated(v)),
    plain("date_trunc", &[Is(TEXT), Is(TIMESTAMPTZ)], TIMESTAMPTZ, |_, v| {
        truncated(v)
    }),
    plain("extract", &[Is(TEXT), Is(TIMESTAMP)], NUMERIC, |_, v| extracted(v)),
    plain("extract", &[Is(TEXT), Is(TIMESTAMPTZ)], NUMERIC, |_, v| extracted(v)),
    plain("extract", &[Is(TEXT), Is(DATE)], NUMERIC, |_, v| extracted(v)),
    plain("extract", &[Is(TEXT), Is(INTERVAL)], NUMERIC, |_, v| extracted(v)),
    plain("date_part", &[Is(TEXT), Is(TIMESTAMP)], FLOAT8, |_, v| {
        as_float(extracted(v))
    }),
    plain("date_part", &[Is(TEXT), Is(TIMESTAMPTZ)], FLOAT8, |_, v| {
        as_float(extracted(v))
    }),
    plain("date_part", &[Is(TEXT), Is(INTERVAL)], FLOAT8, |_, v| {
        as_float(extracted(v))
    }),
    plain("to_timestamp", &[Is(FLOAT8)], TIMESTAMPTZ, |_, v| {
        let epoch = datetime::parse_timestamp("epoch").unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, reason = "out of range becomes the far end")]
        let micros = (float(&v[0]) * 1e6).round() as i64;
        Ok(Datum::Timestamp(epoch.saturating_add(micros)))
    }),
    plain("timezone", &[Is(TEXT), Is(TIMESTAMPTZ)], TIMESTAMP, |_, v| in_zone(v)),
    plain("timezone", &[Is(TEXT), Is(TIMESTAMP)], TIMESTAMPTZ, |_, v| in_zone(v)),
    plain("make_date", &[Is(INT4), Is(INT4), Is(INT4)], DATE, |_, v| {
        let (year, month, day) = (int(&v[0]), int(&v[1]), int(&v[2]));
        let days = datetime::days_from_civil(year, month, day);
        if datetime::civil_from_days(days) != (year, month, day) {
            let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
            return Err(Report::error("22008", message).into());
        }
        Ok(Datum::Date(i32::try_from(days).unwrap_or(0)))
    }),
];

fn started(context: &mut Context<'_>, _: &[Datum]) -> Result<Datum, Stop> {
    Ok(Datum::Timestamp(context.started()))
}

/// The first call waits; when the statement starts over after it, the answer is remembered.
fn sleep(context: &mut Context<'_>, seconds: f64) -> Result<Datum, Stop> {
    if seconds.is_nan() || seconds <= 0.0 {
        return Ok(Datum::Void);
    }
    let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Err(Stop::Wait(Wait::Sleep {
        until: context.at.now + span,
    }))
}

fn micros(value: &Datum) -> i64 {
    match value {
        Datum::Timestamp(micros) => *micros,
        Datum::Date(days) => i64::from(*days) * DAY,
        _ => 0,
    }
}

fn out_of_range() -> Stop {
    Report::error("22008", "timestamp out of range").into()
}

fn moved_date(date: &Datum, days: i64) -> Result<Datum, Stop> {
    let Datum::Date(start) = date else {
        return Ok(Datum::Null);
    };
    let moved = i32::try_from(i64::from(*start) + days);
    Ok(Datum::Date(
        moved.map_err(|_| Report::error("22008", "date out of range"))?,
    ))
}

fn moved(start: &Datum, span: &Datum, sign: i64) -> Result<Datum, Stop> {
    let Datum::Interval(span) = span else {
        return Ok(Datum::Null);
    };
    let moved = datetime::add_interval(micros(start), *span, sign);
    Ok(Datum::Timestamp(moved.ok_or_else(out_of_range)?))
}

fn difference(a: &Datum, b: &Datum) -> Result<Datum, Stop> {
    let span = micros(a).checked_sub(micros(b)).ok_or_else(out_of_range)?;
    Ok(Datum::Interval(Interval {
        months: 0,
        days: i32::try_from(span / DAY).unwrap_or(0),
        micros: span % DAY,
    }))
}

fn combined(a: &Datum, b: &Datum, sign: i32) -> Result<Datum, Stop> {
    let (Datum::Interval(a), Datum::Interval(b)) = (a, b) else {
        return Ok(Datum::Null);
    };
    Ok(Datum::Interval(Interval {
        months: a.months.saturating_add(sign.saturating_mul(b.months)),
        days: a.days.saturating_add(sign.saturating_mul(b.days)),
        micros: a.micros.saturating_add(i64::from(sign).saturating_mul(b.micros)),
    }))
}

/// Fractions of months and days spill into the smaller units.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "PostgreSQL's own arithmetic is in double precision"
)]
fn times(span: &Datum, factor: f64) -> Result<Datum, Stop> {
    let Datum::Interval(span) = span else {
        return Ok(Datum::Null);
    };
    let months = f64::from(span.months) * factor;
    let days = f64::from(span.days) * factor + months.fract() * 30.0;
    let micros = span.micros as f64 * factor + days.fract() * DAY as f64;
    Ok(Datum::Interval(Interval {
        months: months.trunc() as i32,
        days: days.trunc() as i32,
        micros: micros.round() as i64,
    }))
}

fn unit_error(unit: &str) -> Stop {
    Report::error(
        "22023",
        format!("unit \"{unit}\" not recognized for type timestamp without time zone"),
    )
    .into()
}

fn truncated(values: &[Datum]) -> Result<Datum, Stop> {
    let unit = text(&values[0]).to_ascii_lowercase();
    let start = datetime::truncate(&unit, micros(&values[1])).ok_or_else(|| unit_error(&unit))?;
    Ok(Datum::Timestamp(start))
}

fn extracted(values: &[Datum]) -> Result<Datum, Stop> {
    let unit = text(&values[0]).to_ascii_lowercase();
    let found = match &values[1] {
        Datum::Interval(span) => of_interval(&unit, *span),
        other => datetime::field(&unit, micros(other)),
    };
    let found = found.ok_or_else(|| unit_error(&unit))?;
    let with_fraction = ["second", "milliseconds", "epoch"].contains(&unit.as_str());
    let number = Numeric::new(i128::from(found), 6);
    let scale = match unit.as_str() {
        "milliseconds" => 3,
        _ if with_fraction => 6,
        _ => 0,
    };
    Ok(Datum::Numeric(number.rounded(scale).unwrap_or(number)))
}

fn of_interval(unit: &str, span: Interval) -> Option<i64> {
    const SECOND: i64 = 1_000_000;
    Some(match unit {
        "epoch" => i64::from(span.months) * 30 * DAY + i64::from(span.days) * DAY + span.micros,
        "year" => i64::from(span.months / 12) * SECOND,
        "month" => i64::from(span.months % 12) * SECOND,
        "day" => i64::from(span.days) * SECOND,
        "hour" => span.micros / (3_600 * SECOND) * SECOND,
        "minute" => span.micros / (60 * SECOND) % 60 * SECOND,
        "second" => span.micros % (60 * SECOND),
        "milliseconds" => span.micros % (60 * SECOND) * 1_000,
        _ => return None,
    })
}

fn as_float(value: Result<Datum, Stop>) -> Result<Datum, Stop> {
    value.map(|value| Datum::Float8(float(&value)))
}

fn in_zone(values: &[Datum]) -> Result<Datum, Stop> {
    let zone = text(&values[0]);
    if ["utc", "gmt", "etc/utc", "z"].contains(&zone.to_ascii_lowercase().as_str()) {
        return Ok(values[1].clone());
    }
    Err(Report::error("0A000", format!("gdbpool-sim does not support the time zone {zone}")).into())
}
