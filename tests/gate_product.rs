//! Promise: whatever each step of a session does, a call ends by its deadline and says how far it got, the slots come back
//! within their bounds, and the next call on a healthy server succeeds.
//!
//! Each step is fine, fails, is slow or never ends, crossed with every other. Steps behind one that fails or never ends
//! are not reached, so that only one of their modes is run. Virtual time, one seed per case.

#[path = "support/scripted.rs"]
mod scripted;

use std::thread;
use std::time::Duration;

use gdbpool::{Error, ErrorKind, InteractionPool, Outcome, Phase, PoolStatus, Runtime, TimeoutCause};
use gdbpool_sim::{Answer, ConnectMode, RowSet, ScriptedServer, Sim, StartStep, StartUp, Step, Type};

/// The statement whose steps do as the case says, and the next one.
const SQL: &str = "SELECT work(7)";
const NEXT: &str = "SELECT work(8)";
const SLOW: Duration = Duration::from_millis(100);

const DEADLINE: Duration = Duration::from_millis(2_000);
const CHECKOUT: Duration = Duration::from_millis(1_500);
const CONNECT: Duration = Duration::from_millis(1_000);
const SETTLE: Duration = Duration::from_millis(500);
const CLOSE: Duration = Duration::from_millis(300);
const GRACE: Duration = Duration::from_millis(250);
/// How far the pool's clock may lag.
const TICK: Duration = Duration::from_millis(50);

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Fine,
    Fails,
    Slow,
    Never,
}

const MODES: [Mode; 4] = [Mode::Fine, Mode::Fails, Mode::Slow, Mode::Never];

impl Mode {
    fn passes(self) -> bool {
        matches!(self, Self::Fine | Self::Slow)
    }
}

/// The steps on the way of a call, in order.
const WAY: usize = 5;
const CONNECTING: usize = 0;
const STARTING: usize = 1;
const PREPARING: usize = 2;
const EXECUTING: usize = 3;
const READING: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Case {
    way: [Mode; WAY],
    cleaning: Mode,
    closing: Mode,
    read: bool,
    seed: u64,
}

impl Case {
    fn first_fault(&self) -> Option<(usize, Mode)> {
        let mut steps = self.way.into_iter().enumerate();
        steps.find(|(_, mode)| !mode.passes())
    }
}

/// Every case in which a step can be told from another.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for number in 0..4_usize.pow(WAY as u32 + 2) * 2 {
        let mode = |step: usize| MODES[number / 2 / 4_usize.pow(step as u32) % 4];
        let case = Case {
            way: std::array::from_fn(mode),
            cleaning: mode(WAY),
            closing: mode(WAY + 1),
            read: number % 2 == 1,
            seed: number as u64,
        };
        let behind = case.first_fault().map_or(WAY, |(step, _)| step + 1);
        if case.way[behind..].iter().all(|mode| *mode == Mode::Fine) {
            cases.push(case);
        }
    }
    cases
}

/// Prints the case when the test fails in it.
struct Replay(Case);

impl Drop for Replay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to replay: {:?}", self.0);
        }
    }
}

fn rows() -> RowSet {
    RowSet::new(&[("work", Type::Int4)], (0..3).map(|n| vec![n.into()]).collect())
}

/// Makes every step do as the case says.
fn afflict(sim: &Sim, server: &ScriptedServer, case: &Case) {
    let connect = match case.way[CONNECTING] {
        Mode::Fine => ConnectMode::Accept,
        Mode::Fails => ConnectMode::Refused,
        Mode::Slow => ConnectMode::Slow(SLOW),
        Mode::Never => ConnectMode::Hang,
    };
    sim.set_connect_mode(&server.endpoint(), connect);
    server.set_start_up(match case.way[STARTING] {
        Mode::Fine => StartUp::Trust,
        Mode::Fails => StartUp::RefusePassword,
        Mode::Slow => StartUp::Slow(SLOW, Box::new(StartUp::Trust)),
        Mode::Never => StartUp::Hang(StartStep::Requested),
    });
    let reading = match case.way[READING] {
        Mode::Fine | Mode::Slow => Answer::Rows(rows()),
        // In the midst of the second row.
        Mode::Fails => Answer::Rows(rows()).cut_at(30),
        Mode::Never => Answer::RowsThenStall(rows(), 2),
    };
    let executing = match case.way[EXECUTING] {
        Mode::Fine => reading,
        Mode::Fails => Answer::error("22012", "division by zero"),
        Mode::Slow => reading.after(SLOW),
        Mode::Never => Answer::Never,
    };
    server.on(SQL, executing);
    server.on(NEXT, Answer::Rows(rows()));
    match case.way[PREPARING] {
        Mode::Fine => {}
        Mode::Fails => server.on(SQL, Answer::error("42883", "no such function").at(Step::Parse)),
        // A slow parse: every later step is as it was.
        Mode::Slow => server.once(SQL, Answer::Rows(rows()).after(SLOW).at(Step::Parse)),
        Mode::Never => server.on(SQL, Answer::Never.at(Step::Parse)),
    }
    match case.cleaning {
        Mode::Fine => {}
        Mode::Fails => server.on("CLOSE ALL", Answer::error("XX000", "broken")),
        Mode::Slow => server.on("CLOSE ALL", Answer::Default.after(SLOW)),
        Mode::Never => server.on("CLOSE ALL", Answer::Never),
    }
}

fn heal(sim: &Sim, server: &ScriptedServer) {
    sim.set_connect_mode(&server.endpoint(), ConnectMode::Accept);
    server.set_start_up(StartUp::Trust);
    server.on("CLOSE ALL", Answer::Default);
}

fn open(sim: &Sim) -> InteractionPool {
    let config = scripted::config("one", 1)
        .size(1)
        .checkout_timeout(CHECKOUT)
        .connect_timeout(CONNECT)
        .settle_timeout(SETTLE)
        .close_timeout(CLOSE)
        .cancel_grace(GRACE)
        .connect_backoff(Duration::from_millis(10), Duration::from_millis(100));
    let builder = InteractionPool::builder(sim.runtime()).pool(config);
    sim.block_on(builder.open()).expect("open")
}

async fn call(db: &InteractionPool, sql: &str, read: bool) -> Result<usize, Error> {
    let run = db.run(sql).timeout(DEADLINE);
    let run = if read { run.read() } else { run };
    run.await.map(|rows| rows.len())
}

/// What the call must have come to, by the first step that stopped it.
fn check_result(case: &Case, result: &Result<usize, Error>) {
    let Some((step, mode)) = case.first_fault() else {
        assert_eq!(result.as_ref().ok(), Some(&3), "{result:?}");
        return;
    };
    let error = result.as_ref().expect_err("a step failed");
    let fails = mode == Mode::Fails;
    let said = (error.phase(), error.outcome());
    let kind = error.kind();
    match step {
        CONNECTING | STARTING => {
            assert_eq!(said, (Phase::Queued, Outcome::NotExecuted), "{error:?}");
            let ErrorKind::CheckoutTimeout(report) = kind else {
                panic!("{error:?}");
            };
            let expected = match (step, fails) {
                (CONNECTING, true) => TimeoutCause::ConnectFails,
                (_, true) => TimeoutCause::AuthenticationFailed,
                (_, false) => TimeoutCause::ConnectHangs,
            };
            assert_eq!(report.cause, expected, "{error:?}");
            assert!(
                report.queued > Duration::ZERO && report.phase == Phase::Queued,
                "{report:?}"
            );
        }
        PREPARING => {
            assert_eq!(said, (Phase::Preparing, Outcome::NotExecuted), "{error:?}");
            assert!(
                matches!((kind, fails), (ErrorKind::Database, true) | (ErrorKind::Timeout, false)),
                "{error:?}"
            );
        }
        EXECUTING => {
            assert_eq!(said, (Phase::Executing, Outcome::RolledBack), "{error:?}");
            assert!(
                matches!((kind, fails), (ErrorKind::Database, true) | (ErrorKind::Timeout, false)),
                "{error:?}"
            );
        }
        _ => {
            let lost = if case.read {
                Outcome::RolledBack
            } else {
                Outcome::Unknown
            };
            let outcome = if fails { lost } else { Outcome::RolledBack };
            assert_eq!(said, (Phase::Executing, outcome), "{error:?}");
            assert!(
                matches!((kind, fails), (ErrorKind::Lost, true) | (ErrorKind::Timeout, false)),
                "{error:?}"
            );
        }
    }
    assert!(
        error.to_string().contains("while "),
        "the text names the phase: {error}"
    );
    assert_eq!(error.pool(), Some("one"), "the error names the pool: {error:?}");
}

fn at_rest(status: &PoolStatus) -> bool {
    status.size == status.idle && status.waiting == 0
}

/// The end of the pool, with its session's goodbye as the case says.
fn close(sim: &Sim, server: &ScriptedServer, db: &InteractionPool, closing: Mode) {
    let last = server.sessions().len() - 1;
    match closing {
        Mode::Fine => {}
        Mode::Fails => server.reset_session(last),
        Mode::Slow | Mode::Never => server.stall_session(last),
    }
    let before = sim.now();
    let mut ending = sim.manual(db.close(2 * CLOSE));
    if closing == Mode::Slow {
        assert!(ending.settle().is_pending());
        sim.advance(SLOW);
        server.resume_session(last);
    }
    let reports = sim.block_on(&mut ending);
    let bound = if closing == Mode::Slow { SLOW } else { CLOSE };
    assert!(
        sim.now() - before <= bound + TICK,
        "closing took {:?}",
        sim.now() - before
    );
    assert_eq!(
        (reports.len(), reports[0].remaining, reports[0].cut.len()),
        (1, 0, 0),
        "{reports:?}"
    );
    sim.run_until_idle();
    assert_eq!(sim.live_tasks(), 0, "no task is left");
}

fn run(case: Case) {
    let _replay = Replay(case);
    let sim = Sim::new(case.seed);
    let server = scripted::server(&sim, 1);
    let db = open(&sim);
    let pool = db.pool("one").expect("a pool");
    afflict(&sim, &server, &case);

    let begun = sim.now();
    let result = sim.block_on(call(&db, SQL, case.read));
    let took = sim.now() - begun;
    assert!(took <= DEADLINE + GRACE + TICK, "the call took {took:?}: {result:?}");
    check_result(&case, &result);

    // A dial goes on without its caller, a session settles or is given up and closed.
    sim.advance(CONNECT + SETTLE + CLOSE + TICK);
    let status = pool.status();
    assert!(at_rest(&status), "the slots are not back: {status}");
    if case.cleaning != Mode::Never {
        // A clean-up that never ends is left to the server, which does not look at its connection meanwhile.
        assert_eq!(server.open_sessions(), status.size as usize, "{status}");
    }

    heal(&sim, &server);
    let begun = sim.now();
    let next = sim.block_on(call(&db, NEXT, case.read));
    assert_eq!(next.as_ref().ok(), Some(&3), "on a healthy server: {next:?}");
    let took = sim.now() - begun;
    assert!(
        took <= Duration::from_millis(100) + TICK,
        "on a healthy server the call took {took:?}"
    );
    let lease = sim.block_on(pool.checkout()).expect("a session");
    sim.run_until_idle();
    let sessions = server.sessions();
    let view = sessions
        .iter()
        .find(|view| view.pid == lease.backend_pid())
        .expect("its session");
    assert_eq!((view.status, view.in_flight), ('I', false), "{view:?}");
    drop(lease);
    sim.advance(TICK);
    assert!(at_rest(&pool.status()), "{}", pool.status());
    assert_eq!(server.violations(), [""; 0]);
    drop(pool);
    close(&sim, &server, &db, case.closing);
}

fn run_part(part: usize, parts: usize) {
    let cases = cases();
    assert!(cases.len() > 3_000);
    let mine: Vec<Case> = cases.into_iter().skip(part).step_by(parts).collect();
    println!("part {part}: {} cases", mine.len());
    for case in mine {
        run(case);
    }
}

#[test]
fn every_step_crossed_with_every_other_first_half() {
    run_part(0, 2);
}

#[test]
fn every_step_crossed_with_every_other_second_half() {
    run_part(1, 2);
}

#[test]
fn rows_of_another_shape_are_not_taken_for_a_lost_session() {
    let sim = Sim::new(1);
    let server = scripted::server(&sim, 1);
    let db = open(&sim);
    // Parsed as a statement without columns.
    server.once(SQL, Answer::error("22012", "division by zero"));
    server.on(SQL, Answer::Rows(rows()));
    let refused = sim.block_on(call(&db, SQL, true)).expect_err("an error");
    assert!(matches!(refused.kind(), ErrorKind::Database), "{refused:?}");
    let strange = sim
        .block_on(call(&db, SQL, true))
        .expect_err("rows where none were announced");
    assert!(matches!(strange.kind(), ErrorKind::Protocol), "{strange:?}");
    sim.advance(CLOSE);
    assert_eq!(server.open_sessions(), 0, "the session is closed");
    assert_eq!(sim.block_on(call(&db, SQL, true)).ok(), Some(3));
}

#[test]
fn a_case_repeats_from_its_seed() {
    let hash = |case: &Case| {
        let sim = Sim::new(case.seed);
        let server = scripted::server(&sim, 1);
        let db = open(&sim);
        afflict(&sim, &server, case);
        let _ = sim.block_on(call(&db, SQL, case.read));
        let runtime = sim.runtime();
        sim.block_on(runtime.sleep_until(runtime.now() + CONNECT));
        sim.trace_hash()
    };
    for case in cases().iter().step_by(97) {
        assert_eq!(hash(case), hash(case), "{case:?}");
    }
}
