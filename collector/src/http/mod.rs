//! Answers over HTTP: the page, the API behind it, the live stream, metrics.
//!
//! Owns the table of places and what each needs, and what a request may ask for. Who is let in, `access` decides. Requests that name a
//! foreign host are refused (a web page elsewhere could otherwise reach in by DNS rebinding), and the page runs nothing that did not come
//! from here. Answers never hold up ingest: they read the store's snapshots.

mod api;
mod asker;
pub(crate) mod client;
mod evidence;
mod guard;
mod health;
mod live;
pub(crate) mod origin;
mod page;
mod readers;
mod said;

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router, middleware,
    routing::{MethodRouter, get, post},
};
use tokio::sync::watch;

pub(crate) use asker::PURPOSE;
pub(crate) use health::health;
pub use readers::Names;
pub(crate) use readers::Readers;

use crate::{
    access::{Access, Role, Turns},
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
    /// The evidence log's folder.
    pub evidence: PathBuf,
    /// Its state.
    pub status: watch::Receiver<log::Status>,
    /// Where questions are told; nowhere without a chain of its own.
    pub accesses: Option<Arc<Accesses>>,
    /// Who is let in.
    pub access: Arc<Access>,
    /// Under which names it is asked.
    pub names: Names,
    /// Whose turn it is to be answered.
    pub(crate) questions: Turns,
}

/// All places.
pub fn router(app: App) -> Router {
    let web = Web {
        questions: app.questions.clone(),
        app,
        exports: Turns::new("exports", EXPORTS, EXPORTS_OF_EACH),
        watchers: Turns::new("live views", WATCHERS, WATCHERS_OF_EACH),
        verifications: Turns::new("checks of the log", VERIFICATIONS, VERIFICATIONS),
    };
    let mut router = Router::new();
    for Place { path, needs, answer } in places() {
        router = router.route(
            path,
            match needs {
                Some(role) => answer.layer(middleware::from_fn_with_state((web.clone(), role), guard::admit)),
                None => answer,
            },
        );
    }
    router
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(web.clone(), guard::check))
        .with_state(web)
}

/// A place, and the least role that it needs; none is for the page's own files, which say nothing, and for whoever asks whether the
/// collector is there.
struct Place {
    path: &'static str,
    needs: Option<Role>,
    answer: MethodRouter<Web>,
}

/// Every place that there is. `openapi.json` says the same of the API.
fn places() -> Vec<Place> {
    use Role::{Analyst, Auditor, Viewer};
    let open = |path, answer| Place {
        path,
        needs: None,
        answer,
    };
    let place = |path, role, answer| Place {
        path,
        needs: Some(role),
        answer,
    };
    vec![
        open("/", get(page::index)),
        open("/app.js", get(page::script)),
        open("/style.css", get(page::style)),
        open("/icon.svg", get(page::icon)),
        open("/healthz", get(async || "ok\n")),
        place("/api/v1/overview", Viewer, get(api::overview)),
        place("/api/v1/events", Viewer, get(api::events)),
        place("/api/v1/principals", Viewer, get(api::principals)),
        place("/api/v1/status", Viewer, get(api::status)),
        place("/api/v1/live", Viewer, get(live::stream)),
        place("/api/v1/evidence", Viewer, get(evidence::evidence)),
        place("/api/v1/me", Viewer, get(api::me)),
        place("/api/v1/openapi.json", Viewer, get(api::description)),
        place("/metrics", Viewer, get(api::metrics)),
        question::<Sql>(Analyst),
        question::<OfObject>(Analyst),
        question::<Asked>(Analyst),
        question::<What>(Analyst),
        question::<Timeline>(Analyst),
        question::<NewEdges>(Analyst),
        question::<Unattributed>(Analyst),
        question::<report::Asked>(Auditor),
        place("/api/v1/proof", Auditor, get(evidence::proof)),
        place("/api/v1/verify", Auditor, get(evidence::verify)),
        place(export::PATH, Auditor, post(api::export)),
    ]
}

/// A question's place.
fn question<Q: Question>(role: Role) -> Place {
    Place {
        path: Q::PATH,
        needs: Some(role),
        answer: post(api::answer::<Q>),
    }
}

/// The app, and what is shared out between requests.
#[derive(Clone)]
struct Web {
    app: App,
    questions: Turns,
    exports: Turns,
    watchers: Turns,
    verifications: Turns,
}

/// Exports at once; another one is refused. Each reads the whole record, for as long as its reader takes.
const EXPORTS: usize = 4;

/// Of one user.
const EXPORTS_OF_EACH: usize = 2;

/// Live views at once: each is a task and a connection held open.
const WATCHERS: usize = 64;

/// Of one user.
const WATCHERS_OF_EACH: usize = 32;

/// Checks of the whole log at once: each reads and hashes all of it.
const VERIFICATIONS: usize = 1;

/// A request's body: one SQL statement as JSON, escapes included.
const MAX_BODY_BYTES: usize = 2 * crate::store::page::MAX_SQL_BYTES;

#[cfg(test)]
mod tests;
