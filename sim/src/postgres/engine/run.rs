//! Running statements: one attempt after another until it is done, has failed, or is interrupted.
//!
//! What sessions call. A plain machine. An attempt that must wait takes its changes back, keeps its locks, and is made again when
//! it is woken; what it must not do twice it remembers.

use std::sync::Arc;

use super::Engine;
use super::ast::{self, RowLock};
use super::door::{Completion, Facts, Moment, Progress, Row, Wait};
use super::execute::{Context, Stop};
use super::plan::{BodyPlan, CommonPlan, ModifyKind, ModifyPlan, Plan, PlanBody, SelectPlan};
use super::session::{Job, Kind, Running};
use super::types::datum::Datum;
use super::wal::Lsn;
use crate::wire::Report;

/// How an attempt ended well.
#[derive(Debug)]
pub(super) enum Answer {
    CopyIn(usize),
    CopyOut(usize, Vec<Vec<u8>>, Completion),
    Done(Completion),
    /// Committed, but a standby must confirm it first.
    Held(Completion, Lsn),
}

impl Engine {
    /// The simple protocol: runs a statement without parameters. `block` says that it is one of several of its message.
    pub(crate) fn run(&mut self, pid: i32, plan: &Plan, block: bool, at: Moment) -> Progress {
        let job = Job::Statement {
            plan: plan.clone(),
            parameters: Arc::from([]),
            block,
        };
        self.start(pid, job, at)
    }

    /// Sync, or the end of a simple query: commits the transaction that was made for its statements.
    pub(crate) fn end_implicit(&mut self, pid: i32, at: Moment) -> Progress {
        self.start(pid, Job::End, at)
    }

    /// The protocol's Execute: at most `most` rows, all if it is 0.
    pub(crate) fn execute(&mut self, pid: i32, portal: &str, most: usize, at: Moment) -> Progress {
        let job = Job::Portal {
            name: portal.to_owned(),
            most,
        };
        self.start(pid, job, at)
    }

    pub(super) fn begin_copy(&mut self, pid: i32, at: Moment) -> Progress {
        self.start(pid, Job::Copy, at)
    }

    fn start(&mut self, pid: i32, job: Job, at: Moment) -> Progress {
        if !matches!(job, Job::End) {
            self.session_mut(pid).facts = Facts::default();
        }
        let mark = self.mark(pid);
        self.session_mut(pid).running = Some(Running {
            job,
            commits: None,
            snapshot_lsn: Lsn::default(),
            memory: Vec::new(),
            remembered: 0,
            mark,
            wait: None,
            held: None,
        });
        self.attempt(pid, at)
    }

    /// Goes on with a statement that waits: its pid came out of [`Engine::take_wakes`], or its sleep is over.
    pub(crate) fn resume(&mut self, pid: i32, at: Moment) -> Progress {
        let wait = self.waiting(pid).cloned();
        match wait {
            None => Progress::Done(Box::default()),
            Some(wait @ Wait::SyncReplication { .. }) => Progress::Waiting(wait),
            Some(Wait::Sleep { until }) if at.now < until => Progress::Waiting(Wait::Sleep { until }),
            Some(_) => self.attempt(pid, at),
        }
    }

    /// What the session's statement waits for.
    pub(crate) fn waiting(&self, pid: i32) -> Option<&Wait> {
        self.sessions.get(&pid)?.running.as_ref()?.wait.as_ref()
    }

    /// Ends a waiting statement with an error. A commit that waits for a standby is not undone by it: confirm it instead.
    pub(crate) fn interrupt(&mut self, pid: i32, report: Report) -> Progress {
        self.fail(pid);
        Progress::Failed(report)
    }

    /// The standby has confirmed, or nobody waits for it any more: the commit is seen by others, and the statement is done.
    pub(crate) fn confirm_commit(&mut self, pid: i32) -> Progress {
        let running = self.sessions.get_mut(&pid).and_then(|session| session.running.take());
        let Some(held) = running.and_then(|running| running.held) else {
            return Progress::Done(Box::default());
        };
        let chain = self
            .session(pid)
            .transaction
            .as_ref()
            .filter(|transaction| transaction.kind == Kind::Block)
            .cloned();
        self.finish_commit(pid);
        if held.tag == "COMMIT" && self.session(pid).chained {
            self.session_mut(pid).chained = false;
            if let Some(before) = chain {
                let at = Moment {
                    now: gdbpool::Instant::from_nanos(0),
                    wall: before.started,
                };
                self.chain(pid, &before, at);
            }
        }
        Progress::Done(held)
    }

    fn attempt(&mut self, pid: i32, at: Moment) -> Progress {
        let Some(running) = self.session_mut(pid).running.as_mut() else {
            return Progress::Done(Box::default());
        };
        running.remembered = 0;
        running.wait = None;
        let (job, mark) = (running.job.clone(), running.mark);
        let result = match &job {
            Job::Copy => self.copy_once(pid, at),
            Job::End => self.end(pid, at),
            Job::Portal { name, most } => self.portal(pid, name, *most, at),
            Job::Statement {
                plan,
                parameters,
                block,
            } => self.statement_once(pid, plan, &Arc::clone(parameters), *block, at),
        };
        match result {
            Ok(Answer::Held(completion, lsn)) => {
                let wait = Wait::SyncReplication { lsn };
                if let Some(running) = self.session_mut(pid).running.as_mut() {
                    running.held = Some(Box::new(completion));
                    running.wait = Some(wait.clone());
                }
                self.locks.stop_waiting(pid);
                Progress::Waiting(wait)
            }
            Ok(answer) => {
                self.session_mut(pid).running = None;
                self.locks.stop_waiting(pid);
                match answer {
                    Answer::CopyIn(columns) => Progress::CopyIn { columns },
                    Answer::CopyOut(columns, lines, completion) => Progress::CopyOut {
                        columns,
                        lines,
                        completion: Box::new(completion),
                    },
                    Answer::Done(completion) | Answer::Held(completion, _) => Progress::Done(Box::new(completion)),
                }
            }
            Err(Stop::Wait(wait)) => {
                self.undo_to(pid, mark);
                if !matches!(wait, Wait::Lock { .. }) {
                    self.locks.stop_waiting(pid);
                }
                if let Some(running) = self.session_mut(pid).running.as_mut() {
                    running.wait = Some(wait.clone());
                }
                Progress::Waiting(wait)
            }
            Err(Stop::Fail(report)) => {
                self.count(&report);
                self.fail(pid);
                Progress::Failed(*report)
            }
        }
    }

    /// The answer that an earlier attempt got from the next function that must not run twice.
    pub(super) fn remembered(&mut self, pid: i32) -> Option<Datum> {
        let running = self.session_mut(pid).running.as_mut()?;
        let found = running.memory.get(running.remembered).cloned();
        running.remembered += usize::from(found.is_some());
        found
    }

    pub(super) fn remember(&mut self, pid: i32, answer: Datum) {
        if let Some(running) = self.session_mut(pid).running.as_mut() {
            running.memory.push(answer);
            running.remembered = running.memory.len();
        }
    }

    fn end(&mut self, pid: i32, at: Moment) -> Result<Answer, Stop> {
        let completion = |engine: &Self| Completion {
            facts: engine.facts(pid),
            ..Completion::default()
        };
        match self
            .session(pid)
            .transaction
            .as_ref()
            .map(|transaction| transaction.kind)
        {
            Some(Kind::Block) => {}
            Some(_) => {
                if let Some(lsn) = self.commit(pid, at)? {
                    return Ok(Answer::Held(completion(self), lsn));
                }
            }
            None => self
                .session_mut(pid)
                .portals
                .retain(|_, portal| portal.hold && portal.rows.is_some()),
        }
        Ok(Answer::Done(completion(self)))
    }

    /// One attempt of a statement.
    pub(super) fn statement_once(
        &mut self,
        pid: i32,
        plan: &Plan,
        parameters: &[Datum],
        block: bool,
        at: Moment,
    ) -> Result<Answer, Stop> {
        let statement = Arc::clone(plan.statement());
        self.usable(pid, &statement.parsed)?;
        if self.session(pid).transaction.is_none() {
            let kind = if block { Kind::ImplicitBlock } else { Kind::Implicit };
            self.begin(pid, kind, at);
        }
        if !super::plan::is_planned(&statement.parsed) {
            return self.control(pid, &statement, parameters, block, at);
        }
        let plan = self.refreshed(pid, plan)?;
        let (tag, rows) = self.planned_once(pid, &plan, parameters, at)?;
        Ok(Answer::Done(self.completed(pid, &plan, tag, rows)))
    }

    pub(super) fn completed(&mut self, pid: i32, plan: &Plan, tag: String, rows: Vec<Row>) -> Completion {
        let session = self.session_mut(pid);
        let snapshot_lsn = session.running.as_ref().map(|running| running.snapshot_lsn);
        let mut facts = Facts {
            snapshot_lsn,
            ..Facts::default()
        };
        if let Some(transaction) = session.transaction.as_mut() {
            transaction.command += 1;
            facts.xid = transaction.xid;
            if transaction.snapshot.is_some() {
                facts.snapshot_lsn = Some(transaction.snapshot_lsn);
            }
        }
        Completion {
            tag,
            columns: plan.shared_columns(),
            rows,
            suspended: false,
            facts,
        }
    }

    /// The rows of a plan, and its tag.
    pub(super) fn planned_once(
        &mut self,
        pid: i32,
        plan: &Plan,
        parameters: &[Datum],
        at: Moment,
    ) -> Result<(String, Vec<Row>), Stop> {
        match plan.body() {
            PlanBody::Query(select) => {
                self.allowed_query(pid, select)?;
                let view = self.view(pid);
                let rows = Context::new(self, pid, at, parameters, view).query(select, &[])?;
                Ok((format!("SELECT {}", rows.len()), rows))
            }
            PlanBody::Modify(modify) => {
                self.allowed_modification(pid, modify)?;
                let view = self.view(pid);
                let (count, rows) = Context::new(self, pid, at, parameters, view).modify(modify)?;
                let tag = match modify.kind {
                    ModifyKind::Insert { .. } => format!("INSERT 0 {count}"),
                    ModifyKind::Update { .. } => format!("UPDATE {count}"),
                    ModifyKind::Delete { .. } => format!("DELETE {count}"),
                };
                Ok((tag, rows))
            }
            PlanBody::Control => Ok((String::new(), Vec::new())),
        }
    }

    fn allowed_query(&self, pid: i32, plan: &SelectPlan) -> Result<(), Report> {
        for common in &plan.with {
            match common {
                CommonPlan::Modify(modify) => self.allowed_modification(pid, modify)?,
                CommonPlan::Select(select, _) => self.allowed_query(pid, select)?,
            }
        }
        if let Some(lock) = plan.locks.first() {
            let name = match lock.strength {
                RowLock::KeyShare => "SELECT FOR KEY SHARE",
                RowLock::Share => "SELECT FOR SHARE",
                RowLock::NoKeyUpdate => "SELECT FOR NO KEY UPDATE",
                RowLock::Update => "SELECT FOR UPDATE",
            };
            self.require_writable(pid, name)?;
        }
        if let BodyPlan::Combined { left, right, .. } = &plan.body {
            self.allowed_query(pid, left)?;
            self.allowed_query(pid, right)?;
        }
        Ok(())
    }

    fn allowed_modification(&self, pid: i32, plan: &ModifyPlan) -> Result<(), Report> {
        let temporary = self
            .catalog
            .table(plan.table)
            .is_some_and(|(table, _)| table.temporary.is_some());
        if temporary {
            return Ok(());
        }
        let verb = match plan.kind {
            ModifyKind::Insert { .. } => "INSERT",
            ModifyKind::Update { .. } => "UPDATE",
            ModifyKind::Delete { .. } => "DELETE",
        };
        self.require_writable(pid, verb)
    }

    /// The report that ends the wait of a session that waits in a circle; ask when it has waited for `deadlock_timeout`.
    pub(crate) fn deadlock(&self, pid: i32) -> Option<Report> {
        let circle = self.locks.circle(pid)?;
        let mut lines = Vec::with_capacity(circle.len());
        for (at, (waiter, resource, mode)) in circle.iter().enumerate() {
            let (blocker, ..) = circle[(at + 1) % circle.len()];
            let what = self.lock_shown(*waiter, *resource, blocker);
            lines.push(format!(
                "Process {waiter} waits for {} on {what}; blocked by process {blocker}.",
                mode.shown()
            ));
        }
        let mut report = Report::error("40P01", "deadlock detected")
            .detail(lines.join("\n"))
            .hint("See server log for query details.");
        if let Some(Wait::Lock { what, .. }) = self.waiting(pid)
            && !what.is_empty()
        {
            report = report.context(what);
        }
        Some(report)
    }

    fn lock_shown(&self, waiter: i32, resource: super::locks::Resource, blocker: i32) -> String {
        use super::locks::Resource;
        let database = self.database_oid(waiter);
        match resource {
            Resource::Transaction(xid) => format!("transaction {xid}"),
            // A row's lock is waited for through the transaction that has it.
            Resource::Row { .. } => format!("transaction {}", self.xid(blocker).unwrap_or_default()),
            Resource::Table(oid) => format!("relation {oid} of database {database}"),
            Resource::Advisory { database, key, pair } => {
                let bits = key.cast_unsigned();
                let sub = if pair { 2 } else { 1 };
                format!("advisory lock [{database},{},{},{sub}]", bits >> 32, bits & 0xffff_ffff)
            }
        }
    }

    /// The columns a statement's table has, for COPY.
    pub(super) fn copy_columns(&self, table: u32, names: &[String]) -> Result<Vec<usize>, Report> {
        let Some((definition, _)) = self.catalog.table(table) else {
            return Ok(Vec::new());
        };
        if names.is_empty() {
            return Ok((0..definition.columns.len())
                .filter(|at| !definition.columns[*at].dropped)
                .collect());
        }
        let place = |name: &String| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", definition.name);
            definition.column(name).ok_or_else(|| Report::error("42703", message))
        };
        names.iter().map(place).collect()
    }

    pub(super) fn is_query(statement: &ast::Statement) -> bool {
        matches!(statement, ast::Statement::Query(_))
    }
}
