//! The scripted server through the real tokio-postgres: queries, errors, COPY, cancel, transactions, notifications.

mod support;

use std::time::Duration;

use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use gdbpool::Runtime;
use gdbpool_sim::{Answer, CancelMode, Kill, PipeOptions, RowSet, Sim, SimTask, Step, Type, Value};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use support::{Connected, Tokio, code, connect, server, stream};

#[test]
fn rows_come_back_in_text_and_binary() {
    let sim = Sim::new(1);
    let (runtime, server) = (sim.runtime(), server(&sim));
    let columns = [
        ("id", Type::Int8),
        ("name", Type::Text),
        ("ok", Type::Bool),
        ("at", Type::Float8),
    ];
    let rows = vec![
        vec![1i64.into(), "Ann".into(), true.into(), 0.5.into()],
        vec![Value::Null, Value::Null, Value::Null, Value::Null],
    ];
    server.on(
        "SELECT * FROM users WHERE id > $1",
        Answer::rows(&columns, rows).typed(&[Type::Int8]),
    );
    sim.block_on(async {
        let db = connect(&runtime, &server).await.unwrap();
        let found = db
            .client
            .query("SELECT * FROM users WHERE id > $1", &[&0i64])
            .await
            .unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get::<_, i64>(0), 1);
        assert_eq!(found[0].get::<_, &str>("name"), "Ann");
        assert!(found[0].get::<_, bool>("ok"));
        assert!(found[0].get::<_, f64>("at") - 0.5 < 1e-9);
        assert_eq!(found[1].get::<_, Option<i64>>(0), None);
        assert_eq!(server.session(0).prepared, 1, "the driver prepared it");
        drop(found);
        let text = db
            .client
            .simple_query(" SELECT * FROM users WHERE id > $1; ")
            .await
            .unwrap();
        let SimpleQueryMessage::Row(row) = &text[1] else {
            panic!("{text:?}")
        };
        assert_eq!((row.get("id"), row.get("ok")), (Some("1"), Some("t")));
        assert_eq!(server.session(0).prepared, 0, "the driver closed it");
    });
    assert!(server.violations().is_empty());
}

#[test]
fn the_status_follows_transactions_and_errors() {
    let sim = Sim::new(2);
    let (runtime, server) = (sim.runtime(), server(&sim));
    server.on("SELECT 1/0", Answer::error("22012", "division by zero"));
    server.on_prefix("INSERT", Answer::tag("INSERT 0 1"));
    let status = || server.session(0).status;
    sim.block_on(async {
        let db = connect(&runtime, &server).await.unwrap();
        db.client
            .batch_execute("BEGIN; SET work_mem = '1MB'; CREATE TEMP TABLE t (i int)")
            .await
            .unwrap();
        assert_eq!(status(), 'T');
        assert_eq!(code(db.client.execute("SELECT 1/0", &[]).await), "22012");
        assert_eq!(status(), 'E');
        assert_eq!(code(db.client.execute("INSERT INTO t VALUES (1)", &[]).await), "25P02");
        assert_eq!(code(db.client.batch_execute("SELECT 1").await), "25P02");
        db.client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(status(), 'I');
        assert_eq!(server.session(0).settings["work_mem"], "4MB", "rolled back");
        assert!(server.session(0).temp_tables.is_empty(), "rolled back");
        // An error takes the implicit transaction of its whole message back.
        let text = "SET work_mem = '2MB'; SELECT 1/0; SET work_mem = '3MB'";
        assert_eq!(code(db.client.batch_execute(text).await), "22012");
        assert_eq!((status(), &*server.session(0).settings["work_mem"]), ('I', "4MB"));
        assert_eq!(code(db.client.batch_execute("BEGIN; SELECT 1/0").await), "22012");
        assert_eq!(status(), 'E');
        db.client.batch_execute("ROLLBACK").await.unwrap();
        db.client.batch_execute("BEGIN READ ONLY").await.unwrap();
        assert_eq!(code(db.client.execute("INSERT INTO t VALUES (1)", &[]).await), "25006");
        db.client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(code(db.client.batch_execute("VACUUM").await), "0A000");
        assert_eq!(db.client.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap(), 1);
    });
}

#[test]
fn everything_a_session_collects_is_seen_and_cleaned() {
    let sim = Sim::new(3);
    let (runtime, server) = (sim.runtime(), server(&sim));
    sim.block_on(async {
        let db = connect(&runtime, &server).await.unwrap();
        let fresh = server.session(0);
        let kept = db.client.prepare("SELECT 1").await.unwrap();
        let dirt = "SET application_name = 'x'; LISTEN a; SELECT pg_advisory_lock(7); CREATE TEMP TABLE t (i int);
            DECLARE c CURSOR WITH HOLD FOR SELECT 1; SET default_transaction_read_only = on; SET my.setting = 1;
            SELECT set_config('statement_timeout', '5s', false)";
        db.client.batch_execute(dirt).await.unwrap();
        let dirty = server.session(0);
        assert_eq!((dirty.prepared, dirty.advisory_locks, dirty.listens.len()), (1, 1, 1));
        assert_eq!((dirty.temp_tables.len(), dirty.cursors.len()), (1, 1));
        assert_eq!(dirty.settings["statement_timeout"], "5s");
        assert_eq!(
            code(db.client.batch_execute("CREATE TEMP TABLE u (i int)").await),
            "25006"
        );
        let clean = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *;
            SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD SEQUENCES; DISCARD TEMP";
        db.client.batch_execute(clean).await.unwrap();
        let mut cleaned = server.session(0);
        assert_eq!(cleaned.settings.remove("my.setting"), None);
        assert_eq!((cleaned.settings, cleaned.listens), (fresh.settings, fresh.listens));
        assert_eq!(
            (cleaned.temp_tables.len(), cleaned.cursors.len(), cleaned.advisory_locks),
            (0, 0, 0)
        );
        assert_eq!(cleaned.prepared, 1, "the statement cache survives");
        assert_eq!(db.client.query_one(&kept, &[]).await.unwrap().get::<_, i32>(0), 1);
        db.client.batch_execute("DISCARD ALL").await.unwrap();
        assert_eq!(code(db.client.query_one(&kept, &[]).await), "26000");
    });
}

#[test]
fn settings_that_clients_watch_are_reported() {
    let sim = Sim::new(4);
    let (runtime, server) = (sim.runtime(), server(&sim));
    server.set_parameter("in_hot_standby", "on");
    sim.block_on(async {
        let stream = Tokio(stream(&runtime, &server).await.unwrap());
        let mut config = support::config();
        config.application_name("probe").options("-c statement_timeout=3s");
        let (client, mut connection) = config.connect_raw(stream, NoTls).await.unwrap();
        assert_eq!(connection.parameter("in_hot_standby"), Some("on"));
        assert_eq!(connection.parameter("application_name"), Some("probe"));
        assert_eq!(server.session(0).settings["statement_timeout"], "3s");
        server.set_parameter("in_hot_standby", "off");
        let query = client.batch_execute("SET application_name = 'other'");
        let drive = futures::future::poll_fn(|cx| connection.poll_message(cx));
        pin_mut!(query);
        futures::future::select(query, drive).await;
        assert_eq!(connection.parameter("in_hot_standby"), Some("off"));
        assert_eq!(connection.parameter("application_name"), Some("other"));
    });
}

#[test]
fn copy_in_and_out_and_a_copy_given_up() {
    let sim = Sim::new(5);
    let (runtime, server) = (sim.runtime(), server(&sim));
    server.on("COPY t FROM STDIN", Answer::CopyIn);
    server.on("COPY t TO STDOUT", Answer::CopyOut(vec!["1\n".into(), "2\n".into()]));
    sim.block_on(async {
        let db = connect(&runtime, &server).await.unwrap();
        let sink = db.client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
        pin_mut!(sink);
        for line in ["1\n", "2\n3", "\n4"] {
            sink.send(line.into()).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 4);
        let out: Vec<bytes::Bytes> = db
            .client
            .copy_out("COPY t TO STDOUT")
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(out, ["1\n", "2\n"]);
        {
            let given_up = db.client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
            drop(given_up);
        }
        db.client.batch_execute("SELECT 1").await.unwrap();
        assert_eq!(server.session(0).status, 'I');
    });
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

/// A statement that waits, running beside the test.
fn start(sim: &Sim, mut db: Connected, sql: &'static str) -> SimTask<(Connected, String)> {
    sim.spawn(async move {
        let found = code(db.client.simple_query(sql).await);
        if found == "connection closed" {
            let end = db.end.next().await;
            return (db, format!("{end:?}"));
        }
        (db, found)
    })
}

#[test]
fn a_cancel_hits_what_runs_and_nothing_else() {
    let sim = Sim::new(6);
    let (runtime, server) = (sim.runtime(), server(&sim));
    let rows = RowSet::new(&[("n", Type::Int4)], vec![vec![1.into()], vec![2.into()]]);
    server.on(
        "SELECT 1",
        Answer::rows(&[("n", Type::Int4)], vec![]).after(Duration::from_secs(10)),
    );
    server.on("SELECT 2", Answer::Never);
    server.on("SELECT 3", Answer::RowsThenStall(rows, 1));
    let mut db = sim.block_on(connect(&runtime, &server)).unwrap();
    for (cancels, sql) in [(1, "SELECT 1"), (2, "SELECT 2"), (3, "SELECT 3")] {
        let token = db.client.cancel_token();
        let running = start(&sim, db, sql);
        sim.run_until_idle();
        assert!(server.session(0).in_flight);
        sim.block_on(async {
            token
                .cancel_query_raw(Tokio(stream(&runtime, &server).await.unwrap()), NoTls)
                .await
        })
        .unwrap();
        let (again, found) = sim.block_on(running);
        assert_eq!(found, "57014", "{sql}");
        assert_eq!(server.cancels().iter().filter(|cancel| cancel.hit).count(), cancels);
        db = again;
        sim.run_until_idle();
        assert!(!server.session(0).in_flight);
    }
    let token = db.client.cancel_token();
    let cancel = async {
        token
            .cancel_query_raw(Tokio(stream(&runtime, &server).await.unwrap()), NoTls)
            .await
    };
    sim.block_on(cancel).unwrap();
    sim.run_until_idle();
    assert_eq!(
        server.cancels().last().map(|cancel| cancel.hit),
        Some(false),
        "an idle session hears nothing"
    );
    assert_eq!(sim.block_on(start(&sim, db, "SHOW work_mem")).1, "no error");
    assert_eq!(server.sessions().len(), 1, "cancel connections are no sessions");
    assert_eq!(server.connections(), 5);
}

#[test]
fn a_late_cancel_hits_the_next_statement_as_on_a_real_server() {
    let sim = Sim::new(7);
    let (runtime, server) = (sim.runtime(), server(&sim));
    server.set_cancel_mode(CancelMode::Late(Duration::from_secs(1)));
    server.on("SELECT 9", Answer::Never);
    let db = sim.block_on(connect(&runtime, &server)).unwrap();
    let token = db.client.cancel_token();
    let cancel = async {
        token
            .cancel_query_raw(Tokio(stream(&runtime, &server).await.unwrap()), NoTls)
            .await
    };
    sim.block_on(cancel).unwrap();
    assert_eq!(sim.block_on(start(&sim, db, "SELECT 9")).1, "57014");
    assert_eq!(sim.now().as_nanos(), 1_000_000_000);
}

#[test]
fn errors_strike_at_the_step_that_was_asked_for() {
    let sim = Sim::new(8);
    let (runtime, server) = (sim.runtime(), server(&sim));
    let rows = || Answer::rows(&[("n", Type::Int4)], vec![vec![5.into()]]);
    server.on("SELECT n FROM a", rows());
    sim.block_on(async {
        let db = connect(&runtime, &server).await.unwrap();
        server.once(
            "SELECT n FROM a",
            Answer::error("42P01", "no such relation").at(Step::Parse),
        );
        assert_eq!(code(db.client.prepare("SELECT n FROM a").await), "42P01");
        let statement = db.client.prepare("SELECT n FROM a").await.unwrap();
        for step in [Step::Bind, Step::Execute] {
            server.once("SELECT n FROM a", Answer::error("XX000", "broken").at(step));
            assert_eq!(code(db.client.query(&statement, &[]).await), "XX000", "{step:?}");
        }
        server.once("SELECT n FROM a", rows().after(Duration::from_secs(3)));
        let before = runtime.now();
        assert_eq!(db.client.query_one(&statement, &[]).await.unwrap().get::<_, i32>(0), 5);
        assert_eq!(runtime.now() - before, Duration::from_secs(3));
        server.once("COMMIT", Answer::error("40001", "could not serialize access"));
        db.client.batch_execute("BEGIN; SET work_mem = '1MB'").await.unwrap();
        assert_eq!(code(db.client.batch_execute("COMMIT").await), "40001");
        let view = server.session(0);
        assert_eq!((view.status, &*view.settings["work_mem"]), ('I', "4MB"));
    });
}

#[test]
fn portals_give_rows_in_batches() {
    let sim = Sim::new(9);
    let (runtime, server) = (sim.runtime(), server(&sim));
    let rows = (0..5).map(|n| vec![n.into()]).collect();
    server.on("SELECT n FROM a", Answer::rows(&[("n", Type::Int4)], rows));
    sim.block_on(async {
        let mut db = connect(&runtime, &server).await.unwrap();
        let transaction = db.client.transaction().await.unwrap();
        let portal = transaction.bind("SELECT n FROM a", &[]).await.unwrap();
        let mut batches = Vec::new();
        for _ in 0..3 {
            let batch = transaction.query_portal(&portal, 2).await.unwrap();
            batches.push(batch.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>());
        }
        assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4]]);
        transaction.commit().await.unwrap();
        assert_eq!(server.session(0).portals, 0);
    });
}

#[test]
fn notifications_wait_for_the_end_of_a_transaction() {
    let sim = Sim::new(10);
    let (runtime, server) = (sim.runtime(), server(&sim));
    sim.block_on(async {
        let mut db = connect(&runtime, &server).await.unwrap();
        let other = connect(&runtime, &server).await.unwrap();
        db.client.batch_execute("BEGIN; LISTEN news").await.unwrap();
        assert!(server.session(0).listens.is_empty(), "LISTEN counts from the commit");
        db.client.batch_execute("COMMIT; BEGIN").await.unwrap();
        let text = "BEGIN; NOTIFY news, 'a'; NOTIFY news, 'a'; SELECT pg_notify('news', 'b'); COMMIT; NOTIFY news";
        other.client.batch_execute(text).await.unwrap();
        server.push_notification("news", "c");
        assert!(db.notifications.try_recv().is_err());
        db.client.batch_execute("COMMIT").await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let notification = db.notifications.next().await.unwrap();
            seen.push(notification.payload().to_owned());
        }
        assert_eq!(seen, ["a", "b", "", "c"]);
        server.push_notification("news", "idle");
        assert_eq!(db.notifications.next().await.unwrap().payload(), "idle");
    });
}

#[test]
fn killed_sessions_say_their_last_words() {
    let cases = [
        (Kill::Fatal, "Some(Err(\"57P01\"))"),
        (Kill::Silent, "Some(Err(\"connection closed\"))"),
    ];
    for (kill, expected) in cases {
        let sim = Sim::new(11);
        let (runtime, server) = (sim.runtime(), server(&sim));
        let mut db = sim.block_on(connect(&runtime, &server)).unwrap();
        sim.block_on(db.client.batch_execute("BEGIN; CREATE TEMP TABLE t (i int)"))
            .unwrap();
        server.kill_session(0, kill);
        assert_eq!(format!("{:?}", sim.block_on(db.end.next())), expected);
        let view = server.session(0);
        assert!(
            view.closed && view.temp_tables.is_empty() && view.status == 'I',
            "{view:?}"
        );
    }
}

#[test]
fn a_stopped_server_refuses_and_a_restarted_one_serves() {
    let sim = Sim::new(12);
    let (runtime, server) = (sim.runtime(), server(&sim));
    sim.block_on(async {
        let mut db = connect(&runtime, &server).await.unwrap();
        server.stop(Kill::Notice);
        assert_eq!(db.end.next().await, Some(Err("connection closed".to_owned())));
        assert!(stream(&runtime, &server).await.is_err());
        server.restart();
        connect(&runtime, &server).await.unwrap();
    });
    assert_eq!((server.sessions().len(), server.open_sessions()), (2, 1));
}

#[test]
fn a_large_answer_waits_for_its_reader() {
    let sim = Sim::new(13);
    sim.set_pipe_options(PipeOptions {
        capacity: 1000,
        latency: Duration::from_micros(50),
        max_read: 77,
    });
    let (runtime, server) = (sim.runtime(), server(&sim));
    let rows = (0..2_000).map(|n| vec![n.into()]).collect();
    server.on("SELECT n FROM big", Answer::rows(&[("n", Type::Int4)], rows));
    sim.block_on(async {
        let db = connect(&runtime, &server).await.unwrap();
        let found = db.client.query("SELECT n FROM big", &[]).await.unwrap();
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(n, row)| row.get::<_, i32>(0) == i32::try_from(n).unwrap())
        );
        assert_eq!(found.len(), 2_000);
    });
    assert!(sim.now().as_nanos() > 0);
}

#[test]
fn a_scripted_syntax_error_stops_the_whole_message() {
    let sim = Sim::new(14);
    let (runtime, server) = (sim.runtime(), server(&sim));
    server.on("SELEC 1", Answer::error("42601", "syntax error at or near \"SELEC\""));
    sim.block_on(async {
        let db = connect(&runtime, &server).await.unwrap();
        assert_eq!(code(db.client.batch_execute("BEGIN; SELEC 1").await), "42601");
        assert_eq!(server.session(0).status, 'I', "the BEGIN before it was never run");
        assert!(server.session(0).statements.is_empty());
    });
}
