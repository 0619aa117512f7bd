//! Where the tour goes: a simulated primary and standby, the servers that the environment names, or a throwaway primary with
//! a streaming standby.
//!
//! Before the first chapter. Throwaway servers are stopped and removed when [`Nodes`] is dropped; when the program is killed
//! or stopped by Ctrl-C, their watchdogs do it.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::time::Duration;

use gdbpool_sim::wire::Report;
use gdbpool_sim::{Authentication, PipeOptions, Sim};

use crate::cluster::{Auth, Cluster, ClusterOptions, Server, free_port};

/// The servers of the tour's own check passwords.
const PASSWORD: &str = "tour's own";

/// One way through the simulated network.
const LATENCY: Duration = Duration::from_micros(100);

/// The nodes of the tour, as connection strings.
pub(crate) struct Nodes {
    pub(crate) primary: String,
    pub(crate) replica: String,
    /// Whether `replica` leads to a standby, and not to the primary once more.
    pub(crate) has_standby: bool,
    /// The run in which simulated nodes live.
    pub(crate) sim: Option<Sim>,
    /// The standby first: it goes first. Empty unless they are real and the tour's own.
    throwaway: Vec<Cluster>,
}

/// Which nodes, where the environment names none.
pub(crate) enum Wanted {
    /// Simulated, in a run with this seed.
    Simulated(u64),
    /// Real, made for the tour.
    Throwaway,
}

impl Nodes {
    /// The servers of the environment, else what is wanted.
    pub(crate) fn find(wanted: &Wanted) -> Result<Self, String> {
        let named = |variable| env::var(variable).ok().filter(|value| !value.is_empty());
        match (named("DATABASE_URL"), named("REPLICA_URL")) {
            (Some(primary), Some(replica)) => {
                println!("Servers: the primary of DATABASE_URL and the standby of REPLICA_URL");
                Ok(Self {
                    primary,
                    replica,
                    has_standby: true,
                    sim: None,
                    throwaway: Vec::new(),
                })
            }
            (Some(primary), None) => {
                println!("Servers: DATABASE_URL, also for reads, because REPLICA_URL is not set");
                Ok(Self {
                    replica: primary.clone(),
                    primary,
                    has_standby: false,
                    sim: None,
                    throwaway: Vec::new(),
                })
            }
            (None, Some(_)) => Err("REPLICA_URL is set, but DATABASE_URL is not".to_owned()),
            (None, None) => match wanted {
                Wanted::Simulated(seed) => Ok(Self::simulate(*seed)),
                Wanted::Throwaway => Self::start(),
            },
        }
    }

    fn simulate(seed: u64) -> Self {
        println!("Servers: a simulated primary and standby, seed {seed} (--real for real ones, or DATABASE_URL)");
        let sim = Sim::new(seed);
        sim.set_pipe_options(PipeOptions {
            latency: LATENCY,
            ..PipeOptions::default()
        });
        let config = gdbpool_sim::ClusterConfig::new().standbys(1);
        let config = config.user("app", Authentication::Scram(PASSWORD.to_owned()));
        let cluster = gdbpool_sim::Cluster::new(&sim, config);
        // The simulator knows no PL/pgSQL: this is how such a statement gets its answer.
        cluster.respond("DO $$ BEGIN RAISE EXCEPTION 'a conflict'", &[], &[], |_, _| {
            Err(Report::error("40001", "a conflict"))
        });
        let dsn = |node: &str| format!("{} password='{}'", cluster.dsn(node), PASSWORD.replace('\'', "\\'"));
        Self {
            primary: dsn("n0"),
            replica: dsn("n1"),
            has_standby: true,
            sim: Some(sim),
            throwaway: Vec::new(),
        }
    }

    fn start() -> Result<Self, String> {
        println!("Servers: a throwaway primary and standby (DATABASE_URL is not set); starting them");
        let password = PASSWORD.to_owned();
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
            sim: None,
            throwaway: vec![standby, primary],
        })
    }

    /// Whether the servers are the tour's own, which check passwords.
    pub(crate) fn are_its_own(&self) -> bool {
        self.sim.is_some() || !self.throwaway.is_empty()
    }

    /// The table's name: of its own on servers that are shared, always the same in a simulated run.
    pub(crate) fn table(&self) -> String {
        match self.sim {
            Some(_) => "gdbpool_tour".to_owned(),
            None => format!("gdbpool_tour_{}", process::id()),
        }
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

    /// An address that nobody listens on.
    pub(crate) fn dead(&self) -> String {
        let port = if self.sim.is_some() { 5433 } else { free_port() };
        format!("host=127.0.0.1 port={port} user=app dbname=postgres")
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
