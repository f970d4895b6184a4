//! Which type an oid is. Built-in types only: the oids of all others differ from database to database.
//! Source: PostgreSQL's `src/include/catalog/pg_type.dat`; `pg_range.dat` for ranges.

/// How the values of a type are read and printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Char,
    Int2,
    Int4,
    Int8,
    /// An oid and what is sent like one.
    Oid,
    Xid8,
    /// The bytes are the text.
    Text,
    /// A version, 1, and the text.
    Versioned,
    Bytea,
    Uuid,
    Bits,
    Lsn,
    Tid,
    Snapshot,
    Void,
    Numeric,
    Float4,
    Float8,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Inet,
    MacAddr,
    Shape(Shape),
    /// An array; the oid is that of its elements.
    Array(u32),
    /// `int2vector`, `oidvector`: arrays that print as numbers between spaces.
    Vector,
    /// A row of no declared type; it says itself which types are in it.
    Record,
    /// A range; the oid is that of its bounds.
    Range(u32),
    /// A multirange; the oid is that of its ranges.
    Multirange(u32),
}

/// Geometric types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Point,
    Line,
    Lseg,
    Box,
    Path,
    Polygon,
    Circle,
}

/// How values of a type are read; `None` if it is not known.
pub(super) fn kind(type_oid: u32) -> Option<Kind> {
    Some(match type_oid {
        oid::BOOL => Kind::Bool,
        oid::CHAR => Kind::Char,
        oid::INT2 => Kind::Int2,
        oid::INT4 => Kind::Int4,
        oid::INT8 => Kind::Int8,
        oid::OID
        | oid::XID
        | oid::CID
        | oid::REGPROC
        | oid::REGPROCEDURE
        | oid::REGOPER
        | oid::REGOPERATOR
        | oid::REGCLASS
        | oid::REGTYPE
        | oid::REGCONFIG
        | oid::REGDICTIONARY
        | oid::REGNAMESPACE
        | oid::REGROLE
        | oid::REGCOLLATION => Kind::Oid,
        oid::XID8 => Kind::Xid8,
        oid::TEXT
        | oid::VARCHAR
        | oid::BPCHAR
        | oid::NAME
        | oid::UNKNOWN
        | oid::CSTRING
        | oid::REFCURSOR
        | oid::JSON
        | oid::XML => Kind::Text,
        oid::JSONB | oid::JSONPATH => Kind::Versioned,
        oid::BYTEA => Kind::Bytea,
        oid::UUID => Kind::Uuid,
        oid::BIT | oid::VARBIT => Kind::Bits,
        oid::PG_LSN => Kind::Lsn,
        oid::TID => Kind::Tid,
        oid::TXID_SNAPSHOT | oid::PG_SNAPSHOT => Kind::Snapshot,
        oid::VOID => Kind::Void,
        oid::NUMERIC => Kind::Numeric,
        oid::FLOAT4 => Kind::Float4,
        oid::FLOAT8 => Kind::Float8,
        oid::DATE => Kind::Date,
        oid::TIME => Kind::Time,
        oid::TIMETZ => Kind::TimeTz,
        oid::TIMESTAMP => Kind::Timestamp,
        oid::TIMESTAMPTZ => Kind::TimestampTz,
        oid::INTERVAL => Kind::Interval,
        oid::INET | oid::CIDR => Kind::Inet,
        oid::MACADDR | oid::MACADDR8 => Kind::MacAddr,
        oid::POINT => Kind::Shape(Shape::Point),
        oid::LINE => Kind::Shape(Shape::Line),
        oid::LSEG => Kind::Shape(Shape::Lseg),
        oid::BOX => Kind::Shape(Shape::Box),
        oid::PATH => Kind::Shape(Shape::Path),
        oid::POLYGON => Kind::Shape(Shape::Polygon),
        oid::CIRCLE => Kind::Shape(Shape::Circle),
        oid::INT2VECTOR | oid::OIDVECTOR => Kind::Vector,
        oid::RECORD => Kind::Record,
        _ => {
            let of = |table: &[(u32, u32)]| table.iter().find(|pair| pair.0 == type_oid).map(|pair| pair.1);
            return of(ARRAYS)
                .map(Kind::Array)
                .or_else(|| of(RANGES).map(Kind::Range))
                .or_else(|| of(MULTIRANGES).map(Kind::Multirange));
        }
    })
}

/// What stands between the elements of an array: `typdelim` in `pg_type.dat`.
pub(super) fn delimiter(element: u32) -> char {
    if element == oid::BOX { ';' } else { ',' }
}

/// Some known type, so that random numbers find one.
pub(super) fn nth(number: u32) -> u32 {
    let arrays = ARRAYS.iter().flat_map(|&(array, element)| [array, element]);
    let tables = RANGES.iter().chain(MULTIRANGES).map(|pair| pair.0);
    let all = arrays.chain(tables).chain([oid::INT2VECTOR, oid::OIDVECTOR]);
    let count = all.clone().count();
    all.into_iter()
        .nth(number as usize % count)
        .unwrap_or(oid::RECORD)
}

/// Arrays and their elements.
const ARRAYS: &[(u32, u32)] = &[
    (oid::BOOL_ARRAY, oid::BOOL),
    (oid::BYTEA_ARRAY, oid::BYTEA),
    (oid::CHAR_ARRAY, oid::CHAR),
    (oid::NAME_ARRAY, oid::NAME),
    (oid::INT8_ARRAY, oid::INT8),
    (oid::INT2_ARRAY, oid::INT2),
    (oid::INT2VECTOR_ARRAY, oid::INT2VECTOR),
    (oid::INT4_ARRAY, oid::INT4),
    (oid::REGPROC_ARRAY, oid::REGPROC),
    (oid::TEXT_ARRAY, oid::TEXT),
    (oid::OID_ARRAY, oid::OID),
    (oid::TID_ARRAY, oid::TID),
    (oid::XID_ARRAY, oid::XID),
    (oid::CID_ARRAY, oid::CID),
    (oid::OIDVECTOR_ARRAY, oid::OIDVECTOR),
    (oid::JSON_ARRAY, oid::JSON),
    (oid::XML_ARRAY, oid::XML),
    (oid::XID8_ARRAY, oid::XID8),
    (oid::POINT_ARRAY, oid::POINT),
    (oid::LSEG_ARRAY, oid::LSEG),
    (oid::PATH_ARRAY, oid::PATH),
    (oid::BOX_ARRAY, oid::BOX),
    (oid::POLYGON_ARRAY, oid::POLYGON),
    (oid::LINE_ARRAY, oid::LINE),
    (oid::FLOAT4_ARRAY, oid::FLOAT4),
    (oid::FLOAT8_ARRAY, oid::FLOAT8),
    (oid::CIRCLE_ARRAY, oid::CIRCLE),
    (oid::MACADDR_ARRAY, oid::MACADDR),
    (oid::MACADDR8_ARRAY, oid::MACADDR8),
    (oid::INET_ARRAY, oid::INET),
    (oid::CIDR_ARRAY, oid::CIDR),
    (oid::CSTRING_ARRAY, oid::CSTRING),
    (oid::BPCHAR_ARRAY, oid::BPCHAR),
    (oid::VARCHAR_ARRAY, oid::VARCHAR),
    (oid::DATE_ARRAY, oid::DATE),
    (oid::TIME_ARRAY, oid::TIME),
    (oid::TIMESTAMP_ARRAY, oid::TIMESTAMP),
    (oid::TIMESTAMPTZ_ARRAY, oid::TIMESTAMPTZ),
    (oid::INTERVAL_ARRAY, oid::INTERVAL),
    (oid::TIMETZ_ARRAY, oid::TIMETZ),
    (oid::BIT_ARRAY, oid::BIT),
    (oid::VARBIT_ARRAY, oid::VARBIT),
    (oid::NUMERIC_ARRAY, oid::NUMERIC),
    (oid::REFCURSOR_ARRAY, oid::REFCURSOR),
    (oid::REGPROCEDURE_ARRAY, oid::REGPROCEDURE),
    (oid::REGOPER_ARRAY, oid::REGOPER),
    (oid::REGOPERATOR_ARRAY, oid::REGOPERATOR),
    (oid::REGCLASS_ARRAY, oid::REGCLASS),
    (oid::REGTYPE_ARRAY, oid::REGTYPE),
    (oid::REGCONFIG_ARRAY, oid::REGCONFIG),
    (oid::REGDICTIONARY_ARRAY, oid::REGDICTIONARY),
    (oid::REGNAMESPACE_ARRAY, oid::REGNAMESPACE),
    (oid::REGROLE_ARRAY, oid::REGROLE),
    (oid::REGCOLLATION_ARRAY, oid::REGCOLLATION),
    (oid::UUID_ARRAY, oid::UUID),
    (oid::PG_LSN_ARRAY, oid::PG_LSN),
    (oid::TXID_SNAPSHOT_ARRAY, oid::TXID_SNAPSHOT),
    (oid::PG_SNAPSHOT_ARRAY, oid::PG_SNAPSHOT),
    (oid::JSONB_ARRAY, oid::JSONB),
    (oid::JSONPATH_ARRAY, oid::JSONPATH),
    (oid::RECORD_ARRAY, oid::RECORD),
    (oid::INT4RANGE_ARRAY, oid::INT4RANGE),
    (oid::NUMRANGE_ARRAY, oid::NUMRANGE),
    (oid::TSRANGE_ARRAY, oid::TSRANGE),
    (oid::TSTZRANGE_ARRAY, oid::TSTZRANGE),
    (oid::DATERANGE_ARRAY, oid::DATERANGE),
    (oid::INT8RANGE_ARRAY, oid::INT8RANGE),
    (oid::INT4MULTIRANGE_ARRAY, oid::INT4MULTIRANGE),
    (oid::NUMMULTIRANGE_ARRAY, oid::NUMMULTIRANGE),
    (oid::TSMULTIRANGE_ARRAY, oid::TSMULTIRANGE),
    (oid::TSTZMULTIRANGE_ARRAY, oid::TSTZMULTIRANGE),
    (oid::DATEMULTIRANGE_ARRAY, oid::DATEMULTIRANGE),
    (oid::INT8MULTIRANGE_ARRAY, oid::INT8MULTIRANGE),
];

/// Ranges and their bounds.
const RANGES: &[(u32, u32)] = &[
    (oid::INT4RANGE, oid::INT4),
    (oid::NUMRANGE, oid::NUMERIC),
    (oid::TSRANGE, oid::TIMESTAMP),
    (oid::TSTZRANGE, oid::TIMESTAMPTZ),
    (oid::DATERANGE, oid::DATE),
    (oid::INT8RANGE, oid::INT8),
];

/// Multiranges and their ranges.
const MULTIRANGES: &[(u32, u32)] = &[
    (oid::INT4MULTIRANGE, oid::INT4RANGE),
    (oid::NUMMULTIRANGE, oid::NUMRANGE),
    (oid::TSMULTIRANGE, oid::TSRANGE),
    (oid::TSTZMULTIRANGE, oid::TSTZRANGE),
    (oid::DATEMULTIRANGE, oid::DATERANGE),
    (oid::INT8MULTIRANGE, oid::INT8RANGE),
];

/// Oids by the type's name.
pub(super) mod oid {
    pub(in crate::value) const BOOL: u32 = 16;
    pub(in crate::value) const BYTEA: u32 = 17;
    pub(in crate::value) const CHAR: u32 = 18;
    pub(in crate::value) const NAME: u32 = 19;
    pub(in crate::value) const INT8: u32 = 20;
    pub(in crate::value) const INT2: u32 = 21;
    pub(in crate::value) const INT2VECTOR: u32 = 22;
    pub(in crate::value) const INT4: u32 = 23;
    pub(in crate::value) const REGPROC: u32 = 24;
    pub(in crate::value) const TEXT: u32 = 25;
    pub(in crate::value) const OID: u32 = 26;
    pub(in crate::value) const TID: u32 = 27;
    pub(in crate::value) const XID: u32 = 28;
    pub(in crate::value) const CID: u32 = 29;
    pub(in crate::value) const OIDVECTOR: u32 = 30;
    pub(in crate::value) const JSON: u32 = 114;
    pub(in crate::value) const XML: u32 = 142;
    pub(in crate::value) const XML_ARRAY: u32 = 143;
    pub(in crate::value) const JSON_ARRAY: u32 = 199;
    pub(in crate::value) const XID8_ARRAY: u32 = 271;
    pub(in crate::value) const POINT: u32 = 600;
    pub(in crate::value) const LSEG: u32 = 601;
    pub(in crate::value) const PATH: u32 = 602;
    pub(in crate::value) const BOX: u32 = 603;
    pub(in crate::value) const POLYGON: u32 = 604;
    pub(in crate::value) const LINE: u32 = 628;
    pub(in crate::value) const LINE_ARRAY: u32 = 629;
    pub(in crate::value) const CIDR: u32 = 650;
    pub(in crate::value) const CIDR_ARRAY: u32 = 651;
    pub(in crate::value) const FLOAT4: u32 = 700;
    pub(in crate::value) const FLOAT8: u32 = 701;
    pub(in crate::value) const UNKNOWN: u32 = 705;
    pub(in crate::value) const CIRCLE: u32 = 718;
    pub(in crate::value) const CIRCLE_ARRAY: u32 = 719;
    pub(in crate::value) const MACADDR8: u32 = 774;
    pub(in crate::value) const MACADDR8_ARRAY: u32 = 775;
    #[cfg(test)]
    pub(in crate::value) const MONEY: u32 = 790;
    pub(in crate::value) const MACADDR: u32 = 829;
    pub(in crate::value) const INET: u32 = 869;
    pub(in crate::value) const BOOL_ARRAY: u32 = 1_000;
    pub(in crate::value) const BYTEA_ARRAY: u32 = 1_001;
    pub(in crate::value) const CHAR_ARRAY: u32 = 1_002;
    pub(in crate::value) const NAME_ARRAY: u32 = 1_003;
    pub(in crate::value) const INT2_ARRAY: u32 = 1_005;
    pub(in crate::value) const INT2VECTOR_ARRAY: u32 = 1_006;
    pub(in crate::value) const INT4_ARRAY: u32 = 1_007;
    pub(in crate::value) const REGPROC_ARRAY: u32 = 1_008;
    pub(in crate::value) const TEXT_ARRAY: u32 = 1_009;
    pub(in crate::value) const TID_ARRAY: u32 = 1_010;
    pub(in crate::value) const XID_ARRAY: u32 = 1_011;
    pub(in crate::value) const CID_ARRAY: u32 = 1_012;
    pub(in crate::value) const OIDVECTOR_ARRAY: u32 = 1_013;
    pub(in crate::value) const BPCHAR_ARRAY: u32 = 1_014;
    pub(in crate::value) const VARCHAR_ARRAY: u32 = 1_015;
    pub(in crate::value) const INT8_ARRAY: u32 = 1_016;
    pub(in crate::value) const POINT_ARRAY: u32 = 1_017;
    pub(in crate::value) const LSEG_ARRAY: u32 = 1_018;
    pub(in crate::value) const PATH_ARRAY: u32 = 1_019;
    pub(in crate::value) const BOX_ARRAY: u32 = 1_020;
    pub(in crate::value) const FLOAT4_ARRAY: u32 = 1_021;
    pub(in crate::value) const FLOAT8_ARRAY: u32 = 1_022;
    pub(in crate::value) const POLYGON_ARRAY: u32 = 1_027;
    pub(in crate::value) const OID_ARRAY: u32 = 1_028;
    pub(in crate::value) const MACADDR_ARRAY: u32 = 1_040;
    pub(in crate::value) const INET_ARRAY: u32 = 1_041;
    pub(in crate::value) const BPCHAR: u32 = 1_042;
    pub(in crate::value) const VARCHAR: u32 = 1_043;
    pub(in crate::value) const DATE: u32 = 1_082;
    pub(in crate::value) const TIME: u32 = 1_083;
    pub(in crate::value) const TIMESTAMP: u32 = 1_114;
    pub(in crate::value) const TIMESTAMP_ARRAY: u32 = 1_115;
    pub(in crate::value) const DATE_ARRAY: u32 = 1_182;
    pub(in crate::value) const TIME_ARRAY: u32 = 1_183;
    pub(in crate::value) const TIMESTAMPTZ: u32 = 1_184;
    pub(in crate::value) const TIMESTAMPTZ_ARRAY: u32 = 1_185;
    pub(in crate::value) const INTERVAL: u32 = 1_186;
    pub(in crate::value) const INTERVAL_ARRAY: u32 = 1_187;
    pub(in crate::value) const NUMERIC_ARRAY: u32 = 1_231;
    pub(in crate::value) const CSTRING_ARRAY: u32 = 1_263;
    pub(in crate::value) const TIMETZ: u32 = 1_266;
    pub(in crate::value) const TIMETZ_ARRAY: u32 = 1_270;
    pub(in crate::value) const BIT: u32 = 1_560;
    pub(in crate::value) const BIT_ARRAY: u32 = 1_561;
    pub(in crate::value) const VARBIT: u32 = 1_562;
    pub(in crate::value) const VARBIT_ARRAY: u32 = 1_563;
    pub(in crate::value) const NUMERIC: u32 = 1_700;
    pub(in crate::value) const REFCURSOR: u32 = 1_790;
    pub(in crate::value) const REFCURSOR_ARRAY: u32 = 2_201;
    pub(in crate::value) const REGPROCEDURE: u32 = 2_202;
    pub(in crate::value) const REGOPER: u32 = 2_203;
    pub(in crate::value) const REGOPERATOR: u32 = 2_204;
    pub(in crate::value) const REGCLASS: u32 = 2_205;
    pub(in crate::value) const REGTYPE: u32 = 2_206;
    pub(in crate::value) const REGPROCEDURE_ARRAY: u32 = 2_207;
    pub(in crate::value) const REGOPER_ARRAY: u32 = 2_208;
    pub(in crate::value) const REGOPERATOR_ARRAY: u32 = 2_209;
    pub(in crate::value) const REGCLASS_ARRAY: u32 = 2_210;
    pub(in crate::value) const REGTYPE_ARRAY: u32 = 2_211;
    pub(in crate::value) const RECORD: u32 = 2_249;
    pub(in crate::value) const CSTRING: u32 = 2_275;
    pub(in crate::value) const VOID: u32 = 2_278;
    pub(in crate::value) const RECORD_ARRAY: u32 = 2_287;
    pub(in crate::value) const TXID_SNAPSHOT_ARRAY: u32 = 2_949;
    pub(in crate::value) const UUID: u32 = 2_950;
    pub(in crate::value) const UUID_ARRAY: u32 = 2_951;
    pub(in crate::value) const TXID_SNAPSHOT: u32 = 2_970;
    pub(in crate::value) const PG_LSN: u32 = 3_220;
    pub(in crate::value) const PG_LSN_ARRAY: u32 = 3_221;
    pub(in crate::value) const REGCONFIG: u32 = 3_734;
    pub(in crate::value) const REGCONFIG_ARRAY: u32 = 3_735;
    pub(in crate::value) const REGDICTIONARY: u32 = 3_769;
    pub(in crate::value) const REGDICTIONARY_ARRAY: u32 = 3_770;
    pub(in crate::value) const JSONB: u32 = 3_802;
    pub(in crate::value) const JSONB_ARRAY: u32 = 3_807;
    pub(in crate::value) const INT4RANGE: u32 = 3_904;
    pub(in crate::value) const INT4RANGE_ARRAY: u32 = 3_905;
    pub(in crate::value) const NUMRANGE: u32 = 3_906;
    pub(in crate::value) const NUMRANGE_ARRAY: u32 = 3_907;
    pub(in crate::value) const TSRANGE: u32 = 3_908;
    pub(in crate::value) const TSRANGE_ARRAY: u32 = 3_909;
    pub(in crate::value) const TSTZRANGE: u32 = 3_910;
    pub(in crate::value) const TSTZRANGE_ARRAY: u32 = 3_911;
    pub(in crate::value) const DATERANGE: u32 = 3_912;
    pub(in crate::value) const DATERANGE_ARRAY: u32 = 3_913;
    pub(in crate::value) const INT8RANGE: u32 = 3_926;
    pub(in crate::value) const INT8RANGE_ARRAY: u32 = 3_927;
    pub(in crate::value) const JSONPATH: u32 = 4_072;
    pub(in crate::value) const JSONPATH_ARRAY: u32 = 4_073;
    pub(in crate::value) const REGNAMESPACE: u32 = 4_089;
    pub(in crate::value) const REGNAMESPACE_ARRAY: u32 = 4_090;
    pub(in crate::value) const REGROLE: u32 = 4_096;
    pub(in crate::value) const REGROLE_ARRAY: u32 = 4_097;
    pub(in crate::value) const REGCOLLATION: u32 = 4_191;
    pub(in crate::value) const REGCOLLATION_ARRAY: u32 = 4_192;
    pub(in crate::value) const INT4MULTIRANGE: u32 = 4_451;
    pub(in crate::value) const NUMMULTIRANGE: u32 = 4_532;
    pub(in crate::value) const TSMULTIRANGE: u32 = 4_533;
    pub(in crate::value) const TSTZMULTIRANGE: u32 = 4_534;
    pub(in crate::value) const DATEMULTIRANGE: u32 = 4_535;
    pub(in crate::value) const INT8MULTIRANGE: u32 = 4_536;
    pub(in crate::value) const PG_SNAPSHOT: u32 = 5_038;
    pub(in crate::value) const PG_SNAPSHOT_ARRAY: u32 = 5_039;
    pub(in crate::value) const XID8: u32 = 5_069;
    pub(in crate::value) const INT4MULTIRANGE_ARRAY: u32 = 6_150;
    pub(in crate::value) const NUMMULTIRANGE_ARRAY: u32 = 6_151;
    pub(in crate::value) const TSMULTIRANGE_ARRAY: u32 = 6_152;
    pub(in crate::value) const TSTZMULTIRANGE_ARRAY: u32 = 6_153;
    pub(in crate::value) const DATEMULTIRANGE_ARRAY: u32 = 6_155;
    pub(in crate::value) const INT8MULTIRANGE_ARRAY: u32 = 6_157;
}
