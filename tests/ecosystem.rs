//! Promise: tools of the ecosystem work with the library as `examples/ecosystem` shows: refinery's migrations on a lease, the
//! derives of `postgres-types`, rows into structs by `postgres-from-row`.

#[path = "../examples/ecosystem/migrations.rs"]
mod migrations;
#[path = "support/one_database.rs"]
mod one_database;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "../examples/ecosystem/shop.rs"]
mod shop;
mod support;

use futures::future::join;
use gdbpool::{BadInput, ErrorKind};
use refinery_core::{Migration, Runner};

use crate::migrations::{embedded, migrate};
use crate::one_database::{World, on_each_server};
use crate::shop::{Address, ByName, Customer, Email, Mood};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn customer(id: i32) -> Customer {
    Customer {
        id,
        name: "O'Hara".into(),
        mood: [Mood::Sad, Mood::Happy][id as usize % 2],
        address: (id > 1).then(|| Address {
            street: "High Street".into(),
            number: id,
        }),
        email: Email("ann@example.org".into()),
    }
}

#[test]
fn migrations_run_once_also_when_two_programs_ask_for_them_together() {
    on_each_server("", |world: World| async move {
        let pool = world.db.pool("main").expect("a pool");
        let runner = embedded::migrations::runner();
        let (one, two) = join(migrate(&pool, &runner), migrate(&pool, &runner)).await;
        let applied = [one, two].map(|report| report.expect("migrated").applied_migrations().len());
        assert_eq!(applied.iter().sum::<usize>(), 2, "{applied:?}");
        assert!(applied.contains(&0), "{applied:?}");
        let history = "SELECT string_agg(version || ' ' || name, ', ' ORDER BY version) FROM refinery_schema_history";
        assert_eq!(world.psql(history), "1 types, 2 customers");
        world
            .until("the lock is given back", || {
                world.psql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"
            })
            .await;
    });
}

#[test]
fn a_migration_that_fails_is_taken_back_as_a_whole() {
    on_each_server("", |world: World| async move {
        let pool = world.db.pool("main").expect("a pool");
        let migrations = [
            Migration::unapplied("V1__good", "CREATE TABLE good (n int)").expect("a migration"),
            Migration::unapplied("V2__bad", "CREATE TABLE bad (n int); SELECT 1 / 0").expect("a migration"),
        ];
        let failed = migrate(&pool, &Runner::new(&migrations))
            .await
            .expect_err("a division by zero");
        let mut causes = std::iter::successors(Some(&*failed as &dyn std::error::Error), |error| error.source());
        let ours = causes
            .find_map(|error| error.downcast_ref::<gdbpool::Error>())
            .expect("our error in it");
        assert_eq!(ours.sqlstate().map(|state| state.code()), Some("22012"), "{ours}");
        let seen = "SELECT to_regclass('good') IS NOT NULL, to_regclass('bad') IS NOT NULL, \
                    (SELECT count(*) FROM refinery_schema_history)";
        assert_eq!(world.psql(seen), "t|f|1");
    });
}

#[test]
fn derived_types_go_in_and_come_out() {
    on_each_server("", |world: World| async move {
        let pool = world.db.pool("main").expect("a pool");
        migrate(&pool, &embedded::migrations::runner()).await.expect("migrated");
        let customers = [customer(1), customer(2)];
        for customer in &customers {
            assert_eq!(shop::add(&world.db, customer).await.expect("a row"), 1);
        }
        assert_eq!(shop::all(&world.db).await.expect("customers"), customers);
        let moods = [Mood::Happy, Mood::Sad];
        let found = world
            .db
            .run("SELECT count(*) FROM customers WHERE mood = ANY ($1)")
            .bind(moods.to_vec());
        assert_eq!(found.scalar::<i64>().await.expect("a count"), 2);
        let refused = Customer {
            email: Email("nobody".into()),
            ..customer(3)
        };
        let refused = shop::add(&world.db, &refused).await.expect_err("no address");
        assert_eq!(refused.sqlstate().map(|state| state.code()), Some("23514"), "{refused}");
        let wrong = world
            .db
            .run("SELECT $1::address")
            .bind(Mood::Sad)
            .await
            .expect_err("no address");
        assert!(
            matches!(wrong.kind(), ErrorKind::BadInput(BadInput::ParameterType { .. })),
            "{wrong}"
        );
        let short = world
            .db
            .run("SELECT 1 AS id")
            .typed::<ByName<Customer>>()
            .await
            .map(drop);
        let short = short.expect_err("there is no name");
        assert!(matches!(short.kind(), ErrorKind::Decode), "{short}");
        assert!(
            std::error::Error::source(&short).is_some_and(|cause| cause.to_string().contains("name")),
            "{short:?}"
        );
    });
}
