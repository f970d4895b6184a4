//! `GET /api/v1/live?kind=&principal=&class=`: events as they arrive, as server-sent events.
//!
//! Owns the stream's form: `event: sighting` with one JSON event as data; `event: lagged` with `{"missed": n}` where
//! this watcher was too slow. A watcher that does not read loses events; nobody waits for it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use tokio::sync::broadcast::error::RecvError;

use super::{Web, api::Failure, said::Named};
use crate::access::Asker;
use crate::live::{Filter, Sighting};

pub(super) async fn stream(State(web): State<Web>, asker: Asker, Named(filter): Named<Filter>) -> Response {
    let turn = match web.watchers.now(&asker.user()) {
        Ok(turn) => turn,
        Err(refused) => return Failure::from(refused).into_response(),
    };
    let (access, pass) = (web.app.access, asker.pass());
    let asked = asker.asks("live", web.app.accesses.as_ref());
    let mut watching = asked.lasts("live_end").await;
    let mut sightings = web.app.store.live().subscribe();
    // Held for as long as the collector runs, so that a stopping one ends its live views.
    let mut status = web.app.status;
    let events = async_stream::stream! {
        let _turn = turn;
        let mut over = std::pin::pin!(access.until_over(&pass));
        // Says at once that the connection stands.
        yield Ok::<_, Infallible>(Event::default().comment("watching"));
        loop {
            tokio::select! {
                next = sightings.recv() => match next {
                    Ok(one) if filter.wants(&one) => {
                        watching.count(1);
                        yield Ok(Event::default().event("sighting").data(json(one).await));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => {
                        yield Ok(Event::default().event("lagged").data(format!("{{\"missed\":{missed}}}")));
                    }
                    Err(RecvError::Closed) => break,
                },
                ended = status.changed() => if ended.is_err() { break },
                // Whoever is not let in any more sees nothing more.
                () = &mut over => break,
            }
        }
    };
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// The JSON form: where it takes reading a file, not on the threads that serve everybody.
async fn json(one: Arc<Sighting>) -> String {
    if !one.is_amended() {
        return one.json().to_owned();
    }
    let read = tokio::task::spawn_blocking(move || one.json().to_owned());
    // It ends early only where the collector does.
    read.await.unwrap_or_default()
}

/// Shorter than any proxy's idle limit.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
