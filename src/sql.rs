//! A lexer for SQL text, as far as the library looks into it: words, quoted things, punctuation, comments skipped.
//!
//! A value-level helper for clean-up and for error messages. It follows PostgreSQL's own lexical rules (manual, chapter
//! 4.1, `standard_conforming_strings` on); it never parses grammar and never changes text itself, but says where things are.

mod session_state;

pub(crate) use self::session_state::session_state;

/// One token; blanks and comments are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// An unquoted identifier or key word, as written.
    Word(&'a str),
    /// A quoted identifier, with its quotes.
    Quoted(&'a str),
    /// A string constant of any form, a number, or a `$n` placeholder.
    Constant(&'a str),
    /// One character of punctuation or of an operator.
    Mark(char),
}

/// The tokens of `sql`, in order. Unterminated strings and comments reach to the end of the text.
pub(crate) fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    positions(sql).map(|(_, token)| token)
}

/// The tokens of `sql`, each with the byte it begins at.
pub(crate) fn positions(sql: &str) -> impl Iterator<Item = (usize, Token<'_>)> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        rest = skip_blank(rest);
        let at = sql.len() - rest.len();
        let (token, length) = token(rest)?;
        rest = &rest[length..];
        Some((at, token))
    })
}

/// The number of a `$n` placeholder, and its length in the text.
pub(crate) fn placeholder(token: Token<'_>) -> Option<(usize, usize)> {
    let Token::Constant(text) = token else {
        return None;
    };
    let number = text.strip_prefix('$')?.parse().ok()?;
    Some((number, text.len()))
}

/// The first statement in `sql` that begins or ends a transaction, or changes the mode of the present one, by its words.
///
/// SAVEPOINT, RELEASE and ROLLBACK TO stay inside a transaction and are none of them.
pub(crate) fn transaction_control(sql: &str) -> Option<String> {
    const ALONE: [&str; 5] = ["abort", "begin", "commit", "end", "start"];
    const WITH_NEXT: [[&str; 2]; 3] = [["prepare", "transaction"], ["set", "transaction"], ["set", "session"]];
    let mut before = [Token::Mark(';'), Token::Mark(';')];
    // One more at the end, so that the last word has a next one, too.
    for token in tokens(sql).chain([Token::Mark(';')]) {
        let [ahead, previous] = before;
        if let (Token::Mark(';'), Token::Word(first)) = (ahead, previous) {
            let next = match token {
                Token::Word(next) => next,
                _ => "",
            };
            let is = |word: &str, known: &str| word.eq_ignore_ascii_case(known);
            let controls = ALONE.iter().any(|known| is(first, known))
                || WITH_NEXT.iter().any(|[a, b]| is(first, a) && is(next, b))
                || (is(first, "rollback") && !is(next, "to"));
            if controls {
                let words = if next.is_empty() {
                    first.to_owned()
                } else {
                    format!("{first} {next}")
                };
                return Some(words.to_ascii_uppercase());
            }
        }
        before = [previous, token];
    }
    None
}

/// Whether more than one statement is in `sql` (a `;` with something behind it).
pub(crate) fn has_several_statements(sql: &str) -> bool {
    let mut ended = false;
    tokens(sql).any(|token| {
        let semicolon = token == Token::Mark(';');
        let second = ended && !semicolon;
        ended |= semicolon;
        second
    })
}

/// Whether a text can commit by itself, apart from what its statements do as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    /// It is the end of a transaction: refused, everything is rolled back; without an answer, nobody knows.
    AtItsEnd,
    /// It stands or falls as a whole.
    Never,
    /// A part of it may be committed when the rest fails: procedures, maintenance, several statements with a COMMIT.
    OnItsWay,
}

/// Whether `sql` can commit by itself, by the first word of each of its statements.
pub(crate) fn commits(sql: &str) -> Commits {
    const ENDS: [&str; 3] = ["commit", "end", "prepare"];
    const ON_THE_WAY: [&str; 5] = ["call", "cluster", "do", "reindex", "vacuum"];
    let is_one_of = |word: &str, list: &[&str]| list.iter().any(|known| word.eq_ignore_ascii_case(known));
    let (mut statements, mut first) = (0, true);
    let (mut ends, mut on_the_way, mut rolls_back) = (false, false, false);
    for token in tokens(sql) {
        if token == Token::Mark(';') {
            first = true;
            continue;
        }
        if let Token::Word(word) = token {
            ends |= first && is_one_of(word, &ENDS);
            on_the_way |= (first && is_one_of(word, &ON_THE_WAY)) || word.eq_ignore_ascii_case("concurrently");
            rolls_back |= first && is_one_of(word, &["abort", "rollback"]);
        }
        statements += u32::from(first);
        first = false;
    }
    match (ends, statements) {
        _ if on_the_way => Commits::OnItsWay,
        (true, 1) => Commits::AtItsEnd,
        (true, _) => Commits::OnItsWay,
        // What follows a ROLLBACK is no part of the transaction before it.
        (false, 2..) if rolls_back => Commits::OnItsWay,
        (false, _) => Commits::Never,
    }
}

/// What in `sql` could take its transaction out of the READ ONLY mode: the setting, wherever it stands beside SET, RESET or
/// set_config, strings included; or SET TRANSACTION … READ WRITE.
pub(crate) fn leaves_read_only(sql: &str) -> Option<String> {
    const SETTING: &str = "transaction_read_only";
    let has = |known: &str| {
        let mut words = sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.any(|word| word.eq_ignore_ascii_case(known))
    };
    if has(SETTING) && ["set", "reset", "set_config"].into_iter().any(has) {
        return Some(SETTING.to_owned());
    }
    if !has("transaction") {
        return None;
    }
    let mut words: Vec<String> = Vec::new();
    for token in tokens(sql).chain([Token::Mark(';')]) {
        match token {
            Token::Word(word) => words.push(word.to_ascii_lowercase()),
            Token::Mark(';') => {
                let writes = words.windows(2).any(|pair| pair == ["read", "write"]);
                if writes && words.starts_with(&["set".into(), "transaction".into()]) {
                    return Some("SET TRANSACTION READ WRITE".into());
                }
                words.clear();
            }
            _ => {}
        }
    }
    None
}

/// The first word in `sql` that begins, ends or divides a transaction: savepoints, too, unlike [`transaction_control`].
pub(crate) fn transaction_word(sql: &str) -> Option<&str> {
    const CONTROL: [&str; 8] = [
        "abort",
        "begin",
        "commit",
        "end",
        "release",
        "rollback",
        "savepoint",
        "start",
    ];
    let mut first = true;
    let mut before: Option<(bool, &str)> = None;
    // Bodies of functions in standard SQL, whose statements are part of the one around them.
    let mut bodies = 0u32;
    for token in tokens(sql) {
        let word = match token {
            Token::Word(word) => Some(word),
            _ => None,
        };
        let is = |known: &str| word.is_some_and(|word| word.eq_ignore_ascii_case(known));
        match before {
            Some((false, begin)) if begin.eq_ignore_ascii_case("begin") && is("atomic") => bodies += 1,
            Some((true, prepare)) if prepare.eq_ignore_ascii_case("prepare") && is("transaction") => {
                return Some(prepare);
            }
            _ => {}
        }
        if first && bodies > 0 && is("end") {
            bodies -= 1;
        } else if first && CONTROL.into_iter().any(is) {
            return word;
        }
        before = word.map(|word| (first, word));
        first = token == Token::Mark(';');
    }
    None
}

fn skip_blank(mut rest: &str) -> &str {
    loop {
        let trimmed = rest.trim_start_matches(is_blank);
        let skipped = if trimmed.starts_with("--") {
            &trimmed[line_length(trimmed)..]
        } else if trimmed.starts_with("/*") {
            &trimmed[comment_length(trimmed)..]
        } else {
            return trimmed;
        };
        rest = skipped;
    }
}

/// What the server's lexer takes for blank; everything outside ASCII is part of a name there.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Up to the end of a line, which a carriage return is, too.
fn line_length(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}

/// Block comments nest in PostgreSQL.
fn comment_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn token(text: &str) -> Option<(Token<'_>, usize)> {
    let first = text.chars().next()?;
    let (length, make): (usize, fn(&str) -> Token<'_>) = match first {
        '\'' => (quoted_length(text, 0, b'\'', false), |t| Token::Constant(t)),
        '"' => (quoted_length(text, 0, b'"', false), |t| Token::Quoted(t)),
        '$' => match dollar_length(text) {
            Some(length) => (length, |t| Token::Constant(t)),
            None => return Some((Token::Mark('$'), 1)),
        },
        // Without exponents and other letters: before version 15, `1into` was two tokens.
        '0'..='9' => (span(text, |c| c.is_ascii_digit() || c == '.'), |t| Token::Constant(t)),
        c if is_word_start(c) => return Some(word(text)),
        c => return Some((Token::Mark(c), c.len_utf8())),
    };
    Some((make(&text[..length]), length))
}

/// A word, or a string or identifier with a prefix: `E''`, `B''`, `X''`, `N''`, `U&''`, `U&""`.
fn word(text: &str) -> (Token<'_>, usize) {
    let length = span(text, |c| is_word_start(c) || c.is_ascii_digit() || c == '$');
    let prefix = &text[..length];
    let bytes = text.as_bytes();
    let next = bytes.get(length).copied();
    if next == Some(b'\'') && matches!(prefix, "e" | "E" | "b" | "B" | "x" | "X" | "n" | "N") {
        let end = quoted_length(text, length, b'\'', matches!(prefix, "e" | "E"));
        return (Token::Constant(&text[..end]), end);
    }
    if matches!(prefix, "u" | "U") && next == Some(b'&') {
        match bytes.get(length + 1) {
            Some(b'\'') => {
                let end = quoted_length(text, length + 1, b'\'', false);
                return (Token::Constant(&text[..end]), end);
            }
            Some(b'"') => {
                let end = quoted_length(text, length + 1, b'"', false);
                return (Token::Quoted(&text[..end]), end);
            }
            _ => {}
        }
    }
    (Token::Word(prefix), length)
}

/// Length of the text up to the quote that closes the one at `open`; a doubled quote does not close.
fn quoted_length(text: &str, open: usize, quote: u8, backslash: bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = open + 1;
    while at < bytes.len() {
        if backslash && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else if let Some(gap) = continuation(&text[at + 1..]).filter(|_| quote == b'\'') {
            at += 1 + gap + 1;
        } else {
            return at + 1;
        }
    }
    text.len()
}

/// A string goes on, in the same form, in a further pair of quotes behind a line break: the length of what is between.
fn continuation(text: &str) -> Option<usize> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_blank);
        if !rest.starts_with("--") {
            break;
        }
        rest = &rest[line_length(rest)..];
    }
    let gap = text.len() - rest.len();
    (rest.starts_with('\'') && text[..gap].contains(['\n', '\r'])).then_some(gap)
}

/// Length of a `$n` placeholder or of a dollar-quoted string; `None` if it is neither.
fn dollar_length(text: &str) -> Option<usize> {
    let inner = &text[1..];
    let digits = span(inner, |c| c.is_ascii_digit());
    if digits > 0 {
        return Some(1 + digits);
    }
    let tag = span(inner, |c| is_word_start(c) || c.is_ascii_digit());
    if inner.as_bytes().get(tag) != Some(&b'$') {
        return None;
    }
    let delimiter = &text[..tag + 2];
    let body = &text[delimiter.len()..];
    Some(body.find(delimiter).map_or(text.len(), |end| delimiter.len() * 2 + end))
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn span(text: &str, takes: impl Fn(char) -> bool) -> usize {
    text.find(|c| !takes(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Commits, Token, commits, has_several_statements, leaves_read_only, placeholder, positions, tokens,
        transaction_control,
    };

    #[test]
    fn quotes_and_comments_hide_what_is_in_them() {
        let sql = "SELECT 'a;''b', E'\\';', $x$ ; $x$, \"c;\"\"d\" /* ; /* ; */ ; */ -- ;\n, U&'\\0041', $1";
        let seen: Vec<_> = tokens(sql).filter(|token| !matches!(token, Token::Mark(','))).collect();
        assert_eq!(
            seen,
            [
                Token::Word("SELECT"),
                Token::Constant("'a;''b'"),
                Token::Constant("E'\\';'"),
                Token::Constant("$x$ ; $x$"),
                Token::Quoted("\"c;\"\"d\""),
                Token::Constant("U&'\\0041'"),
                Token::Constant("$1"),
            ]
        );
    }

    #[test]
    fn lines_end_and_strings_go_on_as_the_server_has_it() {
        let words = |sql| tokens(sql).filter(|t| matches!(t, Token::Word(_))).count();
        assert_eq!(words("SELECT 1 --x\r INTO t"), 3);
        assert_eq!(words("SELECT 1into t"), 3);
        assert_eq!(words("SELECT E'a'\n'\\'', f(1) --'"), 2, "an escape in the second part");
        assert_eq!(words("SELECT 'a' -- x\n 'b', f(1)"), 2);
        assert_eq!(words("SELECT 'a' 'b'"), 1);
        assert_eq!(tokens("\u{a0}lower(1)").next(), Some(Token::Word("\u{a0}lower")));
    }

    #[test]
    fn several_statements_are_seen_only_outside_quotes() {
        assert!(has_several_statements("SELECT 1; SELECT 2"));
        assert!(!has_several_statements("SELECT ';' ; -- SELECT 2"));
        assert!(!has_several_statements("SELECT 1;;"));
    }

    #[test]
    fn words_that_begin_end_or_divide_a_transaction_are_found() {
        for (sql, word) in [
            ("ROLLBACK", "ROLLBACK"),
            ("/* a */ Commit work", "Commit"),
            ("SELECT 1; rollback to a", "rollback"),
            ("PREPARE TRANSACTION 'a'", "PREPARE"),
            (";; end", "end"),
            ("start transaction", "start"),
            ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; END", "END"),
        ] {
            assert_eq!(super::transaction_word(sql), Some(word), "{sql}");
        }
        for sql in [
            "SELECT 'x; COMMIT'",
            "PREPARE transactions AS SELECT 1",
            "PREPARE a AS SELECT 1",
            "SELECT begin FROM \"commit\"",
            "INSERT INTO t VALUES ($$; commit$$)",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END; SELECT f()",
            "",
        ] {
            let found = super::transaction_word(sql);
            assert_eq!(found, None, "{sql}");
        }
    }

    #[test]
    fn what_can_commit_by_itself_is_known_by_first_words() {
        for (sql, expected) in [
            ("SELECT CASE WHEN true THEN 1 END", Commits::Never),
            ("INSERT INTO t VALUES (1); UPDATE t SET a = 'commit'", Commits::Never),
            ("COMMIT", Commits::AtItsEnd),
            ("-- done\n end;", Commits::AtItsEnd),
            ("PREPARE TRANSACTION 'x'", Commits::AtItsEnd),
            ("BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1/0", Commits::OnItsWay),
            ("; -- x\rCALL p()", Commits::OnItsWay),
            ("ROLLBACK", Commits::Never),
            ("ROLLBACK; INSERT INTO t VALUES (1)", Commits::OnItsWay),
            ("CREATE INDEX CONCURRENTLY i ON t (a)", Commits::OnItsWay),
        ] {
            assert_eq!(commits(sql), expected, "{sql}");
        }
    }

    #[test]
    fn placeholders_are_found_with_their_place() {
        let sql = "SELECT $1, '$2', $10 -- $3\n, $$ $4 $$, $a$ $5 $a$, \"$6\", x$7, $2::int";
        let found: Vec<_> = positions(sql)
            .filter_map(|(at, token)| placeholder(token).map(|(number, length)| (number, &sql[at..at + length])))
            .collect();
        assert_eq!(found, [(1, "$1"), (10, "$10"), (2, "$2")]);
    }

    #[test]
    fn what_leaves_the_read_only_mode_is_known_by_its_words() {
        for (sql, leaves) in [
            ("SET LOCAL transaction_read_only = off", true),
            ("SELECT 1; reset \"transaction_read_only\"", true),
            ("SELECT set_config('Transaction_Read_Only', NULL, true)", true),
            ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE", true),
            ("SET TRANSACTION READ ONLY; SELECT read, write FROM t", false),
            ("SET TRANSACTION SNAPSHOT 'x'", false),
            ("SELECT 'SET TRANSACTION READ WRITE'", false),
            (
                "SELECT current_setting('transaction_read_only') FROM pg_settings",
                false,
            ),
            ("SET LOCAL default_transaction_read_only = off", false),
            ("", false),
        ] {
            assert_eq!(leaves_read_only(sql).is_some(), leaves, "{sql}");
        }
    }

    #[test]
    fn what_controls_a_transaction_is_known_by_its_words() {
        for (sql, expected) in [
            ("SELECT 1; COMMIT", Some("COMMIT")),
            ("; start transaction read write", Some("START TRANSACTION")),
            ("/* x */ End", Some("END")),
            ("PREPARE TRANSACTION 'x'", Some("PREPARE TRANSACTION")),
            ("SELECT 1; set transaction read write", Some("SET TRANSACTION")),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
                Some("SET SESSION"),
            ),
            ("ROLLBACK", Some("ROLLBACK")),
            ("SAVEPOINT a; ROLLBACK TO a; RELEASE a", None),
            ("SELECT CASE WHEN true THEN 1 END; PREPARE p AS SELECT 1", None),
            ("SET LOCAL work_mem = '1MB'; SELECT 'COMMIT; COMMIT'", None),
            ("", None),
        ] {
            assert_eq!(transaction_control(sql).as_deref(), expected, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_without_a_panic(sql in "\\PC{0,80}|[-/*'\"$eEuU&;a1 \\\\]{0,60}") {
            let total: usize = tokens(&sql)
                .map(|token| match token {
                    Token::Word(t) | Token::Quoted(t) | Token::Constant(t) => t.len(),
                    Token::Mark(c) => c.len_utf8(),
                })
                .sum();
            prop_assert!(total <= sql.len());
        }
    }
}
