//! The statements a scripted server understands without a script: session and transaction verbs, a few functions.
//!
//! Text in, `Statement` out; the session model applies it. It reads no rows and knows no tables.

use super::words::Words;
use crate::sql::{Token, tokens};
use crate::value::{Type, Value};

/// A statement the session model can carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Begin {
        start: bool,
        read_only: Option<bool>,
    },
    Close(Option<String>),
    Commit {
        chain: bool,
    },
    CreateTemp {
        table: String,
    },
    Deallocate(Option<String>),
    Declare {
        cursor: String,
        hold: bool,
    },
    Discard(Discard),
    Empty,
    Listen(String),
    Notify {
        channel: String,
        payload: String,
    },
    Prepare {
        name: String,
        sql: String,
    },
    Release(String),
    Reset(Option<String>),
    Rollback {
        chain: bool,
    },
    RollbackTo(String),
    Savepoint(String),
    Select(Vec<Call>),
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    SetTransaction {
        read_only: Option<bool>,
    },
    Show(String),
    Unlisten(Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discard {
    All,
    Plans,
    Sequences,
    Temp,
}

/// One item of a SELECT list: a literal or a function the model knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    AdvisoryLock {
        key: String,
        in_transaction: bool,
        attempt: bool,
    },
    AdvisoryUnlock(String),
    AdvisoryUnlockAll,
    BackendPid,
    CurrentSetting(String),
    InRecovery,
    Integer(i32),
    Notify {
        channel: String,
        payload: String,
    },
    SetConfig {
        name: String,
        value: String,
        local: bool,
    },
    Text(String),
}

impl Call {
    pub(crate) fn column(&self) -> (String, Type) {
        let (name, of) = match self {
            Self::AdvisoryLock {
                in_transaction: true,
                attempt: true,
                ..
            } => ("pg_try_advisory_xact_lock", Type::Bool),
            Self::AdvisoryLock {
                in_transaction: true, ..
            } => ("pg_advisory_xact_lock", Type::Void),
            Self::AdvisoryLock { attempt: true, .. } => ("pg_try_advisory_lock", Type::Bool),
            Self::AdvisoryLock { .. } => ("pg_advisory_lock", Type::Void),
            Self::AdvisoryUnlock(_) => ("pg_advisory_unlock", Type::Bool),
            Self::AdvisoryUnlockAll => ("pg_advisory_unlock_all", Type::Void),
            Self::BackendPid => ("pg_backend_pid", Type::Int4),
            Self::CurrentSetting(_) => ("current_setting", Type::Text),
            Self::InRecovery => ("pg_is_in_recovery", Type::Bool),
            Self::Integer(_) => ("?column?", Type::Int4),
            Self::Notify { .. } => ("pg_notify", Type::Void),
            Self::SetConfig { .. } => ("set_config", Type::Text),
            Self::Text(_) => ("?column?", Type::Text),
        };
        (name.to_owned(), of)
    }

    /// The value of an item that needs no session.
    pub(crate) fn constant(&self) -> Option<Value> {
        match self {
            Self::Integer(number) => Some(Value::from(*number)),
            Self::Text(text) => Some(Value::Text(text.clone())),
            _ => None,
        }
    }
}

impl Statement {
    /// The statement, if it is one the model knows.
    pub(crate) fn parse(sql: &str) -> Option<Self> {
        let tokens = tokens(sql);
        let mut words = Words::new(&tokens);
        words.drop_semicolons();
        let Some(verb) = words.any_word() else {
            return words.is_empty().then_some(Self::Empty);
        };
        let statement = match verb.as_str() {
            "begin" => Self::Begin {
                start: false,
                read_only: words.read_only(),
            },
            "start" if words.word("transaction") => Self::Begin {
                start: true,
                read_only: words.read_only(),
            },
            "commit" | "end" if !words.word("prepared") => Self::Commit { chain: words.chain() },
            "rollback" | "abort" => words.rollback()?,
            "savepoint" => Self::Savepoint(words.name()?),
            "release" => {
                words.word("savepoint");
                Self::Release(words.name()?)
            }
            "set" => words.set()?,
            "reset" => words.reset()?,
            "show" => Self::Show(words.setting()?),
            "listen" => Self::Listen(words.name()?),
            "unlisten" => Self::Unlisten(if words.symbol('*') { None } else { Some(words.name()?) }),
            "notify" => {
                let channel = words.name()?;
                let payload = if words.symbol(',') {
                    words.text()?
                } else {
                    String::new()
                };
                Self::Notify { channel, payload }
            }
            "discard" => words.discard()?,
            "deallocate" => {
                words.word("prepare");
                Self::Deallocate(if words.word("all") { None } else { Some(words.name()?) })
            }
            "prepare" => words.prepare(sql)?,
            "create" => words.create_temp()?,
            "declare" => words.declare()?,
            "close" => Self::Close(if words.word("all") { None } else { Some(words.name()?) }),
            "select" => words.select()?,
            _ => return None,
        };
        // Leftovers mean a form the model does not know: no guess.
        (words.is_empty() || statement.is_open_ended()).then_some(statement)
    }

    fn is_open_ended(&self) -> bool {
        matches!(
            self,
            Self::Begin { .. }
                | Self::CreateTemp { .. }
                | Self::Declare { .. }
                | Self::Prepare { .. }
                | Self::SetTransaction { .. }
        )
    }

    /// Whether it may run in a failed transaction.
    pub(crate) fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit { .. } | Self::Rollback { .. } | Self::RollbackTo(_))
    }

    /// The columns it returns.
    pub(crate) fn columns(&self) -> Option<Vec<(String, Type)>> {
        match self {
            Self::Select(calls) => Some(calls.iter().map(Call::column).collect()),
            Self::Show(name) => Some(vec![(name.clone(), Type::Text)]),
            _ => None,
        }
    }
}

/// The command name that a read-only transaction refuses, if the statement writes.
pub(crate) fn write_command(sql: &str) -> Option<String> {
    let tokens = tokens(sql);
    let words = tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.as_str()),
        _ => None,
    });
    let words: Vec<&str> = words.collect();
    let filler = |word: &&&str| matches!(**word, "temp" | "temporary" | "local" | "global" | "unique");
    let second = || words.iter().skip(1).find(|word| !filler(word));
    match *words.first()? {
        verb @ ("insert" | "update" | "delete" | "merge") => Some(verb.to_uppercase()),
        "truncate" => Some("TRUNCATE TABLE".to_owned()),
        verb @ ("create" | "drop" | "alter") => Some(format!("{verb} {}", second()?).to_uppercase()),
        verb @ ("grant" | "revoke" | "comment") => Some(verb.to_uppercase()),
        "copy" if words.contains(&"from") => Some("COPY FROM".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_verbs_are_read_and_others_are_left_alone() {
        let known = [
            (
                "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
                Statement::Begin {
                    start: false,
                    read_only: Some(true),
                },
            ),
            ("ROLLBACK TO SAVEPOINT \"A b\"", Statement::RollbackTo("A b".into())),
            ("commit and chain;", Statement::Commit { chain: true }),
            (
                "SET SESSION AUTHORIZATION DEFAULT",
                Statement::Set {
                    name: "session_authorization".into(),
                    value: None,
                    local: false,
                },
            ),
            (
                "SET LOCAL search_path TO a, 'B'",
                Statement::Set {
                    name: "search_path".into(),
                    value: Some("a, B".into()),
                    local: true,
                },
            ),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
                Statement::Set {
                    name: "default_transaction_read_only".into(),
                    value: Some("off".into()),
                    local: false,
                },
            ),
            ("UNLISTEN *", Statement::Unlisten(None)),
            (
                "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1",
                Statement::Declare {
                    cursor: "c".into(),
                    hold: true,
                },
            ),
            (
                "SELECT pg_catalog.pg_advisory_unlock_all()",
                Statement::Select(vec![Call::AdvisoryUnlockAll]),
            ),
            ("-- nothing", Statement::Empty),
        ];
        for (sql, expected) in known {
            assert_eq!(Statement::parse(sql), Some(expected), "{sql}");
        }
        for sql in [
            "SELECT 1 FROM t",
            "SET a b",
            "CREATE TABLE t ()",
            "PREPARE TRANSACTION 'x'",
            "COMMIT WHAT",
            "$1",
        ] {
            assert_eq!(Statement::parse(sql), None, "{sql}");
        }
    }

    #[test]
    fn writes_are_named_as_the_server_names_them() {
        for (sql, command) in [
            ("insert into t values (1)", Some("INSERT")),
            ("CREATE TEMP TABLE a ()", Some("CREATE TABLE")),
            ("COPY t FROM STDIN", Some("COPY FROM")),
            ("COPY t TO STDOUT", None),
            ("SELECT 1", None),
        ] {
            assert_eq!(write_command(sql).as_deref(), command, "{sql}");
        }
    }
}
