//! The lexer: SQL text to tokens, by PostgreSQL's lexical rules (manual, chapter 4.1).
//!
//! Under the parser. A plain machine. `standard_conforming_strings` is always on.

use crate::wire::Report;

/// One token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Bytes from the start of the text.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bit string's digits, with `b` or `x` in front.
    Bits(String),
    End,
    /// A number, as written.
    Number(String),
    /// An operator or a mark.
    Operator(String),
    /// `$1`.
    Parameter(usize),
    /// A quoted name, unescaped.
    Quoted(String),
    /// A string constant, unescaped.
    Text(String),
    /// An unquoted name or key word, in lower case.
    Word(String),
}

/// All tokens of `sql`, with an [`Kind::End`] behind the last one.
pub(crate) fn tokens(sql: &str) -> Result<Vec<Token>, Report> {
    let mut lexer = Lexer { sql, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.blanks()?;
        let start = lexer.at;
        let kind = lexer.kind()?;
        let end = lexer.at;
        let last = kind == Kind::End;
        // A constant that goes on after a line break.
        if let (
            Kind::Text(more),
            Some(Token {
                kind: Kind::Text(text),
                end: before,
                ..
            }),
        ) = (&kind, tokens.last_mut())
            && sql[..*before].ends_with('\'')
            && sql[*before..start].contains('\n')
            && sql[start..].starts_with('\'')
        {
            text.push_str(more);
            *before = end;
            continue;
        }
        tokens.push(Token { kind, start, end });
        if last {
            return Ok(tokens);
        }
    }
}

/// A syntax error at the byte `at`.
pub(crate) fn syntax_error(sql: &str, start: usize, end: usize) -> Report {
    let near = sql.get(start..end).unwrap_or_default();
    let message = if near.is_empty() {
        "syntax error at end of input".to_owned()
    } else {
        format!("syntax error at or near \"{near}\"")
    };
    Report::error("42601", message).position(characters(sql, start))
}

/// The place of a byte in characters, from one.
pub(crate) fn characters(sql: &str, at: usize) -> usize {
    sql.get(..at).map_or(0, |before| before.chars().count()) + 1
}

struct Lexer<'a> {
    sql: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.sql[self.at..]
    }

    fn error(&self, message: &str, start: usize) -> Report {
        let near = &self.sql[start..];
        Report::error("42601", format!("{message} at or near \"{near}\"")).position(characters(self.sql, start))
    }

    fn blanks(&mut self) -> Result<(), Report> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']).len();
            self.at += blank;
            if self.rest().starts_with("--") {
                self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len());
            } else if self.rest().starts_with("/*") {
                self.comment()?;
            } else {
                return Ok(());
            }
        }
    }

    fn comment(&mut self) -> Result<(), Report> {
        let start = self.at;
        let mut depth = 0;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                let next = rest.chars().next();
                let next = next.ok_or_else(|| self.error("unterminated /* comment", start))?;
                self.at += next.len_utf8();
            }
        }
    }

    fn kind(&mut self) -> Result<Kind, Report> {
        let rest = self.rest();
        let mut chars = rest.chars();
        let Some(first) = chars.next() else {
            return Ok(Kind::End);
        };
        let second = chars.next();
        match (first, second) {
            ('\'', _) => self.string(0, false).map(Kind::Text),
            ('e' | 'E', Some('\'')) => self.string(1, true).map(Kind::Text),
            ('b' | 'B' | 'x' | 'X', Some('\'')) => {
                let digits = self.string(1, false)?;
                Ok(Kind::Bits(format!("{}{digits}", first.to_ascii_lowercase())))
            }
            ('u' | 'U', Some('&')) if matches!(rest.as_bytes().get(2), Some(b'\'' | b'"')) => Err(Report::error(
                "0A000",
                "gdbpool-sim does not support strings and names with Unicode escapes",
            )),
            ('"', _) => self.quoted(),
            ('$', Some(c)) if c.is_ascii_digit() => self.parameter(),
            ('$', Some(c)) if c == '$' || c == '_' || c.is_alphabetic() => self.dollars(),
            ('.', Some(c)) if c.is_ascii_digit() => Ok(self.number()),
            (c, _) if c.is_ascii_digit() => Ok(self.number()),
            (c, _) if c == '_' || c.is_alphabetic() => {
                let keep = |c: char| c == '_' || c == '$' || c.is_alphanumeric();
                let length = rest.find(|c| !keep(c)).unwrap_or(rest.len());
                let word = rest[..length].to_ascii_lowercase();
                self.at += length;
                Ok(Kind::Word(super::types::text::cut(&word, 63).to_owned()))
            }
            _ => Ok(self.operator(first)),
        }
    }

    fn string(&mut self, prefix: usize, escapes: bool) -> Result<String, Report> {
        let start = self.at;
        self.at += prefix + 1;
        let mut text = String::new();
        loop {
            let next = self.rest().chars().next();
            let next = next.ok_or_else(|| self.error("unterminated quoted string", start))?;
            self.at += next.len_utf8();
            match next {
                '\'' if self.rest().starts_with('\'') => {
                    self.at += 1;
                    text.push('\'');
                }
                '\'' => return Ok(text),
                '\\' if escapes => {
                    let escaped = self.rest().chars().next();
                    let escaped = escaped.ok_or_else(|| self.error("unterminated quoted string", start))?;
                    self.at += escaped.len_utf8();
                    text.push(self.escape(escaped));
                }
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, escaped: char) -> char {
        let digits = |lexer: &mut Self, radix: u32, most: usize| {
            let length = lexer
                .rest()
                .chars()
                .take(most)
                .take_while(|c| c.is_digit(radix))
                .count();
            let value = u32::from_str_radix(&lexer.rest()[..length], radix).ok();
            lexer.at += length;
            value.and_then(char::from_u32)
        };
        match escaped {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => digits(self, 16, 4).unwrap_or('u'),
            'U' => digits(self, 16, 8).unwrap_or('U'),
            'x' => digits(self, 16, 2).unwrap_or('x'),
            '0'..='7' => {
                self.at -= 1;
                digits(self, 8, 3).unwrap_or(escaped)
            }
            c => c,
        }
    }

    fn quoted(&mut self) -> Result<Kind, Report> {
        let start = self.at;
        self.at += 1;
        let mut name = String::new();
        loop {
            let next = self.rest().chars().next();
            let next = next.ok_or_else(|| self.error("unterminated quoted identifier", start))?;
            self.at += next.len_utf8();
            match next {
                '"' if self.rest().starts_with('"') => {
                    self.at += 1;
                    name.push('"');
                }
                '"' if name.is_empty() => return Err(self.error("zero-length delimited identifier", start)),
                '"' => return Ok(Kind::Quoted(super::types::text::cut(&name, 63).to_owned())),
                c => name.push(c),
            }
        }
    }

    fn parameter(&mut self) -> Result<Kind, Report> {
        let start = self.at;
        let digits = &self.rest()[1..];
        let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number = digits[..length]
            .parse::<usize>()
            .ok()
            .filter(|number| *number <= 65_535);
        self.at += 1 + length;
        number
            .map(Kind::Parameter)
            .ok_or_else(|| Report::error("42P02", format!("there is no parameter {}", &self.sql[start..self.at])))
    }

    fn dollars(&mut self) -> Result<Kind, Report> {
        let start = self.at;
        let rest = self.rest();
        let length = rest[1..]
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len() - 1);
        if !rest[1 + length..].starts_with('$') {
            return Ok(self.operator('$'));
        }
        let tag = rest[..length + 2].to_owned();
        let body = &rest[tag.len()..];
        let Some(end) = body.find(&tag) else {
            return Err(self.error("unterminated dollar-quoted string", start));
        };
        let text = body[..end].to_owned();
        self.at += tag.len() * 2 + end;
        Ok(Kind::Text(text))
    }

    fn number(&mut self) -> Kind {
        let bytes = self.rest().as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut length = digits(0);
        // `1..10` is not a number with a fraction.
        if bytes.get(length) == Some(&b'.') && bytes.get(length + 1) != Some(&b'.') {
            length += 1;
            length += digits(length);
        }
        if matches!(bytes.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
            let exponent = digits((length + 1 + sign).min(bytes.len()));
            if exponent > 0 {
                length += 1 + sign + exponent;
            }
        }
        let text = self.rest()[..length].to_owned();
        self.at += length;
        Kind::Number(text)
    }

    fn operator(&mut self, first: char) -> Kind {
        const MARKS: &str = "()[],;.:";
        const OPERATORS: &str = "+-*/<>=~!@#%^&|`?";
        let rest = self.rest();
        if rest.starts_with("::") || rest.starts_with(":=") {
            self.at += 2;
            return Kind::Operator(self.sql[self.at - 2..self.at].to_owned());
        }
        if MARKS.contains(first) || !OPERATORS.contains(first) {
            self.at += first.len_utf8();
            return Kind::Operator(first.to_string());
        }
        let mut length = rest.find(|c| !OPERATORS.contains(c)).unwrap_or(rest.len());
        for comment in ["--", "/*"] {
            length = rest[..length].find(comment).unwrap_or(length);
        }
        // A sign at the end belongs to what follows, unless the operator has one of these characters.
        while length > 1
            && rest[..length].ends_with(['+', '-'])
            && !rest[..length].contains(['~', '!', '@', '#', '%', '^', '&', '|', '`', '?'])
        {
            length -= 1;
        }
        self.at += length;
        Kind::Operator(rest_of(self.sql, self.at, length))
    }
}

fn rest_of(sql: &str, end: usize, length: usize) -> String {
    sql[end - length..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sql: &str) -> Vec<Kind> {
        tokens(sql)
            .expect("tokens")
            .into_iter()
            .map(|token| token.kind)
            .collect()
    }

    #[test]
    fn texts_names_numbers_and_operators_are_told_apart() {
        let found = kinds("a.\"B\"\"c\"<=-1.5e3||E'x\\n''y' $1::$$z$$ -- c\n/* /* */ */ 'a'\n'b'");
        let expected = [
            Kind::Word("a".into()),
            Kind::Operator(".".into()),
            Kind::Quoted("B\"c".into()),
            Kind::Operator("<=".into()),
            Kind::Operator("-".into()),
            Kind::Number("1.5e3".into()),
            Kind::Operator("||".into()),
            Kind::Text("x\n'y".into()),
            Kind::Parameter(1),
            Kind::Operator("::".into()),
            Kind::Text("z".into()),
            Kind::Text("ab".into()),
            Kind::End,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_ended_is_an_error_of_syntax() {
        for sql in ["'a", "\"a", "/* a", "$$a"] {
            assert_eq!(tokens(sql).expect_err("unterminated").sqlstate, "42601", "{sql}");
        }
    }
}
