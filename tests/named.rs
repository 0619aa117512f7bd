//! Promise: values bound by name reach their places, whatever else is in the text; what does not fit is named before
//! anything is sent. That a text without names comes back unchanged is a property beside the code.

#[path = "support/one_database.rs"]
mod one_database;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use gdbpool::{BadInput, Error, ErrorKind, Outcome};

use crate::one_database::{World, on_each_server};

const SET_UP: &str = "CREATE TABLE t (id int PRIMARY KEY, word text, path int[])";

fn named(error: &Error) -> &BadInput {
    assert_eq!(error.outcome(), Outcome::NotExecuted);
    match error.kind() {
        ErrorKind::BadInput(input) => input,
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_reach_their_names() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        let insert = "INSERT INTO t (id, word, path) VALUES (:id::int, :word || :id::int::text, array[:id, 2, 3])";
        for id in [1i32, 2] {
            // In another order than they stand in the text.
            let run = db.run(insert).bind_named("word", "w").bind_named("id", id);
            assert_eq!(run.execute().await.ok(), Some(1));
        }
        assert_eq!(
            world.psql("SELECT string_agg(word || path[1], ' ' ORDER BY id) FROM t"),
            "w11 w22"
        );
        let sql = r#"SELECT ':word', $$:word$$, E'\':word', ":id", id::text, path[1 : 2]::text /* :x /* :y */ */
                     FROM (SELECT id AS ":id", * FROM t) AS t WHERE id = :id AND word <> :word -- :z
                     "#;
        let row = db
            .run(sql)
            .bind_named(String::from("id"), 2i32)
            .bind_named("word", String::new())
            .read()
            .one()
            .await
            .expect("a row");
        let texts: Vec<&str> = [0, 1, 2, 4, 5].iter().map(|at| row.get(*at)).collect();
        assert_eq!(texts, [":word", ":word", "':word", "2", "{2,2}"]);
        assert_eq!(row.get::<_, i32>(3), 2);
        // Without bind_named nothing is looked for.
        let plain = db.run("SELECT ':id' || $1").bind("x").scalar::<String>().await;
        assert_eq!(plain.ok().as_deref(), Some(":idx"));
    });
}

#[test]
fn what_does_not_fit_is_named() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        let name = || String::from("n");
        let cases = [
            (
                db.run("SELECT :m, :n").bind_named("m", 1i32),
                BadInput::UnboundName { name: name() },
            ),
            (
                db.run("SELECT path[1:n] FROM t WHERE id = :id").bind_named("id", 1i32),
                BadInput::UnboundName { name: name() },
            ),
            (
                db.run("SELECT ':n'").bind_named("n", 1i32),
                BadInput::UnusedName { name: name() },
            ),
            (
                db.run("SELECT :n").bind_named("n", 1i32).bind_named("n", 2i32),
                BadInput::DuplicateName { name: name() },
            ),
            (
                db.run("SELECT :n, $1").bind_named("n", 1i32),
                BadInput::MixedPlaceholders {
                    placeholder: "$1".into(),
                },
            ),
            (
                db.run("SELECT :n, $1").bind_named("n", 1i32).bind(2i32),
                BadInput::MixedParameters,
            ),
            (
                db.run("SELECT :n, $1").bind(2i32).bind_named("n", 1i32),
                BadInput::MixedParameters,
            ),
            (
                db.run("SELECT :n, $1").args(&[&2i32]).bind_named("n", 1i32),
                BadInput::MixedParameters,
            ),
            (
                db.run("SELECT :n, $1").bind_named("n", 1i32).args(&[&2i32]),
                BadInput::MixedParameters,
            ),
        ];
        for (run, expected) in cases {
            let shown = format!("{run:?}");
            let error = run.await.expect_err(&shown);
            assert_eq!(named(&error), &expected, "{shown}");
        }
        let error = db
            .run("SELECT :n + :m::int")
            .bind_named("m", 1i32)
            .bind_named("n", "x")
            .await;
        let error = error.expect_err("a text is no number");
        assert!(
            matches!(named(&error), BadInput::ParameterType { position: 1, expected, .. } if expected == "int4"),
            "{error:?}"
        );
    });
}
