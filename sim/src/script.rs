//! `ScriptedServer`: a PostgreSQL server whose answers a test writes, over an honest small model of each session.
//!
//! Listens on the simulated network and serves every connection with a task of its own. The handle changes and shows
//! everything while the run goes on; it holds no connection itself.

mod answer;
mod book;
mod model;
mod reply;
mod session;
mod settings;
mod start_up;
mod statement;
mod transaction;
mod words;

pub use self::answer::{Answer, RowSet, Step};
pub use self::start_up::{StartStep, StartUp};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gdbpool::Endpoint;

use self::answer::Pattern;
use self::book::Book;
use crate::executor::{Origin, Shared};
use crate::network::{ConnectMode, Listener};
use crate::pipe::{Cut, Direction, PipeControl};
use crate::sim::Sim;

pub(crate) type SharedBook = Arc<Mutex<Book>>;

/// A scripted server; cloning gives another handle to the same one.
///
/// ```
/// use gdbpool_sim::{Answer, ScriptedServer, Sim, Type};
///
/// let sim = Sim::new(1);
/// let server = ScriptedServer::start(&sim, "10.0.0.1:5432".parse().unwrap());
/// server.on("SELECT name FROM users", Answer::rows(&[("name", Type::Text)], vec![vec!["Ann".into()]]));
/// assert!(server.sessions().is_empty());
/// ```
#[derive(Clone)]
pub struct ScriptedServer {
    book: SharedBook,
    shared: Arc<Shared>,
}

/// What becomes of cancel requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelMode {
    /// The request takes effect after this long; then its connection closes.
    Delayed(Duration),
    /// The request is never answered, its connection stays open.
    Hang,
    /// The connection closes at once; the request takes effect this long after.
    Late(Duration),
    /// The connection closes at once; nothing happens.
    Lost,
    /// The request takes effect at once; then its connection closes.
    Prompt,
}

/// How a session is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// FATAL 57P01, then end-of-file: `pg_terminate_backend`, fast shutdown.
    Fatal,
    /// WARNING 57P01 as a notice, then end-of-file: immediate shutdown.
    Notice,
    /// End-of-file without a word: a crashed backend.
    Silent,
}

/// One cancel request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelView {
    /// The process identifier it named.
    pub pid: i32,
    /// Whether the secret was right and that session was working on a request.
    pub hit: bool,
}

/// What a session looks like from the server's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Sessions count from zero, in the order of their start-up packets.
    pub ordinal: usize,
    /// The process identifier.
    pub pid: i32,
    /// The user who asked.
    pub user: String,
    /// The database asked for.
    pub database: String,
    /// Transaction status: `I`, `T` or `E`.
    pub status: char,
    /// All settings, by the server's spelling of their names.
    pub settings: BTreeMap<String, String>,
    /// Channels it listens to (committed).
    pub listens: BTreeSet<String>,
    /// Temporary tables.
    pub temp_tables: BTreeSet<String>,
    /// Open cursors made by DECLARE.
    pub cursors: BTreeSet<String>,
    /// Advisory locks held, counted as often as taken.
    pub advisory_locks: usize,
    /// Named prepared statements, of the protocol and of PREPARE.
    pub prepared: usize,
    /// Portals, the unnamed one included.
    pub portals: usize,
    /// Whether it works on a request (or on its start-up).
    pub in_flight: bool,
    /// How often it said ReadyForQuery, its start-up included.
    pub ready_count: u64,
    /// Whether it is over.
    pub closed: bool,
    /// Every statement that was run, in order.
    pub statements: Vec<String>,
    /// The scripted statements that wrote (INSERT, UPDATE and the like) and whose transactions were committed, in order.
    pub committed: Vec<String>,
}

pub(crate) fn lock(book: &SharedBook) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedServer {
    /// Starts a server at a TCP address: everybody may enter, nothing is scripted.
    ///
    /// # Panics
    /// If somebody listens there already.
    #[must_use]
    pub fn start(sim: &Sim, address: SocketAddr) -> Self {
        Self::start_at(sim, Endpoint::Tcp(address))
    }

    /// Starts a server at any endpoint.
    ///
    /// # Panics
    /// If somebody listens there already.
    #[must_use]
    pub fn start_at(sim: &Sim, endpoint: Endpoint) -> Self {
        let shared = Arc::clone(&sim.shared);
        let listener = Listener::open(Arc::clone(&shared), endpoint.clone());
        let number = {
            let mut state = shared.lock();
            state.servers += 1;
            state.servers
        };
        let book = Arc::new(Mutex::new(Book::new(Arc::clone(&shared), endpoint, number)));
        let accepting = accept(Arc::clone(&shared), Arc::clone(&book), listener);
        shared.spawn(Box::pin(accepting), Origin::World);
        Self { book, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        lock(&self.book).endpoint.clone()
    }

    /// Answers this statement so from now on. White space around it and a final semicolon do not matter.
    pub fn on(&self, sql: &str, answer: Answer) {
        lock(&self.book).rules.add(Pattern::exact(sql), answer, false);
    }

    /// Answers every statement that starts so; exact rules and longer prefixes go first.
    pub fn on_prefix(&self, start: &str, answer: Answer) {
        lock(&self.book).rules.add(Pattern::prefix(start), answer, false);
    }

    /// Answers this statement so one time, before all lasting rules; several are used up in order.
    ///
    /// In the extended protocol the rule is used up at the answer's step; register a lasting one for the others.
    pub fn once(&self, sql: &str, answer: Answer) {
        lock(&self.book).rules.add(Pattern::exact(sql), answer, true);
    }

    /// As [`ScriptedServer::once`], for the next statement that starts so.
    pub fn once_prefix(&self, start: &str, answer: Answer) {
        lock(&self.book).rules.add(Pattern::prefix(start), answer, true);
    }

    /// Forgets all rules.
    pub fn clear_rules(&self) {
        lock(&self.book).rules.clear();
    }

    /// How sessions start from now on. Default: [`StartUp::Trust`].
    pub fn set_start_up(&self, start_up: StartUp) {
        lock(&self.book).start_up = start_up;
    }

    /// How the next connection starts (a cancel request's counts too), before [`ScriptedServer::set_start_up`]'s.
    pub fn once_start_up(&self, start_up: StartUp) {
        lock(&self.book).next_start_ups.push_back(start_up);
    }

    /// A setting's value at the start of sessions from now on, such as `server_version` or `in_hot_standby`.
    ///
    /// A change of `in_hot_standby` reaches open sessions with their next command, as a promotion does.
    pub fn set_parameter(&self, name: &str, value: &str) {
        lock(&self.book).parameters.insert(name.to_owned(), value.to_owned());
    }

    /// Further sessions get FATAL 53300. Default: no limit.
    pub fn set_max_sessions(&self, sessions: usize) {
        lock(&self.book).max_sessions = sessions;
    }

    /// What becomes of cancel requests from now on. Default: [`CancelMode::Prompt`].
    pub fn set_cancel_mode(&self, mode: CancelMode) {
        lock(&self.book).cancel_mode = mode;
    }

    /// Cancel requests take effect after `span`, and their connections close then.
    pub fn cancel_delay(&self, span: Duration) {
        self.set_cancel_mode(CancelMode::Delayed(span));
    }

    /// The cancel requests served so far, in order.
    #[must_use]
    pub fn cancels(&self) -> Vec<CancelView> {
        lock(&self.book).cancels.clone()
    }

    /// All sessions so far, ended ones included; the index is the ordinal.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        let book = lock(&self.book);
        (0..book.sessions.len()).map(|ordinal| book.view(ordinal)).collect()
    }

    /// One session.
    ///
    /// # Panics
    /// If there was no such session yet.
    #[must_use]
    pub fn session(&self, ordinal: usize) -> SessionView {
        self.line(ordinal);
        lock(&self.book).view(ordinal)
    }

    /// Sessions that are not over.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        lock(&self.book).open_sessions()
    }

    /// Connections accepted so far, those of cancel requests included.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.book).lines.len()
    }

    /// Messages of clients that broke the protocol; a test of a correct client wants none.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.book).violations.clone()
    }

    /// The bytes of a session's connection go nowhere, in both directions.
    ///
    /// # Panics
    /// If there was no such session yet.
    pub fn stall_session(&self, ordinal: usize) {
        let control = self.session_control(ordinal);
        control.stall(Direction::ToServer);
        control.stall(Direction::ToClient);
    }

    /// Ends a stall, also that of [`Answer::StallReplyAt`].
    ///
    /// # Panics
    /// If there was no such session yet.
    pub fn resume_session(&self, ordinal: usize) {
        let line = self.line(ordinal);
        let control = {
            let mut book = lock(&self.book);
            book.lines[line].stalled = false;
            book.pump();
            book.lines[line].control.clone()
        };
        control.resume(Direction::ToServer);
        control.resume(Direction::ToClient);
    }

    /// Ends a session from outside; it stops whatever it does.
    ///
    /// # Panics
    /// If there was no such session yet.
    pub fn kill_session(&self, ordinal: usize, kill: Kill) {
        let line = self.line(ordinal);
        lock(&self.book).kill(line, kill);
    }

    /// Breaks a session's connection: both ends get `ConnectionReset`.
    ///
    /// # Panics
    /// If there was no such session yet.
    pub fn reset_session(&self, ordinal: usize) {
        self.session_control(ordinal).reset();
    }

    /// Cuts a session's connection after so many bytes in one direction, counted from its start.
    ///
    /// Also for sessions to come: the cut waits for the session's start-up packet.
    pub fn cut_session_at(&self, ordinal: usize, direction: Direction, bytes: u64, how: Cut) {
        let mut book = lock(&self.book);
        match book.sessions.get(ordinal).copied() {
            Some(line) => {
                let control = book.lines[line].control.clone();
                drop(book);
                control.cut_at(direction, bytes, how);
            }
            None => book.cuts.entry(ordinal).or_default().push((direction, bytes, how)),
        }
    }

    /// The link of a session, for faults not named here and for byte counts.
    ///
    /// # Panics
    /// If there was no such session yet.
    #[must_use]
    pub fn session_control(&self, ordinal: usize) -> PipeControl {
        let line = self.line(ordinal);
        lock(&self.book).lines[line].control.clone()
    }

    /// A NOTIFY from elsewhere (process 1), for all sessions that listen.
    pub fn push_notification(&self, channel: &str, payload: &str) {
        lock(&self.book).notify(1, channel, payload);
    }

    /// Messages delivered to clients so far, over all connections.
    #[must_use]
    pub fn on_event_count(&self) -> u64 {
        lock(&self.book).delivered
    }

    /// Messages sent but held back.
    #[must_use]
    pub fn held_events(&self) -> u64 {
        lock(&self.book).held()
    }

    /// Delivers exactly `messages` messages in total since the start, then holds back: messages and ends of
    /// connections. A greater number later lets the next ones through, in the order in which they were sent.
    pub fn hold_after_event(&self, messages: u64) {
        let mut book = lock(&self.book);
        book.hold_at = Some(messages);
        book.pump();
    }

    /// Delivers everything held back, and holds no more.
    pub fn release(&self) {
        let mut book = lock(&self.book);
        book.hold_at = None;
        book.pump();
    }

    /// Ends all sessions and refuses connects until [`ScriptedServer::restart`].
    pub fn stop(&self, kill: Kill) {
        let endpoint = self.endpoint();
        self.shared.lock().network.set_mode(&endpoint, ConnectMode::Refused);
        let mut book = lock(&self.book);
        for line in 0..book.lines.len() {
            book.kill(line, kill);
        }
    }

    /// Accepts connects again after [`ScriptedServer::stop`].
    pub fn restart(&self) {
        let endpoint = self.endpoint();
        self.shared.lock().network.set_mode(&endpoint, ConnectMode::Accept);
    }

    fn line(&self, ordinal: usize) -> usize {
        let book = lock(&self.book);
        let found = book.sessions.get(ordinal).copied();
        let count = book.sessions.len();
        drop(book);
        found.unwrap_or_else(|| panic!("there is no session {ordinal}: the server had {count}"))
    }
}

impl fmt::Debug for ScriptedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = lock(&self.book);
        write!(
            f,
            "ScriptedServer {{ {}, {} of {} sessions open }}",
            book.endpoint,
            book.open_sessions(),
            book.sessions.len()
        )
    }
}

async fn accept(shared: Arc<Shared>, book: SharedBook, listener: Listener) {
    loop {
        let end = listener.accept().await;
        let serving = session::serve(Arc::clone(&shared), Arc::clone(&book), end);
        shared.spawn(Box::pin(serving), Origin::World);
    }
}
