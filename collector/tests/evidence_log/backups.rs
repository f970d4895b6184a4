//! Copies of a log, logs made of copies, and agents whose batches stand in more than one.

use pgwitness_collector::{
    backup::{backup, restore},
    prove::{check, prove},
    verify::{Options, verify_all, verify_with},
};

use super::{proofs::checker, *};

#[tokio::test]
async fn a_backup_is_a_log_and_lets_nobody_sign() {
    // With batches beyond the checkpoint, as while a collector is writing.
    let (data, _, _) = crashed().await;
    let to = data.path().join("copy");
    let report = backup(&data.path().join("evidence"), &to).unwrap();
    assert_eq!(
        (report.ok, report.tree_size, report.not_yet_under_a_checkpoint),
        (true, 6, 0)
    );
    assert!(!to.join("collector.key").exists());
    assert!(checker("check_log.py", &to.join("evidence")));
    assert_eq!(report.root, verify(&data.path().join("evidence"), None).root);
    let again = backup(&data.path().join("evidence"), &to)
        .unwrap_err()
        .to_string();
    assert!(again.contains("is not empty"), "{again}");

    let (data, _) = filled(300).await;
    let report = backup(&data.path().join("evidence"), &data.path().join("copy")).unwrap();
    assert_eq!((report.ok, report.batches), (true, 300));
    let segment = data.path().join("evidence/payload/000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refused = backup(&data.path().join("evidence"), &data.path().join("other"));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the copy does not verify"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_log_names_the_old_one_and_agents_go_on() {
    let (data, mut agents) = filled(40).await;
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("copy");
    backup(&data.path().join("evidence"), &copied).unwrap();
    let kept_then = data.path().join("kept-then");
    fs::copy(data.path().join("evidence/checkpoint"), &kept_then).unwrap();
    // What comes behind the backup is lost with the host.
    let opened = open(data.path()).unwrap();
    for _ in 0..5 {
        let batch = agents[0].seal(2);
        assert!(matches!(
            append(&opened.log, &agents[0], &batch).await,
            Appended::Stored(_)
        ));
    }
    close(opened).await;
    let kept_late = fs::read(data.path().join("evidence/checkpoint")).unwrap();

    let new = folder.path().join("new");
    let same = restore(&copied, &new, Some("test".to_owned()), &[])
        .await
        .unwrap_err()
        .to_string();
    assert!(same.contains("cannot have the old one's name"), "{same}");
    let late = folder.path().join("late");
    fs::write(&late, &kept_late).unwrap();
    let refused = restore(
        &copied,
        &new,
        Some("second".to_owned()),
        std::slice::from_ref(&late),
    )
    .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("rolled back: 40 batches are there"), "{refused}");
    let report = restore(
        &copied,
        &new,
        Some("second".to_owned()),
        std::slice::from_ref(&kept_then),
    )
    .await
    .unwrap();
    assert_eq!(
        (report.origin.as_str(), report.batches, report.tree_size),
        ("pgwitness/second", 41, 41)
    );
    let [restored] = report.restored.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(
        (restored.origin.as_str(), restored.tree_size),
        ("pgwitness/test", 40)
    );
    assert!(checker("check_log.py", &new.join("evidence")));
    let proof = prove(&new.join("evidence"), "collector-second-1")
        .unwrap()
        .to_bytes()
        .unwrap();
    let shown = check(&proof, &Options::default());
    assert_eq!(shown.event["kind"], "log_restored", "{shown:?}");
    assert_eq!(shown.event["log_restored"]["tree_size"], 40);
    // A checkpoint of the old log still counts, as far as the backup goes.
    assert!(verify(&new.join("evidence"), Some(&fs::read(&kept_then).unwrap())).ok);
    let wrong = verify(&new.join("evidence"), Some(&kept_late)).wrong.unwrap();
    assert!(
        wrong
            .what
            .starts_with("rolled back: the backup of pgwitness/test"),
        "{wrong}"
    );
    let of_nobody = proofs::filled_as("third", 3).await;
    let note = fs::read(of_nobody.path().join("evidence/checkpoint")).unwrap();
    let wrong = verify(&new.join("evidence"), Some(&note)).wrong.unwrap();
    assert!(wrong.what.contains("does not fit"), "{wrong}");

    // The agent knows better what was acknowledged; it says so, and goes on behind that.
    let opened = open_as(&new, "second").unwrap();
    let tip = hello(&opened.log, &agents[0]).await;
    assert_eq!(tip.sequence, 20, "honest about what it holds");
    let next = agents[0].seal(1);
    let mut fork = agents[0].clone();
    let refused = append(&opened.log, &agents[0], &next).await;
    assert_eq!(
        refused,
        Appended::Refused("expected batch 21, found 26".to_owned())
    );
    let tip = hello_behind(&opened.log, &agents[0], 25).await;
    assert_eq!(tip.sequence, 20);
    let _skipped = fork.seal(1);
    let too_far = fork.seal(1);
    assert!(matches!(
        append(&opened.log, &fork, &too_far).await,
        Appended::Refused(_)
    ));
    assert_eq!(append(&opened.log, &agents[0], &next).await, Appended::Stored(41));
    close(opened).await;
    let report = verify(&new.join("evidence"), None);
    assert!(report.ok, "{report:?}");
    let [gap] = report.elsewhere.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(
        (gap.agent_id.as_str(), gap.from, gap.to, gap.entry),
        ("host-a", 21, 25, 41)
    );
    // Old folder and new one together have the whole chain.
    let both = [data.path().join("evidence"), new.join("evidence")];
    let report = verify_all(&both, &Options::default()).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.agents, report.batches, report.in_several), (3, 47, 40));
    let alone = verify_all(&both[1..], &Options::default()).unwrap();
    assert!(!alone.ok && alone.missing.len() == 1, "{alone:?}");
}

/// Not in the middle of a log, and not of another history than the one that is before it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_log_says_of_its_backup_is_checked() {
    let (data, _) = filled(7).await;
    let folder = tempfile::tempdir().unwrap();
    let (copied, new) = (folder.path().join("copy"), folder.path().join("new"));
    backup(&data.path().join("evidence"), &copied).unwrap();
    restore(&copied, &new, Some("second".to_owned()), &[])
        .await
        .unwrap();
    // The restored log goes on; then somebody restores that one, and again.
    let third = folder.path().join("third");
    let twice = restore(&new, &third, Some("third".to_owned()), &[])
        .await
        .unwrap();
    assert_eq!((twice.batches, twice.restored.len()), (9, 2));
    let state = folder.path().join("state");
    let options = Options {
        state: Some(state),
        ..Options::default()
    };
    for checked_earlier in [0, 9] {
        let report = verify_with(&third.join("evidence"), &options).unwrap();
        assert_eq!((report.ok, report.checked_earlier), (true, checked_earlier));
        assert_eq!(report.restored, twice.restored);
    }
}

/// Any agent may call itself a collector; that makes no log unreadable, and changes nothing that is said of it.
#[tokio::test]
async fn an_agent_that_says_that_the_log_was_restored_is_not_heard() {
    let (data, _) = filled(3).await;
    let (other, _) = filled(2).await;
    let note = fs::read_to_string(other.path().join("evidence/checkpoint")).unwrap();
    let opened = open(data.path()).unwrap();
    let mut agent = Agent::new("collector-berlin", 9);
    hello(&opened.log, &agent).await;
    let restored = proto::v1::LogRestored {
        origin: "pgwitness/test".to_owned(),
        verifier_key: proofs::origin_key(other.path()),
        tree_size: 2,
        root: vec![1; 32],
        checkpoint: note,
    };
    let event = Event {
        body: Some(Body::LogRestored(restored)),
        ..Event::default()
    };
    let mut contents = Contents::default();
    contents.event(&[&event.encode_to_vec()]);
    let batch = evidence::seal(&mut agent.chain, &agent.key, contents, 1, 0, 0, None, [1; 32]);
    assert_eq!(append(&opened.log, &agent, &batch).await, Appended::Stored(3));
    close(opened).await;
    let report = verify(&data.path().join("evidence"), None);
    assert!(report.ok && report.restored.is_empty(), "{report:?}");
    close(open(data.path()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_s_chain_over_two_logs_is_joined() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut agent = Agent::new("host-a", 1);
    let batches: Vec<_> = (0..10).map(|_| agent.seal(3)).collect();
    let logs = [
        open_as(first.path(), "one").unwrap(),
        open_as(second.path(), "two").unwrap(),
    ];
    for opened in &logs {
        hello(&opened.log, &agent).await;
    }
    for batch in &batches[..5] {
        assert!(matches!(
            append(&logs[0].log, &agent, batch).await,
            Appended::Stored(_)
        ));
    }
    // The acknowledgement of the fifth was lost: it comes to the other one again.
    hello_behind(&logs[1].log, &agent, 4).await;
    for batch in &batches[4..] {
        assert!(matches!(
            append(&logs[1].log, &agent, batch).await,
            Appended::Stored(_)
        ));
    }
    for opened in logs {
        close(opened).await;
    }
    let folders = [first.path().join("evidence"), second.path().join("evidence")];
    let report = verify_all(&folders, &Options::default()).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.batches, report.in_several, report.events), (10, 1, 30));
    assert_eq!(report.logs[1].elsewhere[0].to, 4);
    let alone = verify_all(&folders[1..], &Options::default()).unwrap();
    assert_eq!(
        (alone.ok, alone.missing[0].from, alone.missing[0].to),
        (false, 1, 4)
    );

    // Two histories under one key: what each log alone cannot know.
    let forked = tempfile::tempdir().unwrap();
    let mut fork = Agent::new("host-a", 1);
    let opened = open_as(forked.path(), "three").unwrap();
    hello(&opened.log, &fork).await;
    let other = fork.seal(2);
    assert_eq!(append(&opened.log, &fork, &other).await, Appended::Stored(0));
    close(opened).await;
    let folders = [folders[0].clone(), forked.path().join("evidence")];
    let report = verify_all(&folders, &Options::default()).unwrap();
    let wrong = report.wrong.unwrap();
    assert!(wrong.contains("signed two batches 1"), "{wrong}");
}
