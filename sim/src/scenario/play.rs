//! Plays a client: its steps one after the other, each a call on the library's public interface, and writes down what it
//! was told.
//!
//! Under the runner. Statements, functions and notifications are here; pins, leases and subscriptions in their own files.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use gdbpool::types::ToSql;
use gdbpool::{AsyncResult, Cancel, Error, InteractionPool, Row, Runtime, Transaction};

use super::client::{Answer, ClientHistory, Failure, Fate, Say};
use super::marks::mark;
use super::statements as marks;
use super::{Client, FunctionEnd, Op, Patience, Savepoint, Step, Topology, call_of, listen, pin, session, wrong};
use crate::runtime::SimRuntime;

/// What all clients of a run share.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) db: InteractionPool,
    pub(super) runtime: SimRuntime,
    pub(super) topology: Topology,
    /// How many server events there are by now.
    pub(super) served: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(super) log: Arc<Mutex<ClientHistory>>,
}

/// One step of one client, under way.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) stage: Stage,
    pub(super) client: usize,
    pub(super) number: usize,
    pub(super) step: Step,
    pub(super) cancel: Cancel,
}

/// What became of a call that was not dropped.
pub(super) struct Done {
    pub(super) fate: Fate,
    pub(super) failure: Option<Failure>,
    pub(super) kept: Vec<u64>,
}

/// Marks of the writes that a commit would keep.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<u64>>>);

/// The statement of a handle that was taken along.
pub(super) const ESCAPED: u64 = 80;

/// Plays all steps.
pub(super) async fn play(stage: Stage, client: usize, program: Client) {
    for (number, step) in program.steps.into_iter().enumerate() {
        stage.rest(step.pause.span()).await;
        let call = Call {
            stage: stage.clone(),
            client,
            number,
            step,
            cancel: Cancel::new(),
        };
        call.play().await;
    }
}

impl Stage {
    pub(super) fn say(&self, call: u64, say: Say) {
        let (after, now) = ((self.served)(), self.runtime.now());
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.record(after, now, call, say);
    }

    pub(super) async fn rest(&self, span: Duration) {
        if !span.is_zero() {
            self.runtime.sleep_until(self.runtime.now() + span).await;
        }
    }
}

impl Call {
    pub(super) fn mark(&self, statement: u64) -> u64 {
        mark(self.client, self.number, statement)
    }

    pub(super) fn say(&self, say: Say) {
        self.stage.say(call_of(self.mark(0)), say);
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.step.timeout.map(|span| span.span())
    }

    async fn play(self) {
        self.ask();
        match self.step.op.clone() {
            Op::Function { rows, savepoint, end } => self.function(rows, savepoint, end).await,
            Op::Insert { idempotent } => self.insert(idempotent, None).await,
            Op::Lease { leaves, hold } => session::play(&self, leaves, hold.span()).await,
            Op::Listen { channel, span, queue } => listen::play(&self, channel, span.span(), queue).await,
            Op::Notify { channel } => {
                let work = self.notify(channel);
                self.end(work).await;
            }
            Op::Pin { .. } => pin::play(&self).await,
            Op::Read { row, marked } => self.read(row, marked, None).await,
            Op::ReadOn { pool, row } => self.read(row, true, Some(pool)).await,
            Op::Slow { span, write } => self.slow(span.span(), write).await,
            Op::Update { row } => {
                let op = self.mark(0);
                self.write(marks::update(op), Some(marks::row(row))).await;
            }
            Op::WriteAsRead { row } => self.write_as_read(row).await,
            Op::Wrong { how } => wrong::play(&self, how).await,
            Op::WriteOn { pool } => self.insert(false, Some(pool)).await,
        }
    }

    fn ask(&self) {
        let (read, pool, idempotent) = match &self.step.op {
            Op::Read { .. } | Op::WriteAsRead { .. } => (true, None, false),
            Op::Wrong { how } => (wrong::is_read(*how), None, false),
            Op::ReadOn { pool, .. } => (true, Some(*pool), false),
            Op::WriteOn { pool } => (false, Some(*pool), false),
            Op::Slow { write, .. } => (!write, None, false),
            Op::Insert { idempotent } => (false, None, *idempotent),
            _ => (false, None, false),
        };
        let deadline = self.timeout().map(|span| self.stage.runtime.now() + span);
        self.say(Say::Asked {
            read,
            pool: pool.map(|number| self.stage.topology.pool(number)),
            deadline,
            idempotent,
        });
    }

    /// Runs the work as patiently as the step says, and writes down its end. Who drops it knows nothing of its fate.
    pub(super) async fn end(&self, work: impl Future<Output = Done>) {
        self.end_with(work, || (Fate::Unknown, Vec::new())).await;
    }

    /// Like [`end`](Self::end), for work whose fate after a drop is known.
    pub(super) async fn end_with(&self, work: impl Future<Output = Done>, dropped: impl FnOnce() -> (Fate, Vec<u64>)) {
        let done = match self.patiently(work).await {
            Some(Ok(done)) => done,
            Some(Err(_panic)) => Done {
                fate: Fate::RolledBack,
                failure: None,
                kept: Vec::new(),
            },
            None => {
                let (fate, kept) = dropped();
                Done {
                    fate,
                    failure: None,
                    kept,
                }
            }
        };
        let Done { fate, failure, kept } = done;
        self.say(Say::Ended { fate, failure, kept });
    }

    /// `None` when the future was dropped.
    async fn patiently<F: Future>(&self, work: F) -> Option<Result<F::Output, Box<dyn Any + Send>>> {
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        match self.step.patience {
            Patience::Await | Patience::Spawn => Some(work.await),
            Patience::Cancel(after) => {
                let alarm = pin!(self.stage.rest(after.span()));
                match select(work, alarm).await {
                    Either::Left((done, _)) => Some(done),
                    Either::Right(((), work)) => {
                        self.say(Say::Cancelled);
                        self.cancel.cancel();
                        Some(work.await)
                    }
                }
            }
            Patience::Drop(polls) => {
                let mut left = polls;
                let polled = poll_fn(|cx| {
                    if left == 0 {
                        return Poll::Ready(None);
                    }
                    left -= 1;
                    match work.as_mut().poll(cx) {
                        Poll::Ready(done) => Poll::Ready(Some(done)),
                        // Odd ones leave when they are woken for the next time, and do not take what has come.
                        Poll::Pending if left == 0 && polls.is_multiple_of(2) => Poll::Ready(None),
                        Poll::Pending => Poll::Pending,
                    }
                });
                let done = polled.await;
                if done.is_none() {
                    self.say(Say::Dropped);
                }
                drop(work);
                done
            }
        }
    }

    async fn read(&self, row: u8, marked: bool, pool: Option<u8>) {
        let op = self.mark(0);
        let text = if marked {
            marks::read(op)
        } else {
            marks::READ.to_owned()
        };
        let row = marks::row(row);
        let db = self.stage.db.clone();
        let mut run = db.run(text).bind(row).read().cancel_on(&self.cancel);
        if let Some(span) = self.timeout() {
            run = run.timeout(span);
        }
        if let Some(number) = pool {
            run = run.on_pool(self.stage.topology.pool(number));
        }
        let expected = if marked { op } else { 0 };
        let spawned = self.step.patience == Patience::Spawn;
        let work = async {
            let rows = if spawned { run.spawn().await } else { run.await };
            let answer = match rows {
                Ok(rows) => own_row(&rows, row, expected),
                Err(error) => Answer::Failed(Failure::of(&error)),
            };
            self.answered(op, answer)
        };
        self.end(work).await;
    }

    async fn slow(&self, span: Duration, write: bool) {
        let op = self.mark(0);
        let db = self.stage.db.clone();
        let mut run = db.run(marks::slow(op, span.as_secs_f64())).cancel_on(&self.cancel);
        if !write {
            run = run.read();
        }
        if let Some(span) = self.timeout() {
            run = run.timeout(span);
        }
        let spawned = self.step.patience == Patience::Spawn;
        let work = async {
            let rows = if spawned { run.spawn().await } else { run.await };
            let answer = match rows {
                Ok(rows) => Answer::Done(rows.len() as u64),
                Err(error) => Answer::Failed(Failure::of(&error)),
            };
            self.answered(op, answer)
        };
        self.end(work).await;
    }

    /// The end of a call that wrote nothing.
    pub(super) fn answered(&self, op: u64, answer: Answer) -> Done {
        let failure = match &answer {
            Answer::Failed(failure) => Some(failure.clone()),
            _ => None,
        };
        self.say(Say::Statement { op, answer });
        Done {
            fate: Fate::Unknown,
            failure,
            kept: Vec::new(),
        }
    }

    async fn write_as_read(&self, row: u8) {
        let op = self.mark(0);
        let db = self.stage.db.clone();
        let mut run = db.run(marks::update(op)).bind(marks::row(row)).read().execute();
        if let Some(span) = self.timeout() {
            run = run.timeout(span);
        }
        let work = async { written(op, run.cancel_on(&self.cancel).await) };
        self.end(work).await;
    }

    async fn insert(&self, idempotent: bool, pool: Option<u8>) {
        let op = self.mark(0);
        let db = self.stage.db.clone();
        let mut run = db.run(marks::insert(op)).cancel_on(&self.cancel);
        if idempotent {
            run = run.idempotent();
        }
        if let Some(span) = self.timeout() {
            run = run.timeout(span);
        }
        if let Some(number) = pool {
            run = run.on_pool(self.stage.topology.pool(number));
        }
        let run = run.execute();
        let spawned = self.step.patience == Patience::Spawn;
        let work = async { written(op, if spawned { run.spawn().await } else { run.await }) };
        self.end(work).await;
    }

    async fn write(&self, text: String, row: Option<i32>) {
        let op = self.mark(0);
        let db = self.stage.db.clone();
        let mut run = db.run(text).cancel_on(&self.cancel);
        if let Some(row) = row {
            run = run.bind(row);
        }
        if let Some(span) = self.timeout() {
            run = run.timeout(span);
        }
        let run = run.execute();
        let spawned = self.step.patience == Patience::Spawn;
        let work = async { written(op, if spawned { run.spawn().await } else { run.await }) };
        self.end(work).await;
    }

    async fn notify(&self, channel: u8) -> Done {
        let op = self.mark(0);
        let mut notify = self.stage.db.notify(marks::channel(channel), op.to_string());
        if let Some(span) = self.timeout() {
            notify = notify.timeout(span);
        }
        written(op, notify.cancel_on(&self.cancel).await.map(|()| 1))
    }

    async fn function(&self, rows: Vec<u8>, savepoint: Savepoint, end: FunctionEnd) {
        let kept = Kept::default();
        let (call, notes) = (self.clone(), kept.clone());
        let mut transact = self
            .stage
            .db
            .transact(move |tx| {
                call.clone()
                    .in_function(tx, rows.clone(), savepoint, end, notes.clone())
            })
            .cancel_on(&self.cancel);
        if let Some(span) = self.timeout() {
            transact = transact.timeout(span);
        }
        let spawned = self.step.patience == Patience::Spawn;
        let work = async {
            let done = if spawned {
                spawn(transact.spawn()).await
            } else {
                transact.await
            };
            let kept = kept.take();
            match done {
                Ok(()) => Done {
                    fate: Fate::Committed,
                    failure: None,
                    kept,
                },
                Err(error) => Done {
                    fate: Fate::of(&error),
                    failure: Some(Failure::of(&error)),
                    kept,
                },
            }
        };
        self.end(work).await;
    }

    async fn in_function(
        self,
        tx: Transaction,
        rows: Vec<u8>,
        savepoint: Savepoint,
        end: FunctionEnd,
        kept: Kept,
    ) -> Result<(), Error> {
        kept.take();
        // One row that only this call writes, so that its effect can be told from all others.
        self.statement(&tx, self.mark(50), marks::insert(self.mark(50)), &[], &kept)
            .await?;
        for (number, row) in (0u64..).zip(&rows) {
            let (op, row) = (self.mark(number), marks::row(*row));
            let is_last = number + 1 == rows.len() as u64;
            if !is_last || savepoint == Savepoint::None {
                self.statement(&tx, op, marks::update(op), &[&row], &kept).await?;
                continue;
            }
            let inside = Kept::default();
            let (call, notes) = (self.clone(), inside.clone());
            let done = tx
                .savepoint(move |tx| async move {
                    call.statement(&tx, op, marks::update(op), &[&row], &notes).await?;
                    match savepoint {
                        Savepoint::TakenBack => Err(Error::user("taken back")),
                        _ => Ok(()),
                    }
                })
                .await;
            match done {
                Ok(()) => kept.add(&inside.take()),
                Err(error) if savepoint == Savepoint::TakenBack && error.database().is_none() => {}
                Err(error) => return Err(error),
            }
        }
        match end {
            FunctionEnd::Commit => Ok(()),
            FunctionEnd::Escape => {
                let (call, handle) = (self.clone(), tx.clone());
                self.stage.runtime.spawn(Box::pin(async move {
                    let op = call.mark(ESCAPED);
                    // Whatever it says: the oracles look where its effect is.
                    let _ = call
                        .statement(&handle, op, marks::insert(op), &[], &Kept::default())
                        .await;
                }));
                self.stage.rest(Duration::from_micros(1)).await;
                Ok(())
            }
            FunctionEnd::Fail => Err(Error::user("the application's own")),
            FunctionEnd::Panic => resume_unwind(Box::new("a function that panics")),
            FunctionEnd::Swallow => {
                // It is there already.
                let _ = tx.execute(marks::FAILS, &[]).await;
                Ok(())
            }
        }
    }

    /// One write inside a transaction.
    pub(super) async fn statement(
        &self,
        tx: &Transaction,
        op: u64,
        text: String,
        values: &[&(dyn ToSql + Sync)],
        kept: &Kept,
    ) -> Result<(), Error> {
        let done = tx.execute(&text, values).await;
        self.note(op, &done, kept);
        done.map(drop)
    }

    pub(super) fn note(&self, op: u64, done: &Result<u64, Error>, kept: &Kept) {
        let answer = match done {
            Ok(rows) => {
                kept.add(&[op]);
                Answer::Done(*rows)
            }
            Err(error) => Answer::Failed(Failure::of(error)),
        };
        self.say(Say::Statement { op, answer });
    }
}

/// What a caller of `spawn()` does with a call that panics: it is an error there.
async fn spawn(running: AsyncResult<()>) -> Result<(), Error> {
    running.await
}

/// The end of a single statement that writes.
fn written(op: u64, done: Result<u64, Error>) -> Done {
    match done {
        Ok(_) => Done {
            fate: Fate::Committed,
            failure: None,
            kept: vec![op],
        },
        Err(error) => Done {
            fate: Fate::of(&error),
            failure: Some(Failure::of(&error)),
            kept: vec![op],
        },
    }
}

/// Whether the rows are the ones that were asked for.
pub(super) fn own_row(rows: &[Row], id: i32, mark: u64) -> Answer {
    let [row] = rows else {
        return Answer::Foreign(format!("{} rows instead of one", rows.len()));
    };
    let got = (row.try_get::<_, i32>(0).ok(), row.try_get::<_, i64>(2).ok());
    if got == (Some(id), i64::try_from(mark).ok()) {
        Answer::Done(1)
    } else {
        Answer::Foreign(format!("row and mark {got:?} instead of {id} and {mark}"))
    }
}

impl Kept {
    pub(super) fn add(&self, marks: &[u64]) {
        self.lock().extend(marks);
    }

    /// All of them, leaving none.
    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
