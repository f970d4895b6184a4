//! What one session may be doing to names: what it asked for and was not answered, and what its transaction did so far.

use pg_wire::Nanos;
use sql_meaning::Defines;

/// The state of a session.
#[derive(Debug)]
pub(crate) struct Definer {
    /// Of requests that wait for their answers.
    asked: Defines,
    /// Of the open transaction.
    open: Defines,
    /// When something ended last that may have given it temporary tables, or run code that nobody sees.
    own: Nanos,
}

impl Definer {
    /// Of one that may be in a transaction of which nothing is known.
    pub(crate) fn new(mid_stream: bool) -> Self {
        let open = if mid_stream {
            Defines::Shared
        } else {
            Defines::Nothing
        };
        Self {
            asked: Defines::Nothing,
            open,
            own: 0,
        }
    }

    /// The client asks for something. Whether names of others may change from now on.
    pub(crate) fn asks(&mut self, what: Defines) -> bool {
        self.asked = self.asked.max(what);
        // Any request may be the end of the transaction.
        self.asked.max(self.open) >= Defines::Names
    }

    /// A unit was answered, and this is the status of the transaction; `settled` if nothing more was asked, `streams` if it
    /// only began and goes on (replication). Tells what is changed for others.
    pub(crate) fn answered(
        &mut self,
        what: Defines,
        status: Option<u8>,
        (settled, streams): (bool, bool),
        at: Nanos,
    ) -> Defines {
        let all = self.asked.max(self.open).max(what);
        if settled || streams {
            self.asked = Defines::Nothing;
        }
        if streams {
            return Defines::Nothing;
        }
        if status == Some(b'I') {
            self.open = Defines::Nothing;
            if all >= Defines::Temporary {
                self.own = at;
            }
            return all;
        }
        self.open = if status.is_none() { Defines::Shared } else { all };
        Defines::Nothing
    }

    /// Something was not seen: anything may have been done.
    pub(crate) fn lose(&mut self) {
        self.open = Defines::Shared;
    }

    /// Code ran that nobody sees.
    pub(crate) fn unseen(&mut self, at: Nanos) {
        self.own = self.own.max(at);
    }

    /// Whether its names are what the catalog says, as far as that is its own affair.
    pub(crate) fn is_quiet(&self) -> bool {
        self.asked.max(self.open) == Defines::Nothing
    }

    /// What its temporary tables are, a look after this moment knows.
    pub(crate) fn own(&self) -> Nanos {
        self.own
    }

    /// The session is over. What may have changed for others with its end.
    pub(crate) fn ends(&self) -> Defines {
        self.asked.max(self.open)
    }
}
