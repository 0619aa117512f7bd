//! Rows in and out: definitions, changes, queries, constraints, types.

use super::support::Node;

#[test]
fn expressions_have_postgresqls_values() {
    let mut node = Node::new();
    for (sql, value) in [
        ("SELECT 1 + 2 * 3", "7"),
        ("SELECT 7 / 2, -7 / 2, 7 % 3, 7.0 / 2", "3|-3|1|3.5000000000000000"),
        ("SELECT 'a' || 1 || 'b'", "a1b"),
        ("SELECT NULL = NULL, NULL IS NULL, 1 <> 2, NOT false", "NULL|t|t|t"),
        ("SELECT true AND NULL, false AND NULL, true OR NULL", "NULL|f|t"),
        ("SELECT 1 IN (1, NULL), 2 IN (1, NULL), 2 NOT IN (1, 3)", "t|NULL|t"),
        (
            "SELECT 'abc' LIKE 'a%', 'abc' ILIKE '_B%', 'abc' NOT LIKE 'b%'",
            "t|t|t",
        ),
        (
            "SELECT CASE WHEN 1 > 2 THEN 'x' ELSE 'y' END, CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END",
            "y|b",
        ),
        (
            "SELECT coalesce(NULL, 3), nullif(1, 1), greatest(1, 5, 3), least(2, NULL)",
            "3|NULL|5|2",
        ),
        ("SELECT 3 BETWEEN 1 AND 5, 3 NOT BETWEEN 1 AND 5", "t|f"),
        (
            "SELECT '2024-02-29'::date + 1, '2024-01-31'::timestamp + '1 month'::interval",
            "2024-03-01|2024-02-29 00:00:00",
        ),
        (
            "SELECT '{1,2,3}'::int[], array_length(ARRAY[1,2], 1), (ARRAY['a','b'])[2]",
            "{1,2,3}|2|b",
        ),
        ("SELECT 2 = ANY (ARRAY[1,2]), 2 = ALL (ARRAY[1,2])", "t|f"),
        ("SELECT '{\"a\": {\"b\": [1, 2]}}'::jsonb -> 'a' ->> 'b'", "[1, 2]"),
        (
            "SELECT lower('ABC'), upper('abc'), length('äöü'), substring('hello' from 2 for 3)",
            "abc|ABC|3|ell",
        ),
        (
            "SELECT position('l' in 'hello'), replace('aaa', 'a', 'b'), split_part('a,b,c', ',', 2)",
            "3|bbb|b",
        ),
        (
            "SELECT round(2.5), round(2.567, 2), floor(-1.5), abs(-3)",
            "3|2.57|-2|3",
        ),
        ("SELECT format('%s %I %L', 'a', 'B c', 'd''e')", "a \"B c\" 'd''e'"),
        ("SELECT concat('a', NULL, 1), concat_ws(',', 'a', NULL, 'b')", "a1|a,b"),
        ("SELECT (1, 'a') = (1, 'a'), (1, 2) < (1, 3)", "t|t"),
        (
            "SELECT EXISTS (SELECT 1), (SELECT 5), ARRAY(SELECT generate_series(1, 3))",
            "t|5|{1,2,3}",
        ),
        ("SELECT ('x'||substr('000000020000', 1, 8))::bit(32)::int", "2"),
        ("SELECT pg_wal_lsn_diff('0/20', '0/10'), '0/20'::pg_lsn > '0/3'", "16|t"),
        ("VALUES (1, 'a'), (2, NULL)", "1|a 2|NULL"),
        ("SELECT 1 UNION SELECT 1 UNION ALL SELECT 2 ORDER BY 1 DESC", "2 1"),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT sum(n) FROM t",
            "10",
        ),
        ("SELECT generate_series(1, 3) AS n ORDER BY n DESC LIMIT 2", "3 2"),
        (
            "SELECT count(*), count(DISTINCT n % 2), string_agg(n::text, ' ' ORDER BY n DESC) FROM generate_series(1, 4) n",
            "4|2|4 3 2 1",
        ),
        (
            "SELECT n % 2 AS k, sum(n) FROM generate_series(1, 5) n GROUP BY k HAVING count(*) > 2 ORDER BY 1",
            "1|9",
        ),
        ("SELECT count(*) FILTER (WHERE n > 2) FROM generate_series(1, 5) n", "3"),
        ("SELECT DISTINCT n / 2 FROM generate_series(1, 4) n ORDER BY 1", "0 1 2"),
        (
            "SELECT a.n, b.n FROM generate_series(1, 2) a(n) LEFT JOIN generate_series(2, 3) b(n) ON a.n = b.n ORDER BY 1",
            "1|NULL 2|2",
        ),
        (
            "SELECT avg(n), min(n), max(n), bool_and(n > 0) FROM generate_series(1, 2) n",
            "1.5000000000000000|1|2|t",
        ),
    ] {
        assert_eq!(node.rows(1, sql), value, "{sql}");
    }
}

#[test]
fn wrong_statements_fail_as_they_do_in_postgresql() {
    let mut node = Node::new();
    node.done(
        1,
        "CREATE TABLE t (n int PRIMARY KEY, s varchar(3), CONSTRAINT positive CHECK (n > 0))",
    );
    for (sql, error) in [
        ("SELECT 1/0", "22012 division by zero"),
        ("SELECT 'x'::int", "22P02 invalid input syntax for type integer: \"x\""),
        ("SELECT 2147483647 + 1", "22003 integer out of range"),
        ("SELECT * FROM nowhere", "42P01 relation \"nowhere\" does not exist"),
        ("SELECT m FROM t", "42703 column \"m\" does not exist"),
        ("SELECT t.m FROM t", "42703 column t.m does not exist"),
        ("SELECT x.n FROM t", "42P01 missing FROM-clause entry for table \"x\""),
        ("SELECT nothing(1)", "42883 function nothing(integer) does not exist"),
        ("SELECT 1 = 'a'::text", "42883 operator does not exist: integer = text"),
        (
            "SELECT s FROM t GROUP BY n % 2",
            "42803 column \"t.s\" must appear in the GROUP BY clause or be used in an aggregate function",
        ),
        (
            "SELECT sum(sum(n)) FROM t",
            "42803 aggregate function calls cannot be nested",
        ),
        (
            "SELECT n FROM t WHERE sum(n) > 1",
            "42803 aggregate functions are not allowed in WHERE",
        ),
        (
            "SELECT CASE WHEN 1 THEN 2 END",
            "42804 argument of CASE/WHEN must be type boolean, not type integer",
        ),
        (
            "INSERT INTO t VALUES (NULL)",
            "23502 null value in column \"n\" of relation \"t\" violates not-null constraint",
        ),
        (
            "INSERT INTO t VALUES (-1)",
            "23514 new row for relation \"t\" violates check constraint \"positive\"",
        ),
        (
            "INSERT INTO t VALUES (1, 'long')",
            "22001 value too long for type character varying(3)",
        ),
        (
            "INSERT INTO t VALUES (1, 'a', 2)",
            "42601 INSERT has more expressions than target columns",
        ),
        (
            "INSERT INTO t (n) VALUES (true)",
            "42804 column \"n\" is of type integer but expression is of type boolean",
        ),
        (
            "INSERT INTO t VALUES (1), (1)",
            "23505 duplicate key value violates unique constraint \"t_pkey\"",
        ),
        ("CREATE TABLE t ()", "42P07 relation \"t\" already exists"),
        (
            "SELECT (SELECT generate_series(1, 2))",
            "21000 more than one row returned by a subquery used as an expression",
        ),
        (
            "SELECT row_number() OVER () FROM t",
            "0A000 gdbpool-sim does not support window functions",
        ),
        (
            "SELECT regexp_replace('a', 'b', 'c')",
            "0A000 gdbpool-sim does not support the function regexp_replace(unknown, unknown, unknown)",
        ),
        ("EXECUTE nobody", "26000 prepared statement \"nobody\" does not exist"),
        ("FETCH nothing", "34000 cursor \"nothing\" does not exist"),
        ("SAVEPOINT a", "25P01 SAVEPOINT can only be used in transaction blocks"),
        (
            "SELECT 1; DISCARD ALL",
            "25001 DISCARD ALL cannot run inside a transaction block",
        ),
        (
            "SELECT FROM t FOR UPDATE GROUP BY n",
            "42601 syntax error at or near \"GROUP\"",
        ),
    ] {
        assert_eq!(node.error(1, sql), error, "{sql}");
    }
    assert!(node.engine.unsupported() >= 2);
}

#[test]
fn rows_are_inserted_changed_and_removed() {
    let mut node = Node::new();
    node.done(
        1,
        "CREATE TABLE t (id serial PRIMARY KEY, name text DEFAULT 'none', n int)",
    );
    assert_eq!(
        node.tag(1, "INSERT INTO t (name, n) VALUES ('a', 1), (DEFAULT, 2), ('c', NULL)"),
        "INSERT 0 3"
    );
    assert_eq!(node.rows(1, "SELECT * FROM t ORDER BY id"), "1|a|1 2|none|2 3|c|NULL");
    assert_eq!(
        node.rows(1, "INSERT INTO t (n) SELECT n + 10 FROM t WHERE n > 1 RETURNING id, n"),
        "4|12"
    );
    assert_eq!(
        node.rows(
            1,
            "UPDATE t SET n = n * 2, name = name || '!' WHERE id <= 2 RETURNING *"
        ),
        "1|a!|2 2|none!|4"
    );
    assert_eq!(node.tag(1, "DELETE FROM t WHERE n IS NULL"), "DELETE 1");
    assert_eq!(
        node.rows(
            1,
            "INSERT INTO t VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name || t.name RETURNING name"
        ),
        "xa!"
    );
    assert_eq!(
        node.tag(1, "INSERT INTO t VALUES (1, 'x') ON CONFLICT DO NOTHING"),
        "INSERT 0 0"
    );
    assert_eq!(
        node.rows(
            1,
            "UPDATE t SET n = v.x FROM (VALUES (1, 7)) v(id, x) WHERE t.id = v.id RETURNING t.n"
        ),
        "7"
    );
    assert_eq!(
        node.tag(1, "DELETE FROM t USING t AS o WHERE t.id = o.id AND o.n = 7"),
        "DELETE 1"
    );
    assert_eq!(
        node.rows(1, "WITH gone AS (DELETE FROM t RETURNING id) SELECT count(*) FROM gone"),
        "2"
    );
    assert_eq!(node.rows(1, "SELECT last_value, is_called FROM t_id_seq"), "4|t");
    node.done(1, "INSERT INTO t (n) VALUES (1)");
    assert_eq!(node.tag(1, "TRUNCATE t RESTART IDENTITY"), "TRUNCATE TABLE");
    assert_eq!(node.rows(1, "INSERT INTO t (n) VALUES (1) RETURNING id"), "1");
}

#[test]
fn foreign_keys_hold_now_or_at_the_end() {
    let mut node = Node::new();
    node.done(
        1,
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p ON DELETE CASCADE)",
    );
    assert_eq!(
        node.error(1, "INSERT INTO c VALUES (1)"),
        "23503 insert or update on table \"c\" violates foreign key constraint \"c_p_fkey\""
    );
    node.done(1, "INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1), (1), (2)");
    node.done(1, "DELETE FROM p WHERE id = 1");
    assert_eq!(node.rows(1, "SELECT * FROM c"), "2");
    node.done(1, "CREATE TABLE d (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)");
    node.done(1, "BEGIN; INSERT INTO d VALUES (9)");
    assert_eq!(
        node.error(1, "COMMIT"),
        "23503 insert or update on table \"d\" violates foreign key constraint \"d_p_fkey\""
    );
    assert_eq!(node.engine.status(1), b'I');
    node.done(1, "BEGIN; INSERT INTO d VALUES (9); INSERT INTO p VALUES (9); COMMIT");
    assert_eq!(
        node.error(1, "DELETE FROM p WHERE id = 9"),
        "23503 update or delete on table \"p\" violates foreign key constraint \"d_p_fkey\" on table \"d\""
    );
    node.done(1, "CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    assert_eq!(
        node.error(1, "INSERT INTO late VALUES (1), (1)"),
        "23505 duplicate key value violates unique constraint \"late_n_key\""
    );
}

#[test]
fn definitions_go_with_their_transaction() {
    let mut node = Node::new();
    node.done(1, "BEGIN; CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    assert_eq!(node.error(2, "SELECT * FROM t"), "42P01 relation \"t\" does not exist");
    node.done(1, "ROLLBACK");
    assert_eq!(node.error(1, "SELECT * FROM t"), "42P01 relation \"t\" does not exist");
    node.done(1, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    node.done(1, "BEGIN; DROP TABLE t; ROLLBACK");
    assert_eq!(node.rows(2, "SELECT * FROM t"), "1");
    node.done(
        1,
        "ALTER TABLE t ADD COLUMN s text DEFAULT 'x', ADD CONSTRAINT u UNIQUE (n)",
    );
    assert_eq!(node.rows(2, "SELECT * FROM t"), "1|x");
    assert_eq!(
        node.error(1, "INSERT INTO t VALUES (1)"),
        "23505 duplicate key value violates unique constraint \"u\""
    );
    node.done(1, "BEGIN; ALTER TABLE t DROP COLUMN s; ROLLBACK");
    assert_eq!(node.rows(1, "SELECT s FROM t"), "x");
    node.done(
        1,
        "SELECT n AS a INTO TEMP scratch FROM t; CREATE TABLE copy AS SELECT * FROM t",
    );
    assert_eq!(node.rows(1, "SELECT a FROM scratch"), "1");
    assert_eq!(
        node.error(2, "SELECT a FROM scratch"),
        "42P01 relation \"scratch\" does not exist"
    );
    node.done(1, "DISCARD TEMP");
    assert_eq!(
        node.rows(
            1,
            "SELECT to_regclass('pg_temp.scratch') IS NULL, to_regclass('copy') IS NULL"
        ),
        "t|f"
    );
}
