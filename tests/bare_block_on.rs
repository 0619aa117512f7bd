//! The library needs no executor but what a user writes: here one from the standard library alone.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a runtime is where the real world enters"
)]

#[path = "support/bare_runtime.rs"]
mod bare_runtime;
#[macro_use]
#[path = "support/runtime_checks.rs"]
mod runtime_checks;

use std::sync::Arc;

use bare_runtime::{BareRuntime, block_on};
use runtime_checks::Check;

check_runtime!(bare);

fn bare(check: Check) {
    block_on(check(Arc::new(BareRuntime::new())));
}
