//! Arbitrary client bytes, in arbitrary pieces, with and without a start-up before them: no server panics or spins.

#![no_main]

#[path = "../src/frontend.rs"]
mod frontend;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    frontend::frontend(bytes);
});
