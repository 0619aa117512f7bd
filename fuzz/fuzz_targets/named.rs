//! Arbitrary SQL with named placeholders: never a panic, texts without names stay as they are, and the lexer sees in the new
//! text what it saw in the old one.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdbpool::fuzzing::named(bytes));
