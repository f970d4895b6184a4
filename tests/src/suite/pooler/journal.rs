//! What the clients wrote down: what each sent when, and what it got.
//!
//! Owns the reading of their files (`truth-pooled` writes them) and the look-ups by ticket and by mark.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// All journals of a run.
#[derive(Debug, Default)]
pub(super) struct Journals {
    pub(super) connections: Vec<Connection>,
    by_ticket: HashMap<u64, Place>,
    by_key: HashMap<String, usize>,
    /// Every text that a client ever sent.
    pub(super) texts: BTreeSet<String>,
}

/// Where a statement stands in a journal: connection, group, statement of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) connection: usize,
    pub(super) group: usize,
    pub(super) statement: usize,
}

/// One connection of one client.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
    pub(super) key: String,
    pub(super) program: String,
    pub(super) pid: u32,
    /// Its own, if it came by TCP.
    pub(super) port: Option<u16>,
    pub(super) opened_ns: u64,
    /// In the order in which they were sent.
    pub(super) groups: Vec<Group>,
}

/// What one `ReadyForQuery` answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Groups of one unit follow one another under one lease.
    pub(super) unit: u64,
    pub(super) sent_ns: u64,
    /// As meant to be sent.
    pub(super) texts: Vec<String>,
    /// How many of them the server began, by its answers; nobody knows if there was none.
    pub(super) ran: Option<usize>,
    pub(super) answered_ns: Option<u64>,
    pub(super) tickets: Vec<u64>,
}

impl Group {
    /// What the server began, as far as the client knows.
    pub(super) fn begun(&self) -> &[String] {
        let count = self.ran.unwrap_or(0).min(self.texts.len());
        self.texts.get(..count).unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Open {
        open: Open,
        at: u64,
    },
    Sent {
        q: usize,
        unit: u64,
        at: u64,
        texts: Vec<String>,
    },
    Answered {
        z: usize,
        at: u64,
        ran: usize,
        tickets: Vec<u64>,
    },
    Closed {
        #[serde(rename = "close")]
        _close: u64,
    },
}

#[derive(Deserialize)]
struct Open {
    key: String,
    program: String,
    pid: u32,
    port: Option<u16>,
}

impl Journals {
    /// Reads every file of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut connections = Vec::new();
        for entry in std::fs::read_dir(folder).context("reading the journals' folder")? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)?;
            connections.push(Connection::parse(&text).with_context(|| path.display().to_string())?);
        }
        connections.sort_by_key(|connection| connection.opened_ns);
        Ok(Self::of(connections))
    }

    /// Made-up journals, or read ones.
    pub(super) fn of(connections: Vec<Connection>) -> Self {
        let mut journals = Self {
            connections,
            ..Self::default()
        };
        for (connection, one) in journals.connections.iter().enumerate() {
            journals.by_key.insert(one.key.clone(), connection);
            for (group, said) in one.groups.iter().enumerate() {
                let of_ticket =
                    |(statement, text): (usize, &String)| (text == super::TICKET).then_some(statement);
                let places = said.texts.iter().enumerate().filter_map(of_ticket);
                for (ticket, statement) in said.tickets.iter().zip(places) {
                    let place = Place {
                        connection,
                        group,
                        statement,
                    };
                    journals.by_ticket.insert(*ticket, place);
                }
                for text in &said.texts {
                    if !journals.texts.contains(text) {
                        journals.texts.insert(text.clone());
                    }
                }
            }
        }
        journals
    }

    /// Who got this ticket.
    pub(super) fn of_ticket(&self, ticket: u64) -> Option<Place> {
        self.by_ticket.get(&ticket).copied()
    }

    /// Who sent this text or these parameters, by the mark in them.
    pub(super) fn of_mark(&self, text: &str, params: &str) -> Option<Place> {
        let mark = mark(text).or_else(|| mark(params))?;
        let (key, group) = mark.rsplit_once('.')?;
        let (connection, group): (usize, usize) = (*self.by_key.get(key)?, group.parse().ok()?);
        let said = self.connections.get(connection)?.groups.get(group)?;
        let statement = said.texts.iter().position(|one| one == text)?;
        Some(Place {
            connection,
            group,
            statement,
        })
    }

    /// The connections of a process, or those from a port, in the order in which they were opened.
    pub(super) fn from(&self, port: Option<u16>, pid: Option<u32>) -> Vec<usize> {
        let matches = |one: &Connection| match (port, pid) {
            (Some(port), _) => one.port == Some(port),
            (_, Some(pid)) => one.port.is_none() && one.pid == pid,
            _ => false,
        };
        let all = self.connections.iter().enumerate();
        all.filter(|(_, one)| matches(one))
            .map(|(index, _)| index)
            .collect()
    }
}

/// `m=PROGRAM.PID.NUMBER.GROUP;`, the mark's middle.
pub(super) fn mark(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("m=")?;
    Some(rest.split_once(';')?.0)
}

impl Connection {
    fn parse(text: &str) -> Result<Self> {
        let mut connection = Self::default();
        for line in text.lines() {
            // The last line of one that was killed may be half.
            let Ok(line) = serde_json::from_str::<Line>(line) else {
                continue;
            };
            match line {
                Line::Open { open, at } => {
                    (connection.key, connection.program) = (open.key, open.program);
                    (connection.pid, connection.port, connection.opened_ns) = (open.pid, open.port, at);
                }
                Line::Sent { q, unit, at, texts } => {
                    anyhow::ensure!(q == connection.groups.len(), "group {q} is out of order");
                    connection.groups.push(Group {
                        unit,
                        sent_ns: at,
                        texts,
                        ..Group::default()
                    });
                }
                Line::Answered { z, at, ran, tickets } => {
                    let group = connection.groups.get_mut(z).context("an answer to nothing")?;
                    (group.answered_ns, group.ran, group.tickets) = (Some(at), Some(ran), tickets);
                }
                Line::Closed { .. } => {}
            }
        }
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_and_found_by_ticket_and_mark() {
        let text = r#"{"open":{"key":"a.7.0","program":"a","pid":7,"port":4711},"at":5}
{"q":0,"unit":1,"at":6,"texts":["SELECT ticket()","SELECT 1"]}
{"z":0,"at":9,"ran":1,"tickets":[1000000004],"error":null}
{"q":1,"unit":2,"at":10,"texts":["SELECT 2 /* m=a.7.0.1; */"]}
{"q":2,"uni"#;
        let journals = Journals::of(vec![Connection::parse(text).unwrap()]);
        let one = &journals.connections[0];
        assert_eq!((one.port, one.groups.len()), (Some(4711), 2));
        assert_eq!(one.groups[0].begun(), ["SELECT ticket()"]);
        let place = |group, statement| {
            Some(Place {
                connection: 0,
                group,
                statement,
            })
        };
        assert_eq!(journals.of_ticket(1_000_000_004), place(0, 0));
        assert_eq!(journals.of_mark("SELECT 2 /* m=a.7.0.1; */", ""), place(1, 0));
        assert_eq!(journals.of_mark("SELECT 2", ""), None);
        assert_eq!(journals.from(Some(4711), None), [0]);
        assert_eq!(journals.from(None, Some(7)), Vec::<usize>::new());
    }
}
