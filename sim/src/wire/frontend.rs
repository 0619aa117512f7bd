//! Messages from clients: an incremental, strict decoder.
//!
//! The first thing that happens to a client's bytes. It rejects what PostgreSQL rejects and never guesses.

use std::collections::BTreeMap;
use std::fmt;

/// The longest message a client may send before it is called illegal; PostgreSQL's own limit.
const LONGEST: usize = 0x3fff_ffff;

/// The longest start-up packet; PostgreSQL's own limit.
const LONGEST_START_UP: usize = 10_000;

/// The types of message a session knows.
const KINDS: &[u8] = b"BCDEFHPQSXcdfp";

/// One message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// Binds parameters to a statement, making a portal.
    Bind {
        /// The portal's name, empty for the unnamed one.
        portal: String,
        /// The statement's name, empty for the unnamed one.
        statement: String,
        /// The format of each parameter: none (all text), one for all, or one each.
        parameter_formats: Vec<i16>,
        /// The parameters; `None` is NULL.
        parameters: Vec<Option<Vec<u8>>>,
        /// The format of each result column: none (all text), one for all, or one each.
        result_formats: Vec<i16>,
    },
    /// The first packet of a side connection that asks to cancel a session's statement.
    CancelRequest {
        /// The process identifier of the session meant.
        pid: i32,
        /// Its secret.
        key: i32,
    },
    /// Closes a statement or portal.
    Close(Target, String),
    /// Rows for COPY FROM STDIN.
    CopyData(Vec<u8>),
    /// The end of the rows.
    CopyDone,
    /// The client gives its COPY up, with its reason.
    CopyFail(String),
    /// Asks for the shape of a statement or portal.
    Describe(Target, String),
    /// Runs a portal.
    Execute {
        /// The portal's name.
        portal: String,
        /// The most rows wanted, zero for all.
        max_rows: i32,
    },
    /// Asks for output without a Sync.
    Flush,
    /// The fast-path function call, which the simulator refuses.
    FunctionCall,
    /// Asks for GSSAPI encryption.
    GssEncRequest,
    /// Prepares a statement.
    Parse {
        /// The statement's name, empty for the unnamed one.
        name: String,
        /// Its text.
        sql: String,
        /// The parameter types given by the client; zero leaves one to the server.
        types: Vec<u32>,
    },
    /// A password, or another answer to an authentication request.
    Password(Vec<u8>),
    /// A simple query.
    Query(String),
    /// Asks for TLS.
    SslRequest,
    /// The first packet of a session.
    StartUp {
        /// The protocol's version, as sent.
        version: u32,
        /// `user`, `database` and settings.
        parameters: BTreeMap<String, String>,
    },
    /// The end of a pipeline segment.
    Sync,
    /// The client says goodbye.
    Terminate,
}

/// What a Describe or Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A portal.
    Portal,
    /// A prepared statement.
    Statement,
}

/// Bytes that are no legal message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    what: String,
    sqlstate: &'static str,
    illegal: Illegal,
}

/// What is wrong with bytes that are no legal message; PostgreSQL treats the three differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illegal {
    /// The contents of a message of this type: it has been skipped, the connection may go on.
    Body(u8),
    /// The length: PostgreSQL closes the connection without a word.
    Length,
    /// The type, or a start-up packet's contents: PostgreSQL ends the session with FATAL 08P01.
    Type,
}

impl WireError {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            sqlstate: "08P01",
            illegal: Illegal::Type,
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn illegal(&self) -> Illegal {
        self.illegal
    }

    /// The SQLSTATE PostgreSQL reports it with.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        self.sqlstate
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for WireError {}

/// Cuts a client's bytes into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    started: bool,
}

impl Decoder {
    /// A decoder at the start of a connection: the first packets have no type byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// The bytes are no legal message; only after [`Illegal::Body`] the connection can go on, behind that message.
    pub fn next_message(&mut self) -> Result<Option<Frontend>, WireError> {
        let rest = &self.buffer[self.start..];
        let head = usize::from(self.started);
        // A type nobody knows is refused before anything else of it has come.
        if let Some(kind) = rest.first().filter(|kind| self.started && !KINDS.contains(kind)) {
            return Err(WireError::new(format!("invalid frontend message type {kind}")));
        }
        let Some(length) = rest.get(head..head + 4) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
        let longest = if self.started { LONGEST } else { LONGEST_START_UP };
        if length < 4 || length > longest || (!self.started && length < 8) {
            let illegal = Illegal::Length;
            return Err(WireError {
                illegal,
                ..WireError::new("invalid message length")
            });
        }
        if rest.len() < head + length {
            return Ok(None);
        }
        let start = self.start;
        self.start += head + length;
        let rest = &self.buffer[start..self.start];
        let body = &rest[head + 4..];
        let message = if self.started {
            message(rest[0], body).map_err(|error| WireError {
                illegal: Illegal::Body(rest[0]),
                ..error
            })?
        } else {
            packet(body)?
        };
        if matches!(message, Frontend::StartUp { .. }) {
            self.started = true;
        }
        Ok(Some(message))
    }
}

fn packet(body: &[u8]) -> Result<Frontend, WireError> {
    let mut body = Body(body);
    let code = body.u32()?;
    let packet = match code {
        80_877_102 => Frontend::CancelRequest {
            pid: body.i32()?,
            key: body.i32()?,
        },
        80_877_103 => Frontend::SslRequest,
        80_877_104 => Frontend::GssEncRequest,
        version => {
            let mut parameters = BTreeMap::new();
            loop {
                let name = body.string()?;
                if name.is_empty() {
                    break;
                }
                parameters.insert(name, body.string()?);
            }
            Frontend::StartUp { version, parameters }
        }
    };
    body.end()?;
    Ok(packet)
}

fn message(kind: u8, body: &[u8]) -> Result<Frontend, WireError> {
    let mut body = Body(body);
    let message = match kind {
        b'B' => bind(&mut body)?,
        b'C' => Frontend::Close(body.target()?, body.string()?),
        b'D' => Frontend::Describe(body.target()?, body.string()?),
        b'E' => Frontend::Execute {
            portal: body.string()?,
            max_rows: body.i32()?,
        },
        b'F' => {
            body.rest();
            Frontend::FunctionCall
        }
        b'H' => Frontend::Flush,
        b'P' => {
            let (name, sql) = (body.string()?, body.string()?);
            let count = body.count()?;
            let types = (0..count).map(|_| body.u32()).collect::<Result<_, _>>()?;
            Frontend::Parse { name, sql, types }
        }
        b'Q' => Frontend::Query(body.string()?),
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'c' => Frontend::CopyDone,
        b'd' => Frontend::CopyData(body.rest().to_vec()),
        b'f' => Frontend::CopyFail(body.string()?),
        b'p' => Frontend::Password(body.rest().to_vec()),
        other => return Err(WireError::new(format!("invalid frontend message type {other}"))),
    };
    body.end()?;
    Ok(message)
}

fn bind(body: &mut Body<'_>) -> Result<Frontend, WireError> {
    let (portal, statement) = (body.string()?, body.string()?);
    let parameter_formats = body.formats()?;
    let count = body.count()?;
    let parameters = (0..count).map(|_| body.parameter()).collect::<Result<Vec<_>, _>>()?;
    if parameter_formats.len() > 1 && parameter_formats.len() != parameters.len() {
        let (formats, parameters) = (parameter_formats.len(), parameters.len());
        return Err(WireError::new(format!(
            "bind message has {formats} parameter formats but {parameters} parameters"
        )));
    }
    let result_formats = body.formats()?;
    Ok(Frontend::Bind {
        portal,
        statement,
        parameter_formats,
        parameters,
        result_formats,
    })
}

/// The unread part of a message's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| WireError::new("insufficient data left in message"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().unwrap_or_default()))
    }

    fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().unwrap_or_default()))
    }

    fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into().unwrap_or_default()))
    }

    fn count(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().unwrap_or_default()))
    }

    fn formats(&mut self) -> Result<Vec<i16>, WireError> {
        let count = self.count()?;
        let formats: Vec<i16> = (0..count).map(|_| self.i16()).collect::<Result<_, _>>()?;
        match formats.iter().find(|format| !matches!(format, 0 | 1)) {
            Some(format) => Err(WireError::new(format!("unsupported format code: {format}"))),
            None => Ok(formats),
        }
    }

    fn parameter(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| WireError::new("invalid parameter length"))?;
                Ok(Some(self.take(length)?.to_vec()))
            }
        }
    }

    fn string(&mut self) -> Result<String, WireError> {
        let end = self
            .0
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| WireError::new("invalid string in message"))?;
        let text = self.take(end)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| WireError {
            sqlstate: "22021",
            ..WireError::new("invalid byte sequence for encoding \"UTF8\"")
        })
    }

    fn target(&mut self) -> Result<Target, WireError> {
        match self.take(1)?[0] {
            b'P' => Ok(Target::Portal),
            b'S' => Ok(Target::Statement),
            other => Err(WireError::new(format!("invalid message subtype {other}"))),
        }
    }

    fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireError::new("invalid message format"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Decoder {
        Decoder {
            started: true,
            ..Decoder::default()
        }
    }

    #[test]
    fn a_message_comes_out_whole_whatever_the_chunks() {
        let bytes = [&[b'Q', 0, 0, 0, 6, b'x', 0][..], &[b'S', 0, 0, 0, 4]].concat();
        for split in 0..bytes.len() {
            let mut decoder = started();
            let mut seen = Vec::new();
            for chunk in [&bytes[..split], &bytes[split..]] {
                decoder.push(chunk);
                while let Some(message) = decoder.next_message().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(
                seen,
                [Frontend::Query("x".to_owned()), Frontend::Sync],
                "split at {split}"
            );
        }
    }

    #[test]
    fn illegal_messages_are_refused() {
        let illegal: [&[u8]; 6] = [
            &[b'S', 0, 0, 0, 3],
            &[b'S', 0, 0, 0, 5, 0],
            &[b'Q', 0, 0, 0, 5, b'x'],
            &[b'Z', 0, 0, 0, 4],
            &[b'D', 0, 0, 0, 6, b'X', 0],
            &[b'Q', 0, 0, 0, 7, 0xff, 0xfe, 0],
        ];
        for bytes in illegal {
            let mut decoder = started();
            decoder.push(bytes);
            assert!(decoder.next_message().is_err(), "{bytes:?}");
        }
    }
}
