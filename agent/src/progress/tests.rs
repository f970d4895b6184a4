//! How far sessions were delivered, kept and read back.

use super::*;

const BOOT: &str = "5a6f3a0e-0000-4000-8000-000000000001";

fn kept(cookie: u64, frontend: u64) -> Kept {
    let told = Told {
        places: Places {
            frontend,
            backend: 2 * frontend,
            channel: 0,
        },
        settled: true,
        between_requests: true,
        at: 77,
    };
    let session = KeptSession {
        backend_pid: 1984,
        login_role: Some("ann".to_owned()),
        ..KeptSession::default()
    };
    Kept::new(cookie, &told, session)
}

/// The same, as the next run finds it.
fn outlived(cookie: u64, frontend: u64, at: u64) -> Kept {
    Kept {
        settled: false,
        at,
        ..kept(cookie, frontend)
    }
}

fn open(cookie: u64, frontend: u64) -> Note {
    Note::Open(Box::new(kept(cookie, frontend)))
}

fn reopen(folder: &Path) -> (Progress, Former) {
    Progress::open(folder, BOOT, 1_000)
}

/// Sorted cookies and places in the frontend stream.
fn left(folder: &Path) -> Vec<(u64, u64)> {
    let (_, former) = reopen(folder);
    let mut left: Vec<(u64, u64)> = former
        .connections
        .values()
        .map(|kept| (kept.cookie, kept.frontend))
        .collect();
    left.sort_unstable();
    left
}

#[test]
fn what_was_delivered_is_there_for_the_next_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (progress, former) = reopen(folder.path());
    assert!(former.run.is_none() && former.connections.is_empty());
    progress.note(3, 500, [open(1, 10), open(2, 20)].into_iter());
    progress.note(5, 600, [open(1, 30), Note::Closed(2), open(3, 5)].into_iter());
    assert_eq!(left(folder.path()), [], "nothing is acknowledged");
    progress.delivered(2);
    assert_eq!(left(folder.path()), []);
    progress.delivered(4);
    let (_, former) = reopen(folder.path());
    assert_eq!(former.run.as_ref().map(|run| run.delivered), Some(500));
    assert_eq!(
        former.connections.get(&1),
        Some(&outlived(1, 10, 500)),
        "up to where all was delivered"
    );
    assert_eq!(left(folder.path()), [(1, 10), (2, 20)]);
    progress.delivered(5);
    assert_eq!(left(folder.path()), [(1, 30), (3, 5)]);
    // Nothing is under way: what is noted now holds at once.
    progress.note(5, 900, [Note::Closed(1)].into_iter());
    assert_eq!(left(folder.path()), [(3, 5)]);
    let (_, former) = reopen(folder.path());
    assert_eq!(former.run.map(|run| run.delivered), Some(900));
}

#[test]
fn what_a_run_does_not_hear_of_is_missing_since_the_one_that_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, _) = reopen(folder.path());
    first.note(1, 500, [open(1, 10)].into_iter());
    first.delivered(1);
    drop(first);
    // It hears of another connection alone, and delivers that.
    let (second, former) = Progress::open(folder.path(), BOOT, 2_000);
    assert_eq!(former.run.map(|run| run.unheard_since), Some(1_000));
    second.note(1, 2_500, [open(2, 20)].into_iter());
    second.delivered(1);
    drop(second);
    let (_, former) = Progress::open(folder.path(), BOOT, 3_000);
    let since = |cookie| {
        former
            .connections
            .get(&cookie)
            .map(|kept| (kept.at, kept.settled))
    };
    assert_eq!(
        since(1),
        Some((500, false)),
        "nobody knows what it said between the two"
    );
    assert_eq!(since(2), Some((2_500, false)));
    let run = former.run.expect("a run");
    assert_eq!((run.delivered, run.unheard_since), (2_500, 1_000));
}

#[test]
fn a_run_that_delivers_nothing_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, _) = reopen(folder.path());
    first.note(0, 500, [open(1, 10)].into_iter());
    drop(first);
    let (second, former) = Progress::open(folder.path(), BOOT, 2_000);
    assert_eq!(
        former.run.map(|run| (run.began, run.delivered)),
        Some((1_000, 500))
    );
    second.note(9, 2_500, [open(1, 99), Note::Closed(1), open(2, 1)].into_iter());
    drop(second);
    let (_, former) = reopen(folder.path());
    assert_eq!(
        former.run.map(|run| (run.began, run.delivered)),
        Some((2_000, 500))
    );
    assert_eq!(former.connections.get(&1), Some(&outlived(1, 10, 500)));
}

#[test]
fn another_boot_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (progress, _) = reopen(folder.path());
    progress.note(0, 500, [open(1, 10)].into_iter());
    let (_, former) = Progress::open(folder.path(), "another", 1);
    assert!(former.run.is_none() && former.connections.is_empty() && former.damaged == 0);
    let (_, former) = reopen(folder.path());
    assert!(former.run.is_none(), "and neither does it come back");
}

#[test]
fn notes_wait_for_ever_in_bounded_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let (progress, _) = reopen(folder.path());
    for round in 1..1_000_u64 {
        progress.note(round, round, [open(1, round)].into_iter());
    }
    assert_eq!(progress.lock().waiting.len(), ROUNDS);
    progress.delivered(3);
    assert_eq!(left(folder.path()), [(1, 3)]);
    progress.delivered(998);
    assert_eq!(
        left(folder.path()),
        [(1, 15)],
        "what was joined holds with the last of it"
    );
    progress.delivered(999);
    assert_eq!(left(folder.path()), [(1, 999)]);
}

#[test]
fn slots_are_used_again_and_end_somewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let (progress, _) = reopen(folder.path());
    for cookie in 0..1_000 {
        progress.note(0, 1, [open(cookie, 1)].into_iter());
        progress.note(0, 1, [Note::Closed(cookie)].into_iter());
    }
    let length = || {
        std::fs::metadata(folder.path().join("progress"))
            .expect("there")
            .len()
    };
    assert_eq!(length(), 2 * SLOT as u64);
    progress.note(0, 1, (0..SLOTS + 10).map(|cookie| open(cookie, 1)));
    assert_eq!(length(), SLOTS * SLOT as u64);
    let (_, former) = reopen(folder.path());
    assert_eq!(former.connections.len() as u64, SLOTS - 1);
}

#[test]
fn every_byte_may_be_wrong_or_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("progress");
    let (progress, _) = reopen(folder.path());
    progress.note(0, 500, [open(1, 10), open(2, 20)].into_iter());
    let whole = std::fs::read(&path).expect("read");
    assert_eq!(whole.len(), 3 * SLOT);
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x41;
        std::fs::write(&path, &bytes).expect("written");
        let (_, former) = reopen(folder.path());
        for (cookie, kept) in &former.connections {
            assert_eq!(kept.frontend, 10 * cookie, "byte {place}");
        }
        // What is not used of a slot may hold anything.
        if former.run.is_some() && former.connections.len() < 2 {
            assert_eq!((former.connections.len(), former.damaged), (1, 1), "byte {place}");
        }
    }
    for length in 0..whole.len() {
        std::fs::write(&path, whole.get(..length).unwrap_or_default()).expect("written");
        let (_, former) = reopen(folder.path());
        assert!(former.connections.len() < 2);
    }
    // A slot that claims to be longer than it is, and one that holds another message.
    let mut bytes = whole.clone();
    bytes[SLOT + 4..SLOT + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes.copy_within(0..SLOT, 2 * SLOT);
    std::fs::write(&path, &bytes).expect("written");
    let (_, former) = reopen(folder.path());
    assert!(former.run.is_some() && former.connections.is_empty());
    assert_eq!(former.damaged, 2);
}

#[test]
fn where_it_cannot_be_written_nothing_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("progress")).expect("made");
    let (progress, former) = reopen(folder.path());
    assert!(former.run.is_none());
    progress.note(0, 1, [open(1, 1)].into_iter());
    progress.delivered(1);
    assert!(progress.lock().waiting.is_empty());
}

#[test]
fn the_longest_session_fits() {
    let long = |length| Some("x".repeat(length));
    let unix = KeptSession {
        backend_pid: u32::MAX,
        backend_start: u64::MAX,
        server_pid: u32::MAX,
        netns: u32::MAX,
        path: "x".repeat(NAME),
        login_role: kept_name(long(NAME).as_ref()),
        database: kept_name(long(NAME).as_ref()),
        ..KeptSession::default()
    };
    let tcp = KeptSession {
        client: vec![1; 16],
        client_port: u32::MAX,
        server: vec![1; 16],
        server_port: u32::MAX,
        path: String::new(),
        owner: Some(KeptOwner {
            pid: u32::MAX,
            start: u64::MAX,
            cgroup_id: u64::MAX,
            uid: u32::MAX,
            netns: u32::MAX,
            login_uid: Some(u32::MAX),
        }),
        ..unix.clone()
    };
    for session in [unix, tcp] {
        let kept = Kept {
            cookie: u64::MAX,
            frontend: u64::MAX,
            backend: u64::MAX,
            channel: 255,
            settled: true,
            at: u64::MAX,
            between_requests: true,
            session: Some(session),
        };
        assert!(kept.encoded_len() + FRONT <= SLOT, "{}", kept.encoded_len());
    }
    assert_eq!(kept_name(long(NAME + 1).as_ref()), None);
}
