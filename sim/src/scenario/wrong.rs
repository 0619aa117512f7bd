//! Plays a statement that fails for certain: what comes back has to be that failure, or that the call did not come so far.
//!
//! Beside the other calls of a client.

use gdbpool::Error;

use super::client::{Answer, Failure, Say};
use super::play::{Call, Done};
use super::session::CHECKOUT;
use super::{Topology, Wrong};

/// Whether it is sent as a read; else by hand, over a lease.
pub(super) fn is_read(how: Wrong) -> bool {
    !matches!(how, Wrong::NoStatement | Wrong::NoTransaction)
}

pub(super) async fn play(call: &Call, how: Wrong) {
    let work = async {
        let done = match is_read(how) {
            true => as_read(call, how).await,
            false => by_hand(call, how).await,
        };
        answered(call, how, done)
    };
    call.end(work).await;
}

fn text(call: &Call, how: Wrong) -> String {
    let statement = match how {
        Wrong::Division => "SELECT 1 / (id - id) FROM items",
        Wrong::NoStatement => "EXECUTE no_such_statement",
        Wrong::NoTable => "SELECT * FROM no_such_table",
        Wrong::NoTransaction => "ROLLBACK TO SAVEPOINT no_such_savepoint",
        Wrong::Standby => "SELECT pg_catalog.pg_current_wal_lsn()",
    };
    format!("/* op={} */ {statement}", call.mark(0))
}

async fn as_read(call: &Call, how: Wrong) -> Result<(), Error> {
    let mut run = call.stage.db.run(text(call, how)).read().cancel_on(&call.cancel);
    if let Some(span) = call.timeout() {
        run = run.timeout(span);
    }
    run.await.map(drop)
}

async fn by_hand(call: &Call, how: Wrong) -> Result<(), Error> {
    let pool = call.stage.db.pool(Topology::WRITE_POOL)?;
    let lease = pool.checkout_within(call.timeout().unwrap_or(CHECKOUT)).await?;
    call.say(Say::Leased {
        pid: lease.backend_pid(),
        pool: pool.name().to_owned(),
    });
    let done = lease.batch(&text(call, how)).await;
    call.say(Say::Returned);
    done
}

fn answered(call: &Call, how: Wrong, done: Result<(), Error>) -> Done {
    let answer = match done {
        Ok(()) if how == Wrong::Standby => Answer::Done(1),
        Ok(()) => Answer::Foreign("success of what cannot succeed".to_owned()),
        Err(error) => Answer::Failed(Failure::of(&error)),
    };
    call.answered(call.mark(0), answer)
}
