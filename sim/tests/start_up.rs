//! Session starts through the real tokio-postgres: every way to be let in, refused, left hanging or cut off.

mod support;

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gdbpool_sim::{Cut, Direction, ScriptedServer, Sim, StartStep, StartUp};
use tokio_postgres::Config;

use support::{code, config, connect, connect_with, server, stream};

const STEPS: [StartStep; 5] = [
    StartStep::Accepted,
    StartStep::Requested,
    StartStep::Authenticated,
    StartStep::Reported,
    StartStep::Keyed,
];

fn outcome(sim: &Sim, server: &ScriptedServer, config: &Config) -> String {
    let runtime = sim.runtime();
    code(sim.block_on(connect_with(&runtime, server, config)))
}

#[test]
fn passwords_are_checked() {
    let sim = Sim::new(1);
    let server = server(&sim);
    for (start_up, password, expected) in [
        (StartUp::Trust, "", "no error"),
        (StartUp::Cleartext("secret".into()), "secret", "no error"),
        (StartUp::Cleartext("secret".into()), "Secret", "28P01"),
        (StartUp::Md5("secret".into()), "secret", "no error"),
        (StartUp::Md5("secret".into()), "other", "28P01"),
        (StartUp::RefusePassword, "secret", "28P01"),
        (
            StartUp::Error("57P03".into(), "the database system is starting up".into()),
            "",
            "57P03",
        ),
        (
            StartUp::Slow(Duration::from_secs(1), Box::new(StartUp::RefusePassword)),
            "secret",
            "28P01",
        ),
    ] {
        server.set_start_up(start_up.clone());
        assert_eq!(
            outcome(&sim, &server, config().password(password)),
            expected,
            "{start_up:?} with {password:?}"
        );
    }
    assert_eq!(sim.now().as_nanos(), 1_000_000_000, "only the slow one took time");
    assert!(server.violations().is_empty());
}

#[test]
fn a_start_up_can_stop_or_end_at_each_step() {
    for step in STEPS {
        let sim = Sim::new(2);
        let (runtime, server) = (sim.runtime(), server(&sim));
        server.once_start_up(StartUp::Close(step));
        server.once_start_up(StartUp::Hang(step));
        assert_eq!(outcome(&sim, &server, &config()), "connection closed", "{step:?}");
        let mut hanging = sim.manual(connect(&runtime, &server));
        assert!(hanging.settle().is_pending(), "{step:?}");
        sim.advance(Duration::from_secs(3600));
        assert!(hanging.settle().is_pending(), "{step:?}");
        drop(hanging);
        assert_eq!(
            outcome(&sim, &server, &config()),
            "no error",
            "the next one is served: {step:?}"
        );
        sim.run_until_idle();
        assert_eq!(server.open_sessions(), 0, "all clients are gone: {step:?}");
    }
}

#[test]
fn the_start_up_can_be_cut_at_every_byte() {
    let sim = Sim::new(3);
    let (runtime, server) = (sim.runtime(), server(&sim));
    let client = sim.block_on(connect(&runtime, &server)).unwrap();
    let whole = server.session_control(0).delivered(Direction::ToClient);
    drop(client);
    assert!(whole > 300, "{whole} bytes");
    for at in 0..=whole {
        let ordinal = server.sessions().len();
        server.cut_session_at(ordinal, Direction::ToClient, at, Cut::Eof);
        let found = outcome(&sim, &server, &config());
        assert_eq!(found == "no error", at == whole, "cut at {at} of {whole}: {found}");
    }
    sim.run_until_idle();
    assert_eq!(server.open_sessions(), 0);
}

#[test]
fn too_many_sessions_and_bad_settings_are_refused() {
    let sim = Sim::new(4);
    let (runtime, server) = (sim.runtime(), server(&sim));
    server.set_max_sessions(1);
    let first = sim.block_on(connect(&runtime, &server)).unwrap();
    assert_eq!(outcome(&sim, &server, &config()), "53300");
    drop(first);
    sim.run_until_idle();
    assert_eq!(outcome(&sim, &server, config().options("-c nonsense=1")), "42704");
    sim.run_until_idle();
    assert_eq!(outcome(&sim, &server, &config()), "no error");
}

#[test]
fn encryption_is_declined_and_garbage_is_a_violation() {
    let sim = Sim::new(5);
    let (runtime, server) = (sim.runtime(), server(&sim));
    sim.block_on(async {
        let mut raw = stream(&runtime, &server).await.unwrap();
        raw.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
        let mut answer = [0; 1];
        raw.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"N");
        raw.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        raw.read_to_end(&mut rest).await.unwrap();
        assert!(rest.starts_with(b"E"), "{rest:?}");
    });
    assert_eq!(server.violations(), ["invalid message length"]);
    assert!(server.sessions().is_empty());
}
