//! Connecting: one task per slot, which dials under one deadline and then drives the session to its end.
//!
//! Spawned by upkeep only, never by the caller that needs the session, so that it outlives that caller. What it learns
//! goes to the ledger; when and how often to dial is decided there.

use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio_postgres::error::SqlState;

use super::close_reason::CloseReason;
use super::ledger::{ConnectFailure, SlotId};
use super::report::{ConnectFault, connect_error};
use super::shared::Shared;
use crate::Instant;
use crate::runtime::point;
use crate::session::{DialError, Ended, Ending, Session, dial};

/// Tells the ledger how the task ended, also when the executor drops it.
struct Keeper {
    pool: Arc<Shared>,
    slot: SlotId,
    stage: Stage,
}

enum Stage {
    Dialling,
    Driving(Arc<Ending>),
    Failed,
}

/// Opens a session for `slot` and drives it.
///
/// The keeper is there before the task is: one that is dropped without ever being polled frees its slot, too.
pub(super) fn open(pool: Arc<Shared>, slot: SlotId) -> impl Future<Output = ()> + Send + 'static {
    let keeper = Keeper {
        pool: Arc::clone(&pool),
        slot,
        stage: Stage::Dialling,
    };
    keep(keeper, pool, slot)
}

async fn keep(mut keeper: Keeper, pool: Arc<Shared>, slot: SlotId) {
    point!(pool.runtime, "connect.started");
    let since = pool.runtime.now();
    let deadline = since + pool.config.connect_timeout;
    let fault = match dial(&pool.runtime, &pool.plan, deadline).await {
        Ok((session, driver)) => {
            let ending = driver.ending();
            let mut driving = pin!(driver.run());
            match set_up(&pool, session, deadline, driving.as_mut()).await {
                Ok(session) => {
                    point!(pool.runtime, "connect.ready");
                    keeper.stage = Stage::Driving(Arc::clone(&ending));
                    pool.connected(slot, session, ending, since);
                    driving.await;
                    return;
                }
                Err(fault) => fault,
            }
        }
        Err(error) if error.is_overdue() => ConnectFault::Overdue(error),
        Err(error) => ConnectFault::Failed(error),
    };
    keeper.stage = Stage::Failed;
    let error = connect_error(&pool, fault);
    tracing::debug!(pool = &*pool.config.name, %error, "a connect failed");
    let failure = classify(error.sqlstate());
    pool.connect_failed(slot, failure, Some(error));
}

/// Runs the session template, while the session is driven, under what is left of the connect's deadline.
async fn set_up(
    pool: &Shared,
    session: Arc<Session>,
    deadline: Instant,
    mut driving: Pin<&mut impl Future<Output = ()>>,
) -> Result<Arc<Session>, ConnectFault> {
    if pool.plan.settings.template.is_empty() {
        return Ok(session);
    }
    let setting_up = Arc::clone(&session);
    let running = Box::pin(pool.deadlines.limit(deadline, async move { setting_up.set_up().await }));
    let fault = match select(running, driving.as_mut()).await {
        Either::Left((Ok(Ok(())), _)) => return Ok(session),
        Either::Left((Ok(Err(error)), _)) => ConnectFault::Failed(DialError::Template(error)),
        Either::Left((Err(_), _)) => return Err(ConnectFault::Overdue(DialError::SetUp(None))),
        Either::Right(_) => {
            let reason = match session.ended() {
                Some(Ended::Failed(error)) => Some(Arc::clone(error)),
                _ => None,
            };
            return Err(ConnectFault::Failed(DialError::SetUp(reason)));
        }
    };
    // Says goodbye, so that the server's process is gone when its slot is free.
    drop(session);
    let patience = pool.runtime.now() + pool.config.close_timeout;
    let _ = pool.deadlines.limit_pinned(patience, driving).await;
    Err(fault)
}

fn classify(state: Option<&SqlState>) -> ConnectFailure {
    match state {
        Some(state) if *state == SqlState::TOO_MANY_CONNECTIONS || *state == SqlState::CANNOT_CONNECT_NOW => {
            ConnectFailure::Overloaded
        }
        // Class 42 is the template's: it names what is not there, or is no SQL.
        Some(state) if ["28", "3D", "42"].iter().any(|class| state.code().starts_with(class)) => {
            ConnectFailure::Permanent
        }
        _ => ConnectFailure::Transient,
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        match &self.stage {
            Stage::Dialling => self.pool.connect_failed(self.slot, ConnectFailure::Transient, None),
            Stage::Driving(ending) => {
                let reason = match ending.ended() {
                    Some(Ended::Failed(_)) => CloseReason::ClosedByServer,
                    Some(Ended::Closed | Ended::Dropped) | None => CloseReason::Broken,
                };
                self.pool.ended(self.slot, reason);
            }
            Stage::Failed => {}
        }
    }
}
