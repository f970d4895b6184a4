//! What the server has prepared: statements and portals, and what is known of them. Applied when the
//! server says that it acted, so that a name always means what it meant at that moment.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::exchange::{Column, Columns, Exchange};
use crate::names::{self, Names, Weight};
use crate::request::{Formats, Given, Target, Types, no_types};
use crate::sql_names;

pub(crate) struct Prepared {
    statements: Names<Arc<Statement>>,
    portals: Names<Portal>,
    /// Something was prepared out of sight, or may have been.
    blind: bool,
}

impl Prepared {
    pub(crate) fn new(max_names: usize, max_bytes: usize, blind: bool) -> Self {
        Self {
            statements: Names::new(max_names, max_bytes),
            portals: Names::new(max_names, max_bytes),
            blind,
        }
    }

    pub(crate) fn parsed(&mut self, name: Bytes, text: Text, types: Types) {
        self.statements.insert(
            name,
            Arc::new(Statement {
                text,
                types,
                ..Statement::default()
            }),
        );
    }

    /// The name of a statement, shared if it is known.
    pub(crate) fn statement_name(&self, name: &[u8]) -> Bytes {
        self.statements
            .shared_name(name)
            .unwrap_or_else(|| names::copied(name))
    }

    /// The server told the types of a statement's parameters.
    pub(crate) fn typed(&mut self, name: &[u8], types: Types) {
        self.statements
            .update(name, |statement| Arc::make_mut(statement).types = types);
    }

    /// SQL `PREPARE` made a statement of this name; without a name, of one that could not be read.
    pub(crate) fn prepared_by_sql(&mut self, name: Option<Bytes>, text: Text) {
        match name {
            Some(name) => self.parsed(name, text, no_types()),
            None => self.lose_statements(),
        }
    }

    /// SQL `DECLARE` made a portal.
    pub(crate) fn declared(&mut self, name: Option<Bytes>, text: Text) {
        let Some(name) = name else {
            self.portals.clear();
            self.blind = true;
            return;
        };
        let held = text.sql.as_deref().is_some_and(sql_names::is_held);
        let statement = Arc::new(Statement {
            text,
            ..Statement::default()
        });
        self.portals.insert(
            name,
            Portal {
                statement,
                held,
                ..Portal::default()
            },
        );
    }

    /// SQL `DEALLOCATE` dropped a statement; without a name, one whose name could not be read.
    pub(crate) fn deallocated(&mut self, name: Option<&[u8]>) {
        match name {
            Some(name) => self.statements.remove(name),
            None => self.lose_statements(),
        }
    }

    /// SQL `DEALLOCATE ALL` or `DISCARD ALL` dropped all named statements; the protocol's unnamed one stays
    /// (`DropAllPreparedStatements` in the server's commands/prepare.c). Whatever was prepared out of sight is gone too.
    pub(crate) fn deallocated_all(&mut self) {
        self.statements.clear_named();
        self.blind = false;
    }

    /// SQL `CLOSE` dropped a portal, or all of them.
    pub(crate) fn closed_by_sql(&mut self, name: Option<&[u8]>) {
        match name {
            Some(name) => self.portals.remove(name),
            None => self.portals.clear(),
        }
    }

    /// Parameters with the types of the statement that they are for.
    pub(crate) fn typed_as(&self, statement: &[u8], given: Given) -> Given {
        match self.statements.get(statement) {
            Some(statement) => given.typed(&statement.types),
            None => given,
        }
    }

    /// What a portal runs.
    pub(crate) fn text(&self, portal: &[u8]) -> Option<&Text> {
        Some(&self.portals.get(portal)?.statement.text)
    }

    /// What is known of the result of a portal: its columns, and how they are written, where a Bind said so.
    pub(crate) fn result(&self, portal: &[u8]) -> Option<(&Columns, Option<&Formats>)> {
        let portal = self.portals.get(portal)?;
        Some((
            &portal.statement.columns,
            portal.given.as_ref().map(|given| &given.formats),
        ))
    }

    /// The text behind a name that SQL gives.
    pub(crate) fn source(&self, target: &Target) -> Option<&Text> {
        match target {
            Target::Statement(name) => Some(&self.statements.get(name)?.text),
            Target::Portal(name) => Some(&self.portals.get(name)?.statement.text),
        }
    }

    /// The server drops the old unnamed statement before it parses a new one, whether that succeeds or not.
    pub(crate) fn parse_failed(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.statements.remove(name);
        }
    }

    pub(crate) fn bound(&mut self, name: Bytes, statement_name: Bytes, given: Given) {
        let statement = self.statement(&statement_name);
        let given = given.typed(&statement.types);
        self.portals.insert(
            name,
            Portal {
                statement_name,
                statement,
                given: Some(given),
                held: false,
                first_execute: None,
            },
        );
    }

    /// What is known of the columns of a statement or portal.
    pub(crate) fn columns(&self, target: &Target) -> Option<&Columns> {
        match target {
            Target::Statement(name) => Some(&self.statements.get(name)?.columns),
            Target::Portal(name) => Some(&self.portals.get(name)?.statement.columns),
        }
    }

    pub(crate) fn described(&mut self, target: &Target, columns: Columns) {
        let name = match target {
            Target::Statement(name) => name.clone(),
            Target::Portal(name) => {
                let mut of = None;
                self.portals.update(name, |portal| {
                    Arc::make_mut(&mut portal.statement).columns = columns.clone();
                    of = Some((portal.statement_name.clone(), portal.statement.text.at));
                });
                // What a portal returns, its statement returns each time; if the name still means the same.
                match of {
                    Some((name, at)) if self.statements.get(&name).is_some_and(|s| s.text.at == at) => name,
                    _ => return,
                }
            }
        };
        self.statements
            .update(&name, |statement| Arc::make_mut(statement).columns = columns);
    }

    pub(crate) fn closed(&mut self, target: &Target) {
        match target {
            Target::Statement(name) => self.statements.remove(name),
            Target::Portal(name) => self.portals.remove(name),
        }
    }

    /// A query string takes the unnamed statement and portal with it.
    pub(crate) fn queried(&mut self) {
        self.statements.remove(b"");
        self.portals.remove(b"");
    }

    /// Portals end with their transaction, but for the cursors that were declared to be held. (Of a transaction that was
    /// rolled back they go too; to name one of those fails, and so nothing is said in its name.)
    pub(crate) fn transaction_ended(&mut self) {
        self.portals.retain(|portal| portal.held);
    }

    /// Bytes were lost: any name may mean something else now.
    pub(crate) fn lose(&mut self) {
        self.portals.clear();
        self.statements.clear();
        self.blind = true;
    }

    /// What this name of a statement means is not known any more.
    pub(crate) fn doubt(&mut self, statement: &[u8]) {
        self.statements.remove(statement);
        self.blind = true;
    }

    /// Which portals there are is not known any more.
    pub(crate) fn lose_portals(&mut self) {
        self.portals.clear();
    }

    fn lose_statements(&mut self) {
        self.statements.clear_named();
        self.blind = true;
    }

    /// Fills in what is known of the statement or portal that a request is about.
    pub(crate) fn describe(&self, target: &Target, exchange: &mut Exchange) {
        match target {
            Target::Statement(name) => {
                exchange.statement_name.clone_from(name);
                self.statement(name).text.describe(exchange);
            }
            Target::Portal(name) => {
                exchange.portal_name.clone_from(name);
                let Some(portal) = self.portals.get(name) else {
                    return self.unseen(self.portals.forgot()).describe(exchange);
                };
                exchange.statement_name = portal.statement_name.clone();
                if let Some(given) = &portal.given {
                    exchange.param_count = given.count;
                    exchange.params = given.params.clone();
                }
                portal.statement.text.describe(exchange);
            }
        }
    }

    /// Fills in what an Execute of this portal ran, with at most `max_columns`.
    pub(crate) fn executed(
        &mut self,
        portal: Bytes,
        start: u64,
        max_columns: usize,
        exchange: &mut Exchange,
    ) {
        let target = Target::Portal(portal);
        self.describe(&target, exchange);
        let (Target::Portal(name), Some(result)) = (&target, exchange.results.first_mut()) else {
            return;
        };
        self.portals.update(name, |portal| {
            if result.columns.is_empty() && portal.statement.columns.len() <= max_columns {
                result.columns.clone_from(&portal.statement.columns);
            }
            exchange.continues = portal.first_execute;
            portal.first_execute.get_or_insert(start);
        });
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        self.statements.retained_bytes() + self.portals.retained_bytes()
    }

    fn statement(&self, name: &[u8]) -> Arc<Statement> {
        self.statements.get(name).cloned().unwrap_or_else(|| {
            Arc::new(Statement {
                text: self.unseen(self.statements.forgot()),
                ..Statement::default()
            })
        })
    }

    /// A text that was never here, or is no longer.
    fn unseen(&self, forgot: bool) -> Text {
        Text {
            sql: None,
            at: 0,
            whole: 0,
            truncated: forgot,
            digest: None,
            preparsed: self.blind,
        }
    }
}

/// What is known of a statement's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) sql: Option<Bytes>,
    /// Offset in the frontend stream of the message that brought it.
    pub(crate) at: u64,
    /// Length as sent.
    pub(crate) whole: u64,
    pub(crate) truncated: bool,
    /// SHA-256 of a text that is truncated.
    pub(crate) digest: Option<Box<[u8; 32]>>,
    pub(crate) preparsed: bool,
}

impl Text {
    pub(crate) fn kept_bytes(&self) -> usize {
        self.sql.as_ref().map_or(0, Bytes::len)
    }

    pub(crate) fn describe(&self, exchange: &mut Exchange) {
        exchange.sql.clone_from(&self.sql);
        exchange.sql_at = self.at;
        exchange.sql_bytes = self.whole;
        exchange.truncated = self.truncated;
        exchange.digest.clone_from(&self.digest);
        exchange.preparsed = self.preparsed;
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) text: Text,
    pub(crate) types: Types,
    pub(crate) columns: Columns,
}

impl Default for Statement {
    fn default() -> Self {
        Self {
            text: Text::default(),
            types: no_types(),
            columns: no_columns(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Portal {
    pub(crate) statement_name: Bytes,
    /// The statement as it was when the portal was bound: its name may be closed or used again since.
    pub(crate) statement: Arc<Statement>,
    /// A cursor that outlives its transaction.
    pub(crate) held: bool,
    /// `None` for one that SQL declared.
    pub(crate) given: Option<Given>,
    /// Where the request of the first Execute began.
    pub(crate) first_execute: Option<u64>,
}

impl Weight for Arc<Statement> {
    fn weight(&self) -> usize {
        self.text.kept_bytes() + size_of_val::<[u32]>(&self.types) + columns_bytes(&self.columns)
    }
}

impl Weight for Portal {
    fn weight(&self) -> usize {
        self.statement.weight() + self.given.as_ref().map_or(0, Given::kept_bytes)
    }
}

/// No columns at all. Shared, because most statements are never described.
pub(crate) fn no_columns() -> Columns {
    static NONE: LazyLock<Columns> = LazyLock::new(|| Arc::new([]));
    Arc::clone(&NONE)
}

pub(crate) fn columns_bytes(columns: &Columns) -> usize {
    columns
        .iter()
        .map(|column| size_of::<Column>() + column.name.len())
        .sum()
}
