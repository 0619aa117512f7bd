//! System catalogs and statistics views, made when they are read.
//!
//! Asked by analysis for their columns and by scans for their rows. A plain machine. What drivers look types up in is there, and what
//! an application or a test asks about sessions, locks and replication.

use super::Engine;
use super::catalog::ObjectBody;
use super::door::Row;
use super::execute::made;
use super::types::datum::Datum;
use super::types::{BOOL, INT2, INT4, INTERVAL, NAME, OID, PG_LSN, REGCLASS, Scalar, TEXT, TIMESTAMPTZ, Type};
use super::view_rows::{
    activity, attributes, classes, constraints, for_relations, locks, replication, settings, types,
};

/// A view: its columns and how its rows are made.
pub(crate) struct SystemView {
    pub(crate) schema: &'static str,
    pub(crate) name: &'static str,
    pub(crate) oid: u32,
    pub(crate) columns: &'static [(&'static str, Type)],
    pub(crate) rows: fn(&Engine, i32) -> Vec<Row>,
}

impl std::fmt::Debug for SystemView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for SystemView {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

const CHAR: Type = Type::of(Scalar::Char);

const fn view(
    name: &'static str,
    oid: u32,
    columns: &'static [(&'static str, Type)],
    rows: fn(&Engine, i32) -> Vec<Row>,
) -> SystemView {
    SystemView {
        schema: "pg_catalog",
        name,
        oid,
        columns,
        rows,
    }
}

pub(super) static VIEWS: [SystemView; 19] = [
    view(
        "pg_type",
        1247,
        &[
            ("oid", OID),
            ("typname", NAME),
            ("typnamespace", OID),
            ("typlen", INT2),
            ("typtype", CHAR),
            ("typcategory", CHAR),
            ("typrelid", OID),
            ("typelem", OID),
            ("typarray", OID),
            ("typbasetype", OID),
        ],
        |_, _| types(),
    ),
    view("pg_range", 3541, &[("rngtypid", OID), ("rngsubtype", OID)], |_, _| {
        Vec::new()
    }),
    view(
        "pg_enum",
        3501,
        &[
            ("oid", OID),
            ("enumtypid", OID),
            ("enumsortorder", super::types::FLOAT4),
            ("enumlabel", NAME),
        ],
        |_, _| Vec::new(),
    ),
    view(
        "pg_namespace",
        2615,
        &[("oid", OID), ("nspname", NAME)],
        |engine, pid| {
            let database = &engine.session(pid).database;
            let own = engine
                .catalog
                .schemas()
                .filter(|(of, _)| of == database)
                .map(|(_, name)| name);
            let all = ["pg_catalog", "public"].into_iter().chain(own);
            all.map(|name| made(vec![Datum::Oid(engine.schema_oid(database, name)), Datum::text(name)]))
                .collect()
        },
    ),
    view(
        "pg_class",
        1259,
        &[
            ("oid", OID),
            ("relname", NAME),
            ("relnamespace", OID),
            ("relkind", CHAR),
            ("relpersistence", CHAR),
            ("relowner", OID),
            ("reltuples", super::types::FLOAT4),
        ],
        classes,
    ),
    view(
        "pg_attribute",
        1249,
        &[
            ("attrelid", OID),
            ("attname", NAME),
            ("atttypid", OID),
            ("attnum", INT2),
            ("atttypmod", INT4),
            ("attnotnull", BOOL),
            ("attisdropped", BOOL),
            ("atthasdef", BOOL),
            ("attidentity", CHAR),
        ],
        attributes,
    ),
    view("pg_database", 1262, &[("oid", OID), ("datname", NAME)], |engine, _| {
        let row = |name: &String| made(vec![Datum::Oid(engine.database_number(name)), Datum::text(name)]);
        engine.node.databases.iter().map(row).collect()
    }),
    view(
        "pg_roles",
        12_000,
        &[
            ("oid", OID),
            ("rolname", NAME),
            ("rolsuper", BOOL),
            ("rolcanlogin", BOOL),
        ],
        |engine, _| {
            let row = |name: &String| {
                let superuser = engine.node.superusers.contains(name);
                made(vec![
                    Datum::Oid(engine.role_oid(name)),
                    Datum::text(name),
                    Datum::Bool(superuser),
                    Datum::Bool(true),
                ])
            };
            engine.roles().iter().map(row).collect()
        },
    ),
    view(
        "pg_tables",
        12_001,
        &[("schemaname", NAME), ("tablename", NAME), ("tableowner", NAME)],
        |engine, pid| {
            let mut rows = Vec::new();
            for_relations(engine, pid, |_, body| {
                if let ObjectBody::Table(table, _) = body {
                    rows.push(made(vec![
                        Datum::text(&table.schema),
                        Datum::text(&table.name),
                        Datum::text(&table.owner),
                    ]));
                }
            });
            rows
        },
    ),
    view(
        "pg_indexes",
        12_002,
        &[("schemaname", NAME), ("tablename", NAME), ("indexname", NAME)],
        |engine, pid| {
            let mut rows = Vec::new();
            for_relations(engine, pid, |_, body| {
                if let ObjectBody::Table(table, _) = body {
                    rows.extend(table.indexes.iter().map(|index| {
                        made(vec![
                            Datum::text(&table.schema),
                            Datum::text(&table.name),
                            Datum::text(&index.name),
                        ])
                    }));
                }
            });
            rows
        },
    ),
    view(
        "pg_settings",
        12_003,
        &[
            ("name", TEXT),
            ("setting", TEXT),
            ("unit", TEXT),
            ("context", TEXT),
            ("vartype", TEXT),
            ("source", TEXT),
            ("boot_val", TEXT),
            ("reset_val", TEXT),
        ],
        settings,
    ),
    view(
        "pg_prepared_statements",
        12_004,
        &[
            ("name", TEXT),
            ("statement", TEXT),
            ("prepare_time", TIMESTAMPTZ),
            ("parameter_types", Type::array(Scalar::Regtype)),
            ("from_sql", BOOL),
        ],
        |engine, pid| {
            let statements = engine
                .session(pid)
                .statements
                .iter()
                .filter(|(name, _)| !name.is_empty());
            let regtype = Type::of(Scalar::Regtype);
            let row = |(name, statement): (&String, &super::session::Prepared)| {
                let types = statement.plan.parameters().iter().copied().map(Datum::Oid).collect();
                made(vec![
                    Datum::text(name),
                    Datum::text(&statement.text),
                    Datum::Timestamp(statement.at),
                    Datum::array(regtype, types),
                    Datum::Bool(statement.from_sql),
                ])
            };
            statements.map(row).collect()
        },
    ),
    view(
        "pg_cursors",
        12_005,
        &[
            ("name", TEXT),
            ("statement", TEXT),
            ("is_holdable", BOOL),
            ("is_binary", BOOL),
            ("is_scrollable", BOOL),
            ("creation_time", TIMESTAMPTZ),
        ],
        |engine, pid| {
            let portals = engine.session(pid).portals.iter().filter(|(name, _)| !name.is_empty());
            let row = |(name, portal): (&String, &super::session::Portal)| {
                made(vec![
                    Datum::text(name),
                    Datum::text(&portal.text),
                    Datum::Bool(portal.hold),
                    Datum::Bool(false),
                    Datum::Bool(portal.scroll.unwrap_or(portal.from_sql)),
                    Datum::Timestamp(portal.created),
                ])
            };
            portals.map(row).collect()
        },
    ),
    view(
        "pg_locks",
        12_006,
        &[
            ("locktype", TEXT),
            ("database", OID),
            ("relation", OID),
            ("transactionid", Type::of(Scalar::Xid)),
            ("classid", OID),
            ("objid", OID),
            ("objsubid", INT2),
            ("pid", INT4),
            ("mode", TEXT),
            ("granted", BOOL),
        ],
        locks,
    ),
    view(
        "pg_stat_activity",
        12_007,
        &[
            ("datid", OID),
            ("datname", NAME),
            ("pid", INT4),
            ("usesysid", OID),
            ("usename", NAME),
            ("application_name", TEXT),
            ("client_addr", TEXT),
            ("client_port", INT4),
            ("backend_start", TIMESTAMPTZ),
            ("xact_start", TIMESTAMPTZ),
            ("query_start", TIMESTAMPTZ),
            ("state_change", TIMESTAMPTZ),
            ("wait_event_type", TEXT),
            ("wait_event", TEXT),
            ("state", TEXT),
            ("backend_xid", Type::of(Scalar::Xid)),
            ("query", TEXT),
            ("backend_type", TEXT),
        ],
        activity,
    ),
    view(
        "pg_stat_replication",
        12_008,
        &[
            ("pid", INT4),
            ("usename", NAME),
            ("application_name", TEXT),
            ("state", TEXT),
            ("sent_lsn", PG_LSN),
            ("write_lsn", PG_LSN),
            ("flush_lsn", PG_LSN),
            ("replay_lsn", PG_LSN),
            ("replay_lag", INTERVAL),
            ("sync_state", TEXT),
        ],
        replication,
    ),
    view(
        "pg_stat_wal_receiver",
        12_009,
        &[
            ("pid", INT4),
            ("status", TEXT),
            ("flushed_lsn", PG_LSN),
            ("written_lsn", PG_LSN),
            ("received_tli", INT4),
            ("conninfo", TEXT),
        ],
        |engine, _| {
            let receiver = engine.wal_receiver.iter();
            let row = |receiver: &super::door::WalReceiver| {
                made(vec![
                    Datum::Int4(receiver.pid),
                    Datum::text("streaming"),
                    Datum::Lsn(receiver.received.0),
                    Datum::Lsn(receiver.received.0),
                    Datum::Int4(receiver.timeline.cast_signed()),
                    Datum::text(&receiver.conninfo),
                ])
            };
            receiver.map(row).collect()
        },
    ),
    view(
        "pg_constraint",
        2606,
        &[
            ("conname", NAME),
            ("conrelid", OID),
            ("contype", CHAR),
            ("condeferrable", BOOL),
            ("condeferred", BOOL),
        ],
        constraints,
    ),
    view(
        "pg_index",
        2610,
        &[
            ("indexrelid", OID),
            ("indrelid", REGCLASS),
            ("indisunique", BOOL),
            ("indisprimary", BOOL),
        ],
        |engine, pid| {
            let mut rows = Vec::new();
            for_relations(engine, pid, |_, body| {
                if let ObjectBody::Table(table, _) = body {
                    rows.extend(table.indexes.iter().map(|index| {
                        made(vec![
                            Datum::Oid(index.oid),
                            Datum::Oid(table.oid),
                            Datum::Bool(index.unique),
                            Datum::Bool(index.primary),
                        ])
                    }));
                }
            });
            rows
        },
    ),
];

/// The view of that name.
pub(crate) fn named(schema: Option<&str>, name: &str) -> Option<&'static SystemView> {
    let found = VIEWS.iter().find(|view| view.name == name);
    found.filter(|view| schema.is_none_or(|schema| schema == view.schema))
}

pub(crate) fn by_oid(oid: u32) -> Option<&'static SystemView> {
    VIEWS.iter().find(|view| view.oid == oid)
}

/// Whether a name that is not found may be one of PostgreSQL's own catalogs.
pub(crate) fn is_known_elsewhere(name: &str) -> bool {
    name.starts_with("pg_stat") || CATALOGS.contains(&name)
}

const CATALOGS: [&str; 34] = [
    "columns",
    "key_column_usage",
    "pg_aggregate",
    "pg_am",
    "pg_attrdef",
    "pg_auth_members",
    "pg_authid",
    "pg_cast",
    "pg_collation",
    "pg_conversion",
    "pg_depend",
    "pg_description",
    "pg_event_trigger",
    "pg_extension",
    "pg_file_settings",
    "pg_group",
    "pg_hba_file_rules",
    "pg_inherits",
    "pg_language",
    "pg_matviews",
    "pg_operator",
    "pg_policies",
    "pg_prepared_xacts",
    "pg_proc",
    "pg_publication",
    "pg_replication_slots",
    "pg_sequence",
    "pg_sequences",
    "pg_shadow",
    "pg_subscription",
    "pg_tablespace",
    "pg_trigger",
    "pg_user",
    "pg_views",
];
