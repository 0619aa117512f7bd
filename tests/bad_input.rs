//! Promise: input that cannot be used is an error that names the offender, before anything is done with it; nothing is
//! lost by it: no session, no place in the queue, no pool. One test per kind.

#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "bad_input/server.rs"]
mod server;
mod support;

use std::sync::Arc;
use std::time::Duration;

use gdbpool::{BadInput, ConnectionPool, Error, ErrorKind, InteractionPool, Outcome, Phase, PoolConfig};
use gdbpool_sim::{Answer, ScriptedServer, Sim, SimRuntime, Type};

/// What the caller was told, after the checks that hold for every kind.
fn told(error: &Error) -> &BadInput {
    assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
    assert!(!error.is_retryable(), "{error:?}");
    match error.kind() {
        ErrorKind::BadInput(input) => input,
        other => panic!("not said to be bad input: {other:?}"),
    }
}

/// Settings, names and texts are looked at before any server is.
#[track_caller]
fn assert_told(error: &Error, expected: &BadInput, words: &[&str]) {
    assert_eq!(told(error), expected);
    assert_eq!(error.phase(), Phase::Checking, "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is missing in: {error}");
    }
}

/// Two pools in a run of the simulator, each with one idle session that has a statement in its cache.
struct World {
    sim: Sim,
    runtime: SimRuntime,
    servers: [ScriptedServer; 2],
    db: InteractionPool,
}

impl World {
    fn new() -> Self {
        let sim = Sim::new(21);
        let runtime = sim.runtime();
        let servers = [scripted::server(&sim, 1), scripted::server(&sim, 2)];
        let columns = [("n", Type::Int4)];
        for server in &servers {
            let answer = Answer::rows(&columns, vec![vec![1.into()]]).typed(&[Type::Int4]);
            server.on("SELECT n FROM t WHERE id = $1", answer);
        }
        let config = |name, number| scripted::config(name, number).size(1).min_size(1).ping_after(None);
        let builder = InteractionPool::builder(runtime.clone())
            .pool(config("main", 1))
            .pool(config("other", 2));
        let db = sim.block_on(builder.open()).expect("sound settings");
        let world = Self {
            sim,
            runtime,
            servers,
            db,
        };
        world.still_works();
        world
    }

    /// Both pools answer with the sessions they have.
    fn still_works(&self) {
        for name in ["main", "other"] {
            let order = self
                .db
                .run("SELECT n FROM t WHERE id = $1")
                .bind(7i32)
                .on_pool(name)
                .scalar::<i32>();
            assert_eq!(self.sim.block_on(order.into_future()).ok(), Some(1), "{name}");
        }
        self.sim.run_until_idle();
    }

    /// All that the servers have seen: connections, sessions, statements, rounds.
    fn seen(&self) -> String {
        let seen = self
            .servers
            .each_ref()
            .map(|server| (server.connections(), server.sessions()));
        format!("{seen:?}")
    }

    /// Runs something that must fail, with nothing sent and nothing lost.
    #[track_caller]
    fn refuses<T>(&self, act: impl AsyncFnOnce(&InteractionPool) -> Result<T, Error>) -> Error {
        let (seen, before) = (self.seen(), self.db.status());
        let result = self.sim.block_on(act(&self.db)).map(drop);
        self.sim.run_until_idle();
        assert_eq!(self.seen(), seen, "something was sent");
        for (before, after) in before.iter().zip(self.db.status()) {
            assert_eq!((after.idle, after.leased, after.waiting), (1, 0, 0), "{after}");
            assert_eq!((before.size, before.dials), (after.size, after.dials), "{after}");
        }
        self.still_works();
        result.expect_err("it was taken")
    }

    async fn open(&self, configs: impl IntoIterator<Item = PoolConfig>) -> Result<InteractionPool, Error> {
        let builder = InteractionPool::builder(self.runtime.clone());
        let builder = configs.into_iter().fold(builder, gdbpool::InteractionPoolBuilder::pool);
        builder.open().await
    }
}

#[test]
fn an_unknown_pool_is_named_with_the_known_ones() {
    let world = World::new();
    let expected = BadInput::UnknownPool {
        name: "replica".into(),
        known: vec![Arc::from("main"), Arc::from("other")],
    };
    let words = ["\"replica\"", "\"main\", \"other\""];
    let error = world.refuses(async |db| db.run("SELECT 1").on_pool("replica").await);
    assert_told(&error, &expected, &words);
    let error = world.refuses(async |db| db.run("SELECT 1").read().on_pool("replica").stream().await);
    assert_told(&error, &expected, &words);
    assert_told(&world.refuses(async |db| db.pool("replica")), &expected, &words);
    let error = world.refuses(async |db| db.remove_pool("replica", Duration::ZERO).await);
    assert_told(&error, &expected, &words);
}

#[test]
fn a_second_pool_of_one_name() {
    let world = World::new();
    let expected = BadInput::DuplicatePool {
        name: Arc::from("main"),
    };
    let error = world.refuses(async |db| db.add_pool(scripted::config("main", 2)));
    assert_told(&error, &expected, &["\"main\""]);
    let error = world.refuses(async |_| {
        world
            .open([scripted::config("main", 1), scripted::config("main", 2)])
            .await
    });
    assert_told(&error, &expected, &["\"main\""]);
}

#[test]
fn no_pool_at_all() {
    let world = World::new();
    let error = world.refuses(async |_| world.open([]).await);
    assert_told(&error, &BadInput::NoPool, &["no pool"]);
}

#[test]
fn names_that_are_none() {
    for name in ["", "a\0b"] {
        let expected = BadInput::Name {
            what: "pool",
            name: name.into(),
        };
        let error = PoolConfig::new(name, "host=h user=u").expect_err("it was taken");
        assert_told(&error, &expected, &["cannot name a pool", &format!("{name:?}")]);
    }
    let world = World::new();
    for (name, value) in [("", "on"), ("a=b", "on"), ("a\0b", "on"), ("search_path", "a\0b")] {
        let expected = BadInput::Name {
            what: "server setting",
            name: name.into(),
        };
        let error = world.refuses(async |db| db.add_pool(scripted::config("new", 1).setting(name, value)));
        assert_told(&error, &expected, &["server setting", &format!("{name:?}")]);
    }
}

#[test]
fn a_connection_string_that_cannot_be_used() {
    for (dsn, names) in [
        ("host=h user=u colour=blue", "colour"),
        ("host=h user=u port=many", "port"),
        ("host=h user=u port=99999", "port"),
        ("host=h", "user"),
        ("host=h user=''", "user"),
        ("host=h port=1,2 user=u", "port"),
        ("host=h user=u sslmode=required", "sslmode"),
        ("host=h user=u target_session_attrs=primary,any", "target_session_attrs"),
        ("host=h user=u service=s", "service"),
        ("host=h user=u gssencmode=require", "gssencmode"),
        ("postgresql://u@h:port/d", "port"),
        ("postgresql://u@h/d?colour=blue", "colour"),
        ("postgresql://u:p@w@h/d", "'@'"),
        ("postgresql://u@h/d%00b", "dbname"),
        ("host", "\"=\""),
    ] {
        let error = PoolConfig::new("main", dsn)
            .err()
            .unwrap_or_else(|| panic!("{dsn} was taken"));
        assert!(matches!(told(&error), BadInput::Dsn { .. }), "{error:?}");
        assert!(error.to_string().contains(names), "{dsn}: {error}");
    }
}

#[test]
fn duties_that_exclude_each_other() {
    let world = World::new();
    let error = world.refuses(async |db| db.add_pool(scripted::config("new", 1).default_pool().default_read()));
    assert!(matches!(told(&error), BadInput::Conflict { .. }), "{error:?}");
    for word in ["\"new\"", "default_pool", "default_read"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let two = || {
        [
            scripted::config("a", 1).default_pool(),
            scripted::config("b", 2).default_pool(),
        ]
    };
    let error = world.refuses(async |_| world.open(two()).await);
    assert!(matches!(told(&error), BadInput::Conflict { .. }), "{error:?}");
    assert!(
        error.to_string().contains("\"a\"") && error.to_string().contains("\"b\""),
        "{error}"
    );
    let error = world.refuses(async |db| db.remove_pool("main", Duration::ZERO).await);
    assert!(matches!(told(&error), BadInput::Conflict { .. }), "{error:?}");
    assert!(error.to_string().contains("\"main\""), "{error}");
}

/// Each setting with a value on either side of its bounds.
#[test]
fn settings_outside_their_bounds() {
    const TINY: Duration = Duration::from_micros(999);
    const LONG: Duration = Duration::from_secs(86_401);
    const SECOND: Duration = Duration::from_secs(1);
    type Change = fn(PoolConfig) -> PoolConfig;
    let changes: [(&str, &str, Change); 27] = [
        ("size", "0", |c| c.size(0)),
        ("size", "10001", |c| c.size(10_001)),
        ("min_size", "6", |c| c.size(5).min_size(6)),
        ("max_connecting", "0", |c| c.max_connecting(0)),
        ("max_connecting", "1001", |c| c.max_connecting(1_001)),
        ("max_waiters", "0", |c| c.max_waiters(0)),
        ("max_waiters", "1000001", |c| c.max_waiters(1_000_001)),
        ("checkout_timeout", "999µs", |c| c.checkout_timeout(TINY)),
        ("checkout_timeout", "86401s", |c| c.checkout_timeout(LONG)),
        ("connect_timeout", "999µs", |c| c.connect_timeout(TINY)),
        ("connect_timeout", "86401s", |c| c.connect_timeout(LONG)),
        ("max_lifetime", "999µs", |c| c.max_lifetime(Some(TINY))),
        ("idle_timeout", "999µs", |c| c.idle_timeout(Some(TINY))),
        ("ping_timeout", "999µs", |c| c.ping_timeout(TINY)),
        ("ping_timeout", "86401s", |c| c.ping_timeout(LONG)),
        ("hold_warning", "999µs", |c| c.hold_warning(Some(TINY))),
        ("settle_timeout", "999µs", |c| c.settle_timeout(TINY)),
        ("settle_timeout", "86401s", |c| c.settle_timeout(LONG)),
        ("cancel_after", "86401s", |c| c.cancel_after(LONG)),
        ("cancel_grace", "86401s", |c| c.cancel_grace(LONG)),
        ("close_timeout", "999µs", |c| c.close_timeout(TINY)),
        ("close_timeout", "86401s", |c| c.close_timeout(LONG)),
        ("interaction_timeout", "0ns", |c| {
            c.interaction_timeout(Some(Duration::ZERO))
        }),
        ("connect_backoff base", "999µs", |c| c.connect_backoff(TINY, SECOND)),
        ("connect_backoff base", "86401s", |c| c.connect_backoff(LONG, LONG)),
        ("connect_backoff cap", "1ms", |c| {
            c.connect_backoff(SECOND, Duration::from_millis(1))
        }),
        ("connect_backoff cap", "86401s", |c| c.connect_backoff(SECOND, LONG)),
    ];
    let world = World::new();
    for (setting, value, change) in changes {
        let added = world.refuses(async |db| db.add_pool(change(scripted::config("new", 1))));
        let opened = world.refuses(async |_| {
            let config = change(scripted::config("new", 1));
            ConnectionPool::open(Arc::new(world.runtime.clone()), config)
        });
        for error in [added, opened] {
            match told(&error) {
                BadInput::OutOfBounds {
                    setting: named,
                    given,
                    bounds,
                } => {
                    assert_eq!((*named, &**given), (setting, value));
                    let words = format!("{setting} is {value}, but must be {bounds}");
                    assert!(error.to_string().contains(&words), "{error}");
                }
                other => panic!("{setting}: {other:?}"),
            }
        }
    }
    for (min, max, setting) in [(0, 0, "size"), (0, 10_001, "size"), (3, 2, "min_size")] {
        let error = world.refuses(async |db| db.pool("main")?.resize(min, max));
        assert!(error.to_string().contains(setting), "{error}");
        assert!(matches!(told(&error), BadInput::OutOfBounds { .. }), "{error:?}");
    }
}

#[test]
fn parameters_given_both_ways() {
    let world = World::new();
    let sql = "SELECT n FROM t WHERE id = $1";
    let words = ["bind()", "args()"];
    let error = world.refuses(async |db| db.run(sql).bind(1i32).args(&[&2i32]).await);
    assert_told(&error, &BadInput::MixedParameters, &words);
    let error = world.refuses(async |db| db.run(sql).args(&[&2i32]).bind(1i32).stream().await);
    assert_told(&error, &BadInput::MixedParameters, &words);
}

#[test]
fn a_number_of_values_that_the_statement_does_not_have() {
    let world = World::new();
    let sql = "SELECT n FROM t WHERE id = $1";
    // The statement is in the cache, so not even a Parse is sent.
    for given in [0, 2] {
        let expected = BadInput::ParameterCount { placeholders: 1, given };
        let words = ["1 placeholders", &format!("{given} values")];
        let values = vec![&5i32 as &(dyn gdbpool::types::ToSql + Sync); given];
        let error = world.refuses(async |db| db.run(sql).args(&values).await);
        assert_told(&error, &expected, &words);
        let error = world.refuses(async |db| {
            let order = (0..given).fold(db.run(sql), |order, _| order.bind(5i32));
            order.execute().await
        });
        assert_told(&error, &expected, &words);
        assert_eq!(error.pool(), Some("main"));
    }
}

#[test]
fn values_of_a_type_that_the_placeholder_does_not_take() {
    let world = World::new();
    let sql = "SELECT n FROM t WHERE id = $1";
    let expected = |given: &str| BadInput::ParameterType {
        position: 1,
        given: given.into(),
        expected: "int4".into(),
    };
    let error = world.refuses(async |db| db.run(sql).bind("seven").await);
    assert_told(&error, &expected("&str"), &["$1", "&str", "int4"]);
    let error = world.refuses(async |db| db.run(sql).args(&[&7i64]).await);
    assert_told(&error, &expected("i64"), &["$1", "i64", "int4"]);
    let error = world.refuses(async |db| db.run(sql).bind(Some(7i64)).stream().await);
    assert!(
        error.to_string().contains("i64") && error.to_string().contains("int4"),
        "{error}"
    );
}

#[test]
fn a_nul_in_a_statement() {
    let world = World::new();
    let expected = BadInput::NulInText { at: 8 };
    for (what, error) in [
        ("run", world.refuses(async |db| db.run("SELECT '\0'").await)),
        (
            "stream",
            world.refuses(async |db| db.run("SELECT '\0'").read().stream().await),
        ),
    ] {
        assert_told(&error, &expected, &["NUL", "byte 8"]);
        assert_eq!(error.pool(), None, "{what}: before a pool is chosen");
    }
    let error = world.refuses(async |db| db.pool("main")?.checkout().await?.query("SELECT '\0'", &[]).await);
    assert_told(&error, &expected, &["NUL", "byte 8"]);
    let error = world.refuses(async |db| db.pool("main")?.checkout().await?.batch("SELECT '\0'").await);
    assert_told(&error, &expected, &["NUL", "byte 8"]);
}
