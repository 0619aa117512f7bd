//! Arbitrary bytes from both peers, in arbitrary pieces: the tap sees the same as in one piece, and never panics.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdbpool::fuzzing::tap(bytes));
