//! The second opinion on what the parser cannot read: SQL that the simulator does not support, or no SQL at all.
//!
//! Behind the parser, on its failures only. A plain machine. `sqlparser` reads far more of PostgreSQL's grammar than the engine
//! runs; what it reads, and the statements it lacks, by their first words, are answered with `0A000` instead of a wrong
//! "syntax error".

use sqlparser::dialect::PostgreSqlDialect;

use crate::wire::Report;

/// First words of PostgreSQL's statements that neither parser knows.
const STATEMENTS: [&str; 23] = [
    "alter ",
    "checkpoint",
    "cluster ",
    "comment ",
    "commit prepared ",
    "create ",
    "do ",
    "drop ",
    "explain ",
    "grant ",
    "import ",
    "load ",
    "merge ",
    "prepare transaction ",
    "reassign ",
    "refresh ",
    "reindex ",
    "revoke ",
    "rollback prepared ",
    "security ",
    "select ",
    "vacuum ",
    "with ",
];

/// Words that are statements by themselves here only if sqlparser agrees.
const NEEDS_AGREEMENT: [&str; 5] = ["alter ", "create ", "drop ", "select ", "with "];

/// `report`, or the refusal of the statement as a whole.
pub(super) fn judge(report: Report, text: &str) -> Report {
    if report.sqlstate != "42601" {
        return report;
    }
    let words = text.to_ascii_lowercase();
    let known = STATEMENTS
        .iter()
        .any(|first| words.starts_with(first) && !NEEDS_AGREEMENT.contains(first));
    let parsed = || sqlparser::parser::Parser::parse_sql(&PostgreSqlDialect {}, text).is_ok();
    if known || (is_statement(&words) && parsed()) {
        let shown: String = text.chars().take(60).collect();
        return unsupported(&format!("\"{shown}\""));
    }
    report
}

/// Whether PostgreSQL has statements that begin so; sqlparser knows other databases', too.
fn is_statement(words: &str) -> bool {
    const OTHERS: [&str; 27] = [
        "abort",
        "analyze",
        "begin",
        "call",
        "close",
        "commit",
        "copy",
        "deallocate",
        "declare",
        "delete",
        "discard",
        "end",
        "execute",
        "fetch",
        "insert",
        "listen",
        "lock",
        "move",
        "notify",
        "prepare",
        "release",
        "rollback",
        "savepoint",
        "set",
        "show",
        "truncate",
        "update",
    ];
    let first = words
        .split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or_default();
    OTHERS.contains(&first) || STATEMENTS.iter().any(|known| known.trim_end() == first) || first == "values"
}

/// The refusal of something that PostgreSQL has and the simulator has not.
pub(crate) fn unsupported(what: &str) -> Report {
    Report::error("0A000", format!("gdbpool-sim does not support {what}"))
}
