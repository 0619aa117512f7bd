//! Bytes to a whole scenario on a simulated cluster: whatever goes wrong there, no oracle finds a broken promise.

#![no_main]

#[path = "../src/scenario.rs"]
mod scenario;

use std::process::abort;

libfuzzer_sys::fuzz_target!(
    init: {
        // Clients may panic on purpose; the run catches that. Without this, each would count as a find.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |bytes: &[u8]| {
        if let Some(broken) = scenario::broken(bytes) {
            eprintln!("{broken}");
            abort();
        }
    }
);
