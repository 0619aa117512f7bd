//! LISTEN and NOTIFY: queued in the transaction, done at its commit, in the order of commits.
//!
//! A plain machine. A session hears only of its own database's channels.

use super::Engine;
use super::door::{EngineEvent, Notification};
use super::session::ChannelAction;

/// More notifications than this may not wait for one session; PostgreSQL's queue holds 8 GB.
const MAX_QUEUED: usize = 1_000_000;

impl Engine {
    /// Queues a notification, unless the transaction has queued the same already.
    pub(super) fn queue_notification(&mut self, pid: i32, channel: &str, payload: &str) {
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            let same = |(other, text): &(String, String)| other == channel && text == payload;
            if !transaction.notifies.iter().any(same) {
                transaction.notifies.push((channel.to_owned(), payload.to_owned()));
            }
        }
    }

    pub(super) fn queue_channel(&mut self, pid: i32, action: ChannelAction) {
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            transaction.channels.push(action);
        }
    }

    pub(super) fn finish_notify(&mut self, pid: i32, actions: Vec<ChannelAction>, notifies: Vec<(String, String)>) {
        let session = self
            .sessions
            .get_mut(&pid)
            .expect("the session is open while it commits");
        let database = session.database.clone();
        for action in actions {
            match action {
                ChannelAction::Listen(channel) => {
                    if session.channels.insert(channel.clone()) {
                        self.events.push(EngineEvent::Listened { pid, channel });
                    }
                }
                ChannelAction::Unlisten(channel) => {
                    if session.channels.remove(&channel) {
                        self.events.push(EngineEvent::Unlistened { pid, channel });
                    }
                }
                ChannelAction::UnlistenAll => {
                    let channels = std::mem::take(&mut session.channels);
                    let gone = channels
                        .into_iter()
                        .map(|channel| EngineEvent::Unlistened { pid, channel });
                    self.events.extend(gone);
                }
            }
        }
        for (channel, payload) in notifies {
            self.notified += 1;
            let ordinal = self.notified;
            self.events.push(EngineEvent::NotifyQueued(Notification {
                pid,
                channel: channel.clone(),
                payload: payload.clone(),
                ordinal,
            }));
            for session in self.sessions.values_mut() {
                let listens = session.database == database && session.channels.contains(&channel);
                if listens && session.notifications.len() < MAX_QUEUED {
                    session.notifications.push_back(Notification {
                        pid,
                        channel: channel.clone(),
                        payload: payload.clone(),
                        ordinal,
                    });
                }
            }
        }
    }

    /// What can be told to the session now: nothing while it is in a transaction block.
    pub(crate) fn take_notifications(&mut self, pid: i32) -> Vec<Notification> {
        match self.sessions.get_mut(&pid) {
            Some(session) if session.transaction.is_none() => session.notifications.drain(..).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether [`Engine::take_notifications`] would give something.
    pub(crate) fn has_notifications(&self, pid: i32) -> bool {
        let session = self.sessions.get(&pid);
        session.is_some_and(|session| session.transaction.is_none() && !session.notifications.is_empty())
    }

    /// The channels a session listens to.
    pub(crate) fn channels(&self, pid: i32) -> Vec<String> {
        self.sessions
            .get(&pid)
            .map_or_else(Vec::new, |session| session.channels.iter().cloned().collect())
    }
}
