//! What others may know and change of one session: its key, what it does, how it is told to stop.
//!
//! Between a session's own task, which owns the connection, and everybody else on the node.

use std::sync::Arc;
use std::task::Waker;

use gdbpool::Instant;

use super::ledger::Ledger;
use crate::history::Closing;
use crate::pipe::PipeControl;

/// One session as the others see it.
pub(crate) struct Backend {
    pub(crate) pid: i32,
    /// What a cancel request must show.
    pub(crate) key: i32,
    pub(crate) user: Arc<str>,
    pub(crate) database: Arc<str>,
    pub(crate) application: Arc<str>,
    pub(crate) superuser: bool,
    /// The link to the client, for faults and for who is who.
    pub(crate) control: PipeControl,
    pub(crate) activity: Activity,
    /// A cancel request has come and was not looked at.
    pub(crate) cancel: bool,
    /// The statement stands in the way of recovery.
    pub(crate) conflict: bool,
    pub(crate) goodbye: Option<Goodbye>,
    /// The engine of its time is gone: it must not touch the present one.
    pub(crate) orphan: bool,
    /// Something it waits for may have come.
    pub(crate) wake: bool,
    pub(crate) waker: Option<Waker>,
    pub(crate) closing: Closing,
    pub(crate) ledger: Ledger,
    /// When its present transaction began.
    pub(crate) began: Option<Instant>,
}

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It waits for the rest of a pipeline.
    Between,
    /// It waits for the client's next request.
    Idle,
    /// It works on a message.
    Running,
    /// It is not authenticated yet.
    Starting,
    /// Its commit waits for a standby.
    Syncing,
}

/// A session's last words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// FATAL 57P01, then end-of-file: `pg_terminate_backend`, fast stop.
    Administrator,
    /// WARNING 57P02 as a notice, then end-of-file: another session crashed.
    CrashElsewhere,
    /// WARNING 57P01 as a notice, then end-of-file: immediate stop.
    Immediate,
    /// End-of-file without a word: this process is gone.
    Silent,
}

impl Backend {
    pub(crate) fn new(pid: i32, key: i32, control: PipeControl) -> Self {
        let empty: Arc<str> = Arc::from("");
        Self {
            pid,
            key,
            user: Arc::clone(&empty),
            database: Arc::clone(&empty),
            application: empty,
            superuser: false,
            control,
            activity: Activity::Starting,
            cancel: false,
            conflict: false,
            goodbye: None,
            orphan: false,
            wake: false,
            waker: None,
            closing: Closing::Lost,
            ledger: Ledger::default(),
            began: None,
        }
    }

    /// Whether it takes one of the places that `max_connections` counts.
    pub(crate) fn counts(&self) -> bool {
        !self.orphan && !self.user.is_empty()
    }

    pub(crate) fn end(&mut self, goodbye: Goodbye) {
        if self.goodbye.is_none() {
            self.goodbye = Some(goodbye);
            self.rouse();
        }
    }

    /// A cancel request takes effect now; whether it hits a statement.
    pub(crate) fn cancel(&mut self) -> bool {
        let hit = matches!(self.activity, Activity::Running | Activity::Syncing) && self.goodbye.is_none();
        self.cancel |= hit;
        self.rouse();
        hit
    }

    /// Recovery cannot go on past this session.
    pub(crate) fn stand_aside(&mut self) {
        self.conflict = true;
        self.rouse();
    }

    /// Lets its task look again.
    pub(crate) fn rouse(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
