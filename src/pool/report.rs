//! Why a checkout timed out: the ledger's state at that moment, read as a cause.
//!
//! Values only, made off the fast path. It takes the lock briefly and decides nothing about sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_postgres::error::SqlState;

use super::checkout::Spent;
use super::ledger::{Hold, Status};
use super::shared::Shared;
use crate::error::{CheckoutReport, Error, ErrorKind, Holder, Outcome, Phase, TimeoutCause};

/// The error of a checkout whose deadline passed in `phase`.
pub(super) fn timed_out(pool: &Shared, phase: Phase, spent: Spent) -> Error {
    pool.timeouts.fetch_add(1, Ordering::Relaxed);
    pool.metrics.timed_out();
    let books = pool.lock();
    let status = books.ledger.status(pool.runtime.now());
    let last_connect_error = books.last_connect_error.clone();
    drop(books);
    let cause = cause(&status, phase, spent, last_connect_error.as_deref());
    let report = CheckoutReport {
        cause,
        phase,
        queued: spent.queued,
        validating: spent.validating,
        ahead: spent.ahead as usize,
        idle: status.idle,
        leased: status.leased,
        settling: status.settling,
        connecting: status.connecting,
        closing: status.closing,
        max: status.max,
        holders: status.longest_holds.iter().map(holder).collect(),
        last_connect_error: last_connect_error.clone(),
    };
    let error = Error::new(
        ErrorKind::CheckoutTimeout(Box::new(report)),
        Outcome::NotExecuted,
        phase,
    );
    error.with_pool(&pool.config.name)
}

pub(super) fn holder(hold: &Hold) -> Holder {
    Holder {
        at: hold.at,
        held: hold.held,
    }
}

/// The most telling reason: a node that cannot be reached explains more than a full pool.
fn cause(status: &Status, phase: Phase, spent: Spent, last: Option<&Error>) -> TimeoutCause {
    if phase == Phase::Validating {
        return TimeoutCause::ValidationHangs;
    }
    if let Some(error) = last {
        return connect_cause(error);
    }
    let out = status.leased + status.shared;
    // Whoever holds a session longest took it after this caller had come: they all changed hands meanwhile.
    let turned_over = status
        .longest_holds
        .first()
        .is_some_and(|hold| hold.held < spent.queued);
    if status.connecting > 0 && status.connecting >= out {
        TimeoutCause::ConnectHangs
    } else if out > 0 && out >= status.settling + status.closing {
        if turned_over {
            TimeoutCause::WaitingTurn
        } else {
            TimeoutCause::AllLeased
        }
    } else if status.settling > 0 {
        TimeoutCause::Settling
    } else if status.closing > 0 {
        TimeoutCause::Closing
    } else {
        TimeoutCause::WaitingTurn
    }
}

fn connect_cause(error: &Error) -> TimeoutCause {
    match error.sqlstate() {
        Some(state) if *state == SqlState::TOO_MANY_CONNECTIONS => TimeoutCause::TooManyConnections,
        Some(state) if *state == SqlState::CANNOT_CONNECT_NOW => TimeoutCause::ServerNotReady,
        Some(state) if state.code().starts_with("28") || state.code().starts_with("3D") => {
            TimeoutCause::AuthenticationFailed
        }
        _ if matches!(error.kind(), ErrorKind::Timeout) => TimeoutCause::ConnectHangs,
        _ => TimeoutCause::ConnectFails,
    }
}

/// What a dial's failure means to whoever waits for its session.
pub(super) fn connect_error(pool: &Shared, failure: ConnectFault) -> Arc<Error> {
    let error = match failure {
        ConnectFault::Overdue(stage) => Error::new(ErrorKind::Timeout, Outcome::NotExecuted, Phase::Connecting)
            .with_spent(vec![(Phase::Connecting, pool.config.connect_timeout)])
            .with_source(stage),
        ConnectFault::Failed(source) => {
            Error::new(ErrorKind::Connect, Outcome::NotExecuted, Phase::Connecting).with_source(source)
        }
    };
    Arc::new(error.with_pool(&pool.config.name))
}

/// How a dial failed.
#[derive(Debug)]
pub(super) enum ConnectFault {
    Failed(crate::session::DialError),
    /// The time was over.
    Overdue(crate::session::DialError),
}
