//! The types the engine knows: names, OIDs, sizes, categories.
//!
//! Under everything else in the engine. A plain machine: tables and values only; values are in `datum`, their texts in `text`,
//! their wire forms in `binary`.

pub(crate) mod binary;
pub(crate) mod cast;
pub(crate) mod datetime;
pub(crate) mod datum;
pub(crate) mod json;
pub(crate) mod numeric;
pub(crate) mod text;

/// A type without "array of".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scalar {
    Bit,
    Bool,
    Bpchar,
    Bytea,
    Char,
    Date,
    Float4,
    Float8,
    Int2,
    Int4,
    Int8,
    Interval,
    Json,
    Jsonb,
    Name,
    Numeric,
    Oid,
    PgLsn,
    Record,
    Regclass,
    Regnamespace,
    Regtype,
    Text,
    Timestamp,
    TimestampTz,
    Unknown,
    Uuid,
    Varchar,
    Void,
    Xid,
    Xid8,
}

/// A type: a scalar, or an array of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Type {
    pub(crate) scalar: Scalar,
    pub(crate) array: bool,
}

/// What is known of a scalar.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) scalar: Scalar,
    /// The name in `pg_type`.
    pub(crate) name: &'static str,
    /// The name in messages.
    pub(crate) shown: &'static str,
    pub(crate) oid: u32,
    pub(crate) array_oid: u32,
    pub(crate) size: i16,
    pub(crate) category: u8,
    pub(crate) preferred: bool,
}

const fn facts(
    scalar: Scalar,
    (name, shown): (&'static str, &'static str),
    (oid, array_oid): (u32, u32),
    size: i16,
    category: u8,
    preferred: bool,
) -> Facts {
    Facts {
        scalar,
        name,
        shown,
        oid,
        array_oid,
        size,
        category,
        preferred,
    }
}

/// All of them, in the order of [`Scalar`].
pub(crate) const TYPES: [Facts; 31] = [
    facts(Scalar::Bit, ("bit", "bit"), (1560, 1561), -1, b'V', false),
    facts(Scalar::Bool, ("bool", "boolean"), (16, 1000), 1, b'B', true),
    facts(Scalar::Bpchar, ("bpchar", "character"), (1042, 1014), -1, b'S', false),
    facts(Scalar::Bytea, ("bytea", "bytea"), (17, 1001), -1, b'U', false),
    facts(Scalar::Char, ("char", "\"char\""), (18, 1002), 1, b'Z', false),
    facts(Scalar::Date, ("date", "date"), (1082, 1182), 4, b'D', false),
    facts(Scalar::Float4, ("float4", "real"), (700, 1021), 4, b'N', false),
    facts(
        Scalar::Float8,
        ("float8", "double precision"),
        (701, 1022),
        8,
        b'N',
        true,
    ),
    facts(Scalar::Int2, ("int2", "smallint"), (21, 1005), 2, b'N', false),
    facts(Scalar::Int4, ("int4", "integer"), (23, 1007), 4, b'N', false),
    facts(Scalar::Int8, ("int8", "bigint"), (20, 1016), 8, b'N', false),
    facts(Scalar::Interval, ("interval", "interval"), (1186, 1187), 16, b'T', true),
    facts(Scalar::Json, ("json", "json"), (114, 199), -1, b'U', false),
    facts(Scalar::Jsonb, ("jsonb", "jsonb"), (3802, 3807), -1, b'U', false),
    facts(Scalar::Name, ("name", "name"), (19, 1003), 64, b'S', false),
    facts(Scalar::Numeric, ("numeric", "numeric"), (1700, 1231), -1, b'N', false),
    facts(Scalar::Oid, ("oid", "oid"), (26, 1028), 4, b'N', true),
    facts(Scalar::PgLsn, ("pg_lsn", "pg_lsn"), (3220, 3221), 8, b'U', false),
    facts(Scalar::Record, ("record", "record"), (2249, 2287), -1, b'P', false),
    facts(Scalar::Regclass, ("regclass", "regclass"), (2205, 2210), 4, b'N', false),
    facts(
        Scalar::Regnamespace,
        ("regnamespace", "regnamespace"),
        (4089, 4090),
        4,
        b'N',
        false,
    ),
    facts(Scalar::Regtype, ("regtype", "regtype"), (2206, 2211), 4, b'N', false),
    facts(Scalar::Text, ("text", "text"), (25, 1009), -1, b'S', true),
    facts(
        Scalar::Timestamp,
        ("timestamp", "timestamp without time zone"),
        (1114, 1115),
        8,
        b'D',
        false,
    ),
    facts(
        Scalar::TimestampTz,
        ("timestamptz", "timestamp with time zone"),
        (1184, 1185),
        8,
        b'D',
        true,
    ),
    facts(Scalar::Unknown, ("unknown", "unknown"), (705, 0), -2, b'X', false),
    facts(Scalar::Uuid, ("uuid", "uuid"), (2950, 2951), 16, b'U', false),
    facts(
        Scalar::Varchar,
        ("varchar", "character varying"),
        (1043, 1015),
        -1,
        b'S',
        false,
    ),
    facts(Scalar::Void, ("void", "void"), (2278, 0), 4, b'P', false),
    facts(Scalar::Xid, ("xid", "xid"), (28, 1011), 4, b'U', false),
    facts(Scalar::Xid8, ("xid8", "xid8"), (5069, 271), 8, b'U', false),
];

/// Other names a type goes by in SQL.
const ALIASES: [(&str, Scalar); 16] = [
    ("bigint", Scalar::Int8),
    ("bigserial", Scalar::Int8),
    ("boolean", Scalar::Bool),
    ("character", Scalar::Bpchar),
    ("character varying", Scalar::Varchar),
    ("dec", Scalar::Numeric),
    ("decimal", Scalar::Numeric),
    ("double precision", Scalar::Float8),
    ("float", Scalar::Float8),
    ("int", Scalar::Int4),
    ("integer", Scalar::Int4),
    ("real", Scalar::Float4),
    ("smallint", Scalar::Int2),
    ("timestamp with time zone", Scalar::TimestampTz),
    ("timestamp without time zone", Scalar::Timestamp),
    ("serial", Scalar::Int4),
];

impl Scalar {
    pub(crate) fn facts(self) -> &'static Facts {
        &TYPES[self as usize]
    }

    /// The scalar of that name, an alias or the name in `pg_type`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        let found = TYPES.iter().find(|facts| facts.name == name).map(|facts| facts.scalar);
        alias.map(|(_, scalar)| *scalar).or(found)
    }
}

impl Type {
    pub(crate) const fn of(scalar: Scalar) -> Self {
        Self { scalar, array: false }
    }

    pub(crate) const fn array(scalar: Scalar) -> Self {
        Self { scalar, array: true }
    }

    pub(crate) fn is(self, scalar: Scalar) -> bool {
        !self.array && self.scalar == scalar
    }

    pub(crate) fn is_unknown(self) -> bool {
        self.is(Scalar::Unknown)
    }

    pub(crate) fn element(self) -> Self {
        Self::of(self.scalar)
    }

    pub(crate) fn oid(self) -> u32 {
        let facts = self.scalar.facts();
        if self.array { facts.array_oid } else { facts.oid }
    }

    pub(crate) fn from_oid(oid: u32) -> Option<Self> {
        TYPES.iter().find_map(|facts| match oid {
            0 => None,
            _ if facts.oid == oid => Some(Self::of(facts.scalar)),
            _ if facts.array_oid == oid => Some(Self::array(facts.scalar)),
            _ => None,
        })
    }

    /// Bytes of a value, or -1 when that varies.
    pub(crate) fn size(self) -> i16 {
        if self.array { -1 } else { self.scalar.facts().size }
    }

    pub(crate) fn category(self) -> u8 {
        if self.array { b'A' } else { self.scalar.facts().category }
    }

    pub(crate) fn is_preferred(self) -> bool {
        !self.array && self.scalar.facts().preferred
    }

    /// The name in messages: `integer`, `text[]`.
    pub(crate) fn shown(self) -> String {
        let name = self.scalar.facts().shown;
        if self.array {
            format!("{name}[]")
        } else {
            name.to_owned()
        }
    }

    /// Whether its values are character strings.
    pub(crate) fn is_string(self) -> bool {
        self.category() == b'S'
    }

    /// The place of a number type in the order in which PostgreSQL widens them.
    pub(crate) fn number_rank(self) -> Option<u8> {
        if self.array {
            return None;
        }
        Some(match self.scalar {
            Scalar::Int2 => 0,
            Scalar::Int4 => 1,
            Scalar::Int8 => 2,
            Scalar::Numeric => 3,
            Scalar::Float4 => 4,
            Scalar::Float8 => 5,
            _ => return None,
        })
    }
}

pub(crate) const BOOL: Type = Type::of(Scalar::Bool);
pub(crate) const BYTEA: Type = Type::of(Scalar::Bytea);
pub(crate) const DATE: Type = Type::of(Scalar::Date);
pub(crate) const FLOAT4: Type = Type::of(Scalar::Float4);
pub(crate) const FLOAT8: Type = Type::of(Scalar::Float8);
pub(crate) const INT2: Type = Type::of(Scalar::Int2);
pub(crate) const INT4: Type = Type::of(Scalar::Int4);
pub(crate) const INT8: Type = Type::of(Scalar::Int8);
pub(crate) const INTERVAL: Type = Type::of(Scalar::Interval);
pub(crate) const JSON: Type = Type::of(Scalar::Json);
pub(crate) const JSONB: Type = Type::of(Scalar::Jsonb);
pub(crate) const NAME: Type = Type::of(Scalar::Name);
pub(crate) const NUMERIC: Type = Type::of(Scalar::Numeric);
pub(crate) const OID: Type = Type::of(Scalar::Oid);
pub(crate) const PG_LSN: Type = Type::of(Scalar::PgLsn);
pub(crate) const RECORD: Type = Type::of(Scalar::Record);
pub(crate) const REGCLASS: Type = Type::of(Scalar::Regclass);
pub(crate) const TEXT: Type = Type::of(Scalar::Text);
pub(crate) const TIMESTAMP: Type = Type::of(Scalar::Timestamp);
pub(crate) const TIMESTAMPTZ: Type = Type::of(Scalar::TimestampTz);
pub(crate) const UNKNOWN: Type = Type::of(Scalar::Unknown);
pub(crate) const UUID: Type = Type::of(Scalar::Uuid);
pub(crate) const VOID: Type = Type::of(Scalar::Void);
pub(crate) const XID8: Type = Type::of(Scalar::Xid8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_scalars_and_finds_by_oid() {
        for (at, facts) in TYPES.iter().enumerate() {
            assert_eq!(facts.scalar as usize, at, "{}", facts.name);
            assert_eq!(Type::from_oid(facts.oid), Some(Type::of(facts.scalar)));
        }
        assert_eq!(Type::from_oid(1007), Some(Type::array(Scalar::Int4)));
        assert_eq!(Type::from_oid(0), None);
        assert_eq!(Scalar::named("double precision"), Some(Scalar::Float8));
    }
}
