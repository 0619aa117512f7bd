//! Promise: a dry run gives the statement's text with its values written into it, which gives the same rows when it is
//! executed, for values of every built-in type and of one's own; the statement itself is not executed.

#[path = "support/one_database.rs"]
mod one_database;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::collections::BTreeSet;
use std::error::Error as StdError;

use bytes::BytesMut;
use gdbpool::types::{Format, IsNull, ToSql, Type};
use gdbpool::{BadInput, ErrorKind, InteractionPool, Outcome, PoolConfig, Row};

use crate::one_database::{World, on_each_server};

const SET_UP: &str = r#"
    CREATE SCHEMA "Odd ""schema"; CREATE TABLE t (n int, word text); INSERT INTO t VALUES (1, 'one'), (-1, 'less');
    CREATE TYPE mood AS ENUM ('sad', 'it''s "fine"'); CREATE TYPE "Odd ""schema"."My Type" AS ENUM ('a b');
    CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0); CREATE TYPE pair AS (n int, words text[]);
    CREATE DOMAIN name_of AS text COLLATE "C" NOT NULL; CREATE TYPE span AS RANGE (SUBTYPE = mood);
    CREATE TABLE own (e even, p pair, m mood, s span, d name_of); CREATE SEQUENCE s"#;

/// A value given as text, for a placeholder of any type.
#[derive(Clone, Debug)]
struct Text(Option<String>);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let Some(text) = &self.0 else {
            return Ok(IsNull::Yes);
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    gdbpool::types::to_sql_checked!();
}

fn text(text: &str) -> Text {
    Text(Some(text.into()))
}

/// Values of every built-in type that has an input, in forms that are read alike whatever the session's settings.
const SAMPLES: &[(&str, &[&str])] = &[
    ("aclitem", &["=r/postgres", "postgres=arwdDxt/postgres"]),
    ("bit", &["1", "0101"]),
    ("bool", &["t", "f"]),
    ("box", &["(2.5,2),(0,0.1)"]),
    ("bpchar", &["a", "padded   ", ""]),
    ("bytea", &["\\x", "\\x00ff275c", "\\x24310a"]),
    ("char", &["a", "'", "\\"]),
    ("cid", &["7"]),
    ("cidr", &["10.1.0.0/16", "2001:db8::/32"]),
    ("circle", &["<(1,2),0.1>"]),
    (
        "date",
        &["2024-02-03", "0044-03-15 BC", "infinity", "-infinity", "5874897-12-31"],
    ),
    ("datemultirange", &["{}", "{[2024-02-03,2024-05-06),[2025-01-02,)}"]),
    ("daterange", &["empty", "[2024-02-03,2024-05-06)", "(,)"]),
    ("float4", &["0.1", "-0", "NaN", "Infinity", "3.4028235e38", "1e-45"]),
    (
        "float8",
        &["0.1", "-1.5", "-0", "NaN", "-Infinity", "0.30000000000000004", "5e-324"],
    ),
    ("inet", &["10.0.0.1", "10.0.0.1/8", "::1"]),
    ("int2", &["-32768", "7"]),
    ("int2vector", &["1 2 3", ""]),
    ("int4", &["-5", "2147483647"]),
    ("int4multirange", &["{[1,3),[5,7)}"]),
    ("int4range", &["[1,3)", "empty"]),
    ("int8", &["-9223372036854775808", "7"]),
    ("int8multirange", &["{[1,3)}"]),
    ("int8range", &["[-1,3)"]),
    (
        "interval",
        &["P1Y2M-3DT4H5M6.5S", "PT-0.1S", "P0D", "P-1Y-2M3DT-4H-5M-6.789S"],
    ),
    ("json", &["{\"a\": [1,  \"'\\\"\\\\\"]}", "null"]),
    ("jsonb", &["{\"a\": [1, \"'\\\"\\\\\"]}", "null"]),
    ("jsonpath", &["$.a[*] ? (@ > 1 && @.\"b c\" == \"$1\")"]),
    ("line", &["{1,-0.1,3}"]),
    ("lseg", &["[(0,0.1),(1,1)]"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("money", &["$1,234.56", "-$0.01"]),
    ("name", &["a name", "it's"]),
    (
        "numeric",
        &["0.10", "-1e-20", "NaN", "123456789012345678901234567890.0123456789"],
    ),
    ("nummultirange", &["{[1.10,2.0]}"]),
    ("numrange", &["(1.10,2.0]"]),
    ("oid", &["4294967295"]),
    ("oidvector", &["1 2"]),
    ("path", &["[(0,0),(1,1)]", "((0,0),(1,0.1))"]),
    ("pg_lsn", &["16/B374D848"]),
    ("pg_snapshot", &["10:20:10,14,15"]),
    ("point", &["(1,-0.1)"]),
    ("polygon", &["((0,0),(1,0.1),(1,0))"]),
    ("refcursor", &["a cursor"]),
    ("regclass", &["pg_catalog.pg_class", "public.t"]),
    ("regcollation", &["\"C\""]),
    ("regconfig", &["english"]),
    ("regdictionary", &["simple"]),
    ("regnamespace", &["public", "\"Odd \"\"schema\""]),
    ("regoper", &["||/"]),
    ("regoperator", &["-(integer,integer)", "-(NONE,integer)"]),
    ("regproc", &["pg_catalog.now"]),
    ("regprocedure", &["pg_catalog.abs(numeric)"]),
    ("regrole", &["postgres"]),
    ("regtype", &["integer", "public.mood"]),
    (
        "text",
        &[
            "",
            "'",
            "\\",
            "'; DROP TABLE t; --",
            "$1 $$ :n %L /* \u{1F418}\n",
            "E'\\''",
        ],
    ),
    ("tid", &["(7,8)"]),
    ("time", &["04:05:06.789", "24:00:00"]),
    (
        "timestamp",
        &["2024-02-03 04:05:06.789", "0044-03-15 01:02:03 BC", "infinity"],
    ),
    (
        "timestamptz",
        &["2024-02-03 04:05:06.789+00", "1890-01-01 00:00:00+00", "-infinity"],
    ),
    ("timetz", &["04:05:06.789+05:30"]),
    ("tsmultirange", &["{[2024-02-03 04:05:06,2024-05-06 07:08:09)}"]),
    ("tsquery", &["'a b' & !'c''d':*"]),
    ("tsrange", &["[2024-02-03 04:05:06,)"]),
    ("tstzmultirange", &["{(2024-02-03 04:05:06+00,2024-05-06 07:08:09+00]}"]),
    ("tstzrange", &["(2024-02-03 04:05:06+00,2024-05-06 07:08:09+00]"]),
    ("tsvector", &["'a':1A 'b c':2,3", "'it''s'"]),
    ("txid_snapshot", &["10:20:10,14,15"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("varbit", &["", "0101"]),
    ("varchar", &["it's", "trailing   "]),
    ("xid", &["7"]),
    ("xid8", &["18446744073709551615"]),
    ("xml", &["<a b=\"'\">&amp;</a>"]),
];

/// Built-in types that take no input, by their own documentation.
const WITHOUT_INPUT: &[&str] = &[
    "gtsvector",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
];

/// A pool whose settings make everything look different.
async fn with_odd_settings(world: &World) -> InteractionPool {
    let odd = PoolConfig::new("odd", &world.dsn).expect("a sound DSN").size(1);
    let odd = odd
        .setting("bytea_output", "escape")
        .setting("datestyle", "SQL, DMY")
        .setting("extra_float_digits", "-10")
        .setting("intervalstyle", "sql_standard")
        .setting("search_path", "\"Odd \"\"schema\", public")
        .setting("timezone", "Asia/Kathmandu");
    let builder = InteractionPool::builder(std::sync::Arc::clone(&world.runtime)).pool(odd);
    builder.open().await.expect("sound settings")
}

/// The row as text, as the server itself says it.
fn shown(rows: &[Row]) -> Vec<Vec<Option<String>>> {
    let columns = |row: &Row| (0..row.len()).map(|at| row.get(at)).collect();
    rows.iter().map(columns).collect()
}

/// The rendered text, from a session with other settings, gives what the statement gives.
async fn agrees(world: &World, odd: &InteractionPool, sql: &str, values: &[Text]) {
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
    let rows = world.db.run(sql).args(&values).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql} {values:?}: {error:?}"));
    for db in [&world.db, odd] {
        let dry = db.run(sql).args(&values).dry_run().await;
        let dry = dry.unwrap_or_else(|error| panic!("{sql} {values:?}: {error:?}"));
        let again = world.db.run(dry.text()).await;
        let again = again.unwrap_or_else(|error| panic!("{dry}: {error:?}"));
        assert_eq!(shown(&again), shown(&rows), "{dry}");
    }
}

#[test]
fn every_built_in_type_is_rendered() {
    on_each_server(SET_UP, async |world: World| {
        let sql = "SELECT string_agg(typname, ' ') FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace \
                   AND typtype IN ('b', 'r', 'm') AND (typcategory <> 'A' OR typname IN ('int2vector', 'oidvector'))";
        let types = world.psql(sql);
        let known: BTreeSet<&str> = SAMPLES
            .iter()
            .map(|(name, _)| *name)
            .chain(WITHOUT_INPUT.iter().copied())
            .collect();
        let missing: Vec<&str> = types.split(' ').filter(|name| !known.contains(name)).collect();
        assert_eq!(missing, [""; 0], "built-in types without a sample");
        let odd = with_odd_settings(&world).await;
        for (name, samples) in SAMPLES {
            let name = format!("pg_catalog.\"{name}\"");
            let quoted = samples
                .iter()
                .map(|sample| format!("'{}'::{name}", sample.replace('\'', "''")));
            let list = quoted.collect::<Vec<_>>().join(", ");
            let array = world.psql(&format!("SELECT ARRAY[{list}, NULL]::text"));
            let one = format!(
                "SELECT ($1::{name})::text, pg_typeof($1)::text, '$1', \"one\".\"$1\"::text \
                               FROM (SELECT 1 AS \"$1\") AS one -- $1"
            );
            for sample in *samples {
                agrees(&world, &odd, &one, &[text(sample)]).await;
            }
            agrees(&world, &odd, &one, &[Text(None)]).await;
            let many = format!("SELECT ($1::{name}[])::text, pg_typeof($1)::text, ($1[1])::text");
            agrees(&world, &odd, &many, &[text(&array)]).await;
            agrees(&world, &odd, &many, &[Text(None)]).await;
        }
        odd.close(std::time::Duration::from_secs(20)).await;
    });
}

#[test]
fn types_of_ones_own_are_rendered() {
    on_each_server(SET_UP, async |world: World| {
        let odd = with_odd_settings(&world).await;
        for (name, sample) in [
            ("public.mood", "it's \"fine\""),
            ("public.mood[]", "{sad,NULL,\"it's \\\"fine\\\"\"}"),
            ("\"Odd \"\"schema\".\"My Type\"", "a b"),
            ("\"Odd \"\"schema\".\"My Type\"[]", "{{a b},{NULL}}"),
            ("public.even", "-4"),
            ("public.even[]", "{2,4}"),
            ("public.pair", "(1,\"{a,\"\"it's\"\",NULL}\")"),
            ("public.pair[]", "{\"(,)\",NULL}"),
            ("public.span", "[sad,\"it's \\\"fine\\\"\"]"),
            ("public.t", "(1,\"\\\\ ' \"\" \")"),
        ] {
            let sql = format!("SELECT ($1::{name})::text, pg_typeof($1)::text");
            agrees(&world, &odd, &sql, &[text(sample)]).await;
            agrees(&world, &odd, &sql, &[Text(None)]).await;
        }
        let field = "SELECT (($1::public.pair).n)::text, ($1.words)[2]::text, $1.words[1]::text";
        agrees(&world, &odd, field, &[text("(1,\"{a,b}\")")]).await;
        // Types that come from the columns.
        let insert = "INSERT INTO own VALUES ($1, $2, $3, $4, $5) \
                      RETURNING e::text, p::text, m::text, s::text, d::text";
        let values = ["8", "(1,{})", "sad", "[sad,sad]", "a\\b"].map(text);
        agrees(&world, &odd, insert, &values).await;
        odd.close(std::time::Duration::from_secs(20)).await;
    });
}

#[test]
fn values_take_their_placeholders_and_nothing_else() {
    on_each_server(SET_UP, async |world: World| {
        let odd = with_odd_settings(&world).await;
        let none: &[&str] = &[];
        for (sql, values) in [
            (
                "SELECT (1-$1)::text, (-$1)::text, (- -$1)::text FROM t WHERE n=$1::int",
                &["-1"][..],
            ),
            (
                "SELECT $1::int::text||$2::text, (n+$1)::text FROM t WHERE n IN($1,-1)ORDER BY n LIMIT $3",
                &["1", "x", "2"],
            ),
            ("SELECT word FROM t WHERE n=ANY($1)OR word=$2", &["{1,2}", "it's"]),
            (
                "SELECT $2::text, $10::text, $1::text, $3::text||$4||$5||$6||$7||$8||$9",
                &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"],
            ),
            (
                "SELECT '$1', E'\\'$1', $$ $1 $$, $a$ $1 $a$, U&'$1', \"$1\" /* $1 /* $1 */ */ -- $1\n FROM (SELECT $1 AS \"$1\") x",
                &["v"],
            ),
            (
                "SELECT ($1::int[])[1]::text, ($1::int[])[2:]::text, $1[1]::text",
                &["{7,8,9}"],
            ),
            ("SELECT CASE WHEN $1 THEN'yes'ELSE'no'END, ($1 IS NULL)::text", &["t"]),
            (
                "SELECT n::text FROM t ORDER BY $1::int, n DESC OFFSET $2 FETCH FIRST $3 ROWS ONLY",
                &["1", "0", "1"],
            ),
            (
                "SELECT word FROM t WHERE n BETWEEN $1 AND $2 AND word LIKE $3 ESCAPE $4 GROUP BY word, $1",
                &["0", "5", "o%", "\\"],
            ),
            ("SELECT count(*)::text FROM generate_series($1::int, $2)", &["1", "5"]),
            ("SELECT string_agg(x, $2)FROM(VALUES($1),($2))v(x)", &["a", "'"]),
            ("SELECT 'no values'", none),
        ] {
            let values: Vec<Text> = values.iter().map(|value| text(value)).collect();
            agrees(&world, &odd, sql, &values).await;
        }
        let dry = world.db.run("SELECT $1, '$1'||:n").bind_named("n", "x").dry_run().await;
        let error = dry.expect_err("two kinds of placeholders");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::MixedPlaceholders { .. })),
            "{error:?}"
        );
        let dry = world
            .db
            .run("SELECT ':n'||:n, :m")
            .bind_named("n", "O'x")
            .bind_named("m", -5i32);
        assert_eq!(
            dry.dry_run().await.expect_err("a number is no text").outcome(),
            Outcome::NotExecuted
        );
        let dry = world
            .db
            .run("SELECT ':n'||:n, :m::int")
            .bind_named("n", "O'x")
            .bind_named("m", -5i32);
        let dry = dry.dry_run().await.expect("a text");
        assert_eq!(
            dry.text(),
            "SELECT ':n'||('O''x'::pg_catalog.text), ('-5'::pg_catalog.int4)::int"
        );
        assert_eq!(
            (format!("{dry}"), format!("{dry:?}")),
            (dry.text().to_owned(), "DryRun { .. }".to_owned())
        );
        odd.close(std::time::Duration::from_secs(20)).await;
    });
}

#[test]
fn nothing_is_executed() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        for sql in [
            "INSERT INTO t VALUES (nextval('s'), $1)",
            "SELECT nextval('s'), $1::text",
            "DELETE FROM t WHERE word <> $1",
            "DELETE FROM t",
        ] {
            let run = db.run(sql);
            let run = if sql.contains('$') { run.bind("x") } else { run };
            let dry = run.dry_run().await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(dry.text(), sql.replace("$1", "('x'::pg_catalog.text)"));
        }
        assert_eq!(world.psql("SELECT count(*), (SELECT is_called FROM s) FROM t"), "2|f");
        // What the statement would refuse before it runs is refused here, too.
        let error = db.run("SELECT $1::int").bind("x").dry_run().await.expect_err("a text");
        assert!(
            matches!(
                error.kind(),
                ErrorKind::BadInput(BadInput::ParameterType { position: 1, .. })
            ),
            "{error:?}"
        );
        let error = db
            .run("SELECT $1, $2")
            .bind("x")
            .dry_run()
            .await
            .expect_err("two placeholders");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::ParameterCount { .. })),
            "{error:?}"
        );
        let error = db.run("SELECT * FROM nowhere").dry_run().await.expect_err("no table");
        assert_eq!(error.sqlstate().map(|state| state.code()), Some("42P01"));
        let values = [text("3")];
        let error = db
            .run("INSERT INTO own (e) VALUES ($1)")
            .args(&[&values[0]])
            .dry_run()
            .await;
        let error = error.expect_err("not even");
        assert_eq!(
            (error.sqlstate().map(|state| state.code()), error.outcome()),
            (Some("23514"), Outcome::RolledBack)
        );
    });
}
