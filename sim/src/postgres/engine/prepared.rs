//! Plans and the names they go by: PREPARE, the protocol's named statements, the plan cache.
//!
//! Between a session and analysis. A plain machine.

use std::sync::Arc;

use super::door::ColumnDescription;
use super::plan::Plan;
use super::session::Prepared;
use super::{Engine, MAX_CACHED, PlanKey, Statement, analyse, ast};
use crate::wire::Report;

impl Engine {
    /// Makes a plan. In a failed transaction only statements that end it have one.
    pub(crate) fn prepare(&mut self, pid: i32, statement: &Arc<Statement>, types: &[u32]) -> Result<Plan, Report> {
        self.usable(pid, &statement.parsed)?;
        self.planned(pid, statement, types)
    }

    pub(super) fn planned(&mut self, pid: i32, statement: &Arc<Statement>, types: &[u32]) -> Result<Plan, Report> {
        let session = self.session(pid);
        let shared = session.temporary.is_empty()
            && session
                .transaction
                .as_ref()
                .is_none_or(|transaction| transaction.undo.is_empty());
        let path = &session.values.hot().search_path;
        let user = path.contains("$user").then(|| self.current_user(pid));
        let version = self.catalog.version;
        let fixed = super::plan::is_fixed(&statement.parsed);
        let shared = fixed || (shared && super::plan::is_planned(&statement.parsed));
        if shared && let Some(cached) = self.plans.get(&statement.text) {
            let found = cached.plans.iter().find(|(of, plan)| {
                let here = || of.database == session.database && of.search_path == *path && of.user.as_deref() == user;
                plan.given() == types && (fixed || (here() && plan.is_fresh(version, plan.search_path())))
            });
            if let Some((_, plan)) = found {
                return Ok(plan.clone());
            }
        }
        let key = PlanKey {
            database: session.database.clone(),
            search_path: path.clone(),
            user: user.map(str::to_owned),
        };
        let plan = analyse::analyse(self, pid, statement, types).inspect_err(|report| self.count(report))?;
        if shared {
            if self.plans.len() >= MAX_CACHED {
                self.plans.clear();
            }
            let cached = self.plans.entry(statement.text.clone()).or_default();
            cached
                .plans
                .retain(|(_, plan)| plan.is_fresh(version, plan.search_path()));
            cached.plans.push((key, plan.clone()));
        }
        Ok(plan)
    }

    /// The plan as it must be now, made anew if the catalog has changed since.
    pub(super) fn refreshed(&mut self, pid: i32, plan: &Plan) -> Result<Plan, Report> {
        let path = &self.session(pid).values.hot().search_path;
        if plan.is_fresh(self.catalog.version, path) {
            return Ok(plan.clone());
        }
        let fresh = self.planned(pid, plan.statement(), plan.parameters())?;
        if fresh.columns() != plan.columns() {
            return Err(Report::error("0A000", "cached plan must not change result type"));
        }
        Ok(fresh)
    }

    /// Refuses all but the end of the transaction when it has failed.
    pub(super) fn usable(&self, pid: i32, statement: &ast::Statement) -> Result<(), Report> {
        let failed = self
            .session(pid)
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.failed);
        let ends = matches!(
            statement,
            ast::Statement::Commit { .. } | ast::Statement::Rollback { .. } | ast::Statement::RollbackTo(_)
        );
        if failed && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Report::error("25P02", message));
        }
        Ok(())
    }

    /// Keeps a plan under a name; the empty name is free again each time.
    pub(crate) fn store_statement(&mut self, pid: i32, name: &str, plan: Plan, wall: i64) -> Result<(), Report> {
        let text = Arc::clone(plan.text());
        self.keep(pid, name, plan, text, false, wall)
    }

    pub(super) fn keep(
        &mut self,
        pid: i32,
        name: &str,
        plan: Plan,
        text: Arc<str>,
        from_sql: bool,
        at: i64,
    ) -> Result<(), Report> {
        let statements = &mut self.session_mut(pid).statements;
        if !name.is_empty() && statements.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Report::error("42P05", message));
        }
        let prepared = Prepared {
            plan,
            from_sql,
            at,
            text,
        };
        statements.insert(name.to_owned(), prepared);
        Ok(())
    }

    /// The plan of that name.
    pub(crate) fn statement(&self, pid: i32, name: &str) -> Result<Plan, Report> {
        let found = self
            .session(pid)
            .statements
            .get(name)
            .map(|prepared| prepared.plan.clone());
        found.ok_or_else(|| {
            Report::error(
                "26000",
                match name {
                    "" => "unnamed prepared statement does not exist".to_owned(),
                    name => format!("prepared statement \"{name}\" does not exist"),
                },
            )
        })
    }

    /// Forgets the plan of that name, if there is one.
    pub(crate) fn drop_statement(&mut self, pid: i32, name: &str) {
        self.session_mut(pid).statements.remove(name);
    }

    /// The columns of the rows that statements without a plan of their own give.
    pub(super) fn control_columns(
        &self,
        pid: i32,
        statement: &ast::Statement,
    ) -> Result<Option<Arc<[ColumnDescription]>>, Report> {
        use super::types::TEXT;
        let text = |name: &str| ColumnDescription {
            name: name.to_owned(),
            type_oid: TEXT.oid(),
            size: TEXT.size(),
            typmod: -1,
            table_oid: 0,
            attribute: 0,
        };
        Ok(match statement {
            ast::Statement::Show(None) => Some(Arc::from([text("name"), text("setting"), text("description")])),
            ast::Statement::Show(Some(name)) => {
                let shown = super::settings::find(name).map_or(name.as_str(), |setting| setting.name);
                if self.show(pid, name).is_none() {
                    return Err(super::settings::unknown(name));
                }
                Some(Arc::from([text(shown)]))
            }
            ast::Statement::Fetch {
                cursor,
                only_move: false,
                ..
            } => {
                let portal = self.session(pid).portals.get(cursor);
                portal.and_then(|portal| portal.columns.clone())
            }
            ast::Statement::Execute { name, .. } => {
                let prepared = self.session(pid).statements.get(name);
                prepared.and_then(|prepared| prepared.plan.shared_columns())
            }
            _ => None,
        })
    }
}
