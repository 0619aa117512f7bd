//! Reading a statement's tokens in order: the small grammar behind `Statement::parse`.
//!
//! Below the statements, above the tokens. What it does not know it gives back as nothing; it never guesses.

use super::statement::{Call, Discard, Statement};
use crate::sql::Token;

/// The unread tokens of a statement.
pub(crate) struct Words<'a> {
    tokens: &'a [Token],
}

impl<'a> Words<'a> {
    pub(crate) fn new(tokens: &'a [Token]) -> Self {
        Self { tokens }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(crate) fn drop_semicolons(&mut self) {
        while let Some((Token::Symbol(';'), rest)) = self.tokens.split_last() {
            self.tokens = rest;
        }
    }

    pub(crate) fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    pub(crate) fn word(&mut self, expected: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Word(word)) if word == expected);
        if found {
            self.next();
        }
        found
    }

    pub(crate) fn words(&mut self, expected: &[&str]) -> bool {
        let before = self.tokens;
        let found = expected.iter().all(|word| self.word(word));
        if !found {
            self.tokens = before;
        }
        found
    }

    pub(crate) fn symbol(&mut self, expected: char) -> bool {
        let found = self.tokens.first() == Some(&Token::Symbol(expected));
        if found {
            self.next();
        }
        found
    }

    pub(crate) fn any_word(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.tokens.first() else {
            return None;
        };
        let word = word.clone();
        self.next();
        Some(word)
    }

    pub(crate) fn name(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(name) | Token::Quoted(name) => Some(name.clone()),
            _ => None,
        }
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        match self.next()? {
            Token::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn setting(&mut self) -> Option<String> {
        if self.words(&["time", "zone"]) {
            return Some("TimeZone".to_owned());
        }
        let mut name = self.name()?;
        while self.symbol('.') {
            name = format!("{name}.{}", self.name()?);
        }
        Some(name)
    }

    /// `READ ONLY` or `READ WRITE` anywhere in the rest, which is used up.
    pub(crate) fn read_only(&mut self) -> Option<bool> {
        let mut found = None;
        while !self.tokens.is_empty() {
            if self.words(&["read", "only"]) {
                found = Some(true);
            } else if self.words(&["read", "write"]) {
                found = Some(false);
            } else {
                self.next();
            }
        }
        found
    }

    pub(crate) fn chain(&mut self) -> bool {
        let _ = self.word("work") || self.word("transaction");
        if self.words(&["and", "no", "chain"]) {
            return false;
        }
        self.words(&["and", "chain"])
    }

    pub(crate) fn rollback(&mut self) -> Option<Statement> {
        if self.word("prepared") {
            return None;
        }
        let _ = self.word("work") || self.word("transaction");
        if self.word("to") {
            self.word("savepoint");
            return Some(Statement::RollbackTo(self.name()?));
        }
        Some(Statement::Rollback { chain: self.chain() })
    }

    pub(crate) fn set(&mut self) -> Option<Statement> {
        if self.words(&["session", "characteristics", "as", "transaction"]) {
            let value = self.read_only().map(|on| (if on { "on" } else { "off" }).to_owned());
            let name = "default_transaction_read_only".to_owned();
            return value.map(|value| Statement::Set {
                name,
                value: Some(value),
                local: false,
            });
        }
        if self.word("transaction") {
            return Some(Statement::SetTransaction {
                read_only: self.read_only(),
            });
        }
        let mut local = false;
        if !self
            .tokens
            .starts_with(&[Token::Word("session".into()), Token::Word("authorization".into())])
        {
            local = self.word("local");
            let _ = local || self.word("session");
        }
        let (name, bare) = if self.words(&["session", "authorization"]) {
            ("session_authorization".to_owned(), true)
        } else if self.word("role") {
            ("role".to_owned(), true)
        } else if self.words(&["time", "zone"]) {
            ("TimeZone".to_owned(), true)
        } else if self.word("names") {
            ("client_encoding".to_owned(), true)
        } else {
            (self.setting()?, false)
        };
        if !(self.symbol('=') || self.word("to") || bare) {
            return None;
        }
        if self.tokens == [Token::Word("default".into())] {
            self.next();
            return Some(Statement::Set {
                name,
                value: None,
                local,
            });
        }
        Some(Statement::Set {
            name,
            value: Some(self.values()?),
            local,
        })
    }

    /// A list of values in the form SHOW gives them.
    pub(crate) fn values(&mut self) -> Option<String> {
        let mut values = Vec::new();
        loop {
            let minus = self.symbol('-');
            let mut value = match self.next()? {
                Token::Word(value) | Token::Quoted(value) | Token::Text(value) => value.clone(),
                Token::Parameter(_) | Token::Symbol(_) => return None,
            };
            if self.symbol('.') {
                value = format!("{value}.{}", self.any_word()?);
            }
            values.push(if minus { format!("-{value}") } else { value });
            if !self.symbol(',') {
                return Some(values.join(", "));
            }
        }
    }

    pub(crate) fn reset(&mut self) -> Option<Statement> {
        if self.word("all") {
            return Some(Statement::Reset(None));
        }
        if self.words(&["session", "authorization"]) {
            return Some(Statement::Reset(Some("session_authorization".to_owned())));
        }
        Some(Statement::Reset(Some(self.setting()?)))
    }

    pub(crate) fn discard(&mut self) -> Option<Statement> {
        let what = match self.any_word()?.as_str() {
            "all" => Discard::All,
            "plans" => Discard::Plans,
            "sequences" => Discard::Sequences,
            "temp" | "temporary" => Discard::Temp,
            _ => return None,
        };
        Some(Statement::Discard(what))
    }

    pub(crate) fn prepare(&mut self, sql: &str) -> Option<Statement> {
        if self.word("transaction") {
            return None;
        }
        let name = self.name()?;
        while !self.word("as") {
            self.next()?;
        }
        Some(Statement::Prepare {
            name,
            sql: sql.to_owned(),
        })
    }

    pub(crate) fn create_temp(&mut self) -> Option<Statement> {
        let _ = self.word("local") || self.word("global");
        if !(self.word("temp") || self.word("temporary")) || !self.word("table") {
            return None;
        }
        self.words(&["if", "not", "exists"]);
        Some(Statement::CreateTemp { table: self.name()? })
    }

    pub(crate) fn declare(&mut self) -> Option<Statement> {
        let cursor = self.name()?;
        while !self.word("cursor") {
            self.any_word()?;
        }
        let hold = self.words(&["with", "hold"]);
        let _ = hold || self.words(&["without", "hold"]);
        self.word("for").then_some(Statement::Declare { cursor, hold })
    }

    pub(crate) fn select(&mut self) -> Option<Statement> {
        let mut calls = vec![self.call()?];
        while self.symbol(',') {
            calls.push(self.call()?);
        }
        Some(Statement::Select(calls))
    }

    pub(crate) fn call(&mut self) -> Option<Call> {
        if matches!(self.tokens.first(), Some(Token::Text(_))) {
            return self.text().map(Call::Text);
        }
        let mut name = self.any_word()?;
        if let Ok(number) = name.parse() {
            return Some(Call::Integer(number));
        }
        if name == "pg_catalog" && self.symbol('.') {
            name = self.any_word()?;
        }
        let arguments = self.arguments()?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let lock = |in_transaction, attempt| Call::AdvisoryLock {
            key: arguments.join(","),
            in_transaction,
            attempt,
        };
        Some(match (name.as_str(), arguments.as_slice()) {
            ("pg_backend_pid", []) => Call::BackendPid,
            ("pg_is_in_recovery", []) => Call::InRecovery,
            ("pg_advisory_unlock_all", []) => Call::AdvisoryUnlockAll,
            ("pg_advisory_lock", [_] | [_, _]) => lock(false, false),
            ("pg_try_advisory_lock", [_] | [_, _]) => lock(false, true),
            ("pg_advisory_xact_lock", [_] | [_, _]) => lock(true, false),
            ("pg_try_advisory_xact_lock", [_] | [_, _]) => lock(true, true),
            ("pg_advisory_unlock", [_] | [_, _]) => Call::AdvisoryUnlock(arguments.join(",")),
            ("current_setting", [name]) => Call::CurrentSetting((*name).to_owned()),
            ("pg_notify", [channel, payload]) => Call::Notify {
                channel: (*channel).to_owned(),
                payload: (*payload).to_owned(),
            },
            ("set_config", [name, value, local @ ("true" | "false")]) => Call::SetConfig {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                local: *local == "true",
            },
            _ => return None,
        })
    }

    /// Literal arguments in brackets.
    pub(crate) fn arguments(&mut self) -> Option<Vec<String>> {
        let mut arguments = Vec::new();
        if !self.symbol('(') {
            return None;
        }
        while !self.symbol(')') {
            if !arguments.is_empty() && !self.symbol(',') {
                return None;
            }
            match self.next()? {
                Token::Word(value) | Token::Text(value) => arguments.push(value.clone()),
                Token::Parameter(_) | Token::Quoted(_) | Token::Symbol(_) => return None,
            }
        }
        Some(arguments)
    }
}
