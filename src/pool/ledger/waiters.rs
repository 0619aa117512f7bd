//! The queue of waiters: strictly first come, first served, by ticket.
//!
//! A linked list inside a slab: joining, being served and giving up each take constant time and leave nothing behind,
//! so memory is bounded by the most waiters there ever were at once. It never decides who may wait.

use std::panic::Location;

use crate::Instant;

/// Names one caller's stay in the queue. The generation grows when the stay ends, so an id kept too long is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaiterId {
    index: u32,
    generation: u32,
}

impl WaiterId {
    /// The waiter's place in the slab, below the most waiters there ever were at once: fit to index a table of
    /// hand-off channels.
    pub(crate) const fn index(self) -> usize {
        self.index as usize
    }
}

/// What the queue knows of one waiter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    /// Place in line: tickets are drawn at checkout and ascend from head to tail.
    pub(super) ticket: u64,
    pub(super) since: Instant,
    pub(super) at: &'static Location<'static>,
}

/// The queue.
#[derive(Clone, Debug)]
pub(super) struct Waiters {
    entries: Vec<Entry>,
    head: u32,
    tail: u32,
    /// First of the entries not in use, linked by `next`.
    spare: u32,
    len: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    generation: u32,
    queued: bool,
    prev: u32,
    next: u32,
    waiter: Waiter,
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            head: NONE,
            tail: NONE,
            spare: NONE,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The oldest waiter.
    pub(super) fn first(&self) -> Option<&Waiter> {
        self.entries.get(self.head as usize).map(|entry| &entry.waiter)
    }

    /// Queues by ticket: behind everybody with a lower one. Constant time for a newcomer; a caller that keeps its turn
    /// walks past those that were served before it and keep theirs too.
    pub(super) fn insert(&mut self, waiter: Waiter) -> WaiterId {
        let next = self.place_of(waiter.ticket);
        let prev = if next == NONE {
            self.tail
        } else {
            self.entries[next as usize].prev
        };
        let index = self.allot(waiter, prev, next);
        if prev == NONE {
            self.head = index;
        } else {
            self.entries[prev as usize].next = index;
        }
        if next == NONE {
            self.tail = index;
        } else {
            self.entries[next as usize].prev = index;
        }
        self.len += 1;
        WaiterId {
            index,
            generation: self.entries[index as usize].generation,
        }
    }

    /// Takes the oldest waiter.
    pub(super) fn pop(&mut self) -> Option<(WaiterId, Waiter)> {
        let entry = self.entries.get(self.head as usize)?;
        let id = WaiterId {
            index: self.head,
            generation: entry.generation,
        };
        let waiter = entry.waiter;
        self.unlink(id.index);
        Some((id, waiter))
    }

    /// Takes this waiter out of the line; `false` if it is no longer in it.
    pub(super) fn remove(&mut self, id: WaiterId) -> bool {
        let queued = |entry: &Entry| entry.queued && entry.generation == id.generation;
        if !self.entries.get(id.index as usize).is_some_and(queued) {
            return false;
        }
        self.unlink(id.index);
        true
    }

    /// How many stand before this waiter; none before one that is no longer in the line.
    pub(super) fn ahead_of(&self, id: WaiterId) -> u32 {
        let queued = |entry: &&Entry| entry.queued && entry.generation == id.generation;
        let mut ahead = 0;
        let mut entry = self.entries.get(id.index as usize).filter(queued);
        while let Some(before) = entry.and_then(|entry| self.entries.get(entry.prev as usize)) {
            (ahead, entry) = (ahead + 1, Some(before));
        }
        ahead
    }

    /// The entry that a waiter with this ticket stands in front of.
    fn place_of(&self, ticket: u64) -> u32 {
        if self.tail == NONE || self.entries[self.tail as usize].waiter.ticket < ticket {
            return NONE;
        }
        let mut index = self.head;
        while index != NONE && self.entries[index as usize].waiter.ticket < ticket {
            index = self.entries[index as usize].next;
        }
        index
    }

    fn allot(&mut self, waiter: Waiter, prev: u32, next: u32) -> u32 {
        if self.spare == NONE {
            let index = self.entries.len() as u32;
            self.entries.push(Entry {
                generation: 0,
                queued: true,
                prev,
                next,
                waiter,
            });
            return index;
        }
        let index = self.spare;
        let entry = &mut self.entries[index as usize];
        self.spare = entry.next;
        *entry = Entry {
            generation: entry.generation,
            queued: true,
            prev,
            next,
            waiter,
        };
        index
    }

    fn unlink(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let (prev, next) = (entry.prev, entry.next);
        entry.queued = false;
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = self.spare;
        self.spare = index;
        if prev == NONE {
            self.head = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next == NONE {
            self.tail = prev;
        } else {
            self.entries[next as usize].prev = prev;
        }
        self.len -= 1;
    }

    /// Every link agrees with its neighbour, tickets ascend, and each entry is either queued or spare.
    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self) {
        let (mut index, mut prev, mut seen, mut last) = (self.head, NONE, 0, None);
        while index != NONE {
            let entry = &self.entries[index as usize];
            assert!(entry.queued, "entry {index} is linked but not queued");
            assert_eq!(entry.prev, prev, "entry {index} points back wrongly");
            assert!(
                last < Some(entry.waiter.ticket),
                "tickets do not ascend at entry {index}"
            );
            (last, prev, index) = (Some(entry.waiter.ticket), index, entry.next);
            seen += 1;
            assert!(seen <= self.len, "more waiters are linked than counted");
        }
        assert_eq!(prev, self.tail, "the tail is not the last entry");
        assert_eq!(seen, self.len, "fewer waiters are linked than counted");
        let (mut spare, mut spares) = (self.spare, 0);
        while spare != NONE {
            assert!(
                !self.entries[spare as usize].queued,
                "entry {spare} is spare and queued"
            );
            spare = self.entries[spare as usize].next;
            spares += 1;
        }
        assert_eq!(seen + spares, self.entries.len() as u32, "an entry is in no list");
    }
}

/// End of a list. No index reaches it: the slab would not fit into memory.
const NONE: u32 = u32::MAX;
