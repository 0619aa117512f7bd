//! NOTIFY as an interaction: its channel and payload are checked, then it runs like any other statement.
//!
//! Between the user's handle and the builder in `run.rs`. It knows nothing of listeners.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::run::{Count, Run};
use crate::cancel::Cancel;
use crate::error::{Error, check_channel, check_payload};
use crate::route::NamedPools;
use crate::runtime::BoxFuture;

/// One notification, to be awaited: made by [`InteractionPool::notify`](crate::InteractionPool::notify).
///
/// Nothing happens before it is awaited. It is a write, on the default write pool; whoever listens receives it once it is
/// committed, which it is by itself.
///
/// # Errors
/// [`BadInput::Channel`](crate::BadInput::Channel) and [`BadInput::Payload`](crate::BadInput::Payload) before anything is
/// sent, and as [`Run`].
///
/// # Cancel safety
/// As [`Run`]: a dropped one may have been sent.
#[must_use = "a notification is sent when it is awaited"]
pub struct Notify<'a> {
    run: Run<'a, 'a, Count>,
    checked: Result<(), Error>,
}

impl<'a> Notify<'a> {
    pub(crate) fn new(
        db: &'a Arc<NamedPools>,
        channel: String,
        payload: String,
        at: &'static Location<'static>,
    ) -> Self {
        let checked = check_channel(&channel).and_then(|()| check_payload(&payload));
        let run = Run::new(db, Cow::Borrowed("SELECT pg_catalog.pg_notify($1, $2)"), at);
        Self {
            run: run.bind(channel).bind(payload).execute(),
            checked,
        }
    }

    /// Sends it through the pool of this name; [`BadInput::UnknownPool`](crate::BadInput::UnknownPool) if there is none.
    pub fn on_pool(mut self, name: &'a str) -> Self {
        self.run = self.run.on_pool(name);
        self
    }

    /// Gives up after this long; see [`Run::timeout`].
    pub fn timeout(mut self, span: Duration) -> Self {
        self.run = self.run.timeout(span);
        self
    }

    /// Gives up when `cancel` is set; see [`Run::cancel_on`].
    pub fn cancel_on(mut self, cancel: &'a Cancel) -> Self {
        self.run = self.run.cancel_on(cancel);
        self
    }
}

impl<'a> IntoFuture for Notify<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            self.checked?;
            self.run.await?;
            Ok(())
        })
    }
}

impl fmt::Debug for Notify<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notify").field(&self.run).finish()
    }
}
