//! Where answers come from: a running collector, or a data folder.
//!
//! Owns the flags that say which, and one way to ask either. Refuses to write: a folder's store is read, and what is not in it
//! yet is taken from the evidence log, also beside a running collector.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::StatusCode;
use serde_json::Value;

use crate::{
    expectations::Expectations,
    http::{
        client::{self, Collector, DEFAULT_URL},
        origin::Origin,
    },
    log,
    progress::{self, Progress},
    rebuild,
    store::{
        Site, Store,
        page::{Page, Sql},
        question::Question,
    },
    trust,
};

/// The flags.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Reads this data folder instead of asking a collector.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    pub data: Option<PathBuf>,
    /// The collector to ask.
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    pub url: String,
    /// As whom.
    #[command(flatten)]
    pub credentials: Credentials,
    /// Why this is asked: the collector records it, with the question.
    #[arg(long, value_name = "TEXT", conflicts_with = "data", value_parser = purpose)]
    pub purpose: Option<String>,
}

/// As whom a collector is asked, and whom it must be.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Credentials {
    /// A file with the token to ask with [default: what the variable PGWITNESS_TOKEN says].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// With https://: a PEM file with the authorities of the collector's certificate [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

impl Credentials {
    /// The collector at this URL.
    pub(crate) fn collector(&self, url: &str) -> anyhow::Result<Collector> {
        let origin = Origin::at(url, self.ca.as_deref());
        let origin = origin.with_context(|| format!("give a URL as in {DEFAULT_URL}"))?;
        let token = match &self.token_file {
            Some(file) => Some(trust::private("token", file)?),
            None => std::env::var(TOKEN).ok(),
        };
        let token = token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        Collector::at(origin, token)
    }
}

/// The variable with a token.
const TOKEN: &str = "PGWITNESS_TOKEN";

/// A purpose that can go with a question.
pub(crate) fn purpose(text: &str) -> Result<String, String> {
    match text.chars().any(char::is_control) {
        true => Err("one line of text is expected".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// The same for what shows marks.
#[derive(Clone, Debug, clap::Args)]
pub struct MarkedPlace {
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
    /// With --data: marks events by this inventory. A running collector has its own.
    #[arg(long, value_name = "FILE", requires = "data")]
    pub inventory: Option<PathBuf>,
}

/// What can be asked.
pub(crate) enum Source {
    Folder { store: Arc<Store>, evidence: PathBuf },
    Collector(Collector),
}

/// The newest checkpoint of a record.
pub(crate) struct Checkpoint {
    pub(crate) origin: String,
    pub(crate) entries: u64,
    /// Base64, as checkpoints write it.
    pub(crate) root: String,
}

impl Place {
    /// Opens it.
    pub(crate) async fn open(&self) -> anyhow::Result<Source> {
        self.marked_by(None).await
    }

    async fn marked_by(&self, inventory: Option<&Path>) -> anyhow::Result<Source> {
        match &self.data {
            Some(data) => Source::folder(data, inventory).await,
            None => {
                let collector = self.credentials.collector(&self.url)?;
                Ok(Source::Collector(collector.for_purpose(self.purpose.as_deref())))
            }
        }
    }
}

impl MarkedPlace {
    /// Opens it.
    pub(crate) async fn open(&self) -> anyhow::Result<Source> {
        self.place.marked_by(self.inventory.as_deref()).await
    }
}

impl Source {
    /// Opens the store without writing to it and fills its tail from the log: a collector may be running.
    async fn folder(data: &Path, inventory: Option<&Path>) -> anyhow::Result<Self> {
        let evidence = log::evidence_in(data)?;
        let store = Site::recorded(data)?.open_read_only().await?;
        if let Some(file) = inventory {
            store.expect(Arc::new(Expectations::open(file)?));
        }
        store.show_events_of(Arc::new(log::Places::new(&evidence)));
        if let Some(originator) = log::originator(&evidence)? {
            store.believe(&originator).await?;
        }
        let mut progress = Progress::default();
        rebuild::refill(&evidence, &store, |so_far| {
            progress.tell(|| format!("reading the evidence log: {} events", so_far.events));
        })
        .await?;
        Ok(Self::Folder { store, evidence })
    }

    /// A question's answer; says how long it takes, if it does.
    pub(crate) async fn answer<Q: Question>(&self, question: &Q) -> anyhow::Result<Q::Answer> {
        progress::told("waiting for the answer", async {
            match self {
                Self::Folder { store, .. } => question.answer(store).await,
                Self::Collector(collector) => collector.post(question).await,
            }
        })
        .await
    }

    /// Where its record stands; `None` where there is no checkpoint yet.
    pub(crate) async fn checkpoint(&self) -> anyhow::Result<Option<Checkpoint>> {
        match self {
            Self::Folder { evidence, .. } if evidence.join("checkpoint").exists() => {
                let known = log::folder_checkpoint(evidence)?;
                let (_, newest) = known.newest();
                Ok(Some(Checkpoint {
                    origin: newest.origin.clone(),
                    entries: newest.size,
                    root: BASE64_STANDARD.encode(newest.root),
                }))
            }
            Self::Folder { .. } => Ok(None),
            Self::Collector(collector) => {
                let answer = collector.ask("/api/v1/status", None).await?;
                let code = answer.status();
                let answer = client::read(answer).await?;
                if !code.is_success() {
                    return Err(refused(code, &answer));
                }
                let status: Value = serde_json::from_slice(&answer)
                    .context("the collector's answer is not what this version expects")?;
                let evidence = |name: &str| status.get("evidence")?.get(name);
                let text = |name: &str| {
                    evidence(name)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                Ok(Some(Checkpoint {
                    origin: text("origin"),
                    entries: evidence("tree_size").and_then(Value::as_u64).unwrap_or_default(),
                    root: text("root_hash"),
                }))
            }
        }
    }

    /// One SQL statement's answer.
    pub(crate) async fn ask(&self, sql: &str) -> anyhow::Result<Page> {
        self.answer(&Sql { sql: sql.to_owned() }).await
    }
}

impl Collector {
    /// One question of the API, and its answer.
    async fn post<Q: Question>(&self, question: &Q) -> anyhow::Result<Q::Answer> {
        // What the collector itself allows it, which may have to queue.
        let longest = Q::LONGEST * 2;
        let body = Some(serde_json::to_string(question)?);
        let response = self.ask_for(Q::PATH, body, longest).await?;
        let status = response.status();
        let body = client::read(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .context("the collector's answer is not what this version expects");
        }
        Err(refused(status, &body))
    }
}

/// What a collector said in place of an answer, and what to do where a token is what lacks.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let error = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let error = match error.get("error").and_then(Value::as_str) {
        Some(error) => anyhow!("{error}"),
        None => anyhow!("the collector answered {status}"),
    };
    match status {
        StatusCode::UNAUTHORIZED => error.context(
            "the collector did not let this in: name a file with a token (--token-file), or set PGWITNESS_TOKEN; whoever runs the collector \
             makes one (pgwitness-collector user add NAME --role ROLE)",
        ),
        StatusCode::FORBIDDEN => error.context(
            "the collector did not let this in: whoever runs it gives roles (pgwitness-collector user remove NAME, then user add NAME --role \
             ROLE; or access.oidc.roles)",
        ),
        _ => error,
    }
}
