//! The files of the store as tables.
//!
//! Owns which of them a question opens at all: a file of events says by its path in which hour its rows began, so that a question of a
//! day does not open those of a year, whatever asked it; and of which log entries they are. Refuses to leave out a file whose path does not say so.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    common::{Result, ScalarValue},
    datasource::{
        TableType,
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown},
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};

use super::{near, parts, question::Span, seal::hours_in};

/// Files of events.
#[derive(Debug)]
pub(super) struct EventFiles {
    paths: Vec<String>,
    /// The only log entries that are asked for, in order.
    entries: Option<Arc<[i64]>>,
}

impl EventFiles {
    pub(super) fn all(paths: &[String]) -> Self {
        Self {
            paths: paths.to_vec(),
            entries: None,
        }
    }

    /// What lies near to these log entries, which are in order: their rows, and some others.
    pub(super) fn near(paths: &[String], entries: Arc<[i64]>) -> Self {
        let some = |path: &&String| near::has_some_of(path, &entries);
        Self {
            paths: paths.iter().filter(some).cloned().collect(),
            entries: Some(entries),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

#[tonic::async_trait]
impl TableProvider for EventFiles {
    fn schema(&self) -> SchemaRef {
        parts::file_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut span = Span::default();
        filters.iter().for_each(|filter| narrow(&mut span, filter));
        let wanted = |file: &&String| hours_in(file).is_none_or(|hours| span.has_some_of(&hours));
        let files: Vec<String> = self.paths.iter().filter(wanted).cloned().collect();
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let files = sealed(&files, self.schema())?;
        let plan = files.scan(state, projection, filters, limit).await?;
        match &self.entries {
            Some(entries) => near::only(plan, state, entries).await,
            None => Ok(plan),
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // What is asked of them passes over rows; it is asked of each row again.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// Takes from a time what a filter leaves out for sure.
fn narrow(span: &mut Span, filter: &Expr) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
        if let Expr::Between(between) = filter
            && !between.negated
            && is_start(&between.expr)
        {
            span.since_ns = span.since_ns.max(moment(&between.low));
            before(span, moment(&between.high).and_then(|ns| ns.checked_add(1)));
        }
        return;
    };
    if *op == Operator::And {
        narrow(span, left);
        narrow(span, right);
        return;
    }
    let (ns, op) = match (is_start(left), is_start(right)) {
        (true, _) => (moment(right), Some(*op)),
        (_, true) => (moment(left), op.swap()),
        _ => return,
    };
    let Some(ns) = ns else { return };
    match op {
        Some(Operator::Gt | Operator::GtEq) => span.since_ns = span.since_ns.max(Some(ns)),
        Some(Operator::Lt) => before(span, Some(ns)),
        Some(Operator::LtEq) => before(span, ns.checked_add(1)),
        Some(Operator::Eq) => {
            span.since_ns = span.since_ns.max(Some(ns));
            before(span, ns.checked_add(1));
        }
        _ => {}
    }
}

fn before(span: &mut Span, until: Option<i64>) {
    span.until_ns = match (span.until_ns, until) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
}

fn is_start(of: &Expr) -> bool {
    matches!(of, Expr::Column(column) if column.name == "ts_start")
}

fn moment(of: &Expr) -> Option<i64> {
    match of {
        Expr::Literal(ScalarValue::TimestampNanosecond(ns, _), _) => *ns,
        _ => None,
    }
}

/// Exactly these files, so that a seal in the meantime makes no row appear twice.
pub(super) fn sealed(files: &[String], schema: SchemaRef) -> Result<Arc<ListingTable>> {
    let format = ParquetFormat::default().with_metadata_size_hint(Some(FOOTER_BYTES));
    let paths = files
        .iter()
        .map(|file| ListingTableUrl::parse(format!("{ROOT}{file}")))
        .collect::<Result<Vec<_>>>()?;
    let options = ListingOptions::new(Arc::new(format)).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(paths)
        .with_listing_options(options)
        .with_schema(schema);
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// What is read of a file to begin with, from its end: most footers, and little where one page is all that is needed.
pub(super) const FOOTER_BYTES: usize = 64 * 1024;

/// Where the session finds the object store; not an address of anything.
pub(super) const ROOT: &str = "pgwitness://store/";

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::store::question::time;

    #[test]
    fn a_filter_takes_from_a_time_only_what_it_leaves_out_for_sure() {
        let start = || col("ts_start");
        let span = |filter: Expr| {
            let mut span = Span::default();
            narrow(&mut span, &filter);
            (span.since_ns, span.until_ns)
        };
        assert_eq!(
            span(start().gt_eq(time(5)).and(start().lt(time(9)))),
            (Some(5), Some(9))
        );
        assert_eq!(
            span(start().gt(time(5)).and(start().gt(time(3)))),
            (Some(5), None)
        );
        assert_eq!(span(time(5).lt(start())), (Some(5), None));
        assert_eq!(span(time(5).gt_eq(start())), (None, Some(6)));
        assert_eq!(span(start().between(time(2), time(4))), (Some(2), Some(5)));
        assert_eq!(span(start().not_between(time(2), time(4))), (None, None));
        assert_eq!(span(start().eq(time(7))), (Some(7), Some(8)));
        assert_eq!(span(start().lt(time(5)).or(col("seq").gt(lit(1)))), (None, None));
        assert_eq!(span(col("ts_end").lt(time(5))), (None, None));
    }
}
