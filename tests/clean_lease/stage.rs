//! A pool of one session on a real server, and the look at what the next borrower gets.
//!
//! Below the tests on real servers. It looks twice: from a second session, before the lease is used, and through the
//! lease itself. It plants nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use gdbpool::{ConnectionPool, InteractionPool, Lease, PoolConfig, Row, Runtime};

use super::leftovers;
use super::runtimes::until;
use super::support::{Cluster, ClusterOptions, Server, fresh_database};

pub(crate) const SERVERS: [Server; 2] = [Server::V15, Server::V18];

/// The pool under test is `one`, with one session; `watch` is for looking on.
pub(crate) struct Stage {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) db: InteractionPool,
    pub(crate) one: ConnectionPool,
    /// What a session shows that nobody has used.
    template: String,
}

/// All that a session can hold and its next borrower must not see, as text; `$1` is a mark to count.
const SNAPSHOT: &str = "SELECT concat_ws(E'\\n', \
    'users ' || current_user || ' ' || session_user || ' ' || current_setting('role'), \
    'temporary ' || (SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
    'listens ' || (SELECT string_agg(c, ' ') FROM pg_listening_channels() AS c), \
    'cursors ' || (SELECT string_agg(name, ' ') FROM pg_cursors WHERE name <> ''), \
    'locks ' || (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'), \
    'prepared ' || (SELECT string_agg(name, ' ') FROM pg_prepared_statements WHERE from_sql), \
    'lastval ' || public.seen_lastval(), \
    'custom ' || nullif(current_setting('app.who', true), ''), \
    (SELECT string_agg(concat_ws(' ', name, setting, source), E'\\n' ORDER BY name) FROM pg_settings)), \
    (SELECT count(*) FROM public.marks WHERE mark = $1)";

/// A session as others see it.
const OUTSIDE: &str = "SELECT state, xact_start IS NULL, (SELECT count(*) FROM pg_locks WHERE pid = $1) \
    FROM pg_stat_activity WHERE pid = $1";

/// Sessions of the pool that it has given up, and whose processes have not noticed yet.
const GIVEN_UP: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1 \
    AND application_name <> 'watch'";

/// A database of its own, with what the tests need in it.
pub(crate) fn database(server: Server) -> String {
    static V15: OnceLock<Cluster> = OnceLock::new();
    static V18: OnceLock<Cluster> = OnceLock::new();
    let cluster = match server {
        Server::V15 => &V15,
        Server::V18 => &V18,
    };
    let cluster = cluster.get_or_init(|| {
        let cluster = Cluster::start(ClusterOptions::new(server));
        cluster.psql("CREATE ROLE guest");
        cluster
    });
    let dsn = fresh_database(cluster);
    let name = dsn.rsplit("dbname=").next().expect("a DSN names its database");
    cluster.psql_in(name, &set_up());
    dsn
}

fn set_up() -> String {
    let mut sql = String::from(
        "CREATE TABLE marks (mark bigint); GRANT ALL ON marks TO guest; CREATE SEQUENCE numbers; \
         CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE moods (mood mood); CREATE SCHEMA other; \
         CREATE FUNCTION seen_lastval() RETURNS bigint LANGUAGE plpgsql AS $f$ BEGIN RETURN lastval(); \
         EXCEPTION WHEN object_not_in_prerequisite_state THEN RETURN NULL; END $f$;",
    );
    for (name, statements) in leftovers::LEFTOVERS {
        // EXECUTE has its own INTO.
        let text = statements.replace(
            "SELECT 1 AS n INTO TEMP scratch",
            "CREATE TEMP TABLE scratch AS SELECT 1",
        );
        let text = text.replace('\'', "''");
        sql.push_str(&format!(
            "CREATE FUNCTION leave_{name}() RETURNS bigint LANGUAGE plpgsql AS \
             $f$ BEGIN EXECUTE '{text}'; RETURN 1; END $f$;"
        ));
    }
    sql
}

/// A pool of one session; its template has a setting of its own.
pub(crate) fn config(dsn: &str) -> PoolConfig {
    let config = PoolConfig::new("one", dsn).expect("a DSN").size(1);
    config.setting("work_mem", "5MB").setting("search_path", "public")
}

impl Stage {
    pub(crate) async fn open(runtime: &Arc<dyn Runtime>, dsn: &str) -> Self {
        Self::open_with(runtime, config(dsn), dsn).await
    }

    pub(crate) async fn open_with(runtime: &Arc<dyn Runtime>, config: PoolConfig, dsn: &str) -> Self {
        let watch = PoolConfig::new("watch", dsn)
            .expect("a DSN")
            .size(2)
            .application_name("watch");
        let builder = InteractionPool::builder(Arc::clone(runtime)).pool(config).pool(watch);
        let db = builder.open().await.expect("open");
        let one = db.pool("one").expect("a pool");
        let lease = one.checkout().await.expect("a first session");
        let (template, _) = snapshot(&lease, 0).await;
        assert!(template.contains("work_mem 5120 client"), "{template}");
        lease.discard();
        Self {
            runtime: Arc::clone(runtime),
            db,
            one,
            template,
        }
    }

    /// Takes the session as the next borrower, and finds it as new; returns how many rows have `mark`.
    ///
    /// The marks are counted inside a transaction that is rolled back, and again after it: a statement of an earlier
    /// borrower that came in late would have run inside and be gone.
    pub(crate) async fn is_clean(&self, mark: i64, after: &str) -> i64 {
        let lease = self
            .one
            .checkout()
            .await
            .unwrap_or_else(|error| panic!("{after}: {error}"));
        self.looks_idle(&lease, after).await;
        let next = async {
            lease.batch("BEGIN").await?;
            let (seen, marks) = snapshot(&lease, mark).await;
            lease.batch("ROLLBACK").await?;
            let count = lease
                .query_one("SELECT count(*) FROM marks WHERE mark = $1", &[&mark])
                .await?;
            Ok::<_, gdbpool::Error>((seen, marks, count.get::<_, i64>(0)))
        };
        let (seen, marks, count) = next.await.unwrap_or_else(|error| panic!("{after}: {error:?}"));
        assert!(seen == self.template, "{after}: {}", difference(&self.template, &seen));
        assert_eq!(
            marks, count,
            "{after}: a row of an earlier borrower went with the next one's transaction"
        );
        drop(lease);
        self.slots_are_back(after).await;
        count
    }

    /// Nobody has used the lease yet: no transaction, no lock, nothing at work; and earlier sessions are gone.
    async fn looks_idle(&self, lease: &Lease, after: &str) {
        let pid = lease.backend_pid();
        while self.look(GIVEN_UP, pid, after).await.get::<_, i64>(0) != 0 {
            let soon = self.runtime.now() + Duration::from_millis(1);
            self.runtime.sleep_until(soon).await;
        }
        let row = self.look(OUTSIDE, pid, after).await;
        let seen: (&str, bool, i64) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(seen, ("idle", true, 0), "{after}: state, no transaction, locks");
    }

    async fn look(&self, sql: &str, pid: i32, after: &str) -> Row {
        let look = self.db.run(sql).bind(pid).on_pool("watch").one().await;
        look.unwrap_or_else(|error| panic!("{after}: {error}"))
    }

    pub(crate) async fn slots_are_back(&self, after: &str) {
        until(&*self.runtime, &format!("the slots are back after {after}"), || {
            let status = self.one.status();
            assert!(status.size <= status.max, "{after}: {status}");
            let sum = status.idle + status.leased + status.settling + status.shared + status.connecting;
            assert_eq!(status.size, sum + status.closing, "{after}: {status}");
            status.size == status.idle && status.waiting == 0
        })
        .await;
    }

    /// Whether the lease shows anything that a new session would not.
    pub(crate) async fn is_planted(&self, lease: &Lease) -> bool {
        snapshot(lease, 0).await.0 != self.template
    }

    /// Ends the present session, so that the next caller waits for a new one.
    pub(crate) async fn without_session(&self) {
        self.one.retire();
        until(&*self.runtime, "the retired session is gone", || {
            self.one.status().size == 0
        })
        .await;
    }

    pub(crate) async fn close(self) {
        self.db.close(Duration::from_secs(5)).await;
    }
}

async fn snapshot(lease: &Lease, mark: i64) -> (String, i64) {
    let row = lease
        .query_one(SNAPSHOT, &[&mark])
        .await
        .expect("a look at the session");
    (row.get(0), row.get(1))
}

/// The lines that only one of the texts has.
fn difference(expected: &str, seen: &str) -> String {
    let missing = expected
        .lines()
        .filter(|line| !seen.lines().any(|other| other == *line));
    let foreign = seen
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line));
    let lines = missing
        .map(|line| format!("- {line}\n"))
        .chain(foreign.map(|line| format!("+ {line}\n")));
    lines.collect()
}

/// Gives the result of a future that must be ready at its first poll.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("ready at the first poll")
}
