//! Plays a subscription: events are read for a while, then it is cancelled, the barrier awaited, and what was queued read
//! to its end.
//!
//! Beside the other calls of a client. Every event is written down with its place in the server's order.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use gdbpool::{Error, ListenEvent, QueueSubscription, Subscription};

use super::client::{Failure, Fate, Heard, Say};
use super::play::{Call, Done};
use super::statements as marks;

/// The bound of a client's own queue: small, so that it overflows.
const QUEUE: usize = 4;

/// How long a client watches its queue after the barrier.
const AFTERWARDS: Duration = Duration::from_millis(500);

pub(super) async fn play(call: &Call, channel: u8, span: Duration, queue: bool) {
    let work = async {
        let done = match queue {
            true => into_queue(call, channel, span).await,
            false => stream(call, channel, span).await,
        };
        Done {
            fate: Fate::Unknown,
            failure: done.err().map(|error| Failure::of(&error)),
            kept: Vec::new(),
        }
    };
    call.end(work).await;
}

async fn stream(call: &Call, channel: u8, span: Duration) -> Result<(), Error> {
    let db = call.stage.db.clone();
    let listen = db.listen_on(marks::channel(channel)).cancel_on(&call.cancel);
    let mut subscription = listen.subscribe().await?;
    until(call, span, subscription_events(call, &mut subscription)).await;
    hear(call, Heard::CancelAsked);
    subscription.cancel();
    subscription.closed().await;
    hear(call, Heard::Closed);
    subscription_events(call, &mut subscription).await;
    hear(call, Heard::Drained);
    Ok(())
}

async fn subscription_events(call: &Call, subscription: &mut Subscription) {
    while let Some(event) = subscription.next().await {
        heard(call, &event);
    }
    hear(call, Heard::End);
}

async fn into_queue(call: &Call, channel: u8, span: Duration) -> Result<(), Error> {
    let db = call.stage.db.clone();
    let (sender, receiver) = async_channel::bounded(QUEUE);
    let listen = db.listen_on(marks::channel(channel)).cancel_on(&call.cancel);
    let subscription: QueueSubscription = listen.into_queue(sender).await?;
    let events = async {
        while let Ok(event) = receiver.recv().await {
            heard(call, &event);
        }
        hear(call, Heard::End);
    };
    until(call, span, events).await;
    hear(call, Heard::CancelAsked);
    subscription.cancel();
    subscription.closed().await;
    hear(call, Heard::Closed);
    while let Ok(event) = receiver.try_recv() {
        heard(call, &event);
    }
    hear(call, Heard::Drained);
    call.stage.rest(AFTERWARDS).await;
    while let Ok(event) = receiver.try_recv() {
        heard(call, &event);
    }
    Ok(())
}

/// Reads until the span is over or there is nothing more.
async fn until(call: &Call, span: Duration, events: impl Future<Output = ()>) {
    let alarm = pin!(call.stage.rest(span));
    match select(pin!(events), alarm).await {
        Either::Left(((), _)) | Either::Right(((), _)) => {}
    }
}

fn hear(call: &Call, heard: Heard) {
    call.say(Say::Heard(heard));
}

fn heard(call: &Call, event: &ListenEvent) {
    match event {
        ListenEvent::Gap { since, .. } => hear(call, Heard::Gap(*since)),
        ListenEvent::Notification(notification) => hear(
            call,
            Heard::Notification {
                channel: notification.channel().to_owned(),
                payload: notification.payload().to_owned(),
            },
        ),
        ListenEvent::Resumed => hear(call, Heard::Resumed),
        ListenEvent::Subscribed => hear(call, Heard::Subscribed),
        // What the library adds later is nothing that could be checked here.
        _ => {}
    }
}
