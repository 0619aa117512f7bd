//! Runs one test body on smol, async-std and tokio in turn, each with threads of its own.
//!
//! Between a test and the library: it hands the body the adapter as a `dyn Runtime`, and polls it with that runtime's
//! own `block_on`. It starts no server and asserts nothing.
#![allow(dead_code, reason = "every test binary uses its own part of the support")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use gdbpool::{BoxFuture, Runtime};

/// Runs `body` to its end on each runtime that this build has; a panic names the runtime it happened on.
pub(crate) fn on_each(body: impl Fn(Arc<dyn Runtime>) -> BoxFuture<'static, ()>) {
    #[cfg(feature = "smol")]
    on("smol", || smol::block_on(body(Arc::new(gdbpool::Smol::new()))));
    #[cfg(feature = "async-std")]
    on("async-std", || {
        async_std::task::block_on(body(Arc::new(gdbpool::AsyncStd::new())));
    });
    #[cfg(feature = "tokio")]
    on("tokio", || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("tokio");
        let adapter = gdbpool::Tokio::new(runtime.handle().clone());
        runtime.block_on(body(Arc::new(adapter)));
    });
}

/// Polls `condition` until it holds, letting other tasks run in between.
///
/// # Panics
/// When it does not hold within 60 s; the message says `what` was waited for.
pub(crate) async fn until(runtime: &dyn Runtime, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = runtime.now() + Duration::from_secs(60);
    while !condition() {
        let now = runtime.now();
        assert!(now < deadline, "waited for a minute in vain until {what}");
        runtime.sleep_until(now + Duration::from_millis(2)).await;
    }
}

fn on(name: &str, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("the panic above happened on {name}");
        resume_unwind(panic);
    }
}
