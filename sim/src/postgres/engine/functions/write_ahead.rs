//! Roles, recovery and the write-ahead log: what a client may ask about a node's place in its cluster.
//!
//! A family of functions. A plain machine.

use super::Argument::Is;
use super::{Function, int, once, plain, set};
use crate::postgres::engine::catalog::row;
use crate::postgres::engine::door::{Request, Role};
use crate::postgres::engine::execute::{Context, Stop};
use crate::postgres::engine::heap::Fate;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::numeric::Numeric;
use crate::postgres::engine::types::{BOOL, INT4, INT8, NUMERIC, PG_LSN, TEXT, TIMESTAMPTZ, VOID, XID8};
use crate::postgres::engine::wal::Lsn;
use crate::wire::Report;

pub(super) const FUNCTIONS: &[Function] = &[
    plain("pg_is_in_recovery", &[], BOOL, |context, _| {
        Ok(Datum::Bool(context.engine.role.is_standby()))
    })
    .stable(),
    plain("pg_current_wal_lsn", &[], PG_LSN, current).stable(),
    plain("pg_current_wal_flush_lsn", &[], PG_LSN, current).stable(),
    plain("pg_current_wal_insert_lsn", &[], PG_LSN, current).stable(),
    plain("pg_last_wal_receive_lsn", &[], PG_LSN, |context, _| {
        Ok(lsn(context.engine.recovery.received))
    })
    .stable(),
    plain("pg_last_wal_replay_lsn", &[], PG_LSN, |context, _| {
        Ok(lsn(context.engine.recovery.replayed))
    })
    .stable(),
    plain("pg_last_xact_replay_timestamp", &[], TIMESTAMPTZ, |context, _| {
        Ok(context
            .engine
            .recovery
            .last_commit
            .map_or(Datum::Null, Datum::Timestamp))
    })
    .stable(),
    plain("pg_is_wal_replay_paused", &[], BOOL, |context, _| {
        in_recovery(context)?;
        Ok(Datum::Bool(context.engine.recovery.paused))
    })
    .stable(),
    once("pg_wal_replay_pause", &[], VOID, |context, _| {
        request(context, Request::PauseReplay)
    }),
    once("pg_wal_replay_resume", &[], VOID, |context, _| {
        request(context, Request::ResumeReplay)
    }),
    once("pg_promote", &[], BOOL, promote),
    once("pg_promote", &[Is(BOOL), Is(INT4)], BOOL, promote),
    plain("pg_wal_lsn_diff", &[Is(PG_LSN), Is(PG_LSN)], NUMERIC, |_, v| {
        difference(v)
    }),
    plain("-", &[Is(PG_LSN), Is(PG_LSN)], NUMERIC, |_, v| difference(v)),
    plain("+", &[Is(PG_LSN), Is(NUMERIC)], PG_LSN, |_, v| moved(v, 1)),
    plain("-", &[Is(PG_LSN), Is(NUMERIC)], PG_LSN, |_, v| moved(v, -1)),
    plain("pg_walfile_name", &[Is(PG_LSN)], TEXT, |context, v| {
        if context.engine.role.is_standby() {
            return Err(recovering("pg_walfile_name()"));
        }
        let Datum::Lsn(position) = v[0] else {
            return Ok(Datum::Null);
        };
        let segment = position.saturating_sub(1) >> 24;
        let timeline = context.engine.role.timeline();
        Ok(Datum::text(format!(
            "{timeline:08X}{:08X}{:08X}",
            segment >> 8,
            segment & 0xff
        )))
    })
    .stable(),
    once("pg_switch_wal", &[], PG_LSN, |context, _| {
        if context.engine.role.is_standby() {
            return Err(recovering("pg_switch_wal()"));
        }
        Ok(Datum::Lsn(context.engine.wal.end().0))
    }),
    once("pg_current_xact_id", &[], XID8, |context, _| {
        context.engine.require_primary("pg_current_xact_id()")?;
        Ok(Datum::Xid8(context.engine.assign_xid(context.pid)))
    }),
    once("txid_current", &[], INT8, |context, _| {
        context.engine.require_primary("pg_current_xact_id()")?;
        Ok(Datum::Int8(context.engine.assign_xid(context.pid).cast_signed()))
    }),
    plain("pg_current_xact_id_if_assigned", &[], XID8, |context, _| {
        Ok(context.xid().map_or(Datum::Null, Datum::Xid8))
    })
    .stable(),
    plain("txid_current_if_assigned", &[], INT8, |context, _| {
        Ok(context.xid().map_or(Datum::Null, |xid| Datum::Int8(xid.cast_signed())))
    })
    .stable(),
    plain("pg_xact_status", &[Is(XID8)], TEXT, |context, v| {
        let Datum::Xid8(xid) = v[0] else { return Ok(Datum::Null) };
        if xid >= context.engine.transactions.next() {
            let message = format!("transaction ID {xid} is in the future");
            return Err(Report::error("22023", message).into());
        }
        Ok(Datum::text(match context.engine.transactions.fate(xid) {
            Fate::Aborted => "aborted",
            Fate::Committed(_) => "committed",
            Fate::InProgress => "in progress",
        }))
    })
    .stable(),
    set(
        "pg_control_system",
        &[],
        &[
            ("pg_control_version", INT4),
            ("catalog_version_no", INT4),
            ("system_identifier", INT8),
            ("pg_control_last_modified", TIMESTAMPTZ),
        ],
        |context, _| {
            let identifier = context.engine.node.system_identifier.cast_signed();
            let modified = Datum::Timestamp(context.engine.node.started);
            Ok(vec![row(vec![
                Datum::Int4(1300),
                Datum::Int4(202_209_061),
                Datum::Int8(identifier),
                modified,
            ])])
        },
    ),
    set(
        "pg_control_checkpoint",
        &[],
        &[
            ("checkpoint_lsn", PG_LSN),
            ("redo_lsn", PG_LSN),
            ("timeline_id", INT4),
            ("checkpoint_time", TIMESTAMPTZ),
        ],
        |context, _| {
            let checkpoint = context.engine.recovery.checkpoint;
            let at = Datum::Lsn(checkpoint.0);
            let timeline = Datum::Int4(context.engine.recovery.checkpoint_timeline.cast_signed());
            Ok(vec![row(vec![
                at.clone(),
                at,
                timeline,
                Datum::Timestamp(context.engine.node.started),
            ])])
        },
    ),
    set(
        "pg_control_recovery",
        &[],
        &[
            ("min_recovery_end_lsn", PG_LSN),
            ("min_recovery_end_timeline", INT4),
            ("backup_start_lsn", PG_LSN),
            ("backup_end_lsn", PG_LSN),
            ("end_of_backup_record_required", BOOL),
        ],
        |context, _| {
            let standby = context.engine.role.is_standby();
            let replayed = context.engine.recovery.replayed.filter(|_| standby).unwrap_or_default();
            let timeline = if standby {
                context.engine.role.timeline().cast_signed()
            } else {
                0
            };
            Ok(vec![row(vec![
                Datum::Lsn(replayed.0),
                Datum::Int4(timeline),
                Datum::Lsn(0),
                Datum::Lsn(0),
                Datum::Bool(false),
            ])])
        },
    ),
];

fn lsn(position: Option<Lsn>) -> Datum {
    position.map_or(Datum::Null, |position| Datum::Lsn(position.0))
}

fn recovering(function: &str) -> Stop {
    let hint = if function == "pg_walfile_name()" {
        "pg_walfile_name() cannot be executed during recovery."
    } else {
        "WAL control functions cannot be executed during recovery."
    };
    Report::error("55000", "recovery is in progress").hint(hint).into()
}

fn in_recovery(context: &Context<'_>) -> Result<(), Stop> {
    if context.engine.role.is_standby() {
        return Ok(());
    }
    let hint = "Recovery control functions can only be executed during recovery.";
    Err(Report::error("55000", "recovery is not in progress").hint(hint).into())
}

fn current(context: &mut Context<'_>, _: &[Datum]) -> Result<Datum, Stop> {
    match context.engine.role {
        Role::Primary { .. } => Ok(Datum::Lsn(context.engine.wal.end().0)),
        Role::Standby { .. } => Err(recovering("")),
    }
}

fn request(context: &mut Context<'_>, request: Request) -> Result<Datum, Stop> {
    in_recovery(context)?;
    context.engine.request(request);
    Ok(Datum::Void)
}

fn promote(context: &mut Context<'_>, values: &[Datum]) -> Result<Datum, Stop> {
    in_recovery(context)?;
    if values.get(1).is_some_and(|seconds| int(seconds) <= 0) {
        return Err(Report::error("22003", "\"wait_seconds\" must not be negative or zero").into());
    }
    context.engine.request(Request::Promote);
    Ok(Datum::Bool(true))
}

fn difference(values: &[Datum]) -> Result<Datum, Stop> {
    let (Datum::Lsn(a), Datum::Lsn(b)) = (&values[0], &values[1]) else {
        return Ok(Datum::Null);
    };
    Ok(Datum::Numeric(Numeric::new(i128::from(*a) - i128::from(*b), 0)))
}

fn moved(values: &[Datum], sign: i128) -> Result<Datum, Stop> {
    let (Datum::Lsn(start), Some(bytes)) = (&values[0], values[1].as_numeric().and_then(Numeric::to_i64)) else {
        return Err(Report::error("22P02", "cannot add NaN to pg_lsn").into());
    };
    let end = i128::from(*start) + sign * i128::from(bytes);
    let end = u64::try_from(end).map_err(|_| Report::error("22003", "pg_lsn out of range"))?;
    Ok(Datum::Lsn(end))
}
