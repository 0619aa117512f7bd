//! `Book`: what a scripted server knows, shared by its tasks and by the test's handle.
//!
//! Under the tasks: connections with their model, outgoing bytes, faults and wakers. It decides what is delivered and
//! what is held back; it awaits nothing.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use gdbpool::Endpoint;

use super::answer::Rules;
use super::model::Model;
use super::settings;
use super::start_up::StartUp;
use super::{CancelMode, CancelView, Kill, SessionView};
use crate::executor::Shared;
use crate::pipe::{Cut, Direction, PipeControl};
use crate::random::{Stream, hash_bytes};
use crate::trace::Event;
use crate::wire::{Backend, Frontend, Report, Severity};

/// Bytes of output a session collects before it waits for the network; PostgreSQL's own buffer.
const OUTPUT_BYTES: usize = 8 * 1024;

pub(crate) struct Book {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Endpoint,
    pub(crate) number: u64,
    pub(crate) rules: Rules,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) start_up: StartUp,
    pub(crate) next_start_ups: VecDeque<StartUp>,
    pub(crate) max_sessions: usize,
    pub(crate) cancel_mode: CancelMode,
    pub(crate) cancels: Vec<CancelView>,
    pub(crate) violations: Vec<String>,
    pub(crate) lines: Vec<Line>,
    /// The connection of each session.
    pub(crate) sessions: Vec<usize>,
    /// Cuts for sessions that do not exist yet.
    pub(crate) cuts: BTreeMap<usize, Vec<(Direction, u64, Cut)>>,
    /// Deliver so many messages in total, then hold back.
    pub(crate) hold_at: Option<u64>,
    pub(crate) delivered: u64,
    emitted: u64,
}

/// One connection.
pub(crate) struct Line {
    pub(crate) control: PipeControl,
    pub(crate) ordinal: Option<usize>,
    pub(crate) key: i32,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) model: Model,
    pub(crate) statements: Vec<String>,
    pub(crate) ready: u64,
    /// A request is being worked on: a cancel would hit.
    pub(crate) active: bool,
    pub(crate) cancel: bool,
    pub(crate) kill: Option<Kill>,
    pub(crate) closed: bool,
    pub(crate) stalled: bool,
    /// Bytes of the present reply that may still go out, and what happens then.
    pub(crate) limit: Option<(u64, Limit)>,
    pub(crate) worker: Option<Waker>,
    out: Vec<u8>,
    writing: usize,
    held: VecDeque<(u64, Vec<u8>)>,
    closing: bool,
    finished: bool,
    writer: Option<Waker>,
    reported: BTreeMap<String, String>,
    names: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Cut,
    Stall,
}

/// Why the session task stops what it does.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The request failed.
    Fail(Report),
    /// The session is over.
    Over,
}

impl From<Report> for Halt {
    fn from(report: Report) -> Self {
        Self::Fail(report)
    }
}

impl Book {
    pub(crate) fn new(shared: Arc<Shared>, endpoint: Endpoint, number: u64) -> Self {
        Self {
            shared,
            endpoint,
            number,
            rules: Rules::default(),
            parameters: BTreeMap::new(),
            start_up: StartUp::Trust,
            next_start_ups: VecDeque::new(),
            max_sessions: usize::MAX,
            cancel_mode: CancelMode::Prompt,
            cancels: Vec::new(),
            violations: Vec::new(),
            lines: Vec::new(),
            sessions: Vec::new(),
            cuts: BTreeMap::new(),
            hold_at: None,
            delivered: 0,
            emitted: 0,
        }
    }

    /// A new connection; it becomes a session with its start-up packet.
    pub(crate) fn open(&mut self, control: PipeControl) -> usize {
        let index = self.lines.len();
        let pid = i32::try_from(self.number * 10_000 + 1_000 + index as u64).unwrap_or(i32::MAX);
        let key = Stream::new(self.shared.seed, "secret", self.number).at(index as u64);
        self.lines.push(Line {
            control,
            ordinal: None,
            key: i32::try_from(key >> 33).unwrap_or_default(),
            user: String::new(),
            database: String::new(),
            model: Model::new(pid),
            statements: Vec::new(),
            ready: 0,
            active: true,
            cancel: false,
            kill: None,
            closed: false,
            stalled: false,
            limit: None,
            worker: None,
            out: Vec::new(),
            writing: 0,
            held: VecDeque::new(),
            closing: false,
            finished: false,
            writer: None,
            reported: BTreeMap::new(),
            names: BTreeMap::new(),
        });
        index
    }

    /// Makes the connection a session; gives the cuts that were waiting for it.
    pub(crate) fn begin_session(&mut self, line: usize) -> Vec<(Direction, u64, Cut)> {
        let ordinal = self.sessions.len();
        self.sessions.push(line);
        self.lines[line].ordinal = Some(ordinal);
        self.cuts.remove(&ordinal).unwrap_or_default()
    }

    pub(crate) fn open_sessions(&self) -> usize {
        self.sessions.iter().filter(|&&line| !self.lines[line].closed).count()
    }

    /// Sends a message, as far as faults and holds let it.
    pub(crate) fn emit(&mut self, line: usize, message: &Backend) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let content = match message {
            // These name statements, whose names differ from run to run.
            Backend::ErrorResponse(report) if matches!(&*report.sqlstate, "26000" | "34000" | "42P03" | "42P05") => {
                hash_bytes(report.sqlstate.as_bytes())
            }
            _ => hash_bytes(&bytes),
        };
        let words = [self.number, line as u64, u64::from(message.kind()), content];
        self.shared.record(Event::Backend, &words);
        let target = &mut self.lines[line];
        if target.closing {
            return;
        }
        if let Some((left, Limit::Cut)) = &mut target.limit {
            let kept = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            bytes.truncate(kept);
            *left -= kept as u64;
            if *left == 0 {
                target.closing = true;
                target.kill = Some(Kill::Silent);
            }
        }
        if let Some((left, Limit::Stall)) = target.limit {
            let kept = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let rest = bytes.split_off(kept);
            target.limit = Some((left - kept as u64, Limit::Stall));
            if left == kept as u64 {
                // What is due before the stall goes out even though the line is stalled behind it.
                self.pass(line, bytes);
                self.lines[line].stalled = true;
                self.lines[line].limit = None;
                bytes = rest;
            }
        }
        self.pass(line, bytes);
        let line = &mut self.lines[line];
        if line.closing {
            wake(&mut line.writer);
            wake(&mut line.worker);
        }
    }

    /// Gives a message to the network, or keeps it while the line or the server holds back.
    fn pass(&mut self, line: usize, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let open = self.hold_at.is_none_or(|limit| self.delivered < limit);
        let line = &mut self.lines[line];
        if open && !line.stalled && line.held.is_empty() {
            line.out.extend_from_slice(&bytes);
            self.delivered += 1;
            wake(&mut line.writer);
        } else {
            self.emitted += 1;
            line.held.push_back((self.emitted, bytes));
        }
    }

    /// Moves messages to the network in the order in which they were sent, as long as the hold allows.
    pub(crate) fn pump(&mut self) {
        while self.hold_at.is_none_or(|limit| self.delivered < limit) {
            let movable = self.lines.iter_mut().filter(|line| !line.stalled);
            let first = movable.min_by_key(|line| line.held.front().map_or(u64::MAX, |(order, _)| *order));
            let Some(line) = first else { break };
            let Some((_, bytes)) = line.held.pop_front() else { break };
            line.out.extend_from_slice(&bytes);
            self.delivered += 1;
            wake(&mut line.writer);
        }
    }

    /// Messages that were sent but are held back.
    pub(crate) fn held(&self) -> u64 {
        self.lines.iter().map(|line| line.held.len() as u64).sum()
    }

    /// The next bytes for the connection's writer; `None` when it is to close.
    pub(crate) fn poll_output(&mut self, line: usize, cx: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        let line = &mut self.lines[line];
        if !line.out.is_empty() {
            line.writing = line.out.len();
            return Poll::Ready(Some(mem::take(&mut line.out)));
        }
        if line.closing && line.held.is_empty() {
            return Poll::Ready(None);
        }
        line.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The writer is done with its bytes, or found that nobody takes them.
    pub(crate) fn written(&mut self, line: usize, delivered: bool) {
        let line = &mut self.lines[line];
        line.writing = 0;
        if !delivered {
            line.closing = true;
            line.held.clear();
            line.out.clear();
            line.kill = Some(Kill::Silent);
        }
        wake(&mut line.worker);
    }

    /// The connection's writer has closed it.
    pub(crate) fn finish(&mut self, line: usize) {
        self.lines[line].finished = true;
        wake(&mut self.lines[line].worker);
    }

    pub(crate) fn poll_finished(&mut self, line: usize, cx: &Context<'_>) -> Poll<()> {
        let line = &mut self.lines[line];
        if line.finished {
            return Poll::Ready(());
        }
        line.worker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn has_room(&self, line: usize) -> bool {
        let line = &self.lines[line];
        line.out.len() + line.writing < OUTPUT_BYTES
    }

    /// What the session task must know before it goes on or waits.
    pub(crate) fn interrupts(&mut self, line: usize) -> Result<(), Halt> {
        if let Some(kill) = self.lines[line].kill.take() {
            self.die(line, kill);
            return Err(Halt::Over);
        }
        if self.lines[line].closing {
            return Err(Halt::Over);
        }
        let target = &mut self.lines[line];
        if mem::take(&mut target.cancel) && target.active {
            return Err(Report::error("57014", "canceling statement due to user request").into());
        }
        Ok(())
    }

    /// The session's last words, then its end.
    pub(crate) fn die(&mut self, line: usize, kill: Kill) {
        let text = "terminating connection due to administrator command";
        match kill {
            Kill::Fatal => self.emit(line, &Backend::ErrorResponse(Report::fatal("57P01", text))),
            Kill::Notice => {
                let report = Report::new(Severity::Warning, "57P01", text);
                self.emit(line, &Backend::NoticeResponse(report));
            }
            Kill::Silent => {}
        }
        self.close(line);
    }

    /// Ends a session: its model is cleared, its bytes still go out.
    pub(crate) fn close(&mut self, line: usize) {
        let line = &mut self.lines[line];
        if !mem::replace(&mut line.closed, true) {
            line.model.end();
        }
        line.closing = true;
        line.active = false;
        wake(&mut line.writer);
    }

    /// Marks a session for its end; its task sees to it.
    pub(crate) fn kill(&mut self, line: usize, kill: Kill) {
        let line = &mut self.lines[line];
        if !line.closed {
            line.kill = Some(kill);
            wake(&mut line.worker);
        }
    }

    /// A cancel request takes effect now; whether it hits.
    pub(crate) fn cancel(&mut self, pid: i32, key: i32) -> bool {
        let matching = |line: &&mut Line| line.ordinal.is_some() && line.model.pid == pid && line.key == key;
        let Some(line) = self
            .lines
            .iter_mut()
            .find(matching)
            .filter(|line| line.active && !line.closed)
        else {
            return false;
        };
        line.cancel = true;
        wake(&mut line.worker);
        true
    }

    /// Everything that comes before ReadyForQuery, and itself.
    pub(crate) fn ready(&mut self, line: usize) {
        let (pid, outgoing) = {
            let model = &mut self.lines[line].model;
            model.refresh(&self.parameters);
            (model.pid, mem::take(&mut model.outgoing))
        };
        for (channel, payload) in outgoing {
            self.notify(pid, &channel, &payload);
        }
        let status = self.lines[line].model.status();
        if status == b'I' {
            self.deliver_inbox(line);
        }
        self.report_settings(line);
        self.emit(line, &Backend::ReadyForQuery(status));
        let line = &mut self.lines[line];
        line.ready += 1;
        line.limit = None;
    }

    pub(crate) fn report_settings(&mut self, line: usize) {
        for (name, _) in settings::REPORTED {
            let value = self.lines[line].model.setting(name).to_owned();
            let known = self.lines[line].reported.insert(name.to_owned(), value.clone());
            if known.as_ref() != Some(&value) {
                self.emit(line, &Backend::ParameterStatus(name.to_owned(), value));
            }
        }
    }

    /// Gives a notification to every session that listens; those not idle get it later.
    pub(crate) fn notify(&mut self, pid: i32, channel: &str, payload: &str) {
        for index in 0..self.lines.len() {
            let line = &mut self.lines[index];
            if line.closed || !line.model.listens.contains(channel) {
                continue;
            }
            line.model.inbox.push((pid, channel.to_owned(), payload.to_owned()));
            if !line.active && line.model.is_outside() {
                self.deliver_inbox(index);
            }
        }
    }

    fn deliver_inbox(&mut self, line: usize) {
        for (pid, channel, payload) in mem::take(&mut self.lines[line].model.inbox) {
            self.emit(line, &Backend::NotificationResponse { pid, channel, payload });
        }
    }

    /// Puts a client's message into the trace, with ordinals for process-global names.
    pub(crate) fn trace(&mut self, line: usize, message: &Frontend) {
        let target = &mut self.lines[line];
        let content = match message {
            Frontend::Parse { name, sql, types } => {
                let types: Vec<u8> = types.iter().flat_map(|of| of.to_be_bytes()).collect();
                [target.name(name), hash_bytes(sql.as_bytes()), hash_bytes(&types)]
            }
            Frontend::Bind {
                portal,
                statement,
                parameter_formats,
                parameters,
                result_formats,
            } => {
                let rest = format!("{parameter_formats:?} {parameters:?} {result_formats:?}");
                [target.name(portal), target.name(statement), hash_bytes(rest.as_bytes())]
            }
            Frontend::Describe(_, name) => [2, target.name(name), 0],
            Frontend::Close(_, name) => [3, target.name(name), 0],
            Frontend::Execute { portal, max_rows } => [4, target.name(portal), u64::from(max_rows.unsigned_abs())],
            other => [5, hash_bytes(format!("{other:?}").as_bytes()), 0],
        };
        self.shared.record(
            Event::Frontend,
            &[self.number, line as u64, content[0], content[1], content[2]],
        );
    }

    pub(crate) fn view(&self, ordinal: usize) -> SessionView {
        let line = &self.lines[self.sessions[ordinal]];
        SessionView {
            ordinal,
            pid: line.model.pid,
            user: line.user.clone(),
            database: line.database.clone(),
            status: char::from(line.model.status()),
            settings: line.model.durable.settings.clone(),
            listens: line.model.listens.clone(),
            temp_tables: line.model.durable.temp_tables.clone(),
            cursors: line.model.durable.cursors.keys().cloned().collect(),
            advisory_locks: line.model.locks.len(),
            prepared: line.model.prepared.keys().filter(|name| !name.is_empty()).count(),
            portals: line.model.portals.len(),
            in_flight: line.active && !line.closed,
            ready_count: line.ready,
            closed: line.closed,
            statements: line.statements.clone(),
            committed: line.model.committed.clone(),
        }
    }
}

impl Line {
    fn name(&mut self, name: &str) -> u64 {
        let global =
            name.len() > 1 && name.starts_with(['s', 'p']) && name[1..].bytes().all(|byte| byte.is_ascii_digit());
        if !global {
            return hash_bytes(name.as_bytes());
        }
        let next = self.names.len() as u64;
        *self.names.entry(name.to_owned()).or_insert(next)
    }
}

/// Wakes a task of this server; such a waker takes only the executor's lock.
pub(crate) fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}
