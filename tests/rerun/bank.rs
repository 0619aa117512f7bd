//! Bank transfers under SERIALIZABLE: many at once, with sessions killed in between, each result held against the books.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gdbpool::{Cancel, CloseReason, Error, ErrorKind, InteractionPool, Isolation, Outcome, PoolConfig, Transaction};

use super::one_database::{World, on_each_server};
use super::state;

/// No key on `transfers`: a transfer that is applied twice stays in it twice.
const SET_UP: &str = "CREATE TABLE accounts (id int PRIMARY KEY, balance int8 NOT NULL); \
    INSERT INTO accounts SELECT n, 100 FROM generate_series(0, 7) n; \
    CREATE TABLE transfers (id int, run int, source int, target int, amount int8, memo text)";

/// Ends a session of the bank every few milliseconds, until it is cancelled.
const KILLER: &str = "DO $$ BEGIN LOOP PERFORM pg_stat_clear_snapshot(); PERFORM pg_terminate_backend(pid) FROM \
    (SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bank' \
     AND query <> '' ORDER BY random() LIMIT 1) AS chosen; PERFORM pg_sleep(0.015); END LOOP; END $$";

/// What became of a transfer: in which run it succeeded.
type Told = Result<u32, Error>;

#[derive(Clone)]
struct Transfer {
    id: i32,
    source: i32,
    target: i32,
    amount: i64,
    memo: String,
}

impl Transfer {
    fn new(id: i32) -> Self {
        Self {
            id,
            source: id % 8,
            target: (id / 8 + id + 1) % 8,
            amount: i64::from(id % 5) + 1,
            memo: format!("the transfer of number {id}"),
        }
    }

    /// Every seventh is refused at the end by the bank itself.
    fn is_refused(&self) -> bool {
        self.id % 7 == 6
    }

    /// Reads and writes back, as a caller does who relies on SERIALIZABLE.
    async fn book(self, tx: Transaction, run: u32) -> Told {
        for (account, change) in [(self.source, -self.amount), (self.target, self.amount)] {
            let read = "SELECT balance FROM accounts WHERE id = $1";
            let balance: i64 = tx.query_one(read, &[&account]).await?.get(0);
            let write = "UPDATE accounts SET balance = $1 WHERE id = $2";
            tx.execute(write, &[&(balance + change), &account]).await?;
        }
        let insert = "INSERT INTO transfers VALUES ($1, $2, $3, $4, $5, $6)";
        let run_number = i32::try_from(run).map_err(Error::user)?;
        tx.execute(
            insert,
            &[
                &self.id,
                &run_number,
                &self.source,
                &self.target,
                &self.amount,
                &self.memo,
            ],
        )
        .await?;
        if self.is_refused() {
            return Err(Error::user("refused"));
        }
        Ok(run)
    }
}

async fn open(world: &World) -> InteractionPool {
    let bank = PoolConfig::new("bank", &world.dsn).expect("a sound DSN").size(8);
    let bank = bank.application_name("bank").ping_after(None);
    let bank = bank.connect_backoff(Duration::from_millis(5), Duration::from_millis(50));
    let builder = InteractionPool::builder(Arc::clone(&world.runtime)).pool(bank);
    builder.open().await.expect("sound settings")
}

/// Runs all transfers at once; gives what was told of each, and how many runs there were.
async fn transfer(bank: &InteractionPool, count: i32, reruns: Option<u32>) -> (Vec<Told>, u32) {
    let runs = Arc::new(AtomicU32::new(0));
    let started: Vec<_> = (0..count)
        .map(|id| {
            let (transfer, runs, mut run) = (Transfer::new(id), Arc::clone(&runs), 0);
            let order = bank.transact(move |tx| {
                run += 1;
                runs.fetch_add(1, Ordering::SeqCst);
                transfer.clone().book(tx, run)
            });
            let order = order.isolation(Isolation::Serializable);
            match reruns {
                Some(limit) => order.reruns(limit).spawn(),
                None => order.spawn(),
            }
        })
        .collect();
    let mut told = Vec::new();
    for transfer in started {
        told.push(transfer.await);
    }
    (told, runs.load(Ordering::SeqCst))
}

/// Holds what was told against the books, once no session can change them any more. Gives how many are unknown.
async fn check(world: &World, bank: InteractionPool, told: &[Told]) -> usize {
    for report in bank.close(Duration::from_secs(20)).await {
        assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
    }
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bank'";
    world
        .until("every session has ended", || world.psql(sessions) == "0")
        .await;
    assert_eq!(world.psql("SELECT sum(balance) FROM accounts"), "800");
    let wrong = "SELECT count(*) FROM accounts WHERE balance <> 100 \
        + (SELECT coalesce(sum(amount), 0) FROM transfers WHERE target = accounts.id) \
        - (SELECT coalesce(sum(amount), 0) FROM transfers WHERE source = accounts.id)";
    assert_eq!(world.psql(wrong), "0", "accounts that the transfers do not explain");
    let books = world.psql("SELECT id, run, memo FROM transfers");
    let mut unknown = 0;
    for (id, told) in (0i32..).zip(told) {
        let start = format!("{id}|");
        let found: Vec<&str> = books.lines().filter(|line| line.starts_with(&start)).collect();
        match told {
            Ok(run) => assert_eq!(found, [format!("{id}|{run}|the transfer of number {id}")]),
            Err(error) => match error.outcome() {
                Outcome::RolledBack | Outcome::NotExecuted => assert!(found.is_empty(), "{found:?}: {error:?}"),
                Outcome::Unknown => {
                    assert_eq!(error.sqlstate().map(|state| state.code()), Some("08007"));
                    assert!(found.len() <= 1, "{found:?}: {error:?}");
                    unknown += 1;
                }
                other => panic!("{other:?}: {error:?}"),
            },
        }
    }
    unknown
}

#[test]
fn concurrent_transfers_are_each_applied_once() {
    on_each_server(SET_UP, async |world: World| {
        let bank = open(&world).await;
        let (told, runs) = transfer(&bank, 60, Some(1_000)).await;
        for (id, told) in (0i32..).zip(&told) {
            match told {
                Ok(_) => assert!(!Transfer::new(id).is_refused()),
                Err(error) => {
                    assert!(Transfer::new(id).is_refused(), "{error:?}");
                    assert!(matches!(error.kind(), ErrorKind::User), "{error:?}");
                }
            }
        }
        assert!(runs > 60, "nothing was in conflict: {runs}");
        assert_eq!(check(&world, bank, &told).await, 0);
    });
}

#[test]
fn killed_sessions_apply_nothing_twice_and_no_result_is_untrue() {
    on_each_server(SET_UP, async |world: World| {
        let bank = open(&world).await;
        let enough = Cancel::new();
        let killer = world.db.run(KILLER).cancel_on(&enough).spawn();
        let (told, _) = transfer(&bank, 150, None).await;
        enough.cancel();
        let error = killer.await.expect_err("it runs until it is stopped");
        assert!(
            matches!(error.kind(), ErrorKind::Cancelled) || state(&error) == Some("57014"),
            "{error:?}"
        );
        let status = bank.pool("bank").expect("the pool").status();
        let lost = status.closes(CloseReason::ClosedByServer) + status.closes(CloseReason::Broken);
        assert!(lost > 0, "nobody was killed: {status:?}");
        let succeeded = told.iter().filter(|told| told.is_ok()).count();
        assert!(succeeded > 0, "nothing got through");
        let unknown = check(&world, bank, &told).await;
        println!(
            "{lost} sessions lost, {succeeded} of {} transfers done, {unknown} unknown",
            told.len()
        );
    });
}
