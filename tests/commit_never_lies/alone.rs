//! A BEGIN that is refused while nobody waits for the statement behind it, and a COMMIT that is under way when the lease
//! time is over.

use std::time::Duration;

use futures::poll;
use gdbpool::{Error, Outcome, Runtime, Transaction};
use gdbpool_sim::Answer;

use super::stage::{BOUND, DEADLINE, GRACE, Stage, WRITE, judge, said};

/// How a function goes on after it dropped its first statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ok,
    Err,
    /// It stays until its deadline.
    Never,
}

const ENDS: [End; 3] = [End::Ok, End::Err, End::Never];
const PAUSES: [Option<Duration>; 3] = [None, Some(Duration::from_millis(1)), Some(Duration::from_millis(100))];

/// The server has parsed `BOUND`, and committed nothing.
fn know_the_statement(stage: &Stage) {
    let learn = stage.db.transact(|tx| async move {
        tx.execute(BOUND, &[&1i32]).await?;
        Err::<(), _>(Error::user("enough"))
    });
    stage.sim.block_on(learn.into_future()).expect_err("its own decision");
    stage.sim.advance(Duration::from_secs(1));
}

/// Begins a statement, drops it, and lets some time pass.
async fn begin_and_drop(tx: &Transaction, runtime: &dyn Runtime, sql: &'static str, pause: Option<Duration>) {
    let values: &[&(dyn gdbpool::types::ToSql + Sync)] = if sql == BOUND { &[&1i32] } else { &[] };
    {
        let mut first = Box::pin(async {
            match sql {
                BOUND => tx.execute(BOUND, values).await.map(drop),
                sql => tx.batch(sql).await,
            }
        });
        assert!(poll!(first.as_mut()).is_pending());
    }
    if let Some(pause) = pause {
        runtime.sleep_until(runtime.now() + pause).await;
    }
}

async fn go_on(end: End) -> Result<(), Error> {
    match end {
        End::Ok => Ok(()),
        End::Err => Err(Error::user("no")),
        End::Never => futures::future::pending().await,
    }
}

/// Gives how often the write was committed.
fn case(sql: &'static str, end: End, pause: Option<Duration>, is_pinned: bool) -> usize {
    let stage = Stage::new(5);
    stage.warm();
    know_the_statement(&stage);
    stage
        .server
        .once_prefix("BEGIN", Answer::error("53200", "out of memory"));
    let runtime = stage.sim.runtime();
    let function = stage.db.transact(|tx| {
        let runtime = &runtime;
        async move {
            begin_and_drop(&tx, runtime, sql, pause).await;
            go_on(end).await
        }
    });
    let function = function.reruns(0).timeout(DEADLINE);
    let result = if is_pinned {
        stage.sim.block_on(async {
            let open = function.partial().await?.transaction;
            open.commit().await.map(drop)
        })
    } else {
        stage.sim.block_on(function.into_future())
    };
    let truth = stage.truth();
    judge(
        &result,
        truth,
        &format!("{sql}, {end:?} after {pause:?}, pinned: {is_pinned}"),
    );
    assert!(
        result.is_err(),
        "{sql}, {end:?} after {pause:?}: there was no transaction"
    );
    stage.is_left_clean();
    truth
}

#[test]
fn a_statement_behind_a_refused_begin_that_nobody_waits_for_is_not_called_undone() {
    for sql in [WRITE, BOUND] {
        let mut committed = 0;
        for end in ENDS {
            for pause in PAUSES {
                for is_pinned in [false, true] {
                    committed += case(sql, end, pause, is_pinned);
                }
            }
        }
        assert!(committed > 0, "{sql} never ran alone: nothing was tried");
    }
}

#[test]
fn a_statement_behind_a_begin_that_is_cancelled_is_not_called_undone() {
    for sql in [WRITE, BOUND] {
        for slow in [
            Answer::Never,
            Answer::error("53200", "out of memory").after(2 * DEADLINE),
        ] {
            for is_pinned in [false, true] {
                let stage = Stage::new(6);
                stage.warm();
                know_the_statement(&stage);
                stage.server.once_prefix("BEGIN", slow.clone());
                let function = stage.db.transact(|tx| async move {
                    match sql {
                        BOUND => tx.execute(BOUND, &[&1i32]).await.map(drop),
                        sql => tx.batch(sql).await,
                    }
                });
                let function = function.reruns(0).timeout(DEADLINE);
                let result = if is_pinned {
                    stage.sim.block_on(async { function.partial().await.map(drop) })
                } else {
                    stage.sim.block_on(function.into_future())
                };
                let truth = stage.truth();
                judge(&result, truth, &format!("{sql} behind {slow:?}, pinned: {is_pinned}"));
                result.expect_err("BEGIN was not answered in time");
                stage.is_left_clean();
            }
        }
    }
}

/// A COMMIT that is answered after a while, or never, in a transaction that had 400 ms.
fn commit_late(answer: Answer) -> (Result<(), Error>, usize) {
    let stage = Stage::new(9);
    stage.server.once("COMMIT", answer);
    let result = stage.sim.block_on(async {
        let insert = stage.db.run(BOUND).bind(1i32).timeout(DEADLINE).partial();
        let open = insert.lease_time(Duration::from_millis(400)).await?.transaction;
        open.commit().await.map(drop)
    });
    let truth = stage.truth();
    judge(&result, truth, "COMMIT is under way when the lease time is over");
    stage.is_left_clean();
    (result, truth)
}

#[test]
fn a_commit_that_is_under_way_is_not_ended_by_the_lease_time() {
    // Its answer is waited for, at least for as long as that of stopped work is.
    for after in [GRACE, Duration::from_millis(400), Duration::from_millis(600)] {
        let (result, truth) = commit_late(Answer::tag("COMMIT").after(after));
        assert_eq!((said(&result), truth), (Outcome::Committed, 1), "{after:?}: {result:?}");
        let (result, truth) = commit_late(Answer::error("23505", "late").after(after));
        assert_eq!(
            (said(&result), truth),
            (Outcome::RolledBack, 0),
            "{after:?}: {result:?}"
        );
    }
    // Later it may be given up, and stopped: what is said then is judged, too.
    drop(commit_late(Answer::tag("COMMIT").after(Duration::from_secs(5))));
    let (result, _) = commit_late(Answer::Never);
    result.expect_err("it was not answered");
}
