//! A session's messages in the run's hash, with ordinals for names that are process-global in tokio-postgres.
//!
//! Beside reading and writing; it changes nothing.

use std::collections::BTreeMap;

use super::Session;
use crate::random::hash_bytes;
use crate::trace::Event;
use crate::wire::{Backend as Message, Frontend};

/// The process-global names a session has seen, by ordinal.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, u64>);

impl Names {
    fn of(&mut self, name: &str) -> u64 {
        let global =
            name.len() > 1 && name.starts_with(['s', 'p']) && name[1..].bytes().all(|byte| byte.is_ascii_digit());
        if !global {
            return hash_bytes(name.as_bytes());
        }
        if let Some(known) = self.0.get(name) {
            return *known;
        }
        let next = self.0.len() as u64;
        self.0.insert(name.to_owned(), next);
        next
    }
}

/// What of a message of the server goes into the hash.
pub(crate) fn backend_content(message: &Message, bytes: &[u8]) -> u64 {
    match message {
        // These name statements, whose names differ from run to run.
        Message::ErrorResponse(report) if matches!(&*report.sqlstate, "26000" | "34000" | "42P03" | "42P05") => {
            hash_bytes(report.sqlstate.as_bytes())
        }
        // The client's nonce is in it, which no seed fixes.
        Message::AuthenticationSaslContinue(_) | Message::AuthenticationSaslFinal(_) => 0,
        _ => hash_bytes(bytes),
    }
}

pub(crate) fn record_backend(session: &Session, kind: u8, content: u64) {
    let words = [u64::from(session.pid.unsigned_abs()), u64::from(kind), content];
    session.shared.record(Event::Backend, &words);
}

pub(crate) fn record_frontend(session: &mut Session, message: &Frontend) {
    let names = &mut session.names;
    let content = match message {
        Frontend::Parse { name, sql, types } => {
            let types = types.iter().fold(0, |hash, of| hash ^ u64::from(*of));
            [1, names.of(name), hash_bytes(sql.as_bytes()) ^ types]
        }
        Frontend::Bind {
            portal,
            statement,
            parameters,
            ..
        } => {
            let values = parameters.iter().enumerate().map(|(place, value)| {
                let hash = value.as_ref().map_or(1, |value| hash_bytes(value));
                hash.rotate_left(u32::try_from(place % 64).unwrap_or(0))
            });
            [
                2,
                names.of(portal) ^ names.of(statement).rotate_left(32),
                values.fold(0, |all, one| all ^ one),
            ]
        }
        Frontend::Describe(_, name) => [3, names.of(name), 0],
        Frontend::Close(_, name) => [4, names.of(name), 0],
        Frontend::Execute { portal, max_rows } => [5, names.of(portal), u64::from(max_rows.unsigned_abs())],
        Frontend::Query(sql) => [6, hash_bytes(sql.as_bytes()), 0],
        Frontend::CopyData(bytes) => [7, hash_bytes(bytes), 0],
        // Passwords answer a salt or a nonce; what matters is that they came.
        other => [8, hash_bytes(kind(other).as_bytes()), 0],
    };
    let words = [
        u64::from(session.pid.unsigned_abs()),
        content[0],
        content[1],
        content[2],
    ];
    session.shared.record(Event::Frontend, &words);
}

/// What a message is called; never what is in it.
pub(crate) fn kind(message: &Frontend) -> &'static str {
    match message {
        Frontend::Bind { .. } => "Bind",
        Frontend::CancelRequest { .. } => "CancelRequest",
        Frontend::Close(..) => "Close",
        Frontend::CopyData(_) => "CopyData",
        Frontend::CopyDone => "CopyDone",
        Frontend::CopyFail(_) => "CopyFail",
        Frontend::Describe(..) => "Describe",
        Frontend::Execute { .. } => "Execute",
        Frontend::Flush => "Flush",
        Frontend::FunctionCall => "FunctionCall",
        Frontend::GssEncRequest => "GSSENCRequest",
        Frontend::Parse { .. } => "Parse",
        Frontend::Password(_) => "a password message",
        Frontend::Query(_) => "Query",
        Frontend::SslRequest => "SSLRequest",
        Frontend::StartUp { .. } => "a start-up packet",
        Frontend::Sync => "Sync",
        Frontend::Terminate => "Terminate",
    }
}
