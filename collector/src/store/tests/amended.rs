//! Sessions that have another name by now.

use std::time::Instant;

use super::*;

const OWN: &str = "collector-x";
const ADDRESS: &str = "spiffe://td/addr/10.0.0.5";
const SHOP: &str = "spiffe://td/host/web/unit/shop.service";

/// A query of a session that its own host knows by its address only; of each three events one is of session `boot-1`.
fn remote(seq: u64) -> v1::Event {
    let mut event = query(seq, ADDRESS, "SELECT $1");
    if let Some(attribution) = &mut event.attribution {
        attribution.kind = v1::PrincipalKind::Remote.into();
        attribution.confidence = v1::Confidence::Inferred.into();
        attribution.method = "address".into();
    }
    event
}

fn amendment(seq: u64, agent: &str, session: &str, principal: &str, pid: u32) -> v1::Event {
    v1::Event {
        seq,
        ts_start_ns: START,
        attribution: Some(v1::Attribution {
            principal: principal.into(),
            kind: v1::PrincipalKind::Unit.into(),
            confidence: v1::Confidence::Joined.into(),
            method: "flow-owner".into(),
            evidence: vec!["both ends have the same pair of first sequence numbers".into()],
            process: Some(v1::Process {
                pid,
                exe: "/usr/bin/shop".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        body: Some(Body::Amendment(v1::Amendment {
            agent_id: agent.into(),
            session: session.into(),
            inputs: vec!["a-1".into(), "web-1".into()],
            join_version: 1,
            r#match: "fingerprint".into(),
            events: Vec::new(),
        })),
        ..Default::default()
    }
}

async fn put(store: &Store, shelf: &Shelf, entry: u64, agent: &str, events: Vec<v1::Event>) {
    let records = Records::of(agent, entry + 1, events);
    shelf.put(entry, &records);
    store.append(entry, records).await;
}

/// Nine queries of three sessions; two amendments of one of them; another agent's claim, and one of an observed session.
async fn filled(store: &Store, shelf: &Shelf) {
    put(store, shelf, 0, "a", (1..=9).map(remote).collect()).await;
    put(
        store,
        shelf,
        1,
        "b",
        vec![query(1, "spiffe://td/host/b/unit/own.service", "SELECT 1")],
    )
    .await;
    put(
        store,
        shelf,
        2,
        "evil",
        vec![amendment(1, "a", "boot-2", "spiffe://td/evil", 1)],
    )
    .await;
    let own = vec![
        amendment(1, "a", "boot-1", "spiffe://td/host/web/unit/first.service", 70),
        amendment(2, "a", "boot-1", SHOP, 71),
        amendment(3, "b", "boot-1", SHOP, 72),
    ];
    put(store, shelf, 3, OWN, own).await;
}

const QUESTION: &str = "SELECT seq, principal, principal_kind, confidence, method, pid, exe, amended_by FROM queries \
    WHERE agent = 'a' ORDER BY seq";

async fn is_right(store: &Store) {
    let found = rows(store, QUESTION).await;
    assert_eq!(found.len(), 9);
    for row in &found {
        let seq = row[0].as_u64().unwrap();
        let expected = if seq % 3 == 1 {
            json!([
                seq,
                SHOP,
                "unit",
                "joined",
                "flow-owner",
                71,
                "/usr/bin/shop",
                "collector-x-2"
            ])
        } else {
            json!([seq, ADDRESS, "remote", "inferred", "address", null, null, null])
        };
        assert_eq!(json!(row), expected);
    }
    // What one kernel saw at both ends stays.
    let own = rows(
        store,
        "SELECT principal, confidence, amended_by FROM queries WHERE agent = 'b'",
    )
    .await;
    assert_eq!(
        json!(own),
        json!([["spiffe://td/host/b/unit/own.service", "observed", null]])
    );
    // It is looked for and counted under the new name.
    let by_name = format!("SELECT count(*), sum(rows) FROM queries WHERE principal = '{SHOP}'");
    assert_eq!(rows(store, &by_name).await, [[json!(3), json!(1 + 4 + 7)]]);
    let counts = rows(
        store,
        "SELECT principal, statements FROM principals WHERE principal LIKE '%shop%' OR principal LIKE '%addr%' ORDER BY 1",
    )
    .await;
    assert_eq!(json!(counts), json!([[ADDRESS, 6], [SHOP, 3]]));
    let session = rows(
        store,
        "SELECT principals, amended_by FROM sessions WHERE agent = 'a' AND session_id = 'boot-1'",
    )
    .await;
    assert_eq!(json!(session), json!([[[SHOP], "collector-x-2"]]));
    let who = rows(
        store,
        "SELECT amends_agent, amends_session FROM events WHERE agent = 'evil'",
    )
    .await;
    assert_eq!(json!(who), json!([["a", "boot-2"]]), "recorded, and not believed");
    let event = rows(store, "SELECT event FROM events WHERE agent = 'a' AND seq = 4").await;
    let event: Value = serde_json::from_str(event[0][0].as_str().unwrap()).unwrap();
    let shown = &event["attribution"];
    assert_eq!(
        (
            &shown["principal"],
            &shown["amended_by"],
            &shown["recorded"]["principal"],
            &shown["asserted"]["end_user"]
        ),
        (
            &json!(SHOP),
            &json!("collector-x-2"),
            &json!(ADDRESS),
            &json!("user-4")
        )
    );
    assert!(
        shown["evidence"][0]
            .as_str()
            .unwrap()
            .contains("first sequence numbers")
    );
    let filter = Filter {
        principal: Some("shop".into()),
        kind: Some("query".into()),
        ..Filter::default()
    };
    assert_eq!(store.newest(&filter, None, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn answers_show_the_amended_name_and_keep_the_recorded_one() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::default());
    let open = async || {
        let store = Store::open(folder.path(), by_hand()).await.unwrap();
        store.show_events_of(shelf.clone());
        store.believe(OWN).await.unwrap();
        store
    };
    let store = open().await;
    filled(&store, &shelf).await;
    is_right(&store).await;
    store.seal().await.unwrap();
    is_right(&store).await;
    drop(store);
    let store = open().await;
    assert_eq!(store.amendments().len(), 3);
    is_right(&store).await;
    // Taken back, in the tail, of a session whose events are in files.
    let recorded = v1::Event {
        attribution: remote(1).attribution,
        ..amendment(4, "a", "boot-1", "", 0)
    };
    put(&store, &shelf, 4, OWN, vec![recorded]).await;
    let back = rows(&store, "SELECT DISTINCT principal, method, exe, amended_by FROM queries WHERE session_id = 'boot-1' AND agent = 'a'").await;
    assert_eq!(json!(back), json!([[ADDRESS, "address", null, "collector-x-4"]]));
}

#[tokio::test]
async fn a_store_that_believes_nobody_shows_what_was_recorded() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    filled(&store, &shelf).await;
    let found = rows(
        &store,
        "SELECT DISTINCT principal, amended_by FROM queries WHERE agent = 'a'",
    )
    .await;
    assert_eq!(json!(found), json!([[ADDRESS, null]]));
    assert!(store.amendments().is_empty());
}

#[tokio::test]
async fn a_live_view_shows_the_name_that_stands() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    store.believe(OWN).await.unwrap();
    filled(&store, &shelf).await;
    let mut live = store.live().subscribe();
    put(&store, &shelf, 4, "a", vec![remote(10), remote(11)]).await;
    let (one, other) = (live.recv().await.unwrap(), live.recv().await.unwrap());
    assert_eq!(one.principal.as_deref(), Some(SHOP));
    assert!(one.is_amended() && !other.is_amended());
    let event: Value = serde_json::from_str(one.json()).unwrap();
    assert_eq!(event["attribution"]["amended_by"], "collector-x-2");
    assert_eq!(other.principal.as_deref(), Some(ADDRESS));
}

/// Memory of very many, and what looking them up costs. By hand: it takes a while.
#[tokio::test]
#[ignore = "takes a while; a measurement"]
async fn a_million_amendments() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    store.believe(OWN).await.unwrap();
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    for n in 0..100_u64 {
        let events = (1..=1000).map(|m| {
            let mut event = remote(n * 1000 + m);
            if let Some(session) = &mut event.session {
                session.id = format!("c092bd0e-{:x}", n * 10_000 + m * 10);
            }
            event
        });
        store.append(n, Records::of("a", n + 1, events.collect())).await;
    }
    store.seal().await.unwrap();
    let count = "SELECT count(*), count(DISTINCT principal) FROM queries";
    let ask = async |sql: &str| {
        let started = Instant::now();
        let found = rows(&store, sql).await;
        (started.elapsed(), found)
    };
    println!("none: {:?}", ask(count).await);
    let before = resident();
    for n in 0..1000_u64 {
        let events = (1..=1000_u64).map(|m| {
            let number = n * 1000 + m;
            let session = format!("c092bd0e-{number:x}");
            amendment(
                number,
                "a",
                &session,
                &format!("{SHOP}/{}", number % 100),
                number as u32,
            )
        });
        let records = Records::of(OWN, n + 1, events.collect());
        store.amendments().take(100 + n, &records);
    }
    println!(
        "a million: {} MiB, {} of them",
        (resident() - before) >> 20,
        store.amendments().len()
    );
    println!("with: {:?}", ask(count).await);
    println!(
        "plain: {:?}",
        ask("SELECT count(*), sum(rows) FROM queries").await
    );
}

/// A statement that a pooler passed on is called as its client's session at the pooler is.
#[tokio::test]
async fn a_pooled_statement_is_its_clients_by_its_newest_name() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::default());
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    store.show_events_of(shelf.clone());
    store.believe(OWN).await.unwrap();
    let pooled = |seq, client: &str| {
        let mut event = remote(seq);
        if let Some(attribution) = &mut event.attribution {
            attribution.method = "lease".into();
            attribution.evidence = vec!["passed on".into()];
            attribution.hops = vec![v1::Hop {
                name: "spiffe://td/host/h/unit/pgbouncer.service".into(),
                role: "pooler".into(),
                confidence: v1::Confidence::Observed.into(),
                session: client.into(),
                ..Default::default()
            }];
        }
        event
    };
    put(
        &store,
        &shelf,
        0,
        "a",
        vec![pooled(1, "boot-c1"), pooled(2, "boot-c2"), remote(3)],
    )
    .await;
    put(
        &store,
        &shelf,
        1,
        OWN,
        vec![amendment(1, "a", "boot-c1", SHOP, 71)],
    )
    .await;
    for sealed in [false, true] {
        if sealed {
            store.seal().await.unwrap();
        }
        let found = rows(
            &store,
            "SELECT seq, principal, client_session, pooler, amended_by FROM queries ORDER BY seq",
        )
        .await;
        let bouncer = "spiffe://td/host/h/unit/pgbouncer.service";
        assert_eq!(
            json!(found),
            json!([
                [1, SHOP, "boot-c1", bouncer, "collector-x-1"],
                [2, ADDRESS, "boot-c2", bouncer, null],
                [3, ADDRESS, null, null, null],
            ])
        );
        let event = rows(&store, "SELECT event FROM events WHERE agent = 'a' AND seq = 1").await;
        let event: Value = serde_json::from_str(event[0][0].as_str().unwrap()).unwrap();
        let who = &event["attribution"];
        assert_eq!(who["principal"], SHOP);
        assert_eq!(who["hops"][0]["session"], "boot-c1");
        assert_eq!(who["hops"][0]["client_method"], "flow-owner");
        assert_eq!(who["recorded"]["principal"], ADDRESS);
    }
}

const POD: &str = "spiffe://cluster.local/ns/shop/sa/orders";
const UID: &str = "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f6";

/// A query of a container in a pod, found by its own host.
fn contained(seq: u64, method: &str) -> v1::Event {
    let mut event = query(seq, "spiffe://td/host/n1/container/abc", "SELECT $1");
    if let Some(attribution) = &mut event.attribution {
        attribution.kind = v1::PrincipalKind::Container.into();
        attribution.confidence = v1::Confidence::Observed.into();
        attribution.method = method.into();
        attribution.pod = Some(v1::Pod {
            uid: UID.into(),
            ..Default::default()
        });
        attribution.container = Some(v1::Container {
            id: "abc".into(),
            ..Default::default()
        });
    }
    event
}

/// The name of its pod, for a session or for statements.
fn in_pod(seq: u64, session: &str, events: &[u64], recorded: v1::Event) -> v1::Event {
    let attribution = recorded.attribution.map(|attribution| v1::Attribution {
        principal: POD.into(),
        kind: v1::PrincipalKind::Kubernetes.into(),
        ..attribution
    });
    let mut named = amendment(seq, "a", session, "", 0);
    named.attribution = attribution;
    if let Some(Body::Amendment(of)) = &mut named.body {
        of.r#match = attribution::POD_UID.into();
        of.join_version = attribution::POD_VERSION;
        of.events = events.to_vec();
    }
    named
}

#[tokio::test]
async fn the_name_of_a_pod_is_for_what_its_own_host_found_and_for_nothing_else() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    store.believe(OWN).await.unwrap();
    // Of one session: found by who connected, the pooler's own, and of nobody.
    let mut unknown = contained(7, "none");
    if let Some(attribution) = &mut unknown.attribution {
        attribution.principal = "unknown".into();
        attribution.kind = 0;
        attribution.confidence = 0;
    }
    let queries = vec![contained(1, "tcp-owner"), contained(4, "pooler"), unknown];
    put(&store, &shelf, 0, "a", queries).await;
    let named = in_pod(1, "boot-1", &[], contained(1, "tcp-owner"));
    put(&store, &shelf, 1, OWN, vec![named]).await;
    let asked = "SELECT seq, principal, principal_kind, confidence, amended_by FROM queries ORDER BY seq";
    let expected = json!([
        [1, POD, "kubernetes", "observed", "collector-x-1"],
        [
            4,
            "spiffe://td/host/n1/container/abc",
            "container",
            "observed",
            null
        ],
        [7, "unknown", null, "none", null],
    ]);
    assert_eq!(json!(rows(&store, asked).await), expected);
    store.seal().await.unwrap();
    assert_eq!(json!(rows(&store, asked).await), expected);
    let event = rows(&store, "SELECT event FROM events WHERE agent = 'a' AND seq = 1").await;
    let event: Value = serde_json::from_str(event[0][0].as_str().unwrap()).unwrap();
    let shown = &event["attribution"];
    assert_eq!(
        (&shown["principal"], &shown["recorded"]["kind"]),
        (&json!(POD), &json!("container"))
    );
}

#[tokio::test]
async fn what_was_taken_back_gets_no_name_of_a_pod() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    store.believe(OWN).await.unwrap();
    put(&store, &shelf, 0, "a", vec![remote(1)]).await;
    let joined = || {
        let mut joined = amendment(0, "a", "boot-1", "", 70);
        joined.attribution = contained(1, "flow-owner").attribution;
        joined
    };
    let at = |seq, event: v1::Event| v1::Event { seq, ..event };
    let taken_back = v1::Event {
        attribution: remote(1).attribution,
        ..amendment(3, "a", "boot-1", "", 0)
    };
    let shown = async || {
        rows(
            &store,
            "SELECT principal, amended_by FROM queries WHERE agent = 'a'",
        )
        .await
    };
    put(&store, &shelf, 1, OWN, vec![at(1, joined())]).await;
    put(&store, &shelf, 2, OWN, vec![in_pod(2, "boot-1", &[], joined())]).await;
    assert_eq!(json!(shown().await), json!([[POD, "collector-x-2"]]));
    put(&store, &shelf, 3, OWN, vec![taken_back]).await;
    // It was on its way meanwhile.
    put(&store, &shelf, 4, OWN, vec![in_pod(4, "boot-1", &[], joined())]).await;
    assert_eq!(json!(shown().await), json!([[ADDRESS, "collector-x-3"]]));
}

/// What the host of a pooler told of statements: a client's, or the pooler's own.
fn leased(seq: u64, events: &[u64], method: &str) -> v1::Event {
    let mut leased = amendment(seq, "a", "", "", 70);
    leased.attribution = contained(1, method).attribution.map(|known| v1::Attribution {
        confidence: v1::Confidence::Joined.into(),
        ..known
    });
    if let Some(Body::Amendment(of)) = &mut leased.body {
        of.events = events.to_vec();
        of.r#match = "lease".into();
    }
    leased
}

#[tokio::test]
async fn a_poolers_own_statements_that_were_taken_back_get_no_name_of_a_pod() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    store.believe(OWN).await.unwrap();
    put(&store, &shelf, 0, "a", vec![remote(1)]).await;
    put(&store, &shelf, 1, OWN, vec![leased(1, &[1], attribution::POOLER)]).await;
    let mut back = v1::Event {
        attribution: remote(1).attribution,
        ..amendment(2, "a", "boot-1", "", 0)
    };
    if let Some(Body::Amendment(of)) = &mut back.body {
        of.r#match = attribution::POOLERS.into();
    }
    put(&store, &shelf, 2, OWN, vec![back]).await;
    // It was on its way meanwhile.
    let named = in_pod(3, "", &[1], leased(0, &[], attribution::POOLER));
    put(&store, &shelf, 3, OWN, vec![named]).await;
    let shown = rows(&store, "SELECT principal FROM queries WHERE agent = 'a'").await;
    assert_eq!(json!(shown), json!([[ADDRESS]]));
}

#[tokio::test]
async fn the_name_of_a_pod_goes_where_the_name_of_a_statement_goes() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    store.believe(OWN).await.unwrap();
    put(&store, &shelf, 0, "a", vec![remote(1), remote(4), remote(7)]).await;
    let leased = |seq, events: &[u64]| leased(seq, events, "lease");
    // Numbers are differences; of the third statement nothing was said before.
    put(&store, &shelf, 1, OWN, vec![leased(1, &[1, 3])]).await;
    let named = in_pod(2, "", &[1, 3, 3], leased(0, &[]));
    put(&store, &shelf, 2, OWN, vec![named]).await;
    let asked = "SELECT seq, principal, confidence, amended_by FROM queries WHERE agent = 'a' ORDER BY seq";
    assert_eq!(
        json!(rows(&store, asked).await),
        json!([
            [1, POD, "joined", "collector-x-2"],
            [4, POD, "joined", "collector-x-2"],
            [7, ADDRESS, "inferred", null],
        ])
    );
    let mut back = v1::Event {
        attribution: remote(1).attribution,
        ..amendment(3, "a", "boot-1", "", 0)
    };
    if let Some(Body::Amendment(of)) = &mut back.body {
        of.r#match = attribution::POOLERS.into();
    }
    put(&store, &shelf, 3, OWN, vec![back]).await;
    let shown = rows(&store, "SELECT DISTINCT principal FROM queries WHERE agent = 'a'").await;
    assert_eq!(json!(shown), json!([[ADDRESS]]));
}
