//! A BEGIN that is waited for, because the server has a reason to refuse it: calls that wait side by side, and calls that
//! are dropped while they wait.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{join, poll};
use gdbpool::{Error, ErrorKind, Isolation, Outcome, Runtime, Transaction};
use gdbpool_sim::{Answer, Type};

use super::stage::{DEADLINE, READ, Stage, WRITE, said};

/// What the refusal takes.
const SLOW: Duration = Duration::from_millis(5);
/// Another statement that only reads.
const OTHER: &str = "SELECT n FROM u";

/// A server that says it is a standby, and so may refuse a serializable transaction; this one does not.
fn stage() -> Stage {
    let stage = Stage::new(5);
    stage.server.set_parameter("in_hot_standby", "on");
    stage.server.on(OTHER, Answer::rows(&[("n", Type::Int4)], Vec::new()));
    stage.warm();
    stage
}

/// Runs `function` in a serializable transaction; gives what came of it, and what the server was asked for.
fn run<F>(stage: &Stage, function: impl Fn(Transaction) -> F + Send) -> (Result<usize, Error>, Vec<String>)
where
    F: Future<Output = Result<usize, Error>> + Send,
{
    let run = stage.db.transact(function).isolation(Isolation::Serializable).reruns(0);
    let result = stage.sim.block_on(run.timeout(DEADLINE).into_future());
    assert_eq!(stage.truth(), 0, "nothing here may be written: {result:?}");
    let asked = stage
        .server
        .sessions()
        .into_iter()
        .flat_map(|session| session.statements);
    let asked = asked
        .filter(|sql| [READ, OTHER, WRITE].contains(&sql.as_str()))
        .collect();
    stage.is_left_clean();
    (result, asked)
}

async fn read(tx: &Transaction) -> Result<usize, Error> {
    tx.query(READ, &[]).await.map(|rows| rows.len())
}

#[test]
fn a_call_that_is_dropped_while_begin_is_waited_for_leaves_the_transaction_as_it_was() {
    for pause in [None, Some(Duration::from_millis(1)), Some(2 * SLOW)] {
        let stage = stage();
        let runtime: Arc<dyn Runtime> = Arc::new(stage.sim.runtime());
        let (result, asked) = run(&stage, |tx| {
            let runtime = &runtime;
            async move {
                {
                    let mut dropped = Box::pin(tx.batch(OTHER));
                    assert!(poll!(dropped.as_mut()).is_pending());
                }
                if let Some(pause) = pause {
                    runtime.sleep_until(runtime.now() + pause).await;
                }
                read(&tx).await
            }
        });
        assert_eq!(said(&result), Outcome::Committed, "{pause:?}: {result:?}");
        assert_eq!(asked, [READ], "{pause:?}: the dropped one was never sent");
    }
}

#[test]
fn calls_that_wait_side_by_side_all_run() {
    let (result, asked) = run(&stage(), |tx| async move {
        let (rows, others) = join!(read(&tx), tx.query(OTHER, &[]));
        assert_eq!(others?.len(), 0);
        rows
    });
    assert_eq!((said(&result), asked.len()), (Outcome::Committed, 2), "{result:?}");
}

#[test]
fn the_call_that_looked_last_is_dropped_and_the_others_are_woken() {
    let (result, asked) = run(&stage(), |tx| async move {
        // Each has a waker of its own.
        let mut first = FuturesUnordered::from_iter([read(&tx)]);
        let mut last = FuturesUnordered::from_iter([tx.batch(OTHER)]);
        assert!(poll!(first.next()).is_pending() && poll!(last.next()).is_pending());
        drop(last);
        first.next().await.expect("one result")
    });
    assert_eq!(said(&result), Outcome::Committed, "{result:?}");
    assert_eq!(asked, [READ]);
}

#[test]
fn what_a_refused_begin_held_back_was_not_executed() {
    let refused = || {
        let stage = stage();
        let answer = Answer::error("0A000", "cannot use serializable mode in a hot standby").after(SLOW);
        stage.server.once_prefix("BEGIN ISOLATION LEVEL SERIALIZABLE", answer);
        stage
    };
    let (result, asked) = run(&refused(), |tx| async move {
        let (first, second) = join!(read(&tx), tx.batch(WRITE));
        assert_eq!(
            (said(&first), said(&second)),
            (Outcome::NotExecuted, Outcome::NotExecuted)
        );
        first
    });
    let error = result.expect_err("refused");
    assert_eq!(error.sqlstate().map(|state| state.code()), Some("0A000"), "{error:?}");
    assert_eq!((error.outcome(), asked.len()), (Outcome::NotExecuted, 0));
    // Nobody waits for it any more.
    for fails in [false, true] {
        let (result, asked) = run(&refused(), |tx| async move {
            {
                let mut dropped = Box::pin(tx.batch(WRITE));
                assert!(poll!(dropped.as_mut()).is_pending());
            }
            match fails {
                false => Ok(0),
                true => Err(Error::user("no")),
            }
        });
        let error = result.expect_err("there was no transaction");
        let kinds = matches!(error.kind(), ErrorKind::TransactionFailed | ErrorKind::User);
        assert!(kinds && error.outcome() != Outcome::Unknown, "{error:?}");
        assert_eq!(asked.len(), 0);
    }
}
