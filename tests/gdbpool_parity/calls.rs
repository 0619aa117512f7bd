//! The rows about interactions and their results.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::TryStreamExt;
use gdbpool::{AsyncResult, BadInput, ErrorKind, Row, Transaction};

use super::{INSERT, MILLION, fresh_id, on_each_server};

const SELECT: &str = "SELECT id, val1, val4 FROM test_values WHERE id BETWEEN $1 AND $2 ORDER BY id";

#[test]
fn calling_the_object() {
    on_each_server(async |world| {
        let rows = world
            .db
            .run("SELECT id FROM test_values WHERE id <= 3 ORDER BY id")
            .await
            .expect("rows");
        let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, [1, 2, 3]);
        let count = String::from("SELECT count(*) FROM test_values WHERE id <= 1000000");
        let count: i64 = world.db.run(count).read().scalar().await.expect("a count");
        assert_eq!(count, i64::from(MILLION));
    });
}

#[test]
fn interaction() {
    on_each_server(async |world| {
        let (a, b) = (fresh_id(), fresh_id());
        let sum = "SELECT sum(val1) FROM test_values WHERE id IN ($1, $2)";
        let by_run = world
            .db
            .run(move |tx: Transaction| async move {
                tx.execute(INSERT, &[&a]).await?;
                tx.execute(INSERT, &[&b]).await?;
                Ok(tx.query_one(sum, &[&a, &b]).await?.get::<_, i64>(0))
            })
            .await;
        assert_eq!(by_run.expect("committed"), 2);
        let by_transact = world
            .db
            .transact(|tx| async move { Ok(tx.query_one(sum, &[&a, &b]).await?.get::<_, i64>(0)) })
            .await;
        assert_eq!(by_transact.expect("committed"), 2);
        let by_sql: i64 = world.db.run(sum).bind(a).bind(b).scalar().await.expect("a sum");
        assert_eq!(by_sql, 2);
    });
}

#[test]
fn interaction_args() {
    on_each_server(async |world| {
        let ids = |rows: Vec<Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>();
        let owned = world.db.run(SELECT).bind(7i32).bind(9i32).await;
        assert_eq!(ids(owned.expect("rows")), [7, 8, 9]);
        let (from, to) = (10i32, 11i32);
        let borrowed = world.db.run(SELECT).args(&[&from, &to]).await;
        assert_eq!(ids(borrowed.expect("rows")), [10, 11]);
        let named = "SELECT id FROM test_values WHERE id = :id AND val4 = 'value ' || :id::int::text";
        let named = world.db.run(named).bind_named("id", 42i32).await;
        assert_eq!(ids(named.expect("rows")), [42]);
        let error = world.db.run(SELECT).bind(7i32).await.expect_err("one is missing");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::ParameterCount { .. })),
            "{error:?}"
        );
    });
}

#[test]
fn get_result() {
    on_each_server(async |world| {
        let three = || world.db.run(SELECT).bind(1i32).bind(3i32);
        let one = || world.db.run(SELECT).bind(5i32).bind(5i32);
        assert_eq!(three().rows().await.expect("rows").len(), 3);
        assert_eq!(one().one().await.expect("a row").get::<_, String>("val4"), "value 5");
        assert!(one().opt().await.expect("a row").is_some());
        let none = world.db.run(SELECT).bind(0i32).bind(0i32);
        assert!(none.opt().await.expect("no row").is_none());
        let error = three().one().await.expect_err("three rows");
        assert!(matches!(error.kind(), ErrorKind::RowCount { .. }), "{error:?}");
        let average = "SELECT avg(val3) FROM test_values WHERE id <= 1000000";
        let average: f64 = world.db.run(average).read().scalar().await.expect("an average");
        assert!((average - 62_500.062_5).abs() < 1e-6, "{average}");
        let typed = three().typed::<(i32, i32, String)>().await.expect("rows");
        assert_eq!(typed[2], (3, 3, "value 3".to_owned()));
        let all = world
            .db
            .run("SELECT id FROM test_values WHERE id <= 1000000")
            .read()
            .stream();
        let rows = all.await.expect("a stream");
        let (count, sum) = rows
            .try_fold((0i64, 0i64), |(count, sum), row| async move {
                Ok((count + 1, sum + i64::from(row.get::<_, i32>(0))))
            })
            .await
            .expect("all rows");
        assert_eq!((count, sum), (1_000_000, 500_000_500_000));
        let update = "UPDATE test_values SET val1 = val1 WHERE id BETWEEN 100 AND 104";
        assert_eq!(
            world.db.run(update).execute().await.ok(),
            Some(5),
            "no result but the count, rules or not"
        );
    });
}

#[test]
fn dry_run() {
    on_each_server(async |world| {
        let id = fresh_id();
        let insert = "INSERT INTO test_values (id, val4) VALUES ($1, $2)";
        let dry = world
            .db
            .run(insert)
            .bind(id)
            .bind("O'Hara")
            .dry_run()
            .await
            .expect("a text");
        let expected = format!(
            "INSERT INTO test_values (id, val4) VALUES (('{id}'::pg_catalog.int4), ('O''Hara'::pg_catalog.text))"
        );
        assert_eq!(dry.text(), expected);
        assert_eq!(world.rows(id), "0", "it was not executed");
        world
            .db
            .run(dry.into_text())
            .execute()
            .await
            .expect("a statement like any other");
        assert_eq!(world.rows(id), "1");
    });
}

#[test]
fn args_and_kwargs_of_functions() {
    on_each_server(async |world| {
        let (id, word) = (fresh_id(), String::from("captured"));
        let written = world
            .db
            .transact(|tx| {
                let word = word.clone();
                async move {
                    let insert = "INSERT INTO test_values (id, val4) VALUES ($1, $2) RETURNING val4";
                    Ok(tx.query_one(insert, &[&id, &word]).await?.get::<_, String>(0))
                }
            })
            .await;
        assert_eq!(written.expect("committed"), word);
        assert_eq!(world.rows(id), "1");
    });
}

#[test]
fn async_result() {
    on_each_server(async |world| {
        let id = fresh_id();
        let started: AsyncResult<u64> = world.db.run(INSERT).bind(id).execute().spawn();
        // Nobody awaits it, and it runs.
        world.until("it has run", || started.is_finished()).await;
        assert_eq!(world.rows(id), "1");
        assert_eq!(started.await.ok(), Some(1));
        let id = fresh_id();
        drop(world.db.run(INSERT).bind(id).execute().spawn());
        world.until("detached, not cancelled", || world.rows(id) == "1").await;
        let (id, runs) = (fresh_id(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&runs);
        let function = world.db.transact(move |tx| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { tx.execute(INSERT, &[&id]).await }
        });
        assert_eq!(function.spawn().await.ok(), Some(1));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let id = fresh_id();
        let lazy = world.db.run(INSERT).bind(id).execute();
        assert_eq!(world.rows(id), "0", "without spawn it runs where it is awaited");
        assert_eq!(lazy.await.ok(), Some(1));
    });
}

#[test]
fn several_statements_in_one_string() {
    on_each_server(async |world| {
        let id = fresh_id();
        let text = "INSERT INTO test_values (id) VALUES ($1); SELECT 1";
        let error = world.db.run(text).bind(id).await.expect_err("two statements");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::SeveralStatements)),
            "{error:?}"
        );
        assert!(error.to_string().contains("batch"), "it says what to do: {error}");
        let text = format!("INSERT INTO test_values (id) VALUES ({id}); SELECT id FROM test_values WHERE id = {id}");
        let error = world.db.run(&text).await.expect_err("two statements");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::SeveralStatements)),
            "{error:?}"
        );
        assert_eq!(world.rows(id), "0");
        let results = world.db.run(&text).batch().await.expect("a batch");
        assert_eq!(results[0].rows_affected(), 1);
        assert_eq!(
            results.last().expect("results").rows()[0].get(0),
            Some(id.to_string().as_str())
        );
        assert_eq!(world.rows(id), "1");
        let error = world
            .db
            .run(&text)
            .bind(1i32)
            .batch()
            .await
            .expect_err("a batch takes no values");
        assert!(matches!(error.kind(), ErrorKind::BadInput(_)), "{error:?}");
    });
}
