//! A bounded broadcast: every reader sees every item from the moment it came, unless it is too slow.
//!
//! Beside every path. While nobody reads, sending costs one relaxed load and nothing is made. A reader that falls behind by
//! more than the capacity loses the oldest items and is told how many; it never holds up a sender.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use event_listener::{Event, EventListener};

/// The sending side. When its last clone goes, readers see the end after what is left.
pub(crate) struct Broadcast<T> {
    source: Arc<Source<T>>,
}

/// A reader.
pub(crate) struct Reader<T> {
    hub: Arc<Hub<T>>,
    next: u64,
    listener: Option<EventListener>,
}

/// What a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard<T> {
    /// So many items were lost right before the next.
    Lagged(u64),
    Item(T),
}

struct Source<T> {
    hub: Arc<Hub<T>>,
}

struct Hub<T> {
    readers: AtomicUsize,
    ring: Mutex<Ring<T>>,
    sent: Event,
}

struct Ring<T> {
    items: VecDeque<T>,
    capacity: usize,
    /// Number of the first item in the ring.
    first: u64,
    ended: bool,
}

impl<T: Clone> Broadcast<T> {
    /// `capacity`: how far a reader may fall behind, in items; at least 1.
    pub(crate) fn new(capacity: usize) -> Self {
        let ring = Ring {
            items: VecDeque::new(),
            capacity: capacity.max(1),
            first: 0,
            ended: false,
        };
        let hub = Arc::new(Hub {
            readers: AtomicUsize::new(0),
            ring: Mutex::new(ring),
            sent: Event::new(),
        });
        Self {
            source: Arc::new(Source { hub }),
        }
    }

    /// A reader of everything that is sent from now on.
    pub(crate) fn subscribe(&self) -> Reader<T> {
        let hub = Arc::clone(&self.source.hub);
        let ring = hub.lock();
        let next = ring.end();
        hub.readers.fetch_add(1, Ordering::Relaxed);
        drop(ring);
        Reader {
            hub,
            next,
            listener: None,
        }
    }

    /// Sends what `make` gives, if anybody reads.
    pub(crate) fn send(&self, make: impl FnOnce() -> T) {
        let hub = &self.source.hub;
        if hub.readers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let item = make();
        let mut ring = hub.lock();
        let lost = if ring.items.len() == ring.capacity {
            ring.first += 1;
            ring.items.pop_front()
        } else {
            None
        };
        ring.items.push_back(item);
        drop(ring);
        drop(lost);
        hub.sent.notify(usize::MAX);
    }
}

impl<T: Clone> Reader<T> {
    /// The next item; `None` when no more can come.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Heard<T>>> {
        loop {
            if let Some(heard) = self.take() {
                self.listener = None;
                return Poll::Ready(heard);
            }
            match &mut self.listener {
                // Looked at once more after listening: it may have come in between.
                None => self.listener = Some(self.hub.sent.listen()),
                Some(listener) => {
                    if Pin::new(listener).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.listener = None;
                }
            }
        }
    }

    fn take(&mut self) -> Option<Option<Heard<T>>> {
        let ring = self.hub.lock();
        if self.next < ring.first {
            let lost = ring.first - self.next;
            self.next = ring.first;
            return Some(Some(Heard::Lagged(lost)));
        }
        if let Some(item) = ring.items.get((self.next - ring.first) as usize) {
            let item = item.clone();
            self.next += 1;
            return Some(Some(Heard::Item(item)));
        }
        ring.ended.then_some(None)
    }
}

impl<T> Hub<T> {
    fn lock(&self) -> MutexGuard<'_, Ring<T>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Ring<T> {
    /// Number of the next item.
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }
}

impl<T> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
        }
    }
}

impl<T> Drop for Source<T> {
    fn drop(&mut self) {
        self.hub.lock().ended = true;
        self.hub.sent.notify(usize::MAX);
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        let mut ring = self.hub.lock();
        let mut unread = VecDeque::new();
        if self.hub.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Nobody is left who could read it.
            ring.first = ring.end();
            unread = std::mem::take(&mut ring.items);
        }
        drop(ring);
        drop(unread);
    }
}

impl<T> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("readers", &self.source.hub.readers)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use proptest::prelude::*;

    use super::{Broadcast, Heard, Reader};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn read(reader: &mut Reader<u64>) -> Poll<Option<Heard<u64>>> {
        reader.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn nothing_is_made_while_nobody_reads() {
        let sender = Broadcast::<u64>::new(4);
        sender.send(|| panic!("made for nobody"));
        drop(sender.subscribe());
        sender.send(|| panic!("made for nobody"));
    }

    #[test]
    fn a_reader_is_woken_and_sees_the_end() {
        let sender = Broadcast::new(4);
        let mut reader = sender.subscribe();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        assert!(reader.poll_next(&mut Context::from_waker(&waker)).is_pending());
        sender.clone().send(|| 7);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(read(&mut reader), Poll::Ready(Some(Heard::Item(7))));
        assert!(reader.poll_next(&mut Context::from_waker(&waker)).is_pending());
        drop(sender);
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(read(&mut reader), Poll::Ready(None));
        assert_eq!(read(&mut reader), Poll::Ready(None));
    }

    proptest! {
        /// Every reader's items and losses add up to what was sent since it came, in order, and it never lags by more than
        /// was sent beyond the capacity.
        #[test]
        fn nothing_is_lost_untold(capacity in 1usize..6, steps in proptest::collection::vec(0u8..8, 0..200)) {
            let sender = Broadcast::new(capacity);
            let (mut sent, mut readers) = (0u64, Vec::<(Reader<u64>, u64)>::new());
            for step in steps {
                match step {
                    0 => readers.push((sender.subscribe(), sent)),
                    1 => drop(readers.pop()),
                    2..=4 => {
                        sender.send(|| sent);
                        sent += 1;
                    }
                    which => {
                        let at = usize::from(which) % readers.len().max(1);
                        let Some((reader, next)) = readers.get_mut(at) else { continue };
                        match read(reader) {
                            Poll::Ready(Some(Heard::Item(item))) => {
                                prop_assert_eq!(item, *next);
                                *next += 1;
                            }
                            Poll::Ready(Some(Heard::Lagged(lost))) => {
                                prop_assert!(sent - *next > capacity as u64);
                                *next += lost;
                                prop_assert_eq!(sent - *next, capacity as u64);
                            }
                            other => {
                                prop_assert_eq!(other, Poll::Pending);
                                prop_assert_eq!(*next, sent);
                            }
                        }
                    }
                }
            }
        }
    }
}
