//! The column `event`: the JSON form, made of the evidence when an answer shows it.
//!
//! Inside the engine an event is only named: sixteen bytes, its log entry and its number. Owns that name and the way
//! from it to the JSON form. Refuses to make the form any earlier: it takes longer than all that ingest does with an
//! event, and most are never looked at.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, anyhow};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, FixedSizeBinaryBuilder, RecordBatch, RecordBatchOptions, StringArray},
        datatypes::{DataType, Int64Type, Schema, SchemaRef},
    },
    common::{Result, exec_err},
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use evidence::OpenedBatch;
use proto::{json::Amended, v1, whole};

use super::amendments::{Row, View};

use crate::expectations::{Judge, with_mark};

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

/// Makes JSON forms, of one answer or of one event.
#[derive(Clone, Default)]
pub(crate) struct Shown {
    batches: Option<Arc<dyn Batches>>,
    amendments: View,
    judge: Option<Arc<Judge>>,
    /// Rows are in whatever order was asked for, but mostly near each other.
    open: HashMap<u64, OpenedBatch>,
}

/// The amendment that stands for an event's session, and what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amends(u32);

impl Shown {
    pub(super) fn new(
        batches: Option<Arc<dyn Batches>>,
        amendments: View,
        judge: Option<Arc<Judge>>,
    ) -> Self {
        Self {
            batches,
            amendments,
            judge,
            open: HashMap::new(),
        }
    }

    /// The JSON form of the event with this name; `None` where the store has no evidence at hand.
    pub(crate) fn json(&mut self, name: &[u8]) -> anyhow::Result<Option<String>> {
        if self.batches.is_none() {
            return Ok(None);
        }
        let name = u128::from_be_bytes(name.try_into().context("not the name of an event")?);
        let (agent, event) = self.event((name >> 64) as u64, name as u64)?;
        let amends = self.amends(
            &agent,
            event.seq,
            event.session.as_ref(),
            event.attribution.as_ref(),
        );
        self.form(&agent, &event, amends).map(Some)
    }

    /// The columns that name events as their JSON form; all others as they are.
    pub(crate) fn in_json(&mut self, batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
        for column in batch.columns() {
            columns.push(match column.as_fixed_size_binary_opt() {
                Some(names) if *column.data_type() == NAME => {
                    let form = |name: Option<&[u8]>| name.map_or(Ok(None), |name| self.json(name));
                    let forms = names.iter().map(form).collect::<anyhow::Result<StringArray>>()?;
                    Arc::new(forms)
                }
                _ => Arc::clone(column),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema = schema_in_json(batch.schema_ref());
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    /// What stands for an event of a session that was recorded so; where one kernel saw both its ends, what its pod is called alone.
    pub(crate) fn amends(
        &self,
        agent: &str,
        seq: u64,
        session: Option<&v1::Session>,
        recorded: Option<&v1::Attribution>,
    ) -> Option<Amends> {
        let observed = i32::from(v1::Confidence::Observed);
        if self.amendments.is_empty() {
            return None;
        }
        let row = recorded.map(|recorded| Row {
            observed: recorded.confidence == observed,
            method: &recorded.method,
        });
        let session = match recorded.and_then(attribution::client_session) {
            Some(client) => client,
            None => &session?.id,
        };
        self.amendments
            .find(agent, session, seq, row.unwrap_or_default())
            .map(Amends)
    }

    /// The principal that columns show for it.
    pub(crate) fn principal(&self, amends: Amends) -> Option<String> {
        let shown = self.amendments.shown(&[amends.0]);
        shown.into_iter().next().map(|attribution| attribution.principal)
    }

    /// The JSON form of an event, with what stands for its session.
    pub(crate) fn form(
        &mut self,
        agent: &str,
        event: &v1::Event,
        amends: Option<Amends>,
    ) -> anyhow::Result<String> {
        let place = amends.and_then(|amends| self.amendments.place(amends.0));
        let (Some(Amends(amends)), Some((entry, seq))) = (amends, place) else {
            return Ok(self.marked(proto::json::event(agent, event), event, None));
        };
        let own;
        let event = if self.amendments.is_of_statements(amends) {
            own = without_others_words(event);
            &own
        } else {
            event
        };
        let by = self.amendments.event_id(amends).unwrap_or_default();
        let (_, amendment) = self.event(entry, seq)?;
        let attribution = amendment.attribution.unwrap_or_default();
        let recorded = event.attribution.as_ref();
        let through = recorded.and_then(|recorded| attribution::through(recorded, &attribution));
        let mut attribution = through.unwrap_or(attribution);
        // As the column has it.
        let observed = |who: &v1::Attribution| who.confidence() == v1::Confidence::Observed;
        if observed(&attribution) && !recorded.is_some_and(observed) {
            attribution.confidence = v1::Confidence::Joined.into();
        }
        let amended = Amended {
            by: &by,
            attribution: &attribution,
        };
        let json = proto::json::amended_event(agent, event, amended);
        Ok(self.marked(json, event, Some(&attribution)))
    }

    fn marked(&self, json: String, event: &v1::Event, amended: Option<&v1::Attribution>) -> String {
        let judge = self.judge.as_ref();
        let verdict = judge.and_then(|judge| judge.of_event(event, amended));
        with_mark(json, verdict.as_deref())
    }

    /// What events are judged by.
    pub(crate) fn judge(&self) -> Option<Arc<Judge>> {
        self.judge.clone()
    }

    /// An event of the log, and its agent.
    fn event(&mut self, entry: u64, seq: u64) -> anyhow::Result<(String, v1::Event)> {
        let batches = self.batches.as_ref().context("there is no evidence log")?;
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
        let nth = nth.and_then(Result::ok);
        let encoded = nth.and_then(|nth| batch.events.get(nth).filter(|_| !batch.is_event_erased(nth)));
        let encoded = encoded.with_context(|| format!("entry {entry} has no event {seq}"))?;
        let event = whole::event(seq, encoded, &batch.definitions)
            .map_err(|refused| anyhow!("entry {entry} of the log: event {seq} {refused}"))?;
        Ok((batch.header.agent_id.clone(), event))
    }
}

/// What [`Shown::in_json`] makes of this.
pub(crate) fn schema_in_json(schema: &Schema) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .map(|field| match *field.data_type() == NAME {
            true => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
            false => Arc::clone(field),
        });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The event without what it says of who is behind the statement, but for its own comment: the server's host did not know that a
/// pooler passed it on, and took what any client had set in the connection for this one's word.
fn without_others_words(event: &v1::Event) -> v1::Event {
    let mut event = event.clone();
    if let Some(v1::event::Body::Query(query)) = &mut event.body
        && let Some(asserted) = &mut query.asserted
    {
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut asserted.claims)
            .into_iter()
            .partition(|claim| claim.source == "sqlcommenter");
        asserted.claims = own;
        if !others.is_empty() && asserted.unknown.is_empty() {
            "foreign".clone_into(&mut asserted.unknown);
        }
        for other in others {
            if !asserted.foreign.contains(&other.says) {
                asserted.foreign.push(other.says);
            }
        }
    }
    event
}

const NAME_BYTES: i32 = 16;

/// The type of names, which nothing else in an answer has.
pub(super) const NAME: DataType = DataType::FixedSizeBinary(NAME_BYTES);

/// Batches unpacked at a time: a few agents' newest; each may take 64 MiB at its cap.
const MAX_OPEN: usize = 8;
