//! Plain data as Rust source: what a failing scenario prints, ready to be pasted into a test.
//!
//! A serde serialiser, so that every type of a scenario gets it from its derive. It knows no type of this crate.

use std::fmt::{self, Write as _};

use serde::ser::{self, Serialize};

/// The expression that builds `value`: struct and enum literals, `vec![..]`, `BTreeMap::from([..])`, `"..".into()`.
///
/// Names are those of the types, without paths: the pasted text needs their imports. Sets print as `vec![..]`.
///
/// ```
/// use gdbpool_sim::rust_source;
///
/// let value = (Some(1u8), vec!["a".to_owned()], 'x', ());
/// assert_eq!(rust_source(&value), r#"(Some(1), vec!["a".into()], 'x', ())"#);
/// ```
///
/// # Panics
/// If the type's own `Serialize` fails, which derived ones never do.
#[must_use]
pub fn rust_source<T: Serialize + ?Sized>(value: &T) -> String {
    let mut source = String::new();
    value
        .serialize(Printer { out: &mut source })
        .expect("derived serialisers do not fail");
    source
}

/// Gives types a `Debug` that prints [`rust_source`].
macro_rules! debug_as_source {
    ($($name:ident),+ $(,)?) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::source::rust_source(self))
            }
        })+
    };
}
pub(crate) use debug_as_source;

struct Printer<'a> {
    out: &'a mut String,
}

/// A literal whose parts are still coming.
struct Parts<'a> {
    out: &'a mut String,
    first: bool,
    end: &'static str,
}

/// What a serialiser must have as its error.
#[derive(Debug)]
struct SourceError(String);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}

impl ser::Error for SourceError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

impl<'a> Printer<'a> {
    fn show(self, value: impl fmt::Debug) -> Result<(), SourceError> {
        write!(self.out, "{value:?}").map_err(ser::Error::custom)
    }

    fn open(self, start: impl fmt::Display, end: &'static str) -> Result<Parts<'a>, SourceError> {
        write!(self.out, "{start}").map_err(<SourceError as ser::Error>::custom)?;
        Ok(Parts {
            out: self.out,
            first: true,
            end,
        })
    }

    fn wrap<T: Serialize + ?Sized>(self, start: impl fmt::Display, value: &T) -> Result<(), SourceError> {
        let mut parts = self.open(start, ")")?;
        parts.part(value)?;
        parts.finish()
    }
}

impl Parts<'_> {
    fn comma(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push_str(", ");
        }
    }

    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SourceError> {
        self.comma();
        value.serialize(Printer { out: self.out })
    }

    fn named<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), SourceError> {
        self.comma();
        write!(self.out, "{name}: ").map_err(<SourceError as ser::Error>::custom)?;
        value.serialize(Printer { out: self.out })
    }

    fn finish(self) -> Result<(), SourceError> {
        self.out.push_str(self.end);
        Ok(())
    }
}

macro_rules! shown {
    ($($method:ident: $of:ty),+ $(,)?) => {
        $(fn $method(self, value: $of) -> Result<(), SourceError> {
            self.show(value)
        })+
    };
}

impl<'a> ser::Serializer for Printer<'a> {
    type Ok = ();
    type Error = SourceError;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    shown!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char,
    );

    fn serialize_str(self, value: &str) -> Result<(), SourceError> {
        write!(self.out, "{value:?}.into()").map_err(ser::Error::custom)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), SourceError> {
        write!(self.out, "vec!{value:?}").map_err(ser::Error::custom)
    }

    fn serialize_none(self) -> Result<(), SourceError> {
        self.out.push_str("None");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), SourceError> {
        self.wrap("Some(", value)
    }

    fn serialize_unit(self) -> Result<(), SourceError> {
        self.show(())
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), SourceError> {
        self.out.push_str(name);
        Ok(())
    }

    fn serialize_unit_variant(self, name: &'static str, _: u32, variant: &'static str) -> Result<(), SourceError> {
        write!(self.out, "{name}::{variant}").map_err(ser::Error::custom)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), SourceError> {
        self.wrap(format_args!("{name}("), value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), SourceError> {
        self.wrap(format_args!("{name}::{variant}("), value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, SourceError> {
        self.open("vec![", "]")
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, SourceError> {
        self.open("(", ")")
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Parts<'a>, SourceError> {
        self.open(format_args!("{name}("), ")")
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, SourceError> {
        self.open(format_args!("{name}::{variant}("), ")")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, SourceError> {
        self.open("BTreeMap::from([", "])")
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'a>, SourceError> {
        self.open(format_args!("{name} {{ "), " }")
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, SourceError> {
        self.open(format_args!("{name}::{variant} {{ "), " }")
    }
}

macro_rules! parts {
    ($($kind:ident: $method:ident),+ $(,)?) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = SourceError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SourceError> {
                self.part(value)
            }

            fn end(self) -> Result<(), SourceError> {
                self.finish()
            }
        })+
    };
}

parts!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
);

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = SourceError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), SourceError> {
        self.comma();
        self.out.push('(');
        key.serialize(Printer { out: self.out })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SourceError> {
        self.out.push_str(", ");
        value.serialize(Printer { out: self.out })?;
        self.out.push(')');
        Ok(())
    }

    fn end(self) -> Result<(), SourceError> {
        self.finish()
    }
}

macro_rules! fields {
    ($($kind:ident),+ $(,)?) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = SourceError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), SourceError> {
                self.named(name, value)
            }

            fn end(self) -> Result<(), SourceError> {
                self.finish()
            }
        })+
    };
}

fields!(SerializeStruct, SerializeStructVariant);
