//! One answer: made within its time and its room, then sent as fast as the client reads.
//!
//! Owns the limits of an answer. Refuses to be cut off: whoever adds up what a dashboard got must not get a part, so what does not fit is an
//! error.

use std::{collections::HashMap, sync::Arc};

use anyhow::{bail, ensure};
use datafusion::{
    arrow::{
        array::{Array as _, RecordBatch},
        datatypes::{Schema, SchemaRef},
    },
    logical_expr::LogicalPlan,
    prelude::SessionContext,
};
use datafusion_postgres::{
    arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch},
    pgwire::{
        api::{
            portal::Format,
            results::{QueryResponse, Response},
        },
        error::PgWireResult,
        types::format::FormatOptions,
    },
};
use futures::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::{Shown, schema_in_json};

/// What a question came to.
pub(super) struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// Given back when it was read.
    room: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// Runs a plan.
    pub(super) async fn of(
        context: &SessionContext,
        plan: LogicalPlan,
        mut shown: Shown,
        room: Arc<Semaphore>,
    ) -> anyhow::Result<Self> {
        let frame = context.execute_logical_plan(plan).await?;
        let schema: &Schema = frame.schema().as_arrow();
        let mut answer = Self {
            schema: schema_in_json(schema),
            batches: Vec::new(),
            room: None,
        };
        let names_events = *answer.schema != *schema;
        let mut stream = frame.execute_stream().await?;
        let mut bytes = 0;
        while let Some(batch) = stream.next().await {
            let mut batch = batch?;
            if names_events {
                // It reads files: not on the threads that serve everybody.
                let made = tokio::task::spawn_blocking(move || (shown.in_json(&batch), shown));
                let made = made.await?;
                shown = made.1;
                batch = made.0?;
            }
            for column in batch.columns() {
                bytes += column.to_data().get_slice_memory_size()?;
            }
            ensure!(bytes <= MAX_BYTES, Unfit::TooLarge);
            answer.take_room(bytes, &room)?;
            answer.batches.push(batch);
        }
        Ok(answer)
    }

    /// Has room for so many bytes, or fails.
    fn take_room(&mut self, bytes: usize, room: &Arc<Semaphore>) -> anyhow::Result<()> {
        let has = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from((bytes >> 10).saturating_sub(has))?;
        let Ok(more) = Arc::clone(room).try_acquire_many_owned(more) else {
            bail!(Unfit::NoRoom);
        };
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        Ok(())
    }

    pub(super) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// As a client wants it.
    pub(super) fn into_response(
        self,
        format: &Format,
        client: &HashMap<String, String>,
    ) -> PgWireResult<Response> {
        let options = Arc::new(FormatOptions::from_client_metadata(client));
        let fields = Arc::new(arrow_schema_to_pg_fields(&self.schema, format, Some(options))?);
        let of_rows = Arc::clone(&fields);
        let room = self.room;
        let rows = self.batches.into_iter().flat_map(move |batch| {
            // Until the last row was sent, or nobody reads on.
            let _room = &room;
            encode_recordbatch(Arc::clone(&of_rows), batch)
        });
        Ok(Response::Query(QueryResponse::new(fields, stream::iter(rows))))
    }
}

/// Why there is no answer, though there might be one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the answer takes more than {} MiB: narrow it, or LIMIT it; an export has no such limit", MAX_BYTES >> 20)]
    TooLarge,
    #[error("too many large answers are being read at once: ask again when one is over")]
    NoRoom,
}

/// Size of an answer, as over HTTP; there is no limit of rows.
const MAX_BYTES: usize = 32 << 20;
