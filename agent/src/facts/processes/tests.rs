use super::*;
use crate::broker::in_a_thread;

fn task(pid: u32, start: u64, parent: (u32, u64)) -> TaskFact {
    TaskFact {
        tgid: pid,
        start,
        parent: parent.0,
        parent_start: parent.1,
        at: start,
        login_uid: u32::MAX,
        ..TaskFact::default()
    }
}

#[test]
fn a_reused_pid_is_another_process() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    let (first, second) = (1_000_000_000, 9_000_000_000);
    processes.forked(&task(900_000, first, (0, 0)), &mut cgroups);
    processes.exited(&TaskFact {
        at: 2_000_000_000,
        ..task(900_000, first, (0, 0))
    });
    processes.forked(&task(900_000, second, (0, 0)), &mut cgroups);
    assert_eq!(processes.find(900_000, first).expect("the first").start_ns, first);
    assert_eq!(
        processes.find(900_000, second).expect("the second").start_ns,
        second
    );
    let ended = processes.find_ended(900_000, 2_000_000_001).expect("the first");
    assert_eq!(ended.start_ns, first);
    assert!(
        processes.find_ended(900_000, second + 1).is_none(),
        "a living one is never meant"
    );
    assert!(processes.find(900_000, 5_000_000_000).is_none());
}

#[test]
fn a_pid_that_is_reused_within_a_tick_is_another_process() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    let (first, second) = (1_000_000_001, 1_000_000_900);
    for (start, uid) in [(first, 1), (second, 2)] {
        let fact = TaskFact {
            uid,
            ..task(900_003, start, (0, 0))
        };
        processes.forked(&fact, &mut cgroups);
    }
    let uid = |start| processes.find(900_003, start).expect("a process").uid;
    assert_eq!((uid(first), uid(second)), (1, 2));
    assert!(
        processes.find(900_003, 1_000_000_000).is_some(),
        "as /proc tells it, cut to a tick"
    );
}

#[test]
fn the_dead_are_forgotten_in_time() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    let born = task(900_001, 1_000_000_000, (0, 0));
    processes.forked(&born, &mut cgroups);
    processes.exited(&TaskFact {
        at: 2_000_000_000,
        ..born
    });
    assert_eq!(processes.known(), 1);
    processes.exited(&task(900_002, 2_000_000_000 + REMEMBERED_NS, (0, 0)));
    assert_eq!(processes.known(), 0);
}

#[test]
fn the_inventory_knows_this_process_and_its_parent() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    processes.inventory(&mut cgroups);
    let own = processes
        .read(std::process::id(), None, &mut cgroups)
        .expect("this process");
    let own = processes.find(own.pid, own.start_ns).expect("in the inventory");
    assert_eq!(
        own.exe.as_deref().map(Path::new),
        std::env::current_exe().ok().as_deref()
    );
    assert!(!own.descent.ancestry().is_empty());
    assert_eq!(processes.start_of(own.pid), Some(own.start_ns / TICK_NS));
}

#[test]
fn what_an_inventory_does_not_find_has_ended() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    processes.forked(&task(900_003, 1_000_000_000, (0, 0)), &mut cgroups);
    assert_eq!(processes.start_of(900_003), Some(100));
    processes.inventory(&mut cgroups);
    assert_eq!(processes.start_of(900_003), None);
    assert!(processes.find(900_003, 1_000_000_000).is_some(), "remembered");
}

#[test]
fn children_share_what_they_descend_from_until_it_runs_another_program() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    let parent = (900_010, 1_000_000_001);
    let born = task(parent.0, parent.1, (0, 0));
    processes.forked(&born, &mut cgroups);
    let mut child = |processes: &mut Processes, pid, start| {
        processes.forked(&task(pid, start, parent), &mut cgroups);
        let child = processes.find(pid, start).expect("a process");
        Arc::clone(child.descent.ancestry())
    };
    let first = child(&mut processes, 900_011, 1_000_000_002);
    let second = child(&mut processes, 900_012, 1_000_000_003);
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((first.len(), &*first[0].exe), (1, ""));
    let mut other = TaskFact { at: 2, ..born };
    other.comm[..5].copy_from_slice(b"other");
    processes.executed(&exec(other), &mut Cgroups::read());
    let third = child(&mut processes, 900_013, 1_000_000_004);
    assert_eq!((third.len(), &*third[0].exe), (1, "other"));
    assert_eq!(&*second[0].exe, "", "as it was when it was forked");
}

#[test]
fn who_was_put_into_a_container_is_told_from_who_was_born_there() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    let container = format!("/system.slice/docker-{}.scope", "a".repeat(64));
    cgroups.made(u64::MAX, "/init.scope".to_owned());
    cgroups.made(u64::MAX - 1, container);
    let (outside, first) = (900_020, 900_021);
    processes.forked(&task(outside, 1, (0, 0)), &mut cgroups);
    let within = |pid, parent| TaskFact {
        cgroup_id: u64::MAX - 1,
        place: TaskPlace {
            pid_ns_first: first,
            ..TaskPlace::default()
        },
        ..task(pid, u64::from(pid), parent)
    };
    let made = |pid| (pid, u64::from(pid));
    // A runtime's process begins outside, and moves in.
    let runtime = TaskFact {
        cgroup_id: u64::MAX,
        ..within(first, (outside, 1))
    };
    processes.forked(&runtime, &mut cgroups);
    processes.executed(&exec(within(first, (outside, 1))), &mut cgroups);
    processes.forked(&within(900_022, made(first)), &mut cgroups);
    processes.forked(&within(900_023, made(900_022)), &mut cgroups);
    processes.executed(&exec(within(900_023, made(900_022))), &mut cgroups);
    processes.forked(&within(900_024, (outside, 1)), &mut cgroups);
    processes.executed(&exec(within(900_024, (outside, 1))), &mut cgroups);
    processes.forked(&within(900_025, made(900_024)), &mut cgroups);
    let known = |pid| processes.find(pid, u64::from(pid)).expect("a process");
    let put_in = [first, 900_022, 900_023, 900_024, 900_025].map(|pid| known(pid).was_put_in());
    assert_eq!(put_in, [false, false, false, true, true]);
    let first_of = |pid| known(pid).descent.first().cloned().expect("a first process");
    assert!(
        Arc::ptr_eq(&first_of(900_023), &first_of(900_025)),
        "told once for all"
    );
}

#[test]
fn who_is_forked_into_another_container_takes_no_name_along() {
    let (mut processes, mut cgroups) = (Processes::new(in_a_thread(), Vec::new()), Cgroups::read());
    for (cgroup_id, id) in [(u64::MAX, "a"), (u64::MAX - 1, "b")] {
        cgroups.made(cgroup_id, format!("/system.slice/docker-{}.scope", id.repeat(64)));
    }
    let parent = TaskFact {
        cgroup_id: u64::MAX,
        ..task(900_030, 1, (0, 0))
    };
    processes.forked(&parent, &mut cgroups);
    for entry in processes.by_pid.values_mut().flatten() {
        Arc::make_mut(&mut entry.process).container = Some(Arc::default());
    }
    // clone3(2) with CLONE_INTO_CGROUP.
    for (pid, cgroup_id) in [(900_031, u64::MAX), (900_032, u64::MAX - 1)] {
        let child = TaskFact {
            cgroup_id,
            ..task(pid, 2, (900_030, 1))
        };
        processes.forked(&child, &mut cgroups);
    }
    let is_named = |pid| processes.find(pid, 2).expect("a process").container.is_some();
    assert_eq!((is_named(900_031), is_named(900_032)), (true, false));
}

fn exec(task: TaskFact) -> ExecFact {
    ExecFact {
        task,
        inode: 0,
        path_length: 0,
        args_length: 0,
        args_original: 0,
        is_pooler: 0,
        path: [0; ebpf_abi::PATH_MAX],
        args: [0; ebpf_abi::ARGS_MAX],
    }
}
