//! What a session says: encoded messages, collected and written as PostgreSQL does.
//!
//! Output leaves with ReadyForQuery, Flush, an error or a notice, or when 8 KiB have come together; never in between.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::AsyncWrite;

use super::Session;
use super::halt::Halt;
use super::trace;
use crate::fault::Unsolicited;
use crate::history::EventKind;
use crate::pipe::{Cut, Direction};
use crate::postgres::server::Activity;
use crate::random::Stream;
use crate::wire::{Backend as Message, Report};

/// Bytes of output a session collects before it waits for the network; PostgreSQL's own buffer.
const OUTPUT_BYTES: usize = 8 * 1024;

impl Session {
    /// Puts a message behind those that wait to be written.
    pub(crate) fn send(&mut self, message: &Message) {
        self.unsolicited();
        self.put(message);
    }

    fn put(&mut self, message: &Message) {
        let start = self.out.len();
        message.encode(&mut self.out);
        self.sent += 1;
        if let Message::ErrorResponse(report) | Message::NoticeResponse(report) = message {
            let name = format!("sqlstate.{}", report.sqlstate);
            self.shared.lock().coverage.hit(&name);
        }
        let content = trace::backend_content(message, &self.out[start..]);
        trace::record_backend(self, message.kind(), content);
    }

    /// Between any two replies a server may say something nobody asked for; a fault makes it do so.
    fn unsolicited(&mut self) {
        let fault = self.lock().nodes[self.node].faults.unsolicited;
        let Some((message, percent)) = fault else { return };
        let entity = u64::from(self.pid.unsigned_abs());
        let draw = Stream::new(self.shared.seed, "unsolicited", entity).at(self.sent) % 100;
        // Not before the session is ready: a start-up has its own order.
        if self.backend(|backend| backend.activity == Activity::Starting) != Some(false) || draw >= u64::from(percent) {
            return;
        }
        let message = match message {
            Unsolicited::Notice => Message::NoticeResponse(Report::notice("00000", "nobody asked for this")),
            Unsolicited::Notification => Message::NotificationResponse {
                pid: 1,
                channel: "nobody_listens_here".to_owned(),
                payload: String::new(),
            },
            Unsolicited::ParameterStatus => Message::ParameterStatus("integer_datetimes".to_owned(), "on".to_owned()),
        };
        self.lock().felt("protocol.unsolicited");
        self.put(&message);
    }

    /// The end of a request: what must come before ReadyForQuery, itself, and off it goes.
    pub(crate) async fn ready(&mut self) -> Result<(), Halt> {
        let status = self.status();
        self.send_notifications(status);
        self.send_reports();
        self.statement_deadline = None;
        self.send(&Message::ReadyForQuery(status));
        self.idle();
        self.flush().await
    }

    /// Changed settings that clients are told about.
    pub(crate) fn send_reports(&mut self) {
        let reports = self.engine(|engine, _| engine.take_reports(self.pid));
        for (name, value) in reports {
            self.send(&Message::ParameterStatus(name, value));
        }
    }

    /// Warnings and notes of the statement.
    pub(crate) fn send_notices(&mut self) {
        let notices = self.engine(|engine, _| engine.take_notices(self.pid));
        for notice in notices {
            self.send(&Message::NoticeResponse(notice));
        }
    }

    /// Notifications that may be delivered now: outside a transaction only. Whether there were any.
    pub(crate) fn send_notifications(&mut self, status: u8) -> bool {
        if status != b'I' {
            return false;
        }
        let notifications = self.engine(|engine, _| engine.take_notifications(self.pid));
        let any = !notifications.is_empty();
        for notification in notifications {
            self.record(EventKind::NotifySent {
                pid: self.pid,
                channel: notification.channel.as_str().into(),
                payload: notification.payload.as_str().into(),
                ordinal: notification.ordinal,
            });
            self.send(&Message::NotificationResponse {
                pid: notification.pid,
                channel: notification.channel,
                payload: notification.payload,
            });
        }
        any
    }

    /// Waits until the network has taken most of the output, when there is much of it.
    pub(crate) async fn room(&mut self) -> Result<(), Halt> {
        if self.out.len() >= OUTPUT_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Writes all output; only the end of the session interrupts.
    pub(crate) async fn flush(&mut self) -> Result<(), Halt> {
        let mut written = 0;
        while written < self.out.len() {
            let (world, node, pid) = (&self.world, self.node, self.pid);
            let (writer, bytes) = (&mut self.writer, &self.out[written..]);
            let count = poll_fn(|cx| {
                let mut open = super::lock(world);
                let target = &mut open.nodes[node];
                let paused = target.faults.paused;
                let Some(backend) = target.backends.get_mut(&pid) else {
                    return Poll::Ready(Err(Halt::Over));
                };
                if let (Some(goodbye), false) = (backend.goodbye, paused) {
                    return Poll::Ready(Err(Halt::Goodbye(goodbye)));
                }
                backend.waker = Some(cx.waker().clone());
                drop(open);
                if paused {
                    return Poll::Pending;
                }
                // A client that is gone is not noticed here: the statement lives on to its end, as in PostgreSQL.
                Pin::new(&mut *writer)
                    .poll_write(cx, bytes)
                    .map(|result| Ok(result.unwrap_or(bytes.len())))
            });
            match count.await {
                Ok(count) => written += count,
                Err(halt) => {
                    self.out.drain(..written);
                    return Err(halt);
                }
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Writes what the network takes at once.
    pub(crate) fn write_what_fits(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(count)) = Pin::new(&mut self.writer).poll_write(&mut cx, &self.out) {
            self.out.drain(..count);
        }
    }

    /// A COMMIT has said CommandComplete: a fault may end the connection before ReadyForQuery.
    pub(crate) async fn committed(&mut self) -> Result<(), Halt> {
        let cut = self.lock().nodes[self.node].faults.cut_commit.take();
        let Some(reset) = cut else { return Ok(()) };
        self.lock().felt("protocol.commit_without_ready");
        self.flush().await?;
        if reset {
            self.control.cut_at(Direction::ToClient, 0, Cut::Reset);
        }
        Err(Halt::Over)
    }
}
