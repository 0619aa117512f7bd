//! `Model`: the SQL state of one session: transaction, settings, listens, locks, names. No I/O.
//!
//! The session task asks it what a statement does and tells it about errors and Syncs; tests see it as a view. It
//! follows PostgreSQL 15 where it speaks at all, and keeps no tables and no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::answer::RowSet;
use super::settings;
use super::statement::{Call, Discard, Statement};
use super::transaction::Transaction;
use crate::value::{Type, Value};
use crate::wire::Report;

/// What became of a statement the model carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Empty,
    Rows(RowSet),
    Tag(&'static str),
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) pid: i32,
    pub(crate) durable: Durable,
    pub(crate) listens: BTreeSet<String>,
    pub(crate) locks: Vec<String>,
    pub(crate) prepared: BTreeMap<String, Prepared>,
    pub(crate) portals: BTreeMap<String, Portal>,
    /// Warnings to send before the reply.
    pub(crate) notices: Vec<Report>,
    /// Committed notifications, for the server to spread.
    pub(crate) outgoing: Vec<(String, String)>,
    /// Notifications of others that wait for the end of the transaction.
    pub(crate) inbox: Vec<(i32, String, String)>,
    defaults: BTreeMap<String, String>,
    pub(crate) transaction: Option<Transaction>,
    /// Statements that wrote and were committed; the end of the session takes nothing back.
    pub(crate) committed: Vec<String>,
}

/// What a rollback takes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) temp_tables: BTreeSet<String>,
    /// Cursor names, and whether they outlive the transaction.
    pub(crate) cursors: BTreeMap<String, bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) sql: String,
    pub(crate) types: Vec<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Portal {
    pub(crate) sql: String,
    pub(crate) formats: Vec<i16>,
    /// Rows left after an Execute with a limit, and how many were sent.
    pub(crate) rest: Option<(RowSet, usize)>,
    pub(crate) done: bool,
}

impl Model {
    pub(crate) fn new(pid: i32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// Takes the settings of the start-up packet; they become the values RESET goes back to.
    pub(crate) fn start(
        &mut self,
        server: &BTreeMap<String, String>,
        packet: &BTreeMap<String, String>,
    ) -> Result<(), Report> {
        let mut values = settings::first_values();
        values.extend(server.clone());
        let mut wanted = Vec::new();
        for (name, value) in packet {
            match name.as_str() {
                "user" => values.extend([("session_authorization".to_owned(), value.clone())]),
                "database" | "replication" => {}
                "options" => wanted.extend(settings::command_line(value)),
                _ => wanted.push((name.clone(), value.clone())),
            }
        }
        for (name, value) in wanted {
            let name = settings::canonical(&name).map_err(fatal)?;
            let value = settings::checked(&name, &value).map_err(fatal)?;
            values.insert(name, value);
        }
        self.defaults.clone_from(&values);
        self.durable.settings = values;
        Ok(())
    }

    pub(crate) fn in_standby(&self) -> bool {
        self.setting("in_hot_standby") == "on"
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        self.durable.settings.get(name).map_or("", String::as_str)
    }

    /// Takes over what the server says about itself; an open transaction keeps its own mode.
    pub(crate) fn refresh(&mut self, server: &BTreeMap<String, String>) {
        if let (None, Some(value)) = (&self.transaction, server.get("in_hot_standby")) {
            self.durable.settings.insert("in_hot_standby".to_owned(), value.clone());
            self.defaults.insert("in_hot_standby".to_owned(), value.clone());
        }
    }

    /// The session ends: nothing of it stays.
    pub(crate) fn end(&mut self) {
        self.rollback();
        *self = Self {
            pid: self.pid,
            durable: mem::take(&mut self.durable),
            committed: mem::take(&mut self.committed),
            ..Self::default()
        };
        self.durable.temp_tables.clear();
        self.durable.cursors.clear();
    }

    /// Carries a statement out. `alone` says that no other statement shares its implicit transaction.
    pub(crate) fn apply(&mut self, statement: &Statement, alone: bool) -> Result<Reply, Report> {
        let tag = match statement {
            Statement::Begin { start, read_only } => return self.begin(*start, *read_only),
            Statement::Commit { chain } => return self.end_block(true, *chain),
            Statement::Rollback { chain } => return self.end_block(false, *chain),
            Statement::Savepoint(_) | Statement::Release(_) | Statement::RollbackTo(_) => {
                return self.savepoint(statement);
            }
            Statement::Set { name, value, local } => {
                if *local && self.status() == b'I' {
                    self.warn("25P01", "SET LOCAL can only be used in transaction blocks");
                }
                self.set(name, value.as_deref(), *local)?
            }
            Statement::SetTransaction { read_only } => self.set_transaction(*read_only)?,
            Statement::Reset(Some(name)) => {
                self.set(name, None, false)?;
                "RESET"
            }
            Statement::Reset(None) => {
                self.reset_all();
                "RESET"
            }
            Statement::Show(name) => {
                let value = self.show(name)?;
                return Ok(one_row(vec![(name.clone(), Type::Text)], vec![Value::Text(value)]));
            }
            Statement::Select(calls) => {
                let values = calls.iter().map(|call| self.call(call)).collect::<Result<_, _>>()?;
                return Ok(one_row(calls.iter().map(Call::column).collect(), values));
            }
            Statement::Empty => return Ok(Reply::Empty),
            Statement::Listen(_) | Statement::Notify { .. } if self.in_standby() => {
                let verb = if matches!(statement, Statement::Listen(_)) {
                    "LISTEN"
                } else {
                    "NOTIFY"
                };
                return Err(Report::error("25006", format!("cannot execute {verb} during recovery")));
            }
            Statement::Listen(channel) => self.queue_listen(Some((channel.clone(), true)), "LISTEN"),
            Statement::Unlisten(Some(channel)) => self.queue_listen(Some((channel.clone(), false)), "UNLISTEN"),
            Statement::Unlisten(None) => self.queue_listen(None, "UNLISTEN"),
            Statement::Notify { channel, payload } => {
                self.notify(channel, payload);
                "NOTIFY"
            }
            Statement::Discard(what) => self.discard(*what, alone)?,
            Statement::Deallocate(name) => self.deallocate(name.as_deref())?,
            Statement::Prepare { name, sql } => self.prepare(name, sql)?,
            Statement::CreateTemp { table } => self.create_temp(table)?,
            Statement::Declare { cursor, hold } => self.declare(cursor, *hold, alone)?,
            Statement::Close(None) => {
                self.durable.cursors.clear();
                "CLOSE CURSOR ALL"
            }
            Statement::Close(Some(name)) => match self.durable.cursors.remove(name) {
                Some(_) => "CLOSE CURSOR",
                None => return Err(Report::error("34000", format!("cursor \"{name}\" does not exist"))),
            },
        };
        Ok(Reply::Tag(tag))
    }

    pub(crate) fn reads_only(&self) -> bool {
        self.in_standby() || self.setting("default_transaction_read_only") == "on"
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<&'static str, Report> {
        let name = settings::canonical(name)?;
        let value = match value {
            Some(value) => settings::checked(&name, value)?,
            None => self.defaults.get(&name).cloned().unwrap_or_default(),
        };
        let old = self.durable.settings.insert(name.clone(), value).unwrap_or_default();
        if let Some(transaction) = &mut self.transaction {
            if local {
                transaction.locals.entry(name).or_insert(old);
            } else {
                transaction.locals.remove(&name);
            }
        }
        Ok("SET")
    }

    fn reset_all(&mut self) {
        // RESET ALL leaves who the session is; those are not settings one resets in bulk.
        let kept = ["role", "session_authorization"].map(|name| (name.to_owned(), self.setting(name).to_owned()));
        self.durable.settings.clone_from(&self.defaults);
        self.durable.settings.extend(kept);
        if let Some(transaction) = &mut self.transaction {
            transaction.locals.clear();
        }
    }

    fn show(&self, name: &str) -> Result<String, Report> {
        if name == "transaction_read_only" {
            let read_only = self
                .transaction
                .as_ref()
                .map_or(self.reads_only(), |transaction| transaction.read_only);
            return Ok((if read_only { "on" } else { "off" }).to_owned());
        }
        let name = settings::canonical(name)?;
        self.durable
            .settings
            .get(&name)
            .cloned()
            .ok_or_else(|| Report::error("42704", format!("unrecognized configuration parameter \"{name}\"")))
    }

    fn call(&mut self, call: &Call) -> Result<Value, Report> {
        Ok(match call {
            Call::AdvisoryLock {
                key,
                in_transaction,
                attempt,
            } => {
                self.lock(key, *in_transaction);
                if *attempt {
                    Value::Bool(true)
                } else {
                    Value::Text(String::new())
                }
            }
            Call::AdvisoryUnlock(key) => {
                let place = self.locks.iter().position(|held| held.strip_prefix('s') == Some(key));
                if place.is_none() {
                    self.warn("01000", "you don't own a lock of type ExclusiveLock");
                }
                Value::Bool(place.map(|place| self.locks.remove(place)).is_some())
            }
            Call::AdvisoryUnlockAll => {
                self.locks.retain(|key| key.starts_with('t'));
                Value::Text(String::new())
            }
            Call::BackendPid => Value::from(self.pid),
            Call::CurrentSetting(name) => Value::Text(self.show(name)?),
            Call::InRecovery => Value::Bool(self.in_standby()),
            Call::Notify { .. } if self.in_standby() => {
                return Err(Report::error("25006", "cannot execute NOTIFY during recovery"));
            }
            Call::Notify { channel, payload } => {
                self.notify(channel, payload);
                Value::Text(String::new())
            }
            Call::SetConfig { name, value, local } => {
                self.set(name, Some(value), *local)?;
                Value::Text(self.show(name)?)
            }
            Call::Integer(_) | Call::Text(_) => call.constant().unwrap_or(Value::Null),
        })
    }

    fn lock(&mut self, key: &str, in_transaction: bool) {
        self.locks
            .push(format!("{}{key}", if in_transaction { 't' } else { 's' }));
        if let (Some(transaction), true) = (&mut self.transaction, in_transaction) {
            transaction.locks += 1;
        }
    }

    fn queue_listen(&mut self, operation: Option<(String, bool)>, tag: &'static str) -> &'static str {
        if let Some(transaction) = &mut self.transaction {
            transaction.listens.push(operation);
        }
        tag
    }

    fn notify(&mut self, channel: &str, payload: &str) {
        let entry = (channel.to_owned(), payload.to_owned());
        if let Some(transaction) = self.transaction.as_mut().filter(|open| !open.notifies.contains(&entry)) {
            transaction.notifies.push(entry);
        }
    }

    fn discard(&mut self, what: Discard, alone: bool) -> Result<&'static str, Report> {
        match what {
            Discard::Plans => return Ok("DISCARD PLANS"),
            Discard::Sequences => return Ok("DISCARD SEQUENCES"),
            Discard::Temp => {
                self.durable.temp_tables.clear();
                return Ok("DISCARD TEMP");
            }
            Discard::All => {}
        }
        if self.status() != b'I' || !alone {
            return Err(Report::error(
                "25001",
                "DISCARD ALL cannot run inside a transaction block",
            ));
        }
        self.durable.cursors.clear();
        self.durable.temp_tables.clear();
        self.listens.clear();
        self.locks.clear();
        self.prepared.clear();
        for name in ["role", "session_authorization"] {
            self.set(name, None, false)?;
        }
        self.reset_all();
        Ok("DISCARD ALL")
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<&'static str, Report> {
        let Some(name) = name else {
            self.prepared.retain(|name, _| name.is_empty());
            return Ok("DEALLOCATE ALL");
        };
        match self.prepared.remove(name) {
            Some(_) => Ok("DEALLOCATE"),
            None => Err(Report::error(
                "26000",
                format!("prepared statement \"{name}\" does not exist"),
            )),
        }
    }

    fn prepare(&mut self, name: &str, sql: &str) -> Result<&'static str, Report> {
        if self.prepared.contains_key(name) {
            return Err(Report::error(
                "42P05",
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        self.prepared.insert(
            name.to_owned(),
            Prepared {
                sql: sql.to_owned(),
                types: Vec::new(),
            },
        );
        Ok("PREPARE")
    }

    fn create_temp(&mut self, table: &str) -> Result<&'static str, Report> {
        if !self.durable.temp_tables.insert(table.to_owned()) {
            return Err(Report::error("42P07", format!("relation \"{table}\" already exists")));
        }
        Ok("CREATE TABLE")
    }

    fn declare(&mut self, cursor: &str, hold: bool, alone: bool) -> Result<&'static str, Report> {
        if self.status() == b'I' && !hold && alone {
            return Err(Report::error(
                "25P01",
                "DECLARE CURSOR can only be used in transaction blocks",
            ));
        }
        if self.durable.cursors.insert(cursor.to_owned(), hold).is_some() {
            return Err(Report::error("42P03", format!("cursor \"{cursor}\" already exists")));
        }
        Ok("DECLARE CURSOR")
    }

    pub(crate) fn warn(&mut self, sqlstate: &str, message: &str) {
        self.notices
            .push(Report::new(crate::wire::Severity::Warning, sqlstate, message));
    }
}

fn fatal(report: Report) -> Report {
    Report::fatal(&report.sqlstate, report.message)
}

fn one_row(columns: Vec<(String, Type)>, values: Vec<Value>) -> Reply {
    Reply::Rows(RowSet {
        columns,
        rows: vec![values],
    })
}
