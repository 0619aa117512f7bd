//! The facts, as scripts: what PostgreSQL 15.18 was measured to say, and 18 too unless a fact says otherwise.
//!
//! Spaces inside brackets are written `_`.

/// One fact.
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) script: &'static str,
    /// The last version it holds for; later ones say something else.
    pub(crate) until: Option<u32>,
}

const fn fact(name: &'static str, script: &'static str) -> Fact {
    Fact {
        name,
        script,
        until: None,
    }
}

const fn fact_until(until: u32, name: &'static str, script: &'static str) -> Fact {
    Fact {
        name,
        script,
        until: Some(until),
    }
}

/// All facts, those that stop or promote servers last.
pub(crate) fn all() -> Vec<Fact> {
    let mut all = Vec::new();
    all.extend(START_UP);
    all.extend(STANDBY);
    all.extend(TRANSACTIONS);
    all.extend(EXTENDED);
    all.extend(SIGNALS);
    all.extend(DISRUPTIVE);
    all
}

const START_UP: [Fact; 8] = [
    fact_until(
        15,
        "a session starts with 13 settings, key and ReadyForQuery",
        "a @ n0 raw
         a: startup user=postgres database=postgres => R0 S[*] S[*] S[*] S[*] S[*] S[*] S[*] S[*] S[*] S[*] S[*] S[*] S[*] K ZI",
    ),
    fact(
        "an SSLRequest is answered N, and the session can start",
        "a @ n0 raw
         a: ssl => N
         a: startup user=postgres database=postgres => R0 S* K ZI",
    ),
    fact(
        "a newer minor version is negotiated",
        "a @ n0 raw
         a: startup-3.2 user=postgres database=postgres _pq_.nonesuch=1 => v R0 S* K ZI",
    ),
    fact(
        "an unknown database and an unknown user are FATAL",
        "a @ n0 raw
         a: startup user=postgres database=nowhere => R0 F3D000 eof
         b @ n0 raw
         b: startup user=nobody_at_all database=postgres => R0 F28000 eof",
    ),
    fact(
        "no user name is FATAL 28000",
        "a @ n0 raw
         a: startup database=postgres => F28000 eof",
    ),
    fact(
        "a start-up packet of impossible length ends without a word",
        "a @ n0 raw
         a: hex 00 00 00 03 => eof",
    ),
    fact(
        "an unknown message type is FATAL 08P01",
        "a @ n0
         a: hex 59 00 00 00 04 => F08P01 eof",
    ),
    fact(
        "a setting in the start-up packet is checked",
        "a @ n0 raw
         a: startup user=postgres database=postgres nonesuch=1 => R0 F42704 eof",
    ),
];

const STANDBY: [Fact; 8] = [
    fact(
        "a write on a standby is 25006",
        "set-up: CREATE TABLE f_write (v int)
         a @ n1
         a: Q INSERT INTO f_write VALUES (1) => E25006 ZI
         a: Q BEGIN => C[BEGIN] ZT
         a: Q INSERT INTO f_write VALUES (1) => E25006 ZE
         a: Q ROLLBACK => C[ROLLBACK] ZI",
    ),
    fact(
        "LISTEN, NOTIFY and a transaction id on a standby are 25006",
        "a @ n1
         a: Q LISTEN c => E25006 ZI
         a: Q NOTIFY c => E25006 ZI
         a: Q SELECT pg_current_xact_id() => T[*] E25006 ZI",
    ),
    fact(
        "UNLISTEN, DISCARD ALL and advisory locks work on a standby",
        "a @ n1
         a: Q UNLISTEN * => C[UNLISTEN] ZI
         a: Q SELECT pg_advisory_lock(1) => T[pg_advisory_lock] D[] C[SELECT_1] ZI
         a: Q DISCARD ALL => C[DISCARD_ALL] ZI",
    ),
    fact(
        "row locks, sequences and temporary tables on a standby are 25006",
        "set-up: CREATE TABLE f_lock (v int); CREATE SEQUENCE f_seq
         a @ n1
         a: Q SELECT * FROM f_lock FOR UPDATE => E25006 ZI
         a: Q SELECT nextval('f_seq') => T[nextval] E25006 ZI
         a: Q CREATE TEMP TABLE t (v int) => E25006 ZI",
    ),
    fact(
        "READ WRITE and SERIALIZABLE on a standby are 0A000",
        "a @ n1
         a: Q BEGIN READ WRITE => E0A000 ZI
         a: Q BEGIN ISOLATION LEVEL SERIALIZABLE => E0A000 ZI",
    ),
    fact(
        "WAL functions know the role",
        "a @ n1
         a: Q SELECT pg_current_wal_lsn() => T[pg_current_wal_lsn] E55000 ZI
         a: Q SELECT pg_is_in_recovery() => T[pg_is_in_recovery] D[t] C[SELECT_1] ZI
         b @ n0
         b: Q SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn() => T[*] D[f|~] C[SELECT_1] ZI
         b: Q SELECT pg_is_wal_replay_paused() => T[*] E55000 ZI",
    ),
    fact(
        "what is committed on the primary is read on the standby",
        "set-up: CREATE TABLE f_read (v int); INSERT INTO f_read VALUES (1)
         a @ n1
         a: Q SELECT v FROM f_read => T[v] D[1] C[SELECT_1] ZI
         b @ n0
         b: Q UPDATE f_read SET v = 2 => C[UPDATE_1] ZI
         a until: Q SELECT v FROM f_read => T[v] D[2] C[SELECT_1] ZI",
    ),
    fact(
        "recovery cancels what stands in its way",
        "set-up: CREATE TABLE f_conflict (v int); INSERT INTO f_conflict VALUES (1)
         a @ n1
         a: Q BEGIN ISOLATION LEVEL REPEATABLE READ => C[BEGIN] ZT
         a: Q SELECT v FROM f_conflict => T[v] D[1] C[SELECT_1] ZT
         b @ n1
         b: Q SELECT pg_sleep(60), v FROM f_conflict => nothing
         c @ n0
         c: Q TRUNCATE f_conflict => C[TRUNCATE_TABLE] ZI
         a: => F40001 eof
         b: => T[*] E40001 ZI",
    ),
];

const TRANSACTIONS: [Fact; 9] = [
    fact(
        "an aborted transaction answers 25P02 until it ends, and COMMIT says ROLLBACK",
        "a @ n0
         a: Q BEGIN => C[BEGIN] ZT
         a: Q SELECT 1/0 => E22012 ZE
         a: Q SELECT 1 => E25P02 ZE
         a: P |SELECT 1 ;; S => E25P02 ZE
         a: P |ROLLBACK ;; S => 1 ZE
         a: Q COMMIT => C[ROLLBACK] ZI",
    ),
    fact(
        "a simple query of several statements stops at the first error",
        "a @ n0
         a: Q SELECT 1 AS x; SELECT 1/0; SELECT 2 => T[x] D[1] C[SELECT_1] E22012 ZI",
    ),
    fact(
        "several statements are one transaction",
        "set-up: CREATE TABLE f_several (v int)
         a @ n0
         a: Q INSERT INTO f_several VALUES (1); SELECT 1/0 => C[INSERT_0_1] E22012 ZI
         a: Q SELECT count(*) FROM f_several => T[count] D[0] C[SELECT_1] ZI",
    ),
    fact(
        "transaction control out of place warns",
        "a @ n0
         a: Q COMMIT => N25P01 C[COMMIT] ZI
         a: Q ROLLBACK => N25P01 C[ROLLBACK] ZI
         a: Q BEGIN; BEGIN => C[BEGIN] N25001 C[BEGIN] ZT
         a: Q ROLLBACK => C[ROLLBACK] ZI",
    ),
    fact(
        "a syntax error stops the whole text; an empty one has its own answer",
        "a @ n0
         a: Q SELECT 1; SELEC 2 => E42601 ZI
         a: Q => I ZI",
    ),
    fact(
        "self-notification comes behind CommandComplete; duplicates collapse; none inside a transaction",
        "a @ n0
         a: Q LISTEN f_notify => C[LISTEN] ZI
         a: Q NOTIFY f_notify, 'x' => C[NOTIFY] A[f_notify,x] ZI
         a: Q BEGIN => C[BEGIN] ZT
         a: Q NOTIFY f_notify, 'y'; NOTIFY f_notify, 'y' => C[NOTIFY] C[NOTIFY] ZT
         b @ n0
         b: Q NOTIFY f_notify, 'z' => C[NOTIFY] ZI
         a: => nothing
         a: Q COMMIT => C[COMMIT] A[f_notify,z] A[f_notify,y] ZI
         b: Q NOTIFY f_notify, 'idle' => C[NOTIFY] ZI
         a: => A[f_notify,idle]",
    ),
    fact(
        "DISCARD ALL reports what it reset, and is refused in a transaction",
        "a @ n0
         a: Q SET application_name TO changed => C[SET] S[application_name=changed] ZI
         a: Q DISCARD ALL => C[DISCARD_ALL] S[application_name=] ZI
         a: Q BEGIN => C[BEGIN] ZT
         a: Q DISCARD ALL => E25001 ZE
         a: Q ROLLBACK => C[ROLLBACK] ZI",
    ),
    fact(
        "a row lock is waited for; NOWAIT and lock_timeout are 55P03",
        "set-up: CREATE TABLE f_row (k int PRIMARY KEY, v int); INSERT INTO f_row VALUES (1, 0)
         a @ n0
         a: Q BEGIN => C[BEGIN] ZT
         a: Q UPDATE f_row SET v = 1 => C[UPDATE_1] ZT
         b @ n0
         b: Q SELECT v FROM f_row FOR UPDATE NOWAIT => T[v] E55P03 ZI
         b: Q SET lock_timeout = '200ms' => C[SET] ZI
         b: Q SELECT v FROM f_row FOR UPDATE => T[v] E55P03 ZI
         b: Q SET lock_timeout = 0 => C[SET] ZI
         b: Q UPDATE f_row SET v = v + 10 => nothing
         a: Q COMMIT => C[COMMIT] ZI
         b: => C[UPDATE_1] ZI
         b: Q SELECT v FROM f_row => T[v] D[11] C[SELECT_1] ZI",
    ),
    fact(
        "of two that wait for each other one is the deadlock's victim",
        "set-up: CREATE TABLE f_dead (k int PRIMARY KEY, v int); INSERT INTO f_dead VALUES (1, 0), (2, 0)
         a @ n0
         b @ n0
         a: Q BEGIN; UPDATE f_dead SET v = 1 WHERE k = 1 => C[BEGIN] C[UPDATE_1] ZT
         b: Q SET deadlock_timeout = '60s' => C[SET] ZI
         b: Q BEGIN; UPDATE f_dead SET v = 2 WHERE k = 2 => C[BEGIN] C[UPDATE_1] ZT
         b: Q UPDATE f_dead SET v = 2 WHERE k = 1 => nothing
         a: Q UPDATE f_dead SET v = 1 WHERE k = 2 => E40P01 ZE
         b: => C[UPDATE_1] ZT
         b: Q COMMIT => C[COMMIT] ZI
         a: Q COMMIT => C[ROLLBACK] ZI",
    ),
];

const EXTENDED: [Fact; 9] = [
    fact(
        "the steps of the extended protocol",
        "a @ n0
         a: P s|SELECT $1::int4 AS x ;; D S|s ;; S => 1 t T[x] ZI
         a: B p|s|7 ;; D P|p ;; E p|0 ;; C P|p ;; C S|s ;; S => 2 T[x] D[7] C[SELECT_1] 3 3 ZI
         a: P | ;; B | ;; D P| ;; E |0 ;; S => 1 2 n I ZI",
    ),
    fact(
        "after an error everything up to Sync is skipped",
        "a @ n0
         a: P |SELECT nonesuch ;; B | ;; E |0 ;; S => E42703 ZI
         a: P |SELECT 1/0 ;; B | ;; E |0 ;; S => 1 E22012 ZI
         a: P |SELECT 1 ;; S => 1 ZI",
    ),
    fact(
        "a pipeline without a transaction is rolled back whole",
        "set-up: CREATE TABLE f_pipe (v int); INSERT INTO f_pipe VALUES (0)
         a @ n0
         a: P |UPDATE f_pipe SET v = 1 ;; B | ;; E |0 ;; P |SELECT nonesuch ;; S => 1 2 C[UPDATE_1] E42703 ZI
         a: Q SELECT v FROM f_pipe => T[v] D[0] C[SELECT_1] ZI",
    ),
    fact(
        "a row limit suspends the portal, which lives as long as its transaction",
        "a @ n0
         a: P |SELECT generate_series(1, 3) AS x ;; B p| ;; E p|2 ;; E p|2 ;; S => 1 2 D[1] D[2] s D[3] C[SELECT_1] ZI
         a: E p|1 ;; S => E34000 ZI
         a: Q BEGIN => C[BEGIN] ZT
         a: P |SELECT generate_series(1, 3) AS x ;; B p| ;; E p|1 ;; S => 1 2 D[1] s ZT
         a: E p|0 ;; S => D[2] D[3] C[SELECT_2] ZT
         a: Q COMMIT => C[COMMIT] ZI",
    ),
    fact(
        "names that are taken or missing",
        "a @ n0
         a: P s|SELECT 1 ;; P s|SELECT 2 ;; S => 1 E42P05 ZI
         a: B |nonesuch ;; S => E26000 ZI
         a: E nonesuch|0 ;; S => E34000 ZI
         a: C S|nonesuch ;; C P|nonesuch ;; S => 3 3 ZI",
    ),
    fact(
        "a definition that changes under a plan is 0A000",
        "set-up: CREATE TABLE f_plan (v int)
         a @ n0
         a: P s|SELECT * FROM f_plan ;; S => 1 ZI
         a: Q ALTER TABLE f_plan ADD COLUMN w int => C[ALTER_TABLE] ZI
         a: B |s ;; S => E0A000 ZI",
    ),
    fact(
        "COPY in, out, and given up",
        "set-up: CREATE TABLE f_copy (k int, v text)
         a @ n0
         a: Q COPY f_copy FROM STDIN => G
         a: d 1\tone\\n ;; d 2\t\\N\\n ;; c => C[COPY_2] ZI
         a: Q COPY f_copy TO STDOUT => H d d c C[COPY_2] ZI
         a: Q COPY f_copy FROM STDIN => G
         a: f enough => E57014 ZI
         a: Q SELECT count(*) FROM f_copy => T[count] D[2] C[SELECT_1] ZI",
    ),
    fact(
        "a wrong number of parameters, and parameters that are no values",
        "a @ n0
         a: P s|SELECT $1::int4 AS x ;; B |s ;; S => 1 E08P01 ZI
         a: B |s|ten ;; S => E22P02 ZI
         a: B |s|10 ;; E |0 ;; S => 2 D[10] C[SELECT_1] ZI",
    ),
    fact(
        "a deferred constraint fails the COMMIT, or the Sync behind its CommandComplete",
        "set-up: CREATE TABLE f_defer (k int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO f_defer VALUES (1)
         a @ n0
         a: Q BEGIN; INSERT INTO f_defer VALUES (1) => C[BEGIN] C[INSERT_0_1] ZT
         a: Q COMMIT => E23505 ZI
         a: Q INSERT INTO f_defer VALUES (1) => E23505 ZI
         a: P |INSERT INTO f_defer VALUES (1) ;; B | ;; E |0 ;; S => 1 2 C[INSERT_0_1] E23505 ZI",
    ),
];

const SIGNALS: [Fact; 7] = [
    fact(
        "a cancel request is answered by its end alone, and hits with the right key only",
        "a @ n0
         a: Q SELECT pg_sleep(60) => nothing
         ! cancel with a wrong key a
         a: => nothing
         ! cancel a
         a: => T[pg_sleep] E57014 ZI
         a: Q BEGIN => C[BEGIN] ZT
         a: Q SELECT pg_sleep(60) => nothing
         ! cancel a
         a: => T[pg_sleep] E57014 ZE
         ! cancel a
         a: => nothing
         a: Q ROLLBACK => C[ROLLBACK] ZI
         a: Q SELECT 1 AS x => T[x] D[1] C[SELECT_1] ZI",
    ),
    fact(
        "a terminated session hears 57P01, also when it is idle",
        "a @ n0
         b @ n0
         a: Q SELECT set_config('application_name', 'f_victim', false) => T[*] D[*] C[SELECT_1] S[*] ZI
         b: Q SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'f_victim' => T[*] D[t] C[SELECT_1] ZI
         a: => F57P01 eof",
    ),
    fact(
        "statement_timeout is 57014, idle in transaction is FATAL 25P03",
        "a @ n0
         a: Q SET statement_timeout = '100ms' => C[SET] ZI
         a: Q SELECT pg_sleep(60) => T[pg_sleep] E57014 ZI
         a: Q SET idle_in_transaction_session_timeout = '100ms' => C[SET] ZI
         a: Q BEGIN => C[BEGIN] ZT
         a: => F25P03 eof",
    ),
    fact(
        "an idle session's end by its own timeout is FATAL 57P05",
        "a @ n0
         a: Q SET idle_session_timeout = '100ms' => C[SET] ZI
         a: => F57P05 eof",
    ),
    fact(
        "a client that closes behind its UPDATE has committed it",
        "set-up: CREATE TABLE f_gone (v int); INSERT INTO f_gone VALUES (0)
         a @ n0
         a: Q UPDATE f_gone SET v = 1 => C[UPDATE_1]
         ! close a
         b @ n0
         b until: Q SELECT v FROM f_gone => T[v] D[1] C[SELECT_1] ZI",
    ),
    fact(
        "a statement lives on when its client is gone; a transaction is rolled back",
        "set-up: CREATE TABLE f_zombie (v int); INSERT INTO f_zombie VALUES (0)
         a @ n0
         a: Q SET application_name TO f_zombie => C[SET] S[*] ZI
         a: Q BEGIN; UPDATE f_zombie SET v = 1; SELECT pg_sleep(2) => nothing
         ! reset a
         b @ n0
         b: Q SELECT count(*) FROM pg_stat_activity WHERE application_name = 'f_zombie' => T[count] D[1] C[SELECT_1] ZI
         b: Q SELECT v FROM f_zombie FOR UPDATE NOWAIT => T[v] E55P03 ZI
         b until: Q SELECT v FROM f_zombie FOR UPDATE NOWAIT => T[v] D[0] C[SELECT_1] ZI
         b: Q SELECT count(*) FROM pg_stat_activity WHERE application_name = 'f_zombie' => T[count] D[0] C[SELECT_1] ZI",
    ),
    fact(
        "the fast-path function call of a function that is not there is an error, and ReadyForQuery follows",
        "a @ n0
         a: Q SELECT 1 AS x;; Q SELECT 2 AS y => T[x] D[1] C[SELECT_1] ZI T[y] D[2] C[SELECT_1] ZI",
    ),
];

const DISRUPTIVE: [Fact; 5] = [
    fact(
        "a commit that waits for its standby is not seen; a cancel leaves it committed, a terminate too",
        "set-up: CREATE TABLE f_sync (k int)
         a @ n0
         b @ n0
         a: Q SELECT set_config('application_name', 'f_waiter', false) => T[*] D[*] C[SELECT_1] S[*] ZI
         ! synchronous nobody
         a until: Q SHOW synchronous_standby_names => T[*] D[nobody] C[SHOW] ZI
         a: Q INSERT INTO f_sync VALUES (1) => nothing
         b: Q SELECT count(*) FROM f_sync => T[count] D[0] C[SELECT_1] ZI
         ! cancel a
         a: => N01000 C[INSERT_0_1] ZI
         b: Q SELECT count(*) FROM f_sync => T[count] D[1] C[SELECT_1] ZI
         a: Q INSERT INTO f_sync VALUES (2) => nothing
         b: Q SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'f_waiter' => T[*] D[t] C[SELECT_1] ZI
         a: => N57P01 eof
         b: Q SELECT count(*) FROM f_sync => T[count] D[2] C[SELECT_1] ZI
         ! synchronous none",
    ),
    fact(
        "when one session's process dies, it hears nothing and the others a warning",
        "a @ n0
         b @ n0
         b: => nothing
         ! crash session a
         a: => eof
         b: => N57P02 eof",
    ),
    fact(
        "a fast stop is FATAL 57P01 everywhere, and the node comes back",
        "set-up: CREATE TABLE f_fast (v int)
         a @ n0
         b @ n0
         b: Q BEGIN; INSERT INTO f_fast VALUES (1) => C[BEGIN] C[INSERT_0_1] ZT
         c @ n0
         c: Q SELECT pg_sleep(60) => nothing
         ! fast stop n0
         a: => F57P01 eof
         b: => F57P01 eof
         c: => T[pg_sleep] F57P01 eof
         ! start n0
         d @ n0
         d: Q SELECT count(*) FROM f_fast => T[count] D[0] C[SELECT_1] ZI",
    ),
    fact(
        "an immediate stop is a WARNING 57P01 everywhere; what was committed is there again",
        "set-up: CREATE TABLE f_immediate (v int)
         a @ n0
         b @ n0
         b: Q INSERT INTO f_immediate VALUES (1) => C[INSERT_0_1] ZI
         b: Q BEGIN; INSERT INTO f_immediate VALUES (2) => C[BEGIN] C[INSERT_0_1] ZT
         ! immediate stop n0
         a: => N57P01 eof
         b: => N57P01 eof
         ! start n0
         c @ n0
         c: Q SELECT count(*) FROM f_immediate => T[count] D[1] C[SELECT_1] ZI",
    ),
    fact(
        "sessions live through a promotion; the report comes with their next command; an open transaction stays read-only",
        "set-up: CREATE TABLE f_promote (v int)
         a @ n1
         b @ n1
         b: Q BEGIN => C[BEGIN] ZT
         b: Q SELECT count(*) FROM f_promote => T[count] D[0] C[SELECT_1] ZT
         ! promote n1
         a: => nothing
         a: Q INSERT INTO f_promote VALUES (1) => C[INSERT_0_1] S[in_hot_standby=off] ZI
         b: Q INSERT INTO f_promote VALUES (2) => E25006 S[in_hot_standby=off] ZE
         b: Q ROLLBACK => C[ROLLBACK] ZI
         b: Q INSERT INTO f_promote VALUES (2) => C[INSERT_0_1] ZI",
    ),
];
