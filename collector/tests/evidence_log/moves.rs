//! Agents that go from one collector to another: keys that changed meanwhile, and batches that nobody has.

use pgwitness_collector::{
    backup::backup,
    verify::{Options, verify_all},
};
use proto::v1::GivenUp;

use super::{proofs::checker, *};

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// A batch as it is shown to whoever does not have it.
fn shown(batch: &SignedBatch) -> SignedBatch {
    SignedBatch {
        payload: Vec::new().into(),
        ..batch.clone()
    }
}

async fn stored(log: &Log, agent: &Agent, batches: &[SignedBatch]) {
    for batch in batches {
        let appended = append(log, agent, batch).await;
        assert!(matches!(appended, Appended::Stored(_)), "{appended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_missed_a_change_of_keys_follows_by_what_is_shown() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut agent = Agent::new("host-a", 1);
    let one = open_as(first.path(), "one").unwrap();
    let two = open_as(second.path(), "two").unwrap();
    hello(&two.log, &agent).await;
    let batch = agent.seal(3);
    stored(&two.log, &agent, &[batch]).await;
    // From the second batch on at the first collector, where the key changes twice.
    hello_behind(&one.log, &agent, 1).await;
    let mut changes = Vec::new();
    for n in [5, 6] {
        let before = agent.seal(3);
        agent.chain.next_key = Some(key(n).verifying_key().to_bytes());
        let change = agent.seal(3);
        changes.push(shown(&change));
        stored(&one.log, &agent, &[before, change]).await;
        agent.key = key(n);
    }
    let batch = agent.seal(3);
    stored(&one.log, &agent, &[batch]).await;
    // Back: without the changes, or with one that is not signed by the key that is known, it is nobody.
    let greeting = Greeting {
        acknowledged: 6,
        ..Greeting::new("host-a", agent.key.verifying_key())
    };
    let refused = two.log.meet(greeting.clone()).await.unwrap().unwrap_err();
    assert_eq!(refused, "the agent id \"host-a\" is enrolled with another key");
    let mut forged = changes.clone();
    forged[0].signature = changes[1].signature.clone();
    for wrong in [
        forged,
        changes[1..].to_vec(),
        changes.iter().rev().cloned().collect(),
    ] {
        let greeting = Greeting {
            key_changes: wrong,
            ..greeting.clone()
        };
        let refused = two.log.meet(greeting).await.unwrap().unwrap_err();
        assert!(refused.contains("do not lead from it"), "{refused}");
    }
    // Of what comes yet nothing is believed: it announces by itself.
    let early = Greeting {
        key_changes: changes.clone(),
        acknowledged: 4,
        ..greeting.clone()
    };
    assert!(two.log.meet(early).await.unwrap().is_err());
    let greeting = Greeting {
        key_changes: changes.clone(),
        ..greeting
    };
    let (tip, keys) = two.log.meet(greeting).await.unwrap().unwrap();
    assert_eq!((tip.sequence, *keys.newest()), (1, agent.key.verifying_key()));
    let batch = agent.seal(3);
    stored(&two.log, &agent, &[batch]).await;
    close(one).await;
    close(two).await;

    // It is in the record, for whoever has that log alone, and behind a restart.
    let folders = [first.path().join("evidence"), second.path().join("evidence")];
    let report = verify(&folders[1], None);
    assert!(report.ok, "{report:?}");
    assert!(checker("check_log.py", &folders[1]));
    let together = verify_all(&folders, &Options::default()).unwrap();
    assert!(together.ok, "{together:?}");
    assert_eq!((together.batches, together.events), (7, 21));
    let two = open_as(second.path(), "two").unwrap();
    assert_eq!(hello(&two.log, &agent).await.sequence, 7);
    close(two).await;
    backup(&folders[1], &second.path().join("copy")).unwrap();
    let record = folders[1].join("agents/host-a.json");
    let text = fs::read_to_string(&record).unwrap();
    let header = hex::encode(&changes[0].header);
    assert!(text.contains(&header), "{text}");
    fs::write(&record, text.replace(&header, &hex::encode(&changes[1].header))).unwrap();
    let wrong = verify(&folders[1], None).wrong.unwrap();
    assert_eq!(wrong.file, "agents/host-a.json");
    let changed = header.replacen(&header[60..62], "00", 1);
    fs::write(&record, text.replace(&header, &changed)).unwrap();
    assert!(!verify(&folders[1], None).ok);
    fs::write(&record, text).unwrap();

    // A log that met the agent only afterwards knows its newest key alone, and one that was shown a key of somebody else is found out.
    for (signs, ok) in [(key(6), true), (key(9), false)] {
        let third = tempfile::tempdir().unwrap();
        let three = open_as(third.path(), "three").unwrap();
        let mut late = Agent {
            key: signs,
            chain: agent.chain.clone(),
            ..Agent::new("host-a", 1)
        };
        late.next_event = agent.next_event;
        hello_behind(&three.log, &late, 7).await;
        let batch = late.seal(3);
        stored(&three.log, &late, &[batch]).await;
        close(three).await;
        let folders = [&folders[..], &[third.path().join("evidence")]].concat();
        let report = verify_all(&folders, &Options::default()).unwrap();
        assert_eq!(report.ok, ok, "{report:?}");
        if let Some(wrong) = report.wrong {
            assert!(
                wrong.contains("batch 8") && wrong.contains("another key"),
                "{wrong}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_gave_up_is_no_hole_and_nothing_else_is_forgiven() {
    for (says, ok) in [((4, 5), true), ((4, 4), false), ((5, 6), false)] {
        let data = tempfile::tempdir().unwrap();
        let opened = open_as(data.path(), "one").unwrap();
        let mut agent = Agent::new("host-a", 1);
        hello(&opened.log, &agent).await;
        let mut batches: Vec<_> = (0..6).map(|_| agent.seal(3)).collect();
        stored(&opened.log, &agent, &batches[..3]).await;
        let refused = append(&opened.log, &agent, &batches[5]).await;
        assert_eq!(refused, Appended::Refused("expected batch 4, found 6".to_owned()));
        hello_behind(&opened.log, &agent, 5).await;
        agent.chain.given_up = vec![GivenUp {
            from: says.0,
            to: says.1,
            events: 6,
        }];
        batches.push(agent.seal(3));
        stored(&opened.log, &agent, &batches[5..]).await;
        close(opened).await;
        let folder = data.path().join("evidence");
        let alone = verify(&folder, None);
        assert!(alone.ok, "{alone:?}");
        assert_eq!(alone.elsewhere[0].given_up, ok);
        let report = verify_all(&[folder], &Options::default()).unwrap();
        assert_eq!((report.ok, report.missing.is_empty()), (ok, ok), "{report:?}");
        let holes = if ok { &report.given_up } else { &report.missing };
        assert_eq!((holes[0].from, holes[0].to, holes[0].events), (4, 5, 6));
    }
}
