//! What a session is told of SQL by those who know it. Separate because nothing else in it does.

use super::Session;
use crate::backend;
use crate::copied::CopyOf;
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

    /// Values of the columns that `copy_of` names are kept of copied data, within the same bounds.
    #[must_use]
    pub fn with_copy_of(mut self, copy_of: CopyOf, limits: &Limits) -> Session {
        self.pipeline.copy_of = Some(copy_of);
        self.copied_value_bytes = limits.row_value_bytes;
        self.frontend.keep_by(frontend::plan_with_formats);
        self.backend.keep_by(backend::plan_with_rows);
        self
    }

    /// The server said that data is to be copied, or that it was: what is wanted of it, or was kept.
    pub(super) fn look_for_copies(&mut self, frame: &Frame) {
        if self.pipeline.copy_of.is_none() {
            return;
        }
        match frame.kind {
            backend::kind::COPY_IN => {
                let reader = self.pipeline.copy_begins(self.copied_value_bytes);
                // Of a message that has begun the first bytes were not looked at.
                let reader = reader.filter(|_| self.frontend.at_boundary());
                self.frontend.want_of_copied(reader);
            }
            backend::kind::COPY_OUT => {
                let reader = self.pipeline.copy_begins(self.copied_value_bytes);
                self.backend.want_of_copied(reader);
            }
            backend::kind::COPY_DONE => {
                if let Some(reader) = self.backend.take_copied() {
                    self.pipeline.copy_ends(reader);
                }
            }
            // What is copied still belongs to nothing that comes after.
            backend::kind::COPY_BOTH | backend::kind::ERROR | backend::kind::READY => {
                self.frontend.want_of_copied(None);
                self.backend.want_of_copied(None);
            }
            _ => {}
        }
    }

    /// The client said that all data was copied.
    pub(super) fn look_for_copied(&mut self, frame: &Frame) {
        if frame.kind == kind::COPY_DONE
            && let Some(reader) = self.frontend.take_copied()
        {
            self.pipeline.copy_ends(reader);
        }
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
