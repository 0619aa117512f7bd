//! Serializable transactions: who read what others wrote, and who must give way.
//!
//! Told of reads and writes by execution. A plain machine. It is serializable snapshot isolation in its first, simplest form: a
//! transaction with a dangerous edge in and one out is not allowed, whatever the commit order. It aborts more than PostgreSQL,
//! never less.

use std::collections::{BTreeMap, BTreeSet};

use super::types::datum::Datum;
use crate::wire::Report;

/// What a transaction has read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Read {
    /// The rows of a table that have a key in an index, also that there are none.
    Key(u32, u32, Vec<Datum>),
    Table(u32),
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// How many commits it sees.
    sees: u64,
    /// Its own place among the commits.
    committed: Option<u64>,
    reads: BTreeSet<Read>,
    /// Tables written to, and the keys of the rows by index.
    tables: BTreeSet<u32>,
    keys: BTreeSet<(u32, u32, Vec<Datum>)>,
    /// Somebody read what it overwrote; it read what somebody overwrote.
    edge_in: bool,
    edge_out: bool,
}

impl Entry {
    fn wrote_what(&self, read: &Read) -> bool {
        match read {
            Read::Table(table) => self.tables.contains(table),
            Read::Key(table, index, key) => self.keys.contains(&(*table, *index, key.clone())),
        }
    }
}

/// The serializable transactions in progress, and those that ended while others of them went on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serializable {
    entries: BTreeMap<u64, Entry>,
    next: u64,
}

impl Serializable {
    /// A new transaction that sees so many commits; its number here.
    pub(crate) fn begin(&mut self, sees: u64) -> u64 {
        self.next += 1;
        let entry = Entry {
            sees,
            ..Entry::default()
        };
        self.entries.insert(self.next, entry);
        self.next
    }

    pub(crate) fn read(&mut self, own: u64, read: Read) -> Result<(), Report> {
        let Some(sees) = self.entries.get(&own).map(|entry| entry.sees) else {
            return Ok(());
        };
        let others: Vec<u64> = self
            .entries
            .iter()
            .filter(|(other, entry)| **other != own && unseen(entry, sees) && entry.wrote_what(&read))
            .map(|(other, _)| *other)
            .collect();
        if let Some(entry) = self.entries.get_mut(&own) {
            entry.reads.insert(read);
        }
        others.into_iter().try_for_each(|writer| self.edge(own, writer))
    }

    pub(crate) fn write(&mut self, own: u64, table: u32, keys: Vec<(u32, Vec<Datum>)>) -> Result<(), Report> {
        let Some(entry) = self.entries.get_mut(&own) else {
            return Ok(());
        };
        let sees = entry.sees;
        entry.tables.insert(table);
        entry
            .keys
            .extend(keys.iter().map(|(index, key)| (table, *index, key.clone())));
        let overlaps = |read: &Read| match read {
            Read::Table(found) => *found == table,
            Read::Key(found, index, key) => {
                *found == table && keys.iter().any(|(other, written)| other == index && written == key)
            }
        };
        let readers: Vec<u64> = self
            .entries
            .iter()
            .filter(|(other, entry)| **other != own && unseen(entry, sees) && entry.reads.iter().any(overlaps))
            .map(|(other, _)| *other)
            .collect();
        readers.into_iter().try_for_each(|reader| self.edge(reader, own))
    }

    /// `reader` did not see what `writer` wrote.
    fn edge(&mut self, reader: u64, writer: u64) -> Result<(), Report> {
        if let Some(entry) = self.entries.get_mut(&reader) {
            entry.edge_out = true;
        }
        if let Some(entry) = self.entries.get_mut(&writer) {
            entry.edge_in = true;
        }
        let pivot = |number: &u64| {
            self.entries
                .get(number)
                .is_some_and(|entry| entry.edge_in && entry.edge_out)
        };
        if pivot(&reader) || pivot(&writer) {
            let message = "could not serialize access due to read/write dependencies among transactions";
            return Err(Report::error("40001", message)
                .detail("Reason code: Canceled on identification as a pivot, during conflict checking.")
                .hint("The transaction might succeed if retried."));
        }
        Ok(())
    }

    pub(crate) fn commit(&mut self, own: u64, at: u64) {
        if let Some(entry) = self.entries.get_mut(&own) {
            entry.committed = Some(at);
        }
        self.forget();
    }

    pub(crate) fn abort(&mut self, own: u64) {
        self.entries.remove(&own);
        self.forget();
    }

    /// Those that committed before all that are in progress began are of no concern any more.
    fn forget(&mut self) {
        let active = self.entries.values().filter(|entry| entry.committed.is_none());
        let oldest = active.map(|entry| entry.sees).min().unwrap_or(u64::MAX);
        self.entries
            .retain(|_, entry| entry.committed.is_none_or(|at| at > oldest));
    }
}

/// Whether a transaction that sees so many commits does not see that one's.
fn unseen(entry: &Entry, sees: u64) -> bool {
    entry.committed.is_none_or(|at| at > sees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_skew_is_refused_and_independent_work_is_not() {
        let mut all = Serializable::default();
        let (a, b, c) = (all.begin(0), all.begin(0), all.begin(0));
        all.read(a, Read::Table(1)).expect("a read");
        all.read(b, Read::Table(1)).expect("a read");
        all.read(c, Read::Table(2)).expect("a read");
        all.write(a, 1, Vec::new()).expect("the first edge");
        all.write(c, 2, Vec::new()).expect("nobody else is there");
        let report = all.write(b, 1, Vec::new()).expect_err("a circle");
        assert_eq!(report.sqlstate, "40001");
    }

    #[test]
    fn reads_by_key_meet_only_writes_of_that_key() {
        let mut all = Serializable::default();
        let (a, b) = (all.begin(0), all.begin(0));
        let key = |n| vec![Datum::Int4(n)];
        all.read(a, Read::Key(1, 9, key(1))).expect("a read");
        all.read(b, Read::Key(1, 9, key(2))).expect("a read");
        all.write(a, 1, vec![(9, key(1))]).expect("its own key");
        all.write(b, 1, vec![(9, key(2))]).expect("its own key");
    }
}
