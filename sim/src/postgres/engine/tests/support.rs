//! A node and its sessions, driven by hand.

use std::collections::BTreeMap;

use gdbpool::Instant;

use super::super::*;
use crate::wire::Report;

/// A node with the sessions 1, 2 and 3.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) now: u64,
}

/// How a statement ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Completion),
    Failed(Report),
    Waits,
}

impl Node {
    pub(super) fn new() -> Self {
        Self::with(Engine::new(NodeSettings::default()))
    }

    pub(super) fn with(engine: Engine) -> Self {
        let mut node = Self { engine, now: 1 };
        for pid in 1..=3 {
            node.engine
                .open(pid, "postgres", "postgres", &BTreeMap::new())
                .expect("a session");
        }
        node
    }

    pub(super) fn moment(&mut self) -> Moment {
        self.now += 1_000;
        Moment {
            now: Instant::from_nanos(self.now),
            wall: i64::try_from(self.now / 1_000).expect("a small number"),
        }
    }

    fn outcome(progress: Progress) -> Outcome {
        match progress {
            Progress::Done(completion) => Outcome::Done(*completion),
            Progress::Failed(report) => Outcome::Failed(report),
            Progress::Waiting(_) => Outcome::Waits,
            other => panic!("COPY: {other:?}"),
        }
    }

    /// A simple query of any number of statements, as the protocol runs it.
    pub(super) fn send(&mut self, pid: i32, sql: &str) -> Outcome {
        let statements = match self.engine.parse(sql) {
            Ok(statements) => statements,
            Err(report) => {
                self.engine.fail(pid);
                return Outcome::Failed(report);
            }
        };
        let mut last = Completion::default();
        let block = statements.len() > 1;
        for statement in &statements {
            let plan = match self.engine.prepare(pid, statement, &[]) {
                Ok(plan) => plan,
                Err(report) => {
                    self.engine.fail(pid);
                    return Outcome::Failed(report);
                }
            };
            let at = self.moment();
            match Self::outcome(self.engine.run(pid, &plan, block, at)) {
                Outcome::Done(completion) => last = completion,
                other => return other,
            }
        }
        self.end(pid, last)
    }

    fn end(&mut self, pid: i32, last: Completion) -> Outcome {
        let at = self.moment();
        match Self::outcome(self.engine.end_implicit(pid, at)) {
            Outcome::Done(_) => Outcome::Done(last),
            other => other,
        }
    }

    /// Goes on with a session that was woken; it must be among the wakes.
    pub(super) fn wake(&mut self, pid: i32) -> Outcome {
        let wakes = self.engine.take_wakes();
        assert!(wakes.contains(&pid), "{pid} is not among {wakes:?}");
        let at = self.moment();
        match Self::outcome(self.engine.resume(pid, at)) {
            Outcome::Done(completion) => self.end(pid, completion),
            other => other,
        }
    }

    /// The rows of a query that succeeds: columns by `|`, rows by blanks.
    pub(super) fn rows(&mut self, pid: i32, sql: &str) -> String {
        shown(&self.done(pid, sql))
    }

    pub(super) fn done(&mut self, pid: i32, sql: &str) -> Completion {
        match self.send(pid, sql) {
            Outcome::Done(completion) => completion,
            other => panic!("{sql}: {other:?}"),
        }
    }

    pub(super) fn tag(&mut self, pid: i32, sql: &str) -> String {
        self.done(pid, sql).tag
    }

    /// SQLSTATE and message of a statement that fails.
    pub(super) fn error(&mut self, pid: i32, sql: &str) -> String {
        match self.send(pid, sql) {
            Outcome::Failed(report) => format!("{} {}", report.sqlstate, report.message),
            other => panic!("{sql}: {other:?}"),
        }
    }

    pub(super) fn waits(&mut self, pid: i32, sql: &str) {
        match self.send(pid, sql) {
            Outcome::Waits => {}
            other => panic!("{sql} does not wait: {other:?}"),
        }
    }
}

/// A completion's rows as text.
pub(super) fn shown(completion: &Completion) -> String {
    let columns = completion.columns.as_deref().unwrap_or_default();
    let row = |row: &door::Row| {
        let values = row.iter().zip(columns).map(|(value, column)| {
            let text = value.encode(column.type_oid, false);
            text.map_or_else(|| "NULL".to_owned(), |text| String::from_utf8(text).expect("text"))
        });
        values.collect::<Vec<_>>().join("|")
    };
    completion.rows.iter().map(row).collect::<Vec<_>>().join(" ")
}
