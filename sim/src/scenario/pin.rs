//! Plays a partial interaction: the pinned transaction, what runs inside it, and its end.
//!
//! Beside the other calls of a client. It writes down which backend the transaction was pinned to, for the oracle of
//! pinning.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gdbpool::{Error, Partial, PinnedTransaction, Runtime};

use super::client::{Failure, Fate, Say};
use super::play::{Call, Done, Kept};
use super::statements as marks;
use super::{Op, PinEnd};
use crate::fault::Micros;

/// How much longer than its lease time a client waits that wants to see the transaction expired.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the step says.
struct Plan {
    rows: Vec<u8>,
    hold: Duration,
    lease: Option<Micros>,
    cursor: bool,
    end: PinEnd,
}

pub(super) async fn play(call: &Call) {
    let Op::Pin {
        rows,
        hold,
        lease,
        cursor,
        end,
    } = call.step.op.clone()
    else {
        return;
    };
    let plan = Plan {
        rows,
        hold: hold.span(),
        lease,
        cursor,
        end,
    };
    let committing = AtomicBool::new(false);
    let kept = Kept::default();
    // What is dropped before its commit is rolled back; the end is looked at after the drop.
    let work = whole(call, &plan, &committing, &kept);
    call.end_with(work, || {
        let fate = match committing.load(Ordering::Relaxed) {
            true => Fate::Unknown,
            false => Fate::RolledBack,
        };
        (fate, kept.take())
    })
    .await;
}

async fn whole(call: &Call, plan: &Plan, committing: &AtomicBool, kept: &Kept) -> Done {
    let mut transaction = match open(call, plan, kept).await {
        Ok(transaction) => transaction,
        Err(error) => {
            // Where BEGIN failed, the first statement stood alone, and the error says what became of it.
            if Fate::of(&error) == Fate::Committed {
                kept.add(&[call.mark(0)]);
            }
            return failed(&error, kept);
        }
    };
    call.say(Say::Pinned {
        pid: transaction.backend_pid(),
    });
    if let Err(error) = inside(call, plan, &mut transaction, kept).await {
        // The application gives up; what the library said of its work holds for the whole transaction.
        call.say(Say::Unpinning);
        drop(transaction);
        return failed(&error, kept);
    }
    end(call, plan, transaction, committing, kept).await
}

async fn open(call: &Call, plan: &Plan, kept: &Kept) -> Result<PinnedTransaction, Error> {
    let op = call.mark(0);
    let row = plan.rows.first().copied().unwrap_or(0);
    let mut run = call.stage.db.run(marks::update(op)).bind(marks::row(row)).execute();
    if let Some(span) = call.timeout() {
        run = run.timeout(span);
    }
    let mut run = run.cancel_on(&call.cancel).partial();
    if let Some(span) = plan.lease {
        run = run.lease_time(span.span());
    }
    let opened = run.await;
    match opened {
        Ok(Partial { result, transaction }) => {
            call.note(op, &Ok(result), kept);
            Ok(transaction)
        }
        Err(error) => Err(error),
    }
}

async fn inside(call: &Call, plan: &Plan, transaction: &mut PinnedTransaction, kept: &Kept) -> Result<(), Error> {
    // One row that only this call writes.
    let op = call.mark(50);
    within(call, op, marks::insert(op), None, transaction, kept).await?;
    for (number, row) in (0u64..).zip(&plan.rows).skip(1) {
        call.stage.rest(plan.hold).await;
        let op = call.mark(number);
        within(call, op, marks::update(op), Some(marks::row(*row)), transaction, kept).await?;
    }
    if plan.cursor {
        let text = format!("/* op={} */ SELECT id FROM items ORDER BY id", call.mark(60));
        let mut cursor = transaction.cursor(&text, &[], 3).await?;
        while cursor.next().await?.is_some() {}
        cursor.close().await?;
    }
    Ok(())
}

async fn within(
    call: &Call,
    op: u64,
    text: String,
    row: Option<i32>,
    transaction: &mut PinnedTransaction,
    kept: &Kept,
) -> Result<(), Error> {
    let mut run = call.stage.db.run(text).execute().cancel_on(&call.cancel);
    if let Some(row) = row {
        run = run.bind(row);
    }
    let done = run.within(transaction).await;
    call.note(op, &done, kept);
    done.map(drop)
}

async fn end(
    call: &Call,
    plan: &Plan,
    mut transaction: PinnedTransaction,
    committing: &AtomicBool,
    kept: &Kept,
) -> Done {
    match plan.end {
        PinEnd::Commit => {}
        PinEnd::SpoiltCommit => {
            let spoilt = call.stage.db.run(marks::FAILS).execute().within(&mut transaction).await;
            if let Err(error) = spoilt
                && error.database().is_none()
            {
                call.say(Say::Unpinning);
                return failed(&error, kept);
            }
        }
        PinEnd::Rollback => {
            call.say(Say::Unpinning);
            return match transaction.rollback().await {
                Ok(()) => rolled_back(kept),
                Err(error) => failed(&error, kept),
            };
        }
        PinEnd::Drop => {
            call.say(Say::Unpinning);
            drop(transaction);
            return rolled_back(kept);
        }
        PinEnd::Expire => {
            let over = transaction.expires_at() + PATIENCE;
            call.stage.runtime.sleep_until(over).await;
            call.say(Say::Unpinning);
            let op = call.mark(70);
            let late = within(call, op, marks::insert(op), None, &mut transaction, kept).await;
            return match late {
                // Whether it could be is the oracle's question.
                Ok(()) => rolled_back(kept),
                Err(error) => failed(&error, kept),
            };
        }
    }
    call.say(Say::Unpinning);
    committing.store(true, Ordering::Relaxed);
    match transaction.commit().await {
        Ok(_) => Done {
            fate: Fate::Committed,
            failure: None,
            kept: kept.take(),
        },
        Err(error) => failed(&error, kept),
    }
}

fn failed(error: &Error, kept: &Kept) -> Done {
    Done {
        fate: Fate::of(error),
        failure: Some(Failure::of(error)),
        kept: kept.take(),
    }
}

fn rolled_back(kept: &Kept) -> Done {
    Done {
        fate: Fate::RolledBack,
        failure: None,
        kept: kept.take(),
    }
}
