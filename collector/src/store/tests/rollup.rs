//! Many statements told as one event are counted as many, wherever statements are counted.

use super::*;

/// `executions` executions like the query `seq`, as one event.
fn rollup(seq: u64, executions: u64) -> v1::Event {
    let event = query(seq, "spiffe://td/host/h/unit/shop.service", "SELECT $1");
    let Some(Body::Query(query)) = event.body else {
        panic!("a query")
    };
    v1::Event {
        body: Some(Body::Rollup(v1::Rollup {
            query: Some(query),
            executions,
            committed: executions,
            ..Default::default()
        })),
        ..event
    }
}

#[tokio::test]
async fn a_roll_up_counts_as_its_executions() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    let single = query(1, "spiffe://td/host/h/unit/shop.service", "SELECT $1");
    store
        .append(0, records(vec![single, rollup(2, 40), gap(3, None)]))
        .await;
    store.append(1, records(vec![rollup(4, 7)])).await;
    for sealed in [false, true] {
        if sealed {
            store.seal().await.unwrap();
        }
        let overview = store.overview(0).await.unwrap();
        assert_eq!(
            (&overview["statements"], &overview["observed"]),
            (&json!(48), &json!(48))
        );
        assert_eq!((&overview["errors"], &overview["roles"]), (&json!(0), &json!(1)));
        let kinds = rows(
            &store,
            "SELECT kind, sum(executions), sum(duration_ns) FROM events GROUP BY kind ORDER BY kind",
        )
        .await;
        let expected = [
            json!(["gap", null, null]),
            json!(["query", 1, 1_500_000]),
            json!(["rollup", 47, null]),
        ];
        assert_eq!(kinds.iter().map(|row| json!(row)).collect::<Vec<_>>(), expected);
        let principals = rows(&store, "SELECT statements, rows, errors FROM principals").await;
        assert_eq!(json!(principals), json!([[48, 1 + 2 + 4, 0]]));
        let sessions = rows(&store, "SELECT sum(statements) FROM sessions").await;
        assert_eq!(json!(sessions), json!([[48]]));
        let found = rows(
            &store,
            "SELECT statement, class, outcome, objects FROM queries WHERE executions = 40",
        )
        .await;
        assert_eq!(json!(found), json!([["SELECT $1", "READ", "ok", ["public.t0"]]]));
    }
}
