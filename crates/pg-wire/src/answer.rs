//! The answer under way: the results of the request at the head of the pipeline, and whether it is
//! copying. Separate from the pipeline, which decides whose answer it is.

use crate::Nanos;
use crate::exchange::{Columns, Outcome, Phase, ServerError, Source, StatementResult, Tag};
use crate::framing::Frame;
use crate::prepared::no_columns;
use crate::request::Copied;
use crate::rows::KeptRows;

#[derive(Default)]
pub(crate) struct Answer {
    results: Vec<StatementResult>,
    /// The last of `results` has not ended.
    open: bool,
    omitted: u64,
    /// Columns in `results`.
    columns: usize,
    /// What is kept of the rows of the result under way.
    pub(crate) rows: Rows,
    /// The server reads copied data: until that ends it ignores Sync.
    pub(crate) copying_in: bool,
    /// Copied data since the last CopyDone, CopyFail or request.
    pub(crate) incoming: Copied,
}

impl Answer {
    /// The result that this message belongs to; begins one if none is open. `bytes_in` is the size of the request.
    pub(crate) fn extend(&mut self, frame: &Frame, bytes_in: u64) -> &mut StatementResult {
        if !std::mem::replace(&mut self.open, true) {
            let bytes_in = if self.results.is_empty() { bytes_in } else { 0 };
            self.results
                .push(StatementResult::begun(Some(frame.began), bytes_in));
        }
        let last = self.results.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "one was pushed if there was none")]
        let result = &mut self.results[last];
        result.bytes_out += frame.wire_bytes();
        result
    }

    /// Data from the client, which may come before the server has said that it wants any.
    pub(crate) fn receive(&mut self, frame: &Frame) {
        self.incoming.payload += frame.body;
        self.incoming.wire += frame.wire_bytes();
    }

    /// What was received since the last end of a copy.
    pub(crate) fn take_incoming(&mut self) -> Copied {
        std::mem::take(&mut self.incoming)
    }

    /// Whether a result is under way.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Adds copied data to the open result.
    pub(crate) fn copied(&mut self, copied: Copied) {
        if let Some(result) = self.results.last_mut().filter(|_| self.open) {
            *result.copy_bytes.get_or_insert(0) += copied.payload;
            result.bytes_in += copied.wire;
        }
    }

    /// Ends the open result, and any copy with it.
    pub(crate) fn end(
        &mut self,
        at: Nanos,
        outcome: Outcome,
        phase: Phase,
        error: Option<ServerError>,
        bounds: Bounds,
    ) {
        if self.copying_in {
            let copied = self.take_incoming();
            self.copied(copied);
            self.copying_in = false;
        }
        if !std::mem::take(&mut self.open) {
            return;
        }
        // Beyond the limit the error that ends the string is kept still, and no second one.
        let limit = bounds.results + usize::from(error.is_some());
        if self.results.len() > limit {
            self.omitted += 1;
            self.results.pop();
            self.rows = Rows::Undecided;
            return;
        }
        let kept = self.rows.take();
        let Some(result) = self.results.last_mut() else {
            return;
        };
        result.kept = kept;
        if self.columns + result.columns.len() > bounds.columns {
            result.columns = no_columns();
        }
        self.columns += result.columns.len();
        (result.outcome, result.phase, result.error, result.ended) = (outcome, phase, error, at);
    }

    /// Ends what is open as not seen to its end; gives at least one result.
    pub(crate) fn abandon(
        &mut self,
        at: Nanos,
        outcome: Outcome,
        phase: Phase,
        bytes_in: u64,
        bounds: Bounds,
    ) {
        if self.results.is_empty() {
            self.results.push(StatementResult::begun(None, bytes_in));
            self.open = true;
        }
        self.end(at, outcome, phase, None, bounds);
    }

    /// The results, and how many more there were. What was received beyond stays for a later request.
    pub(crate) fn take(&mut self) -> (Vec<StatementResult>, u64) {
        if std::mem::take(&mut self.open) {
            self.results.pop();
        }
        self.rows = Rows::Undecided;
        self.columns = 0;
        self.copying_in = false;
        (
            std::mem::take(&mut self.results),
            std::mem::take(&mut self.omitted),
        )
    }

    /// The columns of the result under way, if they were described with it.
    pub(crate) fn described(&self) -> Option<&Columns> {
        let result = self.results.last().filter(|_| self.open)?;
        (!result.columns.is_empty()).then_some(&result.columns)
    }

    /// Says what the result under way is of.
    pub(crate) fn set_source(&mut self, source: Box<Source>) {
        if let Some(result) = self.results.last_mut().filter(|_| self.open) {
            result.source = Some(source);
        }
    }

    /// Position of the result under way among those of its request.
    pub(crate) fn index(&self) -> usize {
        let omitted = usize::try_from(self.omitted).unwrap_or(usize::MAX);
        self.results.len().saturating_sub(1).saturating_add(omitted)
    }

    /// The command tag of the result under way.
    pub(crate) fn tag(&self) -> &str {
        let result = self.results.last().filter(|_| self.open);
        result
            .and_then(|result| result.tag.as_deref())
            .unwrap_or_default()
    }

    /// Whether the result under way is the first one of its request.
    pub(crate) fn is_first(&self) -> bool {
        self.results.len() == 1 && self.open && self.omitted == 0
    }

    /// Gives memory back that only a busy connection needs.
    pub(crate) fn rest(&mut self) {
        self.results.shrink_to(0);
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        self.results.capacity() * size_of::<StatementResult>()
            + self.results.iter().map(result_bytes).sum::<usize>()
            + match &self.rows {
                Rows::Kept(rows) | Rows::Full(rows) => rows.retained_bytes(),
                Rows::Undecided | Rows::Unwanted => 0,
            }
    }
}

/// Whether values of the rows under way are kept.
#[derive(Default)]
pub(crate) enum Rows {
    /// No row has come yet.
    #[default]
    Undecided,
    /// No column is wanted, or no more of them.
    Unwanted,
    Kept(Box<KeptRows>),
    /// All that there was room for.
    Full(Box<KeptRows>),
}

impl Rows {
    fn take(&mut self) -> Option<Box<KeptRows>> {
        match std::mem::take(self) {
            Self::Kept(rows) | Self::Full(rows) => Some(rows),
            Self::Undecided | Self::Unwanted => None,
        }
    }
}

/// What one exchange may keep.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) results: usize,
    pub(crate) columns: usize,
}

/// What a result keeps alive beside itself.
pub(crate) fn result_bytes(result: &StatementResult) -> usize {
    result.tag.as_ref().map_or(0, Tag::len)
        + result
            .error
            .as_ref()
            .map_or(0, |error| error.severity.len() + error.sqlstate.len())
        + result
            .source
            .as_ref()
            .map_or(0, |source| size_of::<Source>() + source.sql.len())
        + result.kept.as_ref().map_or(0, |rows| rows.retained_bytes())
        + crate::prepared::columns_bytes(&result.columns)
}
