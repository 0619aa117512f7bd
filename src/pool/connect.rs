//! Connecting: one task per slot, which dials under one deadline and then drives the session to its end.
//!
//! Spawned by upkeep only, never by the caller that needs the session, so that it outlives that caller. What it learns
//! goes to the ledger; when and how often to dial is decided there.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use super::close_reason::CloseReason;
use super::ledger::{ConnectFailure, SlotId};
use super::report::{ConnectFault, connect_error};
use super::shared::Shared;
use crate::session::{Ended, Ending, dial};

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
    let deadline = pool.runtime.now() + pool.config.connect_timeout;
    let dialled = pool.deadlines.limit(deadline, dial(&pool.runtime, &pool.plan)).await;
    let fault = match dialled {
        Ok(Ok((session, driver))) => {
            keeper.stage = Stage::Driving(driver.ending());
            pool.connected(slot, session, driver.ending());
            driver.run().await;
            return;
        }
        Ok(Err(error)) => ConnectFault::Failed(error),
        Err(_) => ConnectFault::Overdue,
    };
    keeper.stage = Stage::Failed;
    let error = connect_error(&pool, fault);
    tracing::debug!(pool = &*pool.config.name, %error, "a connect failed");
    let failure = classify(error.sqlstate());
    pool.connect_failed(slot, failure, Some(error));
}

fn classify(state: Option<&SqlState>) -> ConnectFailure {
    match state {
        Some(state) if *state == SqlState::TOO_MANY_CONNECTIONS || *state == SqlState::CANNOT_CONNECT_NOW => {
            ConnectFailure::Overloaded
        }
        Some(state) if state.code().starts_with("28") || state.code().starts_with("3D") => ConnectFailure::Permanent,
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
