//! Sequences: `nextval` and its kin. They do not go with transactions.
//!
//! A family of functions. A plain machine.

use super::Argument::Is;
use super::{Function, int, once, plain, text};
use crate::postgres::engine::execute::{Context, Stop};
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{BOOL, INT8, REGCLASS, TEXT};
use crate::postgres::engine::wal::WalKind;
use crate::wire::Report;

/// How many values go with one log record, as in PostgreSQL.
const LOGGED_AHEAD: i64 = 32;

pub(super) const FUNCTIONS: &[Function] = &[
    once("nextval", &[Is(REGCLASS)], INT8, |context, v| {
        next(context, oid(&v[0])).map(Datum::Int8)
    }),
    plain("currval", &[Is(REGCLASS)], INT8, |context, v| {
        let oid = oid(&v[0]);
        let name = name(context, oid)?;
        match context.session().current.get(&oid) {
            Some(value) => Ok(Datum::Int8(*value)),
            None => {
                let message = format!("currval of sequence \"{name}\" is not yet defined in this session");
                Err(Report::error("55000", message).into())
            }
        }
    })
    .stable(),
    plain("lastval", &[], INT8, |context, _| {
        let session = context.session();
        let last = session.last_sequence.and_then(|oid| session.current.get(&oid));
        match last {
            Some(value) => Ok(Datum::Int8(*value)),
            None => Err(Report::error("55000", "lastval is not yet defined in this session").into()),
        }
    })
    .stable(),
    once("setval", &[Is(REGCLASS), Is(INT8)], INT8, |context, v| {
        set(context, oid(&v[0]), int(&v[1]), true)
    }),
    once("setval", &[Is(REGCLASS), Is(INT8), Is(BOOL)], INT8, |context, v| {
        set(context, oid(&v[0]), int(&v[1]), v[2].is_true())
    }),
    plain("pg_get_serial_sequence", &[Is(TEXT), Is(TEXT)], TEXT, |context, v| {
        let oid = context.engine.regclass(context.pid, text(&v[0]))?;
        let Some((table, _)) = context.engine.catalog.table(oid) else {
            return Ok(Datum::Null);
        };
        let Some(column) = table.column(text(&v[1])) else {
            let message = format!(
                "column \"{}\" of relation \"{}\" does not exist",
                text(&v[1]),
                table.name
            );
            return Err(Report::error("42703", message).into());
        };
        let Some(crate::postgres::engine::catalog::Default::Sequence(sequence)) = &table.columns[column].default else {
            return Ok(Datum::Null);
        };
        let sequence = context.engine.catalog.sequence(*sequence);
        Ok(sequence.map_or(Datum::Null, |sequence| {
            let quote = super::strings::quote_ident;
            Datum::text(format!("{}.{}", quote(&sequence.schema), quote(&sequence.name)))
        }))
    })
    .stable(),
];

fn oid(value: &Datum) -> u32 {
    match value {
        Datum::Oid(oid) => *oid,
        _ => 0,
    }
}

fn name(context: &Context<'_>, oid: u32) -> Result<String, Stop> {
    if let Some(sequence) = context.engine.catalog.sequence(oid) {
        return Ok(sequence.name.clone());
    }
    let shown = context.engine.relation_name(oid).unwrap_or_else(|| oid.to_string());
    Err(Report::error("42809", format!("\"{shown}\" is not a sequence")).into())
}

/// The next value of a sequence.
pub(crate) fn next(context: &mut Context<'_>, oid: u32) -> Result<i64, Stop> {
    let name = name(context, oid)?;
    let temporary = context
        .engine
        .catalog
        .sequence(oid)
        .is_some_and(|sequence| sequence.temporary.is_some());
    if !temporary {
        context.engine.require_writable(context.pid, "nextval()")?;
    }
    let Some(sequence) = context.engine.catalog.sequence_mut(oid) else {
        return Ok(0);
    };
    let value = if sequence.is_called {
        sequence.last.checked_add(sequence.increment)
    } else {
        Some(sequence.last)
    };
    let value = value.filter(|value| *value <= sequence.most).ok_or_else(|| {
        let most = sequence.most;
        Report::error(
            "2200H",
            format!("nextval: reached maximum value of sequence \"{name}\" ({most})"),
        )
    })?;
    sequence.last = value;
    sequence.is_called = true;
    let log = sequence.logged == 0 && sequence.temporary.is_none();
    let ahead = value
        .saturating_add(sequence.increment.saturating_mul(LOGGED_AHEAD))
        .min(sequence.most);
    sequence.logged = if sequence.logged == 0 {
        LOGGED_AHEAD
    } else {
        sequence.logged - 1
    };
    if log {
        context.engine.assign_xid(context.pid);
        let record = WalKind::Sequence {
            oid,
            last: ahead,
            is_called: true,
        };
        context.engine.write_wal(context.at.wall, record);
    }
    let session = context.session_mut();
    session.current.insert(oid, value);
    session.last_sequence = Some(oid);
    Ok(value)
}

fn set(context: &mut Context<'_>, oid: u32, value: i64, is_called: bool) -> Result<Datum, Stop> {
    let name = name(context, oid)?;
    context.engine.require_writable(context.pid, "setval()")?;
    if let Some(sequence) = context.engine.catalog.sequence_mut(oid) {
        if value < 1 && sequence.increment > 0 || value > sequence.most {
            let message = format!(
                "setval: value {value} is out of bounds for sequence \"{name}\" (1..{})",
                sequence.most
            );
            return Err(Report::error("22003", message).into());
        }
        sequence.last = value;
        sequence.is_called = is_called;
        sequence.logged = 0;
    }
    context.engine.assign_xid(context.pid);
    let record = WalKind::Sequence {
        oid,
        last: value,
        is_called,
    };
    context.engine.write_wal(context.at.wall, record);
    if is_called {
        context.session_mut().current.insert(oid, value);
    }
    Ok(Datum::Int8(value))
}
