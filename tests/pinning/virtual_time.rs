//! Programs on the scripted server in virtual time; its own log of statements is the oracle.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use gdbpool::{Error, ErrorKind, InteractionPool, Outcome, Partial, PinnedTransaction};
use gdbpool_sim::{Answer, Kill, ScriptedServer, Sim, Type, Value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::program::{How, PINS, Span, Step, programs};
use super::scripted;

const LEASE: Duration = Duration::from_secs(10);
/// How far the pool's deadlines may lag.
const TICK: Duration = Duration::from_millis(100);

/// What has become of a pin, as far as the program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A statement failed: it can only end.
    Aborted,
    Killed,
    Expired,
}

struct Pin {
    /// Its statements carry this mark.
    mark: u32,
    transaction: PinnedTransaction,
    pid: i32,
    state: State,
    expires: gdbpool::Instant,
    /// Writes that its commit must keep, and those a dropped future may or may not have sent.
    writes: Vec<String>,
    unsure: Vec<String>,
}

struct Player {
    sim: Sim,
    server: ScriptedServer,
    db: InteractionPool,
    pins: [Option<Pin>; PINS],
    next: u32,
    /// What must be committed, and what may be.
    kept: Vec<String>,
    unsure: Vec<String>,
    pids: BTreeMap<u32, i32>,
}

impl Player {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let server = scripted::server(&sim, 1);
        server.on_prefix("INSERT INTO", Answer::tag("INSERT 0 1").after(Duration::from_millis(1)));
        server.on_prefix("BROKEN", Answer::error("22012", "division by zero"));
        server.on_prefix(
            "FETCH FORWARD",
            Answer::rows(&[("n", Type::Int4)], vec![vec![Value::Int(7)]]),
        );
        let xid = [("pg_current_xact_id_if_assigned", Type::Text)];
        let xid = Answer::rows(&xid, vec![vec![Value::Text("742".into())]]);
        server.on("SELECT pg_catalog.pg_current_xact_id_if_assigned()", xid);
        // One for everybody else.
        let config = scripted::config("one", 1).size(PINS as u32 + 1).hold_warning(None);
        let config = config.connect_backoff(Duration::from_millis(10), Duration::from_millis(100));
        let db = sim.block_on(InteractionPool::builder(sim.runtime()).pool(config).open());
        Self {
            db: db.expect("sound settings"),
            sim,
            server,
            pins: [const { None }; PINS],
            next: 0,
            kept: Vec::new(),
            unsure: Vec::new(),
            pids: BTreeMap::new(),
        }
    }

    fn sql(&mut self, mark: u32) -> String {
        self.next += 1;
        format!("INSERT INTO t VALUES ('{}.{mark}')", self.next)
    }

    fn play(&mut self, step: Step) {
        self.expire();
        match step {
            Step::Pin(pin, how) => self.pin(pin, how),
            Step::Statement(pin) => self.within(pin, |player, open| player.statement(open)),
            Step::Function(pin, fails) => self.within(pin, |player, open| player.function(open, fails)),
            Step::Fail(pin) => self.within(pin, Self::fail),
            Step::Cursor(pin) => self.within(pin, |player, open| player.cursor(open)),
            Step::Drop(pin, polls) => self.drop_future(pin, polls),
            Step::Elsewhere | Step::ElsewhereFunction => self.elsewhere(step == Step::Elsewhere),
            Step::Kill(pin) => self.kill(pin),
            Step::Wait(Span::Short) => self.sim.advance(LEASE / 5),
            Step::Wait(Span::Whole) => self.wait_for_expiry(),
            Step::Commit(pin) => self.commit(pin),
            Step::Rollback(pin) => self.roll_back(pin),
            Step::Abandon(pin) => drop(self.pins[pin].take()),
        }
    }

    /// The clock has moved: what expires, has.
    fn expire(&mut self) {
        let now = self.sim.now();
        for pin in self.pins.iter_mut().flatten() {
            if pin.expires <= now && pin.state != State::Killed {
                pin.state = State::Expired;
            }
        }
        // The pool's deadlines may lag; a program does not look in between.
        if self
            .pins
            .iter()
            .flatten()
            .any(|pin| pin.expires <= now && pin.expires + TICK > now)
        {
            self.sim.advance(TICK);
            self.expire();
        }
    }

    fn pin(&mut self, place: usize, how: How) {
        if self.pins[place].is_some() {
            return;
        }
        self.next += 1;
        let mark = self.next;
        let sql = self.sql(mark);
        let text = &sql;
        let before = self.sim.now();
        let begun = self.sim.block_on(async {
            match how {
                How::Statement => {
                    let run = self.db.run(text.as_str()).execute();
                    let Partial { transaction, .. } = run.partial().lease_time(LEASE).await?;
                    Ok::<_, Error>(transaction)
                }
                How::Function => {
                    let work = self.db.transact(|tx| async move { tx.batch(text).await });
                    Ok(work.partial().lease_time(LEASE).await?.transaction)
                }
            }
        });
        let transaction = begun.expect("there is a session for each, and one more");
        assert!(transaction.expires_at() >= before + LEASE);
        let pid = transaction.backend_pid();
        self.pids.insert(mark, pid);
        self.pins[place] = Some(Pin {
            mark,
            pid,
            expires: transaction.expires_at(),
            transaction,
            state: State::Open,
            writes: vec![sql],
            unsure: Vec::new(),
        });
    }

    /// A call within, and what it must say by the state of the pin.
    fn within(&mut self, place: usize, call: impl FnOnce(&mut Self, &mut Pin) -> Result<(), Error>) {
        let Some(mut pin) = self.pins[place].take() else { return };
        let result = call(self, &mut pin);
        check(&pin, &result);
        assert_eq!(pin.transaction.backend_pid(), pin.pid, "it was moved");
        self.pins[place] = Some(pin);
    }

    fn statement(&mut self, pin: &mut Pin) -> Result<(), Error> {
        let sql = self.sql(pin.mark);
        let run = self.db.run(sql.as_str()).execute().within(&mut pin.transaction);
        self.sim.block_on(run.into_future())?;
        pin.writes.push(sql);
        Ok(())
    }

    fn function(&mut self, pin: &mut Pin, fails: bool) -> Result<(), Error> {
        let [first, second] = [self.sql(pin.mark), self.sql(pin.mark)];
        let (one, two) = (&first, &second);
        let work = self.db.transact(|tx| async move {
            tx.batch(one).await?;
            tx.execute(two, &[]).await?;
            if fails { Err(Error::user("taken back")) } else { Ok(()) }
        });
        match self.sim.block_on(work.within(&mut pin.transaction).into_future()) {
            Ok(()) => pin.writes.extend([first, second]),
            Err(error) if matches!(error.kind(), ErrorKind::User) && fails && pin.state == State::Open => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn fail(&mut self, pin: &mut Pin) -> Result<(), Error> {
        let error = self
            .sim
            .block_on(pin.transaction.handle().batch("BROKEN"))
            .expect_err("broken");
        if pin.state == State::Open {
            assert!(matches!(error.kind(), ErrorKind::Database), "{error:?}");
            pin.state = State::Aborted;
        }
        Err(error)
    }

    fn cursor(&mut self, pin: &mut Pin) -> Result<(), Error> {
        self.sim.block_on(async {
            let sql = format!("SELECT n FROM t WHERE mark = '{}.{}'", self.next, pin.mark);
            let mut cursor = pin.transaction.cursor(&sql, &[], 5).await?;
            let rows = cursor.next().await?.expect("a batch");
            assert_eq!(rows.len(), 1);
            assert!(cursor.next().await?.is_none());
            cursor.close().await
        })
    }

    /// What was sent runs on in the transaction, and ends with it.
    fn drop_future(&mut self, place: usize, polls: u8) {
        let Some(mut pin) = self.pins[place].take() else { return };
        let sql = self.sql(pin.mark);
        {
            let handle = pin.transaction.handle();
            let mut call = self.sim.manual(handle.batch(&sql));
            for _ in 0..polls {
                if call.poll().is_ready() {
                    break;
                }
                self.sim.run_until_idle();
            }
        }
        pin.unsure.push(sql);
        self.pins[place] = Some(pin);
    }

    fn elsewhere(&mut self, is_statement: bool) {
        let sql = self.sql(0);
        let text = &sql;
        let done = self.sim.block_on(async {
            if is_statement {
                return self.db.run(text.as_str()).execute().await.map(|_| ());
            }
            self.db.transact(|tx| async move { tx.batch(text).await }).await
        });
        done.expect("one session is for everybody else");
        self.kept.push(sql);
    }

    fn kill(&mut self, place: usize) {
        let Some(pin) = &mut self.pins[place] else { return };
        if matches!(pin.state, State::Open | State::Aborted) {
            let sessions = self.server.sessions();
            let session = sessions
                .iter()
                .find(|session| session.pid == pin.pid)
                .expect("its session");
            self.server.kill_session(session.ordinal, Kill::Fatal);
            self.sim.run_until_idle();
            pin.state = State::Killed;
        }
    }

    /// Nobody polls anything: the pool itself rolls back what expires, in time.
    fn wait_for_expiry(&mut self) {
        self.sim.advance(LEASE + TICK);
        self.expire();
        for pin in self.pins.iter().flatten().filter(|pin| pin.state == State::Expired) {
            let sessions = self.server.sessions();
            let session = sessions
                .iter()
                .find(|session| session.pid == pin.pid)
                .expect("its session");
            assert!(
                session.closed || session.status == 'I',
                "not rolled back in time: {session:?}"
            );
        }
        let status = &self.db.status()[0];
        assert_eq!(status.leased, 0, "whatever was pinned is back: {status}");
    }

    fn commit(&mut self, place: usize) {
        let Some(pin) = self.pins[place].take() else { return };
        let result = self.sim.block_on(pin.transaction.commit()).map(|_| ());
        match (pin.state, result) {
            (State::Open, Ok(())) => {
                self.kept.extend(pin.writes);
                self.unsure.extend(pin.unsure);
            }
            (State::Open, Err(error)) => panic!("nothing was in the way: {error:?}"),
            (state, result) => {
                let error = result.expect_err("it was lost before");
                assert!(
                    matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted),
                    "{state:?}: {error:?}"
                );
                is_told(state, &error);
            }
        }
    }

    fn roll_back(&mut self, place: usize) {
        let Some(pin) = self.pins[place].take() else { return };
        let result = self.sim.block_on(pin.transaction.rollback());
        match pin.state {
            State::Open | State::Aborted => result.expect("rolled back"),
            State::Killed | State::Expired => drop(result.expect_err("it was over before")),
        }
    }

    /// The end: everything goes back, and the server's log is read.
    fn finish(mut self) {
        for pin in &mut self.pins {
            drop(pin.take());
        }
        self.sim.advance(Duration::from_secs(20));
        let status = &self.db.status()[0];
        assert!(
            status.idle == status.size && status.waiting == 0,
            "the slots are not back: {status}"
        );
        let sessions = self.server.sessions();
        for session in sessions.iter().filter(|session| !session.closed) {
            assert_eq!(session.status, 'I', "{session:?}");
            assert!(
                session.cursors.is_empty() && session.temp_tables.is_empty(),
                "{session:?}"
            );
            assert_eq!(session.settings["idle_in_transaction_session_timeout"], "0");
        }
        let committed: Vec<&String> = sessions.iter().flat_map(|session| &session.committed).collect();
        for sql in &self.kept {
            let times = committed.iter().filter(|kept| **kept == sql).count();
            assert_eq!(times, 1, "{sql} was committed {times} times");
        }
        for sql in &committed {
            assert!(
                self.kept.contains(sql) || self.unsure.contains(sql),
                "{sql} was not to be kept"
            );
        }
        for session in &sessions {
            read_log(session.pid, &session.statements, &self.pids);
        }
        assert_eq!(self.server.violations(), [""; 0]);
    }
}

/// The mark in a statement of a program; none in the library's own.
fn mark(sql: &str) -> Option<u32> {
    let (_, rest) = sql.rsplit_once('.')?;
    rest.split('\'').next()?.parse().ok()
}

/// On its own session, between one BEGIN and one end, and nobody else's between.
fn read_log(pid: i32, statements: &[String], pids: &BTreeMap<u32, i32>) {
    let mut inside: Option<Option<u32>> = None;
    let mut ended = Vec::new();
    for sql in statements {
        match sql.split_whitespace().next() {
            Some("BEGIN") => inside = Some(None),
            Some("COMMIT" | "ROLLBACK") if !sql.starts_with("ROLLBACK TO") => {
                ended.extend(inside.take().flatten());
            }
            _ => {
                let Some(mark) = mark(sql) else { continue };
                if mark == 0 {
                    assert!(
                        inside.is_none_or(|owner| owner.is_none_or(|owner| owner == 0)),
                        "{sql}: {statements:#?}"
                    );
                    continue;
                }
                assert_eq!(
                    pids.get(&mark),
                    Some(&pid),
                    "{sql} ran on another session: {statements:#?}"
                );
                assert!(!ended.contains(&mark), "{sql} ran behind its end: {statements:#?}");
                let owner = inside
                    .as_mut()
                    .unwrap_or_else(|| panic!("{sql} ran outside: {statements:#?}"));
                assert_eq!(
                    *owner.get_or_insert(mark),
                    mark,
                    "{sql} ran in another's: {statements:#?}"
                );
            }
        }
    }
}

fn is_told(state: State, error: &Error) {
    match state {
        State::Open => {}
        State::Aborted => assert!(
            matches!(error.kind(), ErrorKind::Database | ErrorKind::TransactionFailed),
            "{error:?}"
        ),
        State::Killed => assert!(
            matches!(
                error.kind(),
                ErrorKind::Lost | ErrorKind::PinExpired { .. } | ErrorKind::LeaseEnded | ErrorKind::TransactionFailed
            ),
            "{error:?}"
        ),
        State::Expired => {
            let ErrorKind::PinExpired { at, lease_time } = error.kind() else {
                panic!("{error:?}");
            };
            assert_eq!((at.file(), *lease_time), (file!(), LEASE));
            assert_eq!(error.outcome(), Outcome::RolledBack);
        }
    }
}

fn check(pin: &Pin, result: &Result<(), Error>) {
    match (pin.state, result) {
        (State::Open, Ok(())) => {}
        (State::Open, Err(error)) => panic!("nothing was in the way of {}: {error:?}", pin.mark),
        (state, Ok(())) => panic!("{state:?}, and a call within succeeded"),
        (state, Err(error)) => {
            assert!(
                matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted),
                "{state:?}: {error:?}"
            );
            is_told(state, error);
        }
    }
}

/// Prints what to run again.
struct Replay<'a>(u64, &'a [Step]);

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to replay: play({}, &{:?})", self.0, self.1);
        }
    }
}

fn play(seed: u64, program: &[Step]) -> u128 {
    let _replay = Replay(seed, program);
    let mut player = Player::new(seed);
    for step in program {
        player.play(*step);
    }
    let hash = player.sim.trace_hash();
    player.finish();
    hash
}

#[test]
fn programs_of_interactions_stay_on_their_sessions() {
    let config = Config {
        cases: 1_500,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(Default::default()),
    );
    let result = runner.run(&(any::<u64>(), programs(40)), |(seed, program)| {
        play(seed, &program);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn a_program_repeats_from_its_seed() {
    use Step::{Commit, Cursor, Elsewhere, Function, Kill, Pin, Statement, Wait};
    let program = [
        Pin(0, How::Statement),
        Pin(1, How::Function),
        Pin(2, How::Statement),
        Statement(0),
        Elsewhere,
        Function(1, true),
        Cursor(0),
        Kill(1),
        Statement(1),
        Commit(0),
        Wait(Span::Whole),
        Statement(2),
        Commit(2),
    ];
    for seed in 0..20 {
        assert_eq!(play(seed, &program), play(seed, &program), "seed {seed}");
    }
}

#[test]
fn an_expiry_in_the_midst_of_a_statement_is_told_with_its_place() {
    let player = Player::new(1);
    player
        .server
        .on("INSERT INTO slow", Answer::tag("INSERT 0 1").after(LEASE * 3));
    let mut player = player;
    player.pin(0, How::Statement);
    let mut pin = player.pins[0].take().expect("pinned");
    let run = player.db.run("INSERT INTO slow").execute().within(&mut pin.transaction);
    let error = player.sim.block_on(run.into_future()).expect_err("expired");
    is_told(State::Expired, &error);
    let waited = player.sim.now() - pin.expires;
    assert!(
        waited <= TICK + Duration::from_secs(1),
        "{waited:?} after its lease time"
    );
    drop(pin);
    player.finish();
}
