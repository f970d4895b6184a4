//! What pgAudit says of each statement, read from the server's log.
//!
//! Owns the projection of csvlog lines to requests with the lines that pgAudit wrote for them. It refuses to look at
//! anything of pgwitness. Sources: `pgaudit.c` 1.7, the server's `tcop/postgres.c`.

use crate::csvlog::Line;

/// One session of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    pub(super) pid: u32,
    pub(super) role: String,
    /// Of its first line, nanoseconds since the Unix epoch.
    pub(super) began_ns: i64,
    pub(super) requests: Vec<Request>,
}

/// One simple query string, or one Execute.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// As the client sent it.
    pub(super) text: String,
    pub(super) is_extended: bool,
    /// It failed, or something in it did.
    pub(super) failed: bool,
    /// pgAudit's lines for it, one group for each statement at the top level.
    pub(super) groups: Vec<Group>,
}

/// The lines of one statement at the top level.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// pgAudit's statement number; within a session. While a cursor is open, all that follows has the cursor's number.
    id: u64,
    pub(super) lines: Vec<Audited>,
}

/// One line of pgAudit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Audited {
    /// `READ`, …
    pub(super) class: String,
    /// `SELECT`, `CREATE TABLE`, `???`
    pub(super) command: String,
    /// `TABLE`, `COMPOSITE TYPE` (which it says of partitioned tables), …; may be empty.
    pub(super) kind: String,
    /// The object's identity as the server writes it; may be empty.
    pub(super) name: String,
    /// The text that was running: another one than the request's where a function, a trigger or EXECUTE runs it.
    pub(super) text: String,
}

/// The clients' sessions of a log, in the order of their start.
pub(super) fn sessions(lines: Vec<Vec<Line>>) -> Vec<Session> {
    let is_client = |lines: &Vec<Line>| {
        lines
            .last()
            .is_some_and(|line| line.backend_type == "client backend")
    };
    let mut sessions: Vec<_> = lines.into_iter().filter(is_client).map(session).collect();
    sessions.sort_by_key(|session| session.began_ns);
    sessions
}

fn session(lines: Vec<Line>) -> Session {
    let mut session = Session::default();
    // Of a SELECT by the extended protocol, pgAudit writes at Bind, before the Execute is logged.
    let mut early: Vec<(u64, Audited)> = Vec::new();
    for line in lines {
        if session.began_ns == 0 {
            (session.pid, session.began_ns) = (line.pid, line.at_ns);
        }
        if !line.role.is_empty() {
            session.role.clone_from(&line.role);
        }
        if let Some(text) = line.message.strip_prefix("statement: ") {
            session.push(text, false, &mut early);
        } else if let Some(text) = executed(&line.message) {
            session.push(text, true, &mut early);
        } else if let Some((id, audited)) = line.message.strip_prefix("AUDIT: ").and_then(audited) {
            let running = session.requests.last_mut();
            match running.filter(|_| line.command_tag != "BIND") {
                Some(request) => request.take(id, audited),
                None => early.push((id, audited)),
            }
        } else if line.severity == "ERROR" || line.severity == "FATAL" {
            early.clear();
            let running = session.requests.last_mut();
            if let Some(request) = running.filter(|request| request.text == line.query) {
                request.failed = true;
            }
        }
    }
    session
}

impl Session {
    fn push(&mut self, text: &str, is_extended: bool, early: &mut Vec<(u64, Audited)>) {
        let mut request = Request {
            text: text.to_owned(),
            is_extended,
            ..Request::default()
        };
        for (id, audited) in early.drain(..) {
            request.take(id, audited);
        }
        self.requests.push(request);
    }
}

impl Request {
    fn take(&mut self, id: u64, audited: Audited) {
        match self.groups.last_mut().filter(|group| group.id == id) {
            Some(group) => group.lines.push(audited),
            None => self.groups.push(Group {
                id,
                lines: vec![audited],
            }),
        }
    }
}

/// `execute NAME/PORTAL: TEXT`; going on with a portal runs nothing anew.
fn executed(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("execute ")?;
    if rest.starts_with("fetch from ") {
        return None;
    }
    rest.split_once(": ").map(|(_, text)| text)
}

/// `SESSION,1,1,READ,SELECT,TABLE,public.t,"text",<none>`
fn audited(line: &str) -> Option<(u64, Audited)> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(line.as_bytes());
    let fields = reader.records().next()?.ok()?;
    let field = |at: usize| fields.get(at).unwrap_or_default().to_owned();
    let audited = Audited {
        class: field(3),
        command: field(4),
        kind: field(5),
        name: field(6),
        text: field(7),
    };
    Some((fields.get(1)?.parse().ok()?, audited))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tag: &str, severity: &str, message: &str, query: &str) -> Line {
        Line {
            role: "r".to_owned(),
            command_tag: tag.to_owned(),
            severity: severity.to_owned(),
            message: message.to_owned(),
            query: query.to_owned(),
            backend_type: "client backend".to_owned(),
            at_ns: 1,
            ..Line::default()
        }
    }

    #[test]
    fn lines_find_their_requests() {
        let log = |tag: &str, message: &str| line(tag, "LOG", message, "");
        let found = sessions(vec![vec![
            log("idle", "statement: SELECT 1; SELECT \"x\" FROM t"),
            log(
                "SELECT",
                "AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT 1; SELECT \"\"x\"\" FROM t\",<none>",
            ),
            log(
                "SELECT",
                "AUDIT: SESSION,2,1,READ,SELECT,TABLE,public.t,\"SELECT 1; SELECT \"\"x\"\" FROM t\",<none>",
            ),
            // A SELECT by the extended protocol: at Bind.
            log(
                "BIND",
                "AUDIT: SESSION,3,1,READ,SELECT,TABLE,public.u,SELECT $1 FROM u,7",
            ),
            log("SELECT", "execute <unnamed>: SELECT $1 FROM u"),
            log("idle", "statement: DROP TABLE t"),
            line("DROP TABLE", "ERROR", "no", "DROP TABLE t"),
        ]]);
        let requests = &found[0].requests;
        let shape: Vec<_> = requests
            .iter()
            .map(|request| (request.is_extended, request.failed, request.groups.len()))
            .collect();
        assert_eq!(shape, [(false, false, 2), (true, false, 1), (false, true, 0)]);
        assert_eq!(requests[0].groups[1].lines[0].name, "public.t");
        assert_eq!(requests[1].groups[0].lines[0].name, "public.u");
    }
}
