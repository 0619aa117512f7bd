//! The model's transactions: begin, commit, rollback, savepoints, failure, and what a commit makes real.
//!
//! The second half of `Model`; the first holds what a session collects.

use std::collections::BTreeMap;

use super::model::{Durable, Model, Reply};
use super::statement::Statement;
use crate::wire::Report;

#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) explicit: bool,
    pub(crate) failed: bool,
    pub(crate) read_only: bool,
    pub(crate) saved: Durable,
    pub(crate) savepoints: Vec<Savepoint>,
    /// Values to restore at commit, behind SET LOCAL.
    pub(crate) locals: BTreeMap<String, String>,
    /// `None` is UNLISTEN *; else the channel and whether to listen.
    pub(crate) listens: Vec<Option<(String, bool)>>,
    pub(crate) notifies: Vec<(String, String)>,
    pub(crate) locks: usize,
    /// Statements that wrote, which a commit keeps.
    pub(crate) writes: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Savepoint {
    name: String,
    saved: Durable,
    listens: usize,
    notifies: usize,
    writes: usize,
}

impl Model {
    /// `I`, `T` or `E`.
    pub(crate) fn status(&self) -> u8 {
        match &self.transaction {
            Some(transaction) if transaction.explicit && transaction.failed => b'E',
            Some(transaction) if transaction.explicit => b'T',
            _ => b'I',
        }
    }

    /// Whether no transaction is open, not even an implicit one.
    pub(crate) fn is_outside(&self) -> bool {
        self.transaction.is_none()
    }

    /// Starts the implicit transaction of a statement, unless one is open.
    pub(crate) fn enter(&mut self) {
        if self.transaction.is_none() {
            self.open(false);
        }
    }

    /// Whether the statement may run now: failed and read-only transactions refuse.
    pub(crate) fn admit(&self, statement: Option<&Statement>, write: Option<&str>) -> Result<(), Report> {
        if self.status() == b'E' && !statement.is_some_and(Statement::ends_transaction) {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Report::error("25P02", text));
        }
        let read_only = self
            .transaction
            .as_ref()
            .map_or(self.reads_only(), |transaction| transaction.read_only);
        match write {
            Some(command) if read_only => Err(Report::error(
                "25006",
                format!("cannot execute {command} in a read-only transaction"),
            )),
            _ => Ok(()),
        }
    }

    /// A statement wrote; its text stands for what it did.
    pub(crate) fn wrote(&mut self, sql: &str) {
        if let Some(transaction) = &mut self.transaction {
            transaction.writes.push(sql.to_owned());
        }
    }

    /// An error happened: an explicit transaction fails, an implicit one is rolled back.
    pub(crate) fn fail(&mut self) {
        match &mut self.transaction {
            Some(transaction) if transaction.explicit => {
                transaction.failed = true;
                self.portals.clear();
            }
            Some(_) => self.rollback(),
            None => {}
        }
    }

    /// The end of a simple query or a Sync: an implicit transaction commits.
    pub(crate) fn finish_implicit(&mut self) {
        if self
            .transaction
            .as_ref()
            .is_some_and(|transaction| !transaction.explicit)
        {
            self.commit();
        }
    }

    pub(crate) fn begin(&mut self, start: bool, read_only: Option<bool>) -> Result<Reply, Report> {
        if self.status() != b'I' {
            self.warn("25001", "there is already a transaction in progress");
        }
        if self.transaction.is_none() {
            self.open(true);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.explicit = true;
        }
        self.set_read_only(read_only)?;
        Ok(Reply::Tag(if start { "START TRANSACTION" } else { "BEGIN" }))
    }

    pub(crate) fn set_transaction(&mut self, read_only: Option<bool>) -> Result<&'static str, Report> {
        if self.status() == b'I' {
            self.warn("25P01", "SET TRANSACTION can only be used in transaction blocks");
        }
        self.set_read_only(read_only)?;
        Ok("SET")
    }

    pub(crate) fn end_block(&mut self, commit: bool, chain: bool) -> Result<Reply, Report> {
        let status = self.status();
        if status == b'I' {
            if chain {
                let verb = if commit { "COMMIT" } else { "ROLLBACK" };
                let text = format!("{verb} AND CHAIN can only be used in transaction blocks");
                return Err(Report::error("25P01", text));
            }
            self.warn("25P01", "there is no transaction in progress");
        }
        let read_only = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.read_only);
        let commits = commit && status != b'E';
        if commits {
            self.commit();
        } else {
            self.rollback();
        }
        if chain {
            self.open(true);
            self.set_read_only(Some(read_only))?;
        }
        Ok(Reply::Tag(if commits { "COMMIT" } else { "ROLLBACK" }))
    }

    pub(crate) fn savepoint(&mut self, statement: &Statement) -> Result<Reply, Report> {
        let explicit = self.status() != b'I';
        let durable = self.durable.clone();
        let (command, tag, name) = match statement {
            Statement::Savepoint(name) => ("SAVEPOINT", "SAVEPOINT", name),
            Statement::Release(name) => ("RELEASE SAVEPOINT", "RELEASE", name),
            Statement::RollbackTo(name) => ("ROLLBACK TO SAVEPOINT", "ROLLBACK", name),
            _ => return Ok(Reply::Empty),
        };
        let Some(transaction) = self.transaction.as_mut().filter(|_| explicit) else {
            return Err(Report::error(
                "25P01",
                format!("{command} can only be used in transaction blocks"),
            ));
        };
        if tag == "SAVEPOINT" {
            let (listens, notifies) = (transaction.listens.len(), transaction.notifies.len());
            let writes = transaction.writes.len();
            transaction.savepoints.push(Savepoint {
                name: name.clone(),
                saved: durable,
                listens,
                notifies,
                writes,
            });
            return Ok(Reply::Tag(tag));
        }
        let Some(place) = transaction
            .savepoints
            .iter()
            .rposition(|savepoint| savepoint.name == *name)
        else {
            return Err(Report::error("3B001", format!("savepoint \"{name}\" does not exist")));
        };
        if tag == "RELEASE" {
            transaction.savepoints.truncate(place);
        } else {
            transaction.savepoints.truncate(place + 1);
            transaction.failed = false;
            let savepoint = &transaction.savepoints[place];
            transaction.listens.truncate(savepoint.listens);
            transaction.notifies.truncate(savepoint.notifies);
            transaction.writes.truncate(savepoint.writes);
            self.durable = savepoint.saved.clone();
        }
        Ok(Reply::Tag(tag))
    }

    fn commit(&mut self) {
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        self.durable.settings.extend(transaction.locals);
        self.durable.cursors.retain(|_, hold| *hold);
        for operation in transaction.listens {
            match operation {
                None => self.listens.clear(),
                Some((channel, true)) => {
                    self.listens.insert(channel);
                }
                Some((channel, false)) => {
                    self.listens.remove(&channel);
                }
            }
        }
        self.outgoing.extend(transaction.notifies);
        self.committed.extend(transaction.writes);
        self.release_transaction_locks(transaction.locks);
        self.portals.clear();
    }

    pub(crate) fn rollback(&mut self) {
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        self.durable = transaction.saved;
        self.release_transaction_locks(transaction.locks);
        self.portals.clear();
    }

    fn open(&mut self, explicit: bool) {
        self.transaction = Some(Transaction {
            explicit,
            failed: false,
            read_only: self.reads_only(),
            saved: self.durable.clone(),
            savepoints: Vec::new(),
            locals: BTreeMap::new(),
            listens: Vec::new(),
            notifies: Vec::new(),
            locks: 0,
            writes: Vec::new(),
        });
    }

    fn set_read_only(&mut self, read_only: Option<bool>) -> Result<(), Report> {
        if read_only == Some(false) && self.in_standby() {
            return Err(Report::error(
                "0A000",
                "cannot set transaction read-write mode during recovery",
            ));
        }
        if let (Some(transaction), Some(read_only)) = (&mut self.transaction, read_only) {
            transaction.read_only = read_only;
        }
        Ok(())
    }

    /// Transaction-level locks carry a mark in front of their key.
    fn release_transaction_locks(&mut self, count: usize) {
        if count > 0 {
            self.locks.retain(|key| !key.starts_with('t'));
        }
    }
}
