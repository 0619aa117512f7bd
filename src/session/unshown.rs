//! Values that do not show: tokio-postgres logs parameters at debug level, and these are data of the application's users.
//!
//! On their way from whoever holds them into tokio-postgres. They are encoded as what they are.

use std::error::Error as StdError;
use std::fmt;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

/// A value on its way into tokio-postgres.
#[derive(Clone, Copy)]
pub(crate) struct Unshown<'a>(pub(crate) &'a (dyn ToSql + Sync));

impl ToSql for Unshown<'_> {
    fn to_sql(&self, expected: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.0.to_sql_checked(expected, out)
    }

    fn accepts(_: &Type) -> bool {
        // The value itself is asked when it is encoded.
        true
    }

    fn to_sql_checked(&self, expected: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.0.to_sql_checked(expected, out)
    }

    fn encode_format(&self, expected: &Type) -> Format {
        self.0.encode_format(expected)
    }
}

impl fmt::Debug for Unshown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}
