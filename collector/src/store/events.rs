//! The column `event`: the JSON form, made of the evidence when an answer shows it.
//!
//! Inside the engine an event is only named: sixteen bytes, its log entry and its number. Owns that name and the way
//! from it to the JSON form. Refuses to make the form any earlier: it takes longer than all that ingest does with an
//! event, and most are never looked at.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, anyhow};
use datafusion::{
    arrow::{
        array::{AsArray, FixedSizeBinaryBuilder},
        datatypes::{DataType, Int64Type},
    },
    common::{Result, exec_err},
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use evidence::OpenedBatch;
use proto::whole;

/// Where batches can be read back.
pub trait Batches: Send + Sync {
    /// The batch that is log entry `log_index`, checked.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or does not hold.
    fn read(&self, log_index: u64) -> anyhow::Result<OpenedBatch>;
}

impl Batches for crate::log::Places {
    fn read(&self, log_index: u64) -> anyhow::Result<OpenedBatch> {
        self.read(log_index)
    }
}

/// `event_name(log_index, seq)`.
pub(super) fn name_function() -> ScalarUDF {
    create_udf(
        "event_name",
        vec![DataType::Int64, DataType::Int64],
        NAME,
        Volatility::Immutable,
        Arc::new(names),
    )
}

fn names(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let [entries, seqs] = arguments.as_slice() else {
        return exec_err!("event_name takes a log entry and a number");
    };
    let (entries, seqs) = (
        entries.as_primitive::<Int64Type>(),
        seqs.as_primitive::<Int64Type>(),
    );
    let mut names = FixedSizeBinaryBuilder::with_capacity(entries.len(), NAME_BYTES);
    for (entry, seq) in entries.iter().zip(seqs) {
        match entry.zip(seq) {
            Some((entry, seq)) => {
                let name = (u128::from(entry.cast_unsigned()) << 64) | u128::from(seq.cast_unsigned());
                names.append_value(name.to_be_bytes())?;
            }
            None => names.append_null(),
        }
    }
    Ok(ColumnarValue::Array(Arc::new(names.finish())))
}

/// Makes JSON forms for one answer.
pub(super) struct Shown {
    batches: Option<Arc<dyn Batches>>,
    /// Rows are in whatever order was asked for, but mostly near each other.
    open: HashMap<u64, OpenedBatch>,
}

impl Shown {
    pub(super) fn new(batches: Option<Arc<dyn Batches>>) -> Self {
        Self {
            batches,
            open: HashMap::new(),
        }
    }

    /// The JSON form of the event with this name; `None` where the store has no evidence at hand.
    pub(super) fn json(&mut self, name: &[u8]) -> anyhow::Result<Option<String>> {
        let Some(batches) = &self.batches else {
            return Ok(None);
        };
        let name = u128::from_be_bytes(name.try_into().context("not the name of an event")?);
        let (entry, seq) = ((name >> 64) as u64, name as u64);
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&entry) {
            self.open.clear();
        }
        let batch = match self.open.entry(entry) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let batch = batches
                    .read(entry)
                    .context("the evidence log cannot be read (pgwitness-collector verify)")?;
                place.insert(batch)
            }
        };
        let nth = seq.checked_sub(batch.header.first_event_seq).map(usize::try_from);
        let encoded = nth.and_then(Result::ok).and_then(|nth| batch.events.get(nth));
        let encoded = encoded.with_context(|| format!("entry {entry} has no event {seq}"))?;
        let event = whole::event(seq, encoded, &batch.definitions)
            .map_err(|refused| anyhow!("entry {entry} of the log: event {seq} {refused}"))?;
        Ok(Some(proto::json::event(&batch.header.agent_id, &event)))
    }
}

const NAME_BYTES: i32 = 16;

/// The type of names, which nothing else in an answer has.
pub(super) const NAME: DataType = DataType::FixedSizeBinary(NAME_BYTES);

/// Batches unpacked at a time: a few agents' newest; each may take 64 MiB at its cap.
const MAX_OPEN: usize = 8;
