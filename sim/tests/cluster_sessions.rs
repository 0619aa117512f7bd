//! Promise: unmodified tokio-postgres works on a simulated cluster as on a real one: values, transactions, sessions that wait
//! for each other, notifications, cancels, time-outs; and every session leaves the server as it found it.

mod support;

use std::time::Duration;

use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use gdbpool::Runtime;
use gdbpool_sim::{Cluster, ClusterConfig, EventKind, Sim, Type, Value};
use tokio_postgres::NoTls;

use support::{code, connect_node, node_stream};

fn cluster(sim: &Sim) -> Cluster {
    let cluster = Cluster::new(sim, ClusterConfig::new());
    let tables = "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
                  INSERT INTO account VALUES (1, 100), (2, 200)";
    cluster.set_up(tables).expect("the tables");
    cluster
}

/// What a correct client never causes.
fn nothing_illegal(cluster: &Cluster) {
    let history = cluster.history();
    let illegal = history
        .events()
        .iter()
        .filter(|event| matches!(event.kind, EventKind::IllegalMessage { .. }));
    assert_eq!(illegal.count(), 0);
}

#[test]
fn values_of_all_types_go_in_and_out() {
    let sim = Sim::new(1);
    let cluster = cluster(&sim);
    let runtime = sim.runtime();
    let columns = "a int2, b int4, c int8, d float4, e float8, f bool, g text, h varchar, i bytea, j int4[], k text[]";
    cluster.set_up(&format!("CREATE TABLE every ({columns})")).unwrap();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        let insert = "INSERT INTO every VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let (bytes, numbers, words) = (vec![0u8, 255], vec![1i32, -1], vec!["a", "it's \"b\""]);
        let inserted = db
            .client
            .execute(
                insert,
                &[
                    &1i16, &-2i32, &3i64, &0.5f32, &-1e300f64, &true, &"Ä", &"v", &bytes, &numbers, &words,
                ],
            )
            .await;
        assert_eq!(inserted.unwrap(), 1);
        let none: [Option<i32>; 1] = [None];
        assert_eq!(
            db.client
                .execute("INSERT INTO every (b) VALUES ($1)", &[&none[0]])
                .await
                .unwrap(),
            1
        );
        let rows = db.client.query("SELECT * FROM every ORDER BY a", &[]).await.unwrap();
        assert_eq!(
            (
                rows[0].get::<_, i16>(0),
                rows[0].get::<_, i32>(1),
                rows[0].get::<_, i64>(2)
            ),
            (1, -2, 3)
        );
        assert!((rows[0].get::<_, f32>(3) - 0.5).abs() < f32::EPSILON);
        assert!((rows[0].get::<_, f64>(4) + 1e300).abs() < 1e285);
        assert_eq!(
            (
                rows[0].get::<_, bool>(5),
                rows[0].get::<_, &str>(6),
                rows[0].get::<_, &str>(7)
            ),
            (true, "Ä", "v")
        );
        assert_eq!(
            (rows[0].get::<_, Vec<u8>>(8), rows[0].get::<_, Vec<i32>>(9)),
            (bytes, numbers)
        );
        assert_eq!(rows[0].get::<_, Vec<String>>(10), ["a", "it's \"b\""]);
        assert_eq!(rows[1].get::<_, Option<i32>>(1), None);
    });
    nothing_illegal(&cluster);
}

#[test]
fn a_transaction_is_seen_when_it_is_committed_and_never_when_it_is_not() {
    let sim = Sim::new(2);
    let cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let mut writer = connect_node(&runtime, "n0").await.unwrap();
        let reader = connect_node(&runtime, "n0").await.unwrap();
        let balance = || async {
            let row = reader
                .client
                .query_one("SELECT balance FROM account WHERE id = 1", &[])
                .await
                .unwrap();
            row.get::<_, i32>(0)
        };
        let transaction = writer.client.transaction().await.unwrap();
        transaction
            .execute("UPDATE account SET balance = 0 WHERE id = $1", &[&1i32])
            .await
            .unwrap();
        assert_eq!(balance().await, 100);
        transaction.commit().await.unwrap();
        assert_eq!(balance().await, 0);
        let mut transaction = writer.client.transaction().await.unwrap();
        transaction
            .execute("UPDATE account SET balance = 1 WHERE id = 1", &[])
            .await
            .unwrap();
        let inner = transaction.transaction().await.unwrap();
        inner
            .execute("UPDATE account SET balance = 2 WHERE id = 1", &[])
            .await
            .unwrap();
        inner.rollback().await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(balance().await, 1);
        let transaction = writer.client.transaction().await.unwrap();
        transaction.execute("DELETE FROM account", &[]).await.unwrap();
        drop(transaction);
        assert_eq!(balance().await, 1);
    });
    nothing_illegal(&cluster);
}

#[test]
fn the_second_writer_of_a_row_waits_for_the_first() {
    let sim = Sim::new(3);
    let cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let first = connect_node(&runtime, "n0").await.unwrap();
        first
            .client
            .batch_execute("BEGIN; UPDATE account SET balance = balance + 1 WHERE id = 1")
            .await
            .unwrap();
        let second = connect_node(&runtime, "n0").await.unwrap();
        let task = sim.spawn(async move {
            second
                .client
                .execute("UPDATE account SET balance = balance * 2 WHERE id = 1", &[])
                .await
                .unwrap()
        });
        // Far longer than the look for deadlocks takes.
        runtime.sleep_until(runtime.now() + Duration::from_secs(5)).await;
        let waiting = cluster
            .node("n0")
            .sessions()
            .iter()
            .filter(|session| session.running)
            .count();
        assert_eq!(waiting, 1);
        first.client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(task.await, 1);
        let row = first
            .client
            .query_one("SELECT balance FROM account WHERE id = 1", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i32>(0), 202);
    });
}

#[test]
fn of_two_that_wait_for_each_other_one_goes_on() {
    let sim = Sim::new(4);
    let _cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let left = connect_node(&runtime, "n0").await.unwrap();
        let right = connect_node(&runtime, "n0").await.unwrap();
        let lock = |id: i32| format!("UPDATE account SET balance = 7 WHERE id = {id}");
        left.client.batch_execute(&format!("BEGIN; {}", lock(1))).await.unwrap();
        right
            .client
            .batch_execute(&format!("BEGIN; {}", lock(2)))
            .await
            .unwrap();
        let (one, two) = (lock(2), lock(1));
        let (a, b) = futures::join!(left.client.batch_execute(&one), right.client.batch_execute(&two));
        let codes = [code(a), code(b)];
        assert!(
            codes.contains(&"40P01".to_owned()) && codes.contains(&"no error".to_owned()),
            "{codes:?}"
        );
    });
}

#[test]
fn notifications_come_when_they_are_committed_and_in_order() {
    let sim = Sim::new(5);
    let _cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let mut listener = connect_node(&runtime, "n0").await.unwrap();
        listener.client.batch_execute("LISTEN news").await.unwrap();
        let sender = connect_node(&runtime, "n0").await.unwrap();
        sender
            .client
            .batch_execute("BEGIN; NOTIFY news, 'lost'; ROLLBACK")
            .await
            .unwrap();
        sender
            .client
            .batch_execute("BEGIN; NOTIFY news, 'one'; NOTIFY news, 'two'; COMMIT")
            .await
            .unwrap();
        sender
            .client
            .execute("SELECT pg_notify($1, $2)", &[&"news", &"three"])
            .await
            .unwrap();
        for expected in ["one", "two", "three"] {
            assert_eq!(listener.notifications.next().await.unwrap().payload(), expected);
        }
        // In a transaction nothing comes, then everything.
        listener.client.batch_execute("BEGIN").await.unwrap();
        sender.client.batch_execute("NOTIFY news, 'four'").await.unwrap();
        runtime.sleep_until(runtime.now() + Duration::from_secs(1)).await;
        assert!(listener.notifications.try_recv().is_err());
        listener.client.batch_execute("COMMIT; UNLISTEN news").await.unwrap();
        assert_eq!(listener.notifications.next().await.unwrap().payload(), "four");
        sender.client.batch_execute("NOTIFY news, 'unheard'").await.unwrap();
        runtime.sleep_until(runtime.now() + Duration::from_secs(1)).await;
        assert!(listener.notifications.try_recv().is_err());
    });
}

#[test]
fn a_cancel_stops_the_statement_and_nothing_else() {
    let sim = Sim::new(6);
    let cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        let token = db.client.cancel_token();
        let cancel = async {
            runtime.sleep_until(runtime.now() + Duration::from_secs(1)).await;
            let stream = node_stream(&runtime, "n0").await.unwrap();
            token.cancel_query_raw(stream, NoTls).await.unwrap();
        };
        let (result, ()) = futures::join!(db.client.batch_execute("SELECT pg_sleep(3600)"), cancel);
        assert_eq!(code(result), "57014");
        assert!(runtime.now().as_nanos() < 2_000_000_000, "the sleep was cut short");
        db.client.batch_execute("SELECT 1").await.unwrap();
    });
    let history = cluster.history();
    let hits = history
        .events()
        .iter()
        .filter(|event| matches!(event.kind, EventKind::CancelArrived { hit: true, .. }));
    assert_eq!(hits.count(), 1);
}

#[test]
fn time_outs_end_statements_waits_and_idle_transactions() {
    let sim = Sim::new(7);
    let _cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let holder = connect_node(&runtime, "n0").await.unwrap();
        holder
            .client
            .batch_execute("BEGIN; UPDATE account SET balance = 1 WHERE id = 1")
            .await
            .unwrap();
        let db = connect_node(&runtime, "n0").await.unwrap();
        db.client
            .batch_execute("SET statement_timeout = '2s'; SET lock_timeout = '1s'")
            .await
            .unwrap();
        assert_eq!(code(db.client.batch_execute("SELECT pg_sleep(60)").await), "57014");
        let update = "UPDATE account SET balance = 2 WHERE id = 1";
        assert_eq!(code(db.client.batch_execute(update).await), "55P03");
        db.client.batch_execute("SET lock_timeout = 0").await.unwrap();
        assert_eq!(code(db.client.batch_execute(update).await), "57014");
        let mut idle = connect_node(&runtime, "n0").await.unwrap();
        idle.client
            .batch_execute("SET idle_in_transaction_session_timeout = '3s'; BEGIN")
            .await
            .unwrap();
        assert_eq!(idle.end.next().await, Some(Err("25P03".to_owned())));
    });
}

#[test]
fn copy_carries_rows_both_ways() {
    let sim = Sim::new(8);
    let cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        let sink = db.client.copy_in("COPY account FROM STDIN").await.unwrap();
        pin_mut!(sink);
        sink.send(bytes::Bytes::from_static(b"3\t300\n4\t")).await.unwrap();
        sink.send(bytes::Bytes::from_static(b"400\n")).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), 2);
        let rows = db.client.copy_out("COPY account TO STDOUT").await.unwrap();
        let rows: Vec<bytes::Bytes> = rows.try_collect().await.unwrap();
        assert_eq!(rows.concat(), b"1\t100\n2\t200\n3\t300\n4\t400\n");
    });
    nothing_illegal(&cluster);
}

#[test]
fn a_client_that_goes_leaves_nothing() {
    let sim = Sim::new(9);
    let cluster = cluster(&sim);
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        db.client
            .batch_execute("BEGIN; UPDATE account SET balance = 0; LISTEN news")
            .await
            .unwrap();
        drop(db);
    });
    sim.advance(Duration::from_secs(1));
    assert!(cluster.node("n0").sessions().is_empty());
    let rows = cluster
        .execute("n0", "SELECT balance FROM account WHERE id = 1 FOR UPDATE NOWAIT")
        .unwrap();
    assert_eq!(rows, [[Some("100".to_owned())]]);
}

#[test]
fn a_registered_answer_is_given_under_the_rules_of_any_statement() {
    let sim = Sim::new(10);
    let cluster = cluster(&sim);
    cluster.respond(
        "SELECT weather(",
        &[Type::Text],
        &[("degrees", Type::Int4)],
        |parameters, node| {
            assert_eq!(node, "n0");
            let place = parameters[0].as_deref().unwrap_or_default();
            Ok(vec![vec![Value::from(i32::try_from(place.len()).unwrap_or_default())]])
        },
    );
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        let row = db.client.query_one("SELECT weather($1)", &[&"Oslo"]).await.unwrap();
        assert_eq!(row.get::<_, i32>("degrees"), 4);
        db.client.batch_execute("BEGIN").await.unwrap();
        assert_eq!(code(db.client.batch_execute("SELECT 1/0").await), "22012");
        assert_eq!(code(db.client.query("SELECT weather($1)", &[&"Rome"]).await), "25P02");
    });
}
