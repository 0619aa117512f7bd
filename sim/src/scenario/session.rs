//! Plays a lease: a session is checked out, used by hand, and given back with something left behind in it.
//!
//! Beside the other calls of a client: what it leaves behind must not be found by the next one.

use std::time::Duration;

use gdbpool::{Error, Lease};

use super::Leaves;
use super::client::{Failure, Fate, Say};
use super::play::{Call, Done, Kept};
use super::statements as marks;

/// How long a checkout may take, unless the step says otherwise.
pub(super) const CHECKOUT: Duration = Duration::from_secs(5);

pub(super) async fn play(call: &Call, leaves: Leaves, hold: Duration) {
    let kept = Kept::default();
    let in_transaction = matches!(leaves, Leaves::OpenTransaction | Leaves::FailedTransaction);
    // What was begun by hand and never committed is rolled back, wherever the lease was dropped.
    let fate = if in_transaction {
        Fate::RolledBack
    } else {
        Fate::Unknown
    };
    let work = whole(call, leaves, hold, &kept);
    call.end_with(work, || (fate, kept.take())).await;
}

async fn whole(call: &Call, leaves: Leaves, hold: Duration, kept: &Kept) -> Done {
    match held(call, leaves, hold, kept).await {
        Ok(fate) => Done {
            fate,
            failure: None,
            kept: kept.take(),
        },
        Err(error) => {
            call.say(Say::Returned);
            Done {
                // Of one statement among several, the error says nothing of the others.
                fate: Fate::Unknown,
                failure: Some(Failure::of(&error)),
                kept: kept.take(),
            }
        }
    }
}

async fn held(call: &Call, leaves: Leaves, hold: Duration, kept: &Kept) -> Result<Fate, Error> {
    let pool = call.stage.db.pool(super::Topology::WRITE_POOL)?;
    let lease = pool.checkout_within(call.timeout().unwrap_or(CHECKOUT)).await?;
    call.say(Say::Leased {
        pid: lease.backend_pid(),
        pool: pool.name().to_owned(),
    });
    let fate = leave(call, leaves, &lease, kept).await?;
    call.stage.rest(hold).await;
    call.say(Say::Returned);
    drop(lease);
    Ok(fate)
}

async fn leave(call: &Call, leaves: Leaves, lease: &Lease, kept: &Kept) -> Result<Fate, Error> {
    let marked = |sql: &str| format!("/* op={} */ {sql}", call.mark(1));
    match leaves {
        Leaves::AdvisoryLock => {
            lease.execute(&marked("SELECT pg_advisory_lock(7)"), &[]).await?;
        }
        Leaves::FailedTransaction => {
            lease.batch("BEGIN").await?;
            insert(call, lease, kept).await?;
            // It fails; what comes then is the pool's to clean up.
            let _ = lease.execute(marks::FAILS, &[]).await;
            return Ok(Fate::RolledBack);
        }
        Leaves::Listen => lease.batch(&marked("LISTEN alpha")).await?,
        Leaves::Nothing => {
            insert(call, lease, kept).await?;
            return Ok(Fate::Committed);
        }
        Leaves::OpenTransaction => {
            lease.batch("BEGIN").await?;
            insert(call, lease, kept).await?;
            return Ok(Fate::RolledBack);
        }
        Leaves::Setting => lease.batch(&marked("SET lock_timeout = 60000")).await?,
        Leaves::TempTable => lease.batch(&marked("CREATE TEMP TABLE scratch (a int4)")).await?,
    }
    Ok(Fate::Unknown)
}

async fn insert(call: &Call, lease: &Lease, kept: &Kept) -> Result<(), Error> {
    let op = call.mark(0);
    let done = lease.execute(&marks::insert(op), &[]).await;
    call.note(op, &done, kept);
    done.map(drop)
}
