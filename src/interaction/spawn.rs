//! Calls that run on their own: a task on the pool's runtime, and the handle that waits for what it gives.
//!
//! Beside the builder: whatever an interaction awaits in place can be started here instead. It knows nothing of SQL and
//! cancels nothing: a dropped handle only stops waiting.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;

use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::runtime::Runtime;

/// A call that is already running on the pool's runtime; made by [`Run::spawn`](crate::Run::spawn).
///
/// Await it for the result, on any executor. Dropping it lets the call go on by itself; the pools stay open until the call
/// has ended.
///
/// # Errors
/// Those of the call; [`ErrorKind::Panicked`] when it panicked; [`ErrorKind::RuntimeGone`] when the executor was shut down
/// before the call had ended.
///
/// # Cancel safety
/// Waiting may be given up and taken up again.
///
/// # Panics
/// When it is polled again after it gave its result.
#[must_use = "dropping the handle detaches the call: its errors are seen by nobody"]
pub struct AsyncResult<T> {
    shared: Arc<Shared<T>>,
}

/// Where the task leaves the result and the handle finds it.
struct Shared<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    Running(Option<Waker>),
    Done(Result<T, Error>),
    Taken,
}

/// The task's end of it: gives a result in any case, also when the task is dropped.
struct Promise<T> {
    shared: Arc<Shared<T>>,
    /// The executor has begun to run the task.
    begun: bool,
    kept: bool,
}

impl<T: Send + 'static> AsyncResult<T> {
    /// Starts `call` on `runtime`.
    pub(crate) fn start(runtime: &dyn Runtime, call: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Running(None)),
        });
        let mut promise = Promise {
            shared: Arc::clone(&shared),
            begun: false,
            kept: false,
        };
        runtime.spawn(Box::pin(async move {
            promise.begun = true;
            let result = AssertUnwindSafe(call).catch_unwind().await;
            promise.keep(result.unwrap_or_else(|panic| Err(panicked(&*panic, Outcome::Unknown))));
        }));
        Self { shared }
    }
}

impl<T> AsyncResult<T> {
    /// Whether the result is there, so that awaiting it would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !matches!(*self.shared.lock(), State::Running(_))
    }
}

impl<T> Future for AsyncResult<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.lock();
        if let State::Running(waker) = &mut *state {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let taken = std::mem::replace(&mut *state, State::Taken);
        drop(state);
        match taken {
            State::Done(result) => Poll::Ready(result),
            State::Running(_) | State::Taken => panic!("an AsyncResult was polled after it gave its result"),
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Promise<T> {
    fn keep(&mut self, result: Result<T, Error>) {
        self.kept = true;
        let before = std::mem::replace(&mut *self.shared.lock(), State::Done(result));
        // Woken outside the lock: a waker may run the waiter at once.
        if let State::Running(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if !self.kept {
            let (outcome, phase) = if self.begun {
                (Outcome::Unknown, Phase::Executing)
            } else {
                (Outcome::NotExecuted, Phase::Checking)
            };
            self.keep(Err(Error::new(ErrorKind::RuntimeGone, outcome, phase)));
        }
    }
}

/// The error of a call that panicked, with the panic's own words.
pub(super) fn panicked(panic: &(dyn Any + Send), outcome: Outcome) -> Error {
    let words = panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let error = Error::new(ErrorKind::Panicked, outcome, Phase::Executing);
    match words {
        Some(words) => error.with_source(words),
        None => error,
    }
}

impl<T> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
