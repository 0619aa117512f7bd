//! Promise: passwords and parameter values never show: not in `Debug` or `Display`, not in errors and their causes, not in
//! reports, not in `tracing` at its lowest level, and not in what tokio-postgres logs through `log`.

#[path = "support/runtimes.rs"]
mod runtimes;
mod support;
#[path = "secrets/watch.rs"]
mod watch;

use std::error::Error as _;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use gdbpool::{BoxFuture, ConnectionPool, Error, ErrorKind, InteractionPool, PoolConfig, Runtime};

use crate::runtimes::{on_each, until};
use crate::support::{Auth, Cluster, ClusterOptions, Server};

/// Part of every password here, in whatever form it is written.
const SECRET: &str = "hunter2";

/// What means something in a connection string, and what does not.
const ODD: &str = "@/?:#%&='\\ [],;1aé\t";

/// Part of every parameter value here.
const VALUE: &str = "sesame7";

/// Everything that can be got out of an error as text.
fn all_of(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {:?}", error.kind());
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, " {cause} {cause:?}");
        next = cause.source();
    }
    text
}

#[track_caller]
fn assert_quiet(text: &str) {
    assert!(!text.contains(SECRET), "the password shows: {text}");
    assert!(!text.contains(VALUE), "a value shows: {text}");
}

#[track_caller]
fn assert_unshown(value: &impl Debug) {
    assert_quiet(&format!("{value:?} {value:#?}"));
}

#[test]
fn a_sound_dsn_does_not_show_its_password() {
    for dsn in [
        "host=h user=u dbname=d password=hunter2",
        "host=h user=u dbname=d password='it is \\'hunter2\\''",
        "postgresql://u:hunter2@h:5433/d",
        "postgres://u:%68unter2%40@h/d?connect_timeout=3",
        "postgresql://h/d?user=u&password=hunter2",
        "postgresql://u:pass%2Fhunter2@h/d",
        "host=h,i user=u password=hunter2 sslmode=verify-full sslrootcert=system",
    ] {
        let config = PoolConfig::new("main", dsn).unwrap_or_else(|error| panic!("{dsn}: {error}"));
        assert_unshown(&config);
        assert!(
            format!("{config:?}").contains("\"u\""),
            "the rest does show: {config:?}"
        );
        assert_unshown(&config.size(3).default_pool());
    }
}

/// Whatever is wrong with a connection string, the message names a key, and shows no value.
#[test]
fn a_bad_dsn_does_not_show_its_password() {
    for (dsn, names) in [
        ("host=h user=u pasword=hunter2", "pasword"),
        ("host=h user=u port=hunter2", "port"),
        ("host=h user=u connect_timeout=hunter2", "connect_timeout"),
        ("host=h user=u sslmode=hunter2", "sslmode"),
        ("host=h user=u hostaddr=hunter2", "hostaddr"),
        ("host=h user=u target_session_attrs=hunter2", "target_session_attrs"),
        ("host=h user=u password='hunter2", "unterminated"),
        ("host=h user=u password=correct hunter2 dbname=d", "\"=\""),
        ("host=h user=u password=correct hunter2", "\"=\""),
        ("host=h password=hunter2", "user"),
        ("host=h,i user=u password=hunter2 port=1,2,3", "port"),
        (
            "host=h user=u password=hunter2 sslmode=disable sslrootcert=system",
            "sslrootcert",
        ),
        ("host=h user=u password=a hunter2=b", "behind the password"),
        ("host=h user=u oauth_client_secret=a hunter2=b", "behind the password"),
        ("host=h user=u scram_client_key=a hunter2=b", "behind the password"),
        ("Postgresql://u:hunter2@h/d?sslmode=require", "postgresql://"),
        ("postgresql://:hunter2@h/d", "user"),
        ("postgresql://u:hunter2@h:hunter2/d", "port"),
        ("postgresql://u:hunter2%ff@h%ff/d", "UTF-8"),
        ("postgresql://u:hunter2@h/d?pasword=%68unter2", "pasword"),
        ("postgresql://u:hunter2@h/d?password", "parameter"),
        ("postgresql://u:pass@hunter2@h/d", "%40"),
        ("postgresql://u:pass@word/hunter2@h/d", "%40"),
        ("postgresql://u:pass/hunter2@h/d", "%2F"),
        ("postgresql://h/d?user=u&password=a&hunter2=b", "behind the password"),
        ("postgresql://h?user=u&password=p@hunter2", "%40"),
    ] {
        let error = PoolConfig::new("main", dsn)
            .err()
            .unwrap_or_else(|| panic!("{dsn} was taken"));
        assert!(matches!(error.kind(), ErrorKind::BadInput(_)), "{error:?}");
        assert_quiet(&all_of(&error));
        assert!(error.to_string().contains(names), "{dsn}: {error}");
    }
}

/// A password with anything in it, written as it comes, without a quote or a percent sign where one is needed.
#[test]
fn no_piece_of_a_raw_password_shows() {
    let odd = || prop::collection::vec(prop::sample::select(ODD.chars().collect::<Vec<_>>()), 0..5);
    let forms = prop::sample::select(vec![
        ("host=h user=u password=", " dbname=d"),
        ("host=h password='", "' user=u"),
        ("password = ", ""),
        ("postgresql://u:", "@h/d"),
        ("postgresql://u:", "@h:5432,i/d?sslmode=disable"),
        ("postgres://h/d?user=u&password=", ""),
        ("postgres://h?user=u&password=", "&application_name=x"),
        ("postgresql://u:", "@[::1]"),
        ("Postgres://u:", "@h/d?sslmode=prefer"),
    ]);
    let mut runner = TestRunner::deterministic();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..5_000 {
        let tree = (forms.clone(), odd(), odd()).new_tree(&mut runner).expect("a form");
        let ((before, behind), left, right) = tree.current();
        let (left, right) = (String::from_iter(left), String::from_iter(right));
        let dsn = format!("{before}{left}{SECRET}{right}{behind}");
        let shown = match PoolConfig::new("main", &dsn) {
            Ok(config) => {
                taken += 1;
                format!("{config:?} {config:#?}")
            }
            Err(error) => {
                refused += 1;
                all_of(&error)
            }
        };
        assert!(!shown.contains(SECRET), "{dsn:?} shows it: {shown}");
    }
    assert!(taken > 500 && refused > 500, "{taken} {refused}");
}

#[test]
fn nothing_shows_on_a_real_server() {
    let watch = watch::everything();
    for server in [Server::V15, Server::V18] {
        let password = format!("{SECRET} @/'\\%é");
        let cluster = Arc::new(Cluster::start(
            ClusterOptions::new(server).auth(Auth::Scram { password }),
        ));
        let uri = format!(
            "postgresql://app:{SECRET}%20%40%2F%27%5C%25%C3%A9@127.0.0.1:{}/postgres",
            cluster.port()
        );
        on_each(|runtime| -> BoxFuture<'static, ()> {
            let (cluster, uri) = (Arc::clone(&cluster), uri.clone());
            Box::pin(async move {
                let keywords = cluster.dsn();
                assert!(keywords.contains(SECRET) && uri.contains(SECRET));
                // A connect costs a client thousands of rounds of hashing: one form of DSN each.
                use_everything(&runtime, if server == Server::V15 { &keywords } else { &uri }).await;
                let wrong = keywords.replace(SECRET, &format!("{SECRET}{SECRET}"));
                fail_to_connect(&runtime, &wrong).await;
                ask_for_the_password(&runtime, &keywords).await;
            })
        });
    }
    let seen = watch.seen();
    // What must be there, or else nothing was watched.
    for part in [
        "SELECT length($1)",
        "a connect failed",
        "executing statement",
        "preparing query",
    ] {
        assert!(seen.contains(part), "{part:?} was not seen");
    }
    if let Some(line) = seen.lines().find(|line| line.contains(SECRET) || line.contains(VALUE)) {
        panic!("it shows: {line}");
    }
}

/// Parameters in every way they can be given, and everything that can be printed.
async fn use_everything(runtime: &Arc<dyn Runtime>, dsn: &str) {
    let builder = InteractionPool::builder(Arc::clone(runtime));
    let builder = builder.pool(PoolConfig::new("main", dsn).expect("a sound DSN").size(2).min_size(1));
    assert_unshown(&builder);
    let db = builder.open().await.expect("open");
    let length = "SELECT length($1)";
    let order = db.run(length).bind(VALUE).one();
    assert_unshown(&order);
    assert_unshown(&order.await.expect("a row"));
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&VALUE];
    db.run(length).args(&values).read().await.expect("rows");
    db.run(length).args(&values).execute().await.expect("a count");
    let mut rows = db.run(length).bind(VALUE.to_owned()).stream().await.expect("a stream");
    assert_unshown(&rows);
    assert!(rows.next().await.is_some());
    drop(rows);

    let pool = db.pool("main").expect("the pool");
    let lease = pool.checkout().await.expect("a session");
    lease.query(length, &values).await.expect("rows");
    lease.execute(length, &values).await.expect("a count");
    drop(lease.query_stream(length, &values).await.expect("a stream"));
    // The value is not the type's: this error is ours, and it must not quote what was given.
    let error = db
        .run("SELECT 1 + $1::int")
        .bind(VALUE)
        .await
        .expect_err("it is a text");
    assert_quiet(&all_of(&error));
    let error = lease
        .query("SELECT 1 + $1::int", &values)
        .await
        .expect_err("it is a text");
    assert_quiet(&all_of(&error));

    assert_unshown(&lease);
    assert_unshown(lease.endpoint());
    assert_unshown(&pool);
    assert_unshown(&pool.status());
    assert_quiet(&pool.status().to_string());
    assert_unshown(&db);
    assert_unshown(&db.status());
    let report = pool.close(Duration::from_millis(1)).await;
    assert_eq!(report.cut.len(), 1, "the lease is out");
    assert_unshown(&report);
    assert_quiet(&all_of(
        &db.run(length).bind(VALUE).await.expect_err("the pool is closed"),
    ));
    drop(lease);
}

/// A password that a function gives, right and wrong, and whatever can be printed on the way; the values that a new session
/// is set up with do not show either.
async fn ask_for_the_password(runtime: &Arc<dyn Runtime>, dsn: &str) {
    let right = dsn
        .split("password=")
        .nth(1)
        .and_then(|rest| rest.split(" dbname=").next());
    let right = right
        .expect("a password")
        .trim_matches('\'')
        .replace("\\'", "'")
        .replace("\\\\", "\\");
    let without = format!(
        "{} {}",
        dsn.split(" password=").next().expect("a DSN"),
        "dbname=postgres"
    );
    for (password, is_right) in [(right, true), (format!("{SECRET}{SECRET}"), false)] {
        let config = PoolConfig::new("main", &without).expect("a sound DSN").min_size(1);
        let config = config
            .password_from(move |request| {
                assert_unshown(&request);
                let password = password.clone();
                async move { Ok::<_, Error>(password) }
            })
            .on_connect(|setup| async move {
                assert_unshown(&setup);
                setup.query("SELECT length($1)", &[&VALUE]).await?;
                setup.execute("SELECT length($1)", &[&VALUE]).await.map(drop)
            });
        assert_unshown(&config);
        let pool = ConnectionPool::open(Arc::clone(runtime), config).expect("sound settings");
        let mut events = pool.events();
        if is_right {
            drop(pool.checkout().await.expect("the right password"));
        } else {
            until(&**runtime, "it is refused", || pool.last_connect_error().is_some()).await;
            assert_quiet(&all_of(&pool.last_connect_error().expect("a connect error")));
        }
        pool.close(Duration::from_secs(5)).await;
        assert_unshown(&pool);
        drop(pool);
        while let Some(event) = events.next().await {
            assert_unshown(&event);
            assert_quiet(&event.to_string());
        }
    }
}

async fn fail_to_connect(runtime: &Arc<dyn Runtime>, dsn: &str) {
    let config = PoolConfig::new("main", dsn).expect("a sound DSN").min_size(1);
    let pool = ConnectionPool::open(Arc::clone(runtime), config).expect("sound settings");
    until(&**runtime, "the password is refused", || {
        pool.last_connect_error().is_some()
    })
    .await;
    let error = pool
        .checkout_within(Duration::from_millis(1))
        .await
        .map(drop)
        .expect_err("no session");
    assert_quiet(&all_of(&error));
    let last = pool.last_connect_error().expect("a connect error");
    assert_eq!(last.sqlstate().map(|state| state.code()), Some("28P01"), "{last:?}");
    assert_quiet(&all_of(&last));
    let error = pool.warm_up(Duration::from_millis(1)).await.expect_err("no session");
    assert_quiet(&all_of(&error));
    assert_unshown(&pool);
    pool.close(Duration::from_millis(1)).await;
}
