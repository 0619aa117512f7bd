//! The verbs of a session: transactions, settings, channels, cursors, prepared statements, definitions.
//!
//! Called by the runner for statements without a plan. A plain machine.

use std::sync::Arc;

use super::analyse::Analyser;
use super::ast::{self, DiscardKind};
use super::door::{Completion, Moment};
use super::execute::{Context, Stop, made};
use super::functions;
use super::locks::TableLock;
use super::run::Answer;
use super::session::{ChannelAction, Kind};
use super::types::Type;
use super::types::datum::Datum;
use super::wal::{Change, WalKind};
use super::{Engine, Statement};
use crate::wire::Report;

impl Engine {
    pub(super) fn control(
        &mut self,
        pid: i32,
        statement: &Arc<Statement>,
        parameters: &[Datum],
        block: bool,
        at: Moment,
    ) -> Result<Answer, Stop> {
        use ast::Statement as S;
        if let Some(answer) = self.block_verb(pid, statement, at)? {
            return Ok(answer);
        }
        let tag = match &statement.parsed {
            S::Set { name, values, local } => {
                self.set_verb(pid, name, values.as_deref(), *local)?;
                "SET"
            }
            S::Reset(None) => {
                self.reset_all(pid);
                "RESET"
            }
            S::Reset(Some(name)) => {
                self.set(pid, name, None, false)?;
                "RESET"
            }
            S::Show(name) => return self.show_verb(pid, name.as_deref()).map(Answer::Done),
            S::Discard(kind) => return self.discard(pid, *kind, block).map(|tag| Answer::Done(plain(tag))),
            S::Listen(_) | S::Unlisten(_) | S::Notify { .. } => self.channel_verb(pid, &statement.parsed, at)?,
            S::Lock { tables, mode, nowait } => {
                self.lock_verb(pid, tables, *mode, *nowait)?;
                "LOCK TABLE"
            }
            S::Declare(declare) => {
                self.declare(pid, statement, declare, at)?;
                "DECLARE CURSOR"
            }
            S::Fetch {
                cursor,
                direction,
                only_move,
            } => return self.fetch(pid, cursor, *direction, *only_move, at).map(Answer::Done),
            S::Close(name) => {
                self.close_cursor(pid, name.as_deref())?;
                if name.is_none() {
                    "CLOSE CURSOR ALL"
                } else {
                    "CLOSE CURSOR"
                }
            }
            S::Prepare { .. } | S::Deallocate(_) => self.prepare_verb(pid, &statement.parsed, at)?,
            S::Execute { name, arguments } => return self.execute_verb(pid, statement, (name, arguments), at),
            S::Copy { .. } => return self.copy_verb(pid, statement, at),
            S::CreateTableAs { .. } => return self.create_table_as(pid, statement, parameters, at),
            S::Checkpoint => {
                self.checkpoint(at);
                "CHECKPOINT"
            }
            S::Vacuum => {
                self.outside_of_blocks(pid, "VACUUM", block)?;
                "VACUUM"
            }
            S::Analyze => "ANALYZE",
            other => self.definition(pid, other, at)?,
        };
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            let steers = matches!(statement.parsed, S::Set { .. } | S::Reset(_));
            if !steers {
                transaction.command += 1;
            }
        }
        Ok(Answer::Done(plain(tag)))
    }

    fn definition(&mut self, pid: i32, statement: &ast::Statement, at: Moment) -> Result<&'static str, Stop> {
        use ast::Statement as S;
        Ok(match statement {
            S::CreateTable(create) => {
                self.create_table(pid, create, at)?;
                "CREATE TABLE"
            }
            S::CreateIndex { .. } => {
                self.create_index(pid, statement)?;
                "CREATE INDEX"
            }
            S::CreateSequence { .. } => {
                self.create_sequence(pid, statement)?;
                "CREATE SEQUENCE"
            }
            S::CreateSchema { name, if_not_exists } => {
                self.create_schema(pid, name, *if_not_exists)?;
                "CREATE SCHEMA"
            }
            S::Drop {
                kind,
                names,
                if_exists,
                cascade,
            } => {
                self.drop_objects(pid, *kind, names, (*if_exists, *cascade))?;
                match kind {
                    ast::ObjectKind::Index => "DROP INDEX",
                    ast::ObjectKind::Schema => "DROP SCHEMA",
                    ast::ObjectKind::Sequence => "DROP SEQUENCE",
                    ast::ObjectKind::Table => "DROP TABLE",
                }
            }
            S::Truncate {
                tables,
                restart,
                cascade,
            } => {
                self.truncate(pid, tables, *restart, *cascade, at)?;
                "TRUNCATE TABLE"
            }
            S::AlterTable {
                name,
                if_exists,
                actions,
            } => {
                self.alter_table(pid, name, *if_exists, actions, at)?;
                "ALTER TABLE"
            }
            _ => return Err(super::parser::judge_unsupported("this statement").into()),
        })
    }

    fn set_verb(&mut self, pid: i32, name: &str, values: Option<&[String]>, local: bool) -> Result<(), Report> {
        if local && self.kind(pid) == Some(Kind::Implicit) {
            let notice = Report::warning("25P01", "SET LOCAL can only be used in transaction blocks");
            self.session_mut(pid).notice(notice);
        }
        let value = match values {
            None => None,
            Some([value]) if name != "search_path" => Some(value.clone()),
            Some(values) if ["search_path", "datestyle", "DateStyle"].contains(&name) => {
                let quoted = |value: &String| match name {
                    "search_path" => functions::strings::quote_ident(value),
                    _ => value.clone(),
                };
                Some(values.iter().map(quoted).collect::<Vec<_>>().join(", "))
            }
            Some(_) => {
                let message = format!("SET {name} takes only one argument");
                return Err(Report::error("22023", message));
            }
        };
        self.set(pid, name, value.as_deref(), local)
    }

    fn show_verb(&mut self, pid: i32, name: Option<&str>) -> Result<Completion, Stop> {
        let columns = self.control_columns(pid, &ast::Statement::Show(name.map(str::to_owned)))?;
        let rows = match name {
            Some(name) => {
                let value = self.show(pid, name).ok_or_else(|| super::settings::unknown(name))?;
                vec![made(vec![Datum::text(value)])]
            }
            None => {
                let row = |(setting, value): (&'static super::settings::Setting, String)| {
                    made(vec![
                        Datum::text(setting.name),
                        Datum::text(setting.show(&value)),
                        Datum::text(""),
                    ])
                };
                self.all_settings(pid).into_iter().map(row).collect()
            }
        };
        Ok(Completion {
            columns,
            rows,
            ..plain("SHOW")
        })
    }

    /// Some verbs must be alone.
    fn outside_of_blocks(&self, pid: i32, what: &str, block: bool) -> Result<(), Report> {
        let in_block = self.kind(pid) == Some(Kind::Block);
        if in_block || block {
            return Err(Report::error(
                "25001",
                format!("{what} cannot run inside a transaction block"),
            ));
        }
        Ok(())
    }

    fn discard(&mut self, pid: i32, kind: DiscardKind, block: bool) -> Result<&'static str, Stop> {
        let sequences = |engine: &mut Self| {
            let session = engine.session_mut(pid);
            session.current.clear();
            session.last_sequence = None;
        };
        Ok(match kind {
            DiscardKind::Plans => "DISCARD PLANS",
            DiscardKind::Sequences => {
                sequences(self);
                "DISCARD SEQUENCES"
            }
            DiscardKind::Temp => {
                self.drop_temporary(pid);
                "DISCARD TEMP"
            }
            DiscardKind::All => {
                self.outside_of_blocks(pid, "DISCARD ALL", block)?;
                self.session_mut(pid).portals.clear();
                self.set(pid, "session_authorization", None, false)?;
                self.set(pid, "role", None, false)?;
                self.reset_all(pid);
                self.session_mut(pid).statements.clear();
                self.queue_channel(pid, ChannelAction::UnlistenAll);
                self.locks.release_session(pid);
                self.drop_temporary(pid);
                sequences(self);
                "DISCARD ALL"
            }
        })
    }

    fn channel_verb(&mut self, pid: i32, statement: &ast::Statement, at: Moment) -> Result<&'static str, Stop> {
        Ok(match statement {
            ast::Statement::Listen(channel) => {
                self.require_primary("LISTEN")?;
                self.queue_channel(pid, ChannelAction::Listen(channel.clone()));
                "LISTEN"
            }
            ast::Statement::Notify { channel, payload } => {
                self.require_primary("NOTIFY")?;
                let view = self.view(pid);
                functions::system::notify(&mut Context::new(self, pid, at, &[], view), channel, payload)?;
                "NOTIFY"
            }
            ast::Statement::Unlisten(Some(channel)) => {
                self.queue_channel(pid, ChannelAction::Unlisten(channel.clone()));
                "UNLISTEN"
            }
            _ => {
                self.queue_channel(pid, ChannelAction::UnlistenAll);
                "UNLISTEN"
            }
        })
    }

    fn lock_verb(&mut self, pid: i32, tables: &[ast::ObjectName], mode: TableLock, nowait: bool) -> Result<(), Stop> {
        if self.kind(pid) == Some(Kind::Implicit) {
            return Err(Report::error("25P01", "LOCK TABLE can only be used in transaction blocks").into());
        }
        if mode > TableLock::RowExclusive {
            self.require_primary("LOCK TABLE")?;
        }
        for name in tables {
            let oid = self.existing_table(pid, name)?;
            match self.lock_table(pid, oid, mode) {
                Err(Stop::Wait(_)) if nowait => {
                    self.locks.stop_waiting(pid);
                    let message = format!("could not obtain lock on relation \"{}\"", name.name);
                    return Err(Report::error("55P03", message).into());
                }
                other => other?,
            }
            if mode == TableLock::AccessExclusive && !self.role.is_standby() {
                self.assign_xid(pid);
                if let Some(transaction) = self.transaction(pid) {
                    transaction.changes.push(Change::Lock(oid));
                }
            }
        }
        Ok(())
    }

    fn prepare_verb(&mut self, pid: i32, statement: &ast::Statement, at: Moment) -> Result<&'static str, Stop> {
        match statement {
            ast::Statement::Prepare {
                name,
                types,
                statement,
                text,
            } => {
                let oids: Result<Vec<u32>, Report> = types
                    .iter()
                    .map(|of| super::analyse::resolve_type(of).map(|(of, _)| of.oid()))
                    .collect();
                let inner = Self::inner(statement, text);
                let plan = self.planned(pid, &inner, &oids?)?;
                let types: Vec<String> = types.iter().map(|of| of.name.clone()).collect();
                let types = if types.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", types.join(", "))
                };
                self.keep(
                    pid,
                    name,
                    plan,
                    format!("PREPARE {name}{types} AS {text};").into(),
                    true,
                    at.wall,
                )?;
                Ok("PREPARE")
            }
            ast::Statement::Deallocate(Some(name)) => {
                self.statement(pid, name)?;
                self.drop_statement(pid, name);
                Ok("DEALLOCATE")
            }
            _ => {
                self.session_mut(pid).statements.clear();
                Ok("DEALLOCATE ALL")
            }
        }
    }

    fn execute_verb(
        &mut self,
        pid: i32,
        statement: &Arc<Statement>,
        (name, arguments): (&str, &[ast::Expression]),
        at: Moment,
    ) -> Result<Answer, Stop> {
        let plan = self.statement(pid, name)?;
        let plan = self.refreshed(pid, &plan)?;
        let wanted = plan.parameters().to_vec();
        if wanted.len() != arguments.len() {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {} parameters but got {}.", wanted.len(), arguments.len());
            return Err(Report::error("42601", message).detail(detail).into());
        }
        let mut values = Vec::with_capacity(arguments.len());
        for (argument, oid) in arguments.iter().zip(&wanted) {
            let of = Type::from_oid(*oid).unwrap_or(super::types::TEXT);
            let ex = Analyser::new(self, pid, &statement.text)
                .fixed()
                .constant(argument, of, -1)?;
            let view = self.view(pid);
            values.push(Context::new(self, pid, at, &[], view).value(&ex, &[])?);
        }
        let (tag, rows) = self.planned_once(pid, &plan, &values, at)?;
        Ok(Answer::Done(self.completed(pid, &plan, tag, rows)))
    }

    fn create_table_as(
        &mut self,
        pid: i32,
        statement: &Arc<Statement>,
        parameters: &[Datum],
        at: Moment,
    ) -> Result<Answer, Stop> {
        let ast::Statement::CreateTableAs {
            name,
            temporary,
            if_not_exists,
            columns: names,
            query,
            with_data,
            on_commit,
            select_into,
        } = &statement.parsed
        else {
            return Ok(Answer::Done(plain("")));
        };
        let verb = if *select_into { "SELECT INTO" } else { "CREATE TABLE AS" };
        if !temporary || self.role.is_standby() {
            self.require_writable(pid, verb)?;
        }
        let schema = self.creation_schema(pid, name, *temporary)?;
        if !self.free_name(pid, &schema, &name.name)? {
            self.exists_already(pid, &name.name, *if_not_exists)?;
            return Ok(Answer::Done(plain("CREATE TABLE AS")));
        }
        let (select, _) = Analyser::new(self, pid, &statement.text).standalone(query)?;
        let view = self.view(pid);
        let rows = match with_data {
            true => Context::new(self, pid, at, parameters, view).query(&select, &[])?,
            false => Vec::new(),
        };
        let mut outputs = select.columns.clone();
        for (output, name) in outputs.iter_mut().zip(names) {
            output.name.clone_from(name);
        }
        let mut table = self.blank_table(pid, &schema, &name.name, *on_commit);
        for output in &outputs {
            if table.column(&output.name).is_some() {
                let message = format!("column \"{}\" specified more than once", output.name);
                return Err(Report::error("42701", message).into());
            }
            table.columns.push(super::catalog::Column {
                name: output.name.clone(),
                of: output.of,
                modifier: output.modifier,
                not_null: false,
                default: None,
                identity: None,
                dropped: false,
            });
        }
        let oid = table.oid;
        self.make_table(pid, table)?;
        let definition = self.catalog.table(oid).map(|(table, _)| Arc::clone(table));
        let mut count = 0;
        if let Some(definition) = definition {
            let view = self.view(pid);
            count = Context::new(self, pid, at, &[], view).copy_rows(&definition, &[], rows)?;
        }
        if let Some(transaction) = self.transaction(pid) {
            transaction.command += 1;
        }
        let tag = if *with_data {
            format!("SELECT {count}")
        } else {
            "CREATE TABLE AS".to_owned()
        };
        Ok(Answer::Done(plain(&tag)))
    }

    fn checkpoint(&mut self, at: Moment) {
        if !self.role.is_standby() {
            let start = self.wal.end();
            self.write_wal(at.wall, WalKind::Checkpoint);
            self.recovery.checkpoint = start;
            self.recovery.checkpoint_timeline = self.role.timeline();
        }
    }
}

pub(super) fn plain(tag: &str) -> Completion {
    Completion {
        tag: tag.to_owned(),
        ..Completion::default()
    }
}
