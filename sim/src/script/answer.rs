//! `Answer`: what a scripted server says to a statement, and the rules that choose one.
//!
//! Data given by a test, read by the session task. It knows no session and no connection.

use std::time::Duration;

use bytes::Bytes;

use crate::value::{Type, Value};
use crate::wire::Report;

/// What the server does with a statement.
///
/// Wrappers (`After`, `At`, `CutReplyAt`, `Notice`, `StallReplyAt`, `Typed`) hold the answer they change; the methods
/// of the same names wrap conveniently: `Answer::tag("INSERT 0 1").after(Duration::from_secs(1))`.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The answer after some virtual time; a cancel request interrupts it.
    After(Duration, Box<Answer>),
    /// What hinders or fails the statement happens at this step of the extended protocol instead of at Execute.
    At(Step, Box<Answer>),
    /// The connection ends without a word.
    CloseConnection,
    /// `COPY … FROM STDIN` with one text column; the tag counts the lines received.
    CopyIn,
    /// `COPY … TO STDOUT` with one text column: these chunks.
    CopyOut(Vec<Bytes>),
    /// Exactly this many bytes of the reply are delivered, then end-of-file. The reply of a simple query reaches up to
    /// its ReadyForQuery; that of an extended statement up to the Sync's.
    CutReplyAt(u64, Box<Answer>),
    /// What the server does without a rule.
    Default,
    /// The statement fails: SQLSTATE and message.
    Error(String, String),
    /// The session ends with a FATAL error: SQLSTATE and message.
    Fatal(String, String),
    /// No answer, ever; a cancel request interrupts it.
    Never,
    /// A notice before the answer.
    Notice(Report, Box<Answer>),
    /// Rows and a tag that fits the statement's verb.
    Rows(RowSet),
    /// The first so many rows, then nothing; a cancel request interrupts it.
    RowsThenStall(RowSet, usize),
    /// Exactly this many bytes of the reply are delivered, then nothing until the session is resumed.
    StallReplyAt(u64, Box<Answer>),
    /// A command tag without rows. BEGIN, COMMIT and ROLLBACK do to the transaction what they say, whatever the statement.
    Tag(String),
    /// The parameter types the server infers; without it, and without the client's word, `text`.
    Typed(Vec<Type>, Box<Answer>),
}

/// A step of the extended protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// When the statement is prepared.
    Parse,
    /// When parameters are bound.
    Bind,
    /// When it runs; the only step of a simple query.
    Execute,
}

/// Columns and rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSet {
    /// Names and types.
    pub columns: Vec<(String, Type)>,
    /// One value per column each.
    pub rows: Vec<Vec<Value>>,
}

impl Answer {
    /// Rows with a tag that fits the statement's verb (`SELECT n`, `INSERT 0 n`, …).
    ///
    /// # Panics
    /// If a row has not one value per column.
    #[must_use]
    pub fn rows(columns: &[(&str, Type)], rows: Vec<Vec<Value>>) -> Self {
        Self::Rows(RowSet::new(columns, rows))
    }

    /// A command tag without rows.
    #[must_use]
    pub fn tag(tag: &str) -> Self {
        Self::Tag(tag.to_owned())
    }

    /// An error.
    #[must_use]
    pub fn error(sqlstate: &str, message: &str) -> Self {
        Self::Error(sqlstate.to_owned(), message.to_owned())
    }

    /// An error that ends the session.
    #[must_use]
    pub fn fatal(sqlstate: &str, message: &str) -> Self {
        Self::Fatal(sqlstate.to_owned(), message.to_owned())
    }

    /// This answer after some virtual time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self::After(span, Box::new(self))
    }

    /// This answer, with what hinders or fails it happening at `step`.
    #[must_use]
    pub fn at(self, step: Step) -> Self {
        Self::At(step, Box::new(self))
    }

    /// This answer, cut off after `bytes` bytes.
    #[must_use]
    pub fn cut_at(self, bytes: u64) -> Self {
        Self::CutReplyAt(bytes, Box::new(self))
    }

    /// This answer, stalled after `bytes` bytes.
    #[must_use]
    pub fn stall_at(self, bytes: u64) -> Self {
        Self::StallReplyAt(bytes, Box::new(self))
    }

    /// This answer for a statement with parameters of these types.
    #[must_use]
    pub fn typed(self, parameters: &[Type]) -> Self {
        Self::Typed(parameters.to_vec(), Box::new(self))
    }

    /// This answer behind a notice.
    #[must_use]
    pub fn notice(self, report: Report) -> Self {
        Self::Notice(report, Box::new(self))
    }
}

impl RowSet {
    /// Columns and rows.
    ///
    /// # Panics
    /// If a row has not one value per column.
    #[must_use]
    pub fn new(columns: &[(&str, Type)], rows: Vec<Vec<Value>>) -> Self {
        for row in &rows {
            assert_eq!(
                row.len(),
                columns.len(),
                "a scripted row has one value per column: {row:?}"
            );
        }
        let columns = columns.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect();
        Self { columns, rows }
    }
}

/// An answer taken apart: what gets in the way, and what comes of it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) step: Step,
    pub(crate) hinders: Vec<Hinder>,
    pub(crate) parameters: Vec<Type>,
    pub(crate) outcome: Answer,
}

#[derive(Clone, Debug)]
pub(crate) enum Hinder {
    Cut(u64),
    Notice(Report),
    Stall(u64),
    Wait(Duration),
}

impl Plan {
    pub(crate) fn of(answer: &Answer) -> Self {
        let (inner, hinder) = match answer {
            Answer::After(span, inner) => (inner, Some(Hinder::Wait(*span))),
            Answer::CutReplyAt(bytes, inner) => (inner, Some(Hinder::Cut(*bytes))),
            Answer::Notice(report, inner) => (inner, Some(Hinder::Notice(report.clone()))),
            Answer::StallReplyAt(bytes, inner) => (inner, Some(Hinder::Stall(*bytes))),
            Answer::At(step, inner) => {
                return Self {
                    step: *step,
                    ..Self::of(inner)
                };
            }
            Answer::Typed(types, inner) => {
                return Self {
                    parameters: types.clone(),
                    ..Self::of(inner)
                };
            }
            outcome => {
                let (hinders, parameters) = (Vec::new(), Vec::new());
                return Self {
                    step: Step::Execute,
                    hinders,
                    parameters,
                    outcome: outcome.clone(),
                };
            }
        };
        let mut plan = Self::of(inner);
        plan.hinders.splice(0..0, hinder);
        plan
    }

    pub(crate) fn columns(&self) -> Option<&[(String, Type)]> {
        match &self.outcome {
            Answer::Rows(set) | Answer::RowsThenStall(set, _) => Some(&set.columns),
            _ => None,
        }
    }
}

/// What a test registered, in order.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    answer: Answer,
    once: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exact(String),
    Prefix(String),
}

impl Pattern {
    pub(crate) fn exact(sql: &str) -> Self {
        Self::Exact(normal(sql).to_owned())
    }

    pub(crate) fn prefix(sql: &str) -> Self {
        Self::Prefix(normal(sql).to_owned())
    }

    fn matches(&self, sql: &str) -> bool {
        match self {
            Self::Exact(pattern) => pattern == sql,
            Self::Prefix(pattern) => sql.starts_with(pattern),
        }
    }
}

impl Rules {
    pub(crate) fn add(&mut self, pattern: Pattern, answer: Answer, once: bool) {
        if !once {
            self.rules.retain(|rule| rule.once || rule.pattern != pattern);
        }
        self.rules.push(Rule { pattern, answer, once });
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The plan for a statement: the oldest matching one-time rule, else an exact rule, else the longest prefix.
    pub(crate) fn find(&self, sql: &str) -> Option<Plan> {
        self.place(sql).map(|place| Plan::of(&self.rules[place].answer))
    }

    /// As `find`; a one-time rule is used up at its step. A simple query has only one, so it gives none.
    pub(crate) fn take(&mut self, sql: &str, step: Option<Step>) -> Option<Plan> {
        let place = self.place(sql)?;
        let plan = Plan::of(&self.rules[place].answer);
        if self.rules[place].once && step.is_none_or(|step| plan.step == step) {
            self.rules.remove(place);
        }
        Some(plan)
    }

    fn place(&self, sql: &str) -> Option<usize> {
        let sql = normal(sql);
        let matching = || {
            self.rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| rule.pattern.matches(sql))
        };
        if let Some((place, _)) = matching().find(|(_, rule)| rule.once) {
            return Some(place);
        }
        let rank = |rule: &Rule| match &rule.pattern {
            Pattern::Exact(_) => usize::MAX,
            Pattern::Prefix(text) => text.len(),
        };
        matching().max_by_key(|(_, rule)| rank(rule)).map(|(place, _)| place)
    }
}

fn normal(sql: &str) -> &str {
    sql.trim().trim_end_matches(';').trim_end()
}
