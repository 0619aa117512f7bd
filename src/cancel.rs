//! `Cancel`: a flag that wakes everybody who waits for it, built on event-listener.
//!
//! A value handed in by users ([`Run::cancel_on`](crate::Run::cancel_on)); the path of a call only ever reads it. It
//! never decides what becomes of the work it stops.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;

/// A cancellation flag that can be cloned, set once, and waited for on any executor.
///
/// Setting it is synchronous: [`cancel`](Self::cancel) may be called from a signal handler thread, a `Drop`, or
/// ordinary code. All clones share the flag.
///
/// ```
/// use gdbpool::Cancel;
///
/// let cancel = Cancel::new();
/// let seen_by_worker = cancel.clone();
/// assert!(!seen_by_worker.is_cancelled());
/// cancel.cancel();
/// assert!(seen_by_worker.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    event: Event,
}

impl Cancel {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag and wakes all waiters. Setting it again changes nothing.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
        self.inner.event.notify(usize::MAX);
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    /// Whether both are clones of one flag.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Waits until the flag is set; at once if it is.
    ///
    /// # Cancel safety
    /// Yes: dropping the future changes nothing.
    pub async fn cancelled(&self) {
        // Register, then look again, then wait: a flag set in between is not missed.
        while !self.is_cancelled() {
            let listener = self.inner.event.listen();
            if self.is_cancelled() {
                return;
            }
            listener.await;
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel")
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}
