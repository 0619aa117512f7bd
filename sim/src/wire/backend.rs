//! Messages to clients: an encoder.
//!
//! The last thing that happens before bytes enter the pipe.

use bytes::Bytes;

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
    /// The server waits for rows; the number of columns, all text.
    CopyInResponse(u16),
    /// Rows will follow; the number of columns, all text.
    CopyOutResponse(u16),
    /// One row; `None` is NULL.
    DataRow(Vec<Option<Vec<u8>>>),
    /// The query text was empty.
    EmptyQueryResponse,
    /// A statement or the session failed.
    ErrorResponse(Report),
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
    /// Its type.
    pub of: Type,
    /// Whether its values come in binary form.
    pub binary: bool,
}

/// How bad a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// A note.
    Notice,
    /// A warning.
    Warning,
}

/// The fields of an error or notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How bad it is.
    pub severity: Severity,
    /// Five characters.
    pub sqlstate: String,
    /// For people.
    pub message: String,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
        }
    }
}

impl Report {
    /// A report with the three fields every report has.
    ///
    /// # Panics
    /// If `sqlstate` has not five characters.
    #[must_use]
    pub fn new(severity: Severity, sqlstate: &str, message: impl Into<String>) -> Self {
        assert_eq!(sqlstate.len(), 5, "an SQLSTATE has five characters: {sqlstate:?}");
        Self {
            severity,
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
        }
    }

    /// An error.
    #[must_use]
    pub fn error(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, sqlstate, message)
    }

    /// An error that ends the session.
    #[must_use]
    pub fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, sqlstate, message)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for (field, text) in [
            (b'S', self.severity.word()),
            (b'V', self.severity.word()),
            (b'C', &self.sqlstate),
            (b'M', &self.message),
        ] {
            out.push(field);
            string(out, text);
        }
        out.push(0);
    }
}

impl Backend {
    /// The type byte of the message.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::AuthenticationCleartextPassword | Self::AuthenticationMd5Password(_) | Self::AuthenticationOk => b'R',
            Self::BackendKeyData { .. } => b'K',
            Self::BindComplete => b'2',
            Self::CloseComplete => b'3',
            Self::CommandComplete(_) => b'C',
            Self::CopyData(_) => b'd',
            Self::CopyDone => b'c',
            Self::CopyInResponse(_) => b'G',
            Self::CopyOutResponse(_) => b'H',
            Self::DataRow(_) => b'D',
            Self::EmptyQueryResponse => b'I',
            Self::ErrorResponse(_) => b'E',
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
            Self::BackendKeyData { pid, key } => {
                out.extend(pid.to_be_bytes());
                out.extend(key.to_be_bytes());
            }
            Self::CommandComplete(tag) => string(out, tag),
            Self::CopyData(bytes) => out.extend_from_slice(bytes),
            Self::CopyInResponse(columns) | Self::CopyOutResponse(columns) => {
                out.push(0);
                out.extend(columns.to_be_bytes());
                out.extend((0..*columns).flat_map(|_| 0i16.to_be_bytes()));
            }
            Self::DataRow(values) => data_row(out, values),
            Self::ErrorResponse(report) | Self::NoticeResponse(report) => report.encode(out),
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
        // Table, attribute and modifier are those of an expression.
        out.extend(0u32.to_be_bytes());
        out.extend(0i16.to_be_bytes());
        out.extend(column.of.oid().to_be_bytes());
        out.extend(column.of.size().to_be_bytes());
        out.extend((-1i32).to_be_bytes());
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

fn string(out: &mut Vec<u8>, text: &str) {
    assert!(!text.contains('\0'), "a string on the wire has no zero byte: {text:?}");
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}
