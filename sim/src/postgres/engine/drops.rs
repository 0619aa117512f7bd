//! DROP and TRUNCATE.
//!
//! Called by `control`, beside `define`. A plain machine.

use super::Engine;
use super::ast::{ObjectKind, ObjectName};
use super::catalog::ObjectBody;
use super::define::shown;
use super::door::Moment;
use super::execute::Stop;
use super::locks::TableLock;
use super::relations::missing;
use super::session::Undo;
use super::wal::Change;
use crate::wire::Report;

impl Engine {
    pub(super) fn drop_objects(
        &mut self,
        pid: i32,
        kind: ObjectKind,
        names: &[ObjectName],
        (if_exists, cascade): (bool, bool),
    ) -> Result<(), Stop> {
        let verb = match kind {
            ObjectKind::Index => "DROP INDEX",
            ObjectKind::Schema => "DROP SCHEMA",
            ObjectKind::Sequence => "DROP SEQUENCE",
            ObjectKind::Table => "DROP TABLE",
        };
        self.require_writable(pid, verb)?;
        for name in names {
            if kind == ObjectKind::Schema {
                self.drop_schema(pid, &name.name, if_exists, cascade)?;
                continue;
            }
            let Some(oid) = self.find_relation(pid, name.schema.as_deref(), &name.name) else {
                let report = missing(kind, &shown(name));
                if !if_exists {
                    return Err(report.into());
                }
                let notice = Report::notice("00000", format!("{}, skipping", report.message));
                self.session_mut(pid).notice(notice);
                continue;
            };
            self.drop_relation(pid, kind, oid, name, cascade)?;
        }
        Ok(())
    }

    fn drop_relation(
        &mut self,
        pid: i32,
        kind: ObjectKind,
        oid: u32,
        name: &ObjectName,
        cascade: bool,
    ) -> Result<(), Stop> {
        let wrong = |what: &str| Stop::from(Report::error("42809", format!("\"{}\" is not {what}", name.name)));
        match (kind, self.catalog.object(oid).map(|object| &object.kind)) {
            (ObjectKind::Table, Some(ObjectBody::Table(..))) => {
                self.lock_table(pid, oid, TableLock::AccessExclusive)?;
                let others = self
                    .catalog
                    .referencing(oid)
                    .into_iter()
                    .filter(|(child, _)| *child != oid)
                    .count();
                if others > 0 && !cascade {
                    let message = format!("cannot drop table {} because other objects depend on it", name.name);
                    let hint = "Use DROP ... CASCADE to drop the dependent objects too.";
                    return Err(Report::error("2BP01", message).hint(hint).into());
                }
                self.drop_table(pid, oid)
            }
            (ObjectKind::Sequence, Some(ObjectBody::Sequence(sequence))) => {
                if sequence.owner.is_some() && !cascade {
                    let message = format!("cannot drop sequence {} because other objects depend on it", name.name);
                    let hint = "Use DROP ... CASCADE to drop the dependent objects too.";
                    return Err(Report::error("2BP01", message).hint(hint).into());
                }
                self.mark_dropped(pid, oid);
                Ok(())
            }
            (ObjectKind::Index, Some(ObjectBody::Index(table))) => {
                let table = *table;
                self.lock_table(pid, table, TableLock::AccessExclusive)?;
                let Some((definition, _)) = self.catalog.table(table) else {
                    return Ok(());
                };
                let mut changed = (**definition).clone();
                if changed.index(oid).is_some_and(|index| index.constraint) {
                    let message = format!(
                        "cannot drop index {0} because constraint {0} on table {1} requires it",
                        name.name, changed.name
                    );
                    return Err(Report::error("2BP01", message).into());
                }
                changed.indexes.retain(|index| index.oid != oid);
                self.redefine(pid, changed, false);
                Ok(())
            }
            (ObjectKind::Table, _) => Err(wrong("a table")),
            (ObjectKind::Sequence, _) => Err(wrong("a sequence")),
            _ => Err(wrong("an index")),
        }
    }

    fn drop_schema(&mut self, pid: i32, name: &str, if_exists: bool, cascade: bool) -> Result<(), Stop> {
        let database = self.session(pid).database.clone();
        let xid = self.assign_xid(pid);
        let state = self.catalog.schema_state(&database, name);
        let Some(state) = state.filter(|_| self.catalog.has_schema(&database, name, &self.transactions, xid)) else {
            let report = missing(ObjectKind::Schema, name);
            if !if_exists {
                return Err(report.into());
            }
            let notice = Report::notice("00000", format!("{}, skipping", report.message));
            self.session_mut(pid).notice(notice);
            return Ok(());
        };
        let inside: Vec<u32> = self
            .catalog
            .objects()
            .filter(|(oid, object)| {
                let found = match &object.kind {
                    ObjectBody::Table(table, _) => table.schema == name && table.database == database,
                    ObjectBody::Sequence(sequence) => {
                        sequence.schema == name && sequence.database == database && sequence.owner.is_none()
                    }
                    ObjectBody::Index(_) => false,
                };
                found && self.catalog.exists(*oid, &self.transactions, xid)
            })
            .map(|(oid, _)| oid)
            .collect();
        if !inside.is_empty() && !cascade {
            let message = format!("cannot drop schema {name} because other objects depend on it");
            let hint = "Use DROP ... CASCADE to drop the dependent objects too.";
            return Err(Report::error("2BP01", message).hint(hint).into());
        }
        for oid in inside {
            if self.catalog.table(oid).is_some() {
                self.drop_table(pid, oid)?;
            } else {
                self.mark_dropped(pid, oid);
            }
        }
        self.catalog.set_schema(&database, name, Some((state.0, xid)));
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            transaction
                .undo
                .push(Undo::DroppedSchema(database.clone(), name.to_owned(), state));
            transaction.changes.push(Change::DropSchema {
                database,
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    pub(super) fn truncate(
        &mut self,
        pid: i32,
        names: &[ObjectName],
        restart: bool,
        cascade: bool,
        at: Moment,
    ) -> Result<(), Stop> {
        let mut tables = Vec::new();
        for name in names {
            let oid = self.existing_table(pid, name)?;
            if self
                .catalog
                .table(oid)
                .is_some_and(|(table, _)| table.temporary.is_none())
            {
                self.require_writable(pid, "TRUNCATE TABLE")?;
            }
            if !tables.contains(&oid) {
                tables.push(oid);
            }
        }
        let mut next = 0;
        while next < tables.len() {
            let oid = tables[next];
            self.lock_table(pid, oid, TableLock::AccessExclusive)?;
            for (child, _) in self.catalog.referencing(oid) {
                if tables.contains(&child) {
                    continue;
                }
                if !cascade {
                    let (child, parent) = (self.relation_name(child), self.relation_name(oid));
                    let detail = format!(
                        "Table \"{}\" references \"{}\".",
                        child.unwrap_or_default(),
                        parent.unwrap_or_default()
                    );
                    let message = "cannot truncate a table referenced in a foreign key constraint";
                    return Err(Report::error("0A000", message).detail(detail).into());
                }
                tables.push(child);
            }
            next += 1;
        }
        for oid in tables {
            self.empty_table(pid, oid, at)?;
            if restart {
                let owned: Vec<u32> = self
                    .catalog
                    .objects()
                    .filter(|(_, object)| matches!(&object.kind, ObjectBody::Sequence(sequence) if sequence.owner == Some(oid)))
                    .map(|(sequence, _)| sequence)
                    .collect();
                for sequence in owned {
                    self.restart_sequence(pid, sequence);
                }
            }
        }
        Ok(())
    }
}
