//! Who asks, as far as that is known, and telling what they were shown.
//!
//! Owns where a request's purpose comes from: the header `x-pgwitness-purpose`. Who it is, the pass says with which it was let in; without
//! one there is no asker.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{StatusCode, request::Parts},
};

use crate::{
    access::Pass,
    accesses::{Accesses, Answered, Question},
    log,
};

/// Why somebody asks: free text.
pub(crate) const PURPOSE: &str = "x-pgwitness-purpose";

/// Whoever made a request.
pub(super) struct Asker {
    pass: Pass,
    question: Question,
    since_ns: u64,
}

/// A question that will have been answered.
pub(super) struct Asked {
    accesses: Option<Arc<Accesses>>,
    question: Question,
    since_ns: u64,
    /// Until it was told.
    open: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // A place that nobody was let in to has no asker: that would be a fault of the table of places.
        let pass = parts.extensions.get::<Pass>().cloned();
        let pass = pass.ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let purpose = parts
            .headers
            .get(PURPOSE)
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        Ok(Self {
            question: Question {
                who: pass.who().to_owned(),
                // The port is another one each time.
                address: address.map_or_else(String::new, |ConnectInfo(address)| address.ip().to_string()),
                purpose: purpose.unwrap_or_default().into_owned(),
                kind: "",
                text: parts.uri.query().unwrap_or_default().to_owned(),
            },
            since_ns: log::unix_ns(),
            pass,
        })
    }
}

impl Asker {
    /// By whom limits are counted: who is not known is told apart by the address.
    pub(super) fn user(&self) -> String {
        match self.pass.is_somebody() {
            true => self.pass.who().to_owned(),
            false => format!("{} {}", self.question.who, self.question.address),
        }
    }

    /// What lets them in.
    pub(super) fn pass(&self) -> Pass {
        self.pass.clone()
    }

    /// Asks with the parameters of the address.
    pub(super) fn asks(self, kind: &'static str, accesses: Option<&Arc<Accesses>>) -> Asked {
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
    pub(super) fn says(
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
    pub(super) async fn answered(&mut self, rows: Option<usize>) {
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

    /// Tells that something is shown over time from now on; `end` is what its end is called.
    pub(super) async fn lasts(mut self, end: &'static str) -> Lasting {
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
pub(super) struct Lasting {
    asked: Asked,
    end: &'static str,
    shown: usize,
}

impl Lasting {
    /// So many rows more were shown.
    pub(super) fn count(&mut self, rows: usize) {
        self.shown += rows;
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.asked.told_later(self.end, Some(self.shown));
    }
}
