//! Transaction blocks: BEGIN and its modes, COMMIT, ROLLBACK, savepoints, SET TRANSACTION, SET CONSTRAINTS.
//!
//! The verbs over `transaction`, called by `control`. A plain machine.

use super::ast::{self, Modes};
use super::configure::isolation_name;
use super::control::plain;
use super::door::{Completion, Moment};
use super::execute::Stop;
use super::run::Answer;
use super::session::{Kind, Savepoint, Transaction};
use super::{Engine, Statement};
use crate::wire::Report;

impl Engine {
    /// Carries out a verb of transaction blocks; `None` if the statement is none.
    pub(super) fn block_verb(&mut self, pid: i32, statement: &Statement, at: Moment) -> Result<Option<Answer>, Stop> {
        use ast::Statement as S;
        let tag = match &statement.parsed {
            S::Begin(modes) => {
                self.begin_block(pid, *modes)?;
                let word = statement.text.get(..5).unwrap_or_default();
                if word.eq_ignore_ascii_case("start") {
                    "START TRANSACTION"
                } else {
                    "BEGIN"
                }
            }
            S::Commit { chain } => return self.commit_block(pid, *chain, at).map(Some),
            S::Rollback { chain } => {
                self.rollback_block(pid, *chain, at);
                return Ok(Some(Answer::Done(self.ended(pid, "ROLLBACK"))));
            }
            S::Savepoint(name) => {
                self.savepoint(pid, name)?;
                "SAVEPOINT"
            }
            S::Release(name) => {
                self.release(pid, name)?;
                "RELEASE"
            }
            S::RollbackTo(name) => {
                self.rollback_to(pid, name)?;
                "ROLLBACK"
            }
            S::SetTransaction { session, modes } => {
                self.set_transaction(pid, *session, *modes)?;
                "SET"
            }
            S::SetConstraints { names, deferred } => {
                self.set_constraints(pid, names, *deferred, at)?;
                "SET CONSTRAINTS"
            }
            _ => return Ok(None),
        };
        Ok(Some(Answer::Done(plain(tag))))
    }

    pub(super) fn transaction(&mut self, pid: i32) -> Option<&mut Transaction> {
        self.session_mut(pid).transaction.as_mut()
    }

    pub(super) fn kind(&self, pid: i32) -> Option<Kind> {
        self.session(pid)
            .transaction
            .as_ref()
            .map(|transaction| transaction.kind)
    }

    /// The answer to a transaction's end.
    pub(super) fn ended(&self, pid: i32, tag: &str) -> Completion {
        Completion {
            facts: self.facts(pid),
            ..plain(tag)
        }
    }

    pub(super) fn begin_block(&mut self, pid: i32, modes: Modes) -> Result<(), Stop> {
        if self.kind(pid) == Some(Kind::Block) {
            let notice = Report::warning("25001", "there is already a transaction in progress");
            self.session_mut(pid).notice(notice);
        }
        self.apply_modes(pid, modes)?;
        if let Some(transaction) = self.transaction(pid) {
            transaction.kind = Kind::Block;
        }
        Ok(())
    }

    pub(super) fn apply_modes(&mut self, pid: i32, modes: Modes) -> Result<(), Report> {
        if let Some(isolation) = modes.isolation {
            self.set(pid, "transaction_isolation", Some(isolation_name(isolation)), true)?;
        }
        let word = |flag: bool| Some(if flag { "on" } else { "off" });
        if let Some(read_only) = modes.read_only {
            self.set(pid, "transaction_read_only", word(read_only), true)?;
        }
        if let Some(deferrable) = modes.deferrable {
            self.set(pid, "transaction_deferrable", word(deferrable), true)?;
        }
        Ok(())
    }

    pub(super) fn no_transaction(&mut self, pid: i32) {
        let notice = Report::warning("25P01", "there is no transaction in progress");
        self.session_mut(pid).notice(notice);
    }

    pub(super) fn commit_block(&mut self, pid: i32, chain: bool, at: Moment) -> Result<Answer, Stop> {
        let before = self.session(pid).transaction.clone();
        if before.as_ref().is_some_and(|transaction| transaction.failed) {
            self.rollback_block(pid, chain, at);
            return Ok(Answer::Done(self.ended(pid, "ROLLBACK")));
        }
        if self.kind(pid) != Some(Kind::Block) {
            if chain {
                return Err(Report::error("25P01", "COMMIT AND CHAIN can only be used in transaction blocks").into());
            }
            self.no_transaction(pid);
        }
        let committed = self.commit(pid, at);
        if let Err(Stop::Fail(_)) = committed {
            // A commit that fails ends the transaction all the same.
            self.roll_back(pid);
        }
        if let Some(lsn) = committed? {
            self.session_mut(pid).chained = chain;
            return Ok(Answer::Held(self.ended(pid, "COMMIT"), lsn));
        }
        if let Some(before) = before.filter(|_| chain) {
            self.chain(pid, &before, at);
        }
        Ok(Answer::Done(self.ended(pid, "COMMIT")))
    }

    pub(super) fn rollback_block(&mut self, pid: i32, chain: bool, at: Moment) {
        let before = self.session(pid).transaction.clone();
        if self.kind(pid) != Some(Kind::Block) {
            self.no_transaction(pid);
        }
        self.roll_back(pid);
        if let Some(before) = before.filter(|_| chain) {
            self.chain(pid, &before, at);
        }
    }

    /// AND CHAIN: a new transaction with the modes of the one before.
    pub(super) fn chain(&mut self, pid: i32, before: &Transaction, at: Moment) {
        let facts = self.session(pid).facts;
        self.begin(pid, Kind::Block, at);
        self.session_mut(pid).facts = facts;
        if let Some(transaction) = self.transaction(pid) {
            transaction.isolation = before.isolation;
            transaction.read_only = before.read_only;
            transaction.deferrable = before.deferrable;
        }
    }

    pub(super) fn in_block(&self, pid: i32, what: &str) -> Result<(), Report> {
        match self.kind(pid) {
            Some(Kind::Block) => Ok(()),
            _ => Err(Report::error(
                "25P01",
                format!("{what} can only be used in transaction blocks"),
            )),
        }
    }

    pub(super) fn savepoint(&mut self, pid: i32, name: &str) -> Result<(), Report> {
        self.in_block(pid, "SAVEPOINT")?;
        let (mark, values) = (self.mark(pid), self.session(pid).values.clone());
        if let Some(transaction) = self.transaction(pid) {
            let read_only = transaction.read_only;
            transaction.savepoints.push(Savepoint {
                name: name.to_owned(),
                mark,
                values,
                read_only,
            });
        }
        Ok(())
    }

    pub(super) fn find_savepoint(&self, pid: i32, name: &str) -> Result<usize, Report> {
        let transaction = self.session(pid).transaction.as_ref();
        let found = transaction.and_then(|transaction| {
            transaction
                .savepoints
                .iter()
                .rposition(|savepoint| savepoint.name == name)
        });
        found.ok_or_else(|| Report::error("3B001", format!("savepoint \"{name}\" does not exist")))
    }

    pub(super) fn release(&mut self, pid: i32, name: &str) -> Result<(), Report> {
        self.in_block(pid, "RELEASE SAVEPOINT")?;
        let at = self.find_savepoint(pid, name)?;
        let session = self.session_mut(pid);
        if let Some(transaction) = session.transaction.as_mut() {
            transaction.savepoints.truncate(at);
        }
        for portal in session.portals.values_mut() {
            portal.depth = portal.depth.min(at);
        }
        Ok(())
    }

    pub(super) fn rollback_to(&mut self, pid: i32, name: &str) -> Result<(), Report> {
        self.in_block(pid, "ROLLBACK TO SAVEPOINT")?;
        let at = self.find_savepoint(pid, name)?;
        let session = self.session_mut(pid);
        let Some(transaction) = session.transaction.as_mut() else {
            return Ok(());
        };
        transaction.savepoints.truncate(at + 1);
        transaction.failed = false;
        let savepoint = transaction.savepoints[at].clone();
        transaction.read_only = savepoint.read_only;
        session.values = savepoint.values;
        session.unreported = true;
        session.portals.retain(|_, portal| portal.depth <= at);
        self.undo_to(pid, savepoint.mark);
        self.locks.release_after(pid, savepoint.mark.locks);
        if let Some(transaction) = self.transaction(pid)
            && transaction.xid.is_some()
        {
            // The number itself stays, although the lock on it may have been taken later.
            let xid = transaction.xid.unwrap_or_default();
            let resource = super::locks::Resource::Transaction(xid);
            let _ = self.locks.acquire(pid, resource, super::locks::Mode::Exclusive);
        }
        Ok(())
    }

    pub(super) fn set_transaction(&mut self, pid: i32, session: bool, modes: Modes) -> Result<(), Report> {
        if session {
            let word = |flag: bool| Some(if flag { "on" } else { "off" });
            if let Some(isolation) = modes.isolation {
                self.set(
                    pid,
                    "default_transaction_isolation",
                    Some(isolation_name(isolation)),
                    false,
                )?;
            }
            if let Some(read_only) = modes.read_only {
                self.set(pid, "default_transaction_read_only", word(read_only), false)?;
            }
            if let Some(deferrable) = modes.deferrable {
                self.set(pid, "default_transaction_deferrable", word(deferrable), false)?;
            }
            return Ok(());
        }
        if self.kind(pid) == Some(Kind::Implicit) {
            let notice = Report::warning("25P01", "SET TRANSACTION can only be used in transaction blocks");
            self.session_mut(pid).notice(notice);
        }
        self.apply_modes(pid, modes)
    }

    pub(super) fn set_constraints(
        &mut self,
        pid: i32,
        names: &[String],
        deferred: bool,
        at: Moment,
    ) -> Result<(), Stop> {
        let Some(transaction) = self.transaction(pid) else {
            return Ok(());
        };
        if names.is_empty() {
            transaction.constraints_all = Some(deferred);
            transaction.constraints.clear();
        }
        for name in names {
            transaction.constraints.insert(name.clone(), deferred);
        }
        if !deferred {
            let checks = transaction.deferred.clone();
            self.check_now(pid, &checks, at)?;
            if let Some(transaction) = self.transaction(pid) {
                transaction.deferred.clear();
            }
        }
        Ok(())
    }
}
