//! Where answers come from: a running collector, or a data folder.
//!
//! Owns the flags that say which, and one way to ask either. Refuses to write: a folder's store is read, and what is not in it
//! yet is taken from the evidence log, also beside a running collector.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    expectations::Expectations,
    http::client::{self, Collector, DEFAULT_URL},
    log, rebuild,
    store::{
        Store,
        page::{MAX_ROWS, Page},
    },
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
    /// Why this is asked: the collector records it, with the question.
    #[arg(long, value_name = "TEXT", conflicts_with = "data", value_parser = purpose)]
    pub purpose: Option<String>,
}

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
    Folder(Arc<Store>),
    Collector(Collector),
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
                let collector = Collector::at(&self.url)?;
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
        let store = Store::open_read_only(&data.join("store")).await?;
        if let Some(file) = inventory {
            store.expect(Arc::new(Expectations::open(file)?));
        }
        store.show_events_of(Arc::new(log::Places::new(&evidence)));
        if let Some(originator) = log::originator(&evidence)? {
            store.believe(&originator).await?;
        }
        rebuild::refill(&evidence, &store, |_| {}).await?;
        Ok(Self::Folder(store))
    }

    /// One SQL statement's answer.
    pub(crate) async fn ask(&self, sql: &str) -> anyhow::Result<Page> {
        match self {
            Self::Folder(store) => store.query(sql, MAX_ROWS).await,
            Self::Collector(collector) => collector.post("/api/query", &json!({ "sql": sql })).await,
        }
    }
}

impl Collector {
    /// One question of the API, and its answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> anyhow::Result<T> {
        let question = serde_json::to_string(question)?;
        let response = self.ask(path, Some(question)).await?;
        let status = response.status();
        let body = client::read(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .context("the collector's answer is not what this version expects");
        }
        let error = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        match error.get("error").and_then(Value::as_str) {
            Some(error) => bail!("{error}"),
            None => bail!("the collector answered {status}"),
        }
    }
}
