//! The session's mode, read only or as the template has it, stays in step when a call is stopped while its mode is being
//! set: what sets it is not what a cancel request stops, or the statement behind it would run in the mode before.
//!
//! On a scripted server: the statement that sets the mode takes long.

use std::time::Duration;

use gdbpool::{Cancel, InteractionPool, Outcome};
use gdbpool_sim::{Answer, ScriptedServer, Sim, Type};

use super::scripted;

const WRITE: &str = "INSERT INTO marks VALUES (1)";
const READ: &str = "SELECT n FROM marks";
const SET: &str = "SET default_transaction_read_only = on";
/// Less than a stopped call waits for its answer, and a session has to settle.
const SLOW: Duration = Duration::from_millis(100);
const RESET: &str = "RESET default_transaction_read_only";

#[derive(Clone, Copy, Debug)]
enum Stop {
    Drop,
    Deadline,
    Cancel,
}

fn world(seed: u64) -> (Sim, ScriptedServer, InteractionPool) {
    let sim = Sim::new(seed);
    let server = scripted::server(&sim, 1);
    server.on(WRITE, Answer::tag("INSERT 0 1"));
    server.on(READ, Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()]]));
    let builder = InteractionPool::builder(sim.runtime()).pool(scripted::config("one", 1).size(1));
    let db = sim.block_on(builder.open()).expect("open");
    (sim, server, db)
}

/// Runs the statement and stops it while its mode is being set.
fn run_and_stop(sim: &Sim, db: &InteractionPool, sql: &str, read: bool, stop: Stop) {
    let cancel = Cancel::new();
    let mut run = db.run(sql).execute();
    if read {
        run = run.read();
    }
    run = match stop {
        Stop::Drop => run,
        Stop::Deadline => run.timeout(Duration::from_millis(10)),
        Stop::Cancel => run.cancel_on(&cancel),
    };
    let mut run = sim.manual(run.into_future());
    assert!(run.settle().is_pending(), "the mode is being set");
    sim.advance(Duration::from_millis(10));
    cancel.cancel();
    if !matches!(stop, Stop::Drop) {
        let outcome = sim.block_on(&mut run).map_err(|error| error.outcome());
        assert!(
            !matches!(outcome, Err(Outcome::Unknown)),
            "the server had the last word: {outcome:?}"
        );
    }
    drop(run);
}

#[test]
fn a_call_stopped_while_its_mode_is_set_leaves_the_next_one_in_its_own() {
    for seed in 0..20 {
        for stop in [Stop::Drop, Stop::Deadline, Stop::Cancel] {
            for to_read in [false, true] {
                let (sim, server, db) = world(seed);
                let (first, setting, second) = if to_read {
                    (WRITE, SET, READ)
                } else {
                    (READ, RESET, WRITE)
                };
                let warm = db.run(first).execute();
                let warm = if to_read { warm } else { warm.read() };
                sim.block_on(warm.into_future()).expect("a session in the first mode");
                server.once(setting, Answer::Default.after(SLOW));
                run_and_stop(&sim, &db, second, to_read, stop);
                let context = format!("{stop:?} beside {setting}, seed {seed}");
                let written = sim.block_on(db.run(WRITE).execute().into_future());
                assert_eq!(written.unwrap_or_else(|error| panic!("{context}: {error:?}")), 1);
                assert!(
                    server.cancels().iter().all(|cancel| !cancel.hit),
                    "{context}: the mode was stopped"
                );
                let refused = sim.block_on(db.run(WRITE).read().execute().into_future());
                let refused = refused.expect_err("a read cannot change rows");
                assert_eq!(
                    refused.sqlstate().map(|state| state.code()),
                    Some("25006"),
                    "{context}: {refused}"
                );
                assert_eq!(server.sessions().len(), 1, "{context}: it costs no session");
            }
        }
    }
}
