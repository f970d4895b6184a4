//! What stands behind the answers: chains and checkpoints, a proof to take away, and the check of the whole log.
//!
//! Owns the form of these answers. What is proven and checked is read from the evidence folder by the same code as on the command line.
//! A check of the whole log is a stream of server-sent events, because it may take long: `progress` with `{"batches", "events", "bytes",
//! "of_bytes"}`, and at the end `report` as `verify --json` has it, or `error` where that cannot be said. Whoever goes away ends it.

use std::{convert::Infallible, ops::ControlFlow, path::Path};

use anyhow::Context as _;
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Web, api::Failure, live::KEEP_ALIVE, said::Named};
use crate::{
    access::Asker,
    log::{self, Progress, folder_checkpoint, processors},
    prove,
    verify::{self, Report},
};

/// `GET /api/v1/evidence`: whose log it is, its checkpoints, and the chains in it.
pub(super) async fn evidence(State(web): State<Web>) -> Result<Json<Value>, Failure> {
    let folder = web.app.evidence.clone();
    let status = web.app.status.borrow().clone();
    let answer = tokio::task::spawn_blocking(move || told(&folder, &status)).await;
    Ok(Json(answer.context("reading the checkpoint was interrupted")??))
}

fn told(folder: &Path, status: &log::Status) -> anyhow::Result<Value> {
    let known = folder_checkpoint(folder).context("the evidence folder cannot be read")?;
    let (note, checkpoint) = known.newest();
    let cosigned = known.cosigned().map(|(note, checkpoint)| {
        json!({ "size": checkpoint.size, "by": known.witnesses_on(note), "note": String::from_utf8_lossy(note) })
    });
    let keys = log::read_agents(folder)?;
    let chains = status.agents.iter().map(|agent| {
        json!({
            "agent": agent.agent_id,
            "batches": agent.last_sequence,
            "last_seen": proto::json::time(agent.last_seen_ns),
            "key": keys.get(&agent.agent_id).map(|keys| hex::encode(keys.newest().as_bytes())),
            "keys_before": keys.get(&agent.agent_id).map(log::AgentKeys::rotations),
        })
    });
    Ok(json!({
        "origin": known.origin.origin,
        "verifier_key": known.origin.verifier_key,
        "checkpoint": {
            "size": checkpoint.size,
            "root": checkpoint.root_base64(),
            "time": proto::json::time(status.checkpoint_unix_ns),
            "note": String::from_utf8_lossy(note),
        },
        "cosigned": cosigned,
        "batches": status.batches,
        "events": status.events,
        "aside": status.aside,
        "chains": chains.collect::<Vec<_>>(),
    }))
}

/// Which event is meant.
#[derive(Debug, Deserialize)]
pub(super) struct Meant {
    /// The agent's id, a dash, and a number.
    event: String,
}

/// `GET /api/v1/proof?event=ID`: what `prove` writes, as a file.
pub(super) async fn proof(
    State(web): State<Web>,
    asker: Asker,
    Named(Meant { event }): Named<Meant>,
) -> Result<Response, Failure> {
    let _turn = web.questions.wait(&asker.user()).await?;
    let mut asked = asker.asks("proof", web.app.accesses.as_ref());
    let folder = web.app.evidence.clone();
    let proven = tokio::task::spawn_blocking(move || prove::proven(&folder, &event)).await;
    let proven = proven.context("making the proof was interrupted")?;
    asked.answered(proven.is_ok().then_some(1)).await;
    let (proof, _) = proven.map_err(Failure::not_there)?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], proof.to_bytes()?).into_response();
    let name = format!("attachment; filename=\"{}.proof.json\"", proof.event_id);
    // An id that is in the log is one that a header can say.
    if let Ok(name) = HeaderValue::try_from(name) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// `GET /api/v1/verify`: the whole log is checked, every byte of it.
pub(super) async fn verify(State(web): State<Web>, asker: Asker) -> Response {
    let turn = match web.verifications.now(&asker.user()) {
        Ok(turn) => turn,
        Err(refused) => return Failure::from(refused).into_response(),
    };
    let mut asked = asker.asks("verify", web.app.accesses.as_ref());
    asked.answered(Some(0)).await;
    let (told, mut hears) = mpsc::channel(TOLD_AHEAD);
    let folder = web.app.evidence.clone();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let said = match checked(&folder, &told) {
            Some(report) => event("report", &json!(report)),
            None => event("error", &json!({ "error": IN_MOTION })),
        };
        // Nobody may be there any more to hear it.
        _ = told.blocking_send(said);
    });
    // Held for as long as the collector runs, so that a stopping one waits for no check.
    let mut status = web.app.status;
    let events = async_stream::stream! {
        loop {
            tokio::select! {
                next = hears.recv() => match next {
                    Some(event) => yield Ok::<_, Infallible>(event),
                    None => break,
                },
                ended = status.changed() => if ended.is_err() { break },
            }
        }
    };
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// The log is being written meanwhile, and a file may be replaced while it is looked at: that says nothing of the log, so that what is wrong is looked at
/// again, and said if it is still the same.
fn checked(folder: &Path, told: &mpsc::Sender<Event>) -> Option<Report> {
    let options = verify::Options {
        // Half of them are for those who deliver and ask.
        threads: (processors() / 2).max(1),
        ..verify::Options::default()
    };
    let mut tell = |progress: &Progress| {
        let how_far = json!({
            "batches": progress.batches,
            "events": progress.events,
            "bytes": progress.bytes,
            "of_bytes": progress.of_bytes,
        });
        // Whoever reads slowly hears less often.
        _ = told.try_send(event("progress", &how_far));
        match told.is_closed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    alike(|| verify::verify_telling(folder, &options, &mut tell))
}

/// What holds, or what two looks find wrong alike.
fn alike(mut look: impl FnMut() -> Report) -> Option<Report> {
    let mut report = look();
    for _ in 1..TRIES {
        if report.ok {
            return Some(report);
        }
        let again = look();
        if again.wrong == report.wrong {
            return Some(again);
        }
        report = again;
    }
    report.ok.then_some(report)
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// Events of a check that wait for their reader.
const TOLD_AHEAD: usize = 4;

/// Looks, at the most.
const TRIES: usize = 6;

const IN_MOTION: &str = "the log was written to while it was looked at, and no two looks found the same: ask again when less is delivered, or verify \
    a backup (pgwitness-collector backup)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Wrong;

    /// What comes of these looks, and how many were taken; `None`: all is well.
    fn of(looks: &[Option<&str>]) -> (Option<Option<String>>, usize) {
        let mut taken = 0;
        let found = alike(|| {
            let wrong = looks.get(taken).copied().flatten();
            taken += 1;
            Report {
                ok: wrong.is_none(),
                wrong: wrong.map(|file| Wrong::new(file, None, "gone")),
                ..Report::default()
            }
        });
        (found.map(|report| report.wrong.map(|wrong| wrong.file)), taken)
    }

    #[test]
    fn damage_is_what_two_looks_find_alike() {
        assert_eq!(of(&[None]), (Some(None), 1));
        assert_eq!(of(&[Some("a"), None]), (Some(None), 2));
        assert_eq!(of(&[Some("a"), Some("a")]), (Some(Some("a".to_owned())), 2));
        assert_eq!(
            of(&[Some("a"), Some("b"), Some("b")]),
            (Some(Some("b".to_owned())), 3)
        );
        let moving = ["a", "b", "c", "d", "e", "f", "g"].map(Some);
        assert_eq!(of(&moving), (None, TRIES));
    }
}
