//! `ClusterConfig`: what a cluster is like when it starts.
//!
//! Plain data with a builder; nothing runs here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::postgres::session::Verifier;
use crate::random::Stream;

/// The most standbys: addresses end there.
const MOST_STANDBYS: usize = 200;

/// What a cluster is like when it starts.
///
/// Default: no standby, superuser `postgres` and user `app` let in without a password, database `postgres`, PostgreSQL's own
/// settings, records arrive at standbys after 500 µs and are replayed 500 µs later.
///
/// ```
/// use gdbpool_sim::{Authentication, ClusterConfig};
/// use std::time::Duration;
///
/// let config = ClusterConfig::new()
///     .standbys(2)
///     .user("shop", Authentication::Scram("secret".into()))
///     .setting("statement_timeout", "5s")
///     .lag(Duration::from_millis(1), Duration::from_millis(20))
///     .synchronous(1, &["n1"]);
/// ```
#[derive(Clone)]
pub struct ClusterConfig {
    pub(crate) standbys: usize,
    pub(crate) databases: Vec<String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) receive_delay: Duration,
    pub(crate) replay_delay: Duration,
    pub(crate) synchronous: Option<SyncRule>,
    pub(crate) patience: Duration,
    users: BTreeMap<String, (bool, Authentication)>,
}

/// How a user proves who they are. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    /// This password, in the clear.
    Cleartext(String),
    /// The MD5 digest of this password.
    Md5(String),
    /// SCRAM-SHA-256 with this password.
    Scram(String),
    /// Not at all.
    Trust,
}

/// A user as the servers know it.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) superuser: bool,
    pub(crate) method: Method,
}

#[derive(Clone)]
pub(crate) enum Method {
    Cleartext(String),
    Md5(String),
    Scram(Box<Verifier>),
    Trust,
}

/// `synchronous_standby_names`: so many of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncRule {
    pub(crate) count: usize,
    pub(crate) names: Vec<String>,
}

impl SyncRule {
    /// As `synchronous_standby_names` has it.
    pub(crate) fn shown(&self) -> String {
        match (self.count, self.names.as_slice()) {
            (1, [name]) => name.clone(),
            (count, names) => format!("ANY {count} ({})", names.join(", ")),
        }
    }
}

impl ClusterConfig {
    /// A lone primary with the defaults.
    #[must_use]
    pub fn new() -> Self {
        let users = [("postgres", true), ("app", false)];
        let users = users.map(|(name, superuser)| (name.to_owned(), (superuser, Authentication::Trust)));
        Self {
            standbys: 0,
            databases: vec!["postgres".to_owned()],
            settings: BTreeMap::from([("max_connections".to_owned(), "100".to_owned())]),
            receive_delay: Duration::from_micros(500),
            replay_delay: Duration::from_micros(500),
            synchronous: None,
            patience: Duration::from_secs(30),
            users: users.into(),
        }
    }

    /// How many standbys follow the primary.
    ///
    /// # Panics
    /// Over 200.
    #[must_use]
    pub fn standbys(mut self, standbys: usize) -> Self {
        assert!(
            standbys <= MOST_STANDBYS,
            "at most {MOST_STANDBYS} standbys, not {standbys}"
        );
        self.standbys = standbys;
        self
    }

    /// Adds a user, or changes how one proves who they are.
    #[must_use]
    pub fn user(mut self, name: &str, authentication: Authentication) -> Self {
        let superuser = self.users.get(name).is_some_and(|(superuser, _)| *superuser);
        self.users.insert(name.to_owned(), (superuser, authentication));
        self
    }

    /// Adds a database.
    #[must_use]
    pub fn database(mut self, name: &str) -> Self {
        if !self.databases.iter().any(|known| known == name) {
            self.databases.push(name.to_owned());
        }
        self
    }

    /// A setting of all servers, as in `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// How long records are under way to a standby, and how long it waits before it replays them.
    #[must_use]
    pub fn lag(mut self, receive: Duration, replay: Duration) -> Self {
        (self.receive_delay, self.replay_delay) = (receive, replay);
        self
    }

    /// Commits wait until `count` of these standbys have them.
    #[must_use]
    pub fn synchronous(mut self, count: usize, names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let rule = SyncRule { count, names };
        self.settings
            .insert("synchronous_standby_names".to_owned(), rule.shown());
        self.synchronous = Some(rule);
        self
    }

    /// `max_standby_streaming_delay`: how long recovery on a standby waits for sessions in its way. Default: 30 s.
    #[must_use]
    pub fn max_standby_streaming_delay(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn superusers(&self) -> Vec<String> {
        let superusers = self.users.iter().filter(|(_, (superuser, _))| *superuser);
        superusers.map(|(name, _)| name.clone()).collect()
    }

    /// The users that are no superusers.
    pub(crate) fn others(&self) -> Vec<String> {
        let others = self.users.iter().filter(|(_, (superuser, _))| !superuser);
        others.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn logins(&self, seed: u64) -> BTreeMap<String, Login> {
        let logins = self
            .users
            .iter()
            .enumerate()
            .map(|(place, (name, (superuser, authentication)))| {
                let method = match authentication {
                    Authentication::Cleartext(password) => Method::Cleartext(password.clone()),
                    Authentication::Md5(password) => Method::Md5(password.clone()),
                    Authentication::Scram(password) => {
                        let mut stream = Stream::new(seed, "scram salt", place as u64);
                        let salt = (u128::from(stream.draw()) << 64) | u128::from(stream.draw());
                        Method::Scram(Box::new(Verifier::new(password, salt.to_be_bytes())))
                    }
                    Authentication::Trust => Method::Trust,
                };
                let superuser = *superuser;
                (name.clone(), Login { superuser, method })
            });
        logins.collect()
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("standbys", &self.standbys)
            .field("users", &self.users)
            .field("databases", &self.databases)
            .field("settings", &self.settings)
            .field("lag", &(self.receive_delay, self.replay_delay))
            .field("synchronous", &self.synchronous)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cleartext(_) => "Cleartext",
            Self::Md5(_) => "Md5",
            Self::Scram(_) => "Scram",
            Self::Trust => "Trust",
        })
    }
}
