//! Answers over HTTP: the page, the API behind it, the live stream, metrics.
//!
//! Owns routes and what a request may ask for. There is no authentication yet, so it serves loopback only: requests
//! that name another host are refused (a web page elsewhere could otherwise reach in by DNS rebinding), and the page
//! runs nothing that did not come from here. Answers never hold up ingest: they read the store's snapshots.

mod api;
mod asker;
pub(crate) mod client;
mod guard;
mod live;
mod page;
mod turn;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tokio::sync::watch;

pub(crate) use asker::PURPOSE;
use turn::Turns;

use crate::{
    accesses::Accesses,
    export, log,
    metrics::Metrics,
    report,
    store::{
        Store,
        edges::NewEdges,
        page::Sql,
        question::Question,
        timeline::Timeline,
        unattributed::Unattributed,
        what::What,
        who::{Asked, OfObject},
    },
};

/// What answers are made from.
#[derive(Clone)]
pub struct App {
    /// The events.
    pub store: Arc<Store>,
    /// The collector's own figures.
    pub metrics: Arc<Metrics>,
    /// The evidence log's state.
    pub status: watch::Receiver<log::Status>,
    /// Where questions are told; nowhere without a chain of its own.
    pub accesses: Option<Arc<Accesses>>,
}

/// All routes. Serve it on loopback addresses only.
pub fn router(app: App) -> Router {
    let state = Web {
        app,
        questions: Turns::new("questions", QUESTIONS, QUESTIONS_OF_EACH),
        exports: Turns::new("exports", EXPORTS, EXPORTS_OF_EACH),
        watchers: Turns::new("live views", WATCHERS, WATCHERS_OF_EACH),
    };
    Router::new()
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/icon.svg", get(page::icon))
        .route("/api/v1/overview", get(api::overview))
        .route("/api/v1/events", get(api::events))
        .route("/api/v1/principals", get(api::principals))
        .merge(question::<Sql>())
        .merge(question::<OfObject>())
        .merge(question::<Asked>())
        .merge(question::<What>())
        .merge(question::<Timeline>())
        .merge(question::<NewEdges>())
        .merge(question::<Unattributed>())
        .merge(question::<report::Asked>())
        .route(export::PATH, post(api::export))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/live", get(live::stream))
        .route("/api/v1/openapi.json", get(api::description))
        .route("/metrics", get(api::metrics))
        .route("/healthz", get(async || "ok\n"))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(guard::check))
        .with_state(state)
}

/// A question's place.
fn question<Q: Question>() -> Router<Web> {
    Router::new().route(Q::PATH, post(api::answer::<Q>))
}

/// The app, and what is shared out between requests.
#[derive(Clone)]
struct Web {
    app: App,
    questions: Turns,
    exports: Turns,
    watchers: Turns,
}

/// Questions answered at once; others wait. Each may take a core and a share of the memory pool.
const QUESTIONS: usize = 4;

/// Of one user, those that wait included: two pages that refresh, and somebody at the command line.
const QUESTIONS_OF_EACH: usize = 8;

/// Exports at once; another one is refused. Each reads the whole record, for as long as its reader takes.
const EXPORTS: usize = 4;

/// Of one user.
const EXPORTS_OF_EACH: usize = 2;

/// Live views at once: each is a task and a connection held open.
const WATCHERS: usize = 64;

/// Of one user.
const WATCHERS_OF_EACH: usize = 32;

/// A request's body: one SQL statement as JSON, escapes included.
const MAX_BODY_BYTES: usize = 2 * crate::store::page::MAX_SQL_BYTES;

#[cfg(test)]
mod tests;
