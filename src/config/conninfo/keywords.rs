//! The keyword form: `key = value key = 'a value'`, as libpq's `conninfo_parse` reads it. A plain machine.

use super::{Parameters, Refusal, is_blank};

pub(super) fn parse(text: &str, parameters: &mut Parameters) -> Result<(), Refusal> {
    let mut rest = text.trim_start_matches(is_blank);
    while !rest.is_empty() {
        let before = &text[..text.len() - rest.len()];
        let end = rest.find(|c| c == '=' || is_blank(c)).unwrap_or(rest.len());
        let key = &rest[..end];
        let Some(behind) = rest[end..].trim_start_matches(is_blank).strip_prefix('=') else {
            // Without the word itself: it may be a part of a password.
            return Err(Refusal::new(
                "a word without \"=\" behind it; quote values that have blanks in them",
            ));
        };
        let (value, behind) = value(behind.trim_start_matches(is_blank))?;
        if !parameters.give(key, &value) {
            return Err(Refusal::unknown_key(key, before));
        }
        rest = behind.trim_start_matches(is_blank);
    }
    Ok(())
}

/// The value that `text` begins with, and what is behind it.
fn value(text: &str) -> Result<(String, &str), Refusal> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            blank if !quoted && is_blank(blank) => return Ok((value, &body[at + 1..])),
            other => value.push(other),
        }
    }
    if quoted {
        return Err(Refusal::new("an unterminated quoted value"));
    }
    Ok((value, ""))
}
