//! The server's own log, read as the witness.
//!
//! Owns the reading of PostgreSQL's csvlog (manual, 20.8.4) into sessions and the statements that each of them ran.
//! It refuses to interpret SQL: texts are taken as the server wrote them. Separate from `compare`, so that the
//! witness is complete before anything of pgwitness is looked at.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use csv::StringRecord;

/// One session, from `connection received` to `disconnection`.
#[derive(Clone, Debug, Default)]
pub struct LoggedSession {
    /// The backend's process id. Reused in time; `id` is not.
    pub backend_pid: u32,
    /// csvlog's `session_id`: start time and pid.
    pub id: String,
    /// The login role.
    pub role: String,
    /// The database.
    pub database: String,
    /// Where it came from: `127.0.0.1:50000`, `[local]`; all that the log, and pgAudit with it, knows of the client.
    pub client: String,
    /// Time of the first line, nanoseconds since the Unix epoch (the log has milliseconds).
    pub started_ns: i64,
    /// What the server says of the connection's encryption when it lets the client in.
    pub encryption: Encryption,
    /// What it ran, in order.
    pub statements: Vec<LoggedStatement>,
    /// Whether the log has its end.
    pub closed: bool,
}

/// How a connection is encrypted, by the line `connection authorized`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Not at all.
    #[default]
    None,
    /// By TLS.
    Tls {
        /// `TLSv1.3`
        version: String,
        /// `TLS_AES_256_GCM_SHA384`
        cipher: String,
    },
    /// By GSSAPI.
    Gss,
}

impl Encryption {
    /// From `…user=a database=b SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)` or
    /// `… GSS (authenticated=no, encrypted=yes, principal=a@B)`.
    pub(crate) fn of(message: &str) -> Self {
        if let Some((_, rest)) = message.split_once(" SSL enabled (protocol=") {
            let (version, rest) = rest.split_once(", cipher=").unwrap_or((rest, ""));
            let cipher = rest.split(',').next().unwrap_or_default();
            return Self::Tls {
                version: version.to_owned(),
                cipher: cipher.to_owned(),
            };
        }
        match message.split_once(" GSS (") {
            Some((_, rest)) if rest.contains("encrypted=yes") => Self::Gss,
            _ => Self::None,
        }
    }
}

/// One execution request: a simple query string, or one Execute, or a text that the server refused to run.
#[derive(Clone, Debug, Default)]
pub struct LoggedStatement {
    /// Milliseconds precision, nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// As the client sent it.
    pub text: String,
    /// Logged as `execute …`, or refused before any execution.
    pub kind: StatementKind,
    /// `$1 = '7', $2 = NULL` of an Execute, as the server prints them.
    pub params: String,
    /// SQLSTATE when it failed.
    pub sqlstate: Option<String>,
    /// pgAudit's lines for it: command and rows processed, in order.
    pub audited: Vec<Audited>,
}

/// How the server came to log a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatementKind {
    /// `statement: …`, one simple query string.
    #[default]
    Simple,
    /// `execute NAME: …`, one Execute.
    Execute,
    /// Only an error names it: it did not parse, or its Parse or Bind failed.
    Refused,
}

/// One pgAudit line of class READ or WRITE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// `SELECT`, `INSERT`, …
    pub command: String,
    /// Rows that the executor processed: returned by a SELECT, changed by the others.
    pub rows: u64,
}

/// Reads a csvlog file. Sessions come in the order of their start.
///
/// # Errors
/// When the file cannot be read or a line is not csvlog.
pub fn read(path: &Path) -> Result<Vec<LoggedSession>> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&bytes)
}

/// Parses csvlog text; a last line that is still being written is left out.
///
/// # Errors
/// When a line is not csvlog.
pub fn parse(bytes: &[u8]) -> Result<Vec<LoggedSession>> {
    let mut sessions: Vec<_> = lines(bytes)?
        .into_iter()
        .map(session_of)
        .filter(|s| !s.role.is_empty())
        .collect();
    sessions.sort_by_key(|session| session.started_ns);
    Ok(sessions)
}

/// The lines of each session in their order, sessions by their id. A line of the file that is still being written is
/// left out: it has fewer columns than the others.
///
/// # Errors
/// When a line is not csvlog.
pub fn lines(bytes: &[u8]) -> Result<Vec<Vec<Line>>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let records = reader.records().collect::<csv::Result<Vec<_>>>();
    let records = records.context("a line of the server's log")?;
    let columns = records.iter().map(StringRecord::len).max().unwrap_or_default();
    let mut sessions: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.len() == columns) {
        let line = Line::of(record).with_context(|| format!("a line of the server's log: {record:?}"))?;
        sessions.entry(line.session.clone()).or_default().push(line);
    }
    let mut sessions: Vec<_> = sessions.into_values().collect();
    for session in &mut sessions {
        session.sort_by_key(|line| line.number);
    }
    Ok(sessions)
}

fn session_of(lines: Vec<Line>) -> LoggedSession {
    let mut session = LoggedSession::default();
    for line in lines {
        if session.id.is_empty() {
            session.id.clone_from(&line.session);
            session.backend_pid = line.pid;
            session.started_ns = line.at_ns;
        }
        if !line.role.is_empty() {
            session.role.clone_from(&line.role);
            session.database.clone_from(&line.database);
            session.client.clone_from(&line.client);
        }
        session.take(line);
    }
    session
}

impl LoggedSession {
    fn take(&mut self, line: Line) {
        if let Some(text) = line.message.strip_prefix("statement: ") {
            self.push(&line, text, StatementKind::Simple);
        } else if let Some((_, text)) = line
            .message
            .strip_prefix("execute ")
            .and_then(|rest| rest.split_once(": "))
        {
            self.push(&line, text, StatementKind::Execute);
        } else if let Some(audit) = line.message.strip_prefix("AUDIT: SESSION,") {
            self.audit(audit);
        } else if line.message.contains("connection authorized: ") {
            self.encryption = Encryption::of(&line.message);
        } else if line.message.starts_with("disconnection: ") {
            self.closed = true;
        } else if line.severity == "ERROR" {
            self.fail(&line);
        }
    }

    fn push(&mut self, line: &Line, text: &str, kind: StatementKind) {
        self.statements.push(LoggedStatement {
            at_ns: line.at_ns,
            text: text.to_owned(),
            kind,
            params: line
                .detail
                .strip_prefix("parameters: ")
                .unwrap_or_default()
                .to_owned(),
            sqlstate: None,
            audited: Vec::new(),
        });
    }

    /// The executor ends when the portal is dropped, which for an unnamed portal inside a transaction is only at the
    /// next Bind or later. So a line belongs to the latest statement of the very same text, not simply to the last.
    fn audit(&mut self, audit: &str) {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(audit.as_bytes());
        let Some(Ok(fields)) = reader.records().next() else {
            return;
        };
        // Statement id, substatement id, class, command, object type, object name, statement, parameters, rows.
        let (Some(command), Some(text), Some(rows)) = (fields.get(3), fields.get(6), fields.get(8)) else {
            return;
        };
        let (Ok(rows), command) = (rows.parse(), command.to_owned()) else {
            return;
        };
        if let Some(statement) = self
            .statements
            .iter_mut()
            .rev()
            .find(|statement| statement.text == text)
        {
            statement.audited.push(Audited { command, rows });
        }
    }

    /// An error belongs to the last statement when that is the text which it names and nothing shows that it had
    /// ended; otherwise the server refused this text before it logged it.
    fn fail(&mut self, line: &Line) {
        if line.query.is_empty() {
            return;
        }
        match self.statements.last_mut() {
            Some(last) if last.text == line.query && last.sqlstate.is_none() && !last.finished() => {
                last.sqlstate = Some(line.sqlstate.clone());
            }
            _ => {
                self.push(line, &line.query, StatementKind::Refused);
                if let Some(refused) = self.statements.last_mut() {
                    refused.sqlstate = Some(line.sqlstate.clone());
                }
            }
        }
    }
}

impl LoggedStatement {
    /// Only an Execute is known to have ended by its audit line: a simple string may go on after its first statement.
    fn finished(&self) -> bool {
        self.kind == StatementKind::Execute && !self.audited.is_empty()
    }
}

/// One line of the log: the columns that are of use.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Nanoseconds since the Unix epoch (the log has milliseconds).
    pub at_ns: i64,
    /// The login role.
    pub role: String,
    /// The database.
    pub database: String,
    /// The backend's process id.
    pub pid: u32,
    /// `127.0.0.1:50000`, `[local]`.
    pub client: String,
    /// csvlog's `session_id`.
    pub session: String,
    /// Its position in the session, from 1.
    pub number: u64,
    /// What the process title showed: `SELECT`, `BIND`, `idle`, ….
    pub command_tag: String,
    /// `LOG`, `ERROR`, ….
    pub severity: String,
    /// `00000` where there is none.
    pub sqlstate: String,
    /// In the server's language, which is English here.
    pub message: String,
    /// Parameters of a statement, among others.
    pub detail: String,
    /// The statement that an error names.
    pub query: String,
    /// As the session's client calls itself by then.
    pub application_name: String,
    /// `client backend`, `walsender`, `parallel worker`, …; 13 and later.
    pub backend_type: String,
}

impl Line {
    fn of(record: &StringRecord) -> Result<Self> {
        let text = |index: usize| record.get(index).unwrap_or_default().to_owned();
        Ok(Self {
            at_ns: timestamp(record.get(column::LOG_TIME).unwrap_or_default())?,
            role: text(column::USER_NAME),
            database: text(column::DATABASE_NAME),
            pid: text(column::PROCESS_ID).parse().context("process_id")?,
            client: text(column::CONNECTION_FROM),
            session: text(column::SESSION_ID),
            number: text(column::SESSION_LINE_NUM)
                .parse()
                .context("session_line_num")?,
            command_tag: text(column::COMMAND_TAG),
            severity: text(column::ERROR_SEVERITY),
            sqlstate: text(column::SQL_STATE_CODE),
            message: text(column::MESSAGE),
            detail: text(column::DETAIL),
            query: text(column::QUERY),
            application_name: text(column::APPLICATION_NAME),
            backend_type: text(column::BACKEND_TYPE),
        })
    }
}

/// `2026-11-21 02:06:04.370 UTC`: the suite's servers log in UTC.
fn timestamp(text: &str) -> Result<i64> {
    let plain = text.strip_suffix(" UTC").context("the log is not in UTC")?;
    let time: jiff::civil::DateTime = plain.parse().context("log_time")?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC)?;
    i64::try_from(zoned.timestamp().as_nanosecond()).context("log_time")
}

/// Positions of csvlog's columns (manual, table postgres_log). 13 ends with `backend_type`; 14 adds `leader_pid` and
/// `query_id` behind it.
mod column {
    pub(super) const LOG_TIME: usize = 0;
    pub(super) const USER_NAME: usize = 1;
    pub(super) const DATABASE_NAME: usize = 2;
    pub(super) const PROCESS_ID: usize = 3;
    pub(super) const CONNECTION_FROM: usize = 4;
    pub(super) const SESSION_ID: usize = 5;
    pub(super) const SESSION_LINE_NUM: usize = 6;
    pub(super) const COMMAND_TAG: usize = 7;
    pub(super) const ERROR_SEVERITY: usize = 11;
    pub(super) const SQL_STATE_CODE: usize = 12;
    pub(super) const MESSAGE: usize = 13;
    pub(super) const DETAIL: usize = 14;
    pub(super) const QUERY: usize = 19;
    pub(super) const APPLICATION_NAME: usize = 22;
    pub(super) const BACKEND_TYPE: usize = 23;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u32, severity: &str, sqlstate: &str, message: &str, query: &str) -> String {
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        format!(
            "2026-11-21 02:06:04.{number:03} UTC,\"app_user\",\"shop\",77,\"[local]\",6b00fc8c.4d,{number},\"idle\",\
             2026-11-21 02:06:04 UTC,3/1,0,{severity},{sqlstate},{},,,,,,{},,,\"psql\",\"client backend\",,0\n",
            quote(message),
            quote(query)
        )
    }

    #[test]
    fn statements_rows_and_errors_find_each_other() {
        let log = [
            line(1, "LOG", "00000", "statement: begin; select 1; select \"x, y\"\nfrom t", ""),
            line(2, "LOG", "00000", "AUDIT: SESSION,1,1,READ,SELECT,,,\"begin; select 1; select \"\"x, y\"\"\nfrom t\",<not logged>,1", ""),
            line(3, "LOG", "00000", "AUDIT: SESSION,2,1,READ,SELECT,,,\"begin; select 1; select \"\"x, y\"\"\nfrom t\",<not logged>,12", ""),
            line(4, "LOG", "00000", "execute <unnamed>: insert into t values ($1)", ""),
            line(5, "LOG", "00000", "statement: commit", ""),
            // The unnamed portal's executor ended after COMMIT was logged.
            line(6, "LOG", "00000", "AUDIT: SESSION,3,1,WRITE,INSERT,,,insert into t values ($1),<not logged>,4", ""),
            line(7, "LOG", "00000", "statement: select 1/0", ""),
            line(8, "ERROR", "22012", "division by zero", "select 1/0"),
            line(9, "ERROR", "42601", "syntax error", "selec"),
            line(10, "LOG", "00000", "disconnection: session time: 0:00:00.015", ""),
        ]
        .concat();
        let sessions = parse(log.as_bytes()).unwrap();
        assert_eq!(sessions.len(), 1);
        let session = &sessions[0];
        assert_eq!(
            (session.backend_pid, session.role.as_str(), session.closed),
            (77, "app_user", true)
        );
        let seen: Vec<_> = session
            .statements
            .iter()
            .map(|s| {
                (
                    s.kind,
                    s.sqlstate.as_deref(),
                    s.audited.iter().map(|a| a.rows).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (StatementKind::Simple, None, vec![1, 12]),
                (StatementKind::Execute, None, vec![4]),
                (StatementKind::Simple, None, vec![]),
                (StatementKind::Simple, Some("22012"), vec![]),
                (StatementKind::Refused, Some("42601"), vec![]),
            ]
        );
        assert_eq!(session.statements[4].text, "selec");
    }

    #[test]
    fn the_server_says_what_encrypts() {
        let tls = "connection authorized: user=a database=b application_name=psql SSL enabled (protocol=TLSv1.3, \
                   cipher=TLS_AES_256_GCM_SHA384, bits=256)";
        assert_eq!(
            Encryption::of(tls),
            Encryption::Tls {
                version: "TLSv1.3".to_owned(),
                cipher: "TLS_AES_256_GCM_SHA384".to_owned()
            }
        );
        let gss =
            "connection authorized: user=a database=b GSS (authenticated=no, encrypted=yes, principal=a@B)";
        assert_eq!(Encryption::of(gss), Encryption::Gss);
        let authenticated =
            "connection authorized: user=a database=b GSS (authenticated=yes, encrypted=no, principal=a@B)";
        assert_eq!(Encryption::of(authenticated), Encryption::None);
    }

    #[test]
    fn version_13_has_two_columns_less() {
        let newer = line(1, "LOG", "00000", "statement: select 1", "");
        let older = newer.replace(",\"client backend\",,0\n", ",\"client backend\"\n");
        assert_ne!(older, newer);
        let sessions = lines(older.as_bytes()).unwrap();
        assert_eq!(sessions[0][0].backend_type, "client backend");
        assert_eq!(sessions[0][0].command_tag, "idle");
    }

    #[test]
    fn a_torn_last_line_waits() {
        let whole = line(1, "LOG", "00000", "statement: select 1", "");
        let torn = line(2, "LOG", "00000", "statement: select 2", "");
        let log = format!("{whole}{}", &torn[..torn.len() - 30]);
        assert_eq!(parse(log.as_bytes()).unwrap()[0].statements.len(), 1);
    }
}
