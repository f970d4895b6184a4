//! Type families: types whose values are one value if they are equal. The family of a subject is that of its *column*, as
//! the classification declares it; what a client sends may be of another type.

/// By which rule a value is brought into one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `smallint`, `integer`, `bigint`, `oid`.
    Integer,
    /// `numeric`, whatever its scale.
    Numeric,
    /// `real`.
    Real,
    /// `double precision`.
    Double,
    /// `text`, `varchar`, `name`.
    Text,
    /// `char(n)`, where blanks at the end do not count.
    Char,
    /// `uuid`.
    Uuid,
    /// `boolean`.
    Boolean,
    /// `date`.
    Date,
    /// `time` without a zone.
    Time,
    /// `timestamp` without a zone.
    Timestamp,
    /// `timestamp with time zone`: a moment.
    Timestamptz,
    /// `bytea`.
    Bytea,
    /// `inet`, `cidr`.
    Inet,
}

/// Oids of the types that are known (PostgreSQL's `src/include/catalog/pg_type.dat`).
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const OID: u32 = 26;
    pub(crate) const CIDR: u32 = 650;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const UNKNOWN: u32 = 705;
    pub(crate) const INET: u32 = 869;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIME: u32 = 1083;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const UUID: u32 = 2950;
}

impl Family {
    /// All of them: whoever searches without knowing a column's type tries each.
    pub const ALL: [Self; 14] = [
        Self::Integer,
        Self::Numeric,
        Self::Real,
        Self::Double,
        Self::Text,
        Self::Char,
        Self::Uuid,
        Self::Boolean,
        Self::Date,
        Self::Time,
        Self::Timestamp,
        Self::Timestamptz,
        Self::Bytea,
        Self::Inet,
    ];

    /// The family of a built-in type.
    #[must_use]
    pub fn of_type(type_oid: u32) -> Option<Self> {
        TYPES
            .iter()
            .find(|(oid, ..)| *oid == type_oid)
            .map(|known| known.1)
    }

    /// The family of a type by any of the names that SQL has for it, with or without a length: `bigint`, `int8`,
    /// `character varying(20)`, `timestamp(3) with time zone`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::of_type(type_of_name(name)?)
    }

    /// As it is recorded.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Numeric => "numeric",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Text => "text",
            Self::Char => "char",
            Self::Uuid => "uuid",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Bytea => "bytea",
            Self::Inet => "inet",
        }
    }

    /// By the name under which it is recorded.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

/// The oid of a built-in type that has a family, by any of the names that SQL has for it.
#[must_use]
pub fn type_of_name(name: &str) -> Option<u32> {
    let mut bare = String::with_capacity(name.len());
    let mut depth = 0_u32;
    for letter in name.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ if depth == 0 => bare.push(letter.to_ascii_lowercase()),
            _ => {}
        }
    }
    let words = bare.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = words.strip_prefix("pg_catalog.").unwrap_or(&words);
    TYPES
        .iter()
        .find(|(_, _, names)| names.contains(&plain))
        .map(|known| known.0)
}

/// Each type, its family and its names (manual, "Data Types", and those of `pg_type`).
const TYPES: &[(u32, Family, &[&str])] = &[
    (
        oid::INT2,
        Family::Integer,
        &["smallint", "int2", "smallserial", "serial2"],
    ),
    (
        oid::INT4,
        Family::Integer,
        &["integer", "int", "int4", "serial", "serial4"],
    ),
    (
        oid::INT8,
        Family::Integer,
        &["bigint", "int8", "bigserial", "serial8"],
    ),
    (oid::OID, Family::Integer, &["oid"]),
    (oid::NUMERIC, Family::Numeric, &["numeric", "decimal", "dec"]),
    (oid::FLOAT4, Family::Real, &["real", "float4"]),
    (oid::FLOAT8, Family::Double, &["double precision", "float8"]),
    (oid::TEXT, Family::Text, &["text"]),
    (
        oid::VARCHAR,
        Family::Text,
        &["varchar", "character varying", "char varying"],
    ),
    (oid::NAME, Family::Text, &["name"]),
    (
        oid::BPCHAR,
        Family::Char,
        &["char", "character", "bpchar", "nchar"],
    ),
    (oid::UUID, Family::Uuid, &["uuid"]),
    (oid::BOOL, Family::Boolean, &["boolean", "bool"]),
    (oid::DATE, Family::Date, &["date"]),
    (oid::TIME, Family::Time, &["time", "time without time zone"]),
    (
        oid::TIMESTAMP,
        Family::Timestamp,
        &["timestamp", "timestamp without time zone"],
    ),
    (
        oid::TIMESTAMPTZ,
        Family::Timestamptz,
        &["timestamptz", "timestamp with time zone"],
    ),
    (oid::BYTEA, Family::Bytea, &["bytea"]),
    (oid::INET, Family::Inet, &["inet"]),
    (oid::CIDR, Family::Inet, &["cidr"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_one_family_by_whatever_name() {
        for (name, family) in [
            ("bigint", Some(Family::Integer)),
            ("INT8", Some(Family::Integer)),
            ("pg_catalog.int4", Some(Family::Integer)),
            ("character varying(20)", Some(Family::Text)),
            ("character  (3)", Some(Family::Char)),
            ("timestamp(3) with time zone", Some(Family::Timestamptz)),
            ("timestamp ( 3 )", Some(Family::Timestamp)),
            ("numeric(10, 2)", Some(Family::Numeric)),
            ("citext", None),
            ("int4[]", None),
            ("int)", None),
            ("", None),
        ] {
            assert_eq!(Family::of_name(name), family, "{name}");
        }
        for family in Family::ALL {
            assert_eq!(Family::named(family.name()), Some(family));
        }
        for (oid, family, names) in TYPES {
            assert_eq!(Family::of_type(*oid), Some(*family));
            assert!(names.iter().all(|name| type_of_name(name) == Some(*oid)));
        }
    }
}
