//! What a session waits for and what interrupts it: bytes, virtual time, other sessions, cancels, its end.
//!
//! Every await of a session but writing is here, so that none forgets to look at the interrupts.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::AsyncRead;
use gdbpool::Instant;

use super::halt::Halt;
use super::{Session, lock, trace};
use crate::executor::Origin;
use crate::postgres::cluster::SharedWorld;
use crate::postgres::server::Goodbye;
use crate::runtime::Sleep;
use crate::wire::Frontend;

/// The most bytes that one read takes.
const READ: usize = 4096;

/// What a wait inside a statement ended with.
#[derive(Debug)]
pub(crate) enum Woken {
    /// A cancel request.
    Cancel,
    /// Recovery cannot go on past this session.
    Conflict,
    /// The time has come.
    Due,
    /// The session is told to end.
    End(Goodbye),
    /// What was waited for may have come.
    Wake,
}

/// A look at the interrupts; `None` leaves the waker behind and waits on.
fn look(world: &SharedWorld, node: usize, pid: i32, cx: &Context<'_>) -> (bool, Option<Woken>) {
    let mut open = lock(world);
    let node = &mut open.nodes[node];
    let paused = node.faults.paused;
    let Some(backend) = node.backends.get_mut(&pid) else {
        return (false, Some(Woken::End(Goodbye::Silent)));
    };
    let woken = if paused {
        None
    } else if let Some(goodbye) = backend.goodbye {
        Some(Woken::End(goodbye))
    } else if std::mem::take(&mut backend.conflict) {
        Some(Woken::Conflict)
    } else if std::mem::take(&mut backend.cancel) {
        Some(Woken::Cancel)
    } else if std::mem::take(&mut backend.wake) {
        Some(Woken::Wake)
    } else {
        None
    };
    if woken.is_none() {
        backend.waker = Some(cx.waker().clone());
    }
    (paused, woken)
}

impl Session {
    /// Waits inside a statement, until `until` at the latest.
    pub(crate) async fn wait(&self, until: Instant) -> Woken {
        let mut sleep = pin!(Sleep::new(&self.shared, until, Origin::World));
        poll_fn(|cx| match look(&self.world, self.node, self.pid, cx) {
            (_, Some(woken)) => Poll::Ready(woken),
            (true, None) => Poll::Pending,
            (false, None) => sleep.as_mut().poll(cx).map(|()| Woken::Due),
        })
        .await
    }

    /// The client's next message. `idle` says that the session waits for a request: then notifications go out as they
    /// come, and idle timeouts strike.
    pub(crate) async fn read_message(&mut self, idle: bool) -> Result<Frontend, Halt> {
        let deadline = if idle { self.idle_deadline() } else { None };
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => {
                    trace::record_frontend(self, &message);
                    return Ok(message);
                }
                Ok(None) => {}
                Err(error) => return Err(Halt::Illegal(error)),
            }
            let until = deadline.as_ref().map_or(Instant::FAR_FUTURE, |(at, _)| *at);
            match self.read_more(until).await? {
                Input::Bytes => {}
                Input::Due => {
                    let report = deadline.map(|(_, report)| report);
                    return Err(report.map_or(Halt::Over, Halt::Fatal));
                }
                Input::Gone => {
                    self.until_mortal().await?;
                    return Err(Halt::Over);
                }
                Input::Woken => self.roused(idle).await?,
            }
        }
    }

    async fn read_more(&mut self, until: Instant) -> Result<Input, Halt> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ, 0);
        let mut sleep = pin!(Sleep::new(&self.shared, until, Origin::World));
        let (world, node, pid, reader) = (&self.world, self.node, self.pid, &mut self.reader);
        let read = poll_fn(|cx| {
            let (paused, woken) = look(world, node, pid, cx);
            match woken {
                Some(Woken::End(goodbye)) => return Poll::Ready(Err(Halt::Goodbye(goodbye))),
                Some(Woken::Conflict) => {
                    if let Some(backend) = lock(world).nodes[node].backends.get_mut(&pid) {
                        backend.conflict = true;
                    }
                    return Poll::Ready(Ok((Input::Woken, 0)));
                }
                Some(_) => return Poll::Ready(Ok((Input::Woken, 0))),
                None if paused => return Poll::Pending,
                None => {}
            }
            if let Poll::Ready(read) = Pin::new(&mut *reader).poll_read(cx, &mut buffer) {
                return Poll::Ready(Ok(match read {
                    Ok(count) if count > 0 => (Input::Bytes, count),
                    _ => (Input::Gone, 0),
                }));
            }
            sleep.as_mut().poll(cx).map(|()| Ok((Input::Due, 0)))
        });
        let (input, count) = read.await?;
        self.decoder.push(&buffer[..count]);
        self.buffer = buffer;
        Ok(input)
    }

    /// The client is gone. Where a fault says so, nobody notices for as long as it lasts.
    async fn until_mortal(&self) -> Result<(), Halt> {
        while self.lock().nodes[self.node].faults.zombies {
            self.lock().felt("server.zombies");
            if let Woken::End(goodbye) = self.wait(Instant::FAR_FUTURE).await {
                return Err(Halt::Goodbye(goodbye));
            }
        }
        Ok(())
    }
}

/// What a read brought.
enum Input {
    Bytes,
    Due,
    Gone,
    Woken,
}
