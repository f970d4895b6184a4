//! `inventory suggest`: a file that expects exactly what was seen, with what to check written beside it.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use inventory::Suggestion;
use serde_json::Value;

use crate::{
    since::since,
    source::{Place, Source},
};

/// Writes a first inventory: everybody who was seen, with the roles, databases and addresses that they used.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// What was seen since then: RFC 3339, or a span before now like 24h or 30d.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    since: String,
    /// The file to write; standard output if there is none.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Writes over a file that is there.
    #[arg(long, requires = "output")]
    force: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.output
        && !args.force
        && fs::symlink_metadata(file).is_ok()
    {
        bail!(
            "{} is there already: name another file, or write over it with --force",
            file.display()
        );
    }
    let since_ns = since(&args.since, jiff::Timestamp::now())?;
    let (suggestion, left_out) = suggested(&args.place.open().await?, since_ns).await?;
    let text = suggestion.to_toml();
    match &args.output {
        Some(file) => {
            write(file, &text, args.force).with_context(|| format!("cannot write {}", file.display()))?;
        }
        None => match std::io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(error).context("cannot print the inventory");
            }
            _ => {}
        },
    }
    if left_out > 0 {
        eprintln!(
            "{left_out} principals have names that no agent makes (with `*` or `?`): they are left out"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What was seen since then, and how many could not be listed.
async fn suggested(source: &Source, since_ns: i64) -> anyhow::Result<(Suggestion, usize)> {
    let rows = super::principals(source, COLUMNS, since_ns).await?;
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    let seen: Vec<Habits> = rows.iter().filter_map(|row| Habits::of(row)).collect();
    for role in seen.iter().flat_map(|one| &one.roles) {
        *users.entry(role.clone()).or_default() += 1;
    }
    let mut suggestion = Suggestion::default();
    let mut left_out = rows.len() - seen.len();
    for one in seen {
        if !suggestion.add(&one.principal, None, None, None) {
            left_out += 1;
            continue;
        }
        for role in &one.roles {
            suggestion.add(&one.principal, Some(role), None, None);
        }
        for database in &one.databases {
            suggestion.add(&one.principal, None, Some(database), None);
        }
        for address in one.addresses.iter().filter_map(|address| address.parse().ok()) {
            suggestion.add(&one.principal, None, None, Some(address));
        }
        for note in one.notes(&users) {
            suggestion.note(&one.principal, &note);
        }
    }
    Ok((suggestion, left_out))
}

/// In this order they are read by [`Habits::of`].
const COLUMNS: &str = "max(principal_kind), array_sort(array_agg(DISTINCT confidence)), \
    array_sort(array_agg(DISTINCT login_role)), array_sort(array_agg(DISTINCT database)), \
    array_sort(array_agg(DISTINCT client_addr)), count(DISTINCT session_id), coalesce(sum(executions), 0), \
    min(ts_start), max(ts_start)";

/// What one principal did.
struct Habits {
    principal: String,
    kind: String,
    confidence: Vec<String>,
    roles: Vec<String>,
    databases: Vec<String>,
    addresses: Vec<String>,
    sessions: u64,
    statements: u64,
    first: String,
    last: String,
}

impl Habits {
    fn of(row: &[Value]) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| -> Vec<String> {
            let values = value.as_array().into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let [
            principal,
            kind,
            confidence,
            roles,
            databases,
            addresses,
            sessions,
            statements,
            first,
            last,
        ] = row
        else {
            return None;
        };
        Some(Self {
            principal: text(principal),
            kind: text(kind),
            confidence: list(confidence),
            roles: list(roles),
            databases: list(databases),
            addresses: list(addresses),
            sessions: sessions.as_u64().unwrap_or(0),
            statements: statements.as_u64().unwrap_or(0),
            first: text(first),
            last: text(last),
        })
    }

    /// What was seen, and what a person should look at.
    fn notes(&self, users: &BTreeMap<String, usize>) -> Vec<String> {
        let day = |time: &str| time.get(..10).unwrap_or("?").to_owned();
        let (first, last) = (day(&self.first), day(&self.last));
        let mut notes = vec![format!(
            "{} to {}: {} sessions, {} statements; {}",
            first,
            last,
            self.sessions,
            self.statements,
            self.confidence.join(", ")
        )];
        let mut check = |what: String| notes.push(format!("check: {what}"));
        match self.kind.as_str() {
            "remote" => check("no agent runs there; whatever uses that address has this name".to_owned()),
            "login" => check("a person's login; is a person to come here?".to_owned()),
            "process" => {
                check("an executable outside of any unit; whoever may run it has this name".to_owned());
            }
            _ => {}
        }
        if first == last {
            check("seen on one day only; is it to stay?".to_owned());
        }
        for role in &self.roles {
            let others = users.get(role).map_or(0, |users| users.saturating_sub(1));
            if others > 0 {
                check(format!(
                    "role {role} is used by {others} others, too; a credential of its own would tell them apart"
                ));
            }
            if role == "postgres" {
                check("postgres is the superuser of most servers; does it need to be one?".to_owned());
            }
        }
        if !self
            .addresses
            .iter()
            .any(|address| address.parse::<std::net::IpAddr>().is_ok())
        {
            check("no address was seen (Unix sockets); `from = []` would allow no network".to_owned());
        }
        notes
    }
}

/// Writes a whole file or none.
fn write(file: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let fresh = |path: &Path| {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    };
    if !force {
        let mut file = fresh(file)?;
        file.write_all(text.as_bytes())?;
        return Ok(file.sync_all()?);
    }
    let mut name = file.file_name().context("it has no name")?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = file.with_file_name(name);
    let written = fresh(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // It is ours, and says nothing.
        _ = fs::remove_file(&beside);
    }
    Ok(written?)
}
