//! Advisory locks.
//!
//! A family of functions. A plain machine: a lock that is taken makes the statement wait and start over.

use super::Argument::Is;
use super::{Function, int, once};
use crate::postgres::engine::execute::{Context, Stop};
use crate::postgres::engine::locks::{Mode, Resource};
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{BOOL, INT4, INT8, VOID};
use crate::wire::Report;

const ONE: &[super::Argument] = &[Is(INT8)];
const TWO: &[super::Argument] = &[Is(INT4), Is(INT4)];

pub(super) const FUNCTIONS: &[Function] = &[
    once("pg_advisory_lock", ONE, VOID, |c, v| lock(c, v, Mode::Exclusive, true)),
    once("pg_advisory_lock", TWO, VOID, |c, v| lock(c, v, Mode::Exclusive, true)),
    once("pg_advisory_lock_shared", ONE, VOID, |c, v| {
        lock(c, v, Mode::Share, true)
    }),
    once("pg_advisory_lock_shared", TWO, VOID, |c, v| {
        lock(c, v, Mode::Share, true)
    }),
    once("pg_advisory_xact_lock", ONE, VOID, |c, v| {
        lock(c, v, Mode::Exclusive, false)
    }),
    once("pg_advisory_xact_lock", TWO, VOID, |c, v| {
        lock(c, v, Mode::Exclusive, false)
    }),
    once("pg_advisory_xact_lock_shared", ONE, VOID, |c, v| {
        lock(c, v, Mode::Share, false)
    }),
    once("pg_advisory_xact_lock_shared", TWO, VOID, |c, v| {
        lock(c, v, Mode::Share, false)
    }),
    once("pg_try_advisory_lock", ONE, BOOL, |c, v| {
        try_lock(c, v, Mode::Exclusive, true)
    }),
    once("pg_try_advisory_lock", TWO, BOOL, |c, v| {
        try_lock(c, v, Mode::Exclusive, true)
    }),
    once("pg_try_advisory_lock_shared", ONE, BOOL, |c, v| {
        try_lock(c, v, Mode::Share, true)
    }),
    once("pg_try_advisory_lock_shared", TWO, BOOL, |c, v| {
        try_lock(c, v, Mode::Share, true)
    }),
    once("pg_try_advisory_xact_lock", ONE, BOOL, |c, v| {
        try_lock(c, v, Mode::Exclusive, false)
    }),
    once("pg_try_advisory_xact_lock", TWO, BOOL, |c, v| {
        try_lock(c, v, Mode::Exclusive, false)
    }),
    once("pg_try_advisory_xact_lock_shared", ONE, BOOL, |c, v| {
        try_lock(c, v, Mode::Share, false)
    }),
    once("pg_try_advisory_xact_lock_shared", TWO, BOOL, |c, v| {
        try_lock(c, v, Mode::Share, false)
    }),
    once("pg_advisory_unlock", ONE, BOOL, |c, v| unlock(c, v, Mode::Exclusive)),
    once("pg_advisory_unlock", TWO, BOOL, |c, v| unlock(c, v, Mode::Exclusive)),
    once("pg_advisory_unlock_shared", ONE, BOOL, |c, v| unlock(c, v, Mode::Share)),
    once("pg_advisory_unlock_shared", TWO, BOOL, |c, v| unlock(c, v, Mode::Share)),
    once("pg_advisory_unlock_all", &[], VOID, |context, _| {
        context.engine.locks.release_session(context.pid);
        Ok(Datum::Void)
    }),
];

fn resource(context: &Context<'_>, values: &[Datum]) -> Resource {
    let database = context.engine.database_oid(context.pid);
    match values {
        [a, b] => Resource::Advisory {
            database,
            key: int(a) << 32 | (int(b) & 0xffff_ffff),
            pair: true,
        },
        _ => Resource::Advisory {
            database,
            key: int(&values[0]),
            pair: false,
        },
    }
}

fn acquire(context: &mut Context<'_>, resource: Resource, mode: Mode, session: bool) -> Result<(), Vec<i32>> {
    let locks = &mut context.engine.locks;
    if session {
        locks.acquire_for_session(context.pid, resource, mode)
    } else {
        locks.acquire(context.pid, resource, mode)
    }
}

fn lock(context: &mut Context<'_>, values: &[Datum], mode: Mode, session: bool) -> Result<Datum, Stop> {
    let resource = resource(context, values);
    match acquire(context, resource, mode, session) {
        Ok(()) => Ok(Datum::Void),
        Err(holders) => Err(context
            .engine
            .wait_for(context.pid, resource, mode, holders, String::new())),
    }
}

fn try_lock(context: &mut Context<'_>, values: &[Datum], mode: Mode, session: bool) -> Result<Datum, Stop> {
    let resource = resource(context, values);
    Ok(Datum::Bool(acquire(context, resource, mode, session).is_ok()))
}

fn unlock(context: &mut Context<'_>, values: &[Datum], mode: Mode) -> Result<Datum, Stop> {
    let resource = resource(context, values);
    let found = context.engine.locks.release_from_session(context.pid, resource, mode);
    if !found {
        let message = format!("you don't own a lock of type {}", mode.shown());
        context.session_mut().notice(Report::warning("01000", message));
    }
    Ok(Datum::Bool(found))
}
