//! Payloads that go for their age.

use super::*;

/// A log of twenty batches in several segments, and a running collector.
async fn long() -> (Scene, Running) {
    of_batches(20).await
}

async fn of_batches(count: u64) -> (Scene, Running) {
    let mut scene = Scene::new();
    let running = scene.start().await.unwrap();
    for n in 0..count {
        scene
            .deliver(&running, &[&format!("value-{n}-a"), &format!("value-{n}-b")])
            .await;
    }
    (scene, running)
}

#[tokio::test]
async fn old_payloads_go_and_the_log_verifies_from_its_first_entry_on() {
    let (scene, running) = of_batches(30).await;
    running.store.seal().await.unwrap();
    let would = running
        .custodian
        .retain(30 * SECOND, &asker(), true)
        .await
        .unwrap();
    assert!(would.segments > 0 && would.said.is_none());
    let removed = running
        .custodian
        .retain(30 * SECOND, &asker(), false)
        .await
        .unwrap();
    assert_eq!((removed.segments, removed.events), (would.segments, would.events));
    assert!(removed.segments > 1 && removed.entries < 15, "{removed:?}");
    for (value, is_gone) in [
        ("value-0-a", true),
        ("value-1-b", true),
        ("value-15-a", false),
        ("value-29-b", false),
    ] {
        assert_eq!(scene.holding(value).is_empty(), is_gone, "{value}");
    }
    let left = 60 - removed.events;
    let count = "SELECT count(*) FROM events WHERE agent = 'db1'";
    assert_eq!(running.count(count).await, left);
    let copy = tempfile::tempdir().unwrap();
    let evidence = scene.data.path().join("evidence");
    let copied = crate::backup::backup(&evidence, &copy.path().join("while it runs")).unwrap();
    assert_eq!(
        copied.removed.map(|removed| removed.entries),
        Some(removed.entries)
    );
    let nothing = running
        .custodian
        .retain(30 * SECOND, &asker(), false)
        .await
        .unwrap();
    assert_eq!((nothing.segments, nothing.said), (0, None));
    running.stop().await;
    let report = scene.verify();
    assert_eq!((report.wrong.clone(), report.batches), (None, 31));
    assert_eq!(
        report.removed.map(|removed| removed.entries),
        Some(removed.entries)
    );
    assert!(crate::prove::prove(&evidence, "db1-1").is_err());
    crate::prove::prove(&evidence, "db1-60").unwrap();
    // A store made anew, and a copy.
    std::fs::remove_dir_all(scene.data.path().join("store")).unwrap();
    let running = scene.start().await.unwrap();
    assert_eq!(running.count(count).await, left);
    running.stop().await;
    let copied = crate::backup::backup(&evidence, &copy.path().join("copy")).unwrap();
    assert_eq!(
        copied.removed.map(|removed| removed.entries),
        Some(removed.entries)
    );
    // More of it goes, and an erasure in what is left.
    let running = scene.start().await.unwrap();
    let more = running
        .custodian
        .retain(50 * SECOND, &asker(), false)
        .await
        .unwrap();
    assert!(more.segments > 0);
    assert_eq!(running.erase(ids(&[60])).await.unwrap().events, 1);
    running.stop().await;
    let report = scene.verify();
    assert_eq!((report.wrong, report.erased_events), (None, 1));
    assert_eq!(
        report.removed.map(|now| now.entries),
        Some(removed.entries + more.entries)
    );
}

#[tokio::test]
async fn payloads_that_nobody_removed_are_missing() {
    let (scene, running) = long().await;
    running.log.rotate().await.unwrap();
    running.stop().await;
    let segments = log::segments(&scene.data.path().join("evidence")).unwrap();
    std::fs::remove_file(&segments[0].1).unwrap();
    let wrong = scene.verify().wrong.unwrap();
    assert!(wrong.what.contains("nobody said"), "{wrong}");
    assert!(scene.start().await.is_err());
}

#[tokio::test]
async fn a_removal_that_is_cut_short_is_finished_by_the_next_start() {
    for put in [0, 1] {
        let (scene, running) = long().await;
        running.log.rotate().await.unwrap();
        let reach = running.custodian.reach(30 * SECOND, &[]).unwrap();
        assert!(reach.removed.segments > 1);
        let retention = v1::Retention {
            end_entry: reach.end,
            root: retention::root_before(&scene.data.path().join("evidence"), reach.end)
                .unwrap()
                .to_vec(),
            ..v1::Retention::default()
        };
        running
            .custodian
            .say(vec![Body::Retention(retention)])
            .await
            .unwrap();
        let segments = log::segments(&scene.data.path().join("evidence")).unwrap();
        for (_, path) in segments.iter().take(put) {
            std::fs::remove_file(path).unwrap();
        }
        running.vanish().await;
        let wrong = scene.verify().wrong.unwrap();
        assert!(wrong.what.contains("still there"), "{wrong}");
        let running = scene.start().await.unwrap();
        let count = running
            .count("SELECT count(*) FROM events WHERE agent = 'db1'")
            .await;
        assert_eq!(count, 40 - reach.removed.events);
        running.stop().await;
        assert_eq!(scene.verify().wrong, None);
    }
}

#[tokio::test]
async fn a_hold_stops_removal_and_outlives_the_batch_that_said_it() {
    let (mut scene, running) = long().await;
    let hold = v1::Hold {
        principal: "spiffe://td/value-10-a".to_owned(),
        reason: "case 17".to_owned(),
        ..v1::Hold::default()
    };
    let id = running.custodian.hold(hold).await.unwrap();
    for n in 20..30 {
        scene
            .deliver(&running, &[&format!("value-{n}-a"), &format!("value-{n}-b")])
            .await;
    }
    let far = u64::MAX;
    let removed = running.custodian.retain(far, &asker(), false).await.unwrap();
    assert!(removed.segments > 0 && removed.held.unwrap().contains(&id));
    assert!(!scene.holding("value-10-a").is_empty());
    running.custodian.release(&id, &asker()).await.unwrap();
    // Another one, on nothing that is there.
    let hold = v1::Hold {
        principal: "somebody".to_owned(),
        ..v1::Hold::default()
    };
    let id = running.custodian.hold(hold).await.unwrap();
    let removed = running.custodian.retain(far, &asker(), false).await.unwrap();
    assert!(removed.held.is_none() && scene.holding("value-29-b").is_empty());
    running.stop().await;
    assert_eq!(scene.verify().wrong, None);
    let running = scene.start().await.unwrap();
    let holds = running.custodian.holds().await;
    assert_eq!(holds.iter().map(|hold| &hold.id).collect::<Vec<_>>(), [&id]);
    running.stop().await;
}
