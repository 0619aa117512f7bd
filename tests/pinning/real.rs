//! Smaller programs on real servers and runtimes: each write keeps its backend and its transaction, and the rows tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gdbpool::{Error, ErrorKind, InteractionPool, Outcome, PinnedTransaction, PoolConfig, Runtime};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRng, TestRunner};

use super::program::{PINS, Span, Step, programs};
use super::runtimes::{on_each, until};
use super::support::{Cluster, Server, fresh_database, shared_cluster};

const SET_UP: &str = "CREATE TABLE wrote (mark int, step int, pid int DEFAULT pg_backend_pid(), \
    xid text DEFAULT pg_current_xact_id()::text); GRANT ALL ON wrote TO app";
const WRITE: &str = "INSERT INTO wrote VALUES ($1, $2)";
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(120);
const PROGRAMS: usize = 12;

struct Pin {
    mark: i32,
    transaction: PinnedTransaction,
    /// Nothing was done to it that it cannot survive.
    sound: bool,
    killed: bool,
    writes: usize,
    /// Whether a dropped future may have written one more.
    unsure: bool,
}

struct World {
    runtime: Arc<dyn Runtime>,
    cluster: &'static Cluster,
    database: String,
    db: InteractionPool,
    pins: [Option<Pin>; PINS],
    step: i32,
    /// The number of rows of each mark that was committed, at least and at most.
    kept: BTreeMap<i32, (usize, usize)>,
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, server: Server) -> Self {
        let cluster = &shared_cluster(server).primary;
        let dsn = fresh_database(cluster);
        let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        cluster.psql_in(&database, SET_UP);
        let config = PoolConfig::new("main", &dsn)
            .expect("a sound DSN")
            .size(PINS as u32 + 1);
        let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config);
        Self {
            db: builder.open().await.expect("sound settings"),
            runtime,
            cluster,
            database,
            pins: [const { None }; PINS],
            step: 0,
            kept: BTreeMap::new(),
        }
    }

    fn psql(&self, sql: &str) -> String {
        self.cluster.psql_in(&self.database, sql)
    }

    async fn play(&mut self, step: Step) {
        self.step += 1;
        let number = self.step;
        match step {
            Step::Pin(place, _) => self.pin(place, LONG).await,
            Step::Wait(Span::Whole) => self.expire().await,
            Step::Wait(Span::Short) => {}
            Step::Elsewhere | Step::ElsewhereFunction => {
                let work = self
                    .db
                    .transact(|tx| async move { tx.execute(WRITE, &[&-number, &number]).await });
                work.await.expect("one session is for everybody else");
                self.kept.insert(-number, (1, 1));
            }
            Step::Statement(place)
            | Step::Function(place, _)
            | Step::Fail(place)
            | Step::Cursor(place)
            | Step::Drop(place, _) => {
                if let Some(mut pin) = self.pins[place].take() {
                    self.within(&mut pin, step, number).await;
                    self.pins[place] = Some(pin);
                }
            }
            Step::Kill(place) => {
                if let Some(pin) = &mut self.pins[place] {
                    let pid = pin.transaction.backend_pid();
                    (pin.sound, pin.killed) = (false, true);
                    self.psql(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
                }
            }
            Step::Commit(place) => self.commit(place).await,
            Step::Rollback(place) => {
                if let Some(pin) = self.pins[place].take() {
                    let done = pin.transaction.rollback().await;
                    assert!(done.is_ok() || pin.killed, "{done:?}");
                }
            }
            Step::Abandon(place) => drop(self.pins[place].take()),
        }
    }

    async fn pin(&mut self, place: usize, lease_time: Duration) {
        if self.pins[place].is_some() {
            return;
        }
        let mark = self.step;
        let first = self.db.run(WRITE).bind(mark).bind(self.step).execute().partial();
        let begun = first.lease_time(lease_time).await.expect("begun");
        self.pins[place] = Some(Pin {
            mark,
            transaction: begun.transaction,
            sound: true,
            killed: false,
            writes: 1,
            unsure: false,
        });
    }

    async fn within(&self, pin: &mut Pin, step: Step, number: i32) {
        let (mark, db) = (pin.mark, &self.db);
        let result = match step {
            Step::Function(_, fails) => {
                let work = db.transact(|tx| async move {
                    tx.execute(WRITE, &[&mark, &number]).await?;
                    if fails { Err(Error::user("taken back")) } else { Ok(1) }
                });
                match work.within(&mut pin.transaction).await {
                    Err(error) if fails && pin.sound => {
                        assert!(matches!(error.kind(), ErrorKind::User), "{error:?}");
                        Ok(0)
                    }
                    done => done,
                }
            }
            Step::Fail(_) => {
                let failed = pin.transaction.handle().batch("SELECT 1/0").await;
                failed.expect_err("division by zero");
                pin.sound = false;
                return;
            }
            Step::Cursor(_) => {
                let rows = async {
                    let mut cursor = pin.transaction.cursor("SELECT generate_series(1, 7)", &[], 5).await?;
                    let mut seen = 0;
                    while let Some(batch) = cursor.next().await? {
                        seen += batch.len();
                    }
                    assert_eq!(seen, 7);
                    Ok(0)
                };
                rows.await
            }
            Step::Drop(..) => {
                let handle = pin.transaction.handle();
                let write = format!("INSERT INTO wrote VALUES ({mark}, {number})");
                let mut call = Box::pin(handle.batch(&write));
                let _ = futures::poll!(call.as_mut());
                pin.unsure = true;
                return;
            }
            _ => {
                db.run(WRITE)
                    .bind(mark)
                    .bind(number)
                    .execute()
                    .within(&mut pin.transaction)
                    .await
            }
        };
        match result {
            Ok(writes) => {
                assert!(pin.sound, "a call within succeeded");
                pin.writes += writes as usize;
            }
            Err(error) => {
                assert!(!pin.sound, "{error:?}");
                let undone = matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted);
                assert!(undone, "{error:?}");
            }
        }
    }

    /// One that expires, with nobody to poll it.
    async fn expire(&mut self) {
        let Some(place) = self.pins.iter().position(Option::is_none) else {
            return;
        };
        self.pin(place, SHORT).await;
        let mut pin = self.pins[place].take().expect("pinned");
        let pid = pin.transaction.backend_pid();
        let state = format!("SELECT coalesce((SELECT state FROM pg_stat_activity WHERE pid = {pid}), 'idle')");
        until(&*self.runtime, "it was rolled back", || self.psql(&state) == "idle").await;
        let late = self
            .db
            .run("SELECT 1")
            .within(&mut pin.transaction)
            .await
            .expect_err("expired");
        let ErrorKind::PinExpired { at, lease_time } = late.kind() else {
            panic!("{late:?}");
        };
        assert_eq!(
            (at.file(), *lease_time, late.outcome()),
            (file!(), SHORT, Outcome::RolledBack)
        );
        let late = pin.transaction.commit().await.expect_err("expired");
        assert!(matches!(late.kind(), ErrorKind::PinExpired { .. }), "{late:?}");
    }

    async fn commit(&mut self, place: usize) {
        let Some(pin) = self.pins[place].take() else { return };
        match pin.transaction.commit().await {
            Ok(receipt) => {
                assert!(pin.sound, "committed, after it was lost");
                assert!(receipt.transaction_id().is_some());
                self.kept
                    .insert(pin.mark, (pin.writes, pin.writes + 50 * usize::from(pin.unsure)));
            }
            Err(error) => {
                assert!(!pin.sound, "{error:?}");
                assert_eq!(error.outcome(), Outcome::RolledBack, "{error:?}");
            }
        }
    }

    /// Everything is given back, and the rows are read.
    async fn finish(mut self) {
        for pin in &mut self.pins {
            drop(pin.take());
        }
        until(&*self.runtime, "the slots are back", || {
            let status = &self.db.status()[0];
            status.idle == status.size && status.waiting == 0
        })
        .await;
        let rows = self.psql(
            "SELECT mark || ' ' || count(*) || ' ' || count(DISTINCT pid) || ' ' || count(DISTINCT xid) \
            FROM wrote GROUP BY mark",
        );
        let mut seen = BTreeMap::new();
        for row in rows.lines() {
            let numbers: Vec<i64> = row.split(' ').map(|n| n.parse().expect("a number")).collect();
            assert_eq!(numbers[2..], [1, 1], "of one backend and one transaction: {row}");
            seen.insert(numbers[0] as i32, numbers[1] as usize);
        }
        assert_eq!(seen.keys().collect::<Vec<_>>(), self.kept.keys().collect::<Vec<_>>());
        for (mark, (least, most)) in &self.kept {
            assert!(
                (*least..=*most).contains(&seen[mark]),
                "{mark}: {seen:?} {:?}",
                self.kept
            );
        }
        for report in self.db.close(Duration::from_secs(20)).await {
            assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
        }
    }
}

#[test]
fn programs_stay_on_their_backends() {
    let rng = TestRng::deterministic_rng(Default::default());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut draw = || programs(25).new_tree(&mut runner).expect("a program").current();
    let drawn: Arc<Vec<Vec<Step>>> = Arc::new((0..PROGRAMS).map(|_| draw()).collect());
    for server in [Server::V15, Server::V18] {
        let drawn = Arc::clone(&drawn);
        on_each(move |runtime| {
            let drawn = Arc::clone(&drawn);
            Box::pin(async move {
                for program in &*drawn {
                    let mut world = World::new(Arc::clone(&runtime), server).await;
                    for step in program {
                        world.play(*step).await;
                    }
                    world.finish().await;
                }
            })
        });
    }
}
