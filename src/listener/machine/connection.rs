//! The connection's part of the listener's policy: dials and their failures, requests and answers, what is overdue.
//!
//! A plain machine, part of the listener's.

use std::fmt::Write as _;
use std::mem;
use std::sync::Arc;

use super::{GapCause, Link, Machine, Notification, Outlet, Refusal, Request, Stage, Step, Test};
use crate::Instant;

impl<Q: Outlet> Machine<Q> {
    /// The dial brought a connection. `random` names the self-test's channel.
    pub(in super::super) fn connected(&mut self, now: Instant, random: u64) {
        self.link = Link::Up;
        self.life = now;
        self.sent.clear();
        self.relisten = true;
        self.due = self.channels.keys().cloned().collect();
        self.test = if self.limits.self_test { Test::Due } else { Test::Over };
        self.test_channel = format!("gdbpool_self_test_{random:016x}");
    }

    /// The dial failed. `refusal`: trying again will not help.
    pub(in super::super) fn dial_failed(&mut self, now: Instant, refusal: Option<&Refusal>, random: u64) {
        self.link = Link::Pause(now + self.backoff.failed(refusal.is_some(), random));
        match refusal {
            Some(refusal) => self.refuse_new(refusal),
            // Whoever waits to begin is told by `Subscribed`, whenever the server is there.
            None => self.accept_all(),
        }
    }

    /// The connection ended by itself.
    pub(in super::super) fn lost(&mut self, now: Instant, random: u64) {
        match self.link {
            Link::Up => self.lose(now, GapCause::ConnectionLost, false, random),
            // The end of a connection that was asked to.
            Link::Closing => {
                self.link = Link::Idle;
                self.disconnected();
            }
            Link::Idle | Link::Pause(_) | Link::Dialling => {}
        }
    }

    fn lose(&mut self, now: Instant, cause: GapCause, is_permanent: bool, random: u64) {
        self.link = Link::Pause(now + self.backoff.failed(is_permanent, random));
        self.disconnected();
        let since = self.life;
        for channel in self.channels.values_mut() {
            for (id, subscriber) in &mut channel.subscribers {
                if !subscriber.lose(cause, since) {
                    self.stalled.insert(*id);
                }
            }
        }
        self.accept_all();
    }

    /// Nothing is left of the connection.
    pub(super) fn disconnected(&mut self) {
        self.sent.clear();
        self.due.clear();
        self.test = Test::Over;
        for channel in self.channels.values_mut() {
            channel.stage = Stage::Absent;
            for subscriber in channel.leaving.drain(..) {
                subscriber.end();
            }
        }
        self.channels.retain(|_, channel| !channel.subscribers.is_empty());
    }

    /// Nobody waits any longer to begin: `Subscribed` will come when it is true.
    fn accept_all(&mut self) {
        for subscriber in self.channels.values_mut().flat_map(|c| c.subscribers.values_mut()) {
            subscriber.outlet.answer(Ok(()));
        }
    }

    /// Turns away whoever waits to begin.
    fn refuse_new(&mut self, refusal: &Refusal) {
        let names: Vec<Arc<str>> = self.channels.keys().cloned().collect();
        for name in names {
            self.refuse(&name, refusal);
        }
    }

    /// Turns away those of a channel who wait to begin.
    fn refuse(&mut self, name: &str, refusal: &Refusal) {
        let Some(channel) = self.channels.get_mut(name) else {
            return;
        };
        let (waiting, others) = mem::take(&mut channel.subscribers)
            .into_iter()
            .partition(|(_, subscriber)| subscriber.outlet.is_waiting());
        channel.subscribers = others;
        for (id, mut subscriber) in waiting {
            subscriber.outlet.answer(Err(refusal.clone()));
            subscriber.end();
            self.places.remove(&id);
            self.stalled.remove(&id);
        }
        if channel.subscribers.is_empty() && channel.leaving.is_empty() && channel.stage == Stage::Absent {
            self.channels.remove(name);
        }
    }

    /// The oldest request was answered.
    pub(in super::super) fn answered(&mut self, now: Instant, answer: Result<(), Refusal>, random: u64) {
        if self.link != Link::Up {
            return;
        }
        let Some((_, request)) = self.sent.pop_front() else {
            return;
        };
        self.life = self.life.max(now);
        match (request, answer) {
            (Request::Listen(names), Ok(())) => {
                self.backoff.succeeded();
                for name in names {
                    self.acknowledge(&name);
                }
            }
            (Request::Listen(names), Err(refusal)) => {
                let is_new = |name: &Arc<str>| self.channels.get(name).is_none_or(|channel| !channel.is_known);
                if names.iter().all(is_new) {
                    for name in names {
                        self.listen_failed(&name, &refusal);
                    }
                    if self.channels.values().all(|channel| channel.stage == Stage::Absent) && !self.places.is_empty() {
                        self.give_up(now, GapCause::ConnectionLost, true, random);
                    }
                } else {
                    // A server that was the primary refuses what it accepted before: it may be so again, but not soon.
                    self.refuse_new(&refusal);
                    self.give_up(now, GapCause::ConnectionLost, true, random);
                }
            }
            (Request::Unlisten(name), Ok(())) => self.unlistened(&name),
            (Request::TestListen, Ok(())) => self.test = Test::Ready,
            (Request::TestListen, Err(_)) => self.test = Test::Over,
            (Request::Beat, Ok(())) if self.test == Test::Doubted => self.test_failed(now, random),
            (Request::Beat | Request::TestUnlisten, Ok(())) => {}
            (Request::Unlisten(_) | Request::Beat | Request::TestUnlisten, Err(_)) => {
                self.give_up(now, GapCause::ConnectionLost, false, random);
            }
        }
    }

    /// The server has the channel.
    fn acknowledge(&mut self, name: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(name) else {
            return;
        };
        if channel.stage != Stage::Listening {
            return;
        }
        channel.stage = Stage::Live;
        channel.is_known = true;
        if channel.subscribers.is_empty() {
            self.due.insert(Arc::clone(name));
        }
        self.flush(name);
    }

    /// Those who were promised `Subscribed` wait for the next connection.
    fn listen_failed(&mut self, name: &Arc<str>, refusal: &Refusal) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.stage = Stage::Absent;
            for subscriber in channel.leaving.drain(..) {
                subscriber.end();
            }
            self.refuse(name, refusal);
        }
    }

    /// The server no longer has the channel.
    fn unlistened(&mut self, name: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(name) else {
            return;
        };
        channel.stage = Stage::Absent;
        for subscriber in channel.leaving.drain(..) {
            subscriber.end();
        }
        if channel.subscribers.is_empty() {
            self.channels.remove(name);
        } else {
            self.due.insert(Arc::clone(name));
        }
    }

    /// A notification came, in its place among the answers.
    pub(in super::super) fn notified(&mut self, now: Instant, notification: &Notification) {
        if self.link != Link::Up {
            return;
        }
        self.life = self.life.max(now);
        let name = notification.channel();
        if name == self.test_channel {
            self.test_passed();
            return;
        }
        let Some((name, channel)) = self.channels.get_key_value(name) else {
            return;
        };
        if channel.stage == Stage::Listening {
            let name = Arc::clone(name);
            self.acknowledge(&name);
        }
        if !self.is_live(notification.channel()) {
            return;
        }
        let Some(channel) = self.channels.get_mut(notification.channel()) else {
            return;
        };
        for (id, subscriber) in &mut channel.subscribers {
            if subscriber.notify(now, notification) {
                self.stalled.remove(id);
            } else {
                self.stalled.insert(*id);
            }
        }
    }

    /// The notification of the self-test has been sent, or could not be.
    pub(in super::super) fn test_sent(&mut self, now: Instant, sent: bool, random: u64) {
        if self.test != Test::Sending {
            return;
        }
        if sent {
            self.test = Test::Awaited(now + self.limits.answer);
        } else if self.is_suspect {
            // Without a proof nobody may be told that all is well again.
            self.give_up(now, GapCause::Unsupported, true, random);
        } else {
            self.test = Test::Leaving;
        }
    }

    fn test_passed(&mut self) {
        // One that comes after its time is no proof: something else may have woken the connection.
        if !matches!(self.test, Test::Ready | Test::Sending | Test::Awaited(_)) {
            return;
        }
        self.test = Test::Leaving;
        if mem::take(&mut self.is_suspect) {
            let names: Vec<Arc<str>> = self.channels.keys().cloned().collect();
            for name in names {
                self.flush(&name);
            }
        }
    }

    fn test_failed(&mut self, now: Instant, random: u64) {
        self.is_suspect = true;
        self.refuse_new(&Refusal::Unsupported);
        self.give_up(now, GapCause::Unsupported, true, random);
    }

    fn give_up(&mut self, now: Instant, cause: GapCause, is_permanent: bool, random: u64) {
        self.lose(now, cause, is_permanent, random);
        self.cut = true;
    }

    /// What to do next, until there is nothing.
    pub(in super::super) fn next(&mut self, now: Instant, random: u64) -> Option<Step> {
        if mem::take(&mut self.cut) {
            return Some(Step::Cut);
        }
        let wanted = !self.is_closed && !self.places.is_empty();
        match self.link {
            Link::Idle if wanted => {
                self.link = Link::Dialling;
                Some(Step::Dial)
            }
            Link::Idle => Some(Step::Rest),
            Link::Pause(until) if !wanted || until <= now => {
                self.link = Link::Idle;
                self.next(now, random)
            }
            Link::Dialling if !wanted => {
                self.link = Link::Idle;
                Some(Step::Cut)
            }
            Link::Up => self.next_request(now, random),
            Link::Pause(_) | Link::Dialling | Link::Closing => None,
        }
    }

    fn next_request(&mut self, now: Instant, random: u64) -> Option<Step> {
        if self.overdue().is_some_and(|at| at <= now) {
            self.give_up(now, GapCause::Silent, false, random);
            return self.next(now, random);
        }
        if self.is_closed || (self.channels.is_empty() && self.sent.is_empty()) {
            self.link = Link::Closing;
            return Some(Step::HangUp);
        }
        if mem::take(&mut self.relisten)
            && let Some(step) = self.listen_again(now)
        {
            return Some(step);
        }
        while let Some(name) = self.due.pop_first() {
            if let Some(step) = self.settle(now, &name) {
                return Some(step);
            }
        }
        self.next_test(now).or_else(|| {
            let due = self.sent.is_empty() && self.beat_at().is_some_and(|at| at <= now);
            due.then(|| self.send(now, Request::Beat))
        })
    }

    /// The channels of the last connection, all at once.
    fn listen_again(&mut self, now: Instant) -> Option<Step> {
        let mut names = Vec::new();
        for (name, channel) in &mut self.channels {
            if channel.is_known {
                channel.stage = Stage::Listening;
                names.push(Arc::clone(name));
                self.due.remove(name);
            }
        }
        (!names.is_empty()).then(|| self.send(now, Request::Listen(names)))
    }

    /// Brings a channel to what is wanted of it, if nothing is under way for it.
    fn settle(&mut self, now: Instant, name: &Arc<str>) -> Option<Step> {
        let channel = self.channels.get_mut(name)?;
        match (channel.stage, channel.subscribers.is_empty()) {
            (Stage::Absent, false) => {
                channel.stage = Stage::Listening;
                Some(self.send(now, Request::Listen(vec![Arc::clone(name)])))
            }
            (Stage::Live, true) => {
                channel.stage = Stage::Unlistening;
                Some(self.send(now, Request::Unlisten(Arc::clone(name))))
            }
            _ => None,
        }
    }

    fn next_test(&mut self, now: Instant) -> Option<Step> {
        match self.test {
            Test::Due => {
                self.test = Test::Listening;
                Some(self.send(now, Request::TestListen))
            }
            Test::Ready => {
                self.test = Test::Sending;
                Some(Step::SelfTest(self.test_channel.clone()))
            }
            Test::Awaited(until) if until <= now => {
                self.test = Test::Doubted;
                Some(self.send(now, Request::Beat))
            }
            Test::Leaving => {
                self.test = Test::Over;
                Some(self.send(now, Request::TestUnlisten))
            }
            Test::Over | Test::Listening | Test::Sending | Test::Awaited(_) | Test::Doubted => None,
        }
    }

    fn send(&mut self, now: Instant, request: Request) -> Step {
        let step = match &request {
            Request::Listen(names) => Step::Send(statements("LISTEN", names.iter().map(|name| &**name))),
            Request::Unlisten(name) => Step::Send(statements("UNLISTEN", [&**name])),
            Request::TestListen => Step::Send(statements("LISTEN", [&*self.test_channel])),
            Request::TestUnlisten => Step::Send(statements("UNLISTEN", [&*self.test_channel])),
            Request::Beat => Step::Beat,
        };
        self.sent.push_back((now, request));
        step
    }

    /// When the oldest answer is overdue.
    fn overdue(&self) -> Option<Instant> {
        let (at, _) = self.sent.front()?;
        Some((*at).max(self.life) + self.limits.answer)
    }

    /// When a quiet connection is asked for a sign of life: not while the self-test needs it quiet.
    fn beat_at(&self) -> Option<Instant> {
        let quiet = matches!(self.test, Test::Sending | Test::Awaited(_));
        (!quiet).then(|| self.life + self.limits.heartbeat)
    }

    /// When to ask for the next step at the latest, if nothing happens before.
    pub(in super::super) fn wake_at(&self) -> Option<Instant> {
        match self.link {
            Link::Pause(until) => Some(until),
            Link::Up => self.overdue().or(match self.test {
                Test::Awaited(until) => Some(until),
                _ => self.beat_at(),
            }),
            Link::Idle | Link::Dialling | Link::Closing => None,
        }
    }
}

/// One statement per channel, each with its name quoted.
fn statements<'a>(verb: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut sql = String::new();
    for (at, name) in names.into_iter().enumerate() {
        let separator = if at == 0 { "" } else { "; " };
        let _ = write!(sql, "{separator}{verb} \"{}\"", name.replace('"', "\"\""));
    }
    sql
}

#[cfg(test)]
mod tests {
    #[test]
    fn channel_names_are_quoted() {
        let sql = super::statements("LISTEN", ["a", "B c", "d\"; DROP TABLE t; --"]);
        assert_eq!(sql, "LISTEN \"a\"; LISTEN \"B c\"; LISTEN \"d\"\"; DROP TABLE t; --\"");
    }
}
