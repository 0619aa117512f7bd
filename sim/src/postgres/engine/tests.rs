//! The engine from its door: two sessions on one node, one statement at a time.
//!
//! What PostgreSQL 15 answers to the same statements is written down here; `sim/tests` compares whole scripts with real servers.

mod concurrency;
mod replication;
mod rows;
mod sessions;
mod support;
