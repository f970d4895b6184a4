//! Parties, templates and manners in files: each whole, in one column, where Parquet keeps what is equal once.
//!
//! To look up some thirty texts of each row in a dictionary of its own, column by column, was most of what a seal cost.
//! Owns what a file has instead, and the way back to the columns that SQL sees. Refuses to know what the columns mean:
//! that is `columns`', for files and tail alike.

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, RecordBatchOptions},
        compute::cast,
        datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
    },
    common::{DFSchema, Result, exec_err},
    logical_expr::{ColumnarValue, Expr, Volatility, create_udf},
    prelude::{SessionContext, col},
};
use prost::{DecodeError, Message};
use proto::v1;

use super::{
    amendments::{Stored, stripped},
    columns::{COLUMNS, Column, Get, NARROWING, SOUGHT},
    decoded::{Decoded, Part, external},
    manner::{Amends, Manner},
};

/// The columns that hold whole parts, behind all others.
pub(super) const PARTY: &str = "party";
pub(super) const TEMPLATE: &str = "template";
pub(super) const MANNER: &str = "manner";

/// What a file has.
pub(super) fn file_schema() -> SchemaRef {
    SCHEMA.clone()
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let own = COLUMNS
        .iter()
        .filter(|(name, column)| whole(name, column).is_none())
        .map(|(name, column)| Field::new(*name, column.data_type(), true));
    let parts = [PARTY, TEMPLATE, MANNER].map(|name| Field::new(name, part_type(), true));
    Arc::new(Schema::new(own.chain(parts).collect::<Vec<_>>()))
});

/// The column of a file that this one is read out of; `None` where the file has it as it is.
pub(super) fn whole(name: &str, column: &Column) -> Option<&'static str> {
    let own = SOUGHT.contains(&name) || NARROWING.contains(&name);
    match column {
        Column::Party(_) if !own => Some(PARTY),
        Column::Template(_) if !own => Some(TEMPLATE),
        Column::Manner(_) if !own => Some(MANNER),
        _ => None,
    }
}

/// The parts as a file holds them, in the order of its columns: what no column says of them is left out, because each row's
/// part is compared with those known.
pub(super) fn whole_parts(
    parties: &[&v1::Party],
    templates: &[&v1::Query],
    manners: &[&Manner],
) -> [ArrayRef; WHOLE] {
    let party = |party: &&v1::Party| {
        let mut party = v1::Party::clone(party);
        party.attribution = party.attribution.map(stripped);
        party.encode_to_vec()
    };
    let template = |template: &&v1::Query| {
        let mut template = v1::Query::clone(template);
        if let Some(statement) = &mut template.statement {
            statement.source.clear();
        }
        template.encode_to_vec()
    };
    let manner = |manner: &&Manner| MannerInFile::from(*manner).encode_to_vec();
    [
        Arc::new(BinaryArray::from_iter_values(parties.iter().map(party))),
        Arc::new(BinaryArray::from_iter_values(templates.iter().map(template))),
        Arc::new(BinaryArray::from_iter_values(manners.iter().map(manner))),
    ]
}

/// Columns of whole parts.
pub(super) const WHOLE: usize = 3;

/// A manner as a file holds it, but for its kind, which is a column.
#[derive(Clone, PartialEq, Message)]
struct MannerInFile {
    #[prost(int32, tag = "1")]
    encryption: i32,
    #[prost(string, tag = "2")]
    tag: String,
    #[prost(int32, optional, tag = "3")]
    phase: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    outcome: Option<i32>,
    #[prost(string, tag = "5")]
    sqlstate: String,
    #[prost(string, tag = "6")]
    tx_status: String,
    #[prost(int32, optional, tag = "7")]
    tx_final: Option<i32>,
    #[prost(string, tag = "8")]
    gap_reason: String,
    #[prost(string, tag = "9")]
    end_user: String,
    #[prost(string, tag = "10")]
    amends_agent: String,
    #[prost(string, tag = "11")]
    amends_session: String,
    #[prost(uint64, repeated, tag = "12")]
    amends_events: Vec<u64>,
    #[prost(bool, tag = "13")]
    takes_back: bool,
    #[prost(string, repeated, tag = "14")]
    subject_ways: Vec<String>,
    #[prost(bool, tag = "15")]
    names_pod: bool,
}

impl From<&Manner> for MannerInFile {
    fn from(manner: &Manner) -> Self {
        let amends = manner.amends.as_ref();
        Self {
            encryption: manner.encryption,
            tag: manner.tag.to_string(),
            phase: manner.phase,
            outcome: manner.outcome,
            sqlstate: manner.sqlstate.to_string(),
            tx_status: manner.tx_status.to_string(),
            tx_final: manner.tx_final,
            gap_reason: manner.gap_reason.to_string(),
            end_user: manner.end_user.to_string(),
            amends_agent: amends.map_or_else(String::new, |of| of.agent.to_string()),
            amends_session: amends.map_or_else(String::new, |of| of.session.to_string()),
            amends_events: amends.map_or_else(Vec::new, |of| of.events.to_vec()),
            takes_back: amends.is_some_and(|of| of.takes_back),
            names_pod: amends.is_some_and(|of| of.names_pod),
            subject_ways: manner.subject_ways.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<MannerInFile> for Manner {
    fn from(manner: MannerInFile) -> Self {
        Self {
            kind: "",
            encryption: manner.encryption,
            tag: manner.tag.into(),
            phase: manner.phase,
            outcome: manner.outcome,
            sqlstate: manner.sqlstate.into(),
            tx_status: manner.tx_status.into(),
            tx_final: manner.tx_final,
            gap_reason: manner.gap_reason.into(),
            end_user: manner.end_user.into(),
            subject_ways: manner.subject_ways.into_iter().map(Into::into).collect(),
            amends: (!manner.amends_agent.is_empty()).then(|| {
                Box::new(Amends {
                    agent: manner.amends_agent.into(),
                    session: manner.amends_session.into(),
                    events: manner.amends_events.into(),
                    takes_back: manner.takes_back,
                    names_pod: manner.names_pod,
                })
            }),
        }
    }
}

/// What is asked of each row, and follows from one of its parts alone: so it is worked out once for each part that is there.
pub(super) struct Derived {
    /// The column's name.
    pub(super) name: &'static str,
    /// [`PARTY`], [`TEMPLATE`] or [`MANNER`].
    pub(super) part: &'static str,
    /// Over the columns of that part.
    pub(super) of: Expr,
}

/// All columns, of the rows of a file, and those that are derived.
pub(super) fn columns_of_files(session: &SessionContext, derived: &[Derived]) -> Result<Vec<Expr>> {
    let decoded = Arc::new(Decoded::default());
    let column = |(name, column): &'static (&'static str, Column)| match whole(name, column) {
        None => col(*name),
        Some(part) => {
            let decoded = Arc::clone(&decoded);
            let read = move |parts: &ArrayRef| read(name, column, &decoded, parts);
            function(part, name, column.data_type(), read)
        }
    };
    let mut columns: Vec<Expr> = COLUMNS.iter().map(column).collect();
    for one in derived {
        columns.push(one.once(session, &decoded)?);
    }
    Ok(columns)
}

/// A column that is made of the column `part`.
fn function(
    part: &'static str,
    name: &'static str,
    data_type: DataType,
    make: impl Fn(&ArrayRef) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Expr {
    let call = move |arguments: &[ColumnarValue]| {
        let arguments = ColumnarValue::values_to_arrays(arguments)?;
        let [parts] = arguments.as_slice() else {
            return exec_err!("a part's column takes the part");
        };
        Ok(ColumnarValue::Array(make(&cast(parts, &part_type())?)?))
    };
    let function = create_udf(
        &format!("{part}_{name}"),
        vec![part_type()],
        data_type,
        Volatility::Immutable,
        Arc::new(call),
    );
    function.call(vec![col(part)]).alias(name)
}

impl Derived {
    /// The column, of the rows of a file.
    fn once(&self, session: &SessionContext, decoded: &Arc<Decoded>) -> Result<Expr> {
        let Self { name, part, of } = self;
        let (name, part) = (*name, *part);
        let used = of.column_refs();
        let columns: Vec<&'static (&'static str, Column)> = COLUMNS
            .iter()
            .filter(|(name, column)| {
                whole(name, column) == Some(part) && used.iter().any(|used| used.name() == *name)
            })
            .collect();
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(*name, column.data_type(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let of = session.create_physical_expr(of.clone(), &DFSchema::try_from(schema.as_ref().clone())?)?;
        let data_type = of.data_type(&schema)?;
        let evaluate = move |arrays: Vec<ArrayRef>, rows: usize| {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)?;
            of.evaluate(&batch)?.into_array(rows)
        };
        let decoded = Arc::clone(decoded);
        let make = move |parts: &ArrayRef| match part {
            PARTY => decoded.parties.column(name, parts, |parts| {
                evaluate(arrays(&columns, parts, as_party), parts.len())
            }),
            TEMPLATE => decoded.templates.column(name, parts, |parts| {
                evaluate(arrays(&columns, parts, as_template), parts.len())
            }),
            _ => decoded.manners.column(name, parts, |parts| {
                evaluate(arrays(&columns, parts, as_manner), parts.len())
            }),
        };
        Ok(function(part, name, data_type, make))
    }
}

/// These columns of these parts.
fn arrays<T>(
    columns: &[&'static (&'static str, Column)],
    parts: &[&T],
    as_own: impl Fn(&Column) -> Option<&Get<T>>,
) -> Vec<ArrayRef> {
    let of = columns.iter().filter_map(|(_, column)| as_own(column));
    of.map(|get| get.values(parts)).collect()
}

fn as_party(column: &Column) -> Option<&Get<v1::Party>> {
    match column {
        Column::Party(get) => Some(get),
        _ => None,
    }
}

fn as_template(column: &Column) -> Option<&Get<v1::Query>> {
    match column {
        Column::Template(get) => Some(get),
        _ => None,
    }
}

fn as_manner(column: &Column) -> Option<&Get<Manner>> {
    match column {
        Column::Manner(get) => Some(get),
        _ => None,
    }
}

impl Part for v1::Party {
    fn read(encoded: &[u8]) -> std::result::Result<Self, DecodeError> {
        Self::decode(encoded)
    }
}

impl Part for v1::Query {
    fn read(encoded: &[u8]) -> std::result::Result<Self, DecodeError> {
        Self::decode(encoded)
    }
}

impl Part for Manner {
    fn read(encoded: &[u8]) -> std::result::Result<Self, DecodeError> {
        MannerInFile::decode(encoded).map(Self::from)
    }
}

/// A column of the rows that have these parts.
fn read(name: &'static str, column: &Column, decoded: &Decoded, parts: &ArrayRef) -> Result<ArrayRef> {
    match column {
        Column::Party(get) => decoded.parties.column(name, parts, |parts| Ok(get.values(parts))),
        Column::Template(get) => decoded
            .templates
            .column(name, parts, |parts| Ok(get.values(parts))),
        Column::Manner(get) => decoded.manners.column(name, parts, |parts| Ok(get.values(parts))),
        _ => exec_err!("a column of no part"),
    }
}

/// The amendments among rows of a file; columns: number, log entry, party, manner.
pub(super) fn amendments(rows: &RecordBatch, into: &mut Vec<Stored>) -> Result<()> {
    let [seqs, entries, parties, manners] = rows.columns() else {
        return exec_err!("an amendment is four columns");
    };
    let (seqs, entries) = (
        seqs.as_primitive::<Int64Type>(),
        entries.as_primitive::<Int64Type>(),
    );
    let (parties, manners) = (
        cast(parties, &DataType::Binary)?,
        cast(manners, &DataType::Binary)?,
    );
    let (parties, manners) = (parties.as_binary::<i32>(), manners.as_binary::<i32>());
    for row in 0..rows.num_rows() {
        if parties.is_null(row) || manners.is_null(row) {
            continue;
        }
        let party = v1::Party::decode(parties.value(row)).map_err(external)?;
        let manner = MannerInFile::decode(manners.value(row)).map_err(external)?;
        if let Some(attribution) = party.attribution {
            into.push(Stored {
                log_index: entries.value(row).cast_unsigned(),
                seq: seqs.value(row).cast_unsigned(),
                agent: manner.amends_agent,
                session: manner.amends_session.into(),
                attribution,
                events: manner.amends_events.into(),
                takes_back: manner.takes_back,
                names_pod: manner.names_pod,
            });
        }
    }
    Ok(())
}

/// The type of a part: what is equal is there once.
fn part_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Binary))
}
