//! Conflicts that are brought about on purpose: write skew, deadlock, and failures that a function keeps to itself.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use gdbpool::{Error, ErrorKind, InteractionPool, Isolation, Outcome, Phase, Runtime, Transaction};

use super::one_database::{World, on_each_server};
use super::runtimes::until;
use super::state;

const SET_UP: &str = "CREATE TABLE doctors (id int PRIMARY KEY, on_call bool NOT NULL); \
    INSERT INTO doctors VALUES (1, true), (2, true); \
    CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counters VALUES (1, 0), (2, 0); \
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''20ms''', current_database()); END $$";

/// Two functions meet here in their first runs.
#[derive(Clone)]
struct Meeting {
    runtime: Arc<dyn Runtime>,
    there: Arc<AtomicU32>,
    runs: Arc<AtomicU32>,
    /// What the server refused.
    states: Arc<Mutex<Vec<String>>>,
}

impl Meeting {
    fn new(world: &World) -> Self {
        Self {
            runtime: Arc::clone(&world.runtime),
            there: Arc::default(),
            runs: Arc::default(),
            states: Arc::default(),
        }
    }

    /// Waits for the other one, in the first run.
    async fn wait(&self, run: u32) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        if run == 1 {
            self.there.fetch_add(1, Ordering::SeqCst);
            until(&*self.runtime, "both are there", || {
                self.there.load(Ordering::SeqCst) == 2
            })
            .await;
        }
    }

    fn note(&self, error: Error) -> Error {
        let mut states = self.states.lock().expect("no panic");
        states.extend(state(&error).map(str::to_owned));
        error
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

/// A doctor leaves if another one stays.
async fn leave(tx: Transaction, meeting: Meeting, doctor: i32, run: u32) -> Result<bool, Error> {
    let count = "SELECT count(*) FROM doctors WHERE on_call";
    let on_call: i64 = tx.query_one(count, &[]).await?.get(0);
    meeting.wait(run).await;
    if on_call < 2 {
        return Ok(false);
    }
    tx.execute("UPDATE doctors SET on_call = false WHERE id = $1", &[&doctor])
        .await?;
    Ok(true)
}

#[test]
fn write_skew_does_not_get_through() {
    on_each_server(SET_UP, async |world: World| {
        for _ in 0..4 {
            world.psql("UPDATE doctors SET on_call = true");
            let meeting = Meeting::new(&world);
            let left = [1, 2].map(|doctor| {
                let (meeting, mut run) = (meeting.clone(), 0);
                let order = world.db.transact(move |tx| {
                    run += 1;
                    leave(tx, meeting.clone(), doctor, run)
                });
                order.isolation(Isolation::Serializable).spawn()
            });
            let mut gone = 0;
            for left in left {
                gone += u32::from(left.await.expect("run again until it fits"));
            }
            assert_eq!(gone, 1, "one leaves, the other sees it");
            assert_eq!(world.psql("SELECT count(*) FROM doctors WHERE on_call"), "1");
            assert!(meeting.runs() > 2, "one of them was run again");
        }
    });
}

/// Counts up two rows, in this order.
async fn count_up(tx: Transaction, meeting: Meeting, order: [i32; 2], run: u32) -> Result<(), Error> {
    let sql = "UPDATE counters SET n = n + 1 WHERE id = $1";
    tx.execute(sql, &[&order[0]])
        .await
        .map_err(|error| meeting.note(error))?;
    meeting.wait(run).await;
    tx.execute(sql, &[&order[1]])
        .await
        .map_err(|error| meeting.note(error))?;
    Ok(())
}

#[test]
fn a_deadlock_is_run_again() {
    on_each_server(SET_UP, async |world: World| {
        let meeting = Meeting::new(&world);
        let both = [[1, 2], [2, 1]].map(|order| {
            let (meeting, mut run) = (meeting.clone(), 0);
            let interaction = world.db.run(move |tx: Transaction| {
                run += 1;
                count_up(tx, meeting.clone(), order, run)
            });
            interaction.spawn()
        });
        for done in both {
            done.await.expect("run again");
        }
        let states = meeting.states.lock().expect("no panic").clone();
        assert!(states.contains(&"40P01".to_owned()), "{states:?}");
        assert!(states.iter().all(|state| state == "40P01"), "{states:?}");
        assert_eq!(world.psql("SELECT string_agg(n::text, ' ') FROM counters"), "2 2");
    });
}

/// A function whose first `spoilt` runs meet a change that was committed after they began to look; it keeps the failure
/// to itself, or tells it.
fn interfered<'a>(
    world: &'a World,
    db: &'a InteractionPool,
    (spoilt, tells): (u32, bool),
    runs: &'a AtomicU32,
) -> gdbpool::Transact<'a, 'a, impl FnMut(Transaction) -> gdbpool::BoxFuture<'a, Result<bool, Error>> + Send + 'a> {
    let order = db.transact(move |tx: Transaction| {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            tx.query("SELECT n FROM counters", &[]).await?;
            if run <= spoilt {
                world.psql("UPDATE counters SET n = n + 10 WHERE id = 1");
            }
            let counted = tx.execute("UPDATE counters SET n = n + 1 WHERE id = 1", &[]).await;
            if tells {
                counted.map(|_| true)
            } else {
                Ok(counted.is_ok())
            }
        }) as gdbpool::BoxFuture<'a, Result<bool, Error>>
    });
    order.isolation(Isolation::RepeatableRead)
}

#[test]
fn a_conflict_that_the_function_keeps_to_itself_is_run_again() {
    on_each_server(SET_UP, async |world: World| {
        let n = || world.psql("SELECT n FROM counters WHERE id = 1");
        let runs = AtomicU32::new(0);
        let done = interfered(&world, &world.db, (2, false), &runs).await;
        assert_eq!(done.ok(), Some(true), "what the last run gave");
        assert_eq!((runs.load(Ordering::SeqCst), n()), (3, "21".to_owned()));
        let runs = AtomicU32::new(0);
        let error = interfered(&world, &world.db, (9, false), &runs).reruns(0).await;
        let error = error.expect_err("it may not be run again");
        assert!(matches!(error.kind(), ErrorKind::TransactionFailed), "{error:?}");
        assert_eq!(
            (error.outcome(), error.phase()),
            (Outcome::RolledBack, Phase::Committing)
        );
        assert_eq!((runs.load(Ordering::SeqCst), n()), (1, "31".to_owned()));
    });
}

#[test]
fn it_is_run_as_often_as_its_caller_allows() {
    on_each_server(SET_UP, async |world: World| {
        for limit in [0, 1, 3] {
            let runs = AtomicU32::new(0);
            let error = interfered(&world, &world.db, (99, true), &runs).reruns(limit).await;
            let error = error.expect_err("it never gets through");
            assert_eq!((state(&error), error.outcome()), (Some("40001"), Outcome::RolledBack));
            assert!(error.is_retryable(), "{error:?}");
            assert_eq!(runs.load(Ordering::SeqCst), limit + 1);
        }
    });
}

#[test]
fn inside_a_pin_nothing_is_run_again() {
    on_each_server(SET_UP, async |world: World| {
        let runs = AtomicU32::new(0);
        let partial = interfered(&world, &world.db, (9, true), &runs).partial().await;
        let error = partial.expect_err("a conflict");
        assert_eq!((state(&error), error.outcome()), (Some("40001"), Outcome::RolledBack));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let runs = AtomicU32::new(0);
        let look = |tx: Transaction| async move { tx.query("SELECT n FROM counters", &[]).await };
        let pin = world
            .db
            .transact(look)
            .isolation(Isolation::RepeatableRead)
            .partial()
            .await;
        let mut pin = pin.expect("pinned").transaction;
        let within = interfered(&world, &world.db, (9, true), &runs).within(&mut pin).await;
        let error = within.expect_err("a conflict");
        assert_eq!(state(&error), Some("40001"));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    });
}
