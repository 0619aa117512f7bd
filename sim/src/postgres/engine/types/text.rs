//! The text forms of values: what literals and text parameters say, what clients without binary read.
//!
//! Between SQL texts and values. A plain machine. Errors are those of PostgreSQL's input functions.

use std::fmt::Write;
use std::sync::Arc;

use super::datum::Datum;
use super::json::Json;
use super::numeric::Numeric;
use super::{Scalar, Type, datetime};
use crate::wire::Report;

/// Reads the text form of `of`.
pub(crate) fn read(of: Type, text: &str) -> Result<Datum, Report> {
    if of.array {
        return read_array(of, text);
    }
    let trimmed = text.trim();
    let wrong = || invalid(of, text);
    let datum = match of.scalar {
        Scalar::Bool => Datum::Bool(read_bool(trimmed).ok_or_else(wrong)?),
        Scalar::Int2 => Datum::Int2(read_integer(of, text)?),
        Scalar::Int4 => Datum::Int4(read_integer(of, text)?),
        Scalar::Int8 => Datum::Int8(read_integer(of, text)?),
        Scalar::Oid | Scalar::Xid => Datum::Oid(read_integer(of, text)?),
        Scalar::Xid8 => Datum::Xid8(trimmed.parse().map_err(|_| wrong())?),
        Scalar::Float4 => {
            let value = read_float(trimmed).ok_or_else(wrong)?;
            #[expect(clippy::cast_possible_truncation, reason = "real is the narrower type")]
            let narrow = value as f32;
            if narrow.is_infinite() && value.is_finite() {
                return Err(out_of_range(of, text));
            }
            Datum::Float4(narrow)
        }
        Scalar::Float8 => Datum::Float8(read_float(trimmed).ok_or_else(wrong)?),
        Scalar::Numeric => Datum::Numeric(Numeric::parse(trimmed).ok_or_else(|| {
            let looks_right = trimmed
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            if looks_right && trimmed.len() > 30 {
                too_many_digits()
            } else {
                invalid(of, text)
            }
        })?),
        Scalar::Text | Scalar::Varchar | Scalar::Bpchar | Scalar::Unknown => Datum::text(text),
        Scalar::Name => Datum::text(cut(text, 63)),
        Scalar::Char => Datum::text(cut(text, 1)),
        Scalar::Bytea => Datum::Bytea(read_bytea(text)?.into()),
        Scalar::Uuid => Datum::Uuid(read_uuid(trimmed).ok_or_else(wrong)?),
        Scalar::Date => Datum::Date(datetime::parse_date(trimmed).ok_or_else(|| invalid_time(of, text))?),
        Scalar::Timestamp | Scalar::TimestampTz => {
            Datum::Timestamp(datetime::parse_timestamp(trimmed).ok_or_else(|| invalid_time(of, text))?)
        }
        Scalar::Interval => Datum::Interval(datetime::parse_interval(trimmed).ok_or_else(|| invalid_time(of, text))?),
        Scalar::Json => {
            Json::parse(text).ok_or_else(|| invalid_json(text))?;
            Datum::Json(Arc::from(text))
        }
        Scalar::Jsonb => Datum::Jsonb(Arc::new(Json::parse(text).ok_or_else(|| invalid_json(text))?)),
        Scalar::PgLsn => Datum::Lsn(read_lsn(trimmed).ok_or_else(wrong)?),
        Scalar::Bit => {
            let digits = trimmed.strip_prefix(['b', 'B']).unwrap_or(trimmed);
            Datum::Bit(Arc::from(read_bits(digits)?))
        }
        Scalar::Void => Datum::Void,
        // Names are looked up by the session that casts; numbers stand for themselves.
        Scalar::Regclass | Scalar::Regnamespace | Scalar::Regtype => Datum::Oid(trimmed.parse().map_err(|_| wrong())?),
        Scalar::Record => {
            return Err(Report::error(
                "0A000",
                "input of anonymous composite types is not implemented",
            ));
        }
    };
    Ok(datum)
}

/// Writes the text form.
pub(crate) fn write(value: &Datum, of: Type) -> String {
    match value {
        Datum::Null | Datum::Void => String::new(),
        Datum::Bool(value) => (if *value { "t" } else { "f" }).to_owned(),
        Datum::Int2(value) => value.to_string(),
        Datum::Int4(value) => value.to_string(),
        Datum::Int8(value) => value.to_string(),
        Datum::Oid(value) => value.to_string(),
        Datum::Xid8(value) => value.to_string(),
        Datum::Float4(value) => float_text(f64::from(*value), format!("{value}"), format!("{value:e}")),
        Datum::Float8(value) => float_text(*value, format!("{value}"), format!("{value:e}")),
        Datum::Numeric(value) => value.to_string(),
        Datum::Text(text) | Datum::Json(text) | Datum::Bit(text) => text.to_string(),
        Datum::Jsonb(json) => json.to_string(),
        Datum::Bytea(bytes) => bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
        Datum::Uuid(bytes) => uuid_text(bytes),
        Datum::Date(days) => datetime::date_text(*days),
        Datum::Timestamp(micros) => datetime::timestamp_text(*micros, of.scalar == Scalar::TimestampTz),
        Datum::Interval(span) => datetime::interval_text(*span),
        Datum::Lsn(lsn) => lsn_text(*lsn),
        Datum::Array(array) => {
            let mut text = "{".to_owned();
            for (at, item) in array.items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                match item {
                    Datum::Null => text.push_str("NULL"),
                    item => text.push_str(&array_item(&write(item, array.element))),
                }
            }
            text.push('}');
            text
        }
        Datum::Record(items) => {
            let shown = items.iter().map(|item| match item {
                Datum::Null => String::new(),
                item => record_item(&write(item, of)),
            });
            format!("({})", shown.collect::<Vec<_>>().join(","))
        }
    }
}

pub(crate) fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

pub(crate) fn read_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text: &str| {
        (1..=8)
            .contains(&text.len())
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
    };
    Some(part(high)? << 32 | part(low)?)
}

pub(crate) fn invalid(of: Type, text: &str) -> Report {
    Report::error(
        "22P02",
        format!("invalid input syntax for type {}: \"{text}\"", of.shown()),
    )
}

pub(crate) fn too_many_digits() -> Report {
    Report::error(
        "0A000",
        "gdbpool-sim does not support numeric values of more than 38 digits",
    )
}

fn invalid_time(of: Type, text: &str) -> Report {
    let shape = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | ' ' | '.' | 'T' | '+');
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(shape) && text.matches('-').count() >= 2 {
        return Report::error("22008", format!("date/time field value out of range: \"{text}\""));
    }
    Report::error(
        "22007",
        format!("invalid input syntax for type {}: \"{text}\"", of.shown()),
    )
}

fn invalid_json(text: &str) -> Report {
    let detail = if text.trim().is_empty() {
        "The input string ended unexpectedly.".to_owned()
    } else {
        let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len()).max(1);
        format!("Token \"{}\" is invalid.", text.get(..end).unwrap_or(text))
    };
    Report::error("22P02", "invalid input syntax for type json").detail(detail)
}

pub(crate) fn out_of_range(of: Type, text: &str) -> Report {
    Report::error(
        "22003",
        format!("value \"{text}\" is out of range for type {}", of.shown()),
    )
}

fn read_integer<T: TryFrom<i128>>(of: Type, text: &str) -> Result<T, Report> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(of, text));
    }
    let value: i128 = trimmed.parse().map_err(|_| out_of_range(of, text))?;
    T::try_from(value).map_err(|_| out_of_range(of, text))
}

fn read_bool(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let starts = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if starts("true", 1) || starts("yes", 1) || starts("on", 2) || text == "1" {
        Some(true)
    } else if starts("false", 1) || starts("no", 1) || starts("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

fn read_float(text: &str) -> Option<f64> {
    let shape = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "infinity" | "inf" | "+infinity" => Some(f64::INFINITY),
        "-infinity" | "-inf" => Some(f64::NEG_INFINITY),
        lower if lower.chars().all(shape) => lower.parse().ok(),
        _ => None,
    }
}

fn float_text(value: f64, plain: String, exponent: String) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return (if value > 0.0 { "Infinity" } else { "-Infinity" }).to_owned();
    }
    let Some((mantissa, power)) = exponent.split_once('e') else {
        return plain;
    };
    // PostgreSQL's shortest form has an exponent outside of these.
    match power.parse::<i32>() {
        Ok(power) if !(-4..15).contains(&power) => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", power.abs())
        }
        _ => plain,
    }
}

fn read_bytea(text: &str) -> Result<Vec<u8>, Report> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if !digits.len().is_multiple_of(2) {
            return Err(Report::error("22023", "invalid hexadecimal data: odd number of digits"));
        }
        let pair = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'))
        };
        let bytes = digits.chunks(2).map(pair);
        return bytes
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| Report::error("22023", "invalid hexadecimal digit"));
    }
    let wrong = || Report::error("22P02", "invalid input syntax for type bytea");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
        } else if let [b'\\', tail @ ..] = rest {
            bytes.push(b'\\');
            rest = tail;
        } else {
            let digits = rest
                .get(..3)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .ok_or_else(wrong)?;
            bytes.push(u8::from_str_radix(digits, 8).map_err(|_| wrong())?);
            rest = &rest[3..];
        }
    }
    Ok(bytes)
}

fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap_or(text);
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(*bytes));
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

fn read_bits(text: &str) -> Result<String, Report> {
    if let Some(digits) = text.strip_prefix(['x', 'X']) {
        let mut bits = String::new();
        for c in digits.chars() {
            let digit = c
                .to_digit(16)
                .ok_or_else(|| Report::error("22P02", format!("\"{c}\" is not a valid hexadecimal digit")))?;
            let _ = write!(bits, "{digit:04b}");
        }
        return Ok(bits);
    }
    match text.chars().find(|c| !matches!(c, '0' | '1')) {
        Some(c) => Err(Report::error("22P02", format!("\"{c}\" is not a valid binary digit"))),
        None => Ok(text.to_owned()),
    }
}

/// At most `most` bytes, cut between characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn array_item(text: &str) -> String {
    let special = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',') || c.is_whitespace();
    if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

fn record_item(text: &str) -> String {
    let special = |c: char| matches!(c, '"' | '\\' | '(' | ')' | ',') || c.is_whitespace();
    if text.is_empty() || text.contains(special) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn read_array(of: Type, text: &str) -> Result<Datum, Report> {
    let malformed = || Report::error("22P02", format!("malformed array literal: \"{text}\""));
    let body = text
        .trim()
        .strip_prefix('{')
        .ok_or_else(|| malformed().detail("Array value must start with \"{\" or dimension information."))?;
    let body = body
        .strip_suffix('}')
        .ok_or_else(|| malformed().detail("Unexpected end of input."))?;
    let mut items = Vec::new();
    let mut chars = body.chars().peekable();
    while chars.peek().is_some_and(|c| c.is_whitespace()) {
        chars.next();
    }
    if chars.peek().is_none() {
        return Ok(Datum::array(of.element(), items));
    }
    loop {
        let (mut item, mut quoted) = (String::new(), false);
        loop {
            match chars.next() {
                None | Some(',') if !quoted || item.is_empty() => break,
                None | Some(',') => break,
                Some('"') => {
                    quoted = true;
                    loop {
                        match chars.next().ok_or_else(malformed)? {
                            '"' => break,
                            '\\' => item.push(chars.next().ok_or_else(malformed)?),
                            c => item.push(c),
                        }
                    }
                    while chars.peek().is_some_and(|c| c.is_whitespace()) {
                        chars.next();
                    }
                    match chars.peek() {
                        None | Some(',') => {}
                        Some(_) => return Err(malformed()),
                    }
                }
                Some('{') => {
                    return Err(Report::error(
                        "0A000",
                        "gdbpool-sim does not support arrays of more than one dimension",
                    ));
                }
                Some('}') => return Err(malformed()),
                Some('\\') => item.push(chars.next().ok_or_else(malformed)?),
                Some(c) => item.push(c),
            }
            if chars.peek().is_none() || chars.peek() == Some(&',') {
                break;
            }
        }
        let more = chars.next().is_some();
        let bare = if quoted { item.as_str() } else { item.trim() };
        if !quoted && bare.is_empty() {
            return Err(malformed());
        }
        items.push(if !quoted && bare.eq_ignore_ascii_case("null") {
            Datum::Null
        } else {
            read(of.element(), bare)?
        });
        if !more {
            return Ok(Datum::array(of.element(), items));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn texts_come_back() {
        for (of, text) in [
            (INT4, "-7"),
            (FLOAT8, "1e+15"),
            (FLOAT8, "0.0001"),
            (FLOAT8, "1e-05"),
            (BYTEA, "\\x00ff"),
            (UUID, "00000000-0000-4000-8000-0000000000ff"),
            (PG_LSN, "1/2A"),
            (Type::array(Scalar::Text), "{a,\"b c\",NULL,\"\",\"q\\\"\"}"),
            (Type::array(Scalar::Int4), "{}"),
            (Type::array(Scalar::Int4), "{1,2}"),
        ] {
            let value = read(of, text).unwrap_or_else(|report| panic!("{text}: {report:?}"));
            assert_eq!(write(&value, of), text);
        }
    }

    #[test]
    fn wrong_texts_are_refused_in_postgresqls_words() {
        let message = |of, text| read(of, text).expect_err("a wrong text").message;
        assert_eq!(message(INT4, "x"), "invalid input syntax for type integer: \"x\"");
        assert_eq!(
            message(INT2, "70000"),
            "value \"70000\" is out of range for type smallint"
        );
        assert_eq!(
            message(TIMESTAMPTZ, "yesterdays"),
            "invalid input syntax for type timestamp with time zone: \"yesterdays\""
        );
    }
}
