//! The causes that real servers and real networks bring, on PostgreSQL 15 and 18, on every runtime.

use std::sync::Arc;
use std::time::Duration;

use futures::poll;
use gdbpool::{
    BoxFuture, Cancel, ConnectionPool, Error, ErrorKind, InteractionPool, Outcome, Phase, PoolConfig, Runtime,
};

use super::{Table, report};
use crate::runtimes::{on_each, until};
use crate::support::{Auth, Cluster, ClusterOptions, Proxy, Server};

/// How long callers that will get no session wait for one.
const PATIENCE: Duration = Duration::from_millis(100);

#[test]
fn every_cause_is_named_on_15() {
    on_each(every_cause(Server::V15));
}

#[test]
fn every_cause_is_named_on_18() {
    on_each(every_cause(Server::V18));
}

struct World {
    runtime: Arc<dyn Runtime>,
    cluster: Arc<Cluster>,
    proxy: Proxy,
}

fn every_cause(server: Server) -> impl Fn(Arc<dyn Runtime>) -> BoxFuture<'static, ()> {
    let password = "a word".to_owned();
    let options = ClusterOptions::new(server).auth(Auth::Scram { password });
    let cluster = Arc::new(Cluster::start(options.max_connections(8)));
    move |runtime| {
        let cluster = Arc::clone(&cluster);
        Box::pin(async move {
            let proxy = Proxy::to_port(cluster.port());
            let world = World {
                runtime,
                cluster,
                proxy,
            };
            let mut table = Table::default();
            all_leased(&world, &mut table).await;
            connecting(&world, &mut table).await;
            not_let_in(&world, &mut table).await;
            settling(&world, &mut table).await;
            silent_when_asked(&world, &mut table).await;
            queue_full_and_closed(&world, &mut table).await;
            statements(&world, &mut table).await;
            let different = table.print(&format!("PostgreSQL {}", world.cluster.version()));
            assert_eq!((table.rows.len(), different), (17, 11));
        })
    }
}

impl World {
    fn config(&self, dsn: &str) -> PoolConfig {
        let config = PoolConfig::new("main", dsn).expect("a sound DSN").size(1);
        config.connect_backoff(Duration::from_millis(1), Duration::from_millis(10))
    }

    fn pool(&self, config: PoolConfig) -> ConnectionPool {
        ConnectionPool::open(Arc::clone(&self.runtime), config).expect("sound settings")
    }

    /// A pool that has tried to connect, and has failed.
    async fn failed_pool(&self, dsn: &str) -> ConnectionPool {
        let pool = self.pool(self.config(dsn).min_size(1));
        until(&*self.runtime, "connecting has failed", || {
            pool.last_connect_error().is_some()
        })
        .await;
        pool
    }

    async fn interactions(&self, config: PoolConfig) -> InteractionPool {
        let builder = InteractionPool::builder(Arc::clone(&self.runtime));
        builder.pool(config).open().await.expect("open")
    }

    /// Whether the server is at work on a statement with this in it.
    fn runs(&self, part: &str) -> bool {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()";
        self.cluster.psql(&format!("{query} AND query LIKE '%{part}%'")) != "0"
    }
}

async fn expired(pool: &ConnectionPool) -> Error {
    pool.checkout_within(PATIENCE)
        .await
        .map(drop)
        .expect_err("there is no session to be had")
}

/// Ends a pool, so that its sessions are not in the way of the next one's.
async fn end(pool: ConnectionPool) {
    let report = pool.close(Duration::from_secs(10)).await;
    assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
}

async fn all_leased(world: &World, table: &mut Table) {
    let pool = world.pool(world.config(&world.cluster.dsn()).size(2));
    let line = line!() + 1;
    let first = pool.checkout().await.expect("a session");
    let second = pool.checkout().await.expect("a session");
    let error = expired(&pool).await;
    table.reports("all sessions are leased", "AllLeased", &error, PATIENCE / 2);
    let holders = &report(&error).holders;
    assert!(holders.len() == 2 && holders[0].held >= holders[1].held, "{holders:?}");
    for (holder, line) in holders.iter().zip([line, line + 1]) {
        assert_eq!((holder.at.file(), holder.at.line()), (file!(), line), "{error}");
    }
    assert_eq!((report(&error).leased, report(&error).ahead), (2, 0));
    drop((first, second));
    end(pool).await;

    // The holder can be an interaction: then the place that ordered it is named.
    let db = world.interactions(world.config(&world.cluster.dsn())).await;
    let order = db.run("SELECT generate_series(1, 10)");
    let line = line!() - 1;
    let rows = order.stream().await.expect("a stream");
    let error = db
        .run("SELECT 1")
        .timeout(PATIENCE)
        .await
        .map(drop)
        .expect_err("all is leased");
    table.reports("a stream of rows is not read", "AllLeased", &error, PATIENCE / 2);
    let holder = &report(&error).holders[0];
    assert_eq!((holder.at.file(), holder.at.line()), (file!(), line), "{error}");
    drop(rows);
    end(db.pool("main").expect("the pool")).await;
}

async fn connecting(world: &World, table: &mut Table) {
    let dsn = world.cluster.dsn_at(world.proxy.port());
    world.proxy.refuse(true);
    let pool = world.failed_pool(&dsn).await;
    let error = expired(&pool).await;
    table.reports("connecting is refused", "ConnectFails", &error, PATIENCE / 2);
    assert!(error.to_string().contains("refused"), "{error}");
    end(pool).await;
    world.proxy.refuse(false);

    world.proxy.pause();
    let pool = world.pool(world.config(&dsn).connect_timeout(Duration::from_secs(60)));
    let error = expired(&pool).await;
    table.reports("accepted, and then nothing", "ConnectHangs", &error, PATIENCE / 2);
    assert_eq!(report(&error).connecting, 1);
    let given_up = pool.close(Duration::from_millis(1));
    world.proxy.cut();
    world.proxy.resume();
    given_up.await;
}

/// The server answers, and does not let the pool in: the last connect error has the SQLSTATE.
async fn not_let_in(world: &World, table: &mut Table) {
    for (injected, dsn, state) in [
        (
            "the password is wrong (28P01)",
            world.cluster.dsn_for("app", "no"),
            "28P01",
        ),
        (
            "there is no such user (28P01)",
            world.cluster.dsn_for("nobody", "no"),
            "28P01",
        ),
        (
            "there is no such database (3D000)",
            world.cluster.dsn_to("no_such"),
            "3D000",
        ),
    ] {
        let pool = world.failed_pool(&dsn).await;
        let error = expired(&pool).await;
        table.reports(injected, "AuthenticationFailed", &error, PATIENCE / 2);
        let last = report(&error).last_connect_error.as_ref().expect("a connect error");
        assert_eq!(last.sqlstate().map(|state| state.code()), Some(state), "{last:?}");
        assert!(error.to_string().contains(state), "{error}");
        end(pool).await;
    }
    // Of eight slots three are kept for superusers.
    let crowd = world.pool(world.config(&world.cluster.dsn()).size(5));
    let leases = futures::future::join_all((0..5).map(|_| crowd.checkout())).await;
    assert!(leases.iter().all(Result::is_ok), "{leases:?}");
    let pool = world.failed_pool(&world.cluster.dsn()).await;
    let error = expired(&pool).await;
    table.reports("the server is full (53300)", "TooManyConnections", &error, PATIENCE / 2);
    assert!(error.to_string().contains("53300"), "{error}");
    drop(leases);
    end(crowd).await;
    until(&*world.runtime, "there is room again", || pool.status().idle == 1).await;
    end(pool).await;
}

/// A dropped statement goes on, because the request to cancel it does not get through.
async fn settling(world: &World, table: &mut Table) {
    world.proxy.delay_cancels(Duration::from_secs(3_600));
    let db = world
        .interactions(world.config(&world.cluster.dsn_at(world.proxy.port())))
        .await;
    let mut dropped = Box::pin(db.run("SELECT pg_sleep(3600)").into_future());
    let mut pending = true;
    until(&*world.runtime, "the statement runs", || {
        let waker = futures::task::noop_waker();
        pending &= dropped
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker))
            .is_pending();
        pending && world.runs("pg_sleep(3600)")
    })
    .await;
    drop(dropped);
    let pool = db.pool("main").expect("the pool");
    until(&*world.runtime, "the request to cancel is held back", || {
        world.proxy.cancels_seen() == 1
    })
    .await;
    let error = expired(&pool).await;
    table.reports(
        "a dropped statement cannot be cancelled",
        "Settling",
        &error,
        PATIENCE / 2,
    );
    assert_eq!(report(&error).settling, 1);
    world.proxy.delay_cancels(Duration::ZERO);
    world.proxy.cut();
    end(pool).await;
    // The server itself does not look whether its client is still there.
    world
        .cluster
        .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
}

async fn silent_when_asked(world: &World, table: &mut Table) {
    let config = world.config(&world.cluster.dsn_at(world.proxy.port()));
    let pool = world.pool(
        config
            .ping_after(Some(Duration::ZERO))
            .ping_timeout(Duration::from_secs(60)),
    );
    drop(pool.checkout().await.expect("a session"));
    world.proxy.pause();
    let error = expired(&pool).await;
    table.reports(
        "an idle session does not answer",
        "ValidationHangs",
        &error,
        PATIENCE / 2,
    );
    assert!(
        error.phase() == Phase::Validating && report(&error).validating > Duration::ZERO,
        "{error}"
    );
    world.proxy.resume();
    until(&*world.runtime, "the session is clean", || pool.status().idle == 1).await;
    end(pool).await;
}

async fn queue_full_and_closed(world: &World, table: &mut Table) {
    let pool = world.pool(world.config(&world.cluster.dsn()).max_waiters(1));
    let lease = pool.checkout().await.expect("a session");
    let mut waiting = Box::pin(pool.checkout());
    assert!(poll!(&mut waiting).is_pending());
    let error = expired(&pool).await;
    table.says("max_waiters callers wait", "QueueFull", &error);
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::NotExecuted, true));
    let closing = pool.close(Duration::from_secs(10));
    let turned_away = async {
        let error = waiting.await.map(drop).expect_err("the pool is closed");
        drop(lease);
        error
    };
    let (report, error) = futures::join!(closing, turned_away);
    assert!(report.cut.is_empty(), "{report:?}");
    table.says("the pool closes while the caller waits", "PoolClosed", &error);
    table.says("the pool is closed", "PoolClosed", &expired(&pool).await);
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::NotExecuted, false));
}

/// The phases of a call that was stopped, each with its time, in the error and in its text.
fn assert_spent(error: &Error, phases: &[Phase]) {
    let seen: Vec<Phase> = error.spent().iter().map(|(phase, _)| *phase).collect();
    assert_eq!(seen, phases, "{error:?}");
    for (phase, span) in error.spent() {
        assert!(error.to_string().contains(&format!("{span:?} {phase}")), "{error}");
    }
    let last = error.spent().last().expect("a last phase");
    assert!(last.0 == error.phase() && last.1 > Duration::ZERO, "{error:?}");
}

/// What runs out of time, or is called off, on a session.
async fn statements(world: &World, table: &mut Table) {
    let config = world.config(&world.cluster.dsn()).cancel_grace(Duration::from_secs(60));
    let db = world.interactions(config.ping_after(None)).await;
    // Parsed once, so that what runs out of time later is the statement itself.
    let nap = "SELECT pg_sleep($1)";
    db.run(nap).bind(0f64).await.expect("a session and a plan");
    let order = db.run(nap).bind(3_600f64).timeout(PATIENCE * 3);
    let error = order.await.expect_err("it takes an hour");
    table.says("a write's deadline", "Timeout", &error);
    assert_spent(&error, &[Phase::Queued, Phase::Preparing, Phase::Executing]);
    assert_eq!(
        (error.outcome(), error.phase()),
        (Outcome::RolledBack, Phase::Executing)
    );
    assert_eq!(error.sqlstate().map(|state| state.code()), Some("57014"));
    let order = db.run(nap).bind(3_600f64).read().timeout(PATIENCE * 3);
    let error = order.await.expect_err("it takes an hour");
    table.says("a read's deadline", "Timeout", &error);
    assert_spent(&error, &[Phase::Queued, Phase::Preparing, Phase::Executing]);

    let cancel = Cancel::new();
    let call_off = async {
        until(&*world.runtime, "the statement runs", || world.runs("pg_sleep(7200)")).await;
        cancel.cancel();
    };
    let order = db.run("SELECT pg_sleep(7200)").cancel_on(&cancel);
    let (error, ()) = futures::join!(order.into_future(), call_off);
    let error = error.expect_err("it takes two hours");
    table.says("cancelled while the statement runs", "Cancelled", &error);
    assert_spent(&error, &[Phase::Queued, Phase::Preparing, Phase::Executing]);
    assert_eq!(
        (error.outcome(), error.phase()),
        (Outcome::RolledBack, Phase::Executing)
    );

    let pool = db.pool("main").expect("the pool");
    let lease = pool.checkout().await.expect("a session");
    let cancel = Cancel::new();
    let mut waiting = Box::pin(db.run("SELECT 1").cancel_on(&cancel).into_future());
    assert!(poll!(&mut waiting).is_pending());
    cancel.cancel();
    let error = waiting.await.expect_err("it was called off");
    table.says("cancelled in the queue", "Cancelled", &error);
    assert_spent(&error, &[Phase::Queued]);
    assert_eq!((error.outcome(), error.phase()), (Outcome::NotExecuted, Phase::Queued));
    assert!(matches!(error.kind(), ErrorKind::Cancelled));
    drop(lease);
    end(pool).await;
}
