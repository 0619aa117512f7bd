//! Opening and closing sessions, and their settings: SET, SHOW, RESET, what is reported.
//!
//! Over `settings`, for sessions and functions. A plain machine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::ast::Isolation;
use super::door::Facts;
use super::session::{Activity, Session};
use super::settings::{self, Changes, SETTINGS, Setting, Values, isolation_named};
use crate::wire::Report;

/// Reported settings in the order in which PostgreSQL sends them at start-up.
const REPORTED: [&str; 13] = [
    "in_hot_standby",
    "integer_datetimes",
    "TimeZone",
    "IntervalStyle",
    "is_superuser",
    "application_name",
    "default_transaction_read_only",
    "standard_conforming_strings",
    "client_encoding",
    "session_authorization",
    "server_version",
    "server_encoding",
    "DateStyle",
];

impl Engine {
    /// A new session. `options` are its start-up parameters and the settings of its `options`.
    pub(crate) fn open(
        &mut self,
        pid: i32,
        user: &str,
        database: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<(), Report> {
        if !self.node.databases.iter().any(|known| known == database) {
            let report = Report::fatal("3D000", format!("database \"{database}\" does not exist"));
            return Err(report);
        }
        let mut defaults = BTreeMap::new();
        for (name, value) in &self.node.settings {
            let setting = settings::find(name).ok_or_else(|| settings::unknown(name))?;
            defaults.insert(setting.name.to_ascii_lowercase(), setting.check(value)?);
        }
        for (name, value) in options {
            let (key, value) = checked(name, value)?;
            defaults.insert(key, value);
        }
        let session = Session {
            pid,
            database: database.to_owned(),
            login: user.to_owned(),
            values: Values::new(defaults),
            transaction: None,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            running: None,
            chained: false,
            copy: None,
            channels: std::collections::BTreeSet::new(),
            notifications: std::collections::VecDeque::new(),
            notices: Vec::new(),
            reported: BTreeMap::new(),
            unreported: false,
            current: BTreeMap::new(),
            last_sequence: None,
            activity: Activity::default(),
            facts: Facts::default(),
            temporary: Vec::new(),
        };
        self.sessions.insert(pid, session);
        Ok(())
    }

    /// Changes the configuration file, and has it read again: new sessions get the value, and open ones too. `None` takes
    /// the setting out of the file.
    pub(crate) fn set_server_setting(&mut self, name: &str, value: Option<&str>) -> Result<(), Report> {
        let setting = settings::find(name).ok_or_else(|| settings::unknown(name))?;
        let checked = value.map(|value| setting.check(value)).transpose()?;
        match value {
            Some(value) => self.node.settings.insert(name.to_owned(), value.to_owned()),
            None => self.node.settings.remove(name),
        };
        let key = setting.name.to_ascii_lowercase();
        for session in self.sessions.values_mut() {
            session.values.set_default(&key, checked.as_deref());
            session.unreported = true;
        }
        Ok(())
    }

    /// Ends a session: its transaction is rolled back, unless its commit only waits for a standby; its locks and temporary tables
    /// go. Closing what is not open is nothing.
    pub(crate) fn close(&mut self, pid: i32) {
        if !self.sessions.contains_key(&pid) {
            return;
        }
        let committing = self
            .session(pid)
            .running
            .as_ref()
            .is_some_and(|running| running.held.is_some());
        if committing {
            self.finish_commit(pid);
        } else if self.session(pid).transaction.is_some() {
            self.roll_back(pid);
        }
        self.drop_temporary(pid);
        self.locks.stop_waiting(pid);
        self.locks.release_after(pid, 0);
        self.locks.release_session(pid);
        self.sessions.remove(&pid);
    }

    /// All reported settings, as they are sent when a session starts.
    pub(crate) fn reported(&mut self, pid: i32) -> Vec<(String, String)> {
        let mut values = Vec::with_capacity(REPORTED.len());
        for name in REPORTED {
            let value = self.show(pid, name).unwrap_or_default();
            if let Some(session) = self.sessions.get_mut(&pid) {
                session.reported.insert(name, value.clone());
            }
            values.push((name.to_owned(), value));
        }
        values
    }

    /// Reported settings that have changed since they were last told, to be sent before the next ReadyForQuery.
    pub(crate) fn take_reports(&mut self, pid: i32) -> Vec<(String, String)> {
        match self.sessions.get_mut(&pid) {
            Some(session) if session.unreported => session.unreported = false,
            _ => return Vec::new(),
        }
        let mut changed = Vec::new();
        for name in REPORTED {
            let known = self.session(pid).reported.get(name).map(String::as_str);
            // None of them is a number with a unit: they are shown as they are kept.
            let value = self.value(pid, name).unwrap_or_default();
            if known != Some(&*value) {
                changed.push((name, value.into_owned()));
            }
        }
        let session = self.session_mut(pid);
        session.reported.extend(changed.iter().cloned());
        changed
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The value of a setting in its base unit.
    pub(super) fn raw(&self, pid: i32, name: &str) -> Option<String> {
        self.value(pid, name).map(Cow::into_owned)
    }

    fn value(&self, pid: i32, name: &str) -> Option<Cow<'_, str>> {
        let key = settings::key_of(name);
        if let Some(value) = self.special(pid, &key) {
            return Some(value);
        }
        let session = self.sessions.get(&pid)?;
        let known = || settings::find(&key).map(|setting| setting.default);
        session.values.get(&key).or_else(known).map(Cow::Borrowed)
    }

    /// Settings that are read from somewhere else.
    fn special(&self, pid: i32, key: &str) -> Option<Cow<'_, str>> {
        let session = self.sessions.get(&pid)?;
        let on = |flag: bool| Cow::Borrowed(if flag { "on" } else { "off" });
        Some(match key {
            "in_hot_standby" => on(self.role.is_standby()),
            "is_superuser" => {
                let user = self.current_user(pid);
                on(self.node.superusers.iter().any(|known| known == user))
            }
            "session_authorization" => session
                .values
                .get("session_authorization")
                .unwrap_or(&session.login)
                .into(),
            "transaction_read_only" => on(self.is_read_only(pid)),
            "transaction_isolation" => match &session.transaction {
                Some(transaction) => isolation_name(transaction.isolation).into(),
                None => return self.value(pid, "default_transaction_isolation"),
            },
            "transaction_deferrable" => match &session.transaction {
                Some(transaction) => on(transaction.deferrable),
                None => return self.value(pid, "default_transaction_deferrable"),
            },
            _ => return None,
        })
    }

    /// The value of a setting as SHOW gives it; `None` if there is no such setting.
    pub(crate) fn show(&self, pid: i32, name: &str) -> Option<String> {
        let value = self.raw(pid, name)?;
        Some(settings::find(name).map_or_else(|| value.clone(), |setting| setting.show(&value)))
    }

    /// A setting in milliseconds as a span; `None` if it is off.
    pub(crate) fn timeout(&self, pid: i32, name: &str) -> Option<Duration> {
        self.sessions.get(&pid)?.values.timeout(name)
    }

    /// Who the session acts as.
    pub(crate) fn current_user(&self, pid: i32) -> &str {
        let Some(session) = self.sessions.get(&pid) else {
            return "";
        };
        match session.values.get("role") {
            Some(role) if role != "none" => role,
            _ => session.values.get("session_authorization").unwrap_or(&session.login),
        }
    }

    /// SET, `set_config`, RESET: `None` goes back to the default.
    pub(super) fn set(&mut self, pid: i32, name: &str, value: Option<&str>, local: bool) -> Result<(), Report> {
        let key = name.to_ascii_lowercase();
        let known = settings::find(name);
        if known.is_none() && !settings::is_custom(name) {
            return Err(settings::unknown(name));
        }
        if let Some(setting) = known {
            changeable(setting)?;
        }
        match key.as_str() {
            "transaction_read_only" | "transaction_isolation" | "transaction_deferrable" => {
                let Some(value) = value else { return Ok(()) };
                let value = known.map_or_else(|| Ok(value.to_owned()), |setting| setting.check(value))?;
                return self.set_transaction_mode(pid, &key, &value);
            }
            "role" | "session_authorization" => {
                if let Some(value) = value.filter(|value| *value != "none" || key != "role") {
                    self.known_role(value)?;
                }
            }
            _ => {}
        }
        let checked = match (value, known) {
            (Some(value), Some(setting)) => Some(setting.check(value)?),
            (value, _) => value.map(str::to_owned),
        };
        let session = self.session_mut(pid);
        // A made-up setting stays known, with nothing in it, when it is reset.
        let checked = checked.or_else(|| known.is_none().then(String::new));
        session.values.set(&key, checked, local);
        session.unreported |= key == "role" || known.is_some_and(|setting| setting.reported);
        Ok(())
    }

    fn known_role(&self, name: &str) -> Result<(), Report> {
        let known = self.node.superusers.iter().any(|role| role == name)
            || self.sessions.values().any(|session| session.login == name)
            || self.node.roles.iter().any(|role| role == name);
        match known {
            true => Ok(()),
            false => Err(Report::error("22023", format!("role \"{name}\" does not exist"))),
        }
    }

    fn set_transaction_mode(&mut self, pid: i32, key: &str, value: &str) -> Result<(), Report> {
        let standby = self.role.is_standby();
        let Some(transaction) = self.session_mut(pid).transaction.as_mut() else {
            return Ok(());
        };
        let started = transaction.snapshot.is_some() || transaction.command > 0;
        match key {
            "transaction_read_only" => {
                let read_only = value == "on";
                if !read_only && transaction.read_only {
                    if standby || transaction.in_recovery {
                        let message = "cannot set transaction read-write mode during recovery";
                        return Err(Report::error("0A000", message));
                    }
                    if transaction
                        .savepoints
                        .last()
                        .is_some_and(|savepoint| savepoint.read_only)
                    {
                        let message = "cannot set transaction read-write mode inside a read-only transaction";
                        return Err(Report::error("25001", message));
                    }
                    if started {
                        let message = "transaction read-write mode must be set before any query";
                        return Err(Report::error("25001", message));
                    }
                }
                transaction.read_only = read_only;
            }
            "transaction_isolation" => {
                let isolation = isolation_named(value);
                if isolation != transaction.isolation {
                    if started {
                        let message = "SET TRANSACTION ISOLATION LEVEL must be called before any query";
                        return Err(Report::error("25001", message));
                    }
                    if isolation == Isolation::Serializable && standby {
                        return Err(Report::error("0A000", "cannot use serializable mode in a hot standby")
                            .hint("You can use REPEATABLE READ instead."));
                    }
                    transaction.isolation = isolation;
                }
            }
            _ => transaction.deferrable = value == "on",
        }
        Ok(())
    }

    /// RESET ALL: not the role, and not the modes of the transaction.
    pub(super) fn reset_all(&mut self, pid: i32) {
        let session = self.session_mut(pid);
        session.unreported |= session.values.reset_all(&["role", "session_authorization"]);
    }

    /// Names and values for SHOW ALL and `pg_settings`.
    pub(super) fn all_settings(&self, pid: i32) -> Vec<(&'static Setting, String)> {
        let mut all: Vec<_> = SETTINGS
            .iter()
            .map(|setting| (setting, self.raw(pid, setting.name).unwrap_or_default()))
            .collect();
        all.sort_by_key(|(setting, _)| setting.name.to_ascii_lowercase());
        all
    }
}

/// The key and the base form of a value given at start-up.
fn checked(name: &str, value: &str) -> Result<(String, String), Report> {
    let fatal = |report: Report| Report {
        severity: crate::wire::Severity::Fatal,
        ..report
    };
    match settings::find(name) {
        Some(setting) => {
            changeable(setting).map_err(fatal)?;
            Ok((setting.name.to_ascii_lowercase(), setting.check(value).map_err(fatal)?))
        }
        None if settings::is_custom(name) => Ok((name.to_ascii_lowercase(), value.to_owned())),
        None => Err(fatal(settings::unknown(name))),
    }
}

fn changeable(setting: &Setting) -> Result<(), Report> {
    let name = setting.name;
    let message = match setting.changes {
        Changes::Anytime => return Ok(()),
        Changes::Never => format!("parameter \"{name}\" cannot be changed"),
        Changes::Reload => format!("parameter \"{name}\" cannot be changed now"),
        Changes::Restart => format!("parameter \"{name}\" cannot be changed without restarting the server"),
    };
    Err(Report::error("55P02", message))
}

pub(super) fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadCommitted => "read committed",
        Isolation::RepeatableRead => "repeatable read",
        Isolation::Serializable => "serializable",
    }
}
