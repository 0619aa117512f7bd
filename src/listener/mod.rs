//! Listening: channels and their subscribers, over one connection per pool, with a plain mark wherever notifications may
//! be missing.
//!
//! Beside the interactions, under the user's handle. `subscription` is what the user holds, `hub` where subscriptions come
//! in, `machine` the policy, `task` its shell, `line` the connection. It never takes a slot of a pool: its connections are
//! its own, and there while somebody subscribes.

mod event;
mod hub;
mod line;
mod machine;
mod outlet;
mod subscription;
mod task;

pub use self::event::{GapCause, ListenEvent, Notification};
pub(crate) use self::hub::Listeners;
pub use self::subscription::{Listen, QueueSubscription, Subscription};
