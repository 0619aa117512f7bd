//! Just enough SQL reading for a scripted server: splitting at semicolons, and words.
//!
//! Used by the session model before anything is answered. It knows strings, quoted names, dollar quotes and comments,
//! and no grammar.

/// One token of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// `$1`.
    Parameter(usize),
    /// A quoted name, unescaped.
    Quoted(String),
    /// A string literal, unescaped.
    Text(String),
    /// Any other character.
    Symbol(char),
    /// A word or number, in lower case.
    Word(String),
}

/// The statements of a query text, trimmed, without empty ones.
pub(crate) fn split(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut reader = Reader { sql, at: 0 };
    while let Some((at, token)) = reader.next_token() {
        if token == Token::Symbol(';') {
            statements.push(sql[start..at].trim().to_owned());
            start = at + 1;
        }
    }
    statements.push(sql[start..].trim().to_owned());
    statements.retain(|statement| !tokens(statement).is_empty());
    statements
}

/// The tokens of one statement; a trailing semicolon is one too.
pub(crate) fn tokens(sql: &str) -> Vec<Token> {
    let mut reader = Reader { sql, at: 0 };
    std::iter::from_fn(|| reader.next_token().map(|(_, token)| token)).collect()
}

/// The first token of one statement, if it is a word, in lower case.
pub(crate) fn first_word(sql: &str) -> Option<String> {
    match (Reader { sql, at: 0 }).next_token()? {
        (_, Token::Word(word)) => Some(word),
        _ => None,
    }
}

/// How many parameters a statement has: the highest `$n`.
pub(crate) fn parameters(sql: &str) -> usize {
    let numbers = tokens(sql).into_iter().filter_map(|token| match token {
        Token::Parameter(number) => Some(number),
        _ => None,
    });
    numbers.max().unwrap_or(0)
}

struct Reader<'a> {
    sql: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.sql[self.at..]
    }

    /// The next token and where it starts.
    fn next_token(&mut self) -> Option<(usize, Token)> {
        self.skip_blanks();
        let start = self.at;
        let first = self.rest().chars().next()?;
        let token = match first {
            '\'' => Token::Text(self.quoted('\'', false)),
            '"' => Token::Quoted(self.quoted('"', false)),
            'e' | 'E' if self.rest()[1..].starts_with('\'') => {
                self.at += 1;
                Token::Text(self.quoted('\'', true))
            }
            '$' => self.dollar(),
            _ if first.is_alphanumeric() || first == '_' => {
                Token::Word(self.take_while(|c| c.is_alphanumeric() || c == '_').to_lowercase())
            }
            _ => {
                self.at += first.len_utf8();
                Token::Symbol(first)
            }
        };
        Some((start, token))
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let length = self.rest().find(|c| !keep(c)).unwrap_or(self.rest().len());
        let taken = self.rest()[..length].to_owned();
        self.at += length;
        taken
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest().starts_with("--") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                self.skip_comment();
            } else {
                return;
            }
        }
    }

    fn skip_comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
            } else {
                let Some(next) = self.rest().chars().next() else { return };
                self.at += next.len_utf8();
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char, escapes: bool) -> String {
        self.at += 1;
        let mut text = String::new();
        while let Some(next) = self.rest().chars().next() {
            self.at += next.len_utf8();
            if next == quote {
                if !self.rest().starts_with(quote) {
                    break;
                }
                self.at += 1;
            } else if next == '\\' && escapes {
                let Some(escaped) = self.rest().chars().next() else {
                    break;
                };
                self.at += escaped.len_utf8();
                text.push(escaped);
                continue;
            }
            text.push(next);
        }
        text
    }

    fn dollar(&mut self) -> Token {
        self.at += 1;
        let digits = self.take_while(|c| c.is_ascii_digit());
        if let Ok(number) = digits.parse() {
            return Token::Parameter(number);
        }
        let length = self
            .rest()
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(self.rest().len());
        if !self.rest()[length..].starts_with('$') {
            return Token::Symbol('$');
        }
        let tag = format!("${}$", &self.rest()[..length]);
        self.at += length + 1;
        let end = self.rest().find(&tag).unwrap_or(self.rest().len());
        let text = self.rest()[..end].to_owned();
        self.at = (self.at + end + tag.len()).min(self.sql.len());
        Token::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_inside_quotes_and_comments_do_not_split() {
        let sql = r#"SELECT ';', E'\';', $a$;$a$ ; -- ;
            SELECT "a;b" /* ; /* ; */ ; */;; ; SELECT 3"#;
        let statements = split(sql);
        assert_eq!(statements.len(), 3, "{statements:?}");
        assert_eq!(statements[0], r"SELECT ';', E'\';', $a$;$a$");
        assert_eq!(statements[2], "SELECT 3");
    }

    #[test]
    fn tokens_are_lower_case_words_and_unescaped_texts() {
        let expected = [
            Token::Word("set".into()),
            Token::Word("a".into()),
            Token::Symbol('.'),
            Token::Quoted("B\"c".into()),
            Token::Symbol('='),
            Token::Text("it's".into()),
            Token::Parameter(12),
        ];
        assert_eq!(tokens(r#"SET a."B""c" = 'it''s' $12"#), expected);
        assert_eq!(parameters("SELECT $2, '$9', $1"), 2);
        assert_eq!(parameters("SELECT 1"), 0);
    }
}
