//! Which statement the answer under way belongs to, and what SQL does with names in it. Separate because it is all that
//! the pipeline knows of SQL.

use std::ops::Range;

use bytes::Bytes;

use super::Pipeline;
use crate::exchange::Source;
use crate::name_change::NameChange;
use crate::prepared::Text;
use crate::request::{Ask, Request, Target};
use crate::sql_names::{self, Named};

/// Takes a string of several statements apart: the places of the statements in it, in order. An empty one has no answer
/// and no place.
pub type Split = fn(&str) -> Vec<Range<usize>>;

impl Pipeline {
    /// What the statement that is about to end does to names.
    pub(super) fn name_change(&mut self) -> Option<(NameChange, Option<Text>)> {
        let change = NameChange::of_tag(self.answer.tag())?;
        self.take_apart();
        Some((change, self.statement()))
    }

    /// What the statement that is about to end runs, if that is prepared elsewhere. `None` if nobody knows.
    pub(super) fn source(&mut self) -> Option<Box<Source>> {
        self.take_apart();
        let named = match &self.queue.front()?.ask {
            Ask::Execute { portal } => sql_names::read(self.prepared.text(portal)?.sql.as_deref()?),
            Ask::Query(text) if self.parts.is_none() => {
                let first = self.answer.is_first().then_some(text)?;
                sql_names::read(first.sql.as_deref()?)
            }
            Ask::Query(_) => sql_names::read(self.statement()?.sql.as_deref()?),
            _ => None,
        };
        let text = match named? {
            Named::Execute(name) => self.prepared.source(&Target::Statement(name))?,
            Named::Fetch(name) => self.prepared.source(&Target::Portal(name))?,
            _ => return None,
        };
        Some(Box::new(Source {
            sql: text.sql.clone()?,
            sql_at: text.at,
        }))
    }

    /// The text of what the answer under way is the result of: of EXECUTE and FETCH what they run. `None` if it is not whole,
    /// or not sure.
    pub(super) fn running(&mut self) -> Option<Bytes> {
        if let Some(source) = self.source() {
            return Some(source.sql);
        }
        self.take_apart_if(|_| true);
        self.statement().filter(|text| !text.truncated)?.sql
    }

    /// Whether the answer under way is the first one to a string of several statements.
    pub(super) fn is_first_of_several(&self) -> bool {
        let Some(Ask::Query(text)) = self.queue.front().map(|request| &request.ask) else {
            return false;
        };
        self.answer.is_first() && !text.sql.as_deref().is_some_and(sql_names::is_single)
    }

    /// The text of the statement whose answer is under way, if it is sure which one that is.
    fn statement(&self) -> Option<Text> {
        match &self.queue.front()?.ask {
            Ask::Execute { portal } => self.prepared.text(portal).cloned(),
            Ask::Query(text) if sql_names::is_single(text.sql.as_deref()?) => {
                self.answer.is_first().then(|| text.clone())
            }
            Ask::Query(text) => {
                let part = self.parts.as_ref()?.get(self.answer.index())?.clone();
                let sql = text.sql.as_ref()?;
                Some(Text {
                    whole: part.len() as u64,
                    sql: (part.end <= sql.len()).then(|| sql.slice(part)),
                    at: text.at,
                    ..Text::default()
                })
            }
            _ => None,
        }
    }

    /// Finds the statements of the query string that is being answered, once, if any of them may name something.
    fn take_apart(&mut self) {
        self.take_apart_if(sql_names::may_name);
    }

    fn take_apart_if(&mut self, wanted: fn(&[u8]) -> bool) {
        if self.parts.is_some() {
            return;
        }
        let Some(Request {
            ask: Ask::Query(text),
            ..
        }) = self.queue.front()
        else {
            return;
        };
        let Some(sql) = text.sql.as_deref().filter(|_| !text.truncated) else {
            return;
        };
        if !sql_names::is_single(sql) && wanted(sql) {
            let split = self.split.zip(std::str::from_utf8(sql).ok());
            self.parts = Some(split.map_or_else(Vec::new, |(split, sql)| split(sql)));
        }
    }
}
