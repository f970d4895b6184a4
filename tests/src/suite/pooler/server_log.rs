//! The server's own log: which statements each of its sessions ran, in which order, and which tickets it handed out.
//!
//! Owns the reading of csvlog lines into sessions; the columns are `crate::csvlog`'s. Tickets are lines of their own
//! (`RAISE LOG`), right behind the statement that asked for one.

use crate::csvlog::Line;

/// One session of the server: one connection of the pooler.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    pub(super) pid: u32,
    pub(super) started_ns: i64,
    pub(super) role: String,
    /// The other end's, if it came by TCP.
    pub(super) from: Option<u16>,
    pub(super) statements: Vec<Said>,
}

/// One statement, as the server logged it.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) text: String,
    /// Nanoseconds since the Unix epoch, by the millisecond.
    pub(super) at_ns: i64,
    /// As in the log's detail.
    pub(super) params: String,
    pub(super) ticket: Option<u64>,
    pub(super) failed: bool,
    /// Whether pgAudit has a line for it.
    pub(super) audited: bool,
    /// Logged as `execute …`.
    pub(super) executed: bool,
}

/// The sessions of a log, by the beginning of each.
pub(super) fn sessions(lines: Vec<Vec<Line>>) -> Vec<Session> {
    let mut sessions: Vec<Session> = lines.iter().map(|lines| session(lines)).collect();
    sessions.sort_by_key(|session| session.started_ns);
    sessions
}

fn session(lines: &[Line]) -> Session {
    let mut session = Session::default();
    if let Some(first) = lines.first() {
        (session.pid, session.started_ns) = (first.pid, first.at_ns);
    }
    for line in lines {
        if !line.role.is_empty() {
            session.role.clone_from(&line.role);
        }
        let params = line.detail.strip_prefix("parameters: ").unwrap_or_default();
        let said = |text: &str, executed| Said {
            text: text.to_owned(),
            at_ns: line.at_ns,
            params: params.to_owned(),
            executed,
            ..Said::default()
        };
        let message = line.message.as_str();
        if let Some(text) = message.strip_prefix("statement: ") {
            session.statements.push(said(text, false));
        } else if let Some((_, text)) = message
            .strip_prefix("execute ")
            .and_then(|rest| rest.split_once(": "))
        {
            session.statements.push(said(text, true));
        } else if let Some(ticket) = message.strip_prefix("ticket ") {
            if let Some(last) = session.statements.last_mut() {
                last.ticket = ticket.parse().ok();
            }
        } else if message.starts_with("AUDIT: ") {
            if let Some(last) = session.statements.last_mut() {
                last.audited = true;
            }
        } else if let Some(rest) = message.strip_prefix("connection received: ") {
            session.from = rest
                .split_once("port=")
                .and_then(|(_, port)| port.trim().parse().ok());
        } else if line.severity == "ERROR" && !line.query.is_empty() {
            fail(&mut session.statements, line);
        }
    }
    session
}

/// An error belongs to the last statement if it names its text and nothing shows that it had ended; otherwise the server
/// refused this text before it logged it.
fn fail(statements: &mut Vec<Said>, line: &Line) {
    match statements.last_mut() {
        Some(last) if last.text == line.query && !last.failed && !(last.executed && last.audited) => {
            last.failed = true;
        }
        _ => statements.push(Said {
            text: line.query.clone(),
            at_ns: line.at_ns,
            failed: true,
            ..Said::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        Line {
            message: message.to_owned(),
            severity: "LOG".to_owned(),
            ..Line::default()
        }
    }

    #[test]
    fn a_ticket_belongs_to_the_statement_before_it() {
        let refused = Line {
            severity: "ERROR".to_owned(),
            query: "SELECT nothing".to_owned(),
            ..line("column does not exist")
        };
        let lines = [
            line("connection received: host=127.0.0.1 port=4711"),
            line("statement: SELECT ticket()"),
            line("ticket 1000000001"),
            Line {
                detail: "parameters: $1 = 'm=a.1.0.3;'".to_owned(),
                ..line("execute <unnamed>: SELECT $1::text")
            },
            refused,
        ];
        let session = session(&lines);
        assert_eq!(session.from, Some(4711));
        let seen: Vec<_> = session
            .statements
            .iter()
            .map(|said| (said.text.as_str(), said.ticket, said.failed))
            .collect();
        assert_eq!(
            seen,
            [
                ("SELECT ticket()", Some(1_000_000_001), false),
                ("SELECT $1::text", None, false),
                ("SELECT nothing", None, true)
            ]
        );
        assert_eq!(session.statements[1].params, "$1 = 'm=a.1.0.3;'");
    }
}
