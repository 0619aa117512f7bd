//! Locks: on tables, rows, transactions and numbers; who holds them, who waits, who waits in a circle.
//!
//! Asked by everything that reads or changes rows. A plain machine. It never makes anybody wait: it says who stands in the way,
//! remembers who waits for what, and names those whose wait may be over.

use std::collections::BTreeMap;

use super::ast::RowLock;

/// The modes of a table's lock, from the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableLock {
    AccessShare,
    RowShare,
    RowExclusive,
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    Exclusive,
    AccessExclusive,
}

impl TableLock {
    pub(crate) const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    /// Its name in LOCK TABLE.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::AccessShare => "access share",
            Self::RowShare => "row share",
            Self::RowExclusive => "row exclusive",
            Self::ShareUpdateExclusive => "share update exclusive",
            Self::Share => "share",
            Self::ShareRowExclusive => "share row exclusive",
            Self::Exclusive => "exclusive",
            Self::AccessExclusive => "access exclusive",
        }
    }

    /// Its name in `pg_locks`.
    fn shown(self) -> &'static str {
        match self {
            Self::AccessShare => "AccessShareLock",
            Self::RowShare => "RowShareLock",
            Self::RowExclusive => "RowExclusiveLock",
            Self::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            Self::Share => "ShareLock",
            Self::ShareRowExclusive => "ShareRowExclusiveLock",
            Self::Exclusive => "ExclusiveLock",
            Self::AccessExclusive => "AccessExclusiveLock",
        }
    }

    /// Manual, table 13.2.
    fn conflicts(self, other: Self) -> bool {
        let with: &[Self] = match self {
            Self::AccessShare => &Self::ALL[7..],
            Self::RowShare => &Self::ALL[6..],
            Self::RowExclusive => &Self::ALL[4..],
            Self::ShareUpdateExclusive => &Self::ALL[3..],
            Self::Share => return !matches!(other, Self::AccessShare | Self::RowShare | Self::Share),
            Self::ShareRowExclusive => &Self::ALL[2..],
            Self::Exclusive => &Self::ALL[1..],
            Self::AccessExclusive => &Self::ALL,
        };
        with.contains(&other)
    }
}

/// What can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    /// A number, or two numbers that were given apart.
    Advisory {
        database: u32,
        key: i64,
        pair: bool,
    },
    Row {
        table: u32,
        row: u64,
    },
    Table(u32),
    /// Everybody who changes anything holds its own transaction's.
    Transaction(u64),
}

/// How it is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Exclusive,
    Row(RowLock),
    Share,
    Table(TableLock),
}

impl Mode {
    fn conflicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Table(a), Self::Table(b)) => a.conflicts(b),
            (Self::Row(a), Self::Row(b)) => {
                // Manual, table 13.3.
                let (low, high) = (a.min(b), a.max(b));
                match high {
                    RowLock::Update => true,
                    RowLock::NoKeyUpdate => low >= RowLock::Share,
                    RowLock::Share | RowLock::KeyShare => false,
                }
            }
            (Self::Share, Self::Share) => false,
            _ => true,
        }
    }

    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Exclusive => "ExclusiveLock",
            Self::Row(_) | Self::Share => "ShareLock",
            Self::Table(mode) => mode.shown(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Holding {
    pid: i32,
    mode: Mode,
    /// Taken by a session for itself, so that it outlives the transaction; how often.
    session: u32,
    /// Taken by the transaction.
    transaction: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    resource: Resource,
    mode: Mode,
    /// Who came first.
    ordinal: u64,
}

/// One line of `pg_locks`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) pid: i32,
    pub(crate) resource: Resource,
    pub(crate) mode: Mode,
    pub(crate) granted: bool,
}

/// All locks of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    held: BTreeMap<Resource, Vec<Holding>>,
    /// What each transaction has, in the order in which it got it.
    owned: BTreeMap<i32, Vec<(Resource, Mode)>>,
    waiters: BTreeMap<i32, Waiter>,
    ordinal: u64,
    wakes: Vec<i32>,
}

impl Locks {
    /// Takes a lock until the transaction ends, or says who stands in the way.
    pub(crate) fn acquire(&mut self, pid: i32, resource: Resource, mode: Mode) -> Result<(), Vec<i32>> {
        let holdings = self.held.get(&resource).map_or(&[][..], Vec::as_slice);
        let mine = |holding: &&Holding| holding.pid == pid && holding.mode == mode;
        if holdings.iter().find(mine).is_some_and(|holding| holding.transaction) {
            return Ok(());
        }
        let blockers = self.blockers(pid, resource, mode);
        if !blockers.is_empty() {
            return Err(blockers);
        }
        self.hold(pid, resource, mode).transaction = true;
        self.owned.entry(pid).or_default().push((resource, mode));
        Ok(())
    }

    /// Takes a lock until the session gives it back, once more if it has it already.
    pub(crate) fn acquire_for_session(&mut self, pid: i32, resource: Resource, mode: Mode) -> Result<(), Vec<i32>> {
        let blockers = self.blockers(pid, resource, mode);
        if !blockers.is_empty() {
            return Err(blockers);
        }
        self.hold(pid, resource, mode).session += 1;
        Ok(())
    }

    fn hold(&mut self, pid: i32, resource: Resource, mode: Mode) -> &mut Holding {
        let holdings = self.held.entry(resource).or_default();
        let at = holdings
            .iter()
            .position(|holding| holding.pid == pid && holding.mode == mode);
        let at = at.unwrap_or_else(|| {
            holdings.push(Holding {
                pid,
                mode,
                session: 0,
                transaction: false,
            });
            holdings.len() - 1
        });
        &mut holdings[at]
    }

    /// Who holds, or waits ahead for, what conflicts with this.
    pub(crate) fn blockers(&self, pid: i32, resource: Resource, mode: Mode) -> Vec<i32> {
        let holdings = self.held.get(&resource).map_or(&[][..], Vec::as_slice);
        let mut blockers: Vec<i32> = Vec::new();
        for holding in holdings {
            if holding.pid != pid && holding.mode.conflicts(mode) && !blockers.contains(&holding.pid) {
                blockers.push(holding.pid);
            }
        }
        if self.waiters.is_empty() {
            return blockers;
        }
        let ordinal = match self.waiters.get(&pid) {
            Some(waiter) if waiter.resource == resource => waiter.ordinal,
            _ => u64::MAX,
        };
        for (other, waiter) in &self.waiters {
            let ahead = *other != pid && waiter.resource == resource && waiter.ordinal < ordinal;
            // Who already holds what that waiter waits for goes before it.
            let before = || {
                holdings
                    .iter()
                    .any(|mine| mine.pid == pid && mine.mode.conflicts(waiter.mode))
            };
            if ahead && waiter.mode.conflicts(mode) && !blockers.contains(other) && !before() {
                blockers.push(*other);
            }
        }
        blockers
    }

    /// Gives back one session lock; whether there was one.
    pub(crate) fn release_from_session(&mut self, pid: i32, resource: Resource, mode: Mode) -> bool {
        let Some(holdings) = self.held.get_mut(&resource) else {
            return false;
        };
        let found = holdings
            .iter_mut()
            .find(|holding| holding.pid == pid && holding.mode == mode && holding.session > 0);
        let Some(holding) = found else {
            return false;
        };
        holding.session -= 1;
        self.sweep(resource);
        true
    }

    /// Gives back all session locks.
    pub(crate) fn release_session(&mut self, pid: i32) {
        let mut touched = Vec::new();
        for (resource, holdings) in &mut self.held {
            for holding in holdings
                .iter_mut()
                .filter(|holding| holding.pid == pid && holding.session > 0)
            {
                holding.session = 0;
                touched.push(*resource);
            }
        }
        for resource in touched {
            self.sweep(resource);
        }
    }

    /// How many locks the transaction has: a mark for [`Locks::release_after`].
    pub(crate) fn mark(&self, pid: i32) -> usize {
        self.owned.get(&pid).map_or(0, Vec::len)
    }

    /// Gives back what the transaction took after the mark.
    pub(crate) fn release_after(&mut self, pid: i32, mark: usize) {
        let Some(owned) = self.owned.get_mut(&pid) else { return };
        let released = owned.split_off(mark.min(owned.len()));
        if owned.is_empty() {
            self.owned.remove(&pid);
        }
        for (resource, mode) in released {
            if let Some(holdings) = self.held.get_mut(&resource)
                && let Some(holding) = holdings
                    .iter_mut()
                    .find(|holding| holding.pid == pid && holding.mode == mode)
            {
                holding.transaction = false;
            }
            self.sweep(resource);
        }
    }

    /// Forgets holdings nobody has any more, and wakes those who wait for the resource.
    fn sweep(&mut self, resource: Resource) {
        if let Some(holdings) = self.held.get_mut(&resource) {
            holdings.retain(|holding| holding.transaction || holding.session > 0);
            if holdings.is_empty() {
                self.held.remove(&resource);
            }
        }
        self.wake(resource);
    }

    fn wake(&mut self, resource: Resource) {
        if self.waiters.is_empty() {
            return;
        }
        let mut woken: Vec<(u64, i32)> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.resource == resource)
            .map(|(pid, waiter)| (waiter.ordinal, *pid))
            .collect();
        woken.sort_unstable();
        for (_, pid) in woken {
            if !self.wakes.contains(&pid) {
                self.wakes.push(pid);
            }
        }
    }

    /// Notes that a session waits; its place in the queue stays while it waits for the same.
    pub(crate) fn wait(&mut self, pid: i32, resource: Resource, mode: Mode) {
        match self.waiters.get_mut(&pid) {
            Some(waiter) if waiter.resource == resource => waiter.mode = mode,
            _ => {
                self.stop_waiting(pid);
                self.ordinal += 1;
                let ordinal = self.ordinal;
                self.waiters.insert(
                    pid,
                    Waiter {
                        resource,
                        mode,
                        ordinal,
                    },
                );
            }
        }
    }

    /// Notes that it does not wait any more; those behind it may go on.
    pub(crate) fn stop_waiting(&mut self, pid: i32) {
        if let Some(waiter) = self.waiters.remove(&pid) {
            self.wakes.retain(|woken| *woken != pid);
            self.wake(waiter.resource);
        }
    }

    /// Those whose wait may be over, in the order in which they came.
    pub(crate) fn take_wakes(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.wakes)
    }

    /// Who keeps this session waiting.
    pub(crate) fn blocking(&self, pid: i32) -> Vec<i32> {
        self.waiters
            .get(&pid)
            .map_or_else(Vec::new, |waiter| self.blockers(pid, waiter.resource, waiter.mode))
    }

    /// The circle of waits through `pid`: each waits for the next one, the last for the first.
    pub(crate) fn circle(&self, pid: i32) -> Option<Vec<(i32, Resource, Mode)>> {
        let mut path = Vec::new();
        let mut seen = Vec::new();
        self.search(pid, pid, &mut path, &mut seen).then_some(path)
    }

    fn search(&self, pid: i32, wanted: i32, path: &mut Vec<(i32, Resource, Mode)>, seen: &mut Vec<i32>) -> bool {
        let Some(waiter) = self.waiters.get(&pid) else {
            return false;
        };
        path.push((pid, waiter.resource, waiter.mode));
        for blocker in self.blockers(pid, waiter.resource, waiter.mode) {
            if blocker == wanted {
                return true;
            }
            if !seen.contains(&blocker) {
                seen.push(blocker);
                if self.search(blocker, wanted, path, seen) {
                    return true;
                }
            }
        }
        path.pop();
        false
    }

    /// Who holds the transaction's own lock.
    pub(crate) fn holders(&self, resource: Resource) -> Vec<i32> {
        let holdings = self.held.get(&resource).map_or(&[][..], Vec::as_slice);
        holdings.iter().map(|holding| holding.pid).collect()
    }

    /// The sessions that have any lock on a table.
    pub(crate) fn users_of_table(&self, table: u32) -> Vec<i32> {
        self.holders(Resource::Table(table))
    }

    /// What `pg_locks` shows; row locks are not in it, as they are not in PostgreSQL's.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (resource, holdings) in &self.held {
            if !matches!(resource, Resource::Row { .. }) {
                lines.extend(holdings.iter().map(|holding| Line {
                    pid: holding.pid,
                    resource: *resource,
                    mode: holding.mode,
                    granted: true,
                }));
            }
        }
        lines.extend(self.waiters.iter().map(|(pid, waiter)| Line {
            pid: *pid,
            resource: waiter.resource,
            mode: waiter.mode,
            granted: false,
        }));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Resource = Resource::Row { table: 1, row: 1 };

    #[test]
    fn waiters_are_woken_in_their_order_and_nobody_overtakes() {
        let mut locks = Locks::default();
        let update = Mode::Row(RowLock::Update);
        locks.acquire(1, ROW, update).expect("free");
        assert_eq!(locks.acquire(2, ROW, update), Err(vec![1]));
        locks.wait(2, ROW, update);
        assert_eq!(locks.acquire(3, ROW, update), Err(vec![1, 2]));
        locks.wait(3, ROW, update);
        locks.release_after(1, 0);
        assert_eq!(locks.take_wakes(), [2, 3]);
        assert_eq!(locks.acquire(3, ROW, update), Err(vec![2]), "2 came first");
        locks.acquire(2, ROW, update).expect("its turn");
    }

    #[test]
    fn weak_row_locks_go_together() {
        let mut locks = Locks::default();
        locks.acquire(1, ROW, Mode::Row(RowLock::NoKeyUpdate)).expect("free");
        locks.acquire(2, ROW, Mode::Row(RowLock::KeyShare)).expect("together");
        assert!(locks.acquire(3, ROW, Mode::Row(RowLock::Share)).is_err());
    }

    #[test]
    fn circles_are_found() {
        let mut locks = Locks::default();
        let other = Resource::Table(7);
        let whole = Mode::Table(TableLock::AccessExclusive);
        locks.acquire(1, ROW, Mode::Row(RowLock::Update)).expect("free");
        locks.acquire(2, other, whole).expect("free");
        locks.wait(1, other, whole);
        assert!(locks.circle(1).is_none());
        locks.wait(2, ROW, Mode::Row(RowLock::Update));
        let pids: Vec<i32> = locks
            .circle(2)
            .expect("a circle")
            .iter()
            .map(|(pid, ..)| *pid)
            .collect();
        assert_eq!(pids, [2, 1]);
    }

    #[test]
    fn session_locks_are_counted_and_outlive_transactions() {
        let mut locks = Locks::default();
        let key = Resource::Advisory {
            database: 5,
            key: 1,
            pair: false,
        };
        locks.acquire_for_session(1, key, Mode::Exclusive).expect("free");
        locks.acquire_for_session(1, key, Mode::Exclusive).expect("again");
        locks.release_after(1, 0);
        assert!(locks.release_from_session(1, key, Mode::Exclusive));
        assert!(!locks.blockers(2, key, Mode::Share).is_empty());
        locks.release_session(1);
        assert!(locks.blockers(2, key, Mode::Share).is_empty());
    }
}
