//! The wire: a session's `tokio_postgres::Connection`, and who polls it.
//!
//! Between the driver and the tap. The driver polls it whenever something happens; a caller that has just queued a request
//! polls it once itself, so that the bytes leave at once and the driver need not be woken for them. If that request is the
//! only one, its caller is woken in the driver's place (see `helm`), and polls it for the answer, too. It decides nothing
//! and ends nothing: an end that a caller meets is left to the driver.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio_postgres::AsyncMessage;

use super::bound::RawConnection;
use super::helm::Helm;

/// How a session ends: asked to from outside, told from inside. It is the waker of all that its driver waits for, and
/// passes on what comes from the wire to whoever has the helm.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    killed: AtomicBool,
    /// See [`Hold`].
    alarm: AtomicU8,
    driver: AtomicWaker,
    helm: Helm,
    ended: OnceLock<Ended>,
}

/// Why a session ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// We closed it.
    Closed,
    /// The connection failed, or the server ended it; the server's own words, if it had any.
    Failed(Arc<tokio_postgres::Error>),
    /// The executor dropped the driver.
    Dropped,
}

/// See the file's header.
pub(super) struct Wire {
    line: Mutex<Line>,
    ending: Arc<Ending>,
    /// Wakes the driver, or is noted, while a caller is at it.
    waker: Waker,
}

struct Line {
    /// Gone once the driver has ended.
    connection: Option<RawConnection>,
    /// The end, where a caller met it.
    over: Option<Ended>,
    /// A listener's: where notifications go. Other sessions drop them.
    sink: Option<async_channel::Sender<tokio_postgres::Notification>>,
}

/// Notifications of a session, in the order they came; made by [`Session::notifications`](super::Session::notifications).
///
/// With the queue full the wire is not read, so that nothing is lost and nothing grows.
pub(crate) struct Notifications {
    queue: async_channel::Receiver<tokio_postgres::Notification>,
    ending: Arc<Ending>,
}

/// While it lives, the driver is not woken, only noted as to be woken: whoever holds it is about to poll the wire.
///
/// One at a time: it is held under the session's fence.
pub(super) struct Hold<'a> {
    wire: &'a Wire,
}

/// A caller's right to the helm, for its one request. Dropped, the wire is left to the driver.
pub(super) struct Steering<'a> {
    wire: &'a Wire,
    /// The number of the request, while it has the helm, as far as is known.
    owner: Option<NonZeroU64>,
}

/// The alarm: free, or held with what has happened meanwhile.
mod alarm {
    pub(super) const FREE: u8 = 0;
    pub(super) const HELD: u8 = 1;
    /// On the wire.
    pub(super) const RUNG: u8 = 2;
    /// The driver itself is needed.
    pub(super) const CALLED: u8 = 4;
}

impl Ending {
    /// Ends the session at once: the driver drops the connection when it next runs.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake_driver();
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// There is something to do that only the driver does: a job in the inbox, an end.
    pub(super) fn wake_driver(&self) {
        self.ring(alarm::CALLED);
    }

    fn ring(&self, what: u8) {
        // A change, always: what the caller of this did is seen by whoever changes the alarm after it.
        if self.alarm.fetch_or(what, Ordering::AcqRel) & alarm::HELD == 0 {
            self.alarm.fetch_and(!what, Ordering::AcqRel);
            self.pass_on(what);
        }
    }

    fn pass_on(&self, what: u8) {
        if what & alarm::CALLED != 0 {
            self.helm.relieve();
        } else if self.helm.wake() {
            return;
        }
        self.driver.wake();
    }

    /// Wakes are noted from here on.
    fn silence(&self) {
        self.alarm.fetch_or(alarm::HELD, Ordering::AcqRel);
    }

    /// Forgets what was noted of the wire: it is seen by what follows.
    fn attend(&self) {
        self.alarm.fetch_and(!alarm::RUNG, Ordering::AcqRel);
    }

    /// Passes on what was noted and not attended to.
    fn release(&self) {
        let noted = self.alarm.swap(alarm::FREE, Ordering::AcqRel) & !alarm::HELD;
        if noted != 0 {
            self.pass_on(noted);
        }
    }

    /// Whom to wake from now on.
    pub(super) fn register_driver(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Why the session ended, once it has.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.get()
    }

    /// Writes down why the session ended; the first word counts.
    pub(super) fn conclude(&self, why: Ended) {
        let _ = self.ended.set(why);
    }
}

impl Wake for Ending {
    fn wake(self: Arc<Self>) {
        self.ring(alarm::RUNG);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring(alarm::RUNG);
    }
}

impl Wire {
    pub(super) fn new(connection: RawConnection, ending: Arc<Ending>) -> Self {
        Self {
            line: Mutex::new(Line {
                connection: Some(connection),
                over: None,
                sink: None,
            }),
            waker: Waker::from(Arc::clone(&ending)),
            ending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver's turn.
    pub(super) fn poll(&self) -> Poll<Ended> {
        // A statement of its own: whoever is woken finds the wire free.
        let polled = self.lock().poll(&self.waker);
        self.ending.helm.nudge();
        polled
    }

    /// Moves what can be moved, unless somebody is at it; whether it did.
    fn try_poll(&self) -> bool {
        let mut line = match self.line.try_lock() {
            Ok(line) => line,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        self.ending.attend();
        if let Poll::Ready(over) = line.poll(&self.waker) {
            line.over = Some(over);
            self.ending.wake_driver();
        }
        true
    }

    /// Keeps notifications from here on.
    pub(super) fn notifications(&self, bound: usize) -> Notifications {
        let (sink, queue) = async_channel::bounded(bound);
        self.lock().sink = Some(sink);
        Notifications {
            queue,
            ending: Arc::clone(&self.ending),
        }
    }

    /// Drops the connection, which is what callers notice.
    pub(super) fn hang_up(&self) {
        let connection = self.lock().connection.take();
        drop(connection);
        // Whoever has the helm is not woken by its answer.
        self.ending.helm.relieve();
    }

    /// A caller is about to queue a request: whoever has the helm is no longer alone.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.ending.helm.relieve();
        self.ending.silence();
        Hold { wire: self }
    }

    pub(super) fn steering(&self) -> Steering<'_> {
        Steering {
            wire: self,
            owner: None,
        }
    }
}

impl Hold<'_> {
    /// Sends what was queued; `false` when the driver is at it, which will.
    pub(super) fn push(&self) -> bool {
        self.wire.try_poll()
    }
}

impl Steering<'_> {
    /// Takes the helm for the only request that is under way.
    pub(super) fn take(&mut self, request: NonZeroU64, cx: &Context<'_>) {
        self.owner = Some(request);
        self.wire.ending.helm.take(request, cx.waker());
    }

    /// Moves the wire's bytes. `false` without the helm: then the answer itself must wake the caller.
    pub(super) fn steer(&mut self, cx: &Context<'_>) -> bool {
        let Some(request) = self.owner else { return false };
        // Before anything is looked at: what comes later wakes.
        if !self.wire.ending.helm.keep(request, cx.waker()) {
            self.owner = None;
            return false;
        }
        // If the driver is at it, it wakes the caller after.
        self.wire.try_poll();
        true
    }

    /// Leaves the wire to the driver, with whatever was not looked at.
    pub(super) fn leave(&mut self) {
        if let Some(request) = self.owner.take()
            && self.wire.ending.helm.leave(request)
        {
            self.wire.ending.ring(alarm::RUNG);
        }
    }
}

impl Drop for Steering<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.wire.ending.release();
    }
}

impl Notifications {
    /// The oldest one, if there is one.
    pub(crate) fn take(&self) -> Option<tokio_postgres::Notification> {
        let was_full = self.queue.is_full();
        let taken = self.queue.try_recv().ok();
        if was_full {
            self.ending.wake_driver();
        }
        taken
    }
}

impl Line {
    fn poll(&mut self, waker: &Waker) -> Poll<Ended> {
        if let Some(over) = self.over.take() {
            return Poll::Ready(over);
        }
        let Some(connection) = &mut self.connection else {
            // Told already.
            return Poll::Pending;
        };
        loop {
            // Whoever takes from the queue wakes the driver.
            if self.sink.as_ref().is_some_and(async_channel::Sender::is_full) {
                return Poll::Pending;
            }
            match connection.poll_message(&mut Context::from_waker(waker)) {
                Poll::Ready(Some(Ok(AsyncMessage::Notification(notification)))) => {
                    if let Some(sink) = &self.sink {
                        // Closed when nobody listens any more.
                        let _ = sink.try_send(notification);
                    }
                }
                Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                    tracing::debug!(sqlstate = notice.code().code(), severity = notice.severity(), "notice");
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Ended::Failed(Arc::new(error))),
                Poll::Ready(None) => return Poll::Ready(Ended::Closed),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for Steering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications")
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::{Ending, alarm};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_under_a_hold_is_passed_on_unless_it_was_attended_to() {
        let (ending, count) = (Ending::default(), Arc::new(Count::default()));
        let woken = || {
            ending.register_driver(&Waker::from(Arc::clone(&count)));
            count.0.swap(0, Ordering::SeqCst)
        };
        woken();
        ending.wake_driver();
        assert_eq!(woken(), 1, "nobody holds it");

        ending.silence();
        ending.ring(alarm::RUNG);
        ending.ring(alarm::RUNG);
        assert_eq!(woken(), 0, "held");
        ending.release();
        assert_eq!(woken(), 1, "passed on, once");

        ending.silence();
        ending.ring(alarm::RUNG);
        ending.attend();
        ending.release();
        assert_eq!(woken(), 0, "attended to");

        ending.silence();
        ending.attend();
        ending.kill();
        ending.release();
        assert_eq!(woken(), 1, "what came after is passed on");
        assert!(ending.is_killed());

        ending.silence();
        ending.wake_driver();
        ending.attend();
        ending.release();
        assert_eq!(woken(), 1, "what only the driver does is not attended to by others");
    }
}
