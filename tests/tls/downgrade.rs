//! Fake servers that talk a client out of its encryption, or push words of their own before it.

use std::sync::Arc;

use gdbpool::{ConnectionPool, PoolConfig, Runtime};
use gdbpool_sim::Sim;

use super::fake::{Fake, Reply, fatal, welcome};
use super::world::all_of;

/// A server that answers a request for encryption so, and lets everybody in who comes without; gives what it was sent on
/// each connection, and the error if there is one.
fn run(answer: Vec<u8>, mode: &str) -> (Vec<Vec<u8>>, Option<String>) {
    let sim = Sim::new(1);
    let fake = Fake::start(&sim, ([10, 0, 0, 1], 5432).into(), move |_, message| {
        if message.asks_for_tls() {
            Reply::Send(answer.clone())
        } else if message.is_start_up() {
            Reply::Send(welcome(&[]))
        } else {
            Reply::Last(Vec::new())
        }
    });
    let dsn = format!("host=10.0.0.1 port=5432 user=app dbname=secrets sslmode={mode}");
    let config = PoolConfig::new("p", &dsn).expect("a sound DSN").size(1);
    let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
    let pool = ConnectionPool::open(runtime, config).expect("sound settings");
    let mut asking = sim.manual(pool.checkout());
    let _ = asking.settle();
    sim.run_until_idle();
    let error = pool.last_connect_error().map(|error| all_of(&error));
    // Neither where a server that said too little is still waited for.
    assert_eq!(error.is_none() && mode == "prefer", pool.status().connects == 1);
    (fake.received(), error)
}

const STRONG: [&str; 2] = ["require", "verify-full"];

/// The start-up packet has the user's and the database's name in it.
fn is_told(received: &[Vec<u8>]) -> bool {
    super::relay::has(&received.concat(), b"secrets")
}

fn with_roots(mode: &str) -> String {
    match mode {
        "verify-full" => format!("{mode} sslrootcert={}", super::pki::Pki::get().of("ca.crt")),
        mode => mode.to_owned(),
    }
}

#[test]
fn no_is_no_answer_to_a_client_that_requires() {
    for mode in STRONG {
        let (received, error) = run(b"N".to_vec(), &with_roots(mode));
        let text = error.expect("refused");
        assert!(text.contains("the server has no TLS, which sslmode asks for"), "{text}");
        assert!(!is_told(&received), "{mode}");
    }
    let (received, error) = run(b"N".to_vec(), "prefer");
    assert!(error.is_none() && is_told(&received));
    assert_eq!(received.len(), 1, "the same connection goes on");
}

/// CVE-2021-23222: a start-up that is all there, in the clear, right behind the yes. None of it is believed.
#[test]
fn what_is_pushed_before_the_handshake_is_not_believed() {
    for pushed in [welcome(&[]), fatal("28000", "hunter2"), vec![0], vec![22, 3, 1]] {
        let mut answer = b"S".to_vec();
        answer.extend_from_slice(&pushed);
        for mode in STRONG {
            let (received, error) = run(answer.clone(), &with_roots(mode));
            if pushed.len() > 5 {
                let text = error.expect("refused");
                assert!(text.contains("the TLS handshake failed"), "{text}");
                assert!(!text.contains("hunter2"), "{text}");
            }
            assert!(!is_told(&received), "{mode}");
        }
    }
}

/// Before the handshake anybody could say anything: an error in the clear is no more than a failure.
#[test]
fn an_error_in_the_clear_is_not_read() {
    for mode in ["prefer", "require"] {
        let (received, error) = run(fatal("28P01", "hunter2"), mode);
        let text = error.expect("refused");
        assert!(text.contains("answered the request for TLS with an error"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("28P01"), "{text}");
        assert!(!is_told(&received));
        let (received, error) = run(b"X".to_vec(), mode);
        assert!(error.expect("refused").contains("0x58"));
        assert!(!is_told(&received));
    }
}
