//! What clients ask for, as it is asked: some of it matters to others before it is answered.

use super::Pipeline;
use crate::prepared::Text;
use crate::request::{Ask, Target};

/// Says how much it matters that a text was asked for; `None` is one that nobody knows.
pub type Weigh = fn(Option<&[u8]>) -> u8;

impl Pipeline {
    /// The weight of a request by the text that it runs, now or later.
    pub(super) fn weight(&self, ask: &Ask, weigh: Weigh) -> u8 {
        let of = |text: Option<&Text>| {
            let whole = text.filter(|text| !text.truncated);
            weigh(whole.and_then(|text| text.sql.as_deref()))
        };
        match ask {
            Ask::Query(text) => of(Some(text)),
            Ask::Parse { text, .. } => of(Some(text)),
            Ask::Bind { statement, .. } => {
                match self.prepared.source(&Target::Statement(statement.clone())) {
                    // One that is to be parsed first has been weighed by itself.
                    None if !self.queue.is_empty() => 0,
                    text => of(text),
                }
            }
            // One that is being bound was weighed then.
            Ask::Execute { portal } => self.prepared.text(portal).map_or(0, |text| of(Some(text))),
            _ => 0,
        }
    }
}
