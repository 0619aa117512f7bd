//! Arbitrary connection strings, service files and password files: never a panic, and what can be read prints and reads
//! again to the same.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdbpool::fuzzing::dsn(bytes));
