//! The rows that are in no file yet, as tables.
//!
//! Owns how they are handed to a question: chunk by chunk, and of each the columns that are asked for; all at once, they would
//! take many times what the tail does. Refuses to know which table it is.

use std::sync::Arc;

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError},
    catalog::{Session, TableProvider},
    common::Result,
    datasource::TableType,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::Expr,
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};

use super::{chunk::Chunk, columns, subjects};

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// A row for each event.
    Events,
    /// A row for each token.
    Subjects,
}

/// A table's rows of these chunks.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub(super) table: Table,
    pub(super) chunks: Vec<Arc<Chunk>>,
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

impl Table {
    fn schema(self) -> SchemaRef {
        match self {
            Self::Events => columns::schema(),
            Self::Subjects => subjects::schema(),
        }
    }

    fn spelt(self, chunk: Arc<Chunk>, projection: Vec<usize>) -> Batches {
        match self {
            Self::Events => Box::new(std::iter::once_with(move || chunk.batch(&projection))),
            Self::Subjects => Box::new(subjects::spelt(chunk, projection)),
        }
    }
}

#[tonic::async_trait]
impl TableProvider for Unsealed {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.schema().fields().len()).collect();
        let columns = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.schema().project(&columns)?);
        let rows = Arc::new(Rows {
            table: self.table,
            chunks: self.chunks.clone(),
            columns,
            schema: schema.clone(),
        });
        let plan = StreamingTableExec::try_new(schema, vec![rows], None, [], false, limit)?;
        Ok(Arc::new(plan))
    }
}

#[derive(Debug)]
struct Rows {
    table: Table,
    chunks: Vec<Arc<Chunk>>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, columns) = (self.table, self.columns.clone());
        let batches = self
            .chunks
            .clone()
            .into_iter()
            .flat_map(move |chunk| table.spelt(chunk, columns.clone()));
        let stream = futures::stream::iter(batches.map(|batch| Ok(batch?)));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}
