//! One transaction on one lease: begun with its first statement, watched through the tap, ended once.
//!
//! Between the handles (`Transaction`, `Pinned`) and the session. Every call of a handle enters here and is looked at here
//! when it is over. The judgement is the machine's in `watch.rs`; this is the shell around it.

use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use event_listener::Event;
use futures_util::future::{Either, select};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::{Severity, SqlState};

use super::options::Options;
use super::receipt::Receipt;
use super::watch::{Begun, Reply, Standing, Watch, of_commit};
use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase};
use crate::interaction::failure::{self, Circumstance};
use crate::interaction::statement::on;
use crate::pool::Lease;
use crate::route::Access;
use crate::runtime::point;
use crate::session::{Beginning, Ended, Failure};
use crate::sql::{self, Commits};

/// The answer to the last part says whether the work is kept; the first is for whoever must find out later.
const COMMIT: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned(); COMMIT";

/// See the file's header.
pub(in crate::interaction) struct Core {
    lease: Lease,
    options: Options,
    state: Mutex<State>,
    /// Notified when calls that wait for BEGIN's answer must look again.
    look_again: Event,
}

#[derive(Debug, Default)]
struct State {
    over: Option<Over>,
    /// Once BEGIN was queued.
    watch: Option<Watch>,
    /// Until BEGIN was answered.
    beginning: Option<Beginning>,
    /// How many requests had entered the session with BEGIN.
    entered: u64,
    /// BEGIN was refused: what became of the statement behind it, which ran by itself.
    alone: Option<Outcome>,
    /// Where it stood when the session went back: what is counted later is of others.
    left: Option<Standing>,
    /// The session was lost, or its answers are not to be followed any more.
    spoilt: bool,
    /// SQLSTATE of the last statement that failed.
    failure: Option<SqlState>,
    names: u64,
    /// Savepoints that are open, one in the other.
    depth: u32,
}

/// Calls that wait for BEGIN's answer look again when it is dropped.
struct LookAgain<'a>(&'a Event);

impl Drop for LookAgain<'_> {
    fn drop(&mut self) {
        self.0.notify(usize::MAX);
    }
}

/// Why no call enters any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::interaction) enum Over {
    Ended,
    Expired {
        at: &'static Location<'static>,
        lease_time: Duration,
    },
}

impl Core {
    pub(in crate::interaction) fn new(lease: Lease, options: Options) -> Arc<Self> {
        // Whatever a function does, the session is cleaned up in full after it.
        lease.session().mark_dirty();
        Arc::new(Self {
            lease,
            options,
            state: Mutex::default(),
            look_again: Event::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::interaction) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// A name for a savepoint or a cursor that was not used in this session yet: cached plans go by names.
    pub(super) fn new_name(&self) -> String {
        let mut state = self.state();
        state.names += 1;
        format!("gdbpool_{}_{}", self.lease.session().leases(), state.names)
    }

    /// Opens a savepoint in the innermost one, if that is the one at `depth`.
    pub(super) fn deepen(&self, depth: u32) -> bool {
        let mut state = self.state();
        let innermost = state.depth == depth;
        state.depth += u32::from(innermost);
        innermost
    }

    /// The savepoint opened at `depth` is over, with all that were opened in it.
    pub(super) fn surface(&self, depth: u32) {
        let mut state = self.state();
        state.depth = state.depth.min(depth);
    }

    /// Runs one call of a handle: begins the transaction if it is the first, and looks at where it stands after.
    pub(in crate::interaction) async fn call<T>(
        &self,
        sql: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let control = sql::transaction_word(sql).map(str::to_ascii_uppercase);
        // Until it has a snapshot, the server lets a transaction leave its mode; version 15 also after.
        let leaves = || self.options.read_only.then(|| sql::leaves_read_only(sql)).flatten();
        if let Some(words) = control.or_else(leaves) {
            let input = BadInput::TransactionControl { words };
            return Err(on(&self.lease, Error::bad_input(input)));
        }
        self.call_unchecked(work).await
    }

    /// Like [`call`](Self::call), for our own SQL.
    pub(in crate::interaction) async fn call_unchecked<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.enter()?;
        if self.options.may_be_refused(self.lease.is_standby()) {
            self.wait_for_begin().await?;
        }
        self.standing().map_err(|error| on(&self.lease, error))?;
        let mut work = pin!(work);
        let done = std::future::poll_fn(|cx| {
            if let Some(beginning) = &mut self.state().beginning {
                beginning.read(cx);
            }
            work.as_mut().poll(cx)
        });
        let done = done.await;
        self.after(done)
    }

    /// Queues BEGIN ahead of the first call. Nothing enters a transaction that is over.
    fn enter(&self) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(over) = state.over {
            return Err(on(&self.lease, over.error()));
        }
        if state.watch.is_some() {
            return Ok(());
        }
        let session = self.lease.session();
        let begun = session.begin(self.lease.ticket(), &self.options.begin());
        let (beginning, before) = begun.map_err(|failure| self.failed(failure, Phase::Preparing))?;
        state.watch = Some(Watch::new(before));
        state.beginning = Some(beginning);
        state.entered = session.entered();
        Ok(())
    }

    /// For a BEGIN that the server may well refuse: nothing is sent behind it before it is answered.
    ///
    /// The answer wakes only the call that looked last: whoever leaves, answered or dropped, lets the others look again.
    async fn wait_for_begin(&self) -> Result<(), Error> {
        let _leaving = LookAgain(&self.look_again);
        loop {
            let look_again = self.look_again.listen();
            if let Either::Left(_) = select(pin!(self.begin_is_answered()), look_again).await {
                break;
            }
        }
        match self.begin_answered() {
            Some(Err(error)) => Err(self.refused(error, Outcome::NotExecuted)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// BEGIN was refused, and the statement that travelled with it, if one did, ran by itself.
    fn refused(&self, error: tokio_postgres::Error, outcome: Outcome) -> Error {
        self.state().alone = Some(outcome);
        on(
            &self.lease,
            Error::new(ErrorKind::Database, outcome, Phase::Executing).with_source(error),
        )
    }

    /// A call is over: is it still the transaction it should be?
    fn after<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        match self.begin_answered() {
            Some(Err(error)) if error.code().is_some() && !is_fatal(&error) => {
                // With others beside it, nobody knows what became of those.
                let outcome = match self.company() {
                    0 | 1 => done.as_ref().map_or_else(Error::outcome, |_| Outcome::Committed),
                    _ => Outcome::Unknown,
                };
                return Err(self.refused(error, outcome));
            }
            Some(Err(_)) => self.state().spoilt = true,
            Some(Ok(())) | None => {}
        }
        let done = done.map_err(|error| self.in_transaction(error));
        if let (Err(_), Some(over @ Over::Expired { .. })) = (&done, self.state().over) {
            return done.map_err(|error| on(&self.lease, over.error().with_source(error)));
        }
        if let Some(report) = done.as_ref().err().and_then(Error::database) {
            self.state().failure = Some(report.code().clone());
        }
        // What the call itself says goes first.
        let value = done?;
        if self.state().over.is_some() {
            // Answered before the end that is under way, or behind it: that is judged by itself.
            return Ok(value);
        }
        self.standing().map_err(|error| on(&self.lease, error))?;
        Ok(value)
    }

    /// Looks at the answer to BEGIN where no call has: what ran beside a refused one is not known.
    fn look_at_begin(&self) {
        self.look_at_begin_before(self.company());
    }

    /// The same, of so many statements.
    fn look_at_begin_before(&self, company: u64) {
        match self.begin_answered() {
            Some(Err(error)) if error.code().is_some() && !is_fatal(&error) => {
                let outcome = match company {
                    0 => Outcome::NotExecuted,
                    _ => Outcome::Unknown,
                };
                self.state().alone.get_or_insert(outcome);
            }
            Some(Err(_)) => self.state().spoilt = true,
            Some(Ok(())) | None => {}
        }
    }

    /// The answer to BEGIN, once, if it is there.
    fn begin_answered(&self) -> Option<Result<(), tokio_postgres::Error>> {
        let mut state = self.state();
        let answer = state.beginning.as_mut()?.answer()?;
        state.beginning = None;
        Some(answer)
    }

    /// A statement whose answer is not coming is rolled back with the rest: COMMIT was not sent.
    fn in_transaction(&self, error: Error) -> Error {
        match (error.kind(), error.outcome()) {
            // What timed out may yet be done: a transaction with such a statement in it is not committed.
            (ErrorKind::Lost | ErrorKind::Protocol | ErrorKind::Timeout, _) => {
                self.state().spoilt = true;
                if self.is_foreign() || self.may_run_alone() {
                    error.with_outcome(Outcome::Unknown)
                } else {
                    error.with_outcome(Outcome::RolledBack)
                }
            }
            (ErrorKind::Database, Outcome::Unknown) if !self.is_foreign() => error.with_outcome(Outcome::RolledBack),
            _ => error,
        }
    }

    fn is_foreign(&self) -> bool {
        matches!(self.watched(), Some(Standing::Foreign))
    }

    /// Where it stands; `None` before BEGIN was queued.
    fn watched(&self) -> Option<Standing> {
        let state = self.state();
        if state.left.is_some() {
            return state.left;
        }
        let (watch, session) = (state.watch?, self.lease.session());
        let now = session.transaction_facts();
        // A session that is gone takes the transaction with it, wherever it stood.
        if !watch.counts_foreign(now) && (state.spoilt || session.ended().is_some()) {
            return Some(Standing::Failed);
        }
        let begun = match state.beginning {
            Some(_) => Begun::Waiting,
            None => Begun::Accepted,
        };
        Some(watch.standing(begun, now))
    }

    /// An error when the transaction is not ours alone, or never began.
    fn standing(&self) -> Result<(), Error> {
        if let Some(outcome) = self.state().alone {
            return Err(Error::new(ErrorKind::TransactionFailed, outcome, Phase::Executing));
        }
        match self.watched() {
            Some(Standing::Foreign) => Err(Error::new(
                ErrorKind::TransactionControl,
                Outcome::Unknown,
                Phase::Executing,
            )),
            _ => Ok(()),
        }
    }

    /// A ROLLBACK TO of ours is about to be sent, or failed after all.
    pub(super) fn own_rollback(&self, is_coming: bool) {
        if let Some(watch) = &mut self.state().watch {
            if is_coming {
                watch.expect_rollback();
            } else {
                watch.no_rollback();
            }
        }
    }

    /// What became of work that is not committed.
    pub(in crate::interaction) fn outcome(&self) -> Outcome {
        self.look_at_begin();
        if let Some(outcome) = self.state().alone {
            return outcome;
        }
        match self.watched() {
            None => Outcome::NotExecuted,
            Some(Standing::Foreign) => Outcome::Unknown,
            Some(_) if self.may_run_alone() => Outcome::Unknown,
            Some(_) => Outcome::RolledBack,
        }
    }

    /// What became of work that was stopped: where that hangs on BEGIN's answer alone, the answer is waited for a little.
    pub(in crate::interaction) async fn outcome_when_stopped(&self) -> Outcome {
        if self.may_run_alone() {
            let grace = self.lease.runtime().now() + self.lease.cancel_grace();
            self.lease.limit(grace, self.begin_is_answered()).await;
        }
        self.outcome()
    }

    async fn begin_is_answered(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state();
            let Some(beginning) = &mut state.beginning else {
                return Poll::Ready(());
            };
            beginning.read(cx);
            if beginning.is_read() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// How many statements were sent behind BEGIN.
    fn company(&self) -> u64 {
        self.lease.session().entered() - self.state().entered
    }

    /// BEGIN may be refused yet, and what travelled with it would run by itself. (A session that is lost takes its answer
    /// along: BEGIN is taken to have been accepted then, which a server refuses only when an operator cancels it.)
    fn may_run_alone(&self) -> bool {
        let waits = self.state().beginning.is_some();
        waits && self.lease.session().ended().is_none() && self.company() > 0
    }

    /// The SQLSTATE of the statement that failed in it last, whether or not the function told.
    pub(in crate::interaction) fn failed_with(&self) -> Option<SqlState> {
        self.state().failure.clone()
    }

    /// No call enters from here on. True the first time.
    pub(in crate::interaction) fn close(&self, why: Over) -> bool {
        let mut state = self.state();
        let first = state.over.is_none();
        state.over.get_or_insert(why);
        first
    }

    /// Ends the transaction without COMMIT, and gives the session back: its settling rolls back what is open.
    /// True the first time.
    pub(in crate::interaction) fn abandon(&self, why: Over) -> bool {
        let first = self.close(why);
        self.look_at_begin();
        let left = self.watched();
        self.state().left = left;
        // A BEGIN that nobody will look at any more is drained with the rest.
        self.state().beginning = None;
        self.look_again.notify(usize::MAX);
        self.lease.end();
        first
    }

    /// Ends the transaction because its time is over, unless it is ending already.
    pub(in crate::interaction) fn expire(&self, why: Over) -> bool {
        self.close(why) && {
            self.abandon(why);
            true
        }
    }

    /// Commits, unless the transaction is over.
    pub(in crate::interaction) async fn commit_open(&self) -> Result<Receipt, Error> {
        self.close_open()?;
        self.commit().await
    }

    /// Rolls back, unless the transaction is over, and waits for the answer.
    pub(in crate::interaction) async fn roll_back(&self) -> Result<(), Error> {
        self.close_open()?;
        let session = self.lease.session();
        let begun = self.state().watch.is_some();
        let done = match begun {
            true => {
                point!(self.lease.runtime(), "transaction.before_rollback");
                let ending = async {
                    let sent = pin!(session.client().batch_execute("ROLLBACK"));
                    let done = session.request_last(self.lease.ticket(), sent).await;
                    done.map_err(|failure| self.failed(failure, Phase::Executing))
                };
                self.lease.patiently(Phase::Executing, ending).await
            }
            false => Ok(()),
        };
        let outcome = self.outcome();
        self.lease.end();
        done.map_err(|error| error.with_outcome(outcome))
    }

    /// Closes the transaction to calls, unless it is over.
    fn close_open(&self) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(over) = state.over {
            drop(state);
            return Err(on(&self.lease, over.error()));
        }
        state.over = Some(Over::Ended);
        Ok(())
    }

    /// Commits. The session goes back whatever comes of it.
    pub(in crate::interaction) async fn commit(&self) -> Result<Receipt, Error> {
        self.close(Over::Ended);
        let done = self.lease.patiently(Phase::Committing, self.try_commit()).await;
        self.lease.end();
        done.map_err(|error| on(&self.lease, error))
    }

    async fn try_commit(&self) -> Result<Receipt, Error> {
        if self.state().watch.is_none() {
            return Ok(Receipt::empty());
        }
        self.look_at_begin();
        self.standing()?;
        if let Some(Standing::Failed) = self.watched() {
            return Err(self.cannot_commit());
        }
        let session = self.lease.session();
        let before = session.transaction_facts();
        let company = self.company();
        point!(self.lease.runtime(), "transaction.before_commit");
        let sent = pin!(session.client().simple_query(COMMIT));
        let answer = session.request_last(self.lease.ticket(), sent).await;
        point!(self.lease.runtime(), "transaction.commit_answered");
        let now = session.transaction_facts();
        self.look_at_begin_before(company);
        if let Some(alone) = self.state().alone {
            // There was no transaction to commit.
            return Err(Error::new(ErrorKind::TransactionFailed, alone, Phase::Committing));
        }
        let reply = match &answer {
            Ok(_) => Reply::Whole,
            Err(Failure::Database(error)) if !is_fatal(error) && !failure::is_unresolved(error) => Reply::Whole,
            Err(Failure::Fenced | Failure::NotSent(_)) => Reply::Lost {
                untouched: true,
                alone: true,
            },
            Err(Failure::Lost { untouched, alone, .. }) => Reply::Lost {
                untouched: *untouched,
                alone: *alone,
            },
            Err(Failure::Database(_) | Failure::NotBegun(_) | Failure::Protocol(_)) => Reply::Lost {
                untouched: false,
                alone: false,
            },
        };
        // Once the session has gone back, others may be counted.
        let outcome = match (self.lease.is_ended(), reply, &answer) {
            (false, reply, _) => of_commit(before, now, reply),
            (true, _, Err(Failure::Fenced | Failure::NotSent(_))) => Outcome::RolledBack,
            (true, Reply::Whole, Err(_)) => Outcome::RolledBack,
            (true, ..) => Outcome::Unknown,
        };
        match (outcome, answer) {
            (Outcome::Committed, answer) => Ok(Receipt::new(answer.ok().as_deref().and_then(transaction_id))),
            (outcome, Ok(_)) => Err(Error::new(ErrorKind::TransactionFailed, outcome, Phase::Committing)),
            (outcome, Err(Failure::Database(error))) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {
                let failed = Error::new(ErrorKind::TransactionFailed, outcome, Phase::Committing);
                Err(failed.with_source(error))
            }
            (outcome, Err(failure)) => Err(self.failed(failure, Phase::Committing).with_outcome(outcome)),
        }
    }

    /// A statement had failed in it; or its session was lost after its last answer, and no statement met that.
    fn cannot_commit(&self) -> Error {
        let session = self.lease.session();
        let rolled_back = |kind| Error::new(kind, Outcome::RolledBack, Phase::Committing);
        match session.ended() {
            Some(_) if session.transaction_facts().is_failed => rolled_back(ErrorKind::TransactionFailed),
            Some(Ended::Failed(reason)) => rolled_back(ErrorKind::Lost).with_source(Arc::clone(reason)),
            Some(Ended::Closed | Ended::Dropped) => rolled_back(ErrorKind::Lost),
            None => rolled_back(ErrorKind::TransactionFailed),
        }
    }

    fn failed(&self, failure: Failure, phase: Phase) -> Error {
        let at = Circumstance {
            phase,
            access: Access::Write,
            in_transaction: true,
            commits: Commits::Never,
            statement: None,
        };
        on(&self.lease, failure::error(failure, at))
    }
}

impl Over {
    fn error(self) -> Error {
        match self {
            Self::Ended => Error::new(ErrorKind::LeaseEnded, Outcome::NotExecuted, Phase::Checking),
            Self::Expired { at, lease_time } => {
                let kind = ErrorKind::PinExpired { at, lease_time };
                Error::new(kind, Outcome::RolledBack, Phase::Checking)
            }
        }
    }
}

fn is_fatal(error: &tokio_postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(|report| report.parsed_severity());
    matches!(severity, Some(Severity::Fatal | Severity::Panic))
}

/// From the answer to the first part of [`COMMIT`]; none is assigned to a transaction that wrote nothing.
fn transaction_id(answer: &[SimpleQueryMessage]) -> Option<u64> {
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    })
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("lease", &self.lease)
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}
