//! What a used session may hold that its next borrower must not see, and the statements that take it away.
//!
//! A plain machine: texts in, verdicts out. The settling of a session (`settle.rs`) runs what stands here.

use crate::sql::{Token, tokens};

/// What a statement's text can leave behind in the session that ran it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Anything: it calls something unknown, or has an INTO that may create a table.
    Anything,
    /// Anything, and it may commit on its way and go on in a transaction of another mode: CALL and DO.
    Commits,
    /// Nothing, if its command tag is SELECT, INSERT, UPDATE or DELETE.
    Nothing,
}

/// Takes away all that a session can hold, except the statements this library prepared, and reports on those: DISCARD ALL
/// (manual, "DISCARD") without DEALLOCATE ALL, which would lose the statement cache and tokio-postgres's type look-ups.
///
/// The one row it gives is read by [`CleanUpReport`].
pub(crate) const CLEAN_UP: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; \
     SELECT pg_catalog.count(*) FILTER (WHERE NOT from_sql) AS kept, \
     pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ') FILTER (WHERE from_sql) AS left_behind \
     FROM pg_catalog.pg_prepared_statements";

/// What the last statement of [`CLEAN_UP`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanUpReport {
    /// Statements prepared over the protocol: ours.
    pub(crate) kept: usize,
    /// Names of statements that SQL's PREPARE left behind, quoted, separated by commas.
    pub(crate) left_behind: Option<String>,
}

impl CleanUpReport {
    /// The statements that remove what SQL's PREPARE left behind.
    pub(crate) fn deallocate(&self) -> Option<String> {
        // The names are quoted by the server, and a quoted name may hold a comma: split outside quotes only.
        let names = self.left_behind.as_deref()?;
        let mut sql = String::new();
        let mut quoted = false;
        sql.push_str("DEALLOCATE ");
        for c in names.chars() {
            quoted ^= c == '"';
            if c == ',' && !quoted {
                sql.push_str("; DEALLOCATE");
            } else {
                sql.push(c);
            }
        }
        Some(sql)
    }
}

/// Built-in functions and constructs followed by `(` that leave nothing behind in a session.
///
/// Sorted, for the binary search. Not here on purpose: `set_config`, advisory locks, `nextval` and `setval` (they
/// leave `currval`), large objects, `dblink`, anything that runs SQL from a string.
const HARMLESS: &[&str] = &[
    "abs",
    "age",
    "all",
    "and",
    "any",
    "array",
    "array_agg",
    "array_append",
    "array_cat",
    "array_length",
    "array_position",
    "array_prepend",
    "array_remove",
    "array_to_string",
    "as",
    "ascii",
    "avg",
    "between",
    "bigint",
    "bit",
    "bit_length",
    "bool_and",
    "bool_or",
    "btrim",
    "by",
    "cardinality",
    "case",
    "cast",
    "ceil",
    "ceiling",
    "char",
    "char_length",
    "character",
    "character_length",
    "chr",
    "clock_timestamp",
    "coalesce",
    "concat",
    "concat_ws",
    "conflict",
    "count",
    "cume_dist",
    "current_database",
    "current_schema",
    "current_setting",
    "date_part",
    "date_trunc",
    "decimal",
    "decode",
    "default",
    "delete",
    "dense_rank",
    "distinct",
    "div",
    "else",
    "encode",
    "end",
    "every",
    "except",
    "exists",
    "exp",
    "extract",
    "filter",
    "first_value",
    "floor",
    "format",
    "from",
    "gen_random_uuid",
    "generate_series",
    "generate_subscripts",
    "greatest",
    "group",
    "group by",
    "grouping",
    "having",
    "ilike",
    "in",
    "initcap",
    "int",
    "integer",
    "intersect",
    "interval",
    "is",
    "join",
    "json_agg",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_set",
    "jsonb_strip_nulls",
    "lag",
    "last_value",
    "lateral",
    "lead",
    "least",
    "left",
    "length",
    "like",
    "limit",
    "ln",
    "localtimestamp",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_timestamp",
    "make_timestamptz",
    "materialized",
    "max",
    "md5",
    "min",
    "mod",
    "not",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "numeric",
    "octet_length",
    "offset",
    "on",
    "or",
    "order",
    "over",
    "overlay",
    "partition",
    "percent_rank",
    "pg_backend_pid",
    "pg_is_in_recovery",
    "pg_sleep",
    "pg_typeof",
    "pi",
    "position",
    "power",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "random",
    "rank",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "returning",
    "reverse",
    "right",
    "round",
    "row",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "select",
    "set",
    "sha256",
    "sign",
    "some",
    "split_part",
    "sqrt",
    "starts_with",
    "statement_timestamp",
    "stddev",
    "string_agg",
    "string_to_array",
    "strpos",
    "substr",
    "substring",
    "sum",
    "table",
    "then",
    "time",
    "timestamp",
    "timestamptz",
    "to_char",
    "to_date",
    "to_hex",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "transaction_timestamp",
    "translate",
    "trim",
    "trunc",
    "union",
    "unnest",
    "upper",
    "using",
    "values",
    "varbit",
    "varchar",
    "variance",
    "version",
    "when",
    "where",
    "width_bucket",
    "with",
    "within",
];

/// What `sql`, run as one statement, can leave behind.
///
/// Looks at the text only: it calls nothing outside a list of harmless built-ins, has no INTO but that of INSERT, and
/// starts with a plain verb. Triggers, rules, views, operators and casts that call functions cannot be seen here; that
/// is a documented limit.
pub(crate) fn reach(sql: &str) -> Reach {
    // The server drops empty statements in front of the first one.
    let mut tokens = tokens(sql).skip_while(|token| *token == Token::Mark(';')).peekable();
    if let Some(Token::Word(verb)) = tokens.peek()
        && ["call", "do"].iter().any(|commits| verb.eq_ignore_ascii_case(commits))
    {
        return Reach::Commits;
    }
    let mut state = Scan::default();
    for token in tokens {
        if !state.harmless(token) {
            return Reach::Anything;
        }
    }
    if state.seen { Reach::Nothing } else { Reach::Anything }
}

#[derive(Default)]
struct Scan<'a> {
    seen: bool,
    previous: Option<Token<'a>>,
    /// The previous token is the last part of a qualified name.
    qualified: bool,
    /// Inside `INSERT INTO name`, where `name (` opens a column list.
    insert_target: bool,
}

impl<'a> Scan<'a> {
    fn harmless(&mut self, token: Token<'a>) -> bool {
        let fine = match token {
            Token::Word(word) => self.word(word),
            Token::Mark('(') => self.opening(),
            // A qualified name of a function ends in `word (`; the schema before it is not known to be harmless.
            Token::Mark(_) | Token::Quoted(_) => self.seen,
            // With `standard_conforming_strings` off, a backslash moves the end of the string.
            Token::Constant(text) => self.seen && !(text.starts_with('\'') && text.contains('\\')),
        };
        self.seen = true;
        self.qualified = self.previous == Some(Token::Mark('.'));
        self.previous = Some(token);
        fine
    }

    fn word(&mut self, word: &str) -> bool {
        if !self.seen {
            return ["select", "insert", "update", "delete", "with", "values", "table"]
                .iter()
                .any(|v| word.eq_ignore_ascii_case(v));
        }
        if word.eq_ignore_ascii_case("into") {
            self.insert_target =
                matches!(self.previous, Some(Token::Word(before)) if before.eq_ignore_ascii_case("insert"));
            return self.insert_target;
        }
        // The target is one name, perhaps qualified; with the next word the statement goes on behind it.
        self.insert_target &= match self.previous {
            Some(Token::Word(before)) => before.eq_ignore_ascii_case("into"),
            previous => previous == Some(Token::Mark('.')),
        };
        true
    }

    /// A parenthesis: what stands before it must be known, or be the table of an INSERT.
    fn opening(&mut self) -> bool {
        let target = std::mem::take(&mut self.insert_target);
        match self.previous {
            Some(Token::Word(name)) => target || (!self.qualified && is_harmless(name)),
            Some(Token::Quoted(_)) => target,
            _ => true,
        }
    }
}

fn is_harmless(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    HARMLESS.binary_search(&lower.as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{CleanUpReport, HARMLESS, Reach, reach};

    #[test]
    fn the_list_is_sorted() {
        assert!(HARMLESS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn plain_statements_reach_nothing() {
        for sql in [
            "SELECT id, name FROM users WHERE id = $1",
            "insert into t (a, b) values ($1, $2) returning id",
            "INSERT INTO \"T\" (a) SELECT count(*) FROM u",
            "INSERT INTO s.t (a) SELECT 1",
            "INSERT INTO s.\"t\" (a) VALUES ($1)",
            "UPDATE t SET a = coalesce($1, a) WHERE b IN (1, 2)",
            "DELETE FROM t WHERE a = ANY ($1)",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "SELECT '; SELECT set_config(1)' -- into\n",
        ] {
            assert_eq!(reach(sql), Reach::Nothing, "{sql}");
        }
    }

    #[test]
    fn procedures_may_commit() {
        for sql in [
            "CALL p()",
            "; CALL p()",
            "-- x\rCALL p()",
            "/* a */ do $$ BEGIN END $$",
            "-- b\n Call p(1)",
        ] {
            assert_eq!(reach(sql), Reach::Commits, "{sql}");
        }
    }

    #[test]
    fn whatever_may_leave_something_reaches_anything() {
        for sql in [
            "SELECT set_config('a.b', 'c', false)",
            "SELECT pg_advisory_lock(1)",
            "SELECT my_function()",
            "SELECT public.lower('x')",
            "SELECT \"lower\"('x')",
            "SELECT 1 INTO TEMP x",
            "SELECT * INTO x FROM t",
            "SET a.b = 'c'",
            "LISTEN x",
            "WITH x AS (SELECT 1) SELECT 1 INTO y FROM x",
            "BEGIN",
            "; CREATE TEMP TABLE x AS SELECT 1",
            "SELECT 1 AS a --x\r INTO TEMP x",
            "SELECT E'a'\n'\\'', set_config('a.b', 'c', false) --'",
            "SELECT 'a\\', set_config(1) --'",
            "SELECT 1into temp x",
            "",
            "SELECT nextval('s')",
            "INSERT INTO t SELECT my_function()",
            "INSERT INTO \"t\" SELECT my_function()",
            "INSERT INTO s.t TABLE u RETURNING my_function()",
            "INSERT INTO t DEFAULT VALUES RETURNING my_function()",
        ] {
            assert_eq!(reach(sql), Reach::Anything, "{sql}");
        }
    }

    #[test]
    fn names_left_behind_are_deallocated_one_by_one() {
        let report = CleanUpReport {
            kept: 0,
            left_behind: Some("a, \"b, \"\"c\"".into()),
        };
        assert_eq!(
            report.deallocate().as_deref(),
            Some("DEALLOCATE a; DEALLOCATE \"b, \"\"c\"")
        );
    }
}
