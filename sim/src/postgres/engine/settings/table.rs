//! The table of all settings, with PostgreSQL 15's defaults.
//!
//! Read by `settings`. A plain machine: data only.

use super::{Changes, Kind, Setting, Unit};

const INT: i64 = 2_147_483_647;
const ISOLATION: &[&str] = &["serializable", "repeatable read", "read committed", "read uncommitted"];
const LEVELS: &[&str] = &[
    "debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error",
];

const fn setting(name: &'static str, default: &'static str, kind: Kind, changes: Changes) -> Setting {
    Setting {
        name,
        default,
        kind,
        changes,
        reported: false,
    }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind, changes: Changes) -> Setting {
    Setting {
        name,
        default,
        kind,
        changes,
        reported: true,
    }
}

const fn user(name: &'static str, default: &'static str, kind: Kind) -> Setting {
    setting(name, default, kind, Changes::Anytime)
}

const fn time(name: &'static str, default: &'static str) -> Setting {
    user(name, default, Kind::Integer(0, INT, Unit::Milliseconds))
}

const fn flag(name: &'static str, default: &'static str) -> Setting {
    user(name, default, Kind::Bool)
}

/// Every setting of the simulated server.
pub(crate) const SETTINGS: &[Setting] = &[
    reported("application_name", "", Kind::Text, Changes::Anytime),
    user(
        "backslash_quote",
        "safe_encoding",
        Kind::Enum(&["safe_encoding", "on", "off"]),
    ),
    setting(
        "block_size",
        "8192",
        Kind::Integer(8192, 8192, Unit::None),
        Changes::Never,
    ),
    user("bytea_output", "hex", Kind::Enum(&["escape", "hex"])),
    flag("check_function_bodies", "on"),
    time("client_connection_check_interval", "0"),
    reported("client_encoding", "UTF8", Kind::Text, Changes::Anytime),
    user("client_min_messages", "notice", Kind::Enum(LEVELS)),
    setting("cluster_name", "", Kind::Text, Changes::Restart),
    user(
        "constraint_exclusion",
        "partition",
        Kind::Enum(&["partition", "on", "off"]),
    ),
    setting("data_checksums", "off", Kind::Bool, Changes::Never),
    reported("DateStyle", "ISO, MDY", Kind::Text, Changes::Anytime),
    time("deadlock_timeout", "1000"),
    user("default_statistics_target", "100", Kind::Integer(1, 10_000, Unit::None)),
    user("default_tablespace", "", Kind::Text),
    flag("default_transaction_deferrable", "off"),
    user("default_transaction_isolation", "read committed", Kind::Enum(ISOLATION)),
    reported("default_transaction_read_only", "off", Kind::Bool, Changes::Anytime),
    user("effective_cache_size", "524288", Kind::Integer(1, INT, Unit::Pages)),
    flag("enable_hashjoin", "on"),
    flag("enable_indexscan", "on"),
    flag("enable_mergejoin", "on"),
    flag("enable_nestloop", "on"),
    flag("enable_seqscan", "on"),
    flag("escape_string_warning", "on"),
    user("extra_float_digits", "1", Kind::Integer(-15, 3, Unit::None)),
    user("force_parallel_mode", "off", Kind::Enum(&["off", "on", "regress"])),
    flag("geqo", "on"),
    setting("hot_standby", "on", Kind::Bool, Changes::Restart),
    setting("hot_standby_feedback", "off", Kind::Bool, Changes::Reload),
    time("idle_in_transaction_session_timeout", "0"),
    time("idle_session_timeout", "0"),
    reported("in_hot_standby", "off", Kind::Bool, Changes::Never),
    reported("integer_datetimes", "on", Kind::Bool, Changes::Never),
    reported(
        "IntervalStyle",
        "postgres",
        Kind::Enum(&["postgres", "postgres_verbose", "sql_standard", "iso_8601"]),
        Changes::Anytime,
    ),
    reported("is_superuser", "off", Kind::Bool, Changes::Never),
    flag("jit", "on"),
    setting("lc_collate", "C.UTF-8", Kind::Text, Changes::Never),
    setting("lc_ctype", "C.UTF-8", Kind::Text, Changes::Never),
    user("lc_messages", "C.UTF-8", Kind::Text),
    setting("listen_addresses", "*", Kind::Text, Changes::Restart),
    time("lock_timeout", "0"),
    user(
        "log_min_duration_statement",
        "-1",
        Kind::Integer(-1, INT, Unit::Milliseconds),
    ),
    user("log_statement", "none", Kind::Enum(&["none", "ddl", "mod", "all"])),
    user(
        "maintenance_work_mem",
        "65536",
        Kind::Integer(1024, INT, Unit::Kilobytes),
    ),
    setting(
        "max_connections",
        "100",
        Kind::Integer(1, 262_143, Unit::None),
        Changes::Restart,
    ),
    user(
        "max_parallel_workers_per_gather",
        "2",
        Kind::Integer(0, 1024, Unit::None),
    ),
    setting(
        "max_prepared_transactions",
        "0",
        Kind::Integer(0, 262_143, Unit::None),
        Changes::Restart,
    ),
    setting(
        "max_standby_streaming_delay",
        "30000",
        Kind::Integer(-1, INT, Unit::Milliseconds),
        Changes::Reload,
    ),
    setting(
        "max_wal_senders",
        "10",
        Kind::Integer(0, 262_143, Unit::None),
        Changes::Restart,
    ),
    user(
        "plan_cache_mode",
        "auto",
        Kind::Enum(&["auto", "force_generic_plan", "force_custom_plan"]),
    ),
    setting("port", "5432", Kind::Integer(1, 65_535, Unit::None), Changes::Restart),
    setting("primary_conninfo", "", Kind::Text, Changes::Reload),
    user("random_page_cost", "4", Kind::Real),
    setting(
        "recovery_min_apply_delay",
        "0",
        Kind::Integer(0, INT, Unit::Milliseconds),
        Changes::Reload,
    ),
    user("role", "none", Kind::Text),
    flag("row_security", "on"),
    user("search_path", "\"$user\", public", Kind::Text),
    reported("server_encoding", "UTF8", Kind::Text, Changes::Never),
    reported("server_version", "15.18", Kind::Text, Changes::Never),
    setting(
        "server_version_num",
        "150018",
        Kind::Integer(0, INT, Unit::None),
        Changes::Never,
    ),
    reported("session_authorization", "", Kind::Text, Changes::Anytime),
    user(
        "session_replication_role",
        "origin",
        Kind::Enum(&["origin", "replica", "local"]),
    ),
    setting(
        "shared_buffers",
        "16384",
        Kind::Integer(16, INT, Unit::Pages),
        Changes::Restart,
    ),
    reported("standard_conforming_strings", "on", Kind::Bool, Changes::Anytime),
    time("statement_timeout", "0"),
    setting(
        "superuser_reserved_connections",
        "3",
        Kind::Integer(0, 262_143, Unit::None),
        Changes::Restart,
    ),
    user(
        "synchronous_commit",
        "on",
        Kind::Enum(&["local", "remote_write", "remote_apply", "on", "off"]),
    ),
    setting("synchronous_standby_names", "", Kind::Text, Changes::Reload),
    user("tcp_keepalives_idle", "0", Kind::Integer(0, INT, Unit::Seconds)),
    user("temp_buffers", "1024", Kind::Integer(100, INT, Unit::Pages)),
    reported("TimeZone", "UTC", Kind::Text, Changes::Anytime),
    flag("transaction_deferrable", "off"),
    user("transaction_isolation", "read committed", Kind::Enum(ISOLATION)),
    flag("transaction_read_only", "off"),
    // Only since version 17; harmless here, and a session of the simulator can obey it.
    time("transaction_timeout", "0"),
    setting(
        "wal_block_size",
        "8192",
        Kind::Integer(8192, 8192, Unit::None),
        Changes::Never,
    ),
    setting(
        "wal_level",
        "replica",
        Kind::Enum(&["minimal", "replica", "logical"]),
        Changes::Restart,
    ),
    setting(
        "wal_receiver_status_interval",
        "10",
        Kind::Integer(0, INT, Unit::Seconds),
        Changes::Reload,
    ),
    setting(
        "wal_segment_size",
        "16777216",
        Kind::Integer(1_048_576, 1_073_741_824, Unit::Bytes),
        Changes::Never,
    ),
    setting(
        "wal_writer_delay",
        "200",
        Kind::Integer(1, 10_000, Unit::Milliseconds),
        Changes::Reload,
    ),
    user("work_mem", "4096", Kind::Integer(64, INT, Unit::Kilobytes)),
    user("xmloption", "content", Kind::Enum(&["content", "document"])),
];
