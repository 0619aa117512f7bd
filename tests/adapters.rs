//! The adapters keep what `Runtime` promises, wherever they are called and polled: one body per promise, six arms.
#![cfg(any(feature = "smol", feature = "async-std", feature = "tokio"))]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "compares the library with the real world"
)]

#[expect(dead_code, reason = "only its `block_on` is needed here")]
#[path = "support/bare_runtime.rs"]
mod bare_runtime;
#[macro_use]
#[path = "support/runtime_checks.rs"]
mod runtime_checks;

use std::sync::Arc;

use runtime_checks::Check;

#[cfg(feature = "async-std")]
check_runtime!(async_std_global);
#[cfg(feature = "smol")]
check_runtime!(smol_global);
#[cfg(feature = "smol")]
check_runtime!(smol_own_executor);
#[cfg(feature = "tokio")]
check_runtime!(tokio_current_thread);
#[cfg(feature = "tokio")]
check_runtime!(tokio_inside);
#[cfg(feature = "tokio")]
check_runtime!(tokio_outside);

#[cfg(feature = "async-std")]
fn async_std_global(check: Check) {
    async_std::task::block_on(check(Arc::new(gdbpool::AsyncStd::new())));
}

/// Polled by a thread that knows nothing of smol.
#[cfg(feature = "smol")]
fn smol_global(check: Check) {
    bare_runtime::block_on(check(Arc::new(gdbpool::Smol::new())));
}

/// Polled by the thread that runs the executor.
#[cfg(feature = "smol")]
fn smol_own_executor(check: Check) {
    let executor = Arc::new(smol::Executor::new());
    let runtime = gdbpool::Smol::with_executor(&executor);
    smol::block_on(executor.run(check(Arc::new(runtime))));
}

#[cfg(feature = "tokio")]
fn tokio_current_thread(check: Check) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("tokio");
    runtime.block_on(async { check(Arc::new(gdbpool::Tokio::current().expect("inside"))).await });
}

#[cfg(feature = "tokio")]
fn tokio_inside(check: Check) {
    let runtime = multi_thread();
    runtime.block_on(async { check(Arc::new(gdbpool::Tokio::current().expect("inside"))).await });
}

/// Polled by a thread that knows nothing of tokio.
#[cfg(feature = "tokio")]
fn tokio_outside(check: Check) {
    let runtime = multi_thread();
    let adapter = gdbpool::Tokio::new(runtime.handle().clone());
    bare_runtime::block_on(check(Arc::new(adapter)));
}

#[cfg(feature = "tokio")]
fn multi_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("tokio")
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_current_outside_a_runtime_is_an_error() {
    let error = gdbpool::Tokio::current().expect_err("there is no runtime here");
    assert!(
        error
            .to_string()
            .contains("must be called from the context of a Tokio 1.x runtime"),
        "{error}"
    );
}

#[cfg(feature = "tokio")]
#[test]
fn what_tokio_made_can_be_dropped_after_its_runtime() {
    use gdbpool::{Endpoint, Runtime, SocketOptions};
    use std::time::Duration;

    let runtime = multi_thread();
    let adapter = gdbpool::Tokio::new(runtime.handle().clone());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = Endpoint::Tcp(listener.local_addr().expect("address"));
    let stream = bare_runtime::block_on(adapter.connect(&address, &SocketOptions::default())).expect("connect");
    let mut sleep = adapter.sleep_until(adapter.now() + Duration::from_secs(3_600));
    let mut resolve = adapter.resolve("localhost", 1);
    bare_runtime::block_on(async {
        assert!(futures::poll!(&mut sleep).is_pending());
        drop(futures::poll!(&mut resolve));
    });
    drop(runtime);
    drop((sleep, resolve, stream));
    // Late callers get errors, and late tasks are dropped.
    bare_runtime::block_on(adapter.connect(&address, &SocketOptions::default()))
        .map(drop)
        .expect_err("no reactor is left");
    let (alive, dropped) = futures::channel::oneshot::channel::<()>();
    adapter.spawn(Box::pin(async move {
        std::future::pending::<()>().await;
        drop(alive);
    }));
    bare_runtime::block_on(dropped).expect_err("the task is gone");
}
