//! The rows about pools.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gdbpool::{
    BadInput, BoxFuture, BoxStream, Endpoint, ErrorKind, Instant, InteractionPool, Isolation, Runtime, SocketOptions,
};

use super::{INSERT, NAME, PID, fresh_id, on_each_server};

async fn name(db: &InteractionPool) -> String {
    db.run(NAME).scalar().await.expect("a name")
}

async fn read_name(db: &InteractionPool) -> String {
    db.run(NAME).read().scalar().await.expect("a name")
}

#[test]
fn db_interaction_pool() {
    on_each_server(async |world| {
        // As many as one likes, each with pools of its own.
        let one = world.open([world.pool("one").size(2)]).await;
        let two = world.open([world.pool("two"), world.pool("second")]).await;
        assert_eq!((name(&one).await, name(&two).await), ("one".into(), "two".into()));
        assert_eq!(read_name(&two).await, "two", "the first is the default for everything");
        assert_eq!(one.pool("one").expect("a pool").status().max, 2);
        let error = one.run(NAME).on_pool("two").await.expect_err("not its pool");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::UnknownPool { .. })),
            "{error:?}"
        );
        world.close(&one).await;
        assert_eq!(name(&two).await, "two");
        world.close(&two).await;
    });
}

#[test]
fn add_pool() {
    on_each_server(async |world| {
        let db = world.open([world.pool("first")]).await;
        assert_eq!(
            (name(&db).await, read_name(&db).await),
            ("first".into(), "first".into())
        );
        db.add_pool(world.pool("writes").size(3).default_write())
            .expect("added");
        assert_eq!(
            (name(&db).await, read_name(&db).await),
            ("writes".into(), "first".into())
        );
        for reads in ["reads a", "reads b"] {
            db.add_pool(world.pool(reads).default_read()).expect("added");
        }
        let mut seen = [0, 0];
        for _ in 0..60 {
            seen[usize::from(read_name(&db).await == "reads b")] += 1;
        }
        assert!(seen.iter().all(|times| *times > 5), "balanced: {seen:?}");
        let error = db.add_pool(world.pool("first")).expect_err("the name is taken");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::DuplicatePool { .. })),
            "{error:?}"
        );
        let error = db
            .add_pool(world.pool("odd").default_pool().default_read())
            .expect_err("not for writes");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::Conflict { .. })),
            "{error:?}"
        );
        world.close(&db).await;
    });
}

/// A runtime of one's own, which counts.
struct Counting {
    inner: Arc<dyn Runtime>,
    spawns: AtomicU32,
    dials: AtomicU32,
}

impl Runtime for Counting {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.spawns.fetch_add(1, Ordering::SeqCst);
        self.inner.spawn(task);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.inner.sleep_until(at)
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.inner.resolve(host, port)
    }

    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        self.inner.connect(to, options)
    }
}

#[test]
fn db_module() {
    on_each_server(async |world| {
        let counting = Arc::new(Counting {
            inner: Arc::clone(&world.runtime),
            spawns: AtomicU32::new(0),
            dials: AtomicU32::new(0),
        });
        let builder = InteractionPool::builder(Arc::clone(&counting)).pool(world.pool("own"));
        let db = builder.open().await.expect("sound settings");
        assert_eq!(name(&db).await, "own");
        assert_eq!(counting.dials.load(Ordering::SeqCst), 1);
        assert!(counting.spawns.load(Ordering::SeqCst) > 0);
        world.close(&db).await;
    });
}

#[test]
fn is_write() {
    on_each_server(async |world| {
        let (db, id) = (&world.db, fresh_id());
        assert_eq!((name(db).await, read_name(db).await), ("main".into(), "replica".into()));
        let standby: bool = db
            .run("SELECT pg_is_in_recovery()")
            .read()
            .scalar()
            .await
            .expect("a word");
        assert!(standby);
        for pool in ["main", "replica"] {
            let error = db.run(INSERT).bind(id).read().on_pool(pool).await.expect_err("a read");
            assert_eq!(
                error.sqlstate().map(|state| state.code()),
                Some("25006"),
                "{pool}: {error:?}"
            );
        }
        assert_eq!(db.run(INSERT).bind(id).execute().await.ok(), Some(1));
        assert_eq!(world.rows(id), "1");
    });
}

#[test]
fn pool() {
    on_each_server(async |world| {
        for pool in ["main", "replica"] {
            let name: String = world.db.run(NAME).on_pool(pool).scalar().await.expect("a name");
            assert_eq!(name, pool);
            let ask = world
                .db
                .transact(|tx| async move { Ok(tx.query_one(NAME, &[]).await?.get::<_, String>(0)) });
            assert_eq!(ask.read().on_pool(pool.to_owned()).await.expect("a name"), pool);
        }
        let error = world.db.run(NAME).on_pool("mian").await.expect_err("no such pool");
        assert!(error.to_string().contains("mian"), "{error}");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::UnknownPool { .. })),
            "{error:?}"
        );
    });
}

#[test]
fn db_connection_pool() {
    on_each_server(async |world| {
        let pool = world.db.pool("main").expect("a pool");
        let lease = pool.checkout().await.expect("a session");
        let pid = lease.backend_pid();
        let count = "SELECT count(*) FROM test_values WHERE id <= 1000000";
        let rows: i64 = lease.query_one(count, &[]).await.expect("a row").get(0);
        assert_eq!(rows, 1_000_000);
        assert_eq!(pool.status().leased, 1);
        drop(lease);
        world.until("it is back", || pool.status().idle == 1).await;
        let lease = pool.checkout().await.expect("a session");
        assert_eq!(lease.backend_pid(), pid, "returned on drop, and used again");
        lease.discard();
        let lease = pool.checkout().await.expect("a session");
        assert_ne!(lease.backend_pid(), pid, "discarded");
        drop(lease);
        // Force recycle.
        pool.retire();
        world.until("it is closed", || pool.status().size == 0).await;

        let sizes = |max| pool.resize(0, max).map(|()| pool.status().max);
        assert_eq!(sizes(9).ok(), Some(9));
        assert_eq!(sizes(2).ok(), Some(2));
        sizes(0).expect_err("no pool of nothing");

        let show = "SELECT current_setting('transaction_isolation')";
        let ask = world
            .db
            .transact(|tx| async move { Ok(tx.query_one(show, &[]).await?.get::<_, String>(0)) });
        assert_eq!(
            ask.isolation(Isolation::RepeatableRead).await.expect("a level"),
            "repeatable read"
        );

        let short = world.pool("short").max_lifetime(Some(Duration::from_secs(1)));
        world.db.add_pool(short).expect("added");
        let born: i32 = world.db.run(PID).on_pool("short").scalar().await.expect("a process id");
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {born}");
        world.until("its life is over", || world.psql(&gone) == "0").await;
        let next: i32 = world.db.run(PID).on_pool("short").scalar().await.expect("a process id");
        assert_ne!(next, born);
    });
}
