//! The JSON API.
//!
//! Owns parameters, their limits, and the shapes of the answers. Errors are `{"error": "…"}`.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Web,
    health::OPENMETRICS,
    said::{Named, Said},
};
use crate::{
    access::{Asker, Refused, Role, within},
    expectations::Expectations,
    export::Export,
    live::Filter,
    log, since,
    store::{
        page::Sql,
        question::{self, Question},
    },
};

/// `GET /api/v1/overview?since=24h`: key figures, evidence and store in one object.
pub(super) async fn overview(
    State(web): State<Web>,
    asker: Asker,
    Named(window): Named<Window>,
) -> Result<Json<Value>, Failure> {
    let _turn = web.questions.wait(&asker.user()).await?;
    let since = window.since_or_a_day()?;
    let mut asked = asker.asks("overview", web.app.accesses.as_ref());
    let store = &web.app.store;
    let overview = within(Sql::LONGEST, async {
        let mut overview = store.overview(since).await?;
        overview.insert("begins".into(), json!(store.begins().await?));
        Ok(overview)
    })
    .await;
    asked.answered(overview.as_ref().ok().map(|_| 1)).await;
    let mut overview = overview?;
    overview.insert("since".into(), json!(timestamp(since)));
    overview.insert("evidence".into(), evidence(&web.app.status.borrow()));
    overview.insert("store".into(), json!(web.app.store.status()));
    Ok(Json(overview.into()))
}

/// `GET /api/v1/events?limit=&kind=&principal=&class=&since=`: the newest events, newest first, in their JSON form.
pub(super) async fn events(
    State(web): State<Web>,
    asker: Asker,
    Named(filter): Named<Filter>,
    Named(window): Named<Window>,
) -> Result<Json<Value>, Failure> {
    let _turn = web.questions.wait(&asker.user()).await?;
    let limit = window.limit.unwrap_or(DEFAULT_EVENTS).min(MAX_EVENTS);
    let since = window.since()?;
    let mut asked = asker.asks("events", web.app.accesses.as_ref());
    let events = within(Sql::LONGEST, web.app.store.newest(&filter, since, limit)).await;
    asked.answered(events.as_ref().ok().map(Vec::len)).await;
    Ok(Json(json!({ "events": events? })))
}

/// `GET /api/v1/principals?since=24h`: what each principal did, the busiest first, as a list of objects.
pub(super) async fn principals(
    State(web): State<Web>,
    asker: Asker,
    Named(window): Named<Window>,
) -> Result<Json<Value>, Failure> {
    let _turn = web.questions.wait(&asker.user()).await?;
    let since = window.since_or_a_day()?;
    let mut asked = asker.asks("principals", web.app.accesses.as_ref());
    let page = within(Sql::LONGEST, web.app.store.principals(since)).await;
    asked
        .answered(page.as_ref().ok().map(|page| page.rows.len()))
        .await;
    let page = page?;
    let object = |row: Vec<Value>| -> Value {
        page.columns
            .iter()
            .cloned()
            .zip(row)
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    Ok(Json(
        json!({ "principals": page.rows.into_iter().map(object).collect::<Vec<_>>() }),
    ))
}

/// `POST` of a [`Question`] as JSON to where it has its place: `{"sql": "SELECT …"}` to `/api/v1/query`, for one.
pub(super) async fn answer<Q: Question>(
    State(web): State<Web>,
    asker: Asker,
    Said(question): Said<Q>,
) -> Result<Json<Q::Answer>, Failure> {
    let _turn = web.questions.wait(&asker.user()).await?;
    let mut asked = asker.says(Q::KIND, question.words(), web.app.accesses.as_ref());
    let answer = within(Q::LONGEST, question.answer_within(&web.app.store, Q::LONGEST)).await;
    asked
        .answered(answer.as_ref().ok().map(question::Answer::rows))
        .await;
    let answer = answer.map_err(Failure::asked_wrongly)?;
    web.app.metrics.queries.inc();
    Ok(Json(answer))
}

/// `POST /api/v1/export` with an [`Export`]: its bytes, as they are made. An answer that breaks off is not whole.
pub(super) async fn export(
    State(web): State<Web>,
    asker: Asker,
    Said(export): Said<Export>,
) -> Result<Response, Failure> {
    let turn = web.exports.now(&asker.user())?;
    let (access, pass) = (web.app.access, asker.pass());
    let mut asked = asker.says("export", export.words(), web.app.accesses.as_ref());
    let pieces = match export.of(&web.app.store).await {
        Ok(pieces) => pieces,
        Err(wrong) => {
            asked.answered(None).await;
            return Err(Failure::asked_wrongly(wrong));
        }
    };
    let mut shown = asked.lasts("export_end").await;
    web.app.metrics.queries.inc();
    let mut status = web.app.status;
    let held = async_stream::stream! {
        let _turn = turn;
        let mut pieces = pieces;
        let mut over = std::pin::pin!(access.until_over(&pass));
        loop {
            tokio::select! {
                piece = pieces.next() => match piece {
                    Some(piece) => yield piece.map(|piece| {
                        shown.count(piece.events);
                        piece.bytes
                    }),
                    None => break,
                },
                // A collector that stops does not wait for whoever reads slowly.
                ended = status.changed() => if ended.is_err() {
                    yield Err(anyhow::anyhow!("the collector stopped"));
                    break;
                },
                () = &mut over => {
                    yield Err(anyhow::anyhow!("whoever asked is not let in any more"));
                    break;
                }
            }
        }
    };
    let body = Body::from_stream(held.map(|piece| {
        piece.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "an export broke off");
            std::io::Error::other(error)
        })
    }));
    Ok(([(header::CONTENT_TYPE, export.format.content_type())], body).into_response())
}

/// `GET /api/v1/status`: checkpoint, agents, store, inventory (null where there is none).
pub(super) async fn status(State(web): State<Web>) -> Json<Value> {
    let inventory = web.app.store.expectations().map(Expectations::status);
    let status = web.app.status.borrow();
    let agents: Vec<Value> = status
        .agents
        .iter()
        .map(|agent| {
            json!({
                "agent": agent.agent_id,
                "last_sequence": agent.last_sequence,
                "last_seen": proto::json::time(agent.last_seen_ns),
                "last_seen_seconds": age(agent.last_seen_ns),
                "counters": proto::json::counters_value(&agent.counters),
            })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "evidence": evidence(&status),
        "agents": agents,
        "store": web.app.store.status(),
        "inventory": inventory,
    }))
}

/// `GET /api/v1/me`: as whom the record has what is asked, and the role: nothing has to be tried in vain.
pub(super) async fn me(asker: Asker) -> Json<Value> {
    let pass = asker.pass();
    Json(json!({ "user": pass.who(), "role": pass.role().map(Role::name) }))
}

/// `GET /api/v1/openapi.json`: the API, as programs read it.
pub(super) async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)
}

/// `GET /metrics`: OpenMetrics text.
pub(super) async fn metrics(State(web): State<Web>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], web.app.metrics.encode())
}

/// The time and size that a request asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Window {
    /// RFC 3339, or a span before now: `90s`, `15m`, `24h`, `7d`.
    since: Option<String>,
    limit: Option<usize>,
}

impl Window {
    /// Unix nanoseconds.
    fn since(&self) -> Result<Option<i64>, Failure> {
        self.since.as_deref().map(parse_since).transpose()
    }

    fn since_or_a_day(&self) -> Result<i64, Failure> {
        match self.since()? {
            Some(since) => Ok(since),
            None => parse_since("24h"),
        }
    }
}

fn parse_since(text: &str) -> Result<i64, Failure> {
    since::since(text, jiff::Timestamp::now()).map_err(Failure::asked_wrongly)
}

fn evidence(status: &log::Status) -> Value {
    json!({
        "origin": status.origin,
        "tree_size": status.tree_size,
        "root_hash": status.root_hash,
        "checkpoint": proto::json::time(status.checkpoint_unix_ns),
        "checkpoint_age_seconds": age(status.checkpoint_unix_ns),
        "batches": status.batches,
        "events": status.events,
        "aside": status.aside,
        "agents": status.agents.len(),
    })
}

fn timestamp(ns: i64) -> Option<String> {
    u64::try_from(ns).ok().and_then(proto::json::time)
}

/// Seconds since then; absent for a time that is not known.
fn age(unix_ns: u64) -> Option<f64> {
    let now = jiff::Timestamp::now().as_nanosecond();
    let age = jiff::SignedDuration::from_nanos_i128((now - i128::from(unix_ns)).max(0));
    (unix_ns != 0).then(|| age.as_secs_f64())
}

/// An answer that could not be given.
pub(super) struct Failure {
    status: StatusCode,
    error: anyhow::Error,
}

impl Failure {
    /// What was said is no question, or is too long.
    pub(super) fn unreadable(status: StatusCode, rejected: &impl ToString) -> Self {
        // What the words mean is looked at where they are answered: here, they are well formed or not.
        let status = match status {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self {
            status,
            error: anyhow::anyhow!(rejected.to_string()),
        }
    }

    /// What is asked for is not there, or not any more.
    pub(super) fn not_there(error: anyhow::Error) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            error,
        }
    }

    /// What is wrong with a question, unless it is no answer's fault.
    fn asked_wrongly(error: anyhow::Error) -> Self {
        match error.downcast::<Refused>() {
            Ok(refused) => refused.into(),
            Err(error) => Self {
                status: StatusCode::BAD_REQUEST,
                error,
            },
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Refused>() {
            Ok(refused) => refused.into(),
            Err(error) => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                error,
            },
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self {
            status: match refused {
                Refused::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
                Refused::Busy { .. } | Refused::TooLong(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
            error: refused.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let answer = Json(json!({ "error": format!("{:#}", self.error) }));
        let mut response = (self.status, answer).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// OpenAPI 3.1.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");

/// When whoever asks too much may ask again: most questions take less.
const RETRY_AFTER_SECONDS: &str = "5";

/// Events in one answer, where none is asked for.
const DEFAULT_EVENTS: usize = 100;

/// Events in one answer: a page shows fewer, and `/api/v1/query` and exports are for more.
const MAX_EVENTS: usize = 1000;
