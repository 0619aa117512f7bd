//! Upkeep: the one task of a pool that serves deadlines, opens sessions, closes old ones, refuses callers under overload, reports overlong holds, and publishes metrics.
//!
//! Beside the path of calls. It asks the ledger what is due and does it; it sleeps until the ledger or a deadline says,
//! and ends when the pool is closed and empty.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::select;

use super::clock::TICK;
use super::close_reason::CloseReason;
use super::connect;
use super::events::PoolEvent;
use super::handoff::Delivery;
use super::ledger::SlotId;
use super::report;
use super::shared::Shared;
use crate::Instant;
use crate::observe::{Levels, PoolMetrics};

/// Runs until the pool is closed and its last session is gone.
pub(super) async fn run(pool: Arc<Shared>) {
    loop {
        // Registered before the round, so that what comes in during it is not missed.
        let woken = pool.deadlines.wake.listen();
        let now = pool.runtime.now();
        let ticking = pool.clock.keep(now);
        let Some(mut next) = round(&pool, now) else { break };
        if ticking {
            next = next.min(now + TICK);
        }
        if !pool.deadlines.rest_until(next) {
            continue;
        }
        if next == Instant::FAR_FUTURE {
            woken.await;
        } else {
            let _ = select(pin!(woken), pool.runtime.sleep_until(next)).await;
        }
    }
    pool.drained.notify(usize::MAX);
}

/// Does all that is due; says when the next thing is, or `None` when nothing ever will be.
fn round(pool: &Arc<Shared>, now: Instant) -> Option<Instant> {
    let deadline = pool.deadlines.serve(now);
    close_overdue(pool, now);
    shed(pool, now);
    report_holds(pool, now);
    for slot in due_connects(pool, now) {
        pool.runtime.spawn(Box::pin(connect::open(Arc::clone(pool), slot)));
    }
    publish(pool, now);
    let mut books = pool.lock();
    if books.ledger.is_drained() {
        return None;
    }
    let goodbye = books.drop_overdue(now);
    let next = books.ledger.next_wake(now);
    drop(books);
    Some(
        [deadline, goodbye, next]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Instant::FAR_FUTURE),
    )
}

fn due_connects(pool: &Shared, now: Instant) -> Vec<SlotId> {
    let mut books = pool.lock();
    std::iter::from_fn(|| books.ledger.next_connect(now)).collect()
}

fn close_overdue(pool: &Shared, now: Instant) {
    let overdue = now + pool.config.close_timeout;
    loop {
        let mut books = pool.lock();
        let Some(slot) = books.ledger.reap(now) else { return };
        let farewell = books.begin_close(overdue, slot);
        let late = books.ledger.close_reason(slot) == Some(CloseReason::SettleOverdue);
        let pid = books.pid(slot);
        drop(books);
        if late {
            pool.events.send(|| PoolEvent::SettleOverdue {
                pool: Arc::clone(&pool.config.name),
                pid,
            });
        }
        // Outside the lock: the last clone of a session says goodbye to the server.
        drop(farewell);
    }
}

/// Refuses those who have waited too long in an overloaded pool.
fn shed(pool: &Shared, now: Instant) {
    loop {
        let mut books = pool.lock();
        let Some(shed) = books.ledger.shed(now) else { return };
        let hand_off = books.forget_waiter(shed.waiter);
        drop(books);
        if let Some(hand_off) = hand_off {
            hand_off.deliver(Delivery::Shed(shed.waited));
        }
        tracing::debug!(pool = &*pool.config.name, at = %shed.at, waited = ?shed.waited, "a caller is refused for overload");
        pool.events.send(|| PoolEvent::Shed {
            pool: Arc::clone(&pool.config.name),
            at: shed.at,
            waited: shed.waited,
        });
    }
}

fn publish(pool: &Shared, now: Instant) {
    if !PoolMetrics::ON {
        return;
    }
    let status = pool.lock().ledger.status(now);
    pool.metrics.levels(Levels {
        idle: status.idle,
        used: status.leased + status.shared + status.settling,
        waiting: status.waiting,
        min: status.min,
        max: status.max,
    });
}

fn report_holds(pool: &Shared, now: Instant) {
    let mut books = pool.lock();
    let overlong = books.ledger.overdue_holds(now);
    books.overlong_holds += overlong.len() as u64;
    drop(books);
    for hold in overlong {
        tracing::warn!(pool = &*pool.config.name, at = %hold.at, held = ?hold.held, "a lease is held for long");
        pool.events.send(|| PoolEvent::OverlongHold {
            pool: Arc::clone(&pool.config.name),
            holder: report::holder(&hold),
        });
    }
}
