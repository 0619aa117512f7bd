//! What a session has set, in three layers, and the few settings that every statement asks for, read once.
//!
//! Beside the table of settings. A plain machine.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::super::ast::Isolation;
use super::find;

/// What a session has set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    /// What RESET goes back to: start-up options over the configuration file.
    defaults: Arc<BTreeMap<String, String>>,
    /// For the session.
    session: Arc<BTreeMap<String, String>>,
    /// Until the transaction ends.
    local: Arc<BTreeMap<String, String>>,
    hot: OnceLock<Arc<Hot>>,
}

/// Settings in the form in which statements use them.
#[derive(Clone, Debug)]
pub(crate) struct Hot {
    pub(crate) isolation: Isolation,
    pub(crate) read_only: bool,
    pub(crate) deferrable: bool,
    pub(crate) search_path: String,
    /// `synchronous_commit`.
    pub(crate) commit_level: String,
    timeouts: [Option<Duration>; TIMEOUTS.len()],
}

const READ_ONLY: &str = "default_transaction_read_only";

/// Those that are in [`Hot`], with [`READ_ONLY`] and the timeouts.
const HOT: [&str; 4] = [
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "search_path",
    "synchronous_commit",
];

const TIMEOUTS: [&str; 6] = [
    "deadlock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
];

impl Values {
    pub(crate) fn new(defaults: BTreeMap<String, String>) -> Self {
        Self {
            defaults: Arc::new(defaults),
            ..Self::default()
        }
    }

    /// The value in force, by the name in lower case, if it is not the server's own default.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let layers = [&self.local, &self.session, &self.defaults];
        let found = layers.into_iter().find_map(|layer| layer.get(key));
        found.map(String::as_str)
    }

    /// The value in force, by the name in lower case; nothing for a setting that nobody knows.
    fn in_force(&self, key: &str) -> &str {
        let known = || find(key).map_or("", |setting| setting.default);
        self.get(key).unwrap_or_else(known)
    }

    pub(crate) fn hot(&self) -> &Hot {
        self.hot.get_or_init(|| {
            let on = |key: &str| self.in_force(key) == "on";
            Arc::new(Hot {
                isolation: isolation_named(self.in_force("default_transaction_isolation")),
                read_only: on(READ_ONLY),
                deferrable: on("default_transaction_deferrable"),
                search_path: self.in_force("search_path").to_owned(),
                commit_level: self.in_force("synchronous_commit").to_owned(),
                timeouts: TIMEOUTS.map(|key| span(self.in_force(key))),
            })
        })
    }

    /// A setting in milliseconds as a span, by the name in lower case; `None` if it is off.
    pub(crate) fn timeout(&self, key: &str) -> Option<Duration> {
        match TIMEOUTS.iter().position(|known| *known == key) {
            Some(at) => self.hot().timeouts[at],
            None => span(self.in_force(key)),
        }
    }

    /// Sets or resets a value by the name in lower case.
    pub(crate) fn set(&mut self, key: &str, value: Option<String>, local: bool) {
        self.put(key, value, local);
        let read_only = key == READ_ONLY && self.in_force(key) == "on";
        match self.hot.get_mut() {
            // The pools of the library change this one with every other statement.
            Some(hot) if key == READ_ONLY => Arc::make_mut(hot).read_only = read_only,
            Some(_) if HOT.contains(&key) || TIMEOUTS.contains(&key) => self.hot = OnceLock::new(),
            _ => {}
        }
    }

    fn put(&mut self, key: &str, value: Option<String>, local: bool) {
        let value = value.or_else(|| local.then(|| self.default_of(key)));
        if local {
            let value = value.unwrap_or_default();
            Arc::make_mut(&mut self.local).insert(key.to_owned(), value);
            return;
        }
        if self.local.contains_key(key) {
            Arc::make_mut(&mut self.local).remove(key);
        }
        match value {
            Some(value) => {
                Arc::make_mut(&mut self.session).insert(key.to_owned(), value);
            }
            None => {
                Arc::make_mut(&mut self.session).remove(key);
            }
        }
    }

    /// Changes what RESET goes back to.
    pub(crate) fn set_default(&mut self, key: &str, value: Option<&str>) {
        self.hot = OnceLock::new();
        let defaults = Arc::make_mut(&mut self.defaults);
        match value {
            Some(value) => defaults.insert(key.to_owned(), value.to_owned()),
            None => defaults.remove(key),
        };
    }

    /// RESET ALL: all but those in `kept`. Made-up settings stay known with nothing in them. Whether there was any.
    pub(crate) fn reset_all(&mut self, kept: &[&str]) -> bool {
        if self.session.is_empty() && self.local.is_empty() {
            return false;
        }
        self.hot = OnceLock::new();
        let kept = |key: &String| kept.contains(&key.as_str());
        let change = |(key, value): (&String, &String)| match (kept(key), key.contains('.')) {
            (true, _) => Some((key.clone(), value.clone())),
            (false, true) => Some((key.clone(), String::new())),
            (false, false) => None,
        };
        self.session = Arc::new(self.session.iter().filter_map(change).collect());
        let local = self.local.iter().filter(|(key, _)| kept(key));
        self.local = Arc::new(local.map(|(key, value)| (key.clone(), value.clone())).collect());
        true
    }

    /// The transaction has ended; whether it had settings of its own.
    pub(crate) fn forget_local(&mut self) -> bool {
        let any = !self.local.is_empty();
        if any {
            self.local = Arc::default();
            self.hot = OnceLock::new();
        }
        any
    }

    /// The names of what the session itself has set, without its transaction.
    pub(crate) fn session_keys(&self) -> impl Iterator<Item = &str> {
        self.session.keys().map(String::as_str)
    }

    /// Whether the session or its transaction has set it.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.local.contains_key(key) || self.session.contains_key(key)
    }

    pub(crate) fn has_default(&self, key: &str) -> bool {
        self.defaults.contains_key(key)
    }

    /// Whether both come from the same settings: nothing was set in between.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let same = |one: &Arc<BTreeMap<String, String>>, two| Arc::ptr_eq(one, two);
        same(&self.local, &other.local) && same(&self.session, &other.session) && same(&self.defaults, &other.defaults)
    }

    /// What RESET gives.
    pub(crate) fn default_of(&self, key: &str) -> String {
        let known = find(key).map_or("", |setting| setting.default);
        self.defaults.get(key).map_or(known, String::as_str).to_owned()
    }
}

fn span(millis: &str) -> Option<Duration> {
    let millis = millis.parse::<u64>().ok()?;
    (millis > 0).then(|| Duration::from_millis(millis))
}

pub(crate) fn isolation_named(name: &str) -> Isolation {
    match name {
        "serializable" => Isolation::Serializable,
        "repeatable read" => Isolation::RepeatableRead,
        _ => Isolation::ReadCommitted,
    }
}
