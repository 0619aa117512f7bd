//! A scripted server that a pool can work with, and pools on it, in a run of the simulator.
//!
//! Below the tests in virtual time. It scripts only what the library itself sends; a test scripts its own statements.
#![allow(dead_code, reason = "every test binary uses its own part of the support")]

use std::fmt::Write as _;

use gdbpool::PoolConfig;
use gdbpool_sim::{Answer, ScriptedServer, Sim, Type, Value};

/// A server at 10.0.0.`number`.
pub(crate) fn server(sim: &Sim, number: u8) -> ScriptedServer {
    let server = ScriptedServer::start(sim, ([10, 0, 0, number], 5432).into());
    // The end of the clean-up: no statement of the cache was lost, and SQL's PREPARE left none behind.
    let report = vec![Value::Int(1_000), Value::Null];
    let columns = [("kept", Type::Int8), ("left_behind", Type::Text)];
    server.on_prefix(
        "SELECT pg_catalog.count(*) FILTER",
        Answer::rows(&columns, vec![report]),
    );
    server
}

/// The settings of a pool of the same number's server.
pub(crate) fn config(name: &str, number: u8) -> PoolConfig {
    let mut dsn = String::from("user=app dbname=shop password=unused ");
    let _ = write!(dsn, "host=10.0.0.{number}");
    PoolConfig::new(name, &dsn).expect("a sound DSN")
}
