//! Who asks, as far as that is known, and telling what they were shown.
//!
//! Owns the record of a question from when it is asked to when it is answered, or given up. Who it is, the pass says with which it was let
//! in; without one there is no asker.

use std::sync::Arc;

use super::Pass;
use crate::{
    accesses::{Accesses, Answered, Question},
    log,
};

/// Whoever asks something.
pub(crate) struct Asker {
    pass: Pass,
    question: Question,
    since_ns: u64,
}

/// A question that will have been answered.
pub(crate) struct Asked {
    accesses: Option<Arc<Accesses>>,
    question: Question,
    since_ns: u64,
    /// Until it was told.
    open: bool,
}

impl Asker {
    /// Asks now, from an address and for a purpose; `text` is what is asked, unless it is said otherwise later.
    pub(crate) fn new(pass: Pass, address: String, purpose: String, text: String) -> Self {
        Self {
            question: Question {
                who: pass.who().to_owned(),
                address,
                purpose,
                kind: "",
                text,
            },
            since_ns: log::unix_ns(),
            pass,
        }
    }

    /// By whom limits are counted: who is not known is told apart by the address.
    pub(crate) fn user(&self) -> String {
        match self.pass.is_somebody() {
            true => self.pass.who().to_owned(),
            false => format!("{} {}", self.question.who, self.question.address),
        }
    }

    /// What lets them in.
    pub(crate) fn pass(&self) -> Pass {
        self.pass.clone()
    }

    /// Asks with the parameters of the address.
    pub(crate) fn asks(self, kind: &'static str, accesses: Option<&Arc<Accesses>>) -> Asked {
        Asked {
            accesses: accesses.cloned(),
            question: Question {
                kind,
                ..self.question
            },
            since_ns: self.since_ns,
            open: true,
        }
    }

    /// Asks with words.
    pub(crate) fn says(
        mut self,
        kind: &'static str,
        text: String,
        accesses: Option<&Arc<Accesses>>,
    ) -> Asked {
        self.question.text = text;
        self.asks(kind, accesses)
    }
}

impl Asked {
    /// Tells that it was answered with so many rows, or with none because it failed; the answer goes out behind this.
    pub(crate) async fn answered(&mut self, rows: Option<usize>) {
        self.open = false;
        let answered = Answered {
            rows: rows.unwrap_or_default() as u64,
            failed: rows.is_none(),
        };
        if let Some(accesses) = &self.accesses {
            accesses
                .answered(self.question.clone(), answered, self.since_ns)
                .await;
        }
    }

    /// It was no question of the record.
    pub(crate) fn told_nothing(mut self) {
        self.open = false;
    }

    /// Tells that something is shown over time from now on; `end` is what its end is called.
    pub(crate) async fn lasts(mut self, end: &'static str) -> Lasting {
        self.answered(Some(0)).await;
        Lasting {
            asked: self,
            end,
            shown: 0,
        }
    }

    /// Tells it behind whoever asked, who does not wait for that any more.
    fn told_later(&self, kind: &'static str, rows: Option<usize>) {
        let question = Question {
            kind,
            ..self.question.clone()
        };
        let mut later = Self {
            accesses: self.accesses.clone(),
            question,
            since_ns: self.since_ns,
            open: false,
        };
        tokio::spawn(async move { later.answered(rows).await });
    }
}

impl Drop for Asked {
    /// Whoever asked went away while it was being answered: nothing was shown, and the question was asked all the same.
    fn drop(&mut self) {
        if self.open {
            self.told_later(self.question.kind, None);
        }
    }
}

/// Something that is shown over time; its end is told, however it ends.
pub(crate) struct Lasting {
    asked: Asked,
    end: &'static str,
    shown: usize,
}

impl Lasting {
    /// So many rows more were shown.
    pub(crate) fn count(&mut self, rows: usize) {
        self.shown += rows;
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.asked.told_later(self.end, Some(self.shown));
    }
}
