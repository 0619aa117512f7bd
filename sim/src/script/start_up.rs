//! The start of a connection: encryption requests, start-up packet, authentication, parameters, or a cancel request.
//!
//! The first station of the session task; what it must do or fail to do is the test's choice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use gdbpool::Instant;
use md5::{Digest, Md5};

use super::CancelMode;
use super::book::Halt;
use super::session::Session;
use crate::executor::Origin;
use crate::random::Stream;
use crate::runtime::Sleep;
use crate::wire::{Backend, Frontend, Report};

/// What a server does when a session starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartUp {
    /// Asks for this password in the clear; another one gets 28P01.
    Cleartext(String),
    /// Closes the connection at this step.
    Close(StartStep),
    /// FATAL right behind the start-up packet: SQLSTATE and message.
    Error(String, String),
    /// Goes silent at this step.
    Hang(StartStep),
    /// Asks for this password's MD5 digest; another one gets 28P01.
    Md5(String),
    /// Asks for a password and refuses every one with 28P01.
    RefusePassword,
    /// Waits behind the start-up packet, then goes on as told.
    Slow(Duration, Box<StartUp>),
    /// Lets everybody in.
    Trust,
}

/// How far a start-up gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StartStep {
    /// The connection is accepted, nothing was read.
    Accepted,
    /// The start-up packet was read, nothing was answered to it.
    Requested,
    /// AuthenticationOk was sent.
    Authenticated,
    /// The settings were reported.
    Reported,
    /// The key data was sent; only ReadyForQuery is missing.
    Keyed,
}

impl StartUp {
    fn stops_at(&self, step: StartStep) -> Option<bool> {
        match self {
            Self::Hang(at) if *at == step => Some(true),
            Self::Close(at) if *at == step => Some(false),
            Self::Slow(_, inner) => inner.stops_at(step),
            _ => None,
        }
    }
}

impl Session {
    /// Runs the start-up to its ReadyForQuery.
    pub(crate) async fn start(&mut self) -> Result<(), Halt> {
        let mode = {
            let mut book = self.lock();
            let first = book.next_start_ups.pop_front();
            first.unwrap_or_else(|| book.start_up.clone())
        };
        self.step(&mode, StartStep::Accepted).await?;
        let parameters = self.first_packet().await?;
        self.begin(&parameters)?;
        self.step(&mode, StartStep::Requested).await?;
        self.authenticate(&mode, &parameters).await?;
        self.send(&Backend::AuthenticationOk);
        self.step(&mode, StartStep::Authenticated).await?;
        self.take_settings(&parameters)?;
        self.step(&mode, StartStep::Reported).await?;
        let (pid, key) = {
            let book = self.lock();
            (book.lines[self.line].model.pid, book.lines[self.line].key)
        };
        self.send(&Backend::BackendKeyData { pid, key });
        self.step(&mode, StartStep::Keyed).await?;
        self.lock().ready(self.line);
        Ok(())
    }

    async fn step(&mut self, mode: &StartUp, step: StartStep) -> Result<(), Halt> {
        match mode.stops_at(step) {
            None => Ok(()),
            Some(false) => Err(Halt::Over),
            // Silent, but gone when the client goes.
            Some(true) => loop {
                self.read_message().await?;
            },
        }
    }

    /// Answers encryption requests and serves a cancel request; gives the start-up packet's parameters.
    async fn first_packet(&mut self) -> Result<BTreeMap<String, String>, Halt> {
        loop {
            match self.read_message().await? {
                Frontend::SslRequest | Frontend::GssEncRequest => self.send(&Backend::SslRefused),
                Frontend::CancelRequest { pid, key } => {
                    self.serve_cancel(pid, key).await?;
                    return Err(Halt::Over);
                }
                Frontend::StartUp { version, parameters } if version >> 16 == 3 => return Ok(parameters),
                Frontend::StartUp { version, .. } => {
                    let text = format!("unsupported frontend protocol {}.{}", version >> 16, version & 0xffff);
                    return Err(self.refuse(&Report::fatal("0A000", text)));
                }
                other => return Err(self.violation(format!("{other:?} before the start-up packet"))),
            }
        }
    }

    fn begin(&mut self, parameters: &BTreeMap<String, String>) -> Result<(), Halt> {
        let (full, control, cuts) = {
            let mut book = self.lock();
            let full = book.open_sessions() >= book.max_sessions;
            let cuts = book.begin_session(self.line);
            let line = &mut book.lines[self.line];
            line.user = parameters.get("user").cloned().unwrap_or_default();
            line.database = parameters.get("database").unwrap_or(&line.user).clone();
            (full, line.control.clone(), cuts)
        };
        for (direction, bytes, how) in cuts {
            control.cut_at(direction, bytes, how);
        }
        if full {
            return Err(self.refuse(&Report::fatal("53300", "sorry, too many clients already")));
        }
        if parameters.get("user").is_none_or(String::is_empty) {
            let text = "no PostgreSQL user name specified in startup packet";
            return Err(self.refuse(&Report::fatal("28000", text)));
        }
        Ok(())
    }

    async fn authenticate(&mut self, mode: &StartUp, parameters: &BTreeMap<String, String>) -> Result<(), Halt> {
        let mut mode = mode;
        while let StartUp::Slow(span, inner) = mode {
            self.pause(self.shared.now() + *span).await?;
            mode = inner;
        }
        let user = parameters.get("user").map_or("", String::as_str);
        let (request, expected) = match mode {
            StartUp::Cleartext(password) => (
                Backend::AuthenticationCleartextPassword,
                Some(password.as_bytes().to_vec()),
            ),
            StartUp::Error(sqlstate, message) => return Err(self.refuse(&Report::fatal(sqlstate, message.clone()))),
            StartUp::Md5(password) => {
                let salt = Stream::new(self.shared.seed, "salt", self.line as u64)
                    .at(0)
                    .to_be_bytes();
                let salt = [salt[0], salt[1], salt[2], salt[3]];
                (
                    Backend::AuthenticationMd5Password(salt),
                    Some(md5_answer(user, password, salt)),
                )
            }
            StartUp::RefusePassword => (Backend::AuthenticationCleartextPassword, None),
            StartUp::Close(_) | StartUp::Hang(_) | StartUp::Slow(..) | StartUp::Trust => return Ok(()),
        };
        self.send(&request);
        let given = match self.read_message().await? {
            Frontend::Password(bytes) => bytes,
            other => return Err(self.violation(format!("{other:?} instead of a password"))),
        };
        if expected.is_some_and(|expected| given.strip_suffix(&[0]) == Some(&expected)) {
            return Ok(());
        }
        let text = format!("password authentication failed for user \"{user}\"");
        Err(self.refuse(&Report::fatal("28P01", text)))
    }

    fn take_settings(&mut self, parameters: &BTreeMap<String, String>) -> Result<(), Halt> {
        let taken = {
            let mut book = self.lock();
            let server = book.parameters.clone();
            let taken = book.lines[self.line].model.start(&server, parameters);
            if taken.is_ok() {
                book.report_settings(self.line);
            }
            taken
        };
        taken.map_err(|report| self.refuse(&report))
    }

    /// The side connection of a cancel request: no bytes come back, only its end.
    async fn serve_cancel(&mut self, pid: i32, key: i32) -> Result<(), Halt> {
        let mode = self.lock().cancel_mode;
        match mode {
            CancelMode::Prompt => {}
            CancelMode::Delayed(span) => self.pause(self.shared.now() + span).await?,
            CancelMode::Late(span) => {
                let (book, shared) = (self.book(), self.shared.clone());
                let at: Instant = shared.now() + span;
                let late = async move {
                    Sleep::new(&shared, at, Origin::World).await;
                    apply_cancel(&book, pid, key);
                };
                self.shared.spawn(Box::pin(late), Origin::World);
                return Ok(());
            }
            CancelMode::Lost => {
                self.lock().cancels.push(super::CancelView { pid, hit: false });
                return Ok(());
            }
            CancelMode::Hang => loop {
                self.read_message().await?;
            },
        }
        apply_cancel(&self.book(), pid, key);
        Ok(())
    }
}

fn apply_cancel(book: &super::SharedBook, pid: i32, key: i32) {
    let mut book = super::lock(book);
    let hit = book.cancel(pid, key);
    book.cancels.push(super::CancelView { pid, hit });
}

/// What a client answers to an MD5 request, without the terminating zero.
fn md5_answer(user: &str, password: &str, salt: [u8; 4]) -> Vec<u8> {
    let inner = hex(&[password.as_bytes(), user.as_bytes()]);
    format!("md5{}", hex(&[inner.as_bytes(), &salt])).into_bytes()
}

fn hex(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
