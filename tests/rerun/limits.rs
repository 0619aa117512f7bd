//! What bounds the runs of a function: number, deadline, and the budget of retries. In the simulator, in virtual time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use gdbpool::{Cancel, Error, ErrorKind, InteractionPool, Outcome, Runtime, Transaction};
use gdbpool_sim::{Answer, Kill, ScriptedServer, Sim, Type, Value};

use super::{scripted, state};

const WRITE: &str = "INSERT INTO t VALUES (1)";

struct World {
    sim: Sim,
    server: ScriptedServer,
    db: InteractionPool,
    runs: AtomicU32,
}

impl World {
    fn new(answer: Answer) -> Self {
        let sim = Sim::new(23);
        let server = scripted::server(&sim, 1);
        server.on(WRITE, answer);
        let id = Answer::rows(&[("id", Type::Text)], vec![vec![Value::from("7")]]);
        server.on("SELECT pg_catalog.pg_current_xact_id_if_assigned()", id);
        let config = scripted::config("main", 1).size(2).ping_after(None);
        let builder = InteractionPool::builder(sim.runtime()).pool(config);
        let db = sim.block_on(builder.open()).expect("sound settings");
        Self {
            sim,
            server,
            db,
            runs: AtomicU32::new(0),
        }
    }

    async fn write(&self, tx: Transaction) -> Result<u64, Error> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        tx.execute(WRITE, &[]).await
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

fn conflict() -> Answer {
    Answer::error("40001", "could not serialize access")
}

#[test]
fn a_conflict_that_lasts_is_run_ten_times_more() {
    let world = World::new(conflict());
    let before = world.sim.now();
    let order = world.db.transact(|tx| world.write(tx));
    let error = world
        .sim
        .block_on(order.into_future())
        .expect_err("it never gets through");
    assert_eq!((state(&error), error.outcome()), (Some("40001"), Outcome::RolledBack));
    assert_eq!(world.runs(), 11);
    let slept = world.sim.now() - before;
    assert!(slept <= Duration::from_secs(4), "pauses double from 4 ms up: {slept:?}");
}

#[test]
fn it_is_run_again_until_its_deadline() {
    let world = World::new(conflict());
    let before = world.sim.now();
    let order = world.db.transact(|tx| world.write(tx)).reruns(u32::MAX);
    let error = world.sim.block_on(order.timeout(Duration::from_secs(60)).into_future());
    let error = error.expect_err("it never gets through");
    assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
    assert!(
        matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted),
        "{error:?}"
    );
    let took = world.sim.now() - before;
    assert_eq!(took, Duration::from_secs(60), "neither longer, nor given up before");
    // Pauses are at most a second long.
    assert!(world.runs() > 60, "{}", world.runs());
}

#[test]
fn a_cancel_is_heeded_between_the_runs() {
    let world = World::new(conflict());
    let cancel = Cancel::new();
    let order = world.db.transact(|tx| {
        if world.runs() == 40 {
            cancel.cancel();
        }
        world.write(tx)
    });
    let error = world
        .sim
        .block_on(order.reruns(u32::MAX).cancel_on(&cancel).into_future());
    let error = error.expect_err("cancelled");
    assert!(matches!(error.kind(), ErrorKind::Cancelled), "{error:?}");
    assert!(
        matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted),
        "{error:?}"
    );
    assert!((40..=41).contains(&world.runs()), "{}", world.runs());
}

#[test]
fn lost_sessions_are_made_up_for_from_the_budget() {
    let world = World::new(Answer::CloseConnection);
    for call in 0..60 {
        let before = world.runs();
        let order = world.db.transact(|tx| world.write(tx));
        let error = world
            .sim
            .block_on(order.into_future())
            .expect_err("every session is lost");
        assert!(matches!(error.kind(), ErrorKind::Lost), "{call}: {error:?}");
        assert_eq!(error.outcome(), Outcome::RolledBack, "{call}: {error:?}");
        assert!(world.runs() - before <= 11, "{call}");
    }
    // One run for each call, a hundred retries at once, and a fifth of the calls.
    let runs = world.runs();
    assert!((160..=172).contains(&runs), "{runs}");
    assert!(world.server.violations().is_empty());
}

/// The session is lost while the function is busy elsewhere, after its last statement was answered: COMMIT is not written.
#[test]
fn a_loss_that_no_statement_met_is_run_again() {
    for kill in [Kill::Fatal, Kill::Notice, Kill::Silent] {
        let world = World::new(Answer::tag("INSERT 0 1"));
        let killed = AtomicBool::new(false);
        let order = world.db.transact(|tx| {
            let (world, first) = (&world, !killed.swap(true, Ordering::SeqCst));
            async move {
                let done = world.write(tx).await?;
                if first {
                    world.server.kill_session(0, kill);
                    let pause = world.sim.now() + Duration::from_secs(1);
                    world.sim.runtime().sleep_until(pause).await;
                }
                Ok(done)
            }
        });
        let done = world.sim.block_on(order.into_future());
        assert_eq!(done.map_err(|error| format!("{kill:?}: {error:?}")), Ok(1));
        assert_eq!(world.runs(), 2, "{kill:?}");
    }
}

/// The same loss, where it may not be run again: the error says what happened.
#[test]
fn a_loss_that_no_statement_met_is_called_a_loss() {
    let world = World::new(Answer::tag("INSERT 0 1"));
    let order = world.db.transact(|tx| async {
        let done = world.write(tx).await?;
        world.server.kill_session(0, Kill::Fatal);
        let pause = world.sim.now() + Duration::from_secs(1);
        world.sim.runtime().sleep_until(pause).await;
        Ok(done)
    });
    let error = world.sim.block_on(order.reruns(0).into_future()).expect_err("lost");
    assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
    assert_eq!(
        (state(&error), error.outcome()),
        (Some("57P01"), Outcome::RolledBack),
        "{error:?}"
    );
    assert!(error.is_retryable(), "{error:?}");
}

#[test]
fn a_commit_whose_answer_is_lost_is_not_run_again() {
    let world = World::new(Answer::tag("INSERT 0 1"));
    let order = world.db.transact(|tx| world.write(tx));
    assert_eq!(world.sim.block_on(order.into_future()).ok(), Some(1));
    world.sim.advance(Duration::from_millis(100));
    world.server.once("COMMIT", Answer::CloseConnection);
    let order = world.db.transact(|tx| world.write(tx));
    let error = world.sim.block_on(order.into_future()).expect_err("nobody knows");
    assert_eq!(
        (error.outcome(), error.is_retryable()),
        (Outcome::Unknown, false),
        "{error:?}"
    );
    assert_eq!(error.sqlstate().map(|state| state.code()), Some("08007"));
    assert_eq!(world.runs(), 2, "one for each call");
}
