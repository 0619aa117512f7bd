//! The functions of character and byte strings.
//!
//! A family of functions. A plain machine. Characters are Unicode code points, as PostgreSQL's are in UTF8.

use std::fmt::Write;

use md5::{Digest, Md5};

use super::Argument::{Any, Is};
use super::{Function, int, plain, text};
use crate::postgres::engine::execute::{Context, Stop};
use crate::postgres::engine::types::binary::type_of;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{BOOL, BYTEA, INT4, INT8, NAME, TEXT, text as texts};
use crate::wire::Report;

/// A longer result than this is refused, as it would be by PostgreSQL at 1 GB.
const MAX_LENGTH: usize = 64 << 20;

pub(super) const FUNCTIONS: &[Function] = &[
    plain("length", &[Is(TEXT)], INT4, |_, v| length(text(&v[0]).chars().count())),
    plain("length", &[Is(BYTEA)], INT4, |_, v| length(bytes(&v[0]).len())),
    plain("char_length", &[Is(TEXT)], INT4, |_, v| {
        length(text(&v[0]).chars().count())
    }),
    plain("character_length", &[Is(TEXT)], INT4, |_, v| {
        length(text(&v[0]).chars().count())
    }),
    plain("octet_length", &[Is(TEXT)], INT4, |_, v| length(text(&v[0]).len())),
    plain("octet_length", &[Is(BYTEA)], INT4, |_, v| length(bytes(&v[0]).len())),
    plain("bit_length", &[Is(TEXT)], INT4, |_, v| length(text(&v[0]).len() * 8)),
    plain("lower", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).to_lowercase()))
    }),
    plain("upper", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).to_uppercase()))
    }),
    plain("initcap", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(initcap(text(&v[0]))))
    }),
    plain("||", &[Is(TEXT), Is(TEXT)], TEXT, |_, v| {
        joined(&[text(&v[0]), text(&v[1])])
    }),
    plain("||", &[Is(TEXT), Any], TEXT, |_, v| {
        joined(&[text(&v[0]), &shown(&v[1])])
    }),
    plain("||", &[Any, Is(TEXT)], TEXT, |_, v| {
        joined(&[&shown(&v[0]), text(&v[1])])
    }),
    plain("||", &[Is(BYTEA), Is(BYTEA)], BYTEA, |_, v| {
        Ok(Datum::Bytea([bytes(&v[0]), bytes(&v[1])].concat().into()))
    }),
    plain("concat", &[Any], TEXT, |_, v| {
        let parts: Vec<String> = v.iter().map(shown).collect();
        Ok(Datum::text(parts.concat()))
    })
    .variadic(),
    plain("concat_ws", &[Is(TEXT), Any], TEXT, |_, v| {
        if v[0].is_null() {
            return Ok(Datum::Null);
        }
        let parts = v[1..].iter().filter(|part| !part.is_null());
        let parts: Vec<String> = parts.map(shown).collect();
        Ok(Datum::text(parts.join(text(&v[0]))))
    })
    .variadic(),
    plain("format", &[Is(TEXT), Any], TEXT, |_, v| format(v)).variadic(),
    plain("substring", &[Is(TEXT), Is(INT4)], TEXT, |_, v| {
        substring(text(&v[0]), int(&v[1]), None)
    }),
    plain("substring", &[Is(TEXT), Is(INT4), Is(INT4)], TEXT, |_, v| {
        substring(text(&v[0]), int(&v[1]), Some(int(&v[2])))
    }),
    plain("substr", &[Is(TEXT), Is(INT4)], TEXT, |_, v| {
        substring(text(&v[0]), int(&v[1]), None)
    }),
    plain("substr", &[Is(TEXT), Is(INT4), Is(INT4)], TEXT, |_, v| {
        substring(text(&v[0]), int(&v[1]), Some(int(&v[2])))
    }),
    plain("position", &[Is(TEXT), Is(TEXT)], INT4, |_, v| {
        position(text(&v[0]), text(&v[1]))
    }),
    plain("strpos", &[Is(TEXT), Is(TEXT)], INT4, |_, v| {
        position(text(&v[0]), text(&v[1]))
    }),
    plain("replace", &[Is(TEXT), Is(TEXT), Is(TEXT)], TEXT, |_, v| {
        let (whole, from) = (text(&v[0]), text(&v[1]));
        Ok(if from.is_empty() {
            v[0].clone()
        } else {
            Datum::text(whole.replace(from, text(&v[2])))
        })
    }),
    plain("translate", &[Is(TEXT), Is(TEXT), Is(TEXT)], TEXT, |_, v| {
        let to: Vec<char> = text(&v[2]).chars().collect();
        let change = |c: char| match text(&v[1]).chars().position(|from| from == c) {
            Some(at) => to.get(at).copied(),
            None => Some(c),
        };
        Ok(Datum::text(text(&v[0]).chars().filter_map(change).collect::<String>()))
    }),
    plain("repeat", &[Is(TEXT), Is(INT4)], TEXT, |_, v| {
        let times = usize::try_from(int(&v[1])).unwrap_or(0);
        if text(&v[0]).len().saturating_mul(times) > MAX_LENGTH {
            return Err(Report::error("54000", "requested length too large").into());
        }
        Ok(Datum::text(text(&v[0]).repeat(times)))
    }),
    plain("reverse", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).chars().rev().collect::<String>()))
    }),
    plain("left", &[Is(TEXT), Is(INT4)], TEXT, |_, v| {
        let count = text(&v[0]).chars().count();
        let kept = from_end(int(&v[1]), count);
        Ok(Datum::text(text(&v[0]).chars().take(kept).collect::<String>()))
    }),
    plain("right", &[Is(TEXT), Is(INT4)], TEXT, |_, v| {
        let count = text(&v[0]).chars().count();
        let kept = from_end(int(&v[1]), count).min(count);
        Ok(Datum::text(text(&v[0]).chars().skip(count - kept).collect::<String>()))
    }),
    plain("lpad", &[Is(TEXT), Is(INT4)], TEXT, |_, v| pad(v, " ", true)),
    plain("lpad", &[Is(TEXT), Is(INT4), Is(TEXT)], TEXT, |_, v| {
        pad(v, text(&v[2]), true)
    }),
    plain("rpad", &[Is(TEXT), Is(INT4)], TEXT, |_, v| pad(v, " ", false)),
    plain("rpad", &[Is(TEXT), Is(INT4), Is(TEXT)], TEXT, |_, v| {
        pad(v, text(&v[2]), false)
    }),
    plain("ltrim", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).trim_start_matches(' ')))
    }),
    plain("ltrim", &[Is(TEXT), Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).trim_start_matches(|c| text(&v[1]).contains(c))))
    }),
    plain("rtrim", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).trim_end_matches(' ')))
    }),
    plain("rtrim", &[Is(TEXT), Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).trim_end_matches(|c| text(&v[1]).contains(c))))
    }),
    plain("btrim", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).trim_matches(' ')))
    }),
    plain("btrim", &[Is(TEXT), Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(text(&v[0]).trim_matches(|c| text(&v[1]).contains(c))))
    }),
    plain("split_part", &[Is(TEXT), Is(TEXT), Is(INT4)], TEXT, split_part),
    plain("starts_with", &[Is(TEXT), Is(TEXT)], BOOL, |_, v| {
        Ok(Datum::Bool(text(&v[0]).starts_with(text(&v[1]))))
    }),
    plain("ascii", &[Is(TEXT)], INT4, |_, v| {
        let first = text(&v[0]).chars().next().map_or(0, u32::from);
        Ok(Datum::Int4(first.cast_signed()))
    }),
    plain("chr", &[Is(INT4)], TEXT, |_, v| {
        let found = u32::try_from(int(&v[0]))
            .ok()
            .filter(|code| *code > 0)
            .and_then(char::from_u32);
        let found = found.ok_or_else(|| Report::error("54000", "requested character not valid for encoding"))?;
        Ok(Datum::text(found.to_string()))
    }),
    plain("md5", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(md5(text(&v[0]).as_bytes())))
    }),
    plain("md5", &[Is(BYTEA)], TEXT, |_, v| Ok(Datum::text(md5(bytes(&v[0]))))),
    plain("to_hex", &[Is(INT4)], TEXT, |_, v| {
        let Datum::Int4(value) = v[0] else {
            return Ok(Datum::Null);
        };
        Ok(Datum::text(format!("{value:x}")))
    }),
    plain("to_hex", &[Is(INT8)], TEXT, |_, v| {
        Ok(Datum::text(format!("{:x}", int(&v[0]))))
    }),
    plain("encode", &[Is(BYTEA), Is(TEXT)], TEXT, |_, v| {
        match text(&v[1]).to_ascii_lowercase().as_str() {
            "hex" => Ok(Datum::text(hex(bytes(&v[0])))),
            other => Err(unsupported_encoding(other)),
        }
    }),
    plain("decode", &[Is(TEXT), Is(TEXT)], BYTEA, |_, v| {
        match text(&v[1]).to_ascii_lowercase().as_str() {
            "hex" => Ok(texts::read(BYTEA, &format!("\\x{}", text(&v[0])))?),
            other => Err(unsupported_encoding(other)),
        }
    }),
    plain("convert_from", &[Is(BYTEA), Is(NAME)], TEXT, |_, v| {
        Ok(Datum::text(crate::postgres::engine::types::binary::utf8(bytes(&v[0]))?))
    }),
    plain("quote_ident", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(quote_ident(text(&v[0]))))
    }),
    plain("quote_literal", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(quote_literal(text(&v[0]))))
    }),
    plain("quote_nullable", &[Is(TEXT)], TEXT, |_, v| {
        Ok(Datum::text(if v[0].is_null() {
            "NULL".to_owned()
        } else {
            quote_literal(text(&v[0]))
        }))
    })
    .lax(),
];

fn length(value: usize) -> Result<Datum, Stop> {
    Ok(Datum::Int4(i32::try_from(value).unwrap_or(i32::MAX)))
}

fn bytes(value: &Datum) -> &[u8] {
    match value {
        Datum::Bytea(bytes) => bytes,
        _ => &[],
    }
}

/// Any value as text; NULL is nothing.
pub(crate) fn shown(value: &Datum) -> String {
    texts::write(value, type_of(value).unwrap_or(TEXT))
}

fn joined(parts: &[&str]) -> Result<Datum, Stop> {
    if parts.iter().map(|part| part.len()).sum::<usize>() > MAX_LENGTH {
        return Err(Report::error("54000", "requested length too large").into());
    }
    Ok(Datum::text(parts.concat()))
}

fn unsupported_encoding(name: &str) -> Stop {
    if ["base64", "escape"].contains(&name) {
        return Report::error("0A000", format!("gdbpool-sim does not support the encoding {name}")).into();
    }
    Report::error("22023", format!("unrecognized encoding: \"{name}\"")).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn md5(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

fn initcap(text: &str) -> String {
    let mut start = true;
    let mut out = String::new();
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = !c.is_alphanumeric();
    }
    out
}

fn substring(text: &str, from: i64, count: Option<i64>) -> Result<Datum, Stop> {
    if count.is_some_and(|count| count < 0) {
        return Err(Report::error("22011", "negative substring length not allowed").into());
    }
    let end = count.map_or(i64::MAX, |count| from.saturating_add(count));
    let start = usize::try_from(from.max(1) - 1).unwrap_or(0);
    let length = usize::try_from(end.saturating_sub(from.max(1))).unwrap_or(0);
    Ok(Datum::text(text.chars().skip(start).take(length).collect::<String>()))
}

fn position(whole: &str, part: &str) -> Result<Datum, Stop> {
    length(whole.find(part).map_or(0, |at| whole[..at].chars().count() + 1))
}

/// How many characters of `count` are kept; a negative number says how many are not.
fn from_end(kept: i64, count: usize) -> usize {
    let kept = if kept < 0 {
        i64::try_from(count).unwrap_or(0) + kept
    } else {
        kept
    };
    usize::try_from(kept).unwrap_or(0)
}

fn pad(values: &[Datum], fill: &str, left: bool) -> Result<Datum, Stop> {
    let whole = text(&values[0]);
    let wanted = usize::try_from(int(&values[1])).unwrap_or(0);
    if wanted > MAX_LENGTH {
        return Err(Report::error("54000", "requested length too large").into());
    }
    let count = whole.chars().count();
    if count >= wanted {
        return Ok(Datum::text(whole.chars().take(wanted).collect::<String>()));
    }
    let padding: String = fill
        .chars()
        .cycle()
        .take(if fill.is_empty() { 0 } else { wanted - count })
        .collect();
    Ok(Datum::text(if left {
        format!("{padding}{whole}")
    } else {
        format!("{whole}{padding}")
    }))
}

fn split_part(_: &mut Context<'_>, values: &[Datum]) -> Result<Datum, Stop> {
    let (whole, by, field) = (text(&values[0]), text(&values[1]), int(&values[2]));
    if field == 0 {
        return Err(Report::error("22023", "field position must not be zero").into());
    }
    let parts: Vec<&str> = if by.is_empty() {
        vec![whole]
    } else {
        whole.split(by).collect()
    };
    let count = i64::try_from(parts.len()).unwrap_or(i64::MAX);
    let at = if field < 0 { count + field } else { field - 1 };
    Ok(Datum::text(
        usize::try_from(at).ok().and_then(|at| parts.get(at)).unwrap_or(&""),
    ))
}

/// A name as SQL writes it.
pub(crate) fn quote_ident(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if starts && name.chars().all(plain) && !crate::postgres::engine::parser::is_reserved(name) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string as SQL writes it.
pub(crate) fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// `format('%s %I %L %1$s', …)`.
fn format(values: &[Datum]) -> Result<Datum, Stop> {
    if values[0].is_null() {
        return Ok(Datum::Null);
    }
    let template = text(&values[0]);
    let mut out = String::new();
    let mut rest = template;
    let mut next = 1;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if let (Ok(number), Some(after)) = (rest[..digits].parse::<usize>(), rest[digits..].strip_prefix('$')) {
            next = number;
            rest = after;
        }
        let Some(kind) = rest.chars().next() else {
            let hint = "For a single \"%\" use \"%%\".";
            return Err(Report::error("22023", "unterminated format() type specifier")
                .hint(hint)
                .into());
        };
        rest = &rest[kind.len_utf8()..];
        let value = values.get(next).filter(|_| next > 0);
        let value = value.ok_or_else(|| Report::error("22023", "too few arguments for format()"))?;
        next += 1;
        match kind {
            's' => out.push_str(&shown(value)),
            'I' if value.is_null() => {
                return Err(Report::error("22004", "null values cannot be formatted as an SQL identifier").into());
            }
            'I' => out.push_str(&quote_ident(&shown(value))),
            'L' if value.is_null() => out.push_str("NULL"),
            'L' => out.push_str(&quote_literal(&shown(value))),
            '-' | '*' | '0'..='9' => {
                return Err(Report::error("0A000", "gdbpool-sim does not support widths in format()").into());
            }
            other => {
                let hint = "For a single \"%\" use \"%%\".";
                let message = format!("unrecognized format() type specifier \"{other}\"");
                return Err(Report::error("22023", message).hint(hint).into());
            }
        }
    }
    out.push_str(rest);
    Ok(Datum::text(out))
}

/// LIKE: whether the text matches the pattern.
pub(crate) fn like(whole: &str, pattern: &str, escape: Option<char>, insensitive: bool) -> Result<bool, Report> {
    let fold = |text: &str| {
        if insensitive {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    let whole: Vec<char> = fold(whole).chars().collect();
    let mut parts = Vec::new();
    let pattern = fold(pattern);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            c if Some(c) == escape => {
                let next = chars.next();
                Part::One(
                    next.ok_or_else(|| Report::error("22025", "LIKE pattern must not end with escape character"))?,
                )
            }
            '%' => Part::Any,
            '_' => Part::Single,
            c => Part::One(c),
        });
    }
    Ok(matches(&whole, &parts))
}

#[derive(Clone, Copy)]
enum Part {
    Any,
    One(char),
    Single,
}

/// Greedy with one point to go back to, which is all that `%` needs.
fn matches(whole: &[char], parts: &[Part]) -> bool {
    let (mut at, mut part) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < whole.len() {
        let one = match parts.get(part) {
            Some(Part::Any) => {
                back = Some((at, part));
                part += 1;
                continue;
            }
            Some(Part::One(c)) => *c == whole[at],
            Some(Part::Single) => true,
            None => false,
        };
        if one {
            at += 1;
            part += 1;
        } else if let Some((start, any)) = back {
            back = Some((start + 1, any));
            at = start + 1;
            part = any + 1;
        } else {
            return false;
        }
    }
    parts[part..].iter().all(|part| matches!(part, Part::Any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_like_does() {
        for (whole, pattern, expected) in [
            ("abc", "a%", true),
            ("abc", "_b_", true),
            ("abc", "%c%", true),
            ("abc", "a_", false),
            ("a%c", "a\\%c", true),
            ("aXbXc", "a%X%c", true),
            ("", "%", true),
        ] {
            assert_eq!(
                like(whole, pattern, Some('\\'), false),
                Ok(expected),
                "{whole} LIKE {pattern}"
            );
        }
        assert_eq!(like("ABC", "a%", Some('\\'), true), Ok(true));
    }

    #[test]
    fn names_and_texts_are_quoted_when_they_must_be() {
        assert_eq!(quote_ident("abc_1"), "abc_1");
        assert_eq!(quote_ident("Select"), "\"Select\"");
        assert_eq!(quote_ident("select"), "\"select\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }
}
