//! Row versions: which transactions made and ended them, who sees which, and the indexes that find them.
//!
//! Under the catalog's tables. A plain machine. It never waits: what is in progress is reported as such.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::types::datum::Datum;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Aborted,
    /// Its place in the order of commits on this node.
    Committed(u64),
    InProgress,
}

/// All transactions of a node.
#[derive(Clone, Debug)]
pub(crate) struct Transactions {
    first: u64,
    fates: Vec<Fate>,
    /// Commits so far.
    commits: u64,
}

/// The first number a new node gives to a transaction.
const FIRST_XID: u64 = 740;

impl Transactions {
    pub(crate) fn new() -> Self {
        Self {
            first: FIRST_XID,
            fates: Vec::new(),
            commits: 0,
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.first + self.fates.len() as u64
    }

    pub(crate) fn begin(&mut self) -> u64 {
        self.fates.push(Fate::InProgress);
        self.next() - 1
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Transactions from before the first one are committed.
    pub(crate) fn fate(&self, xid: u64) -> Fate {
        match xid.checked_sub(self.first) {
            None => Fate::Committed(0),
            Some(at) => usize::try_from(at)
                .ok()
                .and_then(|at| self.fates.get(at).copied())
                .unwrap_or(Fate::InProgress),
        }
    }

    pub(crate) fn commit(&mut self, xid: u64) {
        self.commits += 1;
        let fate = Fate::Committed(self.commits);
        self.set(xid, fate);
    }

    pub(crate) fn abort(&mut self, xid: u64) {
        self.set(xid, Fate::Aborted);
    }

    /// On a standby numbers come from the log, not always in order.
    fn set(&mut self, xid: u64, fate: Fate) {
        while self.next() <= xid {
            self.fates.push(Fate::InProgress);
        }
        if let Some(at) = xid.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) {
            self.fates[at] = fate;
        }
    }

    fn committed_by(&self, xid: u64, commits: u64) -> bool {
        matches!(self.fate(xid), Fate::Committed(at) if at <= commits)
    }

    /// Whether the version is there for this view.
    pub(crate) fn sees(&self, view: View, version: &Version) -> bool {
        let made = if version.made_by == view.own {
            version.made_at < view.command
        } else {
            self.committed_by(version.made_by, view.commits)
        };
        made && !self.is_ended(view, version)
    }

    fn is_ended(&self, view: View, version: &Version) -> bool {
        match version.ended_by {
            0 => false,
            xid if xid == view.own => version.ended_at < view.command,
            xid => self.committed_by(xid, view.commits),
        }
    }
}

/// What a statement sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// How many commits.
    pub(crate) commits: u64,
    /// The own transaction's number, 0 for none.
    pub(crate) own: u64,
    /// Its own changes before this command.
    pub(crate) command: u32,
}

/// One state of a row.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) made_by: u64,
    pub(crate) made_at: u32,
    /// 0 for none.
    pub(crate) ended_by: u64,
    pub(crate) ended_at: u32,
    pub(crate) data: Arc<[Datum]>,
}

/// The rows of a table and its indexes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heap {
    pub(crate) rows: BTreeMap<u64, Vec<Version>>,
    next_row: u64,
    /// By the index's OID: its columns, and which rows have or had a key.
    indexes: BTreeMap<u32, Index>,
}

#[derive(Clone, Debug)]
struct Index {
    columns: Vec<usize>,
    keys: BTreeMap<Vec<Datum>, Vec<u64>>,
}

impl Heap {
    /// The same shape without rows.
    pub(crate) fn emptied(&self) -> Self {
        let index = |index: &Index| Index {
            columns: index.columns.clone(),
            keys: BTreeMap::new(),
        };
        Self {
            rows: BTreeMap::new(),
            next_row: self.next_row,
            indexes: self.indexes.iter().map(|(oid, found)| (*oid, index(found))).collect(),
        }
    }

    pub(crate) fn add_index(&mut self, oid: u32, columns: Vec<usize>) {
        let mut index = Index {
            columns,
            keys: BTreeMap::new(),
        };
        for (row, versions) in &self.rows {
            for version in versions {
                index.add(*row, &version.data);
            }
        }
        self.indexes.insert(oid, index);
    }

    pub(crate) fn remove_index(&mut self, oid: u32) {
        self.indexes.remove(&oid);
    }

    pub(crate) fn index_oids(&self) -> Vec<u32> {
        self.indexes.keys().copied().collect()
    }

    /// Rows of which some version has the key.
    pub(crate) fn lookup(&self, index: u32, key: &[Datum]) -> &[u64] {
        self.indexes
            .get(&index)
            .and_then(|index| index.keys.get(key))
            .map_or(&[], Vec::as_slice)
    }

    /// A new row; its number.
    pub(crate) fn insert(&mut self, xid: u64, command: u32, data: Arc<[Datum]>) -> u64 {
        self.next_row += 1;
        self.put(self.next_row, xid, command, data);
        self.next_row
    }

    /// A version of a row whose number is known.
    pub(crate) fn put(&mut self, row: u64, xid: u64, command: u32, data: Arc<[Datum]>) {
        self.next_row = self.next_row.max(row);
        for index in self.indexes.values_mut() {
            index.add(row, &data);
        }
        self.rows.entry(row).or_default().push(Version {
            made_by: xid,
            made_at: command,
            ended_by: 0,
            ended_at: 0,
            data,
        });
    }

    /// Ends the newest version of a row.
    pub(crate) fn end(&mut self, row: u64, xid: u64, command: u32) {
        if let Some(version) = self.rows.get_mut(&row).and_then(|versions| versions.last_mut()) {
            version.ended_by = xid;
            version.ended_at = command;
        }
    }

    /// Takes back [`Heap::end`].
    pub(crate) fn revive(&mut self, row: u64) {
        self.end(row, 0, 0);
    }

    /// Takes back the newest version of a row.
    pub(crate) fn unmake(&mut self, row: u64) {
        let Some(versions) = self.rows.get_mut(&row) else {
            return;
        };
        let gone = versions.pop();
        self.forget(row, gone.as_slice());
    }

    /// Drops versions that ended before anybody's view.
    pub(crate) fn prune(&mut self, row: u64, transactions: &Transactions, oldest: u64) {
        let Some(versions) = self.rows.get_mut(&row) else {
            return;
        };
        let dead = |version: &Version| version.ended_by != 0 && transactions.committed_by(version.ended_by, oldest);
        if !versions.iter().any(dead) {
            return;
        }
        let (gone, kept): (Vec<Version>, Vec<Version>) = std::mem::take(versions).into_iter().partition(dead);
        *versions = kept;
        self.forget(row, &gone);
    }

    /// Takes keys out of the indexes that no version has any more, and the row if it has none.
    fn forget(&mut self, row: u64, gone: &[Version]) {
        let left = self.rows.get(&row).map_or(&[][..], Vec::as_slice);
        for index in self.indexes.values_mut() {
            for version in gone {
                let key = index.key(&version.data);
                if left.iter().any(|version| index.key(&version.data) == key) {
                    continue;
                }
                if let Some(rows) = index.keys.get_mut(&key) {
                    rows.retain(|other| *other != row);
                    if rows.is_empty() {
                        index.keys.remove(&key);
                    }
                }
            }
        }
        if left.is_empty() {
            self.rows.remove(&row);
        }
    }

    /// Changes the data of all versions alike, as a rewrite of the table does.
    pub(crate) fn rewrite(&mut self, mut change: impl FnMut(&[Datum]) -> Arc<[Datum]>) {
        for versions in self.rows.values_mut() {
            for version in versions {
                version.data = change(&version.data);
            }
        }
        let indexes: Vec<(u32, Vec<usize>)> = self
            .indexes
            .iter()
            .map(|(oid, index)| (*oid, index.columns.clone()))
            .collect();
        for (oid, columns) in indexes {
            self.add_index(oid, columns);
        }
    }

    /// The version of a row that a view sees.
    pub(crate) fn visible<'a>(&'a self, row: u64, transactions: &Transactions, view: View) -> Option<&'a Version> {
        let versions = self.rows.get(&row)?;
        versions.iter().rev().find(|version| transactions.sees(view, version))
    }
}

impl Index {
    fn key(&self, data: &[Datum]) -> Vec<Datum> {
        self.columns
            .iter()
            .map(|at| data.get(*at).cloned().unwrap_or(Datum::Null))
            .collect()
    }

    fn add(&mut self, row: u64, data: &[Datum]) {
        let rows = self.keys.entry(self.key(data)).or_default();
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: i32) -> Arc<[Datum]> {
        Arc::from([Datum::Int4(value)])
    }

    #[test]
    fn a_view_sees_what_was_committed_before_it_and_its_own_earlier_commands() {
        let mut transactions = Transactions::new();
        let mut heap = Heap::default();
        heap.add_index(1, vec![0]);
        let first = transactions.begin();
        let number = heap.insert(first, 0, row(1));
        let before = View {
            commits: transactions.commits(),
            own: 0,
            command: 0,
        };
        transactions.commit(first);
        let after = View {
            commits: transactions.commits(),
            own: 0,
            command: 0,
        };
        assert!(heap.visible(number, &transactions, before).is_none());
        assert!(heap.visible(number, &transactions, after).is_some());

        let second = transactions.begin();
        heap.end(number, second, 0);
        heap.put(number, second, 0, row(2));
        let own = |command| View {
            commits: transactions.commits(),
            own: second,
            command,
        };
        let value = |view| {
            heap.visible(number, &transactions, view)
                .map(|version| version.data[0].clone())
        };
        assert_eq!(value(own(0)), Some(Datum::Int4(1)), "a command does not see itself");
        assert_eq!(value(own(1)), Some(Datum::Int4(2)));
        assert_eq!(value(after), Some(Datum::Int4(1)));
        assert_eq!(heap.lookup(1, &[Datum::Int4(1)]), [number]);

        heap.unmake(number);
        heap.revive(number);
        assert!(heap.lookup(1, &[Datum::Int4(2)]).is_empty());
        assert!(heap.visible(number, &transactions, after).is_some());
    }
}
