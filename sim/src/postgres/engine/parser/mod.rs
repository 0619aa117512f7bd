//! The parser: tokens to statements, by recursive descent.
//!
//! The first thing that happens to a query text. A plain machine. It knows the grammar that the engine can run and nothing else;
//! what it cannot read is an error of syntax, or, when it is PostgreSQL's SQL all the same, `0A000` (see [`judge`]).

mod control;
mod define;
mod expression;
mod from;
mod judge;
mod modify;
mod query;

pub(crate) use self::judge::unsupported as judge_unsupported;

use super::ast::{Expression, ObjectName, Statement, TypeName};
use super::lexer::{Kind, Token, syntax_error, tokens};
use crate::wire::Report;

/// How deep expressions and queries may nest.
const MAX_DEPTH: usize = 100;

/// A statement and its own text, with the comments before and after it.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) statement: Statement,
    pub(crate) text: String,
}

/// The statements of a query text; none if it holds only blanks, comments and semicolons.
pub(crate) fn parse(sql: &str) -> Result<Vec<Parsed>, Report> {
    let all = tokens(sql)?;
    let mut found = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let end = all[at..]
            .iter()
            .position(|token| is_end(&token.kind))
            .map_or(all.len(), |length| at + length);
        if end > at {
            let start = at.checked_sub(1).map_or(0, |last| all[last].end);
            let text = sql[start..all[end].start].trim();
            let mut parser = Parser {
                sql,
                tokens: &all[at..=end],
                at: 0,
                depth: 0,
            };
            let statement = parser.whole().map_err(|report| judge::judge(report, text))?;
            found.push(Parsed {
                statement,
                text: text.to_owned(),
            });
        }
        at = end + 1;
    }
    Ok(found)
}

fn is_end(kind: &Kind) -> bool {
    matches!(kind, Kind::End) || matches!(kind, Kind::Operator(mark) if mark == ";")
}

/// What is left to read of one statement; the last token is its end.
pub(crate) struct Parser<'a> {
    sql: &'a str,
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn whole(&mut self) -> Result<Statement, Report> {
        let statement = self.statement()?;
        if self.at + 1 < self.tokens.len() {
            return Err(self.unexpected());
        }
        Ok(statement)
    }

    fn statement(&mut self) -> Result<Statement, Report> {
        let Kind::Word(first) = self.kind() else {
            return if self.is_operator("(") {
                self.query_statement()
            } else {
                Err(self.unexpected())
            };
        };
        match first.as_str() {
            "select" | "values" | "table" | "with" => self.query_statement(),
            "insert" | "update" | "delete" => self.modification(Vec::new()),
            "create" | "drop" | "alter" | "truncate" => self.definition(),
            _ => self.control(),
        }
    }

    /// Runs `read` one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Report>) -> Result<T, Report> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Report::error("54001", "stack depth limit exceeded"));
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn token(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> &Kind {
        self.kind_at(0)
    }

    fn kind_at(&self, ahead: usize) -> &Kind {
        const END: &Kind = &Kind::End;
        match self.tokens.get(self.at + ahead) {
            // The semicolon that ends the statement is its end.
            Some(token) if self.at + ahead + 1 < self.tokens.len() => &token.kind,
            _ => END,
        }
    }

    /// The byte at which the next token begins.
    fn position(&self) -> usize {
        self.token().start
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn unexpected(&self) -> Report {
        let token = self.token();
        syntax_error(self.sql, token.start, token.end)
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.kind_at(ahead), Kind::Word(found) if found == word)
    }

    fn is_operator(&self, operator: &str) -> bool {
        matches!(self.kind(), Kind::Operator(found) if found == operator)
    }

    fn is_operator_at(&self, ahead: usize, operator: &str) -> bool {
        matches!(self.kind_at(ahead), Kind::Operator(found) if found == operator)
    }

    /// Takes these words if they all stand here.
    fn take_words(&mut self, words: &[&str]) -> bool {
        let all = words
            .iter()
            .enumerate()
            .all(|(ahead, word)| self.is_word_at(ahead, word));
        if all {
            self.at += words.len();
        }
        all
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take_words(&[word])
    }

    fn take_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.advance();
        }
        found
    }

    fn expect_words(&mut self, words: &[&str]) -> Result<(), Report> {
        for word in words {
            if !self.take_word(word) {
                return Err(self.unexpected());
            }
        }
        Ok(())
    }

    fn expect_word(&mut self, word: &str) -> Result<(), Report> {
        self.expect_words(&[word])
    }

    fn expect_operator(&mut self, operator: &str) -> Result<(), Report> {
        if self.take_operator(operator) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    /// A name that may be used where a key word could stand: not a reserved one.
    fn name(&mut self) -> Result<String, Report> {
        let name = match self.kind() {
            Kind::Word(word) if !is_reserved(word) => word.clone(),
            Kind::Quoted(name) => name.clone(),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(name)
    }

    /// Any name, also a reserved word, as after AS or a dot.
    fn label(&mut self) -> Result<String, Report> {
        let (Kind::Word(name) | Kind::Quoted(name)) = self.kind() else {
            return Err(self.unexpected());
        };
        let name = name.clone();
        self.advance();
        Ok(name)
    }

    fn names(&mut self) -> Result<Vec<String>, Report> {
        self.list(Self::name)
    }

    /// Names in parentheses.
    fn name_list(&mut self) -> Result<Vec<String>, Report> {
        self.expect_operator("(")?;
        let names = self.names()?;
        self.expect_operator(")")?;
        Ok(names)
    }

    fn object_name(&mut self) -> Result<ObjectName, Report> {
        let at = self.position();
        let first = self.name()?;
        if !self.take_operator(".") {
            return Ok(ObjectName {
                schema: None,
                name: first,
                at,
            });
        }
        let name = self.label()?;
        // database.schema.name
        if self.take_operator(".") {
            let last = self.label()?;
            return Ok(ObjectName {
                schema: Some(name),
                name: last,
                at,
            });
        }
        Ok(ObjectName {
            schema: Some(first),
            name,
            at,
        })
    }

    /// One or more, separated by commas.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, Report>) -> Result<Vec<T>, Report> {
        let mut items = vec![item(self)?];
        while self.take_operator(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn expressions(&mut self) -> Result<Vec<Expression>, Report> {
        self.list(Self::expression)
    }

    /// A whole number with an optional sign.
    fn signed_integer(&mut self) -> Result<i64, Report> {
        let negative = self.take_operator("-");
        if !negative {
            self.take_operator("+");
        }
        let Kind::Number(text) = self.kind() else {
            return Err(self.unexpected());
        };
        let value: i64 = text.parse().map_err(|_| self.unexpected())?;
        self.advance();
        Ok(if negative { -value } else { value })
    }

    fn text(&mut self) -> Result<String, Report> {
        let Kind::Text(text) = self.kind() else {
            return Err(self.unexpected());
        };
        let text = text.clone();
        self.advance();
        Ok(text)
    }

    /// A type: its name of one or several words, modifiers, `[]`.
    fn type_name(&mut self) -> Result<TypeName, Report> {
        let at = self.position();
        let mut name = self.label()?;
        if self.take_operator(".") {
            let inner = self.label()?;
            name = if name == "pg_catalog" {
                inner
            } else {
                format!("{name}.{inner}")
            };
        }
        match name.as_str() {
            "double" => {
                self.expect_word("precision")?;
                name = "double precision".to_owned();
            }
            "character" | "char" if self.take_word("varying") => name = "varchar".to_owned(),
            "char" if matches!(self.tokens[self.at - 1].kind, Kind::Word(_)) => name = "bpchar".to_owned(),
            "bit" if self.is_word("varying") => return Err(self.unexpected()),
            _ => {}
        }
        let mut modifiers = Vec::new();
        if self.take_operator("(") {
            modifiers = self.list(|parser| i32::try_from(parser.signed_integer()?).map_err(|_| parser.unexpected()))?;
            self.expect_operator(")")?;
        }
        if matches!(name.as_str(), "timestamp" | "time") {
            if self.take_words(&["with", "time", "zone"]) {
                name.push_str("tz");
            } else {
                self.take_words(&["without", "time", "zone"]);
            }
        }
        if matches!(name.as_str(), "bpchar" | "character" | "bit") && modifiers.is_empty() && name != "bpchar" {
            modifiers.push(1);
        }
        let mut array = false;
        while self.take_operator("[") {
            if let Kind::Number(_) = self.kind() {
                self.advance();
            }
            self.expect_operator("]")?;
            array = true;
        }
        if self.take_word("array") {
            array = true;
        }
        Ok(TypeName {
            name,
            modifiers,
            array,
            at,
        })
    }
}

/// Whether PostgreSQL reserves the word, so that it is no name without quotes.
pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// Reserved words of PostgreSQL 15, also those that may be names of functions or types.
const RESERVED: [&str; 100] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn what_is_not_sql_is_an_error_where_it_stops_being_it() {
        for (sql, message) in [
            ("SELEC 1", "syntax error at or near \"SELEC\""),
            ("SELECT 1 FROM", "syntax error at end of input"),
            ("SELECT (1", "syntax error at end of input"),
            ("SELECT 1; SELECT )", "syntax error at or near \")\""),
            ("INSERT INTO t VALUE (1)", "syntax error at or near \"VALUE\""),
        ] {
            let report = parse(sql).expect_err("no SQL");
            assert_eq!((report.sqlstate.as_str(), report.message.as_str()), ("42601", message));
        }
    }

    #[test]
    fn sql_beyond_the_engine_is_named_as_such() {
        for sql in [
            "SELECT rank() OVER (ORDER BY n) FROM t",
            "CREATE VIEW v AS SELECT 1",
            "DO $$ BEGIN END $$",
            "GRANT SELECT ON t TO u",
            "MERGE INTO a USING b ON a.n = b.n WHEN MATCHED THEN DELETE",
        ] {
            let report = parse(sql).expect_err("unsupported");
            assert_eq!(report.sqlstate, "0A000", "{sql}: {}", report.message);
            assert!(
                report.message.starts_with("gdbpool-sim does not support"),
                "{}",
                report.message
            );
        }
    }

    #[test]
    fn texts_are_split_and_kept() {
        let found = parse(" ; SELECT ';' ;; -- c\n BEGIN ; ").expect("statements");
        let texts: Vec<&str> = found.iter().map(|parsed| parsed.text.as_str()).collect();
        assert_eq!(texts, ["SELECT ';'", "-- c\n BEGIN"]);
    }
}
