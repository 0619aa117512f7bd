//! Every operation dropped after each wire event, and after each poll, on a scripted server in virtual time.
//!
//! Exactly so many messages of the server are delivered when the operation is dropped; the others come at once, or when a
//! cancel request is under way, or when the pool has given the session up. A failed case prints what replays it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures::future::join;
use gdbpool::{Error, InteractionPool, Lease};
use gdbpool_sim::{Answer, Manual, ScriptedServer, SessionView, Sim, Type, Value};

use super::ops::{COPY_IN, COPY_OUT, FUNCTION, INSERT, LeaseOp, OF_A_LEASE, OF_THE_POOL, PoolOp};
use super::ops::{RETURNING, ROWS, Row, Site};
use super::scripted;
use super::transaction_ops::{COMMIT_ID, OF_TRANSACTIONS};

const MARK: i64 = 1;
/// An array of texts.
const TEXTS: Type = Type::Other(1009);
const VOID: Type = Type::Other(2278);
const NOTIFY: &str = "SELECT pg_catalog.pg_notify($1, $2)";
const MODE: &str = "default_transaction_read_only";

/// Where an operation is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drop {
    AfterEvents(u64),
    /// Also when nothing has woken it.
    AfterPolls(u64),
}

/// When the rest of the server's messages comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    AtOnce,
    /// Cancel requests have been sent by then.
    Later,
    /// The pool has given the session up by then.
    TooLate,
}

/// What the pool is like when an operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Cold,
    Warm,
    Stale,
    Busy,
}

#[derive(Clone, Copy)]
enum Op {
    Lease(LeaseOp),
    Pool(PoolOp, Pool),
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    row: Row,
    op: Op,
    seed: u64,
    /// Statements take a while.
    slow: bool,
    drop: Drop,
    rest: Rest,
}

/// Prints the case when the test fails in it.
struct Replay(String);

impl std::ops::Drop for Replay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to replay: {}", self.0);
        }
    }
}

/// One run of the simulator with a pool on its server.
struct World {
    sim: Sim,
    server: ScriptedServer,
    site: Site,
    template: BTreeMap<String, String>,
}

impl World {
    fn new(case: &Case) -> Self {
        let sim = Sim::new(case.seed);
        let server = scripted::server(&sim, 1);
        script(&server, case.slow);
        let ping_after = matches!(case.op, Op::Pool(_, Pool::Stale)).then_some(Duration::ZERO);
        let config = scripted::config("one", 1)
            .size(1)
            .setting("work_mem", "5MB")
            .listen_self_test(false)
            .ping_after(ping_after);
        let db = sim
            .block_on(InteractionPool::builder(sim.runtime()).pool(config).open())
            .expect("open");
        let one = db.pool("one").expect("a pool");
        let lease = sim.block_on(one.checkout()).expect("a session");
        let template = server.session(0).settings;
        drop(lease);
        sim.run_until_idle();
        let site = Site { db, one };
        Self {
            sim,
            server,
            site,
            template,
        }
    }

    fn session(&self, lease: &Lease) -> SessionView {
        let found = self
            .server
            .sessions()
            .into_iter()
            .find(|view| view.pid == lease.backend_pid());
        found.expect("a session of this server")
    }

    /// Polls the operation until it is to be dropped; whether it completed before.
    fn poll<F: Future<Output = Result<(), Error>>>(&self, operation: F, drop: Drop) -> bool {
        let before = self.server.on_event_count();
        let mut operation = self.sim.manual(operation);
        let done = match drop {
            Drop::AfterEvents(events) => {
                self.server.hold_after_event(before + events);
                self.poll_to_event(&mut operation, before + events)
            }
            Drop::AfterPolls(polls) => self.poll_so_often(&mut operation, polls),
        };
        done.map(|result| result.unwrap_or_else(|error| panic!("{error:?}")))
            .is_some()
    }

    fn poll_to_event<F: Future>(&self, operation: &mut Manual<F>, event: u64) -> Option<F::Output> {
        for _ in 0..1_000 {
            if let Poll::Ready(output) = operation.settle() {
                return Some(output);
            }
            if self.server.on_event_count() >= event {
                return None;
            }
            self.sim.advance(Duration::from_micros(500));
        }
        panic!("the operation neither ends nor gets the server to say more");
    }

    fn poll_so_often<F: Future>(&self, operation: &mut Manual<F>, polls: u64) -> Option<F::Output> {
        for _ in 0..polls {
            if let Poll::Ready(output) = operation.poll() {
                return Some(output);
            }
            self.sim.run_until_idle();
            if !operation.is_woken() {
                self.sim.advance(Duration::from_micros(500));
            }
        }
        None
    }

    fn let_the_rest_come(&self, rest: Rest) {
        self.sim.run_until_idle();
        match rest {
            Rest::AtOnce => {}
            Rest::Later => self.sim.advance(Duration::from_millis(4)),
            Rest::TooLate => self.sim.advance(Duration::from_secs(20)),
        }
        self.server.release();
    }

    fn next_borrower_finds_it_clean(&self) {
        let lease = self.sim.block_on(self.site.one.checkout()).expect("a session");
        self.sim.run_until_idle();
        let view = self.session(&lease);
        assert_eq!(
            (view.status, view.in_flight, view.closed),
            ('I', false, false),
            "{view:?}"
        );
        let foreign = (
            view.listens.len(),
            view.temp_tables.len(),
            view.cursors.len(),
            view.advisory_locks,
        );
        assert_eq!(foreign, (0, 0, 0, 0), "{view:?}");
        // The mode is brought into step with the next request, in the same flight of bytes.
        let without_mode = |settings: &BTreeMap<String, String>| {
            let mut settings = settings.clone();
            settings.remove(MODE);
            settings
        };
        assert_eq!(without_mode(&view.settings), without_mode(&self.template));
        let work = async {
            lease.batch("BEGIN").await?;
            lease.query("SELECT 1", &[]).await?;
            lease.execute(INSERT, &[&MARK]).await?;
            lease.batch("COMMIT").await
        };
        self.sim.block_on(work).expect("the next borrower's work");
        let after = self.session(&lease);
        assert_eq!(after.settings, self.template);
        let ran = after.statements[view.statements.len()..].iter().map(String::as_str);
        let ran: Vec<&str> = ran.filter(|sql| !sql.ends_with(MODE)).collect();
        assert_eq!(
            ran,
            ["BEGIN", "SELECT 1", INSERT, "COMMIT"],
            "only the next borrower's own statements run"
        );
        drop(lease);
        self.sim.advance(Duration::from_secs(1));
        let status = self.site.one.status();
        assert_eq!(
            (status.size, status.idle, status.waiting),
            (1, 1, 0),
            "the slots are back: {status}"
        );
        assert_eq!(self.server.open_sessions(), 1, "no session is left on the server");
        assert_eq!(self.server.violations(), [""; 0]);
    }

    /// How often the operation's write was run.
    fn writes(&self) -> usize {
        let sessions = self.server.sessions();
        let statements = sessions.iter().flat_map(|view| &view.statements);
        statements
            .filter(|sql| sql.starts_with("INSERT INTO marks") || *sql == COPY_IN)
            .count()
    }
}

/// An array of one text: a dimension, no NULLs, its elements' type, their number, the first one's index, and they.
fn one_text(text: &str) -> Value {
    let length = i32::try_from(text.len()).expect("a short text");
    let head = [1, 0, 25, 1, 1, length].map(i32::to_be_bytes).concat();
    Value::Bytes([&head, text.as_bytes()].concat())
}

fn script(server: &ScriptedServer, slow: bool) {
    let takes_time = |answer: Answer| match slow {
        true => answer.after(Duration::from_millis(3)),
        false => answer,
    };
    let mark = || Answer::rows(&[("mark", Type::Int8)], vec![vec![Value::Int(MARK)]]);
    server.on(INSERT, takes_time(Answer::tag("INSERT 0 1").typed(&[Type::Int8])));
    server.on(RETURNING, takes_time(mark().typed(&[Type::Int8])));
    server.on_prefix("INSERT INTO marks VALUES (1", takes_time(Answer::tag("INSERT 0 1")));
    let rows = (1..=30).map(|n| vec![Value::Int(n)]).collect();
    server.on(ROWS, takes_time(Answer::rows(&[("n", Type::Int4)], rows)));
    let rendered = Answer::rows(&[("values", TEXTS)], vec![vec![one_text(&format!("'{MARK}'"))]]);
    server.on_prefix(
        "SELECT ARRAY[pg_catalog.format(",
        takes_time(rendered.typed(&[Type::Int8])),
    );
    let transaction_id = Answer::rows(&[("id", Type::Other(5069))], vec![vec![Value::Text("7".into())]]);
    server.on(COMMIT_ID, takes_time(transaction_id));
    let fetched = (1..=30).map(|n| vec![Value::Int(n)]).collect();
    server.on_prefix("FETCH FORWARD", takes_time(Answer::rows(&[("n", Type::Int4)], fetched)));
    server.on(FUNCTION, takes_time(mark()));
    let nothing = Answer::rows(&[("pg_notify", VOID)], vec![vec![Value::Text(String::new())]]);
    server.on(NOTIFY, takes_time(nothing.typed(&[Type::Text, Type::Text])));
    server.on(COPY_IN, Answer::CopyIn);
    server.on(
        COPY_OUT,
        takes_time(Answer::CopyOut((1..=30).map(|n| format!("{n}\n").into()).collect())),
    );
    server.on("SELECT 1/0", Answer::error("22012", "division by zero"));
}

/// Runs one case; gives whether the operation completed, and the hash of the run.
fn run(case: &Case) -> (bool, u128) {
    let text = format!(
        "{}, seed {}, slow {}, dropped {:?}, the rest {:?}{}",
        case.name,
        case.seed,
        case.slow,
        case.drop,
        case.rest,
        match case.op {
            Op::Lease(_) => String::new(),
            Op::Pool(_, pool) => format!(", {pool:?}"),
        }
    );
    let _replay = Replay(text);
    let world = World::new(case);
    let one = &world.site.one;
    let completed = match case.op {
        Op::Lease(op) => {
            let lease = world.sim.block_on(one.checkout()).expect("a session");
            world.poll(op(&lease, MARK), case.drop)
        }
        Op::Pool(op, Pool::Busy) => {
            let held = world.sim.block_on(one.checkout()).expect("a session");
            world
                .sim
                .block_on(held.batch("BEGIN; SET work_mem = '3MB'; LISTEN d"))
                .expect("work");
            let operation = join(op(&world.site, MARK), async move { drop(held) });
            world.poll(async { operation.await.0 }, case.drop)
        }
        Op::Pool(op, pool) => {
            if pool == Pool::Cold {
                one.retire();
                world.sim.advance(Duration::from_millis(1));
                assert_eq!(one.status().size, 0);
            }
            world.poll(op(&world.site, MARK), case.drop)
        }
    };
    world.let_the_rest_come(case.rest);
    // Whatever the pool began in the background has ended by then.
    world.sim.advance(Duration::from_secs(1));
    let writes = world.writes();
    assert!(writes <= 1 || case.row == Row::Never, "the write ran {writes} times");
    assert!(
        writes == 1 || !completed || case.row != Row::Committed,
        "completed, but the write did not run"
    );
    world.next_borrower_finds_it_clean();
    (completed, world.sim.trace_hash())
}

/// Runs an operation with every drop until it completes, and the last case once more: the same must happen.
fn exhaust(name: &'static str, row: Row, op: Op, at: fn(u64) -> Drop, runs: &AtomicU64) {
    let rests: &[Rest] = match at(0) {
        Drop::AfterEvents(_) => &[Rest::AtOnce, Rest::Later, Rest::TooLate],
        Drop::AfterPolls(_) => &[Rest::AtOnce],
    };
    for (slow, rest) in [false, true]
        .into_iter()
        .flat_map(|slow| rests.iter().map(move |rest| (slow, *rest)))
    {
        for steps in 0.. {
            let drop = at(steps);
            // Each case has its own order of tasks.
            let seed = runs.fetch_add(1, Ordering::Relaxed);
            let case = Case {
                name,
                row,
                op,
                seed,
                slow,
                drop,
                rest,
            };
            let (completed, hash) = run(&case);
            if completed {
                assert_eq!(run(&case), (true, hash), "{name} does not repeat from seed {seed}");
                break;
            }
        }
    }
}

fn exhaust_pool(pool: Pool, at: fn(u64) -> Drop) {
    let runs = AtomicU64::new(0);
    for (name, row, op) in OF_THE_POOL.iter().chain(OF_TRANSACTIONS) {
        exhaust(name, *row, Op::Pool(*op, pool), at, &runs);
    }
    let runs = runs.into_inner();
    println!("operations of the pool, {pool:?}, {:?} and so on: {runs} runs", at(0));
    assert!(runs > 50);
}

fn exhaust_leases(at: fn(u64) -> Drop) {
    let runs = AtomicU64::new(0);
    for (name, row, op) in OF_A_LEASE {
        // What tokio-postgres asks about types is not scripted.
        if !name.contains("look up a type") {
            exhaust(name, *row, Op::Lease(*op), at, &runs);
        }
    }
    let runs = runs.into_inner();
    println!("operations of a lease, {:?} and so on: {runs} runs", at(0));
    assert!(runs > 50);
}

#[test]
fn every_operation_of_a_lease_can_be_dropped_after_each_event() {
    exhaust_leases(Drop::AfterEvents);
}

#[test]
fn every_operation_of_a_cold_pool_can_be_dropped_after_each_event() {
    exhaust_pool(Pool::Cold, Drop::AfterEvents);
}

#[test]
fn every_operation_of_a_warm_pool_can_be_dropped_after_each_event() {
    exhaust_pool(Pool::Warm, Drop::AfterEvents);
}

#[test]
fn every_operation_of_a_stale_pool_can_be_dropped_after_each_event() {
    exhaust_pool(Pool::Stale, Drop::AfterEvents);
}

#[test]
fn every_operation_of_a_busy_pool_can_be_dropped_after_each_event() {
    exhaust_pool(Pool::Busy, Drop::AfterEvents);
}

#[test]
fn every_operation_can_be_dropped_after_each_poll() {
    exhaust_leases(Drop::AfterPolls);
    for pool in [Pool::Cold, Pool::Warm, Pool::Stale, Pool::Busy] {
        exhaust_pool(pool, Drop::AfterPolls);
    }
}
