//! What stands behind the answers.

use super::*;
use crate::{prove, verify::Options};

#[tokio::test]
async fn the_log_its_checkpoint_and_its_chains_are_told() {
    let (router, _store, _status) = app().await;
    let told = get_json(&router, "/api/v1/evidence").await;
    assert_eq!(told["origin"], "pgwitness/test");
    assert_eq!(told["checkpoint"]["size"], 9);
    let note = told["checkpoint"]["note"].as_str().unwrap();
    assert!(note.starts_with("pgwitness/test\n9\n"), "{note}");
    assert_eq!(told["cosigned"], Value::Null);
    assert_eq!(told["chains"][0]["agent"], "db1");
    let key = told["chains"][0]["key"].as_str().unwrap();
    assert_eq!(hex::decode(key).unwrap().len(), 32);
}

#[tokio::test]
async fn a_proof_can_be_taken_away() {
    let (router, _store, _status) = app().await;
    let response = get(&router, "/api/v1/proof?event=db1-17").await;
    assert_eq!(response.status(), StatusCode::OK);
    let name = &response.headers()[header::CONTENT_DISPOSITION];
    assert_eq!(name, "attachment; filename=\"db1-17.proof.json\"");
    let proof = response.into_body().collect().await.unwrap().to_bytes();
    assert!(prove::check(&proof, &Options::default()).ok);
    for (id, what) in [
        ("db1-19", "not in the log"),
        ("x-1", "not in the log"),
        ("db1", "no event's id"),
    ] {
        let response = get(&router, &format!("/api/v1/proof?event={id}")).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{id}");
        let error = body(response).await["error"].to_string();
        assert!(error.contains(what), "{error}");
    }
    assert_eq!(
        get(&router, "/api/v1/proof").await.status(),
        StatusCode::BAD_REQUEST
    );
}

/// The last event of the stream, which is the report.
async fn verified(router: &Router) -> Value {
    let response = get(router, "/api/v1/verify").await;
    let told = response.into_body().collect().await.unwrap().to_bytes();
    let told = String::from_utf8(told.to_vec()).unwrap();
    let (_, report) = told
        .rsplit_once("event: report\ndata: ")
        .unwrap_or_else(|| panic!("no report: {told}"));
    serde_json::from_str(report).unwrap()
}

#[tokio::test]
async fn the_whole_log_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let evidence = folder.path().join("evidence");
    let (router, _store, _status) = app_over(folder, Access::everybody(), Arc::default()).await;
    // One after the other: the first gives its turn back.
    for _ in 0..2 {
        let report = verified(&router).await;
        assert_eq!((&report["ok"], &report["events"]), (&json!(true), &json!(18)));
    }
    let payload = std::fs::read_dir(evidence.join("payload")).unwrap().next();
    let payload = payload.unwrap().unwrap().path();
    let mut bytes = std::fs::read(&payload).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&payload, bytes).unwrap();
    let report = verified(&router).await;
    assert_eq!(report["ok"], false);
    let file = report["wrong"]["file"].as_str().unwrap();
    assert!(evidence.join(file) == payload, "{report}");
}
