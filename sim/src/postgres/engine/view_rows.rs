//! The rows of the larger system catalogs and views.
//!
//! Called by `views`. A plain machine.

use super::Engine;
use super::catalog::ObjectBody;
use super::door::Row;
use super::execute::made;
use super::locks::Resource;
use super::names::PG_CATALOG;
use super::session::Session;
use super::settings::{Changes, Kind};
use super::types::datum::{Datum, Interval};
use super::types::{Scalar, TYPES};
use super::views::VIEWS;

pub(super) fn types() -> Vec<Row> {
    let mut rows = Vec::new();
    for facts in &TYPES {
        let kind = if matches!(facts.scalar, Scalar::Record | Scalar::Void | Scalar::Unknown) {
            "p"
        } else {
            "b"
        };
        let row = |oid: u32, name: String, size: i16, category: u8, element: u32, array: u32, kind: &str| {
            made(vec![
                Datum::Oid(oid),
                Datum::text(name),
                Datum::Oid(PG_CATALOG),
                Datum::Int2(size),
                Datum::text(kind),
                Datum::text(char::from(category).to_string()),
                Datum::Oid(0),
                Datum::Oid(element),
                Datum::Oid(array),
                Datum::Oid(0),
            ])
        };
        let name = facts.name.to_owned();
        rows.push(row(
            facts.oid,
            name.clone(),
            facts.size,
            facts.category,
            0,
            facts.array_oid,
            kind,
        ));
        if facts.array_oid != 0 {
            rows.push(row(facts.array_oid, format!("_{name}"), -1, b'A', facts.oid, 0, "b"));
        }
    }
    rows
}

pub(super) fn for_relations(engine: &Engine, pid: i32, mut each: impl FnMut(u32, &ObjectBody)) {
    let own = engine.xid(pid).unwrap_or(u64::MAX);
    let database = &engine.session(pid).database;
    for (oid, object) in engine.catalog.objects() {
        let here = match &object.kind {
            ObjectBody::Table(table, _) => table.database == *database,
            ObjectBody::Sequence(sequence) => sequence.database == *database,
            ObjectBody::Index(table) => engine
                .catalog
                .table(*table)
                .is_some_and(|(table, _)| table.database == *database),
        };
        if here && engine.catalog.exists(oid, &engine.transactions, own) {
            each(oid, &object.kind);
        }
    }
}

pub(super) fn classes(engine: &Engine, pid: i32) -> Vec<Row> {
    let database = engine.session(pid).database.clone();
    let mut rows = Vec::new();
    let class = |oid: u32, name: &str, schema: u32, kind: &str, temporary: bool, owner: u32| {
        made(vec![
            Datum::Oid(oid),
            Datum::text(name),
            Datum::Oid(schema),
            Datum::text(kind),
            Datum::text(if temporary { "t" } else { "p" }),
            Datum::Oid(owner),
            Datum::Float4(-1.0),
        ])
    };
    for view in &VIEWS {
        rows.push(class(view.oid, view.name, PG_CATALOG, "v", false, 10));
    }
    for_relations(engine, pid, |oid, body| match body {
        ObjectBody::Table(table, _) => {
            let schema = engine.schema_oid(&database, &table.schema);
            let owner = engine.role_oid(&table.owner);
            rows.push(class(oid, &table.name, schema, "r", table.temporary.is_some(), owner));
        }
        ObjectBody::Sequence(sequence) => {
            let schema = engine.schema_oid(&database, &sequence.schema);
            rows.push(class(
                oid,
                &sequence.name,
                schema,
                "S",
                sequence.temporary.is_some(),
                10,
            ));
        }
        ObjectBody::Index(table) => {
            if let Some((table, _)) = engine.catalog.table(*table) {
                let schema = engine.schema_oid(&database, &table.schema);
                let name = table.index(oid).map_or("", |index| index.name.as_str());
                rows.push(class(
                    oid,
                    name,
                    schema,
                    "i",
                    table.temporary.is_some(),
                    engine.role_oid(&table.owner),
                ));
            }
        }
    });
    rows
}

pub(super) fn attributes(engine: &Engine, pid: i32) -> Vec<Row> {
    let mut rows = Vec::new();
    for_relations(engine, pid, |oid, body| {
        let ObjectBody::Table(table, _) = body else { return };
        for (at, column) in table.columns.iter().enumerate() {
            let identity = match column.identity {
                Some(true) => "a",
                Some(false) => "d",
                None => "",
            };
            rows.push(made(vec![
                Datum::Oid(oid),
                Datum::text(&column.name),
                Datum::Oid(if column.dropped { 0 } else { column.of.oid() }),
                Datum::Int2(i16::try_from(at + 1).unwrap_or(i16::MAX)),
                Datum::Int4(column.modifier),
                Datum::Bool(column.not_null),
                Datum::Bool(column.dropped),
                Datum::Bool(column.default.is_some() && column.identity.is_none()),
                Datum::text(identity),
            ]));
        }
    });
    rows
}

pub(super) fn constraints(engine: &Engine, pid: i32) -> Vec<Row> {
    let mut rows = Vec::new();
    for_relations(engine, pid, |oid, body| {
        let ObjectBody::Table(table, _) = body else { return };
        let mut line = |name: &str, kind: &str, deferrable: bool, deferred: bool| {
            rows.push(made(vec![
                Datum::text(name),
                Datum::Oid(oid),
                Datum::text(kind),
                Datum::Bool(deferrable),
                Datum::Bool(deferred),
            ]));
        };
        for index in table.indexes.iter().filter(|index| index.constraint) {
            line(
                &index.name,
                if index.primary { "p" } else { "u" },
                index.deferrable,
                index.deferred,
            );
        }
        for key in &table.foreign_keys {
            line(&key.name, "f", key.deferrable, key.deferred);
        }
        for check in &table.checks {
            line(&check.name, "c", false, false);
        }
    });
    rows
}

pub(super) fn optional(text: Option<impl AsRef<str>>) -> Datum {
    text.map_or(Datum::Null, Datum::text)
}

pub(super) fn settings(engine: &Engine, pid: i32) -> Vec<Row> {
    let session = engine.session(pid);
    let row = |(setting, value): (&'static super::settings::Setting, String)| {
        let key = setting.name.to_ascii_lowercase();
        let reset = session.values.default_of(&key);
        let source = if session.values.is_set(&key) {
            "session"
        } else if session.values.has_default(&key) {
            "client"
        } else {
            "default"
        };
        let context = match setting.changes {
            Changes::Anytime => "user",
            Changes::Never => "internal",
            Changes::Reload => "sighup",
            Changes::Restart => "postmaster",
        };
        let kind = match setting.kind {
            Kind::Bool => "bool",
            Kind::Enum(_) => "enum",
            Kind::Integer(..) => "integer",
            Kind::Real => "real",
            Kind::Text => "string",
        };
        made(vec![
            Datum::text(setting.name),
            Datum::text(value),
            optional(setting.unit()),
            Datum::text(context),
            Datum::text(kind),
            Datum::text(source),
            Datum::text(setting.default),
            Datum::text(reset),
        ])
    };
    engine.all_settings(pid).into_iter().map(row).collect()
}

pub(super) fn locks(engine: &Engine, _: i32) -> Vec<Row> {
    let row = |line: super::locks::Line| {
        let none = || Datum::Null;
        let database = engine
            .sessions
            .get(&line.pid)
            .map_or(0, |session| engine.database_number(&session.database));
        let (kind, database, relation, xid, class, object, sub) = match line.resource {
            Resource::Advisory { database, key, pair } => {
                let bits = key.cast_unsigned();
                let part = |value: u64| Datum::Oid(u32::try_from(value & 0xffff_ffff).unwrap_or(0));
                let sub = Datum::Int2(if pair { 2 } else { 1 });
                (
                    "advisory",
                    Datum::Oid(database),
                    none(),
                    none(),
                    part(bits >> 32),
                    part(bits),
                    sub,
                )
            }
            Resource::Table(oid) => (
                "relation",
                Datum::Oid(database),
                Datum::Oid(oid),
                none(),
                none(),
                none(),
                none(),
            ),
            Resource::Row { table, .. } => (
                "tuple",
                Datum::Oid(database),
                Datum::Oid(table),
                none(),
                none(),
                none(),
                none(),
            ),
            Resource::Transaction(xid) => {
                let xid = Datum::Oid(u32::try_from(xid & 0xffff_ffff).unwrap_or(0));
                ("transactionid", none(), none(), xid, none(), none(), none())
            }
        };
        made(vec![
            Datum::text(kind),
            database,
            relation,
            xid,
            class,
            object,
            sub,
            Datum::Int4(line.pid),
            Datum::text(line.mode.shown()),
            Datum::Bool(line.granted),
        ])
    };
    engine.locks.lines().into_iter().map(row).collect()
}

pub(super) fn activity(engine: &Engine, _: i32) -> Vec<Row> {
    engine
        .sessions
        .values()
        .map(|session| activity_row(engine, session))
        .collect()
}

pub(super) fn activity_row(engine: &Engine, session: &Session) -> Row {
    let transaction = session.transaction.as_ref();
    let state = match session.activity.state.as_str() {
        "" => match session.status() {
            b'T' => "idle in transaction",
            b'E' => "idle in transaction (aborted)",
            _ => "idle",
        },
        state => state,
    };
    let (kind, event) = match session.running.as_ref().and_then(|running| running.wait.as_ref()) {
        Some(super::door::Wait::Lock { .. }) => (Some("Lock"), Some("transactionid")),
        Some(super::door::Wait::Sleep { .. }) => (Some("Timeout"), Some("PgSleep")),
        Some(super::door::Wait::SyncReplication { .. }) => (Some("IPC"), Some("SyncRep")),
        None if state.starts_with("idle") => (Some("Client"), Some("ClientRead")),
        None => (None, None),
    };
    let user = engine.raw(session.pid, "session_authorization").unwrap_or_default();
    let facts = &session.activity;
    let xid = transaction.and_then(|transaction| transaction.xid);
    made(vec![
        Datum::Oid(engine.database_number(&session.database)),
        Datum::text(&session.database),
        Datum::Int4(session.pid),
        Datum::Oid(engine.role_oid(&user)),
        Datum::text(user),
        Datum::text(engine.raw(session.pid, "application_name").unwrap_or_default()),
        optional(facts.client_addr.as_deref()),
        Datum::Int4(facts.client_port),
        Datum::Timestamp(facts.backend_start),
        transaction.map_or(Datum::Null, |transaction| Datum::Timestamp(transaction.started)),
        Datum::Timestamp(facts.query_start),
        Datum::Timestamp(facts.state_change),
        optional(kind),
        optional(event),
        Datum::text(state),
        xid.map_or(Datum::Null, |xid| {
            Datum::Oid(u32::try_from(xid & 0xffff_ffff).unwrap_or(0))
        }),
        Datum::text(&facts.query),
        Datum::text("client backend"),
    ])
}

pub(super) fn replication(engine: &Engine, _: i32) -> Vec<Row> {
    let row = |receiver: &super::door::Receiver| {
        let lag = receiver.replay_lag.map_or(Datum::Null, |lag| {
            Datum::Interval(Interval {
                micros: i64::try_from(lag.as_micros()).unwrap_or(i64::MAX),
                ..Interval::default()
            })
        });
        made(vec![
            Datum::Int4(receiver.pid),
            Datum::text(&receiver.user),
            Datum::text(&receiver.application_name),
            Datum::text(&receiver.state),
            Datum::Lsn(receiver.sent.0),
            Datum::Lsn(receiver.written.0),
            Datum::Lsn(receiver.flushed.0),
            Datum::Lsn(receiver.replayed.0),
            lag,
            Datum::text(&receiver.sync_state),
        ])
    };
    engine.receivers.iter().map(row).collect()
}
