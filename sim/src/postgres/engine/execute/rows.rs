//! Row locks: what FOR UPDATE, UPDATE and DELETE do before they use a row.
//!
//! A part of execution. A plain machine. A row that changed since the statement's view is used as it is now under READ COMMITTED, and
//! ends the transaction with 40001 under the higher levels.

use super::{Context, Row, Stop, Tuple};
use crate::postgres::engine::ast::{Isolation, LockWait, RowLock};
use crate::postgres::engine::heap::Fate;
use crate::postgres::engine::locks::{Mode, Resource};
use crate::postgres::engine::plan::{BodyPlan, SelectPlan, Source};
use crate::wire::Report;

/// How a row is found once it is locked.
#[derive(Debug)]
pub(super) enum Locked {
    /// With these values now.
    Changed(Row),
    /// It is not there any more, or the statement itself has changed it.
    Gone,
    Same,
    /// Somebody else has it, and the caller does not want to wait.
    Skipped,
}

impl Context<'_> {
    /// Locks a row until the transaction ends.
    pub(super) fn lock_row(
        &mut self,
        (table, row): (u32, u64),
        strength: RowLock,
        wait: LockWait,
    ) -> Result<Locked, Stop> {
        let own = self.own();
        let (resource, mode) = (Resource::Row { table, row }, Mode::Row(strength));
        if let Err(holders) = self.engine.locks.acquire(self.pid, resource, mode) {
            return match wait {
                LockWait::SkipLocked => Ok(Locked::Skipped),
                LockWait::NoWait => {
                    let name = self.engine.relation_name(table).unwrap_or_default();
                    Err(Report::error("55P03", format!("could not obtain lock on row in relation \"{name}\"")).into())
                }
                LockWait::Wait => {
                    let name = self.engine.relation_name(table).unwrap_or_default();
                    let what = format!("while locking tuple (0,{row}) in relation \"{name}\"");
                    Err(self.engine.wait_for(self.pid, resource, mode, holders, what))
                }
            };
        }
        let Some(newest) = self
            .engine
            .catalog
            .table(table)
            .and_then(|(_, heap)| heap.rows.get(&row))
            .and_then(|versions| versions.last())
        else {
            return self.vanished("delete").map(|()| Locked::Gone);
        };
        let (made_by, made_at, ended_by) = (newest.made_by, newest.made_at, newest.ended_by);
        let data = newest.data.clone();
        if ended_by == own {
            return Ok(Locked::Gone);
        }
        let after = |fate: Fate, commits: u64| matches!(fate, Fate::Committed(at) if at > commits);
        let transactions = &self.engine.transactions;
        if ended_by != 0 && matches!(transactions.fate(ended_by), Fate::Committed(_)) {
            return self.vanished("delete").map(|()| Locked::Gone);
        }
        if made_by == own {
            return Ok(if made_at >= self.view.command {
                Locked::Gone
            } else {
                Locked::Same
            });
        }
        if after(transactions.fate(made_by), self.view.commits) {
            self.vanished("update")?;
            return Ok(Locked::Changed(data));
        }
        Ok(Locked::Same)
    }

    /// Refuses to go on with a row that somebody changed, unless the level allows it.
    fn vanished(&self, what: &str) -> Result<(), Stop> {
        let transaction = self.session().transaction.as_ref();
        match transaction.map(|transaction| transaction.isolation) {
            Some(Isolation::ReadCommitted) | None => Ok(()),
            Some(_) => {
                let message = format!("could not serialize access due to concurrent {what}");
                Err(Report::error("40001", message).into())
            }
        }
    }

    /// Locks rows of a query one after another, up to its limit.
    pub(super) fn locked(
        &mut self,
        plan: &SelectPlan,
        rows: Vec<Tuple>,
        (offset, limit): (usize, Option<usize>),
    ) -> Result<Vec<Tuple>, Stop> {
        let most = limit.map_or(usize::MAX, |limit| offset.saturating_add(limit));
        let mut kept = Vec::new();
        if most == 0 {
            return Ok(kept);
        }
        'rows: for mut tuple in rows {
            for origin in tuple.origins.clone() {
                let Some((strength, wait)) = strength(plan, origin.0) else {
                    continue;
                };
                match self.lock_row(origin, strength, wait)? {
                    Locked::Same => {}
                    Locked::Gone | Locked::Skipped => continue 'rows,
                    Locked::Changed(data) => match self.again(plan, data, &tuple)? {
                        Some(changed) => tuple = changed,
                        None => continue 'rows,
                    },
                }
            }
            kept.push(tuple);
            if kept.len() >= most {
                break;
            }
        }
        kept.drain(..offset.min(kept.len()));
        Ok(kept)
    }

    /// The result row of a table row that has new values, if it still qualifies.
    fn again(&mut self, plan: &SelectPlan, data: Row, old: &Tuple) -> Result<Option<Tuple>, Stop> {
        let BodyPlan::Select(core) = &plan.body else {
            return Ok(None);
        };
        if !matches!(core.from, Source::Table { .. }) {
            let message = "gdbpool-sim does not support row locks over joins whose rows change meanwhile";
            return Err(Report::error("0A000", message).into());
        }
        if !self.holds(core.filter.as_ref(), &data)? {
            return Ok(None);
        }
        let row = Tuple {
            data,
            origins: old.origins.clone(),
        };
        self.target(core, &row).map(Some)
    }
}

/// How the query locks rows of a table; the strongest clause counts.
fn strength(plan: &SelectPlan, table: u32) -> Option<(RowLock, LockWait)> {
    let clauses = plan
        .locks
        .iter()
        .filter(|clause| clause.tables.as_ref().is_none_or(|tables| tables.contains(&table)));
    let clause = clauses.max_by_key(|clause| clause.strength)?;
    Some((clause.strength, clause.wait))
}
