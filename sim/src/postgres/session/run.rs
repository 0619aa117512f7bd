//! Running one statement to its end: the engine's progress, waits, timeouts, cancels.
//!
//! Between the two forms of the query protocol and the engine. It sends only notices; what the history is told is in
//! `record`.

use std::sync::Arc;

use gdbpool::Instant;

use super::Session;
use super::halt::Halt;
use super::idle::conflict_report;
use super::wait::Woken;
use crate::fault::{FailAt, ServerEvent};
use crate::history::Durability;
use crate::postgres::cluster::CONVOY;
use crate::postgres::engine::{Completion, Engine, Lsn, Moment, Progress, Wait};
use crate::postgres::server::{Activity, Goodbye};
use crate::wire::{Backend as Message, Report};

/// How a statement came to its end.
pub(crate) enum Ran {
    /// The client is asked for rows.
    CopyIn {
        columns: usize,
    },
    /// Rows go out in COPY's form.
    CopyOut {
        columns: usize,
        lines: Vec<Vec<u8>>,
        completion: Box<Completion>,
    },
    Done(Box<Completion>),
}

impl Session {
    /// Arms the statement's deadline if none is running.
    pub(crate) fn arm_statement(&mut self) {
        if self.statement_deadline.is_none() {
            let open = self.lock();
            let span = open.nodes[self.node].engine.timeout(self.pid, "statement_timeout");
            let deadline = span.map(|span| open.now() + span);
            drop(open);
            self.statement_deadline = deadline;
        }
    }

    /// Runs a statement, started by `start`; on success the engine has done it, and the history knows.
    pub(crate) async fn run(
        &mut self,
        text: &Arc<str>,
        start: impl FnOnce(&mut Engine, Moment) -> Progress,
    ) -> Result<Ran, Halt> {
        self.arm_statement();
        self.began(text);
        let result = match self.obstruct(text).await {
            Ok(()) => {
                let progress = self.engine(start);
                self.drive(progress).await
            }
            Err(halt) => Err(halt),
        };
        match &result {
            Ok(Ran::Done(completion)) if !completion.suspended => self.ended(text, completion),
            Err(Halt::Fail(report)) => self.gave_up(text, &report.sqlstate),
            _ => {}
        }
        result
    }

    /// Follows the engine's progress through all waits.
    pub(crate) async fn drive(&mut self, first: Progress) -> Result<Ran, Halt> {
        let mut progress = first;
        let mut durability = Durability::Local;
        loop {
            progress = match progress {
                Progress::Done(completion) => {
                    self.lock().executed(self.node, self.pid, &completion, durability);
                    return Ok(Ran::Done(completion));
                }
                Progress::Failed(report) => return Err(report.into()),
                Progress::CopyIn { columns } => return Ok(Ran::CopyIn { columns }),
                Progress::CopyOut {
                    columns,
                    lines,
                    completion,
                } => {
                    self.lock().executed(self.node, self.pid, &completion, durability);
                    return Ok(Ran::CopyOut {
                        columns,
                        lines,
                        completion,
                    });
                }
                Progress::Waiting(Wait::Lock { holders, .. }) => {
                    if holders.contains(&CONVOY) {
                        self.lock().felt("server.lock_convoy");
                    }
                    self.describe_once();
                    self.happened(ServerEvent::LockWaitBegan);
                    self.wait_for_lock().await?
                }
                Progress::Waiting(Wait::Sleep { until }) => {
                    self.describe_once();
                    self.linger(until).await?;
                    self.resume()
                }
                Progress::Waiting(Wait::SyncReplication { lsn }) => {
                    durability = self.wait_for_copies(lsn).await?;
                    self.engine(|engine, _| engine.confirm_commit(self.pid))
                }
            };
        }
    }

    /// A simple query that has begun to run has described its rows; they leave with the rest of the output.
    pub(crate) fn describe_once(&mut self) {
        if let Some(columns) = self.to_describe.take() {
            self.describe_columns(&columns, &[]);
        }
    }

    fn resume(&self) -> Progress {
        self.engine(|engine, moment| engine.resume(self.pid, moment))
    }

    async fn wait_for_lock(&mut self) -> Result<Progress, Halt> {
        let (lock, look) = {
            let open = self.lock();
            let engine = &open.nodes[self.node].engine;
            let at = |name| {
                engine
                    .timeout(self.pid, name)
                    .map_or(Instant::FAR_FUTURE, |span| open.now() + span)
            };
            (at("lock_timeout"), at("deadlock_timeout"))
        };
        let statement = self.statement_deadline.unwrap_or(Instant::FAR_FUTURE);
        let mut look = look;
        loop {
            let until = statement.min(lock).min(look);
            match self.wait(until).await {
                Woken::Wake => return Ok(self.resume()),
                // Equal instants: the lock's own timeout goes first, as in PostgreSQL.
                Woken::Due if until == lock => {
                    return Err(self.interrupt(Report::error("55P03", "canceling statement due to lock timeout")));
                }
                Woken::Due if until == look => {
                    look = Instant::FAR_FUTURE;
                    if let Some(report) = self.engine(|engine, _| engine.deadlock(self.pid)) {
                        return Err(self.interrupt(report));
                    }
                }
                woken => return Err(self.interrupted(woken)),
            }
        }
    }

    /// The commit is durable here; the client hears so when the standbys asked for have it.
    async fn wait_for_copies(&mut self, lsn: Lsn) -> Result<Durability, Halt> {
        let replayed = {
            let open = self.lock();
            open.nodes[self.node].engine.commit_level(self.pid) == "remote_apply"
        };
        self.backend(|backend| backend.activity = Activity::Syncing);
        self.happened(ServerEvent::CommitWaitBegan);
        loop {
            if self.lock().is_synchronous(self.node, lsn, replayed) {
                self.backend(|backend| backend.activity = Activity::Running);
                return Ok(Durability::Synchronous);
            }
            match self.wait(Instant::FAR_FUTURE).await {
                Woken::Wake | Woken::Due | Woken::Conflict => {}
                Woken::Cancel => {
                    let text = "canceling wait for synchronous replication due to user request";
                    self.warn_of_local_commit(Report::warning("01000", text));
                    self.backend(|backend| backend.activity = Activity::Running);
                    return Ok(Durability::LocalWarned);
                }
                Woken::End(Goodbye::Administrator) => {
                    let text = "canceling the wait for synchronous replication and terminating connection due to \
                                administrator command";
                    self.warn_of_local_commit(Report::warning("57P01", text));
                    self.commit_before_the_end();
                    return Err(Halt::Over);
                }
                Woken::End(goodbye) => return Err(Halt::Goodbye(goodbye)),
            }
        }
    }

    fn warn_of_local_commit(&mut self, report: Report) {
        let detail =
            "The transaction has already committed locally, but might not have been replicated to the standby.";
        self.send(&Message::NoticeResponse(report.detail(detail)));
    }

    /// The session was told to end while its commit waited: it is committed all the same.
    fn commit_before_the_end(&self) {
        let orphan = self.backend(|backend| backend.orphan);
        if orphan != Some(false) {
            return;
        }
        if let Progress::Done(completion) = self.engine(|engine, _| engine.confirm_commit(self.pid)) {
            self.lock()
                .executed(self.node, self.pid, &completion, Durability::LocalWarned);
        }
    }

    /// What a wait inside a statement was interrupted by; the engine forgets the statement.
    fn interrupted(&self, woken: Woken) -> Halt {
        let report = match woken {
            Woken::Cancel | Woken::Wake => Report::error("57014", "canceling statement due to user request"),
            Woken::Conflict => conflict_report(false),
            Woken::Due => Report::error("57014", "canceling statement due to statement timeout"),
            Woken::End(goodbye) => return Halt::Goodbye(goodbye),
        };
        self.interrupt(report)
    }

    fn interrupt(&self, report: Report) -> Halt {
        match self.engine(|engine, _| engine.interrupt(self.pid, report.clone())) {
            Progress::Failed(report) => Halt::Fail(report),
            _ => Halt::Fail(report),
        }
    }

    /// Faults that strike when a statement runs: it fails, or takes longer.
    pub(crate) async fn obstruct(&mut self, text: &str) -> Result<(), Halt> {
        let (failure, slow, commit) = {
            let mut open = self.lock();
            let faults = &mut open.nodes[self.node].faults;
            // Looked at only when there is something to do, which is rare.
            let control = faults.fail.as_ref().and_then(|_| control_verb(text));
            let failure = match control {
                None => faults.fail_at(FailAt::Execute),
                Some("commit" | "end") => faults.fail_at(FailAt::Commit),
                Some(_) => None,
            };
            (failure, faults.slow, control.is_some())
        };
        if let Some(report) = failure {
            self.lock().felt("server.fail");
            if commit {
                self.roll_back_instead();
            }
            return Err(report.into());
        }
        match slow {
            Some(span) => {
                self.lock().felt("server.slow");
                self.linger(self.shared.now() + span).await
            }
            None => Ok(()),
        }
    }

    /// A COMMIT that fails has rolled back.
    fn roll_back_instead(&self) {
        self.engine(|engine, moment| {
            let rollback = engine.parse("ROLLBACK").ok()?.into_iter().next()?;
            let plan = engine.prepare(self.pid, &rollback, &[]).ok()?;
            Some(engine.run(self.pid, &plan, false, moment))
        });
    }

    /// Waits in virtual time; whatever interrupts a statement interrupts it.
    async fn linger(&mut self, until: Instant) -> Result<(), Halt> {
        let deadline = self.statement_deadline.unwrap_or(Instant::FAR_FUTURE);
        loop {
            match self.wait(until.min(deadline)).await {
                Woken::Wake => {}
                Woken::Due if until <= deadline => return Ok(()),
                woken => return Err(self.interrupted(woken)),
            }
        }
    }

    /// The end of an implicit transaction: at Sync, or behind the last statement of a simple query.
    pub(crate) async fn end_implicit(&mut self) -> Result<(), Halt> {
        let progress = self.engine(|engine, moment| engine.end_implicit(self.pid, moment));
        self.drive(progress).await.map(|_| ())
    }
}

/// The first word of a statement that begins or ends transactions.
fn control_verb(text: &str) -> Option<&'static str> {
    let first = crate::sql::first_word(text)?;
    let verbs = [
        "abort",
        "begin",
        "commit",
        "end",
        "release",
        "rollback",
        "savepoint",
        "start",
    ];
    verbs.into_iter().find(|verb| first == *verb)
}
