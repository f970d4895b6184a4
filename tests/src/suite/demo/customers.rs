//! Who touched one customer: asked of pgwitness, and known from the server's log.
//!
//! Owns the classification and the key of the run, the question, and what the answer must be. It refuses to look at events: the
//! question is asked as an operator asks it, with the value alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::APP_ROLE;
use crate::compare::{program_of, unit_of};
use crate::csvlog::{LoggedSession, LoggedStatement};
use crate::tap::{Redaction, Settings, Tap};

/// The customer that is asked about.
const CUSTOMER: u64 = 42;

/// By email, so that nothing but the rows that come back says who they are: user4, user40 to user49, user400 and on.
pub(super) const BY_EMAIL: &str =
    "SELECT id, email FROM customers WHERE email LIKE 'user4%' ORDER BY id LIMIT 20";

const CLASSIFICATION: &str = "[[column]]\nobject = \"public.customers\"\ncolumn = \"id\"\ntype = \"integer\"\n\
    subject = true\nkind = \"customer\"\nmode = \"token\"\n";

/// What the agent is told, and the key that whoever asks needs.
#[derive(Debug)]
pub(super) struct Customers {
    folder: TempDir,
}

/// How the answer differs from what the log says.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Statements on the customer, by program, as the answer has them.
    pub(super) touched: BTreeMap<String, u64>,
    /// Statements that it has too many or too few, by program, and everything else that is wrong.
    pub(super) wrong: Vec<String>,
    /// As an operator reads it.
    pub(super) told: String,
}

impl Customers {
    pub(super) fn new() -> Result<Self> {
        let customers = Self {
            folder: TempDir::with_prefix("pgwitness-customers-")?,
        };
        fs::write(customers.classification(), CLASSIFICATION)?;
        let mut key = [0; 32];
        fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(customers.key(), format!("demo {digits}\n"))?;
        fs::set_permissions(customers.key(), fs::Permissions::from_mode(0o600))?;
        Ok(customers)
    }

    fn classification(&self) -> PathBuf {
        self.folder.path().join("classification.toml")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("token.keys")
    }

    /// How the agent is started.
    pub(super) fn settings(&self) -> Settings {
        let keys = [
            ("SUBJECTS__CLASSIFICATION", self.classification()),
            ("SUBJECTS__TOKEN_KEY", self.key()),
        ];
        Settings {
            keys: keys.map(|(key, file)| (key, file.display().to_string())).into(),
            ..Redaction::Default.into()
        }
    }

    /// Asks the stopped collector's folder. `units` are the units of programs by their names.
    pub(super) fn ask(
        &self,
        tap: &Tap,
        logged: &[LoggedSession],
        units: &BTreeMap<String, String>,
    ) -> Result<Answered> {
        let told = self.who(tap, &[])?;
        let answer: Value = serde_json::from_str(&self.who(tap, &["--json"])?).context("the answer")?;
        Ok(Answered {
            told,
            ..judge(&answer, logged, units)
        })
    }

    fn who(&self, tap: &Tap, more: &[&str]) -> Result<String> {
        let mut asking = Command::new(tap.collector_binary())
            .args(["who", "--object", "public.customers", "--key", "-", "--token-key"])
            .arg(self.key())
            .arg("--data")
            .arg(tap.collector_data())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running pgwitness-collector who")?;
        let mut input = asking.stdin.take().context("no standard input")?;
        writeln!(input, "{CUSTOMER}")?;
        drop(input);
        let output = asking.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "pgwitness-collector who failed: {complaint}"
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// What the answer must be, by the server's log: which program ran what with which values.
fn judge(answer: &Value, logged: &[LoggedSession], units: &BTreeMap<String, String>) -> Answered {
    let mut answered = Answered::default();
    let mut expected: BTreeMap<(String, &str), u64> = BTreeMap::new();
    let statements = logged
        .iter()
        .filter(|session| session.role == APP_ROLE)
        .flat_map(|session| &session.statements);
    for statement in statements.filter(|statement| statement.sqlstate.is_none()) {
        if let Some((program, source)) = program_of(&statement.text).zip(touches(statement)) {
            *expected.entry((program.to_owned(), source)).or_default() += 1;
        }
    }
    let mut found: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for row in list(&answer["touched"]) {
        let program = program(row, units);
        let statements = row["statements"].as_u64().unwrap_or_default();
        let source = if text(row, "sources").contains("predicate") {
            PREDICATE
        } else {
            RETURNED
        };
        if row["sure"] != true {
            answered
                .wrong
                .push(format!("{program} only possibly touched customer {CUSTOMER}"));
        }
        *answered.touched.entry(program.clone()).or_default() += statements;
        *found.entry((program, source)).or_default() += statements;
    }
    for (key, count) in &expected {
        let told = found.get(key).copied().unwrap_or_default();
        if told != *count {
            answered.wrong.push(format!(
                "{} touched customer {CUSTOMER} by {} in {count} statements, not {told}",
                key.0, key.1
            ));
        }
    }
    for (program, source) in found.keys().filter(|key| !expected.contains_key(*key)) {
        answered
            .wrong
            .push(format!("{program} did not touch customer {CUSTOMER} by {source}"));
    }
    // It counts all customers, so it read this one, too, and nothing on the wire says so.
    let open: Vec<String> = list(&answer["not_excluded"])
        .iter()
        .filter(|row| row["on_object"] == true)
        .map(|row| program(row, units))
        .collect();
    if !open.iter().any(|program| program == COUNTS) {
        answered
            .wrong
            .push(format!("{COUNTS} is excluded, and it counted all customers"));
    }
    if answer["complete"] != false {
        answered
            .wrong
            .push("the answer says that nobody else touched it".to_owned());
    }
    answered
}

/// The program that reads all customers and says of none who it is.
const COUNTS: &str = "nightly-job";

const PREDICATE: &str = "predicate";
const RETURNED: &str = "returned";

/// By what a statement touches the customer, if it does: all that these programs say of customers is here.
fn touches(statement: &LoggedStatement) -> Option<&'static str> {
    let text = &statement.text;
    let about = ["FROM customers", "UPDATE customers"]
        .iter()
        .any(|words| text.contains(words));
    if !about {
        return None;
    }
    if text.contains(BY_EMAIL) {
        return Some(RETURNED);
    }
    let first = statement.params.strip_prefix("$1 = '")?;
    let value: u64 = first.split('\'').next()?.parse().ok()?;
    if text.contains("id = $1") {
        return (value == CUSTOMER).then_some(PREDICATE);
    }
    (text.contains("id < $1") && value > CUSTOMER).then_some(RETURNED)
}

/// The program of a row, by its unit; the principal where it is none of ours.
fn program(row: &Value, units: &BTreeMap<String, String>) -> String {
    let principal = text(row, "principal");
    let unit = unit_of(principal);
    let known = units.iter().find(|(_, of)| Some(of.as_str()) == unit);
    known.map_or_else(|| principal.to_owned(), |(program, _)| program.clone())
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(text: &str, params: &str) -> LoggedStatement {
        LoggedStatement {
            text: text.to_owned(),
            params: params.to_owned(),
            ..LoggedStatement::default()
        }
    }

    fn logged() -> Vec<LoggedSession> {
        vec![LoggedSession {
            role: APP_ROLE.to_owned(),
            statements: vec![
                said(
                    "SELECT id, email FROM customers /* program=orders-api */ WHERE id = $1",
                    "$1 = '42'",
                ),
                said(
                    "SELECT id, email FROM customers /* program=orders-api */ WHERE id = $1",
                    "$1 = '43'",
                ),
                said(
                    "UPDATE customers /* program=orders-api */ SET region = 'north' WHERE id = $1",
                    "$1 = '42'",
                ),
                said(
                    "SELECT id, amount FROM orders /* program=ledger-bench */ WHERE id = $1",
                    "$1 = '42'",
                ),
                said(
                    "SELECT id, email FROM customers WHERE id < $1 /* program=health-probe */",
                    "$1 = '5'",
                ),
                said(&format!("{BY_EMAIL} /* program=back-office */"), ""),
                said(
                    "SELECT region, count(*) FROM customers /* program=nightly-job */ GROUP BY region",
                    "",
                ),
            ],
            ..LoggedSession::default()
        }]
    }

    fn answer() -> Value {
        json!({
            "touched": [
                {"principal": "spiffe://x/host/h/unit/o.service", "statements": 1, "sources": "predicate, returned", "sure": true},
                {"principal": "spiffe://x/host/h/unit/o.service", "statements": 1, "sources": "predicate", "sure": true},
                {"principal": "spiffe://x/host/h/unit/b.service", "statements": 1, "sources": "returned", "sure": true},
            ],
            "not_excluded": [{"principal": "spiffe://x/host/h/unit/n.service", "on_object": true}],
            "complete": false,
        })
    }

    fn judged(change: fn(&mut Value)) -> Vec<String> {
        let units = [
            ("orders-api", "o"),
            ("back-office", "b"),
            ("nightly-job", "n"),
            ("ledger-bench", "l"),
        ];
        let units = units
            .map(|(name, unit)| (name.to_owned(), format!("{unit}.service")))
            .into();
        let mut answer = answer();
        change(&mut answer);
        judge(&answer, &logged(), &units).wrong
    }

    #[test]
    fn exactly_who_touched_the_customer_is_right() {
        assert_eq!(judged(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn one_too_many_one_too_few_and_one_too_sure_are_wrong() {
        assert_eq!(
            judged(|answer| answer["touched"][1]["statements"] = json!(2)).len(),
            1
        );
        assert_eq!(judged(|answer| answer["touched"] = json!([])).len(), 2);
        assert_eq!(
            judged(|answer| answer["touched"][2]["sure"] = json!(false)).len(),
            1
        );
        assert_eq!(
            judged(|answer| answer["touched"][2]["sources"] = json!("predicate")).len(),
            2
        );
        assert_eq!(
            judged(|answer| answer["touched"][2]["principal"] = json!("unknown")).len(),
            2
        );
        assert_eq!(judged(|answer| answer["not_excluded"] = json!([])).len(), 1);
        assert_eq!(judged(|answer| answer["complete"] = json!(true)).len(), 1);
    }
}
