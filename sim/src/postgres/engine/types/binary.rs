//! The binary forms of values on the wire.
//!
//! Between messages and values: parameters come in here, rows go out. A plain machine. What is not a value of the type is
//! refused as PostgreSQL's receive functions do.

use std::sync::Arc;

use super::datum::{Array, Datum, Interval};
use super::json::Json;
use super::numeric::Numeric;
use super::{Scalar, Type, text};
use crate::wire::Report;

impl Datum {
    /// A value of the type `oid` from its form on the wire; `None` is NULL.
    pub(crate) fn decode(oid: u32, binary: bool, bytes: Option<&[u8]>) -> Result<Self, Report> {
        let Some(bytes) = bytes else {
            return Ok(Self::Null);
        };
        let of = Type::from_oid(oid)
            .ok_or_else(|| Report::error("0A000", format!("gdbpool-sim does not support values of type {oid}")))?;
        if binary {
            receive(of, bytes).ok_or_else(|| malformed(of))
        } else {
            text::read(of, utf8(bytes)?)
        }
    }

    /// The form on the wire of a value of the type `oid`; `None` is NULL.
    pub(crate) fn encode(&self, oid: u32, binary: bool) -> Option<Vec<u8>> {
        if self.is_null() {
            return None;
        }
        let of = Type::from_oid(oid).unwrap_or(super::TEXT);
        if !binary {
            return Some(text::write(self, of).into_bytes());
        }
        let mut out = Vec::new();
        send(self, of, &mut out);
        Some(out)
    }
}

/// Checks that the bytes are text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Report> {
    let wrong = |at: usize| {
        let shown: Vec<String> = bytes[at..].iter().take(1).map(|byte| format!("0x{byte:02x}")).collect();
        Report::error(
            "22021",
            format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
        )
    };
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(wrong(at));
    }
    std::str::from_utf8(bytes).map_err(|error| wrong(error.valid_up_to()))
}

fn malformed(of: Type) -> Report {
    if of.is_string() {
        return Report::error("22021", "invalid byte sequence for encoding \"UTF8\"");
    }
    Report::error("22P03", format!("incorrect binary data format for type {}", of.shown()))
}

fn receive(of: Type, bytes: &[u8]) -> Option<Datum> {
    if of.array {
        return receive_array(of, bytes);
    }
    Some(match of.scalar {
        Scalar::Bool => Datum::Bool(*bytes.first().filter(|_| bytes.len() == 1)? != 0),
        Scalar::Int2 => Datum::Int2(i16::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Int4 => Datum::Int4(i32::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Int8 => Datum::Int8(i64::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Oid | Scalar::Xid | Scalar::Regclass | Scalar::Regnamespace | Scalar::Regtype => {
            Datum::Oid(u32::from_be_bytes(bytes.try_into().ok()?))
        }
        Scalar::Xid8 => Datum::Xid8(u64::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Float4 => Datum::Float4(f32::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Float8 => Datum::Float8(f64::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::PgLsn => Datum::Lsn(u64::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Date => Datum::Date(i32::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Timestamp | Scalar::TimestampTz => Datum::Timestamp(i64::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Interval => {
            let (micros, rest) = bytes.split_at_checked(8)?;
            let (days, months) = rest.split_at_checked(4)?;
            Datum::Interval(Interval {
                months: i32::from_be_bytes(months.try_into().ok()?),
                days: i32::from_be_bytes(days.try_into().ok()?),
                micros: i64::from_be_bytes(micros.try_into().ok()?),
            })
        }
        Scalar::Uuid => Datum::Uuid(bytes.try_into().ok()?),
        Scalar::Bytea => Datum::Bytea(bytes.into()),
        Scalar::Json => {
            let text = utf8(bytes).ok()?;
            Json::parse(text)?;
            Datum::Json(Arc::from(text))
        }
        Scalar::Jsonb => {
            let text = utf8(bytes.strip_prefix(&[1])?).ok()?;
            Datum::Jsonb(Arc::new(Json::parse(text)?))
        }
        Scalar::Numeric => receive_numeric(bytes)?,
        Scalar::Bpchar | Scalar::Char | Scalar::Name | Scalar::Text | Scalar::Unknown | Scalar::Varchar => {
            Datum::text(utf8(bytes).ok()?)
        }
        Scalar::Void => Datum::Void,
        Scalar::Bit | Scalar::Record => return None,
    })
}

fn receive_array(of: Type, bytes: &[u8]) -> Option<Datum> {
    let mut rest = bytes;
    let dimensions = take_i32(&mut rest)?;
    let _has_nulls = take_i32(&mut rest)?;
    let element = Type::from_oid(take_i32(&mut rest)?.cast_unsigned())?;
    if element != of.element() {
        return None;
    }
    match dimensions {
        0 => return Some(Datum::array(element, Vec::new())),
        1 => {}
        _ => return None,
    }
    let length = usize::try_from(take_i32(&mut rest)?).ok()?;
    let _lower_bound = take_i32(&mut rest)?;
    let mut items = Vec::new();
    for _ in 0..length {
        let size = take_i32(&mut rest)?;
        if size < 0 {
            items.push(Datum::Null);
            continue;
        }
        let (item, tail) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        items.push(receive(element, item)?);
        rest = tail;
    }
    rest.is_empty().then(|| Datum::array(element, items))
}

fn take_i32(rest: &mut &[u8]) -> Option<i32> {
    let (head, tail) = rest.split_at_checked(4)?;
    *rest = tail;
    Some(i32::from_be_bytes(head.try_into().ok()?))
}

fn receive_numeric(bytes: &[u8]) -> Option<Datum> {
    let words: Vec<i16> = bytes
        .chunks_exact(2)
        .map(|pair| i16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    let [count, weight, sign, scale, digits @ ..] = words.as_slice() else {
        return None;
    };
    if usize::try_from(*count).ok()? != digits.len() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let sign = sign.cast_unsigned();
    if sign == 0xc000 {
        return Some(Datum::Numeric(Numeric::NAN));
    }
    let mut value: i128 = 0;
    for digit in digits {
        value = value.checked_mul(10_000)?.checked_add(i128::from(*digit))?;
    }
    // The last digit stands for 10,000 to this power.
    let power = i32::from(*weight) - i32::from(*count) + 1;
    let scale = u32::try_from(*scale).ok()?;
    let number = if power >= 0 {
        Numeric::new(value.checked_mul(10i128.checked_pow(power.unsigned_abs() * 4)?)?, 0)
    } else {
        Numeric::new(value, power.unsigned_abs() * 4)
    };
    let number = number.rounded(scale)?;
    Some(Datum::Numeric(if sign == 0x4000 { number.negated() } else { number }))
}

fn send(value: &Datum, of: Type, out: &mut Vec<u8>) {
    match value {
        Datum::Null | Datum::Void => {}
        Datum::Bool(value) => out.push(u8::from(*value)),
        Datum::Int2(value) => out.extend(value.to_be_bytes()),
        Datum::Int4(value) | Datum::Date(value) => out.extend(value.to_be_bytes()),
        Datum::Int8(value) | Datum::Timestamp(value) => out.extend(value.to_be_bytes()),
        Datum::Oid(value) => out.extend(value.to_be_bytes()),
        Datum::Lsn(value) | Datum::Xid8(value) => out.extend(value.to_be_bytes()),
        Datum::Float4(value) => out.extend(value.to_be_bytes()),
        Datum::Float8(value) => out.extend(value.to_be_bytes()),
        Datum::Interval(span) => {
            out.extend(span.micros.to_be_bytes());
            out.extend(span.days.to_be_bytes());
            out.extend(span.months.to_be_bytes());
        }
        Datum::Uuid(bytes) => out.extend(bytes),
        Datum::Bytea(bytes) => out.extend(&bytes[..]),
        Datum::Text(text) | Datum::Json(text) => out.extend(text.as_bytes()),
        Datum::Jsonb(json) => {
            out.push(1);
            out.extend(json.to_string().into_bytes());
        }
        Datum::Numeric(value) => send_numeric(*value, out),
        Datum::Bit(bits) => {
            out.extend(i32::try_from(bits.len()).unwrap_or(0).to_be_bytes());
            for byte in bits.as_bytes().chunks(8) {
                let value = byte.iter().fold(0u8, |value, bit| value << 1 | (bit - b'0'));
                out.push(value << (8 - byte.len()));
            }
        }
        Datum::Array(array) => send_array(array, out),
        Datum::Record(items) => {
            out.extend(i32::try_from(items.len()).unwrap_or(0).to_be_bytes());
            for item in items.iter() {
                let of = type_of(item).unwrap_or(of);
                out.extend(of.oid().to_be_bytes());
                sized(item, of, out);
            }
        }
    }
}

/// The type that a value alone shows.
pub(crate) fn type_of(value: &Datum) -> Option<Type> {
    Some(Type::of(match value {
        Datum::Null => return None,
        Datum::Array(array) => return Some(Type::array(array.element.scalar)),
        Datum::Bit(_) => Scalar::Bit,
        Datum::Bool(_) => Scalar::Bool,
        Datum::Bytea(_) => Scalar::Bytea,
        Datum::Date(_) => Scalar::Date,
        Datum::Float4(_) => Scalar::Float4,
        Datum::Float8(_) => Scalar::Float8,
        Datum::Int2(_) => Scalar::Int2,
        Datum::Int4(_) => Scalar::Int4,
        Datum::Int8(_) => Scalar::Int8,
        Datum::Interval(_) => Scalar::Interval,
        Datum::Json(_) => Scalar::Json,
        Datum::Jsonb(_) => Scalar::Jsonb,
        Datum::Lsn(_) => Scalar::PgLsn,
        Datum::Numeric(_) => Scalar::Numeric,
        Datum::Oid(_) => Scalar::Oid,
        Datum::Record(_) => Scalar::Record,
        Datum::Text(_) => Scalar::Text,
        Datum::Timestamp(_) => Scalar::TimestampTz,
        Datum::Uuid(_) => Scalar::Uuid,
        Datum::Void => Scalar::Void,
        Datum::Xid8(_) => Scalar::Xid8,
    }))
}

fn send_array(array: &Array, out: &mut Vec<u8>) {
    let has_nulls = array.items.iter().any(Datum::is_null);
    out.extend(i32::from(!array.items.is_empty()).to_be_bytes());
    out.extend(i32::from(has_nulls).to_be_bytes());
    out.extend(array.element.oid().to_be_bytes());
    if array.items.is_empty() {
        return;
    }
    out.extend(i32::try_from(array.items.len()).unwrap_or(0).to_be_bytes());
    out.extend(1i32.to_be_bytes());
    for item in &array.items {
        sized(item, array.element, out);
    }
}

fn sized(value: &Datum, of: Type, out: &mut Vec<u8>) {
    if value.is_null() {
        out.extend((-1i32).to_be_bytes());
        return;
    }
    let at = out.len();
    out.extend([0; 4]);
    send(value, of, out);
    let length = i32::try_from(out.len() - at - 4).unwrap_or(0);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn send_numeric(value: Numeric, out: &mut Vec<u8>) {
    let Some(digits) = value.digits() else {
        for word in [0u16, 0, 0xc000, 0] {
            out.extend(word.to_be_bytes());
        }
        return;
    };
    let scale = value.scale();
    // Digits to base 10,000, aligned at the point.
    let padding = (4 - scale % 4) % 4;
    let mut text = format!("{}{}", digits.unsigned_abs(), "0".repeat(padding as usize));
    while !text.len().is_multiple_of(4) {
        text.insert(0, '0');
    }
    let fraction_words = i32::try_from((scale + padding) / 4).unwrap_or(0);
    let mut words: Vec<u16> = text
        .as_bytes()
        .chunks(4)
        .map(|chunk| chunk.iter().fold(0, |word, digit| word * 10 + u16::from(digit - b'0')))
        .collect();
    let mut weight = i32::try_from(words.len()).unwrap_or(0) - fraction_words - 1;
    while words.first() == Some(&0) {
        words.remove(0);
        weight -= 1;
    }
    while words.last() == Some(&0) {
        words.pop();
    }
    if words.is_empty() {
        weight = 0;
    }
    let sign: u16 = if digits < 0 { 0x4000 } else { 0 };
    out.extend(u16::try_from(words.len()).unwrap_or(0).to_be_bytes());
    out.extend(i16::try_from(weight).unwrap_or(0).to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend(u16::try_from(scale).unwrap_or(0).to_be_bytes());
    for word in words {
        out.extend(word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn binary_forms_come_back() {
        for (of, form) in [
            (BOOL, "t"),
            (NUMERIC, "-12345.067"),
            (NUMERIC, "0.0001"),
            (NUMERIC, "100000000"),
            (NUMERIC, "0"),
            (INTERVAL, "1 mon 2 days 00:00:01"),
            (JSONB, "{\"a\": [1, 2]}"),
            (Type::array(Scalar::Text), "{a,NULL}"),
            (Type::array(Scalar::Int8), "{}"),
            (TIMESTAMPTZ, "2024-02-29 12:00:00+00"),
        ] {
            let value = text::read(of, form).expect("a value");
            let bytes = value.encode(of.oid(), true).expect("not null");
            let back = Datum::decode(of.oid(), true, Some(&bytes)).expect("a binary form");
            assert_eq!(text::write(&back, of), form);
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let report = Datum::decode(23, true, Some(&[1, 2])).expect_err("two bytes");
        assert_eq!(report.sqlstate, "22P03");
        assert!(Datum::decode(25, true, Some(&[0xff])).is_err());
    }
}
