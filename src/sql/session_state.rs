//! Which texts change or use a session beyond their transaction, by their words. A plain machine.
//!
//! For pools behind a transaction pooler, where a session is another client's next. Beside the lexer. What hides in functions,
//! such as `set_config(…, false)`, cannot be seen here; that is a documented limit.

use super::{Token, tokens};

/// Functions that lock until the session ends.
const SESSION_LOCKS: [&str; 4] = [
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
];

/// The first words in `sql` that show that something outlives the transaction.
pub(crate) fn session_state(sql: &str) -> Option<String> {
    let mut statement: Vec<&str> = Vec::new();
    // One more end, so that the last statement has one, too.
    for token in tokens(sql).chain([Token::Mark(';')]) {
        match token {
            Token::Word(word) => statement.push(word),
            Token::Mark(';') => {
                if let Some(words) = of_one(&statement) {
                    return Some(words);
                }
                statement.clear();
            }
            // Keeps words apart that do not stand side by side.
            Token::Mark(_) | Token::Quoted(_) | Token::Constant(_) => statement.push(""),
        }
    }
    None
}

/// The same for one statement, given as its words with blanks for all else.
fn of_one(statement: &[&str]) -> Option<String> {
    // EXPLAIN ANALYZE makes the table that CREATE TABLE AS asks for.
    let named = |known: &str| statement.iter().position(|word| word.eq_ignore_ascii_case(known));
    let explained = (named("explain") == Some(0) && named("analyze").or(named("analyse")).is_some())
        .then(|| named("create"))
        .flatten();
    let words = &statement[explained.unwrap_or(0)..];
    let is = |at: usize, known: &str| words.get(at).is_some_and(|word| word.eq_ignore_ascii_case(known));
    let has = |phrase: &[&str]| {
        words.windows(phrase.len()).any(|window| {
            window
                .iter()
                .zip(phrase)
                .all(|(word, known)| word.eq_ignore_ascii_case(known))
        })
    };
    let first = words.first()?.to_ascii_lowercase();
    let outlives = match first.as_str() {
        "set" => !["local", "transaction", "constraints"].iter().any(|local| is(1, local)),
        "prepare" => !is(1, "transaction"),
        "deallocate" | "discard" | "listen" | "load" | "reset" | "unlisten" => true,
        "declare" => has(&["with", "hold"]),
        "create" => {
            let at = if is(1, "or") { 3 } else { 1 };
            // The schema of the thing's name: what follows AS or ON is something else's.
            let name = words
                .iter()
                .take_while(|word| !["", "as", "on"].contains(&&*word.to_ascii_lowercase()));
            let is_there = name.into_iter().any(|word| word.eq_ignore_ascii_case("pg_temp"));
            // Sequences and views have no such clause.
            (is_temporary(words, at) || is_there) && !has(&["on", "commit", "drop"])
        }
        _ => false,
    };
    if outlives {
        let shown = words.iter().take_while(|word| !word.is_empty()).take(3).copied();
        return Some(shown.collect::<Vec<_>>().join(" ").to_ascii_uppercase());
    }
    // In INSERT INTO and MERGE INTO it is a table's name.
    let selects_into = |at| is(at, "into") && !(at > 0 && (is(at - 1, "insert") || is(at - 1, "merge")));
    let into = (0..words.len()).find(|at| selects_into(*at) && (is_temporary(words, at + 1) || is(at + 1, "pg_temp")));
    if into.is_some() {
        return Some("INTO TEMP".into());
    }
    let lock = words
        .iter()
        .find(|word| SESSION_LOCKS.iter().any(|lock| word.eq_ignore_ascii_case(lock)));
    lock.map(|word| word.to_ascii_lowercase())
}

/// Whether the words from `at` on are TEMP or TEMPORARY, with what the standard has in front of them.
fn is_temporary(words: &[&str], at: usize) -> bool {
    let is = |at: usize, known: &str| words.get(at).is_some_and(|word| word.eq_ignore_ascii_case(known));
    let at = at + usize::from(is(at, "local") || is(at, "global"));
    is(at, "temp") || is(at, "temporary")
}

#[cfg(test)]
mod tests {
    use super::session_state;

    #[test]
    fn what_outlives_its_transaction_is_known_by_its_words() {
        for (sql, words) in [
            ("SET search_path = a", "SET SEARCH_PATH"),
            ("SELECT 1; set role \"x\"", "SET ROLE"),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                "SET SESSION CHARACTERISTICS",
            ),
            ("/* a */ listen x", "LISTEN X"),
            ("UNLISTEN *", "UNLISTEN"),
            ("PREPARE p AS SELECT 1", "PREPARE P AS"),
            ("DISCARD ALL", "DISCARD ALL"),
            ("RESET ALL", "RESET ALL"),
            ("DEALLOCATE ALL", "DEALLOCATE ALL"),
            ("LOAD 'x'", "LOAD"),
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE C CURSOR"),
            ("CREATE TEMP TABLE x (a int)", "CREATE TEMP TABLE"),
            (
                "create local temporary table x (a int) on commit delete rows",
                "CREATE LOCAL TEMPORARY",
            ),
            ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", "CREATE OR REPLACE"),
            (
                "CREATE OR REPLACE LOCAL TEMPORARY VIEW v AS SELECT 1",
                "CREATE OR REPLACE",
            ),
            ("CREATE TABLE IF NOT EXISTS pg_temp.x (a int)", "CREATE TABLE IF"),
            (
                "create function pg_temp.f() returns int return 1",
                "CREATE FUNCTION PG_TEMP",
            ),
            ("EXPLAIN (ANALYZE) CREATE TEMP TABLE x AS SELECT 1", "CREATE TEMP TABLE"),
            ("SELECT 1 AS a INTO TEMP x", "INTO TEMP"),
            ("SELECT 1 AS a INTO LOCAL TEMPORARY TABLE x", "INTO TEMP"),
            ("WITH w AS (SELECT 1 AS a) SELECT a INTO pg_temp.x FROM w", "INTO TEMP"),
            ("SELECT pg_catalog.pg_try_advisory_lock($1)", "pg_try_advisory_lock"),
        ] {
            assert_eq!(session_state(sql).as_deref(), Some(words), "{sql}");
        }
    }

    #[test]
    fn what_ends_with_its_transaction_passes() {
        for sql in [
            "SET LOCAL work_mem = '1MB'; SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED",
            "PREPARE TRANSACTION 'x'",
            "DECLARE c CURSOR FOR SELECT 1",
            "CREATE TEMP TABLE x (a int) ON COMMIT DROP",
            "CREATE TABLE temp (a int)",
            "CREATE TABLE pg_temp.x (a int) ON COMMIT DROP",
            "CREATE INDEX ON pg_temp.x (a)",
            "EXPLAIN CREATE TEMP TABLE x AS SELECT 1",
            "CREATE TABLE y AS SELECT a FROM pg_temp.x",
            "INSERT INTO temp VALUES (1); WITH w AS (INSERT INTO temp SELECT 1) SELECT 2",
            "MERGE INTO temp USING t ON true WHEN MATCHED THEN DELETE",
            "SELECT a INTO local FROM t",
            "SELECT pg_advisory_xact_lock(1), 'SET a = b; LISTEN x'",
            "UPDATE t SET a = 1; INSERT INTO temporary_things VALUES (1)",
            "COPY t FROM STDIN",
            "VACUUM",
            "",
        ] {
            assert_eq!(session_state(sql), None, "{sql}");
        }
    }
}
