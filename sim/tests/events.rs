//! Wire events: counted, held back one by one, cut inside a reply; and the whole run repeats from its seed.

mod support;

use std::task::Poll;
use std::time::Duration;

use gdbpool::Runtime;
use gdbpool_sim::{Answer, Cut, Direction, ScriptedServer, Sim, Type};

use support::{code, connect, server};

fn script(server: &ScriptedServer) {
    let rows = vec![vec![1.into()], vec![2.into()]];
    server.on("SELECT n FROM a", Answer::rows(&[("n", Type::Int4)], rows));
    server.on_prefix("UPDATE", Answer::tag("UPDATE 1"));
    server.on("SELECT 1/0", Answer::error("22012", "division by zero"));
}

/// A short session; gives what its last step found.
async fn program(runtime: &gdbpool_sim::SimRuntime, server: &ScriptedServer) -> String {
    let db = match connect(runtime, server).await {
        Ok(db) => db,
        Err(error) => return code::<()>(Err(error)),
    };
    if let Err(error) = db.client.query("SELECT n FROM a", &[]).await {
        return code::<()>(Err(error));
    }
    code(db.client.batch_execute("BEGIN; UPDATE a SET n = 1; COMMIT").await)
}

#[test]
fn exactly_so_many_events_are_delivered_until_the_release() {
    let sim = Sim::new(1);
    let (runtime, target) = (sim.runtime(), server(&sim));
    script(&target);
    assert_eq!(sim.block_on(program(&runtime, &target)), "no error");
    let events = target.on_event_count();
    assert!(events > 25, "{events} events");
    for held in 0..=events {
        let sim = Sim::new(1);
        let (runtime, server) = (sim.runtime(), server(&sim));
        script(&server);
        server.hold_after_event(held);
        let mut manual = sim.manual(program(&runtime, &server));
        let first = manual.settle();
        assert_eq!(server.on_event_count(), held);
        assert_eq!(first.is_ready(), held == events, "held after {held} of {events}");
        if first.is_ready() {
            continue;
        }
        assert!(server.held_events() > 0, "held after {held} of {events}");
        if held % 3 == 0 {
            // Dropped here: nothing of it stays on the server once all is delivered.
            drop(manual);
            server.release();
            sim.run_until_idle();
            assert_eq!(
                (sim.live_tasks(), server.open_sessions()),
                (0, 0),
                "dropped after {held}"
            );
            continue;
        }
        server.hold_after_event(held + 1);
        let _ = manual.settle().is_pending();
        assert_eq!(server.on_event_count(), held + 1);
        server.release();
        assert_eq!(manual.settle(), Poll::Ready("no error".to_owned()));
    }
}

#[test]
fn a_reply_is_cut_or_stalled_at_every_byte() {
    let sim = Sim::new(2);
    let (runtime, server) = (sim.runtime(), server(&sim));
    script(&server);
    // T (26 bytes), two D (12 each: "1" and "2" in text), C (14), Z (6).
    let rows = || Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()], vec![2.into()]]);
    for at in 0..=70 {
        server.once("SELECT n FROM a", rows().cut_at(at));
        let db = sim.block_on(connect(&runtime, &server)).unwrap();
        let found = code(sim.block_on(db.client.simple_query("SELECT n FROM a")));
        assert_eq!(found, "connection closed", "cut at {at}");
        drop(db);
        sim.run_until_idle();
        server.once("SELECT n FROM a", rows().stall_at(at));
        let ordinal = server.sessions().len();
        let db = sim.block_on(connect(&runtime, &server)).unwrap();
        let before = server.session_control(ordinal).delivered(Direction::ToClient);
        let mut query = sim.manual(db.client.simple_query("SELECT n FROM a"));
        assert!(query.settle().is_pending() || at == 70, "stalled at {at}");
        assert_eq!(
            server.session_control(ordinal).delivered(Direction::ToClient) - before,
            at
        );
        server.resume_session(ordinal);
        if at < 70 {
            assert!(matches!(query.settle(), Poll::Ready(Ok(_))), "stalled at {at}");
        }
    }
}

#[test]
fn a_session_can_be_stalled_reset_and_cut_while_it_works() {
    let sim = Sim::new(3);
    let (runtime, server) = (sim.runtime(), server(&sim));
    script(&server);
    let db = sim.block_on(connect(&runtime, &server)).unwrap();
    server.stall_session(0);
    let mut query = sim.manual(db.client.batch_execute("SELECT n FROM a"));
    assert!(query.settle().is_pending());
    sim.advance(Duration::from_secs(100));
    assert!(query.settle().is_pending());
    server.resume_session(0);
    assert!(matches!(query.settle(), Poll::Ready(Ok(()))));
    drop(query);
    let sent = server.session_control(0).accepted(Direction::ToServer);
    server.cut_session_at(0, Direction::ToServer, sent + 3, Cut::Reset);
    assert_eq!(
        code(sim.block_on(db.client.batch_execute("SELECT n FROM a"))),
        "connection closed"
    );
    sim.run_until_idle();
    assert!(server.session(0).closed);
    let db = sim.block_on(connect(&runtime, &server)).unwrap();
    server.reset_session(1);
    assert_eq!(
        code(sim.block_on(db.client.batch_execute("SELECT n FROM a"))),
        "connection closed"
    );
}

/// Several clients at once over one server; gives the run's hash.
fn crowd(seed: u64) -> (u128, u64) {
    let sim = Sim::new(seed);
    let (runtime, server) = (sim.runtime(), server(&sim));
    script(&server);
    let clients: Vec<_> = (0..6u64)
        .map(|number| {
            let (runtime, server) = (runtime.clone(), server.clone());
            sim.spawn(async move {
                runtime
                    .sleep_until(runtime.now() + Duration::from_millis(number % 3))
                    .await;
                let db = connect(&runtime, &server).await.unwrap();
                for _ in 0..4 {
                    assert_eq!(db.client.query("SELECT n FROM a", &[]).await.unwrap().len(), 2);
                    assert_eq!(code(db.client.execute("SELECT 1/0", &[]).await), "22012");
                    let statement = db.client.prepare("SELECT n FROM a").await.unwrap();
                    db.client.query(&statement, &[]).await.unwrap();
                }
            })
        })
        .collect();
    sim.block_on(async {
        for client in clients {
            client.await;
        }
    });
    (sim.trace_hash(), sim.trace_events())
}

#[test]
fn a_run_repeats_from_its_seed_although_statement_names_grow() {
    // tokio-postgres counts statement names per process: the second run's names are longer than the first's.
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let first = crowd(seed);
        assert_eq!(first, crowd(seed), "seed {seed}");
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| crowd(seed)).join().unwrap());
        assert_eq!(first, elsewhere, "seed {seed} on a fresh thread");
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 10, "each seed has its own run");
}

/// Tells a child process of this test to print its hash instead of starting a further child.
const CHILD: &str = "GDBPOOL_SIM_TEST_CHILD";

#[test]
fn a_run_repeats_in_a_fresh_process() {
    let (hash, events) = crowd(77);
    let line = format!("run 77: {hash:032x} after {events} events");
    if std::env::var_os(CHILD).is_some() {
        println!("{line}");
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_run_repeats_in_a_fresh_process", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&line), "here: {line}; there: {text}");
}
