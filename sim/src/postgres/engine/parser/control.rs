//! Statements that steer a session: transactions, settings, cursors, prepared statements, channels, locks, COPY.
//!
//! A part of the parser. A plain machine.

use super::Parser;
use super::judge::unsupported;
use crate::postgres::engine::ast::{CopySource, Declare, Direction, DiscardKind, Isolation, Modes, Statement};
use crate::postgres::engine::lexer::Kind;
use crate::postgres::engine::locks::TableLock;
use crate::wire::Report;

impl Parser<'_> {
    pub(super) fn control(&mut self) -> Result<Statement, Report> {
        let Kind::Word(verb) = self.kind().clone() else {
            return Err(self.unexpected());
        };
        let first = self.at;
        self.advance();
        match verb.as_str() {
            "begin" => {
                self.transaction_word();
                self.modes().map(Statement::Begin)
            }
            "start" => {
                self.expect_word("transaction")?;
                self.modes().map(Statement::Begin)
            }
            "commit" | "end" if !self.is_word("prepared") => {
                self.transaction_word();
                Ok(Statement::Commit { chain: self.chain()? })
            }
            "rollback" | "abort" if !self.is_word("prepared") => self.rollback(),
            "savepoint" => self.name().map(Statement::Savepoint),
            "release" => {
                self.take_word("savepoint");
                self.name().map(Statement::Release)
            }
            "set" => self.set(),
            "reset" => self.reset(),
            "show" => self.show(),
            "discard" => self.discard(),
            "listen" => self.name().map(Statement::Listen),
            "unlisten" => match self.take_operator("*") {
                true => Ok(Statement::Unlisten(None)),
                false => self.name().map(|name| Statement::Unlisten(Some(name))),
            },
            "notify" => {
                let channel = self.name()?;
                let payload = if self.take_operator(",") {
                    self.text()?
                } else {
                    String::new()
                };
                Ok(Statement::Notify { channel, payload })
            }
            "lock" => self.lock(),
            "declare" => self.declare(),
            "fetch" | "move" => self.fetch(verb == "move"),
            "close" => match self.take_word("all") {
                true => Ok(Statement::Close(None)),
                false => self.name().map(|name| Statement::Close(Some(name))),
            },
            "prepare" if !(self.is_word("transaction") && matches!(self.kind_at(1), Kind::Text(_))) => self.prepare(),
            "execute" => {
                let name = self.name()?;
                let mut arguments = Vec::new();
                if self.take_operator("(") {
                    arguments = self.expressions()?;
                    self.expect_operator(")")?;
                }
                Ok(Statement::Execute { name, arguments })
            }
            "deallocate" => {
                self.take_word("prepare");
                match self.take_word("all") {
                    true => Ok(Statement::Deallocate(None)),
                    false => self.name().map(|name| Statement::Deallocate(Some(name))),
                }
            }
            "copy" => self.copy(),
            "checkpoint" => Ok(Statement::Checkpoint),
            "vacuum" | "analyze" => {
                self.at = self.tokens.len() - 1;
                Ok(if verb == "vacuum" {
                    Statement::Vacuum
                } else {
                    Statement::Analyze
                })
            }
            _ => {
                self.at = first;
                Err(self.unexpected())
            }
        }
    }

    fn transaction_word(&mut self) {
        if !self.take_word("transaction") {
            self.take_word("work");
        }
    }

    fn chain(&mut self) -> Result<bool, Report> {
        if !self.take_word("and") {
            return Ok(false);
        }
        let chain = !self.take_word("no");
        self.expect_word("chain")?;
        Ok(chain)
    }

    fn rollback(&mut self) -> Result<Statement, Report> {
        self.transaction_word();
        if self.take_word("to") {
            self.take_word("savepoint");
            return self.name().map(Statement::RollbackTo);
        }
        Ok(Statement::Rollback { chain: self.chain()? })
    }

    fn modes(&mut self) -> Result<Modes, Report> {
        let mut modes = Modes::default();
        while !matches!(self.kind(), Kind::End) {
            if self.take_words(&["isolation", "level"]) {
                modes.isolation = Some(if self.take_word("serializable") {
                    Isolation::Serializable
                } else if self.take_words(&["repeatable", "read"]) {
                    Isolation::RepeatableRead
                } else if self.take_words(&["read", "committed"]) || self.take_words(&["read", "uncommitted"]) {
                    Isolation::ReadCommitted
                } else {
                    return Err(self.unexpected());
                });
            } else if self.take_words(&["read", "only"]) {
                modes.read_only = Some(true);
            } else if self.take_words(&["read", "write"]) {
                modes.read_only = Some(false);
            } else if self.take_word("deferrable") {
                modes.deferrable = Some(true);
            } else if self.take_words(&["not", "deferrable"]) {
                modes.deferrable = Some(false);
            } else {
                return Err(self.unexpected());
            }
            self.take_operator(",");
        }
        Ok(modes)
    }

    fn set(&mut self) -> Result<Statement, Report> {
        if self.take_words(&["session", "characteristics", "as", "transaction"]) {
            let modes = self.modes()?;
            return Ok(Statement::SetTransaction { session: true, modes });
        }
        if self.is_word("transaction") && !self.is_operator_at(1, "=") && !self.is_word_at(1, "to") {
            self.advance();
            if self.is_word("snapshot") {
                return Err(unsupported("SET TRANSACTION SNAPSHOT"));
            }
            let modes = self.modes()?;
            return Ok(Statement::SetTransaction { session: false, modes });
        }
        if self.take_word("constraints") {
            let names = match self.take_word("all") {
                true => Vec::new(),
                false => self.names()?,
            };
            let deferred = self.take_word("deferred");
            if !deferred {
                self.expect_word("immediate")?;
            }
            return Ok(Statement::SetConstraints { names, deferred });
        }
        let local = self.take_word("local");
        if !local && self.is_word("session") && !self.is_operator_at(1, ".") {
            self.advance();
        }
        let set = |name: &str, values: Option<Vec<String>>| {
            Ok(Statement::Set {
                name: name.to_owned(),
                values,
                local,
            })
        };
        if self.take_word("authorization") {
            let user = if self.take_word("default") {
                None
            } else {
                Some(vec![self.name_or_text()?])
            };
            return set("session_authorization", user);
        }
        if self.take_word("role") {
            self.take_operator("=");
            self.take_word("to");
            return set("role", Some(vec![self.name_or_text()?]));
        }
        if self.take_words(&["time", "zone"]) {
            let reset = self.take_word("default") || self.take_word("local");
            let zone = if reset { None } else { Some(vec![self.setting_value()?]) };
            return set("timezone", zone);
        }
        if self.take_word("names") {
            return set("client_encoding", Some(vec![self.name_or_text()?]));
        }
        let name = self.setting_name()?;
        if !self.take_operator("=") {
            self.expect_word("to")?;
        }
        if self.take_word("default") {
            return set(&name, None);
        }
        let values = self.list(Self::setting_value)?;
        set(&name, Some(values))
    }

    fn setting_name(&mut self) -> Result<String, Report> {
        let mut name = self.name()?;
        while self.take_operator(".") {
            name.push('.');
            name.push_str(&self.label()?);
        }
        Ok(name)
    }

    fn setting_value(&mut self) -> Result<String, Report> {
        let value = match self.kind() {
            Kind::Text(text) | Kind::Number(text) | Kind::Word(text) | Kind::Quoted(text) => text.clone(),
            Kind::Operator(sign) if sign == "-" || sign == "+" => {
                self.advance();
                let Kind::Number(digits) = self.kind() else {
                    return Err(self.unexpected());
                };
                let signed = format!("-{digits}");
                self.advance();
                return Ok(signed);
            }
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(value)
    }

    fn name_or_text(&mut self) -> Result<String, Report> {
        if matches!(self.kind(), Kind::Text(_)) {
            self.text()
        } else {
            self.label()
        }
    }

    fn reset(&mut self) -> Result<Statement, Report> {
        if self.take_word("all") {
            return Ok(Statement::Reset(None));
        }
        let name = if self.take_words(&["session", "authorization"]) {
            "session_authorization".to_owned()
        } else if self.take_words(&["transaction", "isolation", "level"]) {
            "transaction_isolation".to_owned()
        } else if self.take_words(&["time", "zone"]) {
            "timezone".to_owned()
        } else {
            self.setting_name()?
        };
        Ok(Statement::Reset(Some(name)))
    }

    fn show(&mut self) -> Result<Statement, Report> {
        if self.take_word("all") {
            return Ok(Statement::Show(None));
        }
        let name = if self.take_words(&["transaction", "isolation", "level"]) {
            "transaction_isolation".to_owned()
        } else if self.take_words(&["session", "authorization"]) {
            "session_authorization".to_owned()
        } else if self.take_words(&["time", "zone"]) {
            "timezone".to_owned()
        } else {
            self.setting_name()?
        };
        Ok(Statement::Show(Some(name)))
    }

    fn discard(&mut self) -> Result<Statement, Report> {
        for (word, kind) in [
            ("all", DiscardKind::All),
            ("plans", DiscardKind::Plans),
            ("sequences", DiscardKind::Sequences),
            ("temp", DiscardKind::Temp),
            ("temporary", DiscardKind::Temp),
        ] {
            if self.take_word(word) {
                return Ok(Statement::Discard(kind));
            }
        }
        Err(self.unexpected())
    }

    fn lock(&mut self) -> Result<Statement, Report> {
        self.take_word("table");
        let tables = self.list(|parser| {
            parser.take_word("only");
            parser.object_name()
        })?;
        let mut mode = TableLock::AccessExclusive;
        if self.take_word("in") {
            mode = TableLock::ALL
                .into_iter()
                .find(|mode| {
                    let words: Vec<String> = mode.words().split(' ').map(str::to_owned).collect();
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let follows = self.is_word_at(words.len(), "mode");
                    follows && self.take_words(&words)
                })
                .ok_or_else(|| self.unexpected())?;
            self.expect_word("mode")?;
        }
        Ok(Statement::Lock {
            tables,
            mode,
            nowait: self.take_word("nowait"),
        })
    }

    fn declare(&mut self) -> Result<Statement, Report> {
        let name = self.name()?;
        let mut scroll = None;
        loop {
            if self.take_words(&["no", "scroll"]) {
                scroll = Some(false);
            } else if self.take_word("scroll") {
                scroll = Some(true);
            } else if self.take_word("binary") {
                return Err(unsupported("binary cursors"));
            } else if !self.take_word("insensitive") && !self.take_word("asensitive") {
                break;
            }
        }
        self.expect_word("cursor")?;
        let hold = self.take_words(&["with", "hold"]);
        if !hold {
            self.take_words(&["without", "hold"]);
        }
        self.expect_word("for")?;
        let query = self.query()?;
        Ok(Statement::Declare(Box::new(Declare {
            name,
            scroll,
            hold,
            query,
        })))
    }

    fn fetch(&mut self, only_move: bool) -> Result<Statement, Report> {
        let direction = self.direction()?;
        if !self.take_word("from") {
            self.take_word("in");
        }
        Ok(Statement::Fetch {
            cursor: self.name()?,
            direction,
            only_move,
        })
    }

    fn direction(&mut self) -> Result<Direction, Report> {
        if matches!(self.kind(), Kind::Number(_)) || self.is_operator("-") {
            return self.signed_integer().map(Direction::Forward);
        }
        // A cursor may have one of these names.
        if matches!(self.kind_at(1), Kind::End) {
            return Ok(Direction::Forward(1));
        }
        if self.take_word("next") {
            return Ok(Direction::Forward(1));
        }
        if self.take_word("prior") {
            return Ok(Direction::Backward(1));
        }
        if self.take_word("first") {
            return Ok(Direction::Absolute(1));
        }
        if self.take_word("last") {
            return Ok(Direction::Absolute(-1));
        }
        if self.take_word("absolute") {
            return self.signed_integer().map(Direction::Absolute);
        }
        if self.take_word("relative") {
            return self.signed_integer().map(Direction::Relative);
        }
        if self.take_word("all") {
            return Ok(Direction::All);
        }
        for (word, forward) in [("forward", true), ("backward", false)] {
            if self.take_word(word) {
                if self.take_word("all") {
                    return Ok(if forward {
                        Direction::All
                    } else {
                        Direction::BackwardAll
                    });
                }
                let counted = matches!(self.kind(), Kind::Number(_)) || self.is_operator("-");
                let count = if counted { self.signed_integer()? } else { 1 };
                return Ok(if forward {
                    Direction::Forward(count)
                } else {
                    Direction::Backward(count)
                });
            }
        }
        Ok(Direction::Forward(1))
    }

    fn prepare(&mut self) -> Result<Statement, Report> {
        let name = self.name()?;
        let mut types = Vec::new();
        if self.take_operator("(") {
            types = self.list(Self::type_name)?;
            self.expect_operator(")")?;
        }
        self.expect_word("as")?;
        let start = self.position();
        let preparable = ["select", "values", "with", "insert", "update", "delete", "table"];
        if !preparable.iter().any(|word| self.is_word(word)) && !self.is_operator("(") {
            return Err(self.unexpected());
        }
        let statement = Box::new(self.statement()?);
        let end = self.tokens[self.at - 1].end;
        Ok(Statement::Prepare {
            name,
            types,
            statement,
            text: self.sql[start..end].to_owned(),
        })
    }

    fn copy(&mut self) -> Result<Statement, Report> {
        let source = if self.take_operator("(") {
            let query = self.query()?;
            self.expect_operator(")")?;
            CopySource::Query(query)
        } else {
            let table = self.object_name()?;
            let columns = if self.is_operator("(") {
                self.name_list()?
            } else {
                Vec::new()
            };
            CopySource::Table(table, columns)
        };
        let from = self.take_word("from");
        if !from {
            self.expect_word("to")?;
        }
        if !self.take_word(if from { "stdin" } else { "stdout" }) {
            return Err(unsupported("COPY with files and programs"));
        }
        self.take_word("with");
        let mut csv = false;
        let parenthesis = self.take_operator("(");
        while !matches!(self.kind(), Kind::End) && !self.is_operator(")") {
            self.take_word("format");
            if self.take_word("csv") {
                csv = true;
            } else if !self.take_word("text") {
                return Err(unsupported("this option of COPY"));
            }
            self.take_operator(",");
        }
        if parenthesis {
            self.expect_operator(")")?;
        }
        Ok(Statement::Copy { source, from, csv })
    }
}
