//! Every place, by every sort of token.

use std::collections::BTreeMap;

use super::*;
use crate::access::tests::{add, over, remove};

const ROLES: [Role; 4] = [Role::Viewer, Role::Analyst, Role::Auditor, Role::Admin];

/// Every place of the API by its description: path, method, body, and the role that it needs.
fn described() -> Vec<(String, String, String, Option<String>)> {
    let description: Value = serde_json::from_str(api::DESCRIPTION).unwrap();
    assert_eq!(description["security"], json!([{ "token": [] }]));
    let mut all = Vec::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let role = operation["x-role"].as_str().map(str::to_owned);
            // Open is what says so.
            let open = operation.get("security") == Some(&json!([]));
            assert_eq!(open, role.is_none(), "{path}");
            for refusal in ["401", "403"] {
                assert_eq!(operation["responses"].get(refusal).is_some(), !open, "{path}");
            }
            let body = &operation["requestBody"]["content"]["application/json"]["example"];
            let asked = path.clone() + &named(operation);
            all.push((asked, method.to_uppercase(), body.to_string(), role));
        }
    }
    all
}

async fn ask(router: &Router, method: &str, path: &str, body: &str, token: Option<&str>) -> Response {
    let mut asked = request(path)
        .method(method)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        asked = asked.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let asked = asked.body(Body::from(body.to_owned())).unwrap();
    router.clone().oneshot(asked).await.unwrap()
}

#[tokio::test]
async fn every_place_lets_in_the_roles_that_it_says_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let tokens = ROLES.map(|role| (role, add(data, role.name(), role, None)));
    let expired = add(data, "expired", Role::Admin, Some(-1));
    let removed = add(data, "removed", Role::Admin, None);
    remove(data, "removed");
    let metrics = Arc::<Metrics>::default();
    let (router, store, _status) = app_for(over(data), Arc::clone(&metrics)).await;
    append(&store, 0, "SELECT 1").await;
    let (mut unauthorized, mut forbidden) = (0, 0);
    for (path, method, body, needs) in described() {
        let ask = async |token: Option<&str>| ask(&router, &method, &path, &body, token).await;
        let Some(needs) = needs else {
            assert_eq!(ask(None).await.status(), StatusCode::OK, "{path}");
            continue;
        };
        for token in [
            None,
            Some("x"),
            Some("pgwu1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            Some(&*expired),
            Some(&*removed),
        ] {
            let response = ask(token).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path} {token:?}");
            let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
            let expected = if token.is_some() {
                "Bearer error=\"invalid_token\""
            } else {
                "Bearer"
            };
            assert_eq!(challenge, expected, "{path}");
            assert!(super::body(response).await["error"].is_string());
            unauthorized += 1;
        }
        for (role, token) in &tokens {
            let response = ask(Some(token)).await;
            // As the description has them in order, too.
            let enough =
                ROLES.iter().position(|one| one == role) >= ROLES.iter().position(|one| one.name() == needs);
            if enough {
                assert_eq!(response.status(), StatusCode::OK, "{path} {role}");
                if path == "/api/v1/verify" {
                    // One at a time: the next waits for none.
                    response.into_body().collect().await.unwrap();
                } else if path == "/api/v1/me" {
                    let me = super::body(response).await;
                    assert_eq!(me, json!({ "user": role.name(), "role": role.name() }));
                }
                continue;
            }
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {role}");
            let error = super::body(response).await["error"].to_string();
            let words = format!("this needs the role {needs}, and the role of {role} is {role}");
            assert!(error.contains(&words), "{error}");
            forbidden += 1;
        }
    }
    assert!(
        unauthorized >= 5 * 10 && forbidden >= 10,
        "{unauthorized} {forbidden}"
    );
    let counted = metrics.encode();
    for (reason, times) in [("Unauthorized", unauthorized), ("Forbidden", forbidden)] {
        let line = format!("pgwitness_collector_refused_requests_total{{reason=\"{reason}\"}} {times}\n");
        assert!(counted.contains(&line), "{counted}");
    }
}

/// No place is forgotten: the table that the router is made from and the description say the same.
#[test]
fn the_table_of_places_is_the_description() {
    let described = described()
        .into_iter()
        .map(|(asked, _, _, role)| {
            let path = asked.split('?').next().unwrap_or_default();
            (path.to_owned(), role)
        })
        .collect::<BTreeMap<_, _>>();
    let (page, api): (Vec<_>, Vec<_>) = places()
        .into_iter()
        .map(|place| {
            (
                place.path.to_owned(),
                place.needs.map(|role| role.name().to_owned()),
            )
        })
        .partition(|(path, _)| ["/", "/app.js", "/style.css", "/icon.svg"].contains(&path.as_str()));
    assert!(page.len() == 4 && page.iter().all(|(_, role)| role.is_none()));
    assert_eq!(api.into_iter().collect::<BTreeMap<_, _>>(), described);
    let open: Vec<_> = described.iter().filter(|(_, role)| role.is_none()).collect();
    assert_eq!(open, [(&"/healthz".to_owned(), &None)]);
}

#[tokio::test]
async fn a_removed_users_live_view_ends_and_limits_are_of_each_user() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (anna, vera) = (
        add(data, "anna", Role::Viewer, None),
        add(data, "vera", Role::Viewer, None),
    );
    let (router, _store, _status) = app_for(over(data), Arc::default()).await;
    let live = async |token: &str| ask(&router, "GET", "/api/v1/live", "", Some(token)).await;
    let mut open = Vec::new();
    for _ in 0..WATCHERS_OF_EACH {
        open.push(live(&anna).await);
    }
    assert_eq!(live(&anna).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let other = live(&vera).await;
    assert_eq!(other.status(), StatusCode::OK);
    remove(data, "anna");
    let whole = open.pop().unwrap().into_body().collect();
    let ended = tokio::time::timeout(Duration::from_secs(10), whole).await;
    assert!(ended.is_ok(), "it goes on");
    let mut other = other.into_body().into_data_stream();
    assert_eq!(other.next().await.unwrap().unwrap(), ": watching\n\n");
    let next = tokio::time::timeout(Duration::from_millis(1500), other.next()).await;
    assert!(next.is_err(), "the other one's view goes on: {next:?}");
}
