//! Dates, timestamps and intervals: calendar arithmetic and ISO texts.
//!
//! Under the type texts and the date functions. A plain machine. Time zones other than fixed offsets are not known: a
//! timestamp with time zone is always shown in UTC.

use super::datum::Interval;

/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;
const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;
/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// Days since 2000-01-01 of a civil date.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468 - EPOCH_DAYS
}

/// Year, month and day of days since 2000-01-01.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468 + EPOCH_DAYS;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

pub(crate) fn date_text(days: i32) -> String {
    match days {
        i32::MAX => return "infinity".to_owned(),
        i32::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let (year, month, day) = civil_from_days(i64::from(days));
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

pub(crate) fn timestamp_text(micros: i64, zone: bool) -> String {
    match micros {
        i64::MAX => return "infinity".to_owned(),
        i64::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let date = date_text(i32::try_from(days).unwrap_or(i32::MAX - 1));
    let (date, era) = match date.strip_suffix(" BC") {
        Some(date) => (date.to_owned(), " BC"),
        None => (date, ""),
    };
    let zone = if zone { "+00" } else { "" };
    format!("{date} {}{zone}{era}", time_text(rest))
}

fn time_text(micros: i64) -> String {
    let (hours, minutes, seconds) = (micros / HOUR, micros / MINUTE % 60, micros / SECOND % 60);
    let fraction = micros % SECOND;
    let mut text = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if fraction != 0 {
        text.push('.');
        text.push_str(format!("{fraction:06}").trim_end_matches('0'));
    }
    text
}

pub(crate) fn interval_text(value: Interval) -> String {
    let mut parts = Vec::new();
    let mut part = |count: i32, unit: &str| {
        if count != 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {unit}{plural}"));
        }
    };
    part(value.months / 12, "year");
    part(value.months % 12, "mon");
    part(value.days, "day");
    if value.micros != 0 || parts.is_empty() {
        let sign = if value.micros < 0 { "-" } else { "" };
        parts.push(format!("{sign}{}", time_text(value.micros.saturating_abs())));
    }
    parts.join(" ")
}

pub(crate) fn parse_date(text: &str) -> Option<i32> {
    match text.trim().to_ascii_lowercase().as_str() {
        "infinity" => return Some(i32::MAX),
        "-infinity" => return Some(i32::MIN),
        "epoch" => return Some(i32::try_from(-EPOCH_DAYS).unwrap_or(0)),
        _ => {}
    }
    parse_timestamp(text).and_then(|micros| i32::try_from(micros.div_euclid(DAY)).ok())
}

/// Microseconds since 2000-01-01 UTC. A zone in the text is taken off; without one it is UTC.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        "epoch" => return Some(-EPOCH_DAYS * DAY),
        _ => {}
    }
    let at = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let (date, time) = (&text[..at], text[at..].trim_start_matches(['T', 't', ' ']));
    let mut parts = date.split('-');
    let year: i64 = number(parts.next()?, 4..=6)?;
    let month: i64 = number(parts.next()?, 1..=2)?;
    let day: i64 = number(parts.next()?, 1..=2)?;
    let days = days_from_civil(year, month, day);
    if parts.next().is_some() || civil_from_days(days) != (year, month, day) {
        return None;
    }
    let micros = if time.is_empty() { 0 } else { parse_time(time)? };
    Some(days * DAY + micros)
}

/// A time of day with an optional zone, which is taken off.
fn parse_time(text: &str) -> Option<i64> {
    let (time, offset) = split_zone(text)?;
    let mut parts = time.trim().split(':');
    let hours: i64 = number(parts.next()?, 1..=2)?;
    let minutes: i64 = number(parts.next()?, 2..=2)?;
    let seconds = match parts.next() {
        Some(seconds) => parse_seconds(seconds)?,
        None => 0,
    };
    let valid = parts.next().is_none() && hours <= 24 && minutes < 60 && seconds <= 60 * SECOND;
    valid.then(|| hours * HOUR + minutes * MINUTE + seconds - offset)
}

fn parse_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = number(whole, 1..=9)?;
    let digits: String = format!("{fraction:0<7}").chars().take(7).collect();
    let micros: i64 = digits.parse().ok()?;
    // The seventh digit rounds.
    Some(whole * SECOND + (micros + 5) / 10)
}

/// The time, and how far its zone is east of UTC.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    let lower = text.to_ascii_lowercase();
    for name in ["utc", "gmt", "z"] {
        if lower.ends_with(name) {
            return Some((&text[..text.len() - name.len()], 0));
        }
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0));
    };
    let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
    let zone = &text[at + 1..];
    let (hours, minutes) = match zone.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if zone.len() == 4 => zone.split_at(2),
        None => (zone, "0"),
    };
    let offset = number(hours, 1..=2)? * HOUR + number(minutes, 1..=2)? * MINUTE;
    Some((&text[..at], sign * offset))
}

fn number(text: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let digits = lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// `1 day 02:03:04`, `3 hours`, `-5 minutes`; PostgreSQL's verbose and ISO 8601 forms are left out.
pub(crate) fn parse_interval(text: &str) -> Option<Interval> {
    let mut value = Interval::default();
    let mut words = text.split_whitespace().peekable();
    words.peek()?;
    let mut pending: Vec<String> = Vec::new();
    for word in words {
        // `5minutes` is a number and its unit.
        let at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        if at > 0 && at < word.len() {
            pending.push(word[..at].to_owned());
            pending.push(word[at..].to_owned());
        } else {
            pending.push(word.to_owned());
        }
    }
    let mut at = 0;
    while at < pending.len() {
        let word = &pending[at];
        if word.contains(':') {
            let (sign, time) = word.strip_prefix('-').map_or((1, word.as_str()), |rest| (-1, rest));
            let mut parts = time.split(':');
            let hours: i64 = number(parts.next()?, 1..=9)?;
            let minutes: i64 = number(parts.next()?, 1..=2)?;
            let seconds = parts.next().map_or(Some(0), parse_seconds)?;
            value.micros = value
                .micros
                .checked_add(sign * (hours * HOUR + minutes * MINUTE + seconds))?;
            at += 1;
            continue;
        }
        let unit = pending
            .get(at + 1)
            .map_or("second", String::as_str)
            .to_ascii_lowercase();
        add_unit(&mut value, word, &unit)?;
        at += 2;
    }
    Some(value)
}

fn add_unit(value: &mut Interval, count: &str, unit: &str) -> Option<()> {
    let unit = unit.strip_suffix('s').filter(|rest| rest.len() > 1).unwrap_or(unit);
    let size = match unit {
        "microsecond" | "u" => 1,
        "millisecond" | "m" if unit != "m" => 1_000,
        "second" | "sec" | "s" => SECOND,
        "minute" | "min" | "m" => MINUTE,
        "hour" | "hr" | "h" => HOUR,
        "day" | "d" | "week" | "w" => {
            let days: i32 = count.parse().ok()?;
            value.days = value
                .days
                .checked_add(days.checked_mul(if unit.starts_with('w') { 7 } else { 1 })?)?;
            return Some(());
        }
        "month" | "mon" | "year" | "y" => {
            let months: i32 = count.parse().ok()?;
            let each = if unit.starts_with('y') { 12 } else { 1 };
            value.months = value.months.checked_add(months.checked_mul(each)?)?;
            return Some(());
        }
        _ => return None,
    };
    let (negative, digits) = count.strip_prefix('-').map_or((false, count), |rest| (true, rest));
    let micros = i128::from(parse_seconds(digits.trim_start_matches('+'))?) * i128::from(size) / i128::from(SECOND);
    let micros = i64::try_from(micros).ok()?;
    value.micros = value.micros.checked_add(if negative { -micros } else { micros })?;
    Some(())
}

/// A timestamp moved by an interval: months first, with the day cut to the month's end.
pub(crate) fn add_interval(micros: i64, span: Interval, sign: i64) -> Option<i64> {
    let (mut days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    if span.months != 0 {
        let (year, month, day) = civil_from_days(days);
        let months = year * 12 + month - 1 + sign * i64::from(span.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        let last = days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1);
        days = days_from_civil(year, month, day.min(last));
    }
    days = days.checked_add(sign * i64::from(span.days))?;
    days.checked_mul(DAY)?
        .checked_add(rest)?
        .checked_add(sign.checked_mul(span.micros)?)
}

/// A field of a timestamp by its name in `extract`, in micros of the unit (so that fractions stay exact).
pub(crate) fn field(name: &str, micros: i64) -> Option<i64> {
    let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, day) = civil_from_days(days);
    let whole = match name {
        "year" => year,
        "month" => month,
        "day" => day,
        "hour" => rest / HOUR,
        "minute" => rest / MINUTE % 60,
        "second" => return Some(rest % MINUTE),
        "milliseconds" => return Some(rest % MINUTE * 1_000),
        "epoch" => return Some(micros + EPOCH_DAYS * DAY),
        "dow" => (days + 6).rem_euclid(7),
        "isodow" => (days + 5).rem_euclid(7) + 1,
        "doy" => days - days_from_civil(year, 1, 1) + 1,
        "quarter" => (month - 1) / 3 + 1,
        _ => return None,
    };
    Some(whole * SECOND)
}

/// The start of the unit a timestamp is in.
pub(crate) fn truncate(name: &str, micros: i64) -> Option<i64> {
    let days = micros.div_euclid(DAY);
    let (year, month, _) = civil_from_days(days);
    Some(match name {
        "microseconds" => micros,
        "milliseconds" => micros.div_euclid(1_000) * 1_000,
        "second" => micros.div_euclid(SECOND) * SECOND,
        "minute" => micros.div_euclid(MINUTE) * MINUTE,
        "hour" => micros.div_euclid(HOUR) * HOUR,
        "day" => days * DAY,
        "week" => (days - (days + 5).rem_euclid(7)) * DAY,
        "month" => days_from_civil(year, month, 1) * DAY,
        "quarter" => days_from_civil(year, (month - 1) / 3 * 3 + 1, 1) * DAY,
        "year" => days_from_civil(year, 1, 1) * DAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        for text in [
            "2000-01-01 00:00:00",
            "1999-02-28 23:59:59.5",
            "2024-02-29 12:00:00.000001",
        ] {
            let micros = parse_timestamp(text).expect("a timestamp");
            assert_eq!(timestamp_text(micros, false), text);
        }
        let moved = parse_timestamp("2024-01-01 02:00:00+02:00").expect("a timestamp");
        assert_eq!(timestamp_text(moved, true), "2024-01-01 00:00:00+00");
        assert_eq!(parse_timestamp("2023-02-29"), None);
    }

    #[test]
    fn intervals_are_read_shown_and_added() {
        let span = parse_interval("1 mon 2 days 03:04:05.6").expect("an interval");
        assert_eq!(interval_text(span), "1 mon 2 days 03:04:05.6");
        assert_eq!(
            interval_text(parse_interval("90 minutes").expect("an interval")),
            "01:30:00"
        );
        let end = parse_timestamp("2024-01-31").expect("a timestamp");
        let month = parse_interval("1 month").expect("an interval");
        let moved = add_interval(end, month, 1).expect("a sum");
        assert_eq!(timestamp_text(moved, false), "2024-02-29 00:00:00");
    }
}
