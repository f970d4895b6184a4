//! What the server's log says that each session asked for, request by request.
//!
//! Owns the projection of csvlog lines to requests. It refuses to look at anything of pgwitness, and to interpret SQL.
//! Separate from `csvlog`'s own projection, which serves suites that compare less: here parameters, continued portals,
//! function calls, replication commands and failures that name no statement count too. Every rule is argued in
//! `docs/truth.md`; the sources are the server's `tcop/postgres.c`, `tcop/fastpath.c` and `replication/walsender.c`.

use crate::csvlog::{Encryption, Line};
use crate::route::Route;

use super::params;

/// One session of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    /// csvlog's `session_id`.
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) role: String,
    /// Of its first line, nanoseconds since the Unix epoch.
    pub(super) began_ns: i64,
    /// The client went away without goodbye, or the server ended the session.
    pub(super) broken: bool,
    /// The way that the client came, if the server let it in.
    pub(super) route: Option<Route>,
    pub(super) requests: Vec<Logged>,
}

/// One request.
#[derive(Clone, Debug, Default)]
pub(super) struct Logged {
    pub(super) kind: Kind,
    /// As the client sent it, in the database's encoding. `None`: the line names none.
    pub(super) text: Option<String>,
    /// Parameters in order, `None` is NULL; the whole `None`: the line has none.
    pub(super) params: Option<Vec<Option<String>>>,
    /// What an SQL-level EXECUTE runs: the whole string in which it was prepared.
    pub(super) prepared: Option<String>,
    pub(super) sqlstate: Option<String>,
}

/// How the server came to log it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// `statement: …`
    #[default]
    Simple,
    /// `execute …`; `fetch` is `execute fetch from …`.
    Execute {
        statement: String,
        portal: String,
        fetch: bool,
    },
    /// `fastpath function call: …`
    FunctionCall { oid: u32 },
    /// `received replication command: …`
    Replication,
    /// Only an error tells of it. The phase is known where the extended protocol has one for it.
    Refused { phase: Option<&'static str> },
}

/// The clients' sessions of a log.
pub(super) fn sessions(lines: Vec<Vec<Line>>) -> Vec<Session> {
    let is_client = |lines: &Vec<Line>| {
        let kind = lines.last().map_or("", |line| line.backend_type.as_str());
        CLIENTS.contains(&kind)
    };
    let mut sessions: Vec<_> = lines.into_iter().filter(is_client).map(session).collect();
    sessions.sort_by_key(|session| session.began_ns);
    sessions
}

fn session(lines: Vec<Line>) -> Session {
    let mut session = Session::default();
    let mut is_local = false;
    for line in lines {
        if session.id.is_empty() {
            session.id.clone_from(&line.session);
            session.pid = line.pid;
            session.began_ns = line.at_ns;
        }
        if !line.role.is_empty() {
            session.role.clone_from(&line.role);
        }
        if line.message.starts_with("connection received: host=[local]") {
            is_local = true;
        } else if line.message.starts_with("connection authorized: ")
            || line.message.starts_with("replication connection authorized: ")
        {
            session.route = Some(match Encryption::of(&line.message) {
                Encryption::Tls { .. } => Route::Tls,
                Encryption::Gss => Route::Gss,
                Encryption::None if is_local => Route::Unix,
                Encryption::None => Route::Tcp,
            });
        }
        session.take(&line);
    }
    session
}

impl Session {
    fn take(&mut self, line: &Line) {
        match line.severity.as_str() {
            "LOG" => self.log(line),
            "ERROR" | "FATAL" | "PANIC" => self.fail(line),
            _ => {}
        }
    }

    fn log(&mut self, line: &Line) {
        let message = line.message.as_str();
        if let Some(text) = message.strip_prefix("statement: ") {
            self.push(Kind::Simple, text, line);
        } else if let Some((kind, text)) = execute(message) {
            self.push(kind, text, line);
        } else if let Some(text) = message.strip_prefix("received replication command: ") {
            self.push(Kind::Replication, text, line);
        } else if let Some(oid) = function_oid(message) {
            self.requests.push(Logged {
                kind: Kind::FunctionCall { oid },
                ..Logged::default()
            });
        } else if message.starts_with("unexpected EOF on client connection")
            || message.starts_with("could not receive data from client")
            || message.starts_with("could not send data to client")
        {
            self.broken = true;
        }
    }

    fn push(&mut self, kind: Kind, text: &str, line: &Line) {
        self.requests.push(Logged {
            kind,
            text: Some(text.to_owned()),
            params: params::logged(&line.detail),
            prepared: prepared(&line.detail),
            sqlstate: None,
        });
    }

    /// Whose error it is: of the request that is running, or of one that was refused before it came to be logged. The
    /// process title tells which: Parse and Bind put their names into it before anything can fail, a simple string
    /// that does not parse leaves it at `idle`, everything that was logged runs under its command's tag.
    fn fail(&mut self, line: &Line) {
        let is_fatal = line.severity != "ERROR";
        self.broken |= is_fatal;
        let tag = line.command_tag.as_str();
        let phase = match tag {
            "PARSE" => Some("parse"),
            "BIND" => Some("bind"),
            _ => None,
        };
        let is_refused = phase.is_some() || tag.starts_with("idle");
        let last = self.requests.last_mut().filter(|last| last.sqlstate.is_none());
        if line.query.is_empty() {
            let calls = last.filter(|last| matches!(last.kind, Kind::FunctionCall { .. }));
            match calls.filter(|_| tag == FASTPATH_TITLE && line.sqlstate != UNDEFINED_FUNCTION) {
                Some(call) => call.sqlstate = Some(line.sqlstate.clone()),
                // The session itself is over: that answers no request.
                None if is_fatal => {}
                None => self.refuse(None, None, line),
            }
            return;
        }
        let running = last.filter(|last| {
            let may_run = last.kind == Kind::Replication || !is_refused;
            may_run && last.text.as_deref() == Some(line.query.as_str())
        });
        match running {
            Some(running) => running.sqlstate = Some(line.sqlstate.clone()),
            None => self.refuse(Some(line.query.clone()), phase, line),
        }
    }

    fn refuse(&mut self, text: Option<String>, phase: Option<&'static str>, line: &Line) {
        self.requests.push(Logged {
            kind: Kind::Refused { phase },
            text,
            sqlstate: Some(line.sqlstate.clone()),
            ..Logged::default()
        });
    }
}

/// `execute NAME/PORTAL: TEXT`, `execute fetch from NAME/PORTAL: TEXT`.
fn execute(message: &str) -> Option<(Kind, &str)> {
    let rest = message.strip_prefix("execute ")?;
    let (rest, fetch) = rest
        .strip_prefix("fetch from ")
        .map_or((rest, false), |rest| (rest, true));
    let (names, text) = rest.split_once(": ")?;
    let (statement, portal) = names.split_once('/').unwrap_or((names, ""));
    let statement = if statement == "<unnamed>" { "" } else { statement };
    let kind = Kind::Execute {
        statement: statement.to_owned(),
        portal: portal.to_owned(),
        fetch,
    };
    Some((kind, text))
}

/// `DETAIL: prepare: TEXT` (`Prepare:` in newer versions).
fn prepared(detail: &str) -> Option<String> {
    let text = detail
        .strip_prefix("prepare: ")
        .or_else(|| detail.strip_prefix("Prepare: "))?;
    Some(text.to_owned())
}

/// `fastpath function call: "NAME" (OID 1299)`
fn function_oid(message: &str) -> Option<u32> {
    let (_, oid) = message
        .strip_prefix("fastpath function call: ")?
        .rsplit_once("(OID ")?;
    oid.strip_suffix(')')?.parse().ok()
}

/// Who has a client: everything else (parallel workers, autovacuum, subscription workers, …) asks for nothing over a
/// connection of its own.
const CLIENTS: [&str; 2] = ["client backend", "walsender"];
/// The process title while a FunctionCall runs.
const FASTPATH_TITLE: &str = "<FASTPATH>";
/// The only error of a FunctionCall that comes before its log line, because the line needs the function's name.
const UNDEFINED_FUNCTION: &str = "42883";

#[cfg(test)]
mod tests {
    use super::*;

    fn line(severity: &str, tag: &str, sqlstate: &str, message: &str, query: &str) -> Line {
        Line {
            role: "r".to_owned(),
            session: "s".to_owned(),
            severity: severity.to_owned(),
            command_tag: tag.to_owned(),
            sqlstate: sqlstate.to_owned(),
            message: message.to_owned(),
            query: query.to_owned(),
            backend_type: "client backend".to_owned(),
            ..Line::default()
        }
    }

    fn log(tag: &str, message: &str) -> Line {
        line("LOG", tag, "00000", message, "")
    }

    #[test]
    fn an_error_finds_its_request() {
        let refused = |phase| Kind::Refused { phase };
        let execute = |fetch| Kind::Execute {
            statement: String::new(),
            portal: "p".to_owned(),
            fetch,
        };
        let lines = vec![
            log("idle", "statement: select 1/0"),
            line("ERROR", "SELECT", "22012", "division by zero", "select 1/0"),
            line("ERROR", "idle", "42601", "syntax error", "select 1/0 x y"),
            log("SELECT", "execute <unnamed>/p: select $1"),
            log("SELECT", "execute fetch from <unnamed>/p: select $1"),
            // The same text once more, refused at Bind: not the error of the Execute before.
            line("ERROR", "BIND", "22P02", "invalid input", "select $1"),
            line("ERROR", "PARSE", "42601", "syntax error", "selec"),
            // Execute of a portal that does not exist, a deferred constraint at Sync.
            line("ERROR", "SELECT", "34000", "portal \"x\" does not exist", ""),
            log("<FASTPATH>", "fastpath function call: \"lo_open\" (OID 952)"),
            line("ERROR", "<FASTPATH>", "42704", "large object", ""),
            line("FATAL", "idle", "57P01", "terminating connection", ""),
        ];
        let sessions = sessions(vec![lines]);
        let seen: Vec<_> = sessions[0]
            .requests
            .iter()
            .map(|request| {
                (
                    request.kind.clone(),
                    request.text.as_deref(),
                    request.sqlstate.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (Kind::Simple, Some("select 1/0"), Some("22012")),
                (refused(None), Some("select 1/0 x y"), Some("42601")),
                (execute(false), Some("select $1"), None),
                (execute(true), Some("select $1"), None),
                (refused(Some("bind")), Some("select $1"), Some("22P02")),
                (refused(Some("parse")), Some("selec"), Some("42601")),
                (refused(None), None, Some("34000")),
                (Kind::FunctionCall { oid: 952 }, None, Some("42704")),
            ]
        );
        assert!(sessions[0].broken);
    }

    #[test]
    fn workers_ask_for_nothing() {
        let mut worker = log("SELECT", "statement: select 1");
        worker.backend_type = "parallel worker".to_owned();
        assert!(sessions(vec![vec![worker]]).is_empty());
    }
}
