//! A program over the library that passes all its named points: statements, transactions, a dropped call, a queue, a
//! listener that is lost. Shared by the tests of points, of determinism and of the trap.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::time::Duration;

use futures::future::select;
use gdbpool::{InteractionPool, ListenEvent, PoolConfig, Runtime};
use gdbpool_sim::{Answer, Kill, ScriptedServer, Sim, SimRuntime, Type, Value};

/// A server that knows what the library and the program send.
pub(crate) fn server(sim: &Sim) -> ScriptedServer {
    sim.place("10.0.0.1".parse().unwrap(), "n0");
    let server = ScriptedServer::start(sim, "10.0.0.1:5432".parse().unwrap());
    // What the library's clean-up asks last.
    let columns = [("kept", Type::Int8), ("left_behind", Type::Text)];
    let report = Answer::rows(&columns, vec![vec![Value::Int(1_000), Value::Null]]);
    server.on_prefix("SELECT pg_catalog.count(*) FILTER", report);
    server.on("SELECT 1", Answer::rows(&[("one", Type::Int4)], vec![vec![1.into()]]));
    server.on_prefix("UPDATE", Answer::tag("UPDATE 1"));
    server.on("SELECT slow()", Answer::Never);
    let id = [("pg_current_xact_id_if_assigned", Type::Text)];
    let unassigned = Answer::rows(&id, vec![vec![Value::Null]]);
    server.on_prefix("SELECT pg_catalog.pg_current_xact_id_if_assigned()", unassigned);
    server
}

/// A pool of one session on that server.
pub(crate) async fn open(runtime: &SimRuntime) -> InteractionPool {
    let config = PoolConfig::new("one", "host=10.0.0.1 user=app dbname=shop").unwrap();
    let builder = InteractionPool::builder(runtime.clone()).pool(config.size(1));
    builder.open().await.unwrap()
}

/// Runs the program to its end. It takes errors as they come, so that faults may be on.
pub(crate) fn run(sim: &Sim) {
    sim.set_step_budget(200_000);
    let server = server(sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = open(&runtime).await;
        for _ in 0..12 {
            let _ = db.run("SELECT 1").scalar::<i32>().await;
        }
        let transact = db.transact(|tx| async move { tx.execute("UPDATE a SET b = 1", &[]).await.map(drop) });
        let _ = transact.await;
        if let Ok(partial) = db.run("UPDATE a SET b = 2").partial().await {
            let _ = partial.transaction.rollback().await;
        }
        // Left in the middle of a transaction: it is rolled back by the settling.
        drop(db.run("UPDATE a SET b = 3").partial().await);
        // Idle for long: asked for a sign of life.
        pause(&runtime, Duration::from_secs(5)).await;
        let _ = db.run("SELECT 1").execute().await;
        // Dropped while it runs, with another in the queue behind it, dropped before it takes what it was given.
        let mut slow = Box::pin(db.run("SELECT slow()").execute().into_future());
        select(&mut slow, Box::pin(pause(&runtime, Duration::from_millis(50)))).await;
        let mut queued = Box::pin(db.run("SELECT 1").execute().into_future());
        assert!(futures::poll!(&mut queued).is_pending());
        drop(slow);
        pause(&runtime, Duration::from_secs(1)).await;
        drop(queued);
        if let Ok(mut events) = db.listen_on("news").subscribe().await {
            pause(&runtime, Duration::from_secs(1)).await;
            for session in server.sessions().iter().filter(|session| !session.closed) {
                server.kill_session(session.ordinal, Kill::Silent);
            }
            while !matches!(events.next().await, Some(ListenEvent::Resumed) | None) {}
        }
        db.close(Duration::from_secs(1)).await;
    });
}

/// Waits for so long, in virtual time.
async fn pause(runtime: &SimRuntime, span: Duration) {
    runtime.sleep_until(runtime.now() + span).await;
}
