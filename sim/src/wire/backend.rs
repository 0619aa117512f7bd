//! Messages to clients: an encoder.
//!
//! The last thing that happens before bytes enter the pipe.

use bytes::Bytes;

use super::report::{Report, string};
use crate::value::Type;

/// One message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Asks for the password in the clear.
    AuthenticationCleartextPassword,
    /// Asks for the password's salted MD5 digest.
    AuthenticationMd5Password([u8; 4]),
    /// The client is who it says it is.
    AuthenticationOk,
    /// Asks for SASL authentication; the mechanisms on offer.
    AuthenticationSasl(Vec<&'static str>),
    /// A SASL challenge.
    AuthenticationSaslContinue(Vec<u8>),
    /// The last word of a SASL exchange that went well.
    AuthenticationSaslFinal(Vec<u8>),
    /// What a CancelRequest must show.
    BackendKeyData {
        /// The session's process identifier.
        pid: i32,
        /// Its secret.
        key: i32,
    },
    /// A Bind succeeded.
    BindComplete,
    /// A Close succeeded.
    CloseComplete,
    /// A statement ended; its tag.
    CommandComplete(String),
    /// Rows of a COPY TO STDOUT.
    CopyData(Bytes),
    /// The end of a COPY TO STDOUT.
    CopyDone,
    /// The server waits for rows.
    CopyInResponse {
        /// The number of columns.
        columns: u16,
        /// Whether the rows are in binary form.
        binary: bool,
    },
    /// Rows will follow.
    CopyOutResponse {
        /// The number of columns.
        columns: u16,
        /// Whether the rows are in binary form.
        binary: bool,
    },
    /// One row; `None` is NULL.
    DataRow(Vec<Option<Vec<u8>>>),
    /// The query text was empty.
    EmptyQueryResponse,
    /// A statement or the session failed.
    ErrorResponse(Report),
    /// The server speaks an older minor version than asked for, or does not know some protocol options.
    NegotiateProtocolVersion {
        /// The newest version it speaks.
        newest: u32,
        /// The options it does not know.
        unknown: Vec<String>,
    },
    /// The statement gives no rows.
    NoData,
    /// A warning or hint.
    NoticeResponse(Report),
    /// A NOTIFY reached the session.
    NotificationResponse {
        /// The process identifier of the sender.
        pid: i32,
        /// The channel.
        channel: String,
        /// The payload, possibly empty.
        payload: String,
    },
    /// The types of a statement's parameters.
    ParameterDescription(Vec<u32>),
    /// A reported setting's value.
    ParameterStatus(String, String),
    /// A Parse succeeded.
    ParseComplete,
    /// Execute stopped at its row limit.
    PortalSuspended,
    /// The session waits for the next request; its transaction status `I`, `T` or `E`.
    ReadyForQuery(u8),
    /// The columns of the rows to come.
    RowDescription(Vec<Column>),
    /// The one byte `N`: encryption is not offered.
    SslRefused,
}

/// One column of a `RowDescription`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The table it comes from, zero for an expression.
    pub table: u32,
    /// Its number in that table, zero for an expression.
    pub attribute: i16,
    /// Its type.
    pub oid: u32,
    /// Bytes of its values, negative when that varies.
    pub size: i16,
    /// Its type's modifier, -1 for none.
    pub modifier: i32,
    /// Whether its values come in binary form.
    pub binary: bool,
}

impl Column {
    /// A column that is an expression, of no table.
    #[must_use]
    pub fn expression(name: impl Into<String>, of: Type, binary: bool) -> Self {
        Self {
            name: name.into(),
            table: 0,
            attribute: 0,
            oid: of.oid(),
            size: of.size(),
            modifier: -1,
            binary,
        }
    }
}

impl Backend {
    /// The type byte of the message.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::AuthenticationCleartextPassword
            | Self::AuthenticationMd5Password(_)
            | Self::AuthenticationOk
            | Self::AuthenticationSasl(_)
            | Self::AuthenticationSaslContinue(_)
            | Self::AuthenticationSaslFinal(_) => b'R',
            Self::BackendKeyData { .. } => b'K',
            Self::BindComplete => b'2',
            Self::CloseComplete => b'3',
            Self::CommandComplete(_) => b'C',
            Self::CopyData(_) => b'd',
            Self::CopyDone => b'c',
            Self::CopyInResponse { .. } => b'G',
            Self::CopyOutResponse { .. } => b'H',
            Self::DataRow(_) => b'D',
            Self::EmptyQueryResponse => b'I',
            Self::ErrorResponse(_) => b'E',
            Self::NegotiateProtocolVersion { .. } => b'v',
            Self::NoData => b'n',
            Self::NoticeResponse(_) | Self::SslRefused => b'N',
            Self::NotificationResponse { .. } => b'A',
            Self::ParameterDescription(_) => b't',
            Self::ParameterStatus(..) => b'S',
            Self::ParseComplete => b'1',
            Self::PortalSuspended => b's',
            Self::ReadyForQuery(_) => b'Z',
            Self::RowDescription(_) => b'T',
        }
    }

    /// Appends the message's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        if matches!(self, Self::SslRefused) {
            return;
        }
        let length = out.len();
        out.extend_from_slice(&[0; 4]);
        self.body(out);
        let size = u32::try_from(out.len() - length).expect("a message is shorter than 4 GiB");
        out[length..length + 4].copy_from_slice(&size.to_be_bytes());
    }

    fn body(&self, out: &mut Vec<u8>) {
        match self {
            Self::AuthenticationCleartextPassword => out.extend(3u32.to_be_bytes()),
            Self::AuthenticationMd5Password(salt) => {
                out.extend(5u32.to_be_bytes());
                out.extend(salt);
            }
            Self::AuthenticationOk => out.extend(0u32.to_be_bytes()),
            Self::AuthenticationSasl(mechanisms) => {
                out.extend(10u32.to_be_bytes());
                mechanisms.iter().for_each(|mechanism| string(out, mechanism));
                out.push(0);
            }
            Self::AuthenticationSaslContinue(data) => {
                out.extend(11u32.to_be_bytes());
                out.extend(data);
            }
            Self::AuthenticationSaslFinal(data) => {
                out.extend(12u32.to_be_bytes());
                out.extend(data);
            }
            Self::BackendKeyData { pid, key } => {
                out.extend(pid.to_be_bytes());
                out.extend(key.to_be_bytes());
            }
            Self::CommandComplete(tag) => string(out, tag),
            Self::CopyData(bytes) => out.extend_from_slice(bytes),
            Self::CopyInResponse { columns, binary } | Self::CopyOutResponse { columns, binary } => {
                out.push(u8::from(*binary));
                out.extend(columns.to_be_bytes());
                out.extend((0..*columns).flat_map(|_| i16::from(*binary).to_be_bytes()));
            }
            Self::DataRow(values) => data_row(out, values),
            Self::ErrorResponse(report) | Self::NoticeResponse(report) => report.encode(out),
            Self::NegotiateProtocolVersion { newest, unknown } => {
                out.extend(newest.to_be_bytes());
                out.extend(u32::try_from(unknown.len()).unwrap_or(u32::MAX).to_be_bytes());
                unknown.iter().for_each(|option| string(out, option));
            }
            Self::NotificationResponse { pid, channel, payload } => {
                out.extend(pid.to_be_bytes());
                string(out, channel);
                string(out, payload);
            }
            Self::ParameterDescription(types) => {
                count(out, types.len());
                out.extend(types.iter().flat_map(|of| of.to_be_bytes()));
            }
            Self::ParameterStatus(name, value) => {
                string(out, name);
                string(out, value);
            }
            Self::ReadyForQuery(status) => out.push(*status),
            Self::RowDescription(columns) => row_description(out, columns),
            Self::BindComplete
            | Self::CloseComplete
            | Self::CopyDone
            | Self::EmptyQueryResponse
            | Self::NoData
            | Self::ParseComplete
            | Self::PortalSuspended
            | Self::SslRefused => {}
        }
    }
}

fn data_row(out: &mut Vec<u8>, values: &[Option<Vec<u8>>]) {
    count(out, values.len());
    for value in values {
        match value {
            None => out.extend((-1i32).to_be_bytes()),
            Some(bytes) => {
                let length = i32::try_from(bytes.len()).expect("a value is shorter than 2 GiB");
                out.extend(length.to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
}

fn row_description(out: &mut Vec<u8>, columns: &[Column]) {
    count(out, columns.len());
    for column in columns {
        string(out, &column.name);
        out.extend(column.table.to_be_bytes());
        out.extend(column.attribute.to_be_bytes());
        out.extend(column.oid.to_be_bytes());
        out.extend(column.size.to_be_bytes());
        out.extend(column.modifier.to_be_bytes());
        out.extend(i16::from(column.binary).to_be_bytes());
    }
}

fn count(out: &mut Vec<u8>, items: usize) {
    out.extend(
        u16::try_from(items)
            .expect("at most 65,535 items in a message")
            .to_be_bytes(),
    );
}
