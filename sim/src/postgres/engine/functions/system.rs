//! Functions about the session, the server, settings, channels and names.
//!
//! A family of functions. A plain machine.

use super::Argument::Is;
use super::{Function, int, once, plain, set, text};
use crate::postgres::engine::catalog::row;
use crate::postgres::engine::door::Request;
use crate::postgres::engine::execute::{Context, Stop};
use crate::postgres::engine::settings;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{
    BOOL, INT4, INT8, NAME, OID, REGCLASS, Scalar, TEXT, TIMESTAMPTZ, Type, UUID, VOID,
};
use crate::wire::Report;

/// A longer payload is refused, as PostgreSQL does.
const MAX_PAYLOAD: usize = 7_999;

pub(super) const FUNCTIONS: &[Function] = &[
    plain("version", &[], TEXT, |context, _| {
        let version = context.engine.show(context.pid, "server_version").unwrap_or_default();
        Ok(Datum::text(format!("PostgreSQL {version} (gdbpool-sim)")))
    })
    .stable(),
    plain("current_database", &[], NAME, database).stable(),
    plain("current_catalog", &[], NAME, database).stable(),
    plain("current_user", &[], NAME, user).stable(),
    plain("current_role", &[], NAME, user).stable(),
    plain("user", &[], NAME, user).stable(),
    plain("session_user", &[], NAME, |context, _| {
        Ok(Datum::text(
            context
                .engine
                .show(context.pid, "session_authorization")
                .unwrap_or_default(),
        ))
    })
    .stable(),
    plain("current_schema", &[], NAME, |context, _| {
        Ok(context
            .engine
            .search_path(context.pid)
            .first()
            .map_or(Datum::Null, Datum::text))
    })
    .stable(),
    plain(
        "current_schemas",
        &[Is(BOOL)],
        Type::array(Scalar::Name),
        |context, v| {
            let mut path = context.engine.search_path(context.pid);
            if v[0].is_true() && !path.iter().any(|schema| schema == "pg_catalog") {
                path.insert(0, "pg_catalog".to_owned());
            }
            Ok(Datum::array(NAME, path.iter().map(Datum::text).collect()))
        },
    )
    .stable(),
    plain("pg_backend_pid", &[], INT4, |context, _| Ok(Datum::Int4(context.pid))).stable(),
    plain("pg_my_temp_schema", &[], OID, |_, _| Ok(Datum::Oid(0))).stable(),
    plain("pg_postmaster_start_time", &[], TIMESTAMPTZ, |context, _| {
        Ok(Datum::Timestamp(context.engine.node.started))
    })
    .stable(),
    plain("pg_conf_load_time", &[], TIMESTAMPTZ, |context, _| {
        Ok(Datum::Timestamp(context.engine.node.started))
    })
    .stable(),
    plain("inet_server_port", &[], INT4, |context, _| {
        let port = context
            .engine
            .show(context.pid, "port")
            .and_then(|port| port.parse().ok());
        Ok(port.map_or(Datum::Null, Datum::Int4))
    })
    .stable(),
    plain("current_setting", &[Is(TEXT)], TEXT, |context, v| {
        let name = text(&v[0]);
        let value = context
            .engine
            .show(context.pid, name)
            .ok_or_else(|| settings::unknown(name))?;
        Ok(Datum::text(value))
    })
    .stable(),
    plain("current_setting", &[Is(TEXT), Is(BOOL)], TEXT, |context, v| {
        let name = text(&v[0]);
        match context.engine.show(context.pid, name) {
            Some(value) => Ok(Datum::text(value)),
            None if v[1].is_true() => Ok(Datum::Null),
            None => Err(settings::unknown(name).into()),
        }
    })
    .stable(),
    once("set_config", &[Is(TEXT), Is(TEXT), Is(BOOL)], TEXT, |context, v| {
        if v[0].is_null() {
            return Err(Report::error("22004", "SET requires parameter name").into());
        }
        let name = text(&v[0]).to_owned();
        let value = v[1].as_str().map(str::to_owned);
        context
            .engine
            .set(context.pid, &name, value.as_deref(), v[2].is_true())?;
        Ok(Datum::text(context.engine.show(context.pid, &name).unwrap_or_default()))
    })
    .lax(),
    plain("pg_notify", &[Is(TEXT), Is(TEXT)], VOID, |context, v| {
        context.engine.require_primary("NOTIFY")?;
        let payload = if v[1].is_null() { "" } else { text(&v[1]) };
        notify(context, text(&v[0]), payload)?;
        Ok(Datum::Void)
    })
    .stable()
    .lax(),
    set(
        "pg_listening_channels",
        &[],
        &[("pg_listening_channels", TEXT)],
        |context, _| {
            Ok(context
                .session()
                .channels
                .iter()
                .map(|channel| row(vec![Datum::text(channel)]))
                .collect())
        },
    ),
    plain(
        "pg_notification_queue_usage",
        &[],
        crate::postgres::engine::types::FLOAT8,
        |_, _| Ok(Datum::Float8(0.0)),
    )
    .stable(),
    once("pg_terminate_backend", &[Is(INT4)], BOOL, |context, v| {
        signal(context, int(&v[0]), true)
    }),
    once("pg_terminate_backend", &[Is(INT4), Is(INT8)], BOOL, |context, v| {
        signal(context, int(&v[0]), true)
    }),
    once("pg_cancel_backend", &[Is(INT4)], BOOL, |context, v| {
        signal(context, int(&v[0]), false)
    }),
    plain(
        "pg_blocking_pids",
        &[Is(INT4)],
        Type::array(Scalar::Int4),
        |context, v| {
            let pid = i32::try_from(int(&v[0])).unwrap_or(0);
            let pids = context
                .engine
                .locks
                .blocking(pid)
                .into_iter()
                .map(Datum::Int4)
                .collect();
            Ok(Datum::array(INT4, pids))
        },
    )
    .stable(),
    once("gen_random_uuid", &[], UUID, |context, _| {
        let bits = u128::from(context.engine.random()) << 64 | u128::from(context.engine.random());
        let mut bytes = bits.to_be_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Datum::Uuid(bytes))
    }),
    plain("to_regclass", &[Is(TEXT)], REGCLASS, |context, v| {
        Ok(match context.engine.regclass(context.pid, text(&v[0])) {
            Ok(oid) => Datum::Oid(oid),
            Err(_) => Datum::Null,
        })
    })
    .stable(),
    plain("format_type", &[Is(OID), Is(INT4)], TEXT, |_, v| {
        let Datum::Oid(oid) = v[0] else { return Ok(Datum::Null) };
        Ok(Datum::text(
            Type::from_oid(oid).map_or_else(|| "???".to_owned(), Type::shown),
        ))
    })
    .lax(),
    plain("pg_get_userbyid", &[Is(OID)], NAME, |context, v| {
        let Datum::Oid(oid) = v[0] else { return Ok(Datum::Null) };
        Ok(Datum::text(context.engine.role_name(oid)))
    })
    .stable(),
    plain("pg_table_is_visible", &[Is(OID)], BOOL, |context, v| {
        let Datum::Oid(oid) = v[0] else { return Ok(Datum::Null) };
        let name = context.engine.relation_name(oid).unwrap_or_default();
        Ok(Datum::Bool(
            context.engine.find_relation(context.pid, None, &name) == Some(oid),
        ))
    })
    .stable(),
];

fn database(context: &mut Context<'_>, _: &[Datum]) -> Result<Datum, Stop> {
    Ok(Datum::text(&context.session().database))
}

fn user(context: &mut Context<'_>, _: &[Datum]) -> Result<Datum, Stop> {
    Ok(Datum::text(context.engine.current_user(context.pid)))
}

/// Queues a notification for the commit; one that the transaction has queued already is not queued again.
pub(crate) fn notify(context: &mut Context<'_>, channel: &str, payload: &str) -> Result<(), Stop> {
    if channel.is_empty() {
        return Err(Report::error("22023", "channel name cannot be empty").into());
    }
    if channel.len() > 63 {
        return Err(Report::error("22023", "channel name too long").into());
    }
    if payload.len() > MAX_PAYLOAD {
        return Err(Report::error("22023", "payload string too long").into());
    }
    context.engine.queue_notification(context.pid, channel, payload);
    Ok(())
}

fn signal(context: &mut Context<'_>, pid: i64, terminate: bool) -> Result<Datum, Stop> {
    let found = i32::try_from(pid)
        .ok()
        .filter(|pid| context.engine.sessions.contains_key(pid));
    let Some(pid) = found else {
        let message = format!("PID {pid} is not a PostgreSQL backend process");
        context.session_mut().notice(Report::warning("01000", message));
        return Ok(Datum::Bool(false));
    };
    context.engine.request(if terminate {
        Request::Terminate { pid }
    } else {
        Request::Cancel { pid }
    });
    Ok(Datum::Bool(true))
}
