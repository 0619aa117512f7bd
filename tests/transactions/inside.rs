//! What runs in a pinned transaction, or opens one: what is refused, what a failure says, and who ends it when.

use std::time::Duration;

use gdbpool::{BadInput, BoxFuture, Error, ErrorKind, Outcome, Partial, PinnedTransaction, PoolConfig, Transaction};

use super::{World, on_each_server};

const INSERT: &str = "INSERT INTO t VALUES ($1)";
const TWO: &str = "INSERT INTO t VALUES (1), (2) RETURNING n";
const NULL: &str = "INSERT INTO u VALUES (NULL) RETURNING n";

/// Reads one row, or none, of an answer that has two.
type Read = fn(Transaction) -> BoxFuture<'static, Option<Error>>;

/// How a statement is read whose answer does not fit.
#[derive(Clone, Copy, Debug)]
enum Misread {
    One,
    Opt,
    Null,
    NullInTuple,
    OtherType,
}

const MISREADS: [Misread; 5] = [
    Misread::One,
    Misread::Opt,
    Misread::Null,
    Misread::NullInTuple,
    Misread::OtherType,
];

impl Misread {
    async fn within(self, world: &World, pin: &mut PinnedTransaction) -> Option<Error> {
        let db = &world.db;
        match self {
            Self::One => db.run(TWO).one().within(pin).await.err(),
            Self::Opt => db.run(TWO).opt().within(pin).await.err(),
            Self::Null => db.run(NULL).scalar::<i64>().within(pin).await.err(),
            Self::NullInTuple => db.run(NULL).typed::<(i64,)>().within(pin).await.err(),
            Self::OtherType => db.run(NULL).typed::<(String,)>().within(pin).await.err(),
        }
    }

    async fn partial(self, world: &World) -> Option<Error> {
        let db = &world.db;
        match self {
            Self::One => db.run(TWO).one().partial().await.err(),
            Self::Opt => db.run(TWO).opt().partial().await.err(),
            Self::Null => db.run(NULL).scalar::<i64>().partial().await.err(),
            Self::NullInTuple => db.run(NULL).typed::<(i64,)>().partial().await.err(),
            Self::OtherType => db.run(NULL).typed::<(String,)>().partial().await.err(),
        }
    }
}

/// How many rows there are in all.
fn count(world: &World) -> String {
    world.psql("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)")
}

fn is_conflict(error: Option<Error>) {
    let error = error.expect("refused");
    assert!(
        matches!(error.kind(), ErrorKind::BadInput(BadInput::Conflict { .. })),
        "{error:?}"
    );
    assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
}

#[test]
fn what_cannot_be_read_at_once_is_refused() {
    on_each_server(async |world: World| {
        let db = &world.db;
        is_conflict(db.run("INSERT INTO t VALUES (7)").stream().partial().await.err());
        is_conflict(db.run("INSERT INTO t VALUES (7)").batch().partial().await.err());
        is_conflict(db.run(INSERT).bind(7i32).dry_run().partial().await.err());
        assert_eq!(db.status()[0].checkouts, 0, "nobody was asked");

        let mut pin = db.run(INSERT).bind(1i32).partial().await.expect("begun").transaction;
        let streamed = db.run("INSERT INTO t VALUES (7)").stream().within(&mut pin);
        is_conflict(streamed.await.err());
        is_conflict(db.run("INSERT INTO t VALUES (7)").batch().within(&mut pin).await.err());
        is_conflict(db.run(INSERT).bind(7i32).dry_run().within(&mut pin).await.err());
        let added = db.run(INSERT).bind(2i32).execute().within(&mut pin).await;
        assert_eq!(added.expect("the transaction goes on"), 1);
        pin.commit().await.expect("committed");
        assert_eq!(world.rows(), "1 2");
    });
}

#[test]
fn an_answer_that_does_not_fit_is_not_called_committed() {
    on_each_server(async |world: World| {
        world.psql("CREATE TABLE u (n int8)");
        for misread in MISREADS {
            let error = misread.partial(&world).await.expect("it does not fit");
            assert_ne!(error.outcome(), Outcome::Committed, "{misread:?}: {error:?}");
            world.is_left_clean().await;
            assert_eq!(count(&world), "0", "{misread:?}");

            for commits in [false, true] {
                let opened = world.db.run("SELECT 1").on_pool("main").partial().await;
                let mut pin = opened.expect("begun").transaction;
                let error = misread.within(&world, &mut pin).await.expect("it does not fit");
                assert_ne!(error.outcome(), Outcome::Committed, "{misread:?}: {error:?}");
                if commits {
                    let committed = pin.commit().await;
                    let stayed = count(&world) != "0";
                    assert!(committed.is_ok() || !stayed, "{misread:?}: {committed:?}");
                    let undone = matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted);
                    assert!(!(undone && stayed), "{misread:?}: {error:?}");
                    world.psql("TRUNCATE t, u");
                } else {
                    pin.rollback().await.expect("rolled back");
                    assert_eq!(count(&world), "0", "{misread:?}");
                }
            }
        }
    });
}

#[test]
fn rows_that_were_too_many_are_kept_by_a_function_that_says_ok() {
    on_each_server(async |world: World| {
        let both: [Read; 2] = [
            |tx| Box::pin(async move { tx.query_opt(TWO, &[]).await.err() }),
            |tx| Box::pin(async move { tx.query_one(TWO, &[]).await.err() }),
        ];
        for read in both {
            let kept = world.db.transact(|tx| async move { Ok(read(tx).await) }).await;
            let error = kept.expect("committed").expect("two rows");
            assert!(matches!(error.kind(), ErrorKind::RowCount { .. }), "{error:?}");
            assert_eq!(world.rows(), "1 2");
            assert!(
                !matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted),
                "{error:?}"
            );
            world.psql("TRUNCATE t");
        }
    });
}

#[test]
fn an_answer_that_did_not_come_in_time_is_no_success() {
    on_each_server(async |world: World| {
        let dsn = world.pair.primary.dsn_to(&world.database);
        let hasty = PoolConfig::new("hasty", &dsn).expect("a sound DSN").size(1);
        let hasty = hasty.answer_timeout(Some(Duration::from_millis(500)));
        world.db.add_pool(hasty).expect("a new name");
        // The first comes while COMMIT waits behind it; the second never.
        for sql in [
            "INSERT INTO t SELECT 1 FROM pg_sleep(1.2)",
            "INSERT INTO t SELECT 1 FROM pg_sleep(60)",
        ] {
            let error = world
                .db
                .transact(|tx| async move {
                    let error = tx.execute(sql, &[]).await.expect_err("it takes longer");
                    assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
                    assert_ne!(error.outcome(), Outcome::Committed, "{error:?}");
                    Ok(())
                })
                .on_pool("hasty")
                .reruns(0)
                .timeout(Duration::from_secs(20))
                .await
                .expect_err("its own failure was kept quiet");
            assert!(
                matches!(error.outcome(), Outcome::RolledBack | Outcome::Unknown),
                "{error:?}"
            );
            let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND wait_event = 'PgSleep'";
            world.until("it was stopped", || world.psql(asleep) == "0").await;
            assert_eq!(world.rows(), "");
        }
    });
}

/// The server's own bounds, in milliseconds; 0 is none, and before version 17 there is none for transactions.
async fn bounds(tx: &Transaction) -> Result<[Option<u64>; 2], Error> {
    let sql = "SELECT setting::int8 FROM pg_settings WHERE name = $1";
    let mut bounds = [None; 2];
    for (bound, name) in bounds
        .iter_mut()
        .zip(["idle_in_transaction_session_timeout", "transaction_timeout"])
    {
        let row = tx.query_opt(sql, &[&name]).await?;
        *bound = row.map(|row| u64::try_from(row.get::<_, i64>(0)).expect("a span"));
    }
    Ok(bounds)
}

#[test]
fn the_server_does_not_end_it_before_the_library_does() {
    on_each_server(async |world: World| {
        let (lease, runtime) = (Duration::from_secs(1), &world.runtime);
        let deadline = runtime.now() + Duration::from_secs(30);
        let opened = world
            .db
            .transact(|tx| async move {
                let left = deadline.saturating_since(runtime.now());
                Ok((left, bounds(&tx).await?))
            })
            .deadline(deadline)
            .partial()
            .lease_time(lease)
            .await;
        let Partial {
            result: (left, inside),
            transaction: mut pin,
        } = opened.expect("begun");
        for bound in inside.into_iter().flatten() {
            assert!(
                bound == 0 || Duration::from_millis(bound) >= left,
                "{bound} ms, but {left:?} are left to the function"
            );
        }
        let [idle, whole] = bounds(&pin.handle()).await.expect("an open transaction");
        let fits = |bound: Option<u64>| {
            let bound = Duration::from_millis(bound.expect("it is there"));
            assert!(bound > lease && bound <= lease + Duration::from_secs(10), "{bound:?}");
        };
        fits(idle);
        if whole.is_some() {
            fits(whole);
        }
        pin.rollback().await.expect("rolled back");
    });
}

#[test]
fn the_error_of_another_call_does_not_speak_for_this_transaction() {
    on_each_server(async |world: World| {
        let db = &world.db;
        world.psql("CREATE TABLE u (n int8)");
        let mut pin = db.run(INSERT).bind(3i32).partial().await.expect("begun").transaction;
        // Somebody else's rows were too many, and are committed; this function's row is taken back.
        let error = db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&4i32]).await?;
                let other = db.run("INSERT INTO u VALUES (1), (2) RETURNING n").one().await;
                other.map(drop)
            })
            .within(&mut pin)
            .await
            .expect_err("two rows");
        assert_eq!(error.outcome(), Outcome::RolledBack, "{error:?}");
        // Nobody knows what became of somebody else's statement.
        let error = db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&4i32]).await?;
                let other = db.run("SELECT pg_terminate_backend(pg_backend_pid())").on_pool("main");
                other.await.map(drop)
            })
            .within(&mut pin)
            .await
            .expect_err("its session is lost");
        assert!(matches!(error.kind(), ErrorKind::User), "{error:?}");
        assert_eq!(error.outcome(), Outcome::RolledBack, "{error:?}");
        let behind = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
        assert_eq!(behind.map(Error::outcome), Some(Outcome::Unknown), "{error:?}");
        // Refused by another pool before anything was sent; but here something was.
        let error = db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&5i32]).await?;
                db.run("SELECT 1").on_pool("no such pool").await.map(drop)
            })
            .within(&mut pin)
            .await
            .expect_err("no such pool");
        assert_eq!(error.outcome(), Outcome::RolledBack, "{error:?}");
        pin.commit().await.expect("committed");
        assert_eq!((world.rows(), count(&world)), ("3".to_owned(), "3".to_owned()));
    });
}
