//! Statements run on a node from outside the network: set-up, and looks at what is there.
//!
//! Synchronous: what would have to wait is refused. It uses a session of its own in the engine, without a connection.

use std::fmt;

use super::{Cluster, World, lock};
use crate::postgres::engine::{Completion, Progress};
use crate::wire::Report;

/// Where statements from outside run, if nothing else is said.
pub(super) const DATABASE: &str = "postgres";

/// Why a statement from outside was not run to its end; its transaction is rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectError {
    /// The node is down, or just starting.
    Down,
    /// The statement failed.
    Failed(Report),
    /// It would have to wait for another session, for time, or for a client's rows.
    Waits,
}

impl Cluster {
    /// Runs statements on a node as user `postgres`, in one transaction, outside the network and without taking time.
    ///
    /// Gives the rows of the last statement, as text. Standbys get its changes as those of any other statement.
    ///
    /// # Errors
    /// What failed; nothing has happened then.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn execute(&self, node: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, DirectError> {
        let index = self.index(node);
        lock(self.world()).execute(index, DATABASE, sql)
    }

    /// Runs statements on the primary, and lets every standby that is up receive and replay them at once, whatever its lag.
    ///
    /// # Errors
    /// What failed; nothing has happened then. [`DirectError::Down`] if there is no primary.
    pub fn set_up(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, DirectError> {
        self.set_up_in(DATABASE, sql)
    }

    /// [`Cluster::set_up`] in another database than `postgres`.
    ///
    /// # Errors
    /// As there; also when there is no such database (see [`ClusterConfig::database`](crate::ClusterConfig::database)).
    pub fn set_up_in(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, DirectError> {
        let mut world = lock(self.world());
        let primary = world.primary().ok_or(DirectError::Down)?;
        let rows = world.execute(primary, database, sql)?;
        world.catch_up();
        world.nodes.iter_mut().for_each(|node| node.disk.keep());
        Ok(rows)
    }
}

impl World {
    pub(crate) fn execute(
        &mut self,
        node: usize,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, DirectError> {
        if !self.nodes[node].is_up() {
            return Err(DirectError::Down);
        }
        let (pid, _) = self.new_pid();
        let opened = self.engine(node, pid, |engine, _| {
            engine.open(pid, "postgres", database, &Default::default())
        });
        opened.map_err(DirectError::Failed)?;
        let result = self.execute_all(node, pid, sql);
        self.engine(node, pid, |engine, _| engine.close(pid));
        let Some(completion) = result? else {
            return Ok(Vec::new());
        };
        let columns = completion.columns.as_deref().unwrap_or_default();
        let rows = completion.rows.iter().map(|row| {
            let values = row.iter().enumerate().map(|(place, value)| {
                let of = columns.get(place).map_or(0, |column| column.type_oid);
                let bytes = value.encode(of, false);
                bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            });
            values.collect()
        });
        Ok(rows.collect())
    }

    pub(crate) fn execute_all(&mut self, node: usize, pid: i32, sql: &str) -> Result<Option<Completion>, DirectError> {
        let statements = self
            .engine(node, pid, |engine, _| engine.parse(sql))
            .map_err(DirectError::Failed)?;
        let block = statements.len() > 1;
        let mut last = None;
        for statement in &statements {
            let plan = self.engine(node, pid, |engine, _| engine.prepare(pid, statement, &[]));
            let plan = plan.map_err(DirectError::Failed)?;
            let progress = self.engine(node, pid, |engine, moment| engine.run(pid, &plan, block, moment));
            let mut completion = self.finish_direct(node, pid, progress)?;
            if completion.columns.is_none() {
                completion.columns = plan.columns().map(Into::into);
            }
            last = Some(completion);
        }
        let progress = self.engine(node, pid, |engine, moment| engine.end_implicit(pid, moment));
        self.finish_direct(node, pid, progress)?;
        Ok(last)
    }

    fn finish_direct(&mut self, node: usize, pid: i32, progress: Progress) -> Result<Completion, DirectError> {
        match progress {
            Progress::Done(completion) => Ok(*completion),
            Progress::Failed(report) => Err(DirectError::Failed(report)),
            Progress::Waiting(crate::postgres::engine::Wait::SyncReplication { .. }) => {
                // Set-up does not wait for standbys; they get it like anything else.
                let progress = self.engine(node, pid, |engine, _| engine.confirm_commit(pid));
                match progress {
                    Progress::Done(completion) => Ok(*completion),
                    Progress::Failed(report) => Err(DirectError::Failed(report)),
                    _ => Err(DirectError::Waits),
                }
            }
            Progress::Waiting(_) | Progress::CopyIn { .. } | Progress::CopyOut { .. } => Err(DirectError::Waits),
        }
    }
}

impl fmt::Display for DirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("the node is down; nothing was executed"),
            Self::Failed(report) => write!(
                f,
                "{} {}; the statements were rolled back",
                report.sqlstate, report.message
            ),
            Self::Waits => f.write_str("a statement would have to wait; the statements were rolled back"),
        }
    }
}

impl std::error::Error for DirectError {}
