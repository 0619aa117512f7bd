//! Column types and values, in the text and binary forms of the wire.
//!
//! Under the scripted answers. A value that does not fit its column is a mistake in the script and panics.

/// The type of a column or parameter, with PostgreSQL's OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `boolean`
    Bool,
    /// `bytea`
    Bytea,
    /// `double precision`
    Float8,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `name`
    Name,
    /// `oid`
    Oid,
    /// Any other type, by OID; its values are given as text or bytes.
    Other(u32),
    /// `pg_lsn`
    PgLsn,
    /// `text`
    Text,
    /// `timestamp with time zone`
    TimestampTz,
    /// `character varying`
    Varchar,
    /// `void`
    Void,
}

impl Type {
    /// The type's object identifier.
    #[must_use]
    pub const fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Float8 => 701,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Name => 19,
            Self::Oid => 26,
            Self::Other(oid) => oid,
            Self::PgLsn => 3220,
            Self::Text => 25,
            Self::TimestampTz => 1184,
            Self::Varchar => 1043,
            Self::Void => 2278,
        }
    }

    /// Bytes of a value, or -1 when that varies.
    #[must_use]
    pub const fn size(self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Int2 => 2,
            Self::Int4 | Self::Oid | Self::Void => 4,
            Self::Float8 | Self::Int8 | Self::PgLsn | Self::TimestampTz => 8,
            Self::Name => 64,
            Self::Bytea | Self::Other(_) | Self::Text | Self::Varchar => -1,
        }
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `NULL`
    Null,
    /// A boolean.
    Bool(bool),
    /// Raw bytes: `bytea`, or the finished binary form of any other type.
    Bytes(Vec<u8>),
    /// A floating-point number.
    Float(f64),
    /// An integer of any width, also an OID, an LSN, or microseconds since 2000 of a timestamp.
    Int(i64),
    /// Text.
    Text(String),
}

impl Value {
    /// The value in the form of a `DataRow`; `None` is NULL.
    ///
    /// # Panics
    /// If the value does not fit `of`.
    #[must_use]
    pub fn encode(&self, of: Type, binary: bool) -> Option<Vec<u8>> {
        if binary { self.binary(of) } else { self.text(of) }
    }

    fn binary(&self, of: Type) -> Option<Vec<u8>> {
        let bytes = match (self, of) {
            (Self::Null, _) => return None,
            (Self::Bool(value), Type::Bool) => vec![u8::from(*value)],
            (Self::Bytes(bytes), _) => bytes.clone(),
            (Self::Float(value), Type::Float8) => value.to_be_bytes().to_vec(),
            (Self::Int(value), Type::Int2) => narrow::<i16>(*value, of).to_be_bytes().to_vec(),
            (Self::Int(value), Type::Int4) => narrow::<i32>(*value, of).to_be_bytes().to_vec(),
            (Self::Int(value), Type::Oid) => narrow::<u32>(*value, of).to_be_bytes().to_vec(),
            (Self::Int(value), Type::Int8 | Type::PgLsn | Type::TimestampTz) => value.to_be_bytes().to_vec(),
            (Self::Text(text), Type::Text | Type::Varchar | Type::Name | Type::Void | Type::Other(_)) => {
                text.as_bytes().to_vec()
            }
            _ => panic!("the script's value {self:?} has no binary form as {of:?}"),
        };
        Some(bytes)
    }

    fn text(&self, of: Type) -> Option<Vec<u8>> {
        let text = match (self, of) {
            (Self::Null, _) => return None,
            (Self::Bool(value), _) => (if *value { "t" } else { "f" }).to_owned(),
            (Self::Bytes(bytes), Type::Bytea) => bytes
                .iter()
                .fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
            (Self::Bytes(_), _) => panic!("the script's value {self:?} has no text form as {of:?}"),
            (Self::Float(value), _) => value.to_string(),
            (Self::Int(value), Type::PgLsn) => format!("{:X}/{:X}", *value >> 32, *value & 0xffff_ffff),
            (Self::Int(value), _) => value.to_string(),
            (Self::Text(text), _) => text.clone(),
        };
        Some(text.into_bytes())
    }
}

fn narrow<T: TryFrom<i64>>(value: i64, of: Type) -> T {
    T::try_from(value).unwrap_or_else(|_| panic!("the script's value {value} does not fit {of:?}"))
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
