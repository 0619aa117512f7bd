//! Every call of the table works through PgBouncer in transaction mode: with types of all kinds, over changes to tables, and
//! the same where the pooler is declared to follow statements.

use futures::{SinkExt, StreamExt, TryStreamExt};
use gdbpool::types::{Kind, Type};
use gdbpool::{ErrorKind, InteractionPool, Isolation, Outcome, Partial};

use crate::stage::{Front, World, close, on_each_server};

const SET_UP: &str = "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN small AS int CHECK (VALUE < 100); \
     CREATE TYPE pair AS (n small, m mood); CREATE TYPE span AS RANGE (subtype = int8); \
     CREATE TABLE t (n int PRIMARY KEY, m mood, d small, p pair, r span, ms mood[], ps pair[], j jsonb, x xid8); \
     INSERT INTO t SELECT g, 'happy', 1, (2, 'sad')::pair, '[1,5)', '{sad,happy}', ARRAY[(3, 'happy')::pair], \
     '{\"a\": 1}', '7' FROM generate_series(1, 2000) g; CREATE TABLE done (n int)";

async fn all_calls(world: &World, db: &InteractionPool) {
    types_of_all_kinds(db).await;
    statements(db).await;
    transactions(db).await;
    leases(world, db).await;
}

async fn types_of_all_kinds(db: &InteractionPool) {
    // 2,000 rows with types of one's own: more than any buffer holds.
    for _ in 0..3 {
        let rows = db
            .run("SELECT * FROM t WHERE n > $1 ORDER BY n")
            .bind(0)
            .await
            .expect("rows");
        assert_eq!(rows.len(), 2_000);
        let types: Vec<&Type> = rows[0].columns().iter().map(|column| column.type_()).collect();
        assert!(
            matches!(types[1].kind(), Kind::Enum(labels) if labels == &["sad", "happy"]),
            "{types:?}"
        );
        // The server describes a column of a domain by the type beneath.
        assert!(
            matches!(types[3].kind(), Kind::Composite(fields) if matches!(fields[0].type_().kind(), Kind::Domain(_)))
        );
        assert!(
            matches!(types[4].kind(), Kind::Range(_)) && matches!(types[5].kind(), Kind::Array(_)),
            "{types:?}"
        );
        let read = db.run("SELECT * FROM t").read().stream().await.expect("a stream");
        assert_eq!(read.try_collect::<Vec<_>>().await.expect("rows").len(), 2_000);
    }
}

async fn statements(db: &InteractionPool) {
    let rows = db
        .run("SELECT n, m::text FROM t WHERE n = :n")
        .bind_named("n", 5)
        .typed::<(i32, String)>()
        .await;
    assert_eq!(rows.expect("a row"), [(5, "happy".to_owned())]);
    let changed = db
        .run("UPDATE t SET m = 'sad' WHERE n = $1 AND n = $1")
        .bind(3)
        .execute()
        .await;
    assert_eq!(changed.expect("a count"), 1);
    assert_eq!(db.run("").execute().await.expect("nothing"), 0);
    let results = db
        .run("SELECT 1; DELETE FROM t WHERE n = 2000")
        .batch()
        .await
        .expect("results");
    assert_eq!((results.len(), results[1].rows_affected()), (2, 1));
    let results = db
        .run("SELECT 1; SELECT count(*) FROM t")
        .read()
        .batch()
        .await
        .expect("results");
    assert_eq!(results[1].rows()[0].get(0), Some("1999"));
    let dry = db
        .run("SELECT $1::int4, $2::text")
        .bind(None::<i32>)
        .bind("x'")
        .dry_run()
        .await
        .expect("a text");
    assert_eq!(
        dry.text(),
        "SELECT (NULL::pg_catalog.int4)::int4, ('x'''::pg_catalog.text)::text"
    );
    db.notify("channel", "payload").await.expect("a notification");
}

async fn transactions(db: &InteractionPool) {
    let sum = db.transact(|tx| async move {
        tx.execute("INSERT INTO done VALUES ($1)", &[&1]).await?;
        let taken_back = tx.savepoint(|tx| async move { tx.execute("INSERT INTO done SELECT 1 / 0", &[]).await });
        assert!(taken_back.await.is_err());
        let mut cursor = tx.cursor("SELECT n, m FROM t ORDER BY n", &[], 700).await?;
        let mut seen = 0;
        while let Some(rows) = cursor.next().await? {
            seen += rows.len();
        }
        Ok(seen)
    });
    assert_eq!(sum.isolation(Isolation::Serializable).await.expect("a function"), 1_999);

    let lock = "SELECT n FROM t WHERE n = 7 FOR UPDATE";
    let Partial {
        result,
        mut transaction,
    } = db.run(lock).scalar::<i32>().partial().await.expect("a pin");
    assert_eq!(result, 7);
    let done = db
        .run("INSERT INTO done VALUES ($1)")
        .bind(7)
        .within(&mut transaction)
        .execute()
        .await;
    assert_eq!(done.expect("a row"), 1);
    let receipt = transaction.commit().await.expect("committed");
    assert!(receipt.transaction_id().is_some());
}

async fn leases(world: &World, db: &InteractionPool) {
    let lease = db.pool("main").expect("a pool").checkout().await.expect("a lease");
    let mut copy = Box::pin(lease.copy_in("COPY done FROM STDIN").await.expect("a copy"));
    copy.send(bytes::Bytes::from_static(b"8\n9\n")).await.expect("sent");
    assert_eq!(std::pin::Pin::into_inner(copy).finish().await.expect("copied"), 2);
    let out = lease
        .copy_out("COPY (SELECT n FROM done ORDER BY n) TO STDOUT")
        .await
        .expect("a copy");
    let parts: Vec<_> = out.map(|part| part.expect("data").to_vec()).collect().await;
    assert_eq!(parts.concat(), b"1\n7\n8\n9\n");
    let raw = lease
        .raw()
        .query_one("SELECT m, p FROM t WHERE n = $1", &[&1])
        .await
        .expect("a row");
    assert!(matches!(raw.columns()[0].type_().kind(), Kind::Enum(_)));
    drop(lease);
    assert_eq!(world.direct("SELECT sum(n) FROM done"), "25");
}

#[test]
fn every_call_works() {
    on_each_server(Front::Three, SET_UP, |world| async move {
        let db = world.open(world.config().transaction_pooler()).await;
        all_calls(&world, &db).await;
        close(&db).await;
    });
}

#[test]
fn every_call_works_where_the_pooler_follows_statements() {
    on_each_server(Front::Tracking, SET_UP, |world| async move {
        let config = world.config().transaction_pooler().pooler_tracks_statements();
        let db = world.open(config).await;
        all_calls(&world, &db).await;
        close(&db).await;
    });
}

/// A plan that is kept under a name is refused by the server after such a change (0A000); here nothing is kept there.
#[test]
fn tables_may_change_under_statements_that_ran_before() {
    on_each_server(
        Front::One,
        "CREATE TABLE t (n int); INSERT INTO t VALUES (1)",
        |world| async move {
            let db = world.open(world.config().transaction_pooler().size(1)).await;
            let columns = async || {
                let rows = db.run("SELECT * FROM t").await.expect("rows");
                let names: Vec<String> = rows[0]
                    .columns()
                    .iter()
                    .map(|column| column.name().to_owned())
                    .collect();
                names.join(",")
            };
            assert_eq!(columns().await, "n");
            world.direct("ALTER TABLE t ADD COLUMN word text DEFAULT 'w'");
            assert_eq!(columns().await, "n,word");
            world.direct("ALTER TABLE t DROP COLUMN n; ALTER TABLE t ADD COLUMN later date");
            assert_eq!(columns().await, "word,later");

            // A value of the old type is refused once, and asked for anew after.
            let insert = |value| db.run("INSERT INTO t (word) VALUES ($1)").bind(value).execute();
            assert_eq!(insert("a").await.expect("a row"), 1);
            world.direct("TRUNCATE t; ALTER TABLE t DROP COLUMN word; ALTER TABLE t ADD COLUMN word int");
            let refused = insert("a").await.expect_err("the type is another one");
            assert_eq!(refused.outcome(), Outcome::RolledBack, "{refused}");
            let insert = db.run("INSERT INTO t (word) VALUES ($1)").bind(1).execute();
            assert_eq!(insert.await.expect("a row"), 1);

            // A type that is new to the session comes with rows that cannot be told apart yet: the session is given up.
            assert_eq!(columns().await, "later,word");
            world.direct("CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE t ADD COLUMN m mood DEFAULT 'sad'");
            let rows = db.run("SELECT * FROM t").read().await.expect("a read is sent again");
            assert_eq!(rows[0].columns().len(), 3);
            world.direct("CREATE TYPE other AS ENUM ('x'); ALTER TABLE t ADD COLUMN o other DEFAULT 'x'");
            let lost = db.run("SELECT * FROM t").await.expect_err("a write is not");
            assert!(
                matches!(lost.kind(), ErrorKind::Lost) && lost.outcome() == Outcome::Unknown,
                "{lost}"
            );
            assert_eq!(columns().await, "later,word,m,o");
            close(&db).await;
        },
    );
}
