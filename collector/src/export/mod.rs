//! `pgwitness-collector export`: many events, in a form for others.
//!
//! Owns which forms there are, and the way from a store to a file: a stream, so that nothing is held that was written. A file has its name only when
//! it is whole. Refuses an order: rows come as the store has them, mostly by time.

mod encode;
mod file;
pub mod ocsf;

use std::{
    future::ready,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use http_body_util::{BodyExt as _, BodyStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::encode::Encoder;
use crate::{
    http::client,
    since::When,
    source::{self, MarkedPlace, Source},
    store::{
        Store,
        question::in_words,
        selection::{Selected, Selection},
    },
};

/// Writes events, as many as there are: JSON lines, CSV, Parquet, or OCSF. They are in no promised order, mostly by time.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The form.
    #[arg(long, value_enum)]
    pub format: Format,
    /// The file; it gets its name when it is whole. Without one, standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replaces the file, if it is there.
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Only events for which this holds: SQL over the columns of events, as behind WHERE.
    #[arg(long = "where", value_name = "PREDICATE")]
    pub predicate: Option<String>,
    /// Only this kind: query, rollup, gap, session_open, …
    #[arg(long)]
    pub kind: Option<String>,
    /// Only this principal, whole or with * for any text; `unknown` is whoever has no name.
    #[arg(long)]
    pub principal: Option<String>,
    /// Only statements that name this object, just so.
    #[arg(long, value_name = "NAME")]
    pub object: Option<String>,
    /// When.
    #[command(flatten)]
    pub when: When,
    /// Whom to ask.
    #[command(flatten)]
    pub place: MarkedPlace,
}

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The JSON form of events, one a line.
    Jsonl,
    /// The columns of the table events, RFC 4180, with a header line.
    Csv,
    /// The columns of the table events.
    Parquet,
    /// OCSF 1.3.0, one object a line: Datastore Activity (6005), and Base Event for what is none.
    Ocsf,
}

/// An export, as the API is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Export {
    /// The form.
    pub format: Format,
    /// Which events.
    #[serde(flatten)]
    pub which: Selection,
}

/// Where the API has exports.
pub(crate) const PATH: &str = "/api/v1/export";

/// An export on its way.
pub(crate) type Pieces = BoxStream<'static, anyhow::Result<Piece>>;

/// A part of an export.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Events that became known with it; 0 where that is not told.
    pub(crate) events: usize,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, events: 0 }
    }
}

/// Asks, and writes.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let export = Export {
        format: args.format,
        which: Selection {
            kind: args.kind,
            principal: args.principal,
            object: args.object,
            span: args.when.span(Timestamp::now())?,
            predicate: args.predicate,
        },
    };
    let pieces = args.place.open().await?.export(&export).await?;
    match args.output {
        Some(path) => file::write(pieces, &path, args.force).await?,
        None if export.format == Format::Parquet && std::io::IsTerminal::is_terminal(&std::io::stdout()) => {
            bail!("Parquet is not for a terminal: name a file with --output")
        }
        None => file::print(pieces).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a whole text where an export would go.
pub(crate) async fn deliver(text: Vec<u8>, output: Option<&Path>, force: bool) -> anyhow::Result<()> {
    let pieces = futures::stream::once(async { Ok(Bytes::from(text).into()) }).boxed();
    match output {
        Some(path) => file::write(pieces, path, force).await,
        None => file::print(pieces).await,
    }
}

impl Export {
    /// What was asked, for the record of that.
    pub(crate) fn words(&self) -> String {
        in_words(self)
    }

    /// What the store has, in pieces as they are made.
    ///
    /// # Errors
    ///
    /// With what is wrong with the question. What goes wrong later is the stream's last item.
    pub(crate) async fn of(&self, store: &Store) -> anyhow::Result<Pieces> {
        let whole = matches!(self.format, Format::Jsonl | Format::Ocsf);
        let selected = store.all_of(&self.which, whole).await?;
        Ok(pieces(selected, self.format).boxed())
    }
}

impl Format {
    /// As HTTP names it.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Jsonl | Self::Ocsf => "application/jsonl",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

fn pieces(selected: Selected, format: Format) -> impl Stream<Item = anyhow::Result<Piece>> {
    async_stream::try_stream! {
        let Selected { mut rows, shown, session: _session } = selected;
        let mut encoder = Encoder::new(format, rows.schema(), shown)?;
        let mut events = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            events += batch.num_rows();
            // It reads the evidence log, or compresses: not on the threads that serve everybody.
            let bytes;
            (bytes, encoder) = tokio::task::spawn_blocking(move || (encoder.add(&batch), encoder)).await?;
            let bytes = bytes?;
            if !bytes.is_empty() {
                yield Piece { bytes, events: std::mem::take(&mut events) };
            }
        }
        let bytes = encoder.end()?;
        if !bytes.is_empty() {
            yield Piece { bytes, events };
        }
    }
}

impl Source {
    /// An export, in pieces as they come.
    async fn export(&self, export: &Export) -> anyhow::Result<Pieces> {
        match self {
            Self::Folder { store, .. } => export.of(store).await,
            Self::Collector(collector) => {
                let response = collector.ask(PATH, Some(serde_json::to_string(export)?)).await?;
                if !response.status().is_success() {
                    let status = response.status();
                    return Err(source::refused(status, &client::read(response).await?));
                }
                let frames = BodyStream::new(response.into_body().map_err(|error| {
                    anyhow::Error::from(error).context("the collector's answer broke off: it is not whole")
                }));
                let data = frames.filter_map(|frame| {
                    ready(
                        frame
                            .map(|frame| frame.into_data().ok().map(Piece::from))
                            .transpose(),
                    )
                });
                Ok(data.boxed())
            }
        }
    }
}

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  export --format parquet --since 30d -o november.parquet
  export --format csv --principal '*/unit/shop.service' --object public.customers
  export --format ocsf --where \"kind = 'query' AND class = 'WRITE'\" -o writes.jsonl";

#[cfg(test)]
mod tests;
