//! What a session is told of SQL by those who know it. Separate because nothing else in it does.

use super::Session;
use crate::framing::Frame;
use crate::frontend::kind;
use crate::limits::Limits;
use crate::pipeline::Split;

/// Tells statements of which the values of parameters are wanted.
pub type Wanted = fn(&[u8]) -> bool;

impl Session {
    /// With this, names that SQL gives in a string of several statements are followed too.
    #[must_use]
    pub fn with_split(mut self, split: Split) -> Session {
        self.pipeline.split = Some(split);
        self
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
