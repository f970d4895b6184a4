//! What a session is told of SQL by those who know it. Separate because nothing else in it does.

use super::Session;
use crate::backend;
use crate::framing::Frame;
use crate::frontend::{self, kind};
use crate::limits::Limits;
use crate::pipeline::{Split, Weigh};
use crate::rows::RowsOf;

/// Tells statements of which the values of parameters are wanted.
pub type Wanted = fn(&[u8]) -> bool;

impl Session {
    /// With this, names that SQL gives in a string of several statements are followed too.
    #[must_use]
    pub fn with_split(mut self, split: Split) -> Session {
        self.pipeline.split = Some(split);
        self
    }

    /// Each request is weighed by the text that it runs, when it is made.
    #[must_use]
    pub fn with_weight_of(mut self, weigh: Weigh) -> Session {
        self.pipeline.weigh = Some(weigh);
        self
    }

    /// The greatest weight of what was asked since this was last called.
    pub fn take_asked(&mut self) -> u8 {
        std::mem::take(&mut self.pipeline.asked)
    }

    /// From the first Parse on whose text is `wanted`, values of parameters are kept up to
    /// [`Limits::wanted_value_bytes`], if that is more than of all others. Most sessions send none and pay nothing.
    #[must_use]
    pub fn with_values_of(mut self, wanted: Wanted, limits: &Limits) -> Session {
        if limits.wanted_value_bytes > limits.value_bytes {
            self.wanted = Some((wanted, limits.wanted_value_bytes));
        }
        self
    }

    /// Values of the columns that `rows_of` names are kept of every result, up to [`Limits::rows_bytes`].
    #[must_use]
    pub fn with_rows_of(mut self, rows_of: RowsOf) -> Session {
        self.pipeline.rows_of = Some(rows_of);
        self.frontend.keep_by(frontend::plan_with_formats);
        self.backend.keep_by(backend::plan_with_rows);
        self
    }

    /// The server's next bytes are these: before a row it has to be known what is wanted of it.
    pub(super) fn look_for_rows(&mut self, input: &[u8]) {
        if self.pipeline.rows_of.is_some()
            && input.first() == Some(&backend::kind::DATA_ROW)
            && self.backend.at_boundary()
        {
            self.backend.want_of_rows(self.pipeline.row_begins());
        }
    }

    /// The client sent this message: the values of the next ones may be wanted.
    pub(super) fn look_for_wanted(&mut self, frame: &Frame) {
        if let Some((wanted, bytes)) = self.wanted
            && frame.kind == kind::PARSE
            && wanted(self.frontend.capture().second().kept())
        {
            self.wanted = None;
            self.frontend.keep_values(bytes);
        }
    }
}
