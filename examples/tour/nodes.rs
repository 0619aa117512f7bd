//! Where the tour goes: the servers that the environment names, or a throwaway primary with a streaming standby.
//!
//! Before the first chapter. Throwaway servers are stopped and removed when [`Nodes`] is dropped; when the program is killed
//! or stopped by Ctrl-C, their watchdogs do it.

use std::env;
use std::panic::{self, AssertUnwindSafe};

use crate::cluster::{Auth, Cluster, ClusterOptions, Server, free_port};

/// The nodes of the tour, as connection strings.
pub(crate) struct Nodes {
    pub(crate) primary: String,
    pub(crate) replica: String,
    /// Whether `replica` leads to a standby, and not to the primary once more.
    pub(crate) has_standby: bool,
    /// The standby first: it goes first. Empty on servers of the environment.
    throwaway: Vec<Cluster>,
}

impl Nodes {
    /// The servers of the environment, else new ones.
    pub(crate) fn find() -> Result<Self, String> {
        let named = |variable| env::var(variable).ok().filter(|value| !value.is_empty());
        match (named("DATABASE_URL"), named("REPLICA_URL")) {
            (Some(primary), Some(replica)) => {
                println!("Servers: the primary of DATABASE_URL and the standby of REPLICA_URL");
                Ok(Self {
                    primary,
                    replica,
                    has_standby: true,
                    throwaway: Vec::new(),
                })
            }
            (Some(primary), None) => {
                println!("Servers: DATABASE_URL, also for reads, because REPLICA_URL is not set");
                Ok(Self {
                    replica: primary.clone(),
                    primary,
                    has_standby: false,
                    throwaway: Vec::new(),
                })
            }
            (None, Some(_)) => Err("REPLICA_URL is set, but DATABASE_URL is not".to_owned()),
            (None, None) => Self::start(),
        }
    }

    fn start() -> Result<Self, String> {
        println!("Servers: a throwaway primary and standby (DATABASE_URL is not set); starting them");
        let password = "tour's own".to_owned();
        let options = ClusterOptions::new(Server::V15).auth(Auth::Scram { password });
        let primary = started(|| Cluster::start(options))?;
        let standby = started(|| primary.standby())?;
        println!(
            "         primary on port {}, standby on port {}",
            primary.port(),
            standby.port()
        );
        Ok(Self {
            primary: primary.dsn(),
            replica: standby.dsn(),
            has_standby: true,
            throwaway: vec![standby, primary],
        })
    }

    /// Whether the servers are the tour's own, which check passwords.
    pub(crate) fn are_throwaway(&self) -> bool {
        !self.throwaway.is_empty()
    }

    /// The primary, with another password: of two in one connection string the last one counts.
    pub(crate) fn with_password(&self, password: &str) -> String {
        let is_url = self.primary.starts_with("postgres://") || self.primary.starts_with("postgresql://");
        let joint = match (is_url, self.primary.contains('?')) {
            (false, _) => ' ',
            (true, false) => '?',
            (true, true) => '&',
        };
        format!("{}{joint}password={password}", self.primary)
    }

    /// An address of this machine that nobody listens on.
    pub(crate) fn dead() -> String {
        format!("host=127.0.0.1 port={} user=app dbname=postgres", free_port())
    }
}

/// What starts servers panics with a message for people, in tests the right thing; here it becomes an error.
fn started(start: impl FnOnce() -> Cluster) -> Result<Cluster, String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let cluster = panic::catch_unwind(AssertUnwindSafe(start));
    panic::set_hook(hook);
    cluster.map_err(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        message
            .unwrap_or("the throwaway servers could not be started")
            .to_owned()
    })
}
