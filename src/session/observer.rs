//! What one connection's bytes say, in both directions. A plain machine: bytes in, in pieces of any size, facts out.
//!
//! It sits in the tap, between the stream and tokio-postgres, which throws most of these facts away: the status byte of
//! every ReadyForQuery, command tags, ParameterStatus, notices, the backend's key. It never changes a byte and its memory
//! is bounded whatever the peer sends.

use std::collections::VecDeque;

/// Longest message prefix that is kept for a look inside; tags, SQLSTATEs and settings are far shorter.
const KEEP: usize = 1024;
/// More requests without an answer than any caller of this library makes; beyond it the counts are given up.
const MAX_OUTSTANDING: usize = 1 << 20;

/// The transaction status of a session, from the last ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Status {
    /// No ReadyForQuery was seen yet, or one with an unknown status.
    #[default]
    Unknown,
    /// `I`: outside a transaction.
    Idle,
    /// `T`: inside a transaction.
    InTransaction,
    /// `E`: inside a failed transaction.
    Failed,
}

/// The class of a command tag, as far as clean-up depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Tag {
    /// No CommandComplete was seen yet.
    #[default]
    None,
    /// SELECT, INSERT, UPDATE or DELETE.
    Plain,
    /// `DEALLOCATE ALL` or `DISCARD ALL`: the server's statements are gone.
    PlansLost,
    /// Any other tag.
    Other,
}

/// One request that will be answered by exactly one ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// A simple query that only leads up to what follows it: the session's mode, or BEGIN.
    Opening,
    /// Start-up, simple query or function call.
    Whole,
    /// Sync, the end of an extended-protocol exchange.
    Sync,
}

/// Everything a session's owner may ask about its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// Requests written whose ReadyForQuery has not come.
    pub(crate) outstanding: usize,
    /// The oldest of them only leads up to another: stopped, it would let that one run as nobody wants it.
    pub(crate) opening: bool,
    /// ReadyForQuery messages seen.
    pub(crate) ready: u64,
    /// Status of the last one.
    pub(crate) status: Status,
    /// COPY data is expected by the server.
    pub(crate) in_copy: bool,
    /// The protocol went where this library cannot follow; the session must end.
    pub(crate) confused: bool,
    /// Class of the last command tag.
    pub(crate) tag: Tag,
    /// A tag said that the server's prepared statements are gone.
    pub(crate) plans_lost: bool,
    /// `default_transaction_read_only`, as the server reports it (14 and later).
    pub(crate) read_only: Option<bool>,
    /// `in_hot_standby`, as the server reports it (14 and later).
    pub(crate) in_hot_standby: Option<bool>,
    /// The server's version as a number such as 150018, if it could be read.
    pub(crate) server_version: Option<u32>,
    /// The backend's process id and cancel key.
    pub(crate) backend: Option<(i32, i32)>,
    /// SQLSTATE of the last error or FATAL notice, with whether it ended the session.
    pub(crate) last_sqlstate: Option<[u8; 5]>,
    /// Bytes written by our side.
    pub(crate) written: u64,
    /// Cancelled statements seen (SQLSTATE 57014).
    pub(crate) cancelled: u64,
    /// ParseComplete messages seen, and Parse messages written that name no statement.
    pub(crate) parsed: (u64, u64),
    /// CloseComplete messages seen, for statements and portals.
    pub(crate) closed: u64,
    /// Number of the last ReadyForQuery whose answer had an error in it, counted as `ready` is.
    pub(crate) failed_at: u64,
    /// Requests written in full.
    pub(crate) sent: u64,
    /// What was seen of transactions.
    pub(crate) transactions: Transactions,
}

/// Tags and warnings about transactions, counted over the session's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Transactions {
    /// BEGIN and START TRANSACTION.
    pub(crate) begins: u64,
    /// COMMIT, and PREPARE TRANSACTION, which takes the work out of the session.
    pub(crate) commits: u64,
    /// ROLLBACK, and ROLLBACK TO SAVEPOINT, which has the same tag.
    pub(crate) rollbacks: u64,
    /// Warnings that there was no transaction to end (SQLSTATE 25P01).
    pub(crate) missing: u64,
}

impl Facts {
    /// The least number of statements prepared over the protocol that the server must still have.
    ///
    /// Exact as long as nobody closes portals, which tokio-postgres does only for a `Transaction`.
    pub(crate) fn statements(&self) -> usize {
        let named = self.parsed.0.saturating_sub(self.parsed.1);
        usize::try_from(named.saturating_sub(self.closed)).unwrap_or(usize::MAX)
    }
}

/// Follows both directions of one connection.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    facts: Facts,
    requests: VecDeque<Request>,
    started: bool,
    inbound: Frame,
    outbound: Frame,
}

/// A message being followed across pieces.
#[derive(Debug, Default)]
struct Frame {
    header: [u8; 5],
    have: usize,
    /// Payload bytes still to come.
    rest: usize,
    kept: Vec<u8>,
}

impl Observer {
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Bytes that came from the server.
    pub(crate) fn inbound(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.facts.confused {
            if self.inbound.have == 0
                && let Some((tag, payload)) = whole_message(&mut bytes)
            {
                let keep = if keeps_inbound(tag) { KEEP } else { 0 };
                self.backend_message(tag, &payload[..payload.len().min(keep)]);
                continue;
            }
            let mut frame = std::mem::take(&mut self.inbound);
            let complete = frame.take_header(&mut bytes, 5, &mut self.facts.confused)
                && frame.take_payload(&mut bytes, keeps_inbound(frame.header[0]));
            if complete {
                self.backend_message(frame.header[0], &frame.kept);
                frame.reset();
            }
            self.inbound = frame;
        }
    }

    /// Bytes that were written towards the server.
    pub(crate) fn outbound(&mut self, mut bytes: &[u8]) {
        self.facts.written += bytes.len() as u64;
        while !bytes.is_empty() && !self.facts.confused {
            if self.started
                && self.outbound.have == 0
                && let Some((tag, payload)) = whole_message(&mut bytes)
            {
                let keep = if keeps_outbound(tag) { KEEP } else { 0 };
                self.frontend_message(tag, &payload[..payload.len().min(keep)]);
                continue;
            }
            // The start-up packet has a length and no type byte.
            let header = if self.started { 5 } else { 4 };
            let mut frame = std::mem::take(&mut self.outbound);
            let complete = frame.take_header(&mut bytes, header, &mut self.facts.confused)
                && frame.take_payload(&mut bytes, self.started && keeps_outbound(frame.header[0]));
            if complete {
                let tag = if self.started { frame.header[0] } else { 0 };
                self.frontend_message(tag, &frame.kept);
                frame.reset();
            }
            self.outbound = frame;
        }
    }

    fn frontend_message(&mut self, tag: u8, payload: &[u8]) {
        match tag {
            0 => {
                self.started = true;
                self.push(Request::Whole);
            }
            b'Q' if is_opening(until_nul(payload)) => self.push(Request::Opening),
            b'Q' | b'F' => self.push(Request::Whole),
            b'S' => self.push(Request::Sync),
            b'P' if payload.first() == Some(&0) => self.facts.parsed.1 += 1,
            b'c' | b'f' => self.facts.in_copy = false,
            _ => {}
        }
    }

    fn push(&mut self, request: Request) {
        self.facts.sent += 1;
        if self.requests.len() == MAX_OUTSTANDING {
            self.facts.confused = true;
            return;
        }
        self.requests.push_back(request);
        self.count();
    }

    fn count(&mut self) {
        self.facts.outstanding = self.requests.len();
        self.facts.opening = self.requests.front() == Some(&Request::Opening);
    }

    fn backend_message(&mut self, tag: u8, payload: &[u8]) {
        match tag {
            b'Z' => self.ready_for_query(payload),
            b'1' => self.facts.parsed.0 += 1,
            b'3' => self.facts.closed += 1,
            b'C' => self.command_complete(payload),
            b'S' => self.parameter_status(payload),
            b'E' => {
                self.facts.failed_at = self.facts.ready + 1;
                self.report(payload);
            }
            b'N' => self.report(payload),
            b'G' => self.copy_in(),
            b'K' => {
                let number = |at: usize| {
                    payload
                        .get(at..at + 4)
                        .and_then(|b| b.try_into().ok())
                        .map(i32::from_be_bytes)
                };
                self.facts.backend = number(0).zip(number(4));
            }
            _ => {}
        }
    }

    fn ready_for_query(&mut self, payload: &[u8]) {
        self.facts.ready += 1;
        self.facts.status = match payload {
            [b'I'] => Status::Idle,
            [b'T'] => Status::InTransaction,
            [b'E'] => Status::Failed,
            _ => Status::Unknown,
        };
        self.facts.in_copy = false;
        if self.requests.pop_front().is_none() {
            self.facts.confused = true;
        }
        self.count();
    }

    /// In copy-in mode the server ignores the Sync that followed Execute; only the one behind CopyDone counts.
    fn copy_in(&mut self) {
        match self.requests.front() {
            Some(Request::Sync) => {
                self.requests.pop_front();
                // A Sync behind it can only be that of a copy which has been ended already.
                self.facts.in_copy = self.requests.is_empty();
            }
            // COPY FROM STDIN by the simple protocol: tokio-postgres has no way to go on or to end it.
            Some(Request::Opening | Request::Whole) | None => self.facts.confused = true,
        }
        self.count();
    }

    fn command_complete(&mut self, payload: &[u8]) {
        let tag = until_nul(payload);
        let verb = tag.split(|byte| *byte == b' ').next().unwrap_or(tag);
        self.facts.tag = match verb {
            b"SELECT" | b"INSERT" | b"UPDATE" | b"DELETE" => Tag::Plain,
            _ if tag == b"DEALLOCATE ALL" || tag == b"DISCARD ALL" => Tag::PlansLost,
            _ => Tag::Other,
        };
        self.facts.plans_lost |= self.facts.tag == Tag::PlansLost;
        let seen = &mut self.facts.transactions;
        match tag {
            b"BEGIN" | b"START TRANSACTION" => seen.begins += 1,
            b"COMMIT" | b"PREPARE TRANSACTION" => seen.commits += 1,
            b"ROLLBACK" => seen.rollbacks += 1,
            _ => {}
        }
    }

    fn parameter_status(&mut self, payload: &[u8]) {
        let name = until_nul(payload);
        let value = until_nul(payload.get(name.len() + 1..).unwrap_or_default());
        match name {
            b"default_transaction_read_only" => self.facts.read_only = Some(value == b"on"),
            b"in_hot_standby" => self.facts.in_hot_standby = Some(value == b"on"),
            b"server_version" => self.facts.server_version = version_number(value),
            _ => {}
        }
    }

    fn report(&mut self, payload: &[u8]) {
        for field in payload.split(|byte| *byte == 0) {
            if let [b'C', state @ ..] = field
                && let Ok(state) = <[u8; 5]>::try_from(state)
            {
                self.facts.last_sqlstate = Some(state);
                self.facts.cancelled += u64::from(state == *b"57014");
                self.facts.transactions.missing += u64::from(state == *b"25P01");
            }
        }
    }
}

impl Frame {
    /// Fills the header; true once it is complete. `size` is 5 with a type byte, 4 without.
    fn take_header(&mut self, bytes: &mut &[u8], size: usize, confused: &mut bool) -> bool {
        if self.have == size {
            return true;
        }
        let take = bytes.len().min(size - self.have);
        self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
        self.have += take;
        *bytes = &bytes[take..];
        if self.have < size {
            return false;
        }
        let length: [u8; 4] = [
            self.header[size - 4],
            self.header[size - 3],
            self.header[size - 2],
            self.header[size - 1],
        ];
        // The length counts itself; less than four bytes cannot be.
        match usize::try_from(i32::from_be_bytes(length))
            .ok()
            .and_then(|length| length.checked_sub(4))
        {
            Some(rest) => self.rest = rest,
            None => *confused = true,
        }
        !*confused
    }

    /// Takes the payload, keeping a prefix if asked; true once it is complete.
    fn take_payload(&mut self, bytes: &mut &[u8], keep: bool) -> bool {
        let take = bytes.len().min(self.rest);
        if keep {
            let room = KEEP - self.kept.len();
            self.kept.extend_from_slice(&bytes[..take.min(room)]);
        }
        self.rest -= take;
        *bytes = &bytes[take..];
        self.rest == 0
    }

    fn reset(&mut self) {
        self.have = 0;
        self.rest = 0;
        self.kept.clear();
    }
}

/// Takes a message that is there as a whole, which most are: nothing of it needs to be kept.
fn whole_message<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (header, rest) = bytes.split_first_chunk::<5>()?;
    let [tag, length @ ..] = *header;
    let length = usize::try_from(i32::from_be_bytes(length)).ok()?.checked_sub(4)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((tag, payload))
}

fn keeps_outbound(tag: u8) -> bool {
    matches!(tag, b'P' | b'Q')
}

/// Texts that this library sends ahead of a request, in the same flight of bytes, and that take no time of their own.
fn is_opening(text: &[u8]) -> bool {
    let mode = text.strip_prefix(b"SET ").or(text.strip_prefix(b"RESET "));
    let is_mode = mode.is_some_and(|rest| rest.starts_with(b"default_transaction_read_only"));
    (is_mode || text.starts_with(b"BEGIN")) && !text.contains(&b';')
}

fn keeps_inbound(tag: u8) -> bool {
    matches!(tag, b'Z' | b'C' | b'S' | b'E' | b'N' | b'K')
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// `15.18 (Debian …)` as 150018, `9.6.24` as 90624: the number `SHOW server_version_num` gives.
fn version_number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let mut parts = digits.split('.').filter_map(|part| part.parse::<u32>().ok());
    let major = parts.next()?;
    let minor = parts.next().unwrap_or(0);
    if major >= 10 {
        major.checked_mul(10_000)?.checked_add(minor)
    } else {
        let minor = minor.checked_mul(100)?.checked_add(parts.next().unwrap_or(0))?;
        minor.checked_add(major * 10_000)
    }
}

/// Takes the first byte as the size of the pieces, a bit of each next byte as the direction of what follows.
#[cfg(fuzzing)]
pub fn fuzz_tap(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let (mut whole, mut pieces) = (Observer::default(), Observer::default());
    for run in bytes.chunks(64) {
        let outbound = run[0] & 1 == 1;
        if outbound {
            whole.outbound(&run[1..])
        } else {
            whole.inbound(&run[1..])
        }
        for piece in run[1..].chunks(usize::from(*size % 9) + 1) {
            if outbound {
                pieces.outbound(piece)
            } else {
                pieces.inbound(piece)
            }
        }
    }
    assert_eq!(whole.facts(), pieces.facts());
    assert!(whole.inbound.kept.capacity() <= 2 * KEEP);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{Observer, Status, Tag, version_number};

    fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::try_from(payload.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn started() -> Observer {
        let mut observer = Observer::default();
        observer.outbound(&[0, 0, 0, 8, 0, 3, 0, 0]);
        observer.inbound(&message(b'Z', b"I"));
        observer
    }

    #[test]
    fn a_session_is_settled_when_every_request_was_answered() {
        let mut observer = started();
        assert!(observer.facts().outstanding == 0 && observer.facts().status == Status::Idle);
        observer.outbound(&message(b'Q', b"BEGIN\0"));
        assert_eq!(observer.facts().outstanding, 1);
        observer.inbound(&message(b'C', b"BEGIN\0"));
        assert_eq!((observer.facts().outstanding, observer.facts().tag), (1, Tag::Other));
        observer.inbound(&message(b'Z', b"T"));
        assert_eq!(
            (observer.facts().outstanding, observer.facts().status),
            (0, Status::InTransaction)
        );
    }

    #[test]
    fn what_only_leads_up_to_a_request_is_known() {
        for (text, opening) in [
            (&b"BEGIN\0"[..], true),
            (b"SET default_transaction_read_only = on\0", true),
            (b"RESET default_transaction_read_only\0", true),
            (b"BEGIN; SELECT pg_sleep(9)\0", false),
            (b"SELECT 1\0", false),
        ] {
            let mut observer = started();
            observer.outbound(&[message(b'Q', text), message(b'S', b"")].concat());
            assert_eq!(observer.facts().opening, opening, "{text:?}");
            observer.inbound(&message(b'Z', b"I"));
            assert!(!observer.facts().opening);
        }
    }

    #[test]
    fn the_sync_that_copy_in_swallows_is_not_waited_for() {
        let mut observer = started();
        observer.outbound(&[message(b'B', b"\0\0"), message(b'E', b"\0"), message(b'S', b"")].concat());
        observer.inbound(&message(b'G', b"\0\0\0"));
        assert_eq!((observer.facts().outstanding, observer.facts().in_copy), (0, true));
        observer.outbound(&[message(b'c', b""), message(b'S', b"")].concat());
        assert_eq!((observer.facts().outstanding, observer.facts().in_copy), (1, false));
        observer.inbound(&[message(b'C', b"COPY 1\0"), message(b'Z', b"I")].concat());
        assert_eq!((observer.facts().outstanding, observer.facts().confused), (0, false));
    }

    #[test]
    fn a_copy_ended_before_it_began_is_counted_right_both_ways() {
        let dropped = [message(b'S', b""), message(b'f', b"\0"), message(b'S', b"")].concat();
        let mut accepted = started();
        accepted.outbound(&dropped);
        accepted.inbound(&message(b'G', b"\0\0\0"));
        assert_eq!((accepted.facts().outstanding, accepted.facts().in_copy), (1, false));
        let mut refused = started();
        refused.outbound(&dropped);
        refused.inbound(&[message(b'E', b"SERROR\0C42501\0\0"), message(b'Z', b"I")].concat());
        assert_eq!(refused.facts().outstanding, 1, "the second Sync is answered, too");
    }

    #[test]
    fn statements_on_the_server_are_counted() {
        let mut observer = started();
        observer.outbound(&[message(b'P', b"s0\0SELECT 1\0\0\0"), message(b'P', b"\0SELECT 1\0\0\0")].concat());
        observer.inbound(&[message(b'1', b""), message(b'1', b"")].concat());
        observer.outbound(&message(b'P', b"s1\0nonsense\0\0\0"));
        observer.inbound(&message(b'E', b"SERROR\0C42601\0\0"));
        assert_eq!(observer.facts().statements(), 1);
        observer.inbound(&message(b'3', b""));
        assert_eq!(observer.facts().statements(), 0);
    }

    #[test]
    fn copy_by_the_simple_protocol_ends_the_session() {
        let mut observer = started();
        observer.outbound(&message(b'Q', b"COPY t FROM STDIN\0"));
        observer.inbound(&message(b'G', b"\0\0\0"));
        assert!(observer.facts().confused);
    }

    #[test]
    fn the_ends_of_transactions_are_counted_by_their_tags() {
        let mut observer = started();
        observer.outbound(&message(b'Q', b"BEGIN; ROLLBACK TO a; COMMIT; COMMIT\0"));
        let warning = message(b'N', b"SWARNING\0C25P01\0\0");
        let tags = [&b"BEGIN\0"[..], b"ROLLBACK\0", b"COMMIT\0", b"COMMIT\0"].map(|tag| message(b'C', tag));
        observer.inbound(&[tags.concat(), warning, message(b'Z', b"I")].concat());
        let seen = observer.facts().transactions;
        assert_eq!((seen.begins, seen.commits, seen.rollbacks, seen.missing), (1, 2, 1, 1));
        let half = message(b'Q', b"COMMIT\0");
        let sent = observer.facts().sent;
        observer.outbound(&half[..half.len() - 1]);
        assert_eq!(observer.facts().sent, sent, "half a request is not sent");
        observer.outbound(&half[half.len() - 1..]);
        assert_eq!(observer.facts().sent, sent + 1);
    }

    #[test]
    fn versions_read_as_numbers() {
        assert_eq!(version_number(b"15.18 (Debian 15.18-0+deb12u1)"), Some(150_018));
        assert_eq!(version_number(b"18beta1"), Some(180_000));
        assert_eq!(version_number(b"9.6.24"), Some(90_624));
        assert_eq!(version_number(b"devel"), None);
        // No version, but what a server may say.
        for text in ["9.42949672.4294967295", "9.42949672.95", "4294967295.1", "429496.7296"] {
            assert_eq!(version_number(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        /// The pieces in which bytes arrive change nothing, whatever the bytes.
        #[test]
        fn pieces_do_not_matter(
            inbound in vec(any::<u8>(), 0..400),
            outbound in vec(any::<u8>(), 0..400),
            cuts in vec(1usize..9, 1..40),
        ) {
            let mut whole = Observer::default();
            whole.outbound(&outbound);
            whole.inbound(&inbound);
            let mut pieces = Observer::default();
            for (bytes, out) in [(&outbound, true), (&inbound, false)] {
                let (mut rest, mut cut) = (&bytes[..], cuts.iter().cycle());
                while !rest.is_empty() {
                    let size = rest.len().min(*cut.next().unwrap());
                    if out { pieces.outbound(&rest[..size]) } else { pieces.inbound(&rest[..size]) }
                    rest = &rest[size..];
                }
            }
            prop_assert_eq!(whole.facts(), pieces.facts());
        }

        /// Whatever valid messages come, what is kept of them is bounded.
        #[test]
        fn memory_is_bounded(sizes in vec(0usize..5_000, 1..20)) {
            let mut observer = started();
            for size in sizes {
                observer.inbound(&message(b'E', &vec![b'x'; size]));
                prop_assert!(observer.inbound.kept.capacity() <= 2 * super::KEEP);
            }
        }
    }
}
