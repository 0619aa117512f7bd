//! Statements without names, for sessions behind a transaction pooler. A plain machine: the bytes of both directions in, in
//! pieces of any size, the bytes to pass on out.
//!
//! Between tokio-postgres, which prepares under names (`s0`, `s1`, …) and goes on using them, and the tap. Behind a pooler the
//! next request may reach another server connection, where that name is unknown, or another process's. So no name leaves:
//! Parse, Describe and Close go out for the unnamed statement, and in front of each Bind its text is parsed once more, with
//! the types of parameters that the server once named, and described once more. The answers to what was put in are taken
//! out again. It never changes what a caller asks for, and never a row.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::Type;

/// See the file's header.
#[derive(Default)]
pub(super) struct Unnamed {
    /// By the name that tokio-postgres gave it.
    known: BTreeMap<Box<[u8]>, Known>,
    /// Whose text the server's unnamed statement has, since the last end of a request.
    current: Option<Box<[u8]>>,
    /// Answers that are to come, in order.
    expected: VecDeque<Expected>,
    started: bool,
    outbound: Frame,
    inbound: Frame,
}

/// A statement that was prepared under a name.
struct Known {
    text: Box<[u8]>,
    /// What the server said of it first.
    parameters: Option<Vec<u32>>,
    columns: Option<Vec<u8>>,
}

/// An answer that is to come.
#[derive(Debug)]
enum Expected {
    /// ReadyForQuery, behind everything else of its request. What only passes has no place here.
    End,
    /// ParseComplete. `ours`: of what was put in.
    Parsed { name: Option<Box<[u8]>>, ours: bool },
    /// RowDescription or NoData of a portal.
    Portal,
    /// ParameterDescription, then RowDescription or NoData.
    Statement { name: Option<Box<[u8]>>, ours: bool },
}

/// What makes a session one that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strange {
    /// A kept statement gives other columns than it did, which would be read as the old ones.
    Columns,
    /// A column has become one of a type that tokio-postgres would have to ask for in the midst of rows, which it waits for
    /// in vain.
    Type(u32),
}

/// A message being followed across pieces.
#[derive(Default)]
struct Frame {
    /// Of a message that is looked at: header and all that is there of it. Of others: the header until it is complete.
    held: BytesMut,
    /// Bytes still to come of a message that only passes.
    passing: usize,
}

/// A message's header: type byte and length.
const HEADER: usize = 5;

impl Unnamed {
    /// Bytes on their way to the server.
    pub(super) fn outbound(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        let mut frame = std::mem::take(&mut self.outbound);
        while frame.pass(&mut bytes, out) {
            if !self.started {
                // The start-up packet has a length and no type byte.
                if frame.fill(&mut bytes, 4) {
                    let length = number(&frame.held).unwrap_or(4);
                    frame.let_pass((length as usize).saturating_sub(4), out);
                    self.started = true;
                    self.expected.push_back(Expected::End);
                }
                continue;
            }
            if !frame.fill(&mut bytes, HEADER) {
                continue;
            }
            let (tag, rest) = (frame.held[0], frame.rest());
            match tag {
                b'P' | b'D' | b'C' => {
                    if frame.fill(&mut bytes, HEADER + rest) {
                        self.frontend(tag, &frame.held[HEADER..], out);
                        frame.held.clear();
                    }
                }
                // Values may be large: only the names in front of them are waited for.
                b'B' => {
                    if let Some(names) = frame.fill_names(&mut bytes, rest) {
                        let left = rest - names;
                        self.bind(&frame.held[HEADER..HEADER + names], left, out);
                        frame.held.clear();
                        frame.passing = left;
                    }
                }
                _ => {
                    if matches!(tag, b'Q' | b'F' | b'S') {
                        self.current = None;
                        self.expected.push_back(Expected::End);
                    }
                    frame.let_pass(rest, out);
                }
            }
        }
        self.outbound = frame;
    }

    /// Bytes from the server. `is_known` says of a type that tokio-postgres need not ask for it.
    pub(super) fn inbound(
        &mut self,
        mut bytes: &[u8],
        is_known: impl Fn(u32) -> bool,
        out: &mut BytesMut,
    ) -> Result<(), Strange> {
        let mut frame = std::mem::take(&mut self.inbound);
        while frame.pass(&mut bytes, out) {
            if !frame.fill(&mut bytes, HEADER) {
                continue;
            }
            let (tag, rest) = (frame.held[0], frame.rest());
            if !matches!(tag, b'1' | b't' | b'T' | b'n' | b'Z' | b'G') {
                frame.let_pass(rest, out);
            } else if frame.fill(&mut bytes, HEADER + rest) {
                if self.backend(tag, &frame.held[HEADER..], &is_known)? {
                    out.put_slice(&frame.held);
                }
                frame.held.clear();
            }
        }
        self.inbound = frame;
        Ok(())
    }

    /// A Parse, Describe or Close that is there as a whole.
    fn frontend(&mut self, tag: u8, payload: &[u8], out: &mut BytesMut) {
        match tag {
            b'P' => {
                let (name, text) = split_name(payload);
                self.current = None;
                if !name.is_empty() {
                    let known = Known {
                        text: until_nul(text).into(),
                        parameters: None,
                        columns: None,
                    };
                    self.known.insert(name.into(), known);
                    self.current = Some(name.into());
                }
                let name = self.current.clone();
                self.expected.push_back(Expected::Parsed { name, ours: false });
                message(out, b'P', &[b"\0", text]);
            }
            b'D' if payload.first() == Some(&b'S') => {
                let (name, _) = split_name(&payload[1..]);
                if !name.is_empty() {
                    self.recall(name, out);
                }
                let name = (!name.is_empty()).then(|| name.into());
                self.expected.push_back(Expected::Statement { name, ours: false });
                message(out, b'D', &[b"S\0"]);
            }
            b'D' => {
                self.expected.push_back(Expected::Portal);
                message(out, b'D', &[payload]);
            }
            _ if payload.first() == Some(&b'S') => {
                let (name, _) = split_name(&payload[1..]);
                self.known.remove(name);
                self.current = None;
                message(out, b'C', &[b"S\0"]);
            }
            _ => message(out, b'C', &[payload]),
        }
    }

    /// The names of a Bind, portal and statement, whose values are still to come.
    fn bind(&mut self, names: &[u8], left: usize, out: &mut BytesMut) {
        let (portal, rest) = split_name(names);
        let (name, _) = split_name(rest);
        if !name.is_empty() {
            self.recall(name, out);
            if self.known.get(name).is_some_and(|known| known.columns.is_some()) {
                let name = Some(name.into());
                self.expected.push_back(Expected::Statement { name, ours: true });
                message(out, b'D', &[b"S\0"]);
            }
        }
        // Up to the values, which follow.
        header(out, b'B', portal.len() + 2 + left);
        out.put_slice(portal);
        out.put_slice(b"\0\0");
    }

    /// Makes the server's unnamed statement the one of this name.
    fn recall(&mut self, name: &[u8], out: &mut BytesMut) {
        if self.current.as_deref() == Some(name) {
            return;
        }
        let Some(known) = self.known.get(name) else { return };
        let types: &[u32] = known.parameters.as_deref().unwrap_or_default();
        let mut described = BytesMut::with_capacity(2 + 4 * types.len());
        described.put_u16(types.len() as u16);
        for oid in types {
            described.put_u32(*oid);
        }
        message(out, b'P', &[b"\0", &known.text, b"\0", &described]);
        self.expected.push_back(Expected::Parsed { name: None, ours: true });
        self.current = Some(name.into());
    }

    /// A message of the server's that is there as a whole: whether it is passed on.
    fn backend(&mut self, tag: u8, payload: &[u8], is_known: &impl Fn(u32) -> bool) -> Result<bool, Strange> {
        match (tag, self.expected.front()) {
            (b'1', Some(Expected::Parsed { ours, .. })) => {
                let ours = *ours;
                self.expected.pop_front();
                Ok(!ours)
            }
            (b't', Some(Expected::Statement { name, ours })) => {
                if let Some(known) = name.as_ref().and_then(|name| self.known.get_mut(name)) {
                    known.parameters.get_or_insert_with(|| numbers(payload));
                }
                Ok(!ours)
            }
            (b'T' | b'n', Some(Expected::Portal)) => {
                self.expected.pop_front();
                Ok(true)
            }
            (b'T' | b'n', Some(Expected::Statement { .. })) => {
                let Some(Expected::Statement { name, ours }) = self.expected.pop_front() else {
                    return Ok(true);
                };
                self.described(name.as_deref(), payload, is_known)?;
                Ok(!ours)
            }
            // The end of a request, or that of its first part: a server that takes COPY data passes over the Sync that
            // came with the statement.
            (b'Z' | b'G', _) => {
                while let Some(unanswered) = self.expected.pop_front() {
                    match unanswered {
                        Expected::End => break,
                        // Refused: tokio-postgres forgets the name, too.
                        Expected::Parsed { name, ours: false } | Expected::Statement { name, ours: false } => {
                            name.and_then(|name| self.known.remove(&name));
                        }
                        Expected::Parsed { .. } | Expected::Statement { .. } | Expected::Portal => {}
                    }
                }
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// The columns of a statement: those of a kept one stay as they were first, and others' are read as they come.
    fn described(
        &mut self,
        name: Option<&[u8]>,
        payload: &[u8],
        is_known: &impl Fn(u32) -> bool,
    ) -> Result<(), Strange> {
        let (shape, types) = columns(payload);
        let Some(name) = name else {
            let unknown = |oid: &u32| Type::from_oid(*oid).is_none() && !is_known(*oid);
            return match types.into_iter().find(unknown) {
                Some(oid) => Err(Strange::Type(oid)),
                None => Ok(()),
            };
        };
        let Some(known) = self.known.get_mut(name) else {
            return Ok(());
        };
        match &known.columns {
            Some(first) if *first != shape => Err(Strange::Columns),
            Some(_) => Ok(()),
            None => {
                known.columns = Some(shape);
                Ok(())
            }
        }
    }
}

impl Frame {
    /// Passes on what only passes; false when there is no more.
    fn pass(&mut self, bytes: &mut &[u8], out: &mut BytesMut) -> bool {
        let (passing, rest) = bytes.split_at(bytes.len().min(self.passing));
        out.put_slice(passing);
        self.passing -= passing.len();
        *bytes = rest;
        !bytes.is_empty()
    }

    /// Holds up to `size` bytes of a message; true once they are there.
    fn fill(&mut self, bytes: &mut &[u8], size: usize) -> bool {
        let (taken, rest) = bytes.split_at(bytes.len().min(size.saturating_sub(self.held.len())));
        self.held.put_slice(taken);
        *bytes = rest;
        self.held.len() >= size
    }

    /// Holds a Bind up to the end of its two names, of at most `rest` bytes; gives their length.
    fn fill_names(&mut self, bytes: &mut &[u8], rest: usize) -> Option<usize> {
        loop {
            let payload = &self.held[HEADER..];
            let mut ends = payload.iter().enumerate().filter(|(_, byte)| **byte == 0);
            if let Some((at, _)) = ends.nth(1) {
                return Some(at + 1);
            }
            if payload.len() == rest {
                return Some(rest);
            }
            let wanted = self.held.len() + 1;
            if !self.fill(bytes, wanted) {
                return None;
            }
        }
    }

    /// The length of the payload, by the header.
    fn rest(&self) -> usize {
        number(&self.held[1..]).map_or(0, |length| (length as usize).saturating_sub(4))
    }

    /// Lets a message pass of which the header is there.
    fn let_pass(&mut self, rest: usize, out: &mut BytesMut) {
        out.put_slice(&self.held);
        self.held.clear();
        self.passing = rest;
    }
}

fn header(out: &mut BytesMut, tag: u8, length: usize) {
    out.put_u8(tag);
    out.put_u32((length + 4) as u32);
}

fn message(out: &mut BytesMut, tag: u8, payload: &[&[u8]]) {
    header(out, tag, payload.iter().map(|part| part.len()).sum());
    for part in payload {
        out.put_slice(part);
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// A name, and what follows its NUL.
fn split_name(bytes: &[u8]) -> (&[u8], &[u8]) {
    let name = until_nul(bytes);
    (name, bytes.get(name.len() + 1..).unwrap_or_default())
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The numbers of a ParameterDescription.
fn numbers(payload: &[u8]) -> Vec<u32> {
    let listed = payload.get(2..).unwrap_or_default();
    listed
        .as_chunks::<4>()
        .0
        .iter()
        .map(|oid| u32::from_be_bytes(*oid))
        .collect()
}

/// Names and types of a RowDescription's columns, as one thing to compare, and the types by themselves. Nothing for NoData.
fn columns(payload: &[u8]) -> (Vec<u8>, Vec<u32>) {
    /// Behind the name: table (4) and column (2), type (4), its length (2) and modifier (4), format (2).
    const BEHIND: usize = 18;
    let (mut shape, mut types) = (Vec::new(), Vec::new());
    let mut rest = payload.get(2..).unwrap_or_default();
    while !rest.is_empty() {
        let (name, behind) = split_name(rest);
        let Some(oid) = behind.get(6..).and_then(number) else {
            break;
        };
        shape.extend_from_slice(name);
        shape.push(0);
        shape.extend_from_slice(&oid.to_be_bytes());
        types.push(oid);
        rest = behind.get(BEHIND..).unwrap_or_default();
    }
    (shape, types)
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns => f.write_str("the columns of a prepared statement have changed on the server"),
            Self::Type(oid) => write!(f, "a column has become one of a type (oid {oid}) new to this session"),
        }
    }
}

impl std::error::Error for Strange {}

impl fmt::Debug for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unnamed")
            .field("known", &self.known.len())
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
