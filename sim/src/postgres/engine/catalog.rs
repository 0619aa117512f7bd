//! The catalog: tables, sequences, schemas, their names, and the rows of tables.
//!
//! Read by analysis, changed by definitions. A plain machine. Objects made or dropped by a transaction in progress are there for
//! that transaction only, or still there for all others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ast::{Action, Expression, OnCommit};
use super::heap::{Fate, Heap, Transactions};
use super::types::Type;
use super::types::datum::Datum;

/// The first OID a new node gives to an object.
const FIRST_OID: u32 = 16_384;

#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) of: Type,
    pub(crate) modifier: i32,
    pub(crate) not_null: bool,
    pub(crate) default: Option<Default>,
    /// GENERATED ALWAYS (`true`) or BY DEFAULT AS IDENTITY.
    pub(crate) identity: Option<bool>,
    pub(crate) dropped: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Default {
    Expression(Expression),
    /// The next value of a sequence.
    Sequence(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct IndexDefinition {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) columns: Vec<usize>,
    pub(crate) unique: bool,
    pub(crate) primary: bool,
    /// Made by a constraint of the same name.
    pub(crate) constraint: bool,
    pub(crate) deferrable: bool,
    pub(crate) deferred: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    pub(crate) columns: Vec<usize>,
    pub(crate) referenced: u32,
    /// The index of the referenced table that holds the keys, and its columns.
    pub(crate) index: u32,
    pub(crate) referenced_columns: Vec<usize>,
    pub(crate) on_delete: Action,
    pub(crate) on_update: Action,
    pub(crate) deferrable: bool,
    pub(crate) deferred: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) condition: Expression,
}

/// All of a table but its rows.
#[derive(Clone, Debug)]
pub(crate) struct TableDefinition {
    pub(crate) oid: u32,
    pub(crate) database: String,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) indexes: Vec<IndexDefinition>,
    pub(crate) foreign_keys: Vec<ForeignKey>,
    pub(crate) checks: Vec<Check>,
    /// The session it belongs to.
    pub(crate) temporary: Option<i32>,
    pub(crate) on_commit: OnCommit,
}

impl TableDefinition {
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.name == name && !column.dropped)
    }

    pub(crate) fn index(&self, oid: u32) -> Option<&IndexDefinition> {
        self.indexes.iter().find(|index| index.oid == oid)
    }

    /// The unique index over exactly these columns, in any order.
    pub(crate) fn unique_over(&self, columns: &[usize]) -> Option<&IndexDefinition> {
        let wanted: BTreeSet<usize> = columns.iter().copied().collect();
        let matches = |index: &&IndexDefinition| {
            index.unique && index.columns.len() == columns.len() && index.columns.iter().all(|at| wanted.contains(at))
        };
        self.indexes.iter().find(matches)
    }

    /// Whether a column is in some unique index, so that a change of it is a change of a key.
    pub(crate) fn is_key(&self, column: usize) -> bool {
        self.indexes
            .iter()
            .any(|index| index.unique && index.columns.contains(&column))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) oid: u32,
    pub(crate) database: String,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) last: i64,
    pub(crate) is_called: bool,
    pub(crate) increment: i64,
    pub(crate) start: i64,
    pub(crate) most: i64,
    /// Values that may be given without another log record.
    pub(crate) logged: i64,
    /// The table it goes with.
    pub(crate) owner: Option<u32>,
    pub(crate) temporary: Option<i32>,
}

/// A table with its rows, a sequence, or an index's name.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) kind: ObjectBody,
    /// 0 for long ago.
    pub(crate) made_by: u64,
    /// 0 for not at all.
    pub(crate) dropped_by: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum ObjectBody {
    /// An index of this table.
    Index(u32),
    Sequence(Sequence),
    Table(Arc<TableDefinition>, Heap),
}

/// Where a relation's name stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    database: String,
    schema: String,
    name: String,
}

/// All objects of a node.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    objects: BTreeMap<u32, Object>,
    names: BTreeMap<Name, Vec<u32>>,
    schemas: BTreeMap<(String, String), (u64, u64)>,
    next_oid: u32,
    /// Goes up with each change of a definition, so that plans know when they are old.
    pub(crate) version: u64,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            names: BTreeMap::new(),
            schemas: BTreeMap::new(),
            next_oid: FIRST_OID,
            version: 1,
        }
    }

    pub(crate) fn new_oid(&mut self) -> u32 {
        self.next_oid += 1;
        self.next_oid - 1
    }

    pub(crate) fn object(&self, oid: u32) -> Option<&Object> {
        self.objects.get(&oid)
    }

    pub(crate) fn object_mut(&mut self, oid: u32) -> Option<&mut Object> {
        self.objects.get_mut(&oid)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (u32, &Object)> {
        self.objects.iter().map(|(oid, object)| (*oid, object))
    }

    pub(crate) fn table(&self, oid: u32) -> Option<(&Arc<TableDefinition>, &Heap)> {
        match &self.objects.get(&oid)?.kind {
            ObjectBody::Table(definition, heap) => Some((definition, heap)),
            _ => None,
        }
    }

    pub(crate) fn heap_mut(&mut self, oid: u32) -> Option<&mut Heap> {
        match &mut self.objects.get_mut(&oid)?.kind {
            ObjectBody::Table(_, heap) => Some(heap),
            _ => None,
        }
    }

    pub(crate) fn sequence(&self, oid: u32) -> Option<&Sequence> {
        match &self.objects.get(&oid)?.kind {
            ObjectBody::Sequence(sequence) => Some(sequence),
            _ => None,
        }
    }

    pub(crate) fn sequence_mut(&mut self, oid: u32) -> Option<&mut Sequence> {
        match &mut self.objects.get_mut(&oid)?.kind {
            ObjectBody::Sequence(sequence) => Some(sequence),
            _ => None,
        }
    }

    /// Puts in an object, and its indexes if it is a table.
    pub(crate) fn add(&mut self, made_by: u64, kind: ObjectBody) {
        self.version += 1;
        let mut indexes = Vec::new();
        let oid = match &kind {
            ObjectBody::Table(definition, _) => {
                for index in &definition.indexes {
                    indexes.push((index.oid, definition.oid, self.key(definition, &index.name)));
                }
                self.name(self.key(definition, &definition.name), definition.oid);
                definition.oid
            }
            ObjectBody::Sequence(sequence) => {
                let key = Name {
                    database: sequence.database.clone(),
                    schema: sequence.schema.clone(),
                    name: sequence.name.clone(),
                };
                self.name(key, sequence.oid);
                sequence.oid
            }
            ObjectBody::Index(_) => return,
        };
        self.next_oid = self.next_oid.max(oid + 1);
        self.objects.insert(
            oid,
            Object {
                kind,
                made_by,
                dropped_by: 0,
            },
        );
        for (oid, table, key) in indexes {
            self.add_index_name(oid, table, key, made_by);
        }
    }

    fn add_index_name(&mut self, oid: u32, table: u32, key: Name, made_by: u64) {
        self.next_oid = self.next_oid.max(oid + 1);
        self.name(key, oid);
        self.objects.insert(
            oid,
            Object {
                kind: ObjectBody::Index(table),
                made_by,
                dropped_by: 0,
            },
        );
    }

    fn key(&self, definition: &TableDefinition, name: &str) -> Name {
        Name {
            database: definition.database.clone(),
            schema: definition.schema.clone(),
            name: name.to_owned(),
        }
    }

    fn name(&mut self, key: Name, oid: u32) {
        let oids = self.names.entry(key).or_default();
        if !oids.contains(&oid) {
            oids.push(oid);
        }
    }

    fn unname(&mut self, oid: u32) {
        for oids in self.names.values_mut() {
            oids.retain(|other| *other != oid);
        }
        self.names.retain(|_, oids| !oids.is_empty());
    }

    /// Takes an object out for good.
    pub(crate) fn remove(&mut self, oid: u32) {
        self.version += 1;
        if let Some(object) = self.objects.remove(&oid)
            && let ObjectBody::Table(definition, _) = &object.kind
        {
            for index in &definition.indexes {
                self.objects.remove(&index.oid);
                self.unname(index.oid);
            }
        }
        self.unname(oid);
    }

    /// Gives a table another definition: its names and the indexes of its heap follow.
    pub(crate) fn redefine(&mut self, definition: Arc<TableDefinition>, made_by: u64) {
        self.version += 1;
        let oid = definition.oid;
        let Some(Object {
            kind: ObjectBody::Table(slot, heap),
            ..
        }) = self.objects.get_mut(&oid)
        else {
            return;
        };
        let old = std::mem::replace(slot, Arc::clone(&definition));
        for index in &old.indexes {
            if definition.index(index.oid).is_none() {
                heap.remove_index(index.oid);
            }
        }
        for index in &definition.indexes {
            if !heap.index_oids().contains(&index.oid) {
                heap.add_index(index.oid, index.columns.clone());
            }
        }
        for index in &old.indexes {
            self.objects.remove(&index.oid);
            self.unname(index.oid);
        }
        self.unname(oid);
        self.name(self.key(&definition, &definition.name), oid);
        for index in &definition.indexes {
            let key = self.key(&definition, &index.name);
            self.add_index_name(index.oid, oid, key, made_by);
        }
    }

    /// The relation of that name as transaction `own` (0 for none) sees it.
    pub(crate) fn find(
        &self,
        database: &str,
        schema: &str,
        name: &str,
        transactions: &Transactions,
        own: u64,
    ) -> Option<u32> {
        let key = Name {
            database: database.to_owned(),
            schema: schema.to_owned(),
            name: name.to_owned(),
        };
        let oids = self.names.get(&key)?;
        oids.iter().copied().find(|oid| self.exists(*oid, transactions, own))
    }

    pub(crate) fn exists(&self, oid: u32, transactions: &Transactions, own: u64) -> bool {
        let committed = |xid: u64| xid == 0 || matches!(transactions.fate(xid), Fate::Committed(_));
        self.objects.get(&oid).is_some_and(|object| {
            let made = object.made_by == own || committed(object.made_by);
            let dropped = object.dropped_by != 0 && (object.dropped_by == own || committed(object.dropped_by));
            made && !dropped
        })
    }

    /// A relation of that name that another transaction is making: its number.
    pub(crate) fn in_progress(
        &self,
        database: &str,
        schema: &str,
        name: &str,
        transactions: &Transactions,
        own: u64,
    ) -> Option<u64> {
        let key = Name {
            database: database.to_owned(),
            schema: schema.to_owned(),
            name: name.to_owned(),
        };
        let oids = self.names.get(&key)?;
        oids.iter().find_map(|oid| {
            let made_by = self.objects.get(oid)?.made_by;
            (made_by != own && made_by != 0 && transactions.fate(made_by) == Fate::InProgress).then_some(made_by)
        })
    }

    pub(crate) fn has_schema(&self, database: &str, name: &str, transactions: &Transactions, own: u64) -> bool {
        if ["public", "pg_catalog", "information_schema"].contains(&name) || name.starts_with("pg_temp_") {
            return true;
        }
        let committed = |xid: u64| xid == own || xid == 0 || matches!(transactions.fate(xid), Fate::Committed(_));
        self.schemas
            .get(&(database.to_owned(), name.to_owned()))
            .is_some_and(|(made_by, dropped_by)| committed(*made_by) && (*dropped_by == 0 || !committed(*dropped_by)))
    }

    /// Notes who made and who dropped a schema; `None` takes it out.
    pub(crate) fn set_schema(&mut self, database: &str, name: &str, state: Option<(u64, u64)>) {
        self.version += 1;
        let key = (database.to_owned(), name.to_owned());
        match state {
            Some(state) => self.schemas.insert(key, state),
            None => self.schemas.remove(&key),
        };
    }

    pub(crate) fn schema_state(&self, database: &str, name: &str) -> Option<(u64, u64)> {
        self.schemas.get(&(database.to_owned(), name.to_owned())).copied()
    }

    pub(crate) fn schemas(&self) -> impl Iterator<Item = (&str, &str)> {
        self.schemas
            .keys()
            .map(|(database, name)| (database.as_str(), name.as_str()))
    }

    /// The foreign keys that refer to a table: the tables they are on, and which of theirs.
    pub(crate) fn referencing(&self, table: u32) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        for (oid, object) in &self.objects {
            if let ObjectBody::Table(definition, _) = &object.kind
                && object.dropped_by == 0
            {
                let keys = definition.foreign_keys.iter().enumerate();
                found.extend(
                    keys.filter(|(_, key)| key.referenced == table)
                        .map(|(at, _)| (*oid, at)),
                );
            }
        }
        found
    }
}

/// A row as the log and heaps have it.
pub(crate) fn row(values: Vec<Datum>) -> Arc<[Datum]> {
    Arc::from(values)
}
