//! Settling: how a used session becomes pristine again, or is given up.
//!
//! `Settling` is the plan, a plain machine; `settle` carries it out inside the session's driver, after the lease is gone.
//! The pool puts a deadline over it and closes the session when it passes. It is the only place that sends cancel
//! requests.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, join, join_all, select};
use tokio_postgres::SimpleQueryMessage;

use super::Session;
use super::abandoned::{Abandoned, Dropped};
use super::cancel_request::CancelRequest;
use super::clean_up::{CLEAN_UP, CleanUpReport};
use super::observer::{Facts, Status};
use crate::runtime::point;

/// What a returned session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Need {
    /// A request was dropped before its answer was read: it may still run.
    pub(crate) cancel: bool,
    /// Not all answers have been seen.
    pub(crate) drain: bool,
    /// Something ran that may leave traces.
    pub(crate) clean_up: bool,
}

/// Why a session could not be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettleError {
    /// A cancel request was written, and nobody knows when it arrives.
    CancelInDoubt,
    /// A clean-up statement failed, or did not bring the session to its template.
    CleanUpFailed,
    /// The session ended meanwhile.
    Ended,
    /// Statements of the cache are gone from the server.
    PlansLost,
    /// The protocol went where it cannot be followed.
    Unsettled,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Wait for statements that are still being prepared.
    AwaitPrepares,
    /// Wait for the answer to a Sync; cancel what runs if it takes too long.
    Drain {
        cancel: bool,
    },
    /// End the transaction that was left open.
    RollBack,
    CleanUp,
    Done,
    GiveUp(SettleError),
}

/// The plan: which step follows from what was seen.
#[derive(Debug)]
struct Settling {
    need: Need,
    /// Nothing is cleaned up: the session is another client's next, behind a pooler, and nothing of ours stays in it.
    pooled: bool,
    rolled_back: bool,
    /// How often answers that nobody was known to wait for may still be drained.
    strays: u8,
}

impl Settling {
    fn new(need: Need, pooled: bool) -> Self {
        Self {
            need,
            pooled,
            rolled_back: false,
            strays: 3,
        }
    }

    fn next(&mut self, seen: &Facts, preparing: bool) -> Step {
        if seen.confused {
            return Step::GiveUp(SettleError::Unsettled);
        }
        if seen.plans_lost {
            return Step::GiveUp(SettleError::PlansLost);
        }
        if std::mem::take(&mut self.need.drain) {
            return Step::Drain {
                cancel: std::mem::take(&mut self.need.cancel),
            };
        }
        if preparing {
            // What it sends after the drain is drained once more.
            self.need.drain = true;
            return Step::AwaitPrepares;
        }
        if seen.outstanding != 0 || seen.in_copy {
            // The Close of a statement that was dropped with the lease is such a stray. Everything queued before a drain is
            // answered with it; what is left over again and again was never ours to count.
            return match self.strays.checked_sub(1) {
                Some(left) => {
                    self.strays = left;
                    Step::Drain { cancel: false }
                }
                None => Step::GiveUp(SettleError::Unsettled),
            };
        }
        match seen.status {
            Status::Idle if std::mem::take(&mut self.need.clean_up) => Step::CleanUp,
            Status::Idle => Step::Done,
            Status::InTransaction | Status::Failed if !self.rolled_back => {
                self.rolled_back = true;
                // A transaction that was left open can have done anything.
                self.need.clean_up = !self.pooled;
                Step::RollBack
            }
            Status::InTransaction | Status::Failed | Status::Unknown => Step::GiveUp(SettleError::Unsettled),
        }
    }
}

/// The least pause before a cancel request is sent again. The pauses double, and the pool's deadline ends them.
pub(super) const CANCEL_AGAIN: Duration = Duration::from_millis(10);

/// Settles a session. Runs in its driver; dropping the future leaves the session unsettled.
///
/// `found` is told what became of what was `dropped`, as soon as that is known.
pub(crate) async fn settle(
    session: &Arc<Session>,
    need: Need,
    dropped: Option<Dropped>,
    mut found: impl FnMut(Abandoned) + Send,
) -> Result<(), SettleError> {
    point!(session.runtime, "settle.begun");
    let mut plan = Settling::new(need, session.is_pooled());
    loop {
        let facts = session.observed.facts();
        match plan.next(&facts, session.is_preparing()) {
            Step::AwaitPrepares => session.all_prepared().await,
            Step::Drain { cancel: false } => drain(session).await?,
            Step::Drain { cancel: true } => {
                drain_or_cancel(session).await?;
                if let Some(dropped) = dropped {
                    found(dropped.fate(&session.observed.facts()));
                }
            }
            Step::RollBack => {
                point!(session.runtime, "settle.rolling_back");
                let rolled_back = session.client.batch_execute("ROLLBACK").await;
                rolled_back.map_err(|_| failed(session))?;
            }
            Step::CleanUp => {
                point!(session.runtime, "settle.cleaning_up");
                clean_up(session).await?;
            }
            Step::Done => {
                point!(session.runtime, "settle.done");
                session.reset_marks();
                return Ok(());
            }
            Step::GiveUp(reason) => return Err(reason),
        }
    }
}

impl Session {
    fn is_preparing(&self) -> bool {
        self.preparing.load(Ordering::Acquire) != 0
    }

    async fn all_prepared(&self) {
        while self.is_preparing() {
            let prepared = self.prepared.listen();
            if self.is_preparing() {
                prepared.await;
            }
        }
    }
}

/// One Sync round trip: everything queued before it has been answered when it has.
pub(super) async fn drain(session: &Session) -> Result<(), SettleError> {
    // Of the raw client's own calls.
    session.forget_half_requests();
    session.client.check_connection().await.map_err(|_| ended(session))
}

/// Drains, and cancels what runs when it takes longer than the grace: again and again, ever more rarely, because a request
/// that reaches the server before it has begun the statement is ignored there.
///
/// A cancel request that was sent is waited for until the server has closed its connection, and then the session is
/// drained once more: a signal that came late hits that drain, not the next borrower.
async fn drain_or_cancel(session: &Session) -> Result<(), SettleError> {
    let mut draining = pin!(drain(session));
    let mut grace = session.settings.cancel_after;
    let mut signalled = false;
    loop {
        let pause = session.runtime.sleep_until(session.runtime.now() + grace);
        if let Either::Left((drained, _)) = select(draining.as_mut(), pause).await {
            drained?;
            return if signalled { drain(session).await } else { Ok(()) };
        }
        // What leads up to the request is answered in a moment: the request itself is what shall be stopped.
        let request = match session.observed.facts().opening {
            true => CancelRequest::NotSent,
            false => session.request_cancel().await,
        };
        match request {
            CancelRequest::NotSent => {}
            CancelRequest::Delivered => signalled = true,
            CancelRequest::InDoubt(error) => {
                tracing::debug!(pid = session.pid, %error, "cancel request in doubt");
                return Err(SettleError::CancelInDoubt);
            }
        }
        grace = grace.saturating_mul(2).max(CANCEL_AGAIN);
    }
}

/// The clean-up, with the template behind it: in the same flight of bytes, if nothing in it needs an answer before.
async fn clean_up(session: &Arc<Session>) -> Result<(), SettleError> {
    let texts = session.settings.template.texts();
    // Polled, and so queued, in order.
    let (answer, applied) = join(
        session.client.simple_query(CLEAN_UP),
        join_all(texts.iter().flatten().map(|text| session.client.batch_execute(text))),
    )
    .await;
    let answer = answer.map_err(|_| failed(session))?;
    if applied.iter().any(Result::is_err) {
        return Err(failed(session));
    }
    session.mode_was_reset();
    let report = read_report(&answer).ok_or(SettleError::CleanUpFailed)?;
    if report.kept < session.observed.facts().statements() {
        return Err(SettleError::PlansLost);
    }
    if let Some(deallocate) = report.deallocate() {
        session
            .client
            .batch_execute(&deallocate)
            .await
            .map_err(|_| failed(session))?;
    }
    if texts.is_none() {
        session.set_up().await.map_err(|error| {
            tracing::debug!(pid = session.pid, %error, "the session template failed after a clean-up");
            failed(session)
        })?;
    }
    Ok(())
}

/// The last row of the clean-up's answer.
fn read_report(answer: &[SimpleQueryMessage]) -> Option<CleanUpReport> {
    let row = answer.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    let kept = row.try_get("kept").ok()??.parse().ok()?;
    Some(CleanUpReport {
        kept,
        left_behind: row.try_get("left_behind").ok()?.map(str::to_owned),
    })
}

fn failed(session: &Session) -> SettleError {
    if session.ended().is_some() {
        SettleError::Ended
    } else {
        SettleError::CleanUpFailed
    }
}

fn ended(session: &Session) -> SettleError {
    if session.ended().is_some() {
        SettleError::Ended
    } else {
        SettleError::Unsettled
    }
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CancelInDoubt => "a cancel request may arrive at any time",
            Self::CleanUpFailed => "the clean-up failed",
            Self::Ended => "the session ended",
            Self::PlansLost => "the server lost the session's prepared statements",
            Self::Unsettled => "the session did not come to rest",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Need, SettleError, Settling, Status, Step};

    fn facts(status: Status) -> Facts {
        Facts {
            status,
            ..Facts::default()
        }
    }

    #[test]
    fn a_dropped_statement_is_cancelled_drained_and_cleaned_up() {
        let mut plan = Settling::new(
            Need {
                cancel: true,
                drain: true,
                clean_up: true,
            },
            false,
        );
        let running = Facts {
            outstanding: 1,
            ..facts(Status::Idle)
        };
        assert_eq!(plan.next(&running, false), Step::Drain { cancel: true });
        assert_eq!(plan.next(&facts(Status::Idle), false), Step::CleanUp);
        assert_eq!(plan.next(&facts(Status::Idle), false), Step::Done);
    }

    #[test]
    fn an_open_transaction_is_rolled_back_and_always_cleaned_up() {
        for status in [Status::InTransaction, Status::Failed] {
            let mut plan = Settling::new(
                Need {
                    cancel: false,
                    drain: true,
                    clean_up: false,
                },
                false,
            );
            assert_eq!(plan.next(&facts(status), false), Step::Drain { cancel: false });
            assert_eq!(plan.next(&facts(status), false), Step::RollBack);
            assert_eq!(plan.next(&facts(Status::Idle), false), Step::CleanUp);
            assert_eq!(plan.next(&facts(Status::Idle), false), Step::Done);
        }
    }

    #[test]
    fn behind_a_pooler_an_open_transaction_is_rolled_back_and_nothing_else() {
        let drain = Need {
            drain: true,
            ..Need::default()
        };
        let mut plan = Settling::new(drain, true);
        assert_eq!(
            plan.next(&facts(Status::InTransaction), false),
            Step::Drain { cancel: false }
        );
        assert_eq!(plan.next(&facts(Status::InTransaction), false), Step::RollBack);
        assert_eq!(plan.next(&facts(Status::Idle), false), Step::Done);
    }

    #[test]
    fn a_statement_being_prepared_is_waited_for_and_drained() {
        let mut plan = Settling::new(
            Need {
                cancel: true,
                drain: true,
                clean_up: false,
            },
            false,
        );
        assert_eq!(plan.next(&facts(Status::Idle), true), Step::Drain { cancel: true });
        assert_eq!(plan.next(&facts(Status::Idle), true), Step::AwaitPrepares);
        assert_eq!(plan.next(&facts(Status::Idle), false), Step::Drain { cancel: false });
        assert_eq!(plan.next(&facts(Status::Idle), false), Step::Done);
    }

    #[test]
    fn what_does_not_come_to_rest_is_given_up() {
        let mut plan = Settling::new(
            Need {
                drain: true,
                ..Need::default()
            },
            false,
        );
        let left = Facts {
            outstanding: 1,
            ..facts(Status::Idle)
        };
        for _ in 0..4 {
            assert_eq!(plan.next(&left, false), Step::Drain { cancel: false });
        }
        assert_eq!(plan.next(&left, false), Step::GiveUp(SettleError::Unsettled));
        let mut stuck = Settling::new(
            Need {
                clean_up: true,
                ..Need::default()
            },
            false,
        );
        assert_eq!(stuck.next(&facts(Status::Failed), false), Step::RollBack);
        assert_eq!(
            stuck.next(&facts(Status::Failed), false),
            Step::GiveUp(SettleError::Unsettled)
        );
    }
}
