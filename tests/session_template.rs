//! Promise: what `on_connect` makes of a session is there before anybody gets it, and again after each full clean-up; where
//! it fails there is no session, and the error names it.

#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::error::Error as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gdbpool::{
    CloseReason, ConnectionPool, Error, ErrorKind, InteractionPool, Outcome, Phase, PoolConfig, Runtime, Setup,
};

use runtimes::{on_each, until};
use support::{Server, fresh_database, shared_cluster};

/// Runs `body` with a DSN of a database of its own, on both servers and all runtimes.
fn on_each_server<F>(body: impl Fn(Arc<dyn Runtime>, String) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        let dsn = fresh_database(&shared_cluster(server).primary);
        on_each(|runtime| {
            let dsn = dsn.clone();
            Box::pin(async move { body(runtime, dsn).await })
        });
    }
}

fn config(dsn: &str) -> PoolConfig {
    PoolConfig::new("main", dsn).expect("a sound DSN").size(1)
}

fn open(runtime: &Arc<dyn Runtime>, config: PoolConfig) -> ConnectionPool {
    ConnectionPool::open(Arc::clone(runtime), config).expect("sound settings")
}

/// An error and all its causes.
fn all_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The one session of the pool, once it has settled; its process id, a setting, and what the temporary table holds.
async fn look(pool: &ConnectionPool) -> (i32, String, i64) {
    let lease = pool.checkout().await.expect("a session");
    let row = lease
        .query_one(
            "SELECT current_setting('my.tenant'), (SELECT count(*) FROM scratch)",
            &[],
        )
        .await
        .expect("the template");
    (lease.backend_pid(), row.get(0), row.get(1))
}

/// Does away with all that the template made.
async fn wreck(pool: &ConnectionPool) {
    let lease = pool.checkout().await.expect("a session");
    lease
        .batch("SET my.tenant = 'wrecked'; INSERT INTO scratch VALUES (1), (2); SET ROLE pg_monitor; DISCARD TEMP")
        .await
        .expect("it takes everything");
}

/// By whatever it was said, by ours if by nothing, and again after a clean-up.
#[test]
fn the_server_shows_a_name() {
    on_each_server(|runtime, dsn| async move {
        for (rest, said, expected) in [
            ("", None, "gdbpool"),
            ("application_name=", None, "gdbpool"),
            ("fallback_application_name=least", None, "least"),
            ("fallback_application_name=least application_name=more", None, "more"),
            ("application_name=more", Some("most"), "most"),
        ] {
            let config = config(&format!("{dsn} {rest}"));
            let config = match said {
                Some(name) => config.application_name(name),
                None => config,
            };
            let pool = open(&runtime, config);
            let mut pids = Vec::new();
            for _ in 0..2 {
                let lease = pool.checkout().await.expect("a session");
                let sql = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
                let name = lease.query_one(sql, &[]).await.expect("a row");
                assert_eq!(name.get::<_, &str>(0), expected, "{rest:?}");
                lease.batch("SET application_name = 'mallory'").await.expect("set");
                pids.push(lease.backend_pid());
            }
            assert_eq!(pids[0], pids[1], "the same session");
        }
    });
}

#[test]
fn what_texts_set_survives_every_clean_up() {
    on_each_server(|runtime, dsn| async move {
        for prepared in [false, true] {
            let mut config = config(&dsn)
                .on_connect_sql("SET my.tenant = 'acme'; CREATE TEMP TABLE scratch (n int)")
                .on_connect_sql("INSERT INTO scratch VALUES (7)");
            if prepared {
                config = config.on_connect_sql("PREPARE seven AS SELECT 7");
            }
            let pool = open(&runtime, config);
            let first = look(&pool).await;
            assert_eq!((&*first.1, first.2), ("acme", 1));
            for _ in 0..3 {
                wreck(&pool).await;
                assert_eq!(look(&pool).await, first, "the same session, as it began");
                if prepared {
                    let lease = pool.checkout().await.expect("a session");
                    lease.batch("EXECUTE seven").await.expect("prepared again");
                }
            }
            pool.close(Duration::from_secs(20)).await;
        }
    });
}

#[test]
fn a_function_runs_on_each_session_and_after_each_clean_up_only() {
    on_each_server(|runtime, dsn| async move {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let config = config(&dsn).on_connect(move |setup: Setup| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                let rows = setup
                    .query("SELECT $1::text || 'me', pg_backend_pid()", &[&"ac"])
                    .await?;
                assert_eq!(rows[0].get::<_, i32>(1), setup.backend_pid());
                let tenant: &str = rows[0].get(0);
                assert_eq!(
                    setup
                        .execute("SELECT set_config('my.tenant', $1, false)", &[&tenant])
                        .await?,
                    1
                );
                setup.batch("CREATE TEMP TABLE scratch (n int)").await
            }
        });
        let db = InteractionPool::builder(Arc::clone(&runtime))
            .pool(config)
            .open()
            .await
            .expect("sound settings");
        let pool = db.pool("main").expect("the pool");
        let tenant = || async {
            let row = db
                .run("SELECT current_setting('my.tenant')")
                .one()
                .await
                .expect("a row");
            row.get::<_, String>(0)
        };
        assert_eq!(tenant().await, "acme");
        assert_eq!(tenant().await, "acme");
        assert_eq!(calls.load(Ordering::SeqCst), 1, "a plain statement needs no clean-up");
        for round in 2..5 {
            drop(pool.checkout().await.expect("a session"));
            wreck(&pool).await;
            assert_eq!(tenant().await, "acme");
            assert_eq!(calls.load(Ordering::SeqCst), round, "once per clean-up");
        }
        assert_eq!(pool.status().connects, 1);
        // The read-only mode of a `.read()` is not the template's: the function runs without it.
        let _ = db
            .run("SELECT set_config('my.tenant', 'x', false)")
            .read()
            .await
            .expect("a read");
        assert_eq!(tenant().await, "acme");
        db.close(Duration::from_secs(20)).await;
    });
}

/// Opens a pool whose template cannot work, and gives what its callers are told.
async fn refused(runtime: &Arc<dyn Runtime>, config: PoolConfig) -> Arc<Error> {
    let pool = open(runtime, config.min_size(1));
    until(&**runtime, "the connect fails", || pool.last_connect_error().is_some()).await;
    let error = pool.last_connect_error().expect("a connect error");
    let timed_out = pool.checkout_within(Duration::from_millis(1)).await.map(drop);
    assert!(matches!(
        timed_out.expect_err("no session").kind(),
        ErrorKind::CheckoutTimeout(_)
    ));
    let status = pool.status();
    assert_eq!((status.connects, status.idle), (0, 0), "{status}");
    pool.close(Duration::from_secs(20)).await;
    error
}

#[test]
fn a_failing_template_is_a_connect_error_that_names_it() {
    on_each_server(|runtime, dsn| async move {
        let sql = config(&dsn)
            .on_connect_sql("SELECT 1")
            .on_connect_sql("SELECT * FROM nowhere");
        let error = refused(&runtime, sql).await;
        assert!(matches!(error.kind(), ErrorKind::Connect), "{error:?}");
        assert_eq!(
            (error.outcome(), error.phase()),
            (Outcome::NotExecuted, Phase::Connecting)
        );
        assert_eq!(error.sqlstate().map(|state| state.code()), Some("42P01"));
        assert!(
            all_of(&error).contains("on_connect_sql text failed (step 2 of 2"),
            "{}",
            all_of(&error)
        );

        let hook = config(&dsn).on_connect(|_| async { Err::<(), _>("no tenant today") });
        let error = all_of(&*refused(&runtime, hook).await);
        assert!(
            error.contains("on_connect function failed") && error.contains("no tenant today"),
            "{error}"
        );

        let panics = config(&dsn).on_connect(|setup| async move {
            drop(setup);
            if true {
                panic!("no more");
            }
            Ok::<(), Error>(())
        });
        let error = all_of(&*refused(&runtime, panics).await);
        assert!(error.contains("the function panicked"), "{error}");

        let begins = config(&dsn).on_connect(|setup| async move { setup.batch("BEGIN").await });
        let error = all_of(&*refused(&runtime, begins).await);
        assert!(error.contains("left a transaction open"), "{error}");

        let ends = config(&dsn).on_connect_sql("SELECT pg_terminate_backend(pg_backend_pid())");
        let error = refused(&runtime, ends).await;
        assert!(all_of(&error).contains("on_connect"), "{}", all_of(&error));

        let hangs = config(&dsn)
            .connect_timeout(Duration::from_millis(500))
            .on_connect_sql("SELECT pg_sleep(3600)");
        let pool = open(&runtime, hangs.min_size(1));
        // On a busy machine the time of a dial may be over before the template is reached.
        until(&*runtime, "the template is in time's way", || {
            pool.last_connect_error()
                .is_some_and(|error| all_of(&error).contains("on_connect"))
        })
        .await;
        let error = pool.last_connect_error().expect("a connect error");
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
        pool.close(Duration::from_secs(20)).await;
    });
}

#[test]
fn a_handle_ends_with_its_function() {
    on_each_server(|runtime, dsn| async move {
        let kept: Arc<Mutex<Option<Setup>>> = Arc::default();
        let keeper = Arc::clone(&kept);
        let config = config(&dsn).on_connect(move |setup| {
            *keeper.lock().expect("no panic") = Some(setup);
            async { Ok::<(), Error>(()) }
        });
        let pool = open(&runtime, config);
        let lease = pool.checkout().await.expect("a session");
        let setup = kept.lock().expect("no panic").clone().expect("it was called");
        let error = setup.batch("SET my.tenant = 'stolen'").await.expect_err("it has ended");
        assert!(matches!(error.kind(), ErrorKind::LeaseEnded), "{error:?}");
        let row = lease
            .query_one("SELECT current_setting('my.tenant', true)", &[])
            .await
            .expect("a row");
        assert_eq!(row.get::<_, Option<&str>>(0), None);
        drop(lease);
        pool.close(Duration::from_secs(20)).await;
        // It does not keep the session either.
        assert_eq!(pool.status().size, 0);
        let error = setup.query("SELECT 1", &[]).await.expect_err("it has ended");
        assert!(matches!(error.kind(), ErrorKind::LeaseEnded), "{error:?}");
    });
}

#[test]
fn a_template_that_fails_after_a_clean_up_costs_the_session() {
    on_each_server(|runtime, dsn| async move {
        for text in [true, false] {
            let calls = Arc::new(AtomicU32::new(0));
            let config = if text {
                // Fails while the mark is there, which outlives the session.
                config(&dsn).on_connect_sql("SELECT 1 / (1 - count(*)) FROM pg_class WHERE relname = 'mark'")
            } else {
                let counted = Arc::clone(&calls);
                config(&dsn).on_connect(move |_| {
                    let call = counted.fetch_add(1, Ordering::SeqCst);
                    async move { if call == 1 { Err("not twice") } else { Ok(()) } }
                })
            };
            let pool = open(&runtime, config);
            let lease = pool.checkout().await.expect("a session");
            let pid = lease.backend_pid();
            if text {
                lease.batch("CREATE TABLE mark ()").await.expect("a table");
            } else {
                lease.batch("SET my.tenant = 'x'").await.expect("a setting");
            }
            drop(lease);
            until(&*runtime, "it is closed", || {
                pool.status().closes(CloseReason::CleanUpFailed) == 1
            })
            .await;
            if text {
                let other = open(&runtime, self::config(&dsn));
                let lease = other.checkout().await.expect("a session");
                lease.batch("DROP TABLE mark").await.expect("it is there");
                drop(lease);
                other.close(Duration::from_secs(20)).await;
            }
            let lease = pool.checkout().await.expect("another session");
            assert_ne!(lease.backend_pid(), pid);
            drop(lease);
            pool.close(Duration::from_secs(20)).await;
        }
    });
}
