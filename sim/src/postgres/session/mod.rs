//! One session of a simulated server: the task that reads a client's messages, runs them, and answers.
//!
//! Between the connection, which only it touches, and the cluster's shared state, which it locks briefly and never
//! across an await. What a statement does is the engine's business.

mod auth;
mod copy;
mod extended;
mod halt;
mod idle;
mod output;
mod record;
mod run;
mod scram;
mod simple;
mod start_up;
mod stubbed;
mod trace;
mod wait;

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use gdbpool::Instant;

use self::extended::Portal;
use self::halt::Halt;
use self::stubbed::Stubbed;
use super::cluster::{SharedWorld, World, lock};
use super::engine::{ColumnDescription, Engine, Moment};
use super::server::{Activity, Backend};
use crate::executor::Shared;
use crate::history::{Closing, EventKind};
use crate::pipe::{PipeControl, PipeEnd, PipeReader, PipeWriter};
use crate::wire::{Backend as Message, Decoder, Frontend, Illegal, Report};

pub(crate) use self::scram::Verifier;

/// A session as its task has it.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) world: SharedWorld,
    pub(crate) node: usize,
    pub(crate) pid: i32,
    control: PipeControl,
    reader: PipeReader,
    writer: PipeWriter,
    decoder: Decoder,
    /// Where reads go.
    buffer: Vec<u8>,
    /// Encoded messages that are not written yet.
    out: Vec<u8>,
    /// Messages sent so far, for faults that strike between two of them.
    sent: u64,
    names: trace::Names,
    /// After an error in the extended protocol everything up to the Sync is skipped.
    skipping: bool,
    portals: BTreeMap<String, Portal>,
    stubs: Stubbed,
    /// The rows of the simple query that runs, until they are described.
    to_describe: Option<Arc<[ColumnDescription]>>,
    /// When the present statement has taken too long.
    statement_deadline: Option<Instant>,
}

/// Serves one connection from its first byte to its end.
pub(crate) async fn serve(shared: Arc<Shared>, world: SharedWorld, node: usize, end: PipeEnd) {
    let control = end.control();
    control.mask();
    let (reader, writer) = end.split();
    let pid = {
        let mut open = lock(&world);
        let (pid, key) = open.new_pid();
        let backend = Backend::new(pid, key, control.clone());
        open.nodes[node].backends.insert(pid, backend);
        pid
    };
    let mut session = Session {
        shared,
        world,
        node,
        pid,
        control,
        reader,
        writer,
        decoder: Decoder::new(),
        buffer: Vec::new(),
        out: Vec::new(),
        sent: 0,
        names: trace::Names::default(),
        skipping: false,
        portals: BTreeMap::new(),
        stubs: Stubbed::default(),
        to_describe: None,
        statement_deadline: None,
    };
    let halt = match session.start().await {
        Ok(()) => session.work().await,
        Err(halt) => halt,
    };
    session.end(halt).await;
}

impl Session {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Looks at, or changes, what the others know of this session.
    fn backend<R>(&self, look: impl FnOnce(&mut Backend) -> R) -> Option<R> {
        self.lock().nodes[self.node].backends.get_mut(&self.pid).map(look)
    }

    /// Calls the engine for this session. Only between a look at the interrupts and the next await.
    fn engine<R>(&self, call: impl FnOnce(&mut Engine, Moment) -> R) -> R {
        self.lock().engine(self.node, self.pid, call)
    }

    fn status(&self) -> u8 {
        self.lock().nodes[self.node].engine.status(self.pid)
    }

    fn record(&self, kind: EventKind) {
        self.lock().record(self.node, kind);
    }

    /// Message by message, until the session is over; gives why.
    async fn work(&mut self) -> Halt {
        loop {
            let message = match self.next_request().await {
                Ok(message) => message,
                Err(Halt::Fail(report)) => {
                    // Bytes that are no message of the protocol, in a frame that is: the statement fails, not the session.
                    match self.fail(report).await {
                        Ok(()) => continue,
                        Err(halt) => return halt,
                    }
                }
                Err(halt) => return halt,
            };
            if self.skipping && !matches!(message, Frontend::Sync | Frontend::Terminate) {
                continue;
            }
            let simple = matches!(message, Frontend::Query(_) | Frontend::FunctionCall);
            let handled = self.handle(message).await;
            let handled = match handled {
                Err(Halt::Fail(report)) => {
                    self.skipping = !simple;
                    self.fail(report).await
                }
                other => other,
            };
            let handled = match handled {
                Ok(()) if simple => self.ready().await,
                other => other,
            };
            if let Err(halt) = handled {
                return halt;
            }
        }
    }

    /// The next message, and whose turn it is then: the client's wait is over.
    async fn next_request(&mut self) -> Result<Frontend, Halt> {
        let idle = self.backend(|backend| {
            if backend.activity == Activity::Running {
                backend.activity = Activity::Between;
            }
            backend.activity == Activity::Idle
        });
        let message = match self.read_message(idle == Some(true)).await {
            Err(Halt::Illegal(error)) => {
                self.illegal(&error.to_string());
                let Illegal::Body(kind) = error.illegal() else {
                    return Err(Halt::Illegal(error));
                };
                // Of a simple query's message nothing is skipped afterwards; the server says at once that it is ready.
                self.skipping = kind != b'Q' && kind != b'F';
                return Err(Halt::Fail(Report::error(error.sqlstate(), error.to_string())));
            }
            other => other?,
        };
        self.backend(|backend| {
            backend.activity = Activity::Running;
            // A cancel that came between two statements is lost, as it is in PostgreSQL.
            backend.cancel = false;
        });
        Ok(message)
    }

    async fn handle(&mut self, message: Frontend) -> Result<(), Halt> {
        match message {
            Frontend::Query(sql) => self.simple(&sql).await,
            Frontend::Parse { name, sql, types } => self.parse(name, &sql, &types).await,
            Frontend::Bind {
                portal,
                statement,
                parameter_formats,
                parameters,
                result_formats,
            } => {
                let bind = extended::Bind {
                    portal,
                    statement,
                    parameter_formats,
                    parameters,
                    result_formats,
                };
                self.bind(bind).await
            }
            Frontend::Describe(target, name) => self.describe(target, &name),
            Frontend::Execute { portal, max_rows } => self.execute(&portal, max_rows).await,
            Frontend::Close(target, name) => {
                self.close(target, &name);
                Ok(())
            }
            Frontend::Sync => self.sync().await,
            Frontend::Flush => self.flush().await,
            // Left over from a COPY that has failed; the server ignores them.
            Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => Ok(()),
            Frontend::Terminate => {
                self.backend(|backend| backend.closing = Closing::Terminate);
                Err(Halt::Over)
            }
            Frontend::FunctionCall => {
                let text = "gdbpool-sim does not support the function call protocol";
                Err(Report::error("0A000", text).into())
            }
            other => {
                let text = format!("{} in a running session", trace::kind(&other));
                self.illegal(&text);
                Err(Halt::Fatal(Report::fatal("08P01", text)))
            }
        }
    }

    /// A statement has failed: the transaction is aborted, the client hears it at once.
    async fn fail(&mut self, report: Report) -> Result<(), Halt> {
        self.statement_deadline = None;
        self.lock().failed(self.node, self.pid);
        self.forget_portals_outside();
        self.send_notices();
        self.send(&Message::ErrorResponse(report));
        self.flush().await
    }

    /// Noted for the oracles: a correct client never gets here.
    fn illegal(&self, text: &str) {
        self.record(EventKind::IllegalMessage {
            pid: self.pid,
            text: text.into(),
        });
    }

    /// Last words, and the end: the engine lets go of everything, the connection closes.
    async fn end(mut self, halt: Halt) {
        let server = !matches!(halt, Halt::Over);
        if let Some(report) = halt.last_words() {
            self.send(&report);
        }
        if server {
            self.backend(|backend| backend.closing = Closing::Server);
        }
        if matches!(halt, Halt::Goodbye(super::server::Goodbye::Silent)) {
            self.backend(|backend| backend.closing = Closing::Crash);
        }
        self.lock().close(self.node, self.pid);
        // Only what the network takes at once: a session that is over waits for nobody.
        self.write_what_fits();
    }
}
