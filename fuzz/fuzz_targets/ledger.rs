//! Arbitrary histories of a pool's ledger, watched by a naive second one: books balance, order holds, everybody is served.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdbpool::fuzzing::ledger(bytes));
