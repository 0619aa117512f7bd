//! What the user holds: the builder of a subscription, the subscription as a stream, and the handle of one that feeds a
//! queue of the user's own.
//!
//! The near end of the listener. It checks what is asked and waits; it delivers nothing itself.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_channel::{Receiver, Sender};
use futures_channel::oneshot;
use futures_core::Stream;

use super::event::ListenEvent;
use super::hub::Listeners;
use super::machine::Refusal;
use super::outlet::{Arrival, Mouth, Ties};
use crate::cancel::Cancel;
use crate::config::Pooling;
use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase, check_channel};
use crate::pool::ConnectionPool;
use crate::route::{Access, NamedPools};

/// A subscription in the making: made by [`InteractionPool::listen_on`](crate::InteractionPool::listen_on).
#[must_use = "nothing is listened to before `subscribe` or `into_queue`"]
pub struct Listen<'a> {
    db: &'a NamedPools,
    listeners: &'a Listeners,
    channel: String,
    pool: Option<&'a str>,
    capacity: Option<usize>,
    cancel: Option<Cancel>,
}

/// The events of one channel, as a stream; made by [`Listen::subscribe`].
///
/// It ends when [`cancel`](Self::cancel) is called, when the [`Cancel`] it was made with is set, and when the pool is
/// closed; what is in its queue then can still be read. Dropping it ends it, too, without waiting for anything.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    events: Pin<Box<Receiver<ListenEvent>>>,
    ties: Ties,
    channel: String,
}

/// The handle of a subscription that feeds a queue of the user's own; made by [`Listen::into_queue`].
///
/// Dropping the handle does not end the subscription. It ends when [`cancel`](Self::cancel) is called, when the
/// [`Cancel`] it was made with is set, when all receivers of the queue are dropped, and when the pool is closed.
pub struct QueueSubscription {
    ties: Ties,
    channel: String,
}

impl<'a> Listen<'a> {
    pub(crate) fn new(db: &'a NamedPools, listeners: &'a Listeners, channel: String) -> Self {
        Self {
            db,
            listeners,
            channel,
            pool: None,
            capacity: None,
            cancel: None,
        }
    }

    /// Listens on the server of the pool of this name instead of that of the default write pool. It has to be a primary: a
    /// standby refuses LISTEN.
    pub fn on_pool(mut self, name: &'a str) -> Self {
        self.pool = Some(name);
        self
    }

    /// How many events may wait to be read before further notifications are dropped, which a `Gap` tells. 1 to 1,000,000;
    /// default the pool's [`listen_capacity`](crate::PoolConfig::listen_capacity). A notification takes up to 8 kB.
    /// [`into_queue`](Self::into_queue) goes by the bound of its queue instead.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = Some(events);
        self
    }

    /// Ends the subscription when `cancel` is set.
    pub fn cancel_on(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }

    /// Begins, and waits until the server has acknowledged LISTEN; [`ListenEvent::Subscribed`] is the first event then.
    ///
    /// While the server cannot be reached, the subscription begins all the same after the first failed attempt to connect:
    /// it keeps trying, and `Subscribed` comes when it is true.
    ///
    /// # Errors
    /// Bad input, before anything is sent: [`BadInput::Channel`], [`BadInput::OutOfBounds`], [`BadInput::UnknownPool`].
    /// [`ErrorKind::Database`] when the server refuses LISTEN, as a standby does (SQLSTATE 25006);
    /// [`ErrorKind::Connect`] when it refuses the credentials or the database; [`ErrorKind::ListenUnsupported`] when LISTEN
    /// is known to have no effect on this pool's connections, or the pool is declared as a
    /// [`transaction_pooler`](crate::PoolConfig::transaction_pooler), before anything is sent; [`ErrorKind::Cancelled`], [`ErrorKind::PoolClosed`].
    ///
    /// # Cancel safety
    /// Yes: the subscription of a dropped future ends.
    pub async fn subscribe(self) -> Result<Subscription, Error> {
        let pool = self.check()?;
        let capacity = self.capacity.unwrap_or(pool.config().listen_capacity);
        if !(1..=1_000_000).contains(&capacity) {
            return Err(Error::bad_input(BadInput::OutOfBounds {
                setting: "capacity",
                given: capacity.to_string(),
                bounds: "1 to 1,000,000",
            }));
        }
        let (queue, events) = async_channel::bounded(capacity);
        let subscription = Subscription {
            events: Box::pin(events),
            ties: Ties::default(),
            channel: self.channel.clone(),
        };
        self.begin(&pool, queue, &subscription.ties).await?;
        Ok(subscription)
    }

    /// Like [`subscribe`](Self::subscribe), with the events put into a bounded queue of the user's own, which may be shared by
    /// several subscriptions.
    ///
    /// A loss at the very end, with the queue full, is told by the end alone.
    ///
    /// # Errors
    /// [`BadInput::UnboundedQueue`], and as [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    /// Yes: the subscription of a dropped future ends.
    pub async fn into_queue(self, queue: Sender<ListenEvent>) -> Result<QueueSubscription, Error> {
        let pool = self.check()?;
        if queue.capacity().is_none() {
            return Err(Error::bad_input(BadInput::UnboundedQueue));
        }
        // Ends the subscription if this future is dropped before the handle is there.
        let mut guard = EndOnDrop(Some(Ties::default()));
        if let Some(ties) = &guard.0 {
            self.begin(&pool, queue, ties).await?;
        }
        Ok(QueueSubscription {
            ties: guard.0.take().unwrap_or_default(),
            channel: self.channel,
        })
    }

    fn check(&self) -> Result<ConnectionPool, Error> {
        check_channel(&self.channel)?;
        let pool = self.db.choose(Access::Write, self.pool)?;
        if pool.config().pooler.pooling() != Pooling::Direct {
            let error = ended(ErrorKind::ListenUnsupported, &pool);
            return Err(error.with_source(
                "the pool is declared as a transaction_pooler(): listen on a pool with a direct address",
            ));
        }
        match &self.cancel {
            Some(cancel) if cancel.is_cancelled() => Err(ended(ErrorKind::Cancelled, &pool)),
            _ => Ok(pool),
        }
    }

    async fn begin(&self, pool: &ConnectionPool, queue: Sender<ListenEvent>, ties: &Ties) -> Result<(), Error> {
        let (reply, word) = oneshot::channel();
        let hub = self.listeners.of(pool);
        if hub.beside.closed.is_cancelled() {
            return Err(ended(ErrorKind::PoolClosed, pool));
        }
        hub.enlist(Arrival {
            channel: self.channel.clone(),
            mouth: Mouth::new(queue, reply, ties.clone()),
            cancel: self.cancel.clone(),
        });
        match word.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(refused(refusal, pool)),
            Err(oneshot::Canceled) => match &self.cancel {
                Some(cancel) if cancel.is_cancelled() => Err(ended(ErrorKind::Cancelled, pool)),
                _ => Err(ended(ErrorKind::Lost, pool)),
            },
        }
    }
}

/// See [`Listen::into_queue`].
struct EndOnDrop(Option<Ties>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(ties) = &self.0 {
            ties.stop.cancel();
        }
    }
}

fn ended(kind: ErrorKind, pool: &ConnectionPool) -> Error {
    Error::new(kind, Outcome::NotExecuted, Phase::Executing).with_pool(&pool.config().name)
}

fn refused(refusal: Refusal, pool: &ConnectionPool) -> Error {
    match refusal {
        Refusal::Server(source) => ended(ErrorKind::Database, pool).with_source(source),
        Refusal::Connect(source) => {
            let error = Error::new(ErrorKind::Connect, Outcome::NotExecuted, Phase::Connecting);
            error.with_pool(&pool.config().name).with_source(source)
        }
        Refusal::PoolClosed => ended(ErrorKind::PoolClosed, pool),
        Refusal::Unsupported => ended(ErrorKind::ListenUnsupported, pool),
        Refusal::Dropped => ended(ErrorKind::Lost, pool),
    }
}

impl Subscription {
    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The next event; `None` once the subscription has ended and its queue is empty.
    ///
    /// # Cancel safety
    /// Yes: a dropped future takes no event.
    pub async fn next(&mut self) -> Option<ListenEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Ends the subscription; see [`closed`](Self::closed) for when it has ended. Never blocks.
    pub fn cancel(&self) {
        self.ties.stop.cancel();
    }

    /// Waits until the subscription has ended: nothing more is delivered, and, if it was the channel's last one, the server
    /// no longer has the channel, or the connection is closed. It does not end the subscription: [`cancel`](Self::cancel)
    /// does. What is already queued can still be read.
    ///
    /// # Cancel safety
    /// Yes: dropping the future changes nothing.
    pub async fn closed(&self) {
        self.ties.done.cancelled().await;
    }
}

impl QueueSubscription {
    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Ends the subscription; see [`closed`](Self::closed) for when it has ended. Never blocks.
    pub fn cancel(&self) {
        self.ties.stop.cancel();
    }

    /// Waits until the subscription has ended: nothing more is put into the queue, and, if it was the channel's last one,
    /// the server no longer has the channel, or the connection is closed. It does not end the subscription:
    /// [`cancel`](Self::cancel) does.
    ///
    /// # Cancel safety
    /// Yes: dropping the future changes nothing.
    pub async fn closed(&self) {
        self.ties.done.cancelled().await;
    }
}

impl Stream for Subscription {
    type Item = ListenEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ListenEvent>> {
        let event = ready!(self.events.as_mut().poll_next(cx));
        // What found no room in the queue comes behind it, once.
        Poll::Ready(event.or_else(|| std::sync::Arc::get_mut(&mut self.ties.last).and_then(std::sync::OnceLock::take)))
    }
}

impl fmt::Debug for Listen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listen")
            .field("channel", &self.channel)
            .field("pool", &self.pool)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("channel", &self.channel)
            .field("queued", &self.events.len())
            .field("ended", &self.ties.done.is_cancelled())
            .finish()
    }
}

impl fmt::Debug for QueueSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSubscription")
            .field("channel", &self.channel)
            .field("ended", &self.ties.done.is_cancelled())
            .finish()
    }
}
