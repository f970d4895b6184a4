//! Which transaction a statement belongs to, and how that ended: from command tags, statuses of ReadyForQuery, and
//! the few words that a tag leaves out. Separate because it is the one thing that several requests have in common.
//!
//! Source: manual, "Pipelining", "Multiple Statements in a Simple Query" and `BEGIN`; the server's access/transam/xact.c.
//! A procedure may commit on its own, unseen: where one failed, what became of its work is not known.

use pg_wire::Outcome;

use crate::{
    event::{Final, Query, TransactionEnd},
    query::Answered,
};

/// The transactions of one session.
pub(crate) struct Transactions {
    /// Number of the current one.
    number: u64,
    /// Statements in it, of earlier requests too.
    statements: u64,
    /// A `BEGIN` was seen, or the server said so.
    in_block: bool,
    /// A statement of it failed: only a rollback can follow.
    failed: bool,
    /// Something ran in it that may have committed on its own: a procedure, a block of code, a command that sometimes does.
    procedure: bool,
}

/// What a statement does to its transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Begin,
    End {
        how: Final,
        chain: bool,
    },
    /// `ROLLBACK TO` a savepoint.
    RollbackTo,
}

impl Control {
    const COMMIT: Self = Self::End {
        how: Final::Committed,
        chain: false,
    };
}

/// Status bytes of ReadyForQuery.
const IDLE: u8 = b'I';
const FAILED: u8 = b'E';

impl Transactions {
    pub(crate) fn new() -> Self {
        Self {
            number: 1,
            statements: 0,
            in_block: false,
            failed: false,
            procedure: false,
        }
    }

    /// Numbers the statements that one ReadyForQuery ended, with the status that it told, and gives the transactions
    /// from before that ended among them. `incomplete` if some answers were not kept.
    pub(crate) fn number(
        &mut self,
        told: &mut [Answered],
        status: Option<u8>,
        incomplete: bool,
    ) -> Vec<TransactionEnd> {
        let earlier = (self.statements > 0).then_some(self.number);
        // The commonest of all: one statement, and its transaction with it.
        if let ([Answered { query, .. }], None, Some(IDLE), false, false) =
            (&mut *told, earlier, status, incomplete, self.in_block)
            && query.outcome == Outcome::Ok
            && !query.replication
            && control(query, status, false).is_none()
        {
            query.transaction = self.number;
            self.statements = 1;
            query.transaction_final = Some(Final::Committed);
            self.end(Final::Committed);
            return Vec::new();
        }
        let mut ends: Vec<TransactionEnd> = Vec::new();
        let count = told.len();
        for (index, Answered { query, .. }) in told.iter_mut().enumerate() {
            if query.replication {
                continue;
            }
            query.transaction = self.number;
            self.statements += 1;
            self.procedure |= query
                .statement
                .as_ref()
                .is_some_and(|s| matches!(s.command.as_str(), "CALL" | "DO"));
            let last = index + 1 == count;
            let mut control = control(query, status.filter(|_| last), self.failed);
            // Refused in a block, so that in one the tag means something else.
            if control.is_none() && query.outcome == Outcome::Ok && !self.in_block {
                match commits_at_once(query) {
                    Some(true) => control = Some(Control::COMMIT),
                    Some(false) => {}
                    None => self.procedure = true,
                }
            }
            match control {
                Some(Control::Begin) => self.in_block = true,
                Some(Control::RollbackTo) => self.failed = false,
                Some(Control::End { how, chain }) => {
                    ends.push(self.end(how));
                    self.in_block = chain;
                }
                // A Sync that fails is the refused commit of what went before it.
                None => self.failed |= query.outcome == Outcome::Error,
            }
        }
        match status {
            Some(IDLE) if self.statements > 0 => {
                let how = if incomplete || (self.failed && self.procedure) || (self.in_block && !self.failed)
                {
                    Final::Unknown
                } else if self.failed {
                    Final::RolledBack
                } else {
                    Final::Committed
                };
                ends.push(self.end(how));
            }
            Some(IDLE) => self.in_block = false,
            Some(status) => (self.in_block, self.failed) = (true, status == FAILED),
            None if self.statements > 0 => ends.push(self.end(Final::Unknown)),
            None => {}
        }
        for Answered { query, .. } in told {
            let end = ends.iter().find(|end| end.number == query.transaction);
            query.transaction_final = end.map(|end| end.how);
        }
        ends.retain(|end| earlier == Some(end.number));
        ends
    }

    /// Something was not seen: what is open may have ended.
    pub(crate) fn lose(&mut self) -> Option<TransactionEnd> {
        (self.statements > 0).then(|| self.end(Final::Unknown))
    }

    /// The connection is over: the server rolls back what is open.
    pub(crate) fn close(&mut self) -> Option<TransactionEnd> {
        (self.statements > 0).then(|| self.end(Final::RolledBack))
    }

    fn end(&mut self, how: Final) -> TransactionEnd {
        let end = TransactionEnd {
            number: self.number,
            how,
            statements: self.statements,
        };
        *self = Self {
            number: self.number + 1,
            ..Self::new()
        };
        end
    }
}

/// Whether a statement that succeeded outside a block has committed, with everything before it in the same pipeline, and
/// cannot be undone by what follows. `None`: it may have.
///
/// Source: who calls `PreventInTransactionBlock` (access/transam/xact.c), and `exec_execute_message` (tcop/postgres.c).
fn commits_at_once(query: &Query) -> Option<bool> {
    let concurrently = || {
        let text = query.statement.as_ref().filter(|_| query.text_is_whole())?;
        Some(says(&text.redacted, "CONCURRENTLY"))
    };
    match query.tag.as_deref().unwrap_or_default() {
        "VACUUM" | "CREATE DATABASE" | "DROP DATABASE" | "CREATE TABLESPACE" | "DROP TABLESPACE"
        | "ALTER SYSTEM" | "COMMIT PREPARED" | "ROLLBACK PREPARED" | "DISCARD ALL" => Some(true),
        "CREATE INDEX" | "DROP INDEX" | "ALTER TABLE" => concurrently(),
        // With some of their options, or for more than one table.
        "REINDEX" if concurrently() == Some(true) => Some(true),
        "REINDEX"
        | "CLUSTER"
        | "CREATE SUBSCRIPTION"
        | "ALTER SUBSCRIPTION"
        | "DROP SUBSCRIPTION"
        | "ALTER DATABASE" => None,
        _ => Some(false),
    }
}

/// Whether this word is in the text, in upper or lower case.
fn says(text: &str, word: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.any(|found| found.eq_ignore_ascii_case(word))
}

/// What a statement that succeeded does to its transaction, which `failed` before or did not. `after` is the status
/// behind it, where that is its own.
fn control(query: &Query, after: Option<u8>, failed: bool) -> Option<Control> {
    if query.outcome != Outcome::Ok {
        return None;
    }
    let tag = query.tag.as_deref()?;
    // The text tells what the tag leaves out; comments are gone from this form of it.
    let text = query.statement.as_ref().filter(|_| query.text_is_whole());
    let says = |word: &str| text.is_some_and(|statement| says(&statement.redacted, word));
    let chain = || says("CHAIN") && !says("NO");
    Some(match tag {
        "BEGIN" | "START TRANSACTION" => Control::Begin,
        "COMMIT" => Control::End {
            how: Final::Committed,
            chain: chain(),
        },
        "PREPARE TRANSACTION" => Control::End {
            how: Final::Prepared,
            chain: false,
        },
        "ROLLBACK" if says("TO") => Control::RollbackTo,
        // Without a transaction to prepare it only commits, but says this (`PrepareTransactionBlock`).
        "ROLLBACK" if !failed && text.is_some_and(|text| text.command == "PREPARE TRANSACTION") => {
            Control::COMMIT
        }
        // Without its text, a rollback that leaves a transaction behind may have been one to a savepoint.
        "ROLLBACK" if text.is_none() && after != Some(IDLE) => Control::RollbackTo,
        "ROLLBACK" => Control::End {
            how: Final::RolledBack,
            chain: chain(),
        },
        _ => return None,
    })
}
