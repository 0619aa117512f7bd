//! `SimRuntime`: the library's `Runtime` on the virtual clock, executor and network of one run.
//!
//! What the code under test sees of the simulator. It never reaches a real clock, socket or source of randomness.

use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use gdbpool::{BoxFuture, BoxStream, Endpoint, Instant, Runtime, SocketOptions};

use crate::executor::{Origin, Shared, TimerKey};
use crate::network::{self, Lookup};

/// The runtime of one [`Sim`](crate::Sim). Cloning gives another handle to the same run.
#[derive(Clone)]
pub struct SimRuntime {
    shared: Arc<Shared>,
    host: Arc<str>,
}

impl SimRuntime {
    pub(crate) fn new(shared: Arc<Shared>, host: Arc<str>) -> Self {
        Self { shared, host }
    }

    /// Counts under `name` when the condition holds; see [`sometimes!`](crate::sometimes).
    pub fn sometimes(&self, name: &str, condition: bool) {
        self.shared.sometimes(name, condition);
    }
}

impl Runtime for SimRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.shared.spawn(task, Origin::Runtime);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Sleep::new(&self.shared, at, Origin::Runtime))
    }

    fn now(&self) -> Instant {
        self.shared.now()
    }

    fn random(&self) -> u64 {
        self.shared.random()
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let shared = Arc::clone(&self.shared);
        let host = host.to_owned();
        Box::pin(async move {
            yield_now().await;
            let (lookup, by_fault) = {
                let state = shared.lock();
                (state.network.resolve(&host), state.network.answers(&host))
            };
            shared.felt(by_fault.then_some("network.resolve"));
            match lookup {
                Lookup::Addresses(found) => Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
                Lookup::Hang => pending().await,
                Lookup::Unknown => Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("no address is known for host {host:?}"),
                )),
            }
        })
    }

    fn connect(&self, to: &Endpoint, _options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        let shared = Arc::clone(&self.shared);
        let (from, to) = (Arc::clone(&self.host), to.clone());
        Box::pin(async move {
            let stream = network::connect(&shared, &from, &to).await?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    #[cfg(gdbpool_points)]
    fn point(&self, name: &'static str) {
        self.shared.point(name);
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimRuntime {{ seed: {}, host: {:?} }}", self.shared.seed, self.host)
    }
}

/// Completes when the virtual clock reaches an instant; unregisters itself when dropped.
pub(crate) struct Sleep {
    shared: Arc<Shared>,
    at: Instant,
    origin: Origin,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(crate) fn new(shared: &Arc<Shared>, at: Instant, origin: Origin) -> Self {
        Self {
            shared: Arc::clone(shared),
            at,
            origin,
            timer: None,
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.now() >= self.at {
            if let Some(key) = self.timer.take() {
                self.shared.clear_timer(key);
            }
            return Poll::Ready(());
        }
        // "Never" needs no timer, else the clock would jump there and hide a deadlock.
        if self.at != Instant::FAR_FUTURE {
            let key = self
                .shared
                .set_timer(self.at, self.timer, self.origin, cx.waker().clone());
            self.timer = Some(key);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer.take() {
            self.shared.clear_timer(key);
        }
    }
}

/// Lets every other ready task have its turn: real look-ups and connects never complete at the first poll.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
