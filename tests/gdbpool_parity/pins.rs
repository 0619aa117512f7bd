//! The rows about partial transactions, and what runs inside one.

use gdbpool::{Error, Outcome, Partial};

use super::{INSERT, PID, fresh_id, on_each_server};

#[test]
fn conn_and_cursor() {
    on_each_server(async |world| {
        let (db, id, other) = (&world.db, fresh_id(), fresh_id());
        let Partial {
            result,
            mut transaction,
        } = db.run(PID).scalar::<i32>().partial().await.expect("begun");
        let here: i32 = db
            .run(PID)
            .scalar()
            .within(&mut transaction)
            .await
            .expect("a process id");
        assert_eq!((here, transaction.backend_pid()), (result, result));
        db.run(INSERT)
            .bind(id)
            .execute()
            .within(&mut transaction)
            .await
            .expect("inserted");
        let function = db.transact(|tx| async move { tx.execute(INSERT, &[&other]).await });
        assert_eq!(function.within(&mut transaction).await.ok(), Some(1));
        let select = "SELECT id FROM test_values WHERE id <= $1 ORDER BY id";
        let mut cursor = transaction
            .cursor(select, &[&100_000i32], 30_000)
            .await
            .expect("a cursor");
        let mut batches = Vec::new();
        while let Some(rows) = cursor.next().await.expect("a batch") {
            batches.push((rows.len(), rows[0].get::<_, i32>(0)));
        }
        assert_eq!(
            batches,
            [(30_000, 1), (30_000, 30_001), (30_000, 60_001), (10_000, 90_001)]
        );
        cursor.close().await.expect("closed");
        transaction.commit().await.expect("committed");
        assert_eq!((world.rows(id), world.rows(other)), ("1".into(), "1".into()));
    });
}

#[test]
fn partial_txn() {
    on_each_server(async |world| {
        let (db, id, other) = (&world.db, fresh_id(), fresh_id());
        let begun = db.run(INSERT).bind(id).execute().partial().await.expect("begun");
        assert_eq!(begun.result, 1);
        let mut transaction = begun.transaction;
        assert_eq!(world.rows(id), "0", "it is open");
        let pids: Vec<i32> = {
            let mut pids = Vec::new();
            for _ in 0..5 {
                pids.push(db.run(PID).scalar().on_pool("main").await.expect("a process id"));
            }
            pids
        };
        assert!(
            !pids.contains(&transaction.backend_pid()),
            "nobody else is on its connection"
        );
        let update = "UPDATE test_values SET val1 = 77 WHERE id = $1";
        let updated = db.run(update).bind(id).execute().within(&mut transaction).await;
        assert_eq!(updated.ok(), Some(1));
        transaction.commit().await.expect("committed");
        assert_eq!(
            world.psql(&format!("SELECT val1 FROM test_values WHERE id = {id}")),
            "77"
        );

        let begun = db
            .transact(|tx| async move { tx.execute(INSERT, &[&other]).await })
            .partial()
            .await;
        begun.expect("begun").transaction.rollback().await.expect("rolled back");
        assert_eq!(world.rows(other), "0");
        let begun = db.run(INSERT).bind(other).partial().await.expect("begun");
        drop(begun);
        assert_eq!(world.rows(other), "0", "dropped is rolled back");
        let refused = db
            .transact(|_| async { Err::<(), _>(Error::user("no")) })
            .partial()
            .await;
        assert_eq!(refused.expect_err("its own decision").outcome(), Outcome::NotExecuted);
    });
}
