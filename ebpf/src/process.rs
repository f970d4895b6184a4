//! The life of processes: every fork, exec and exit on the host is told, and the processes of PostgreSQL servers
//! are marked before they can touch a socket.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_ANY, task_struct},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{
            bpf_get_current_task, bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str, bpf_probe_read_user,
        },
    },
    programs::BtfTracePointContext,
};
use ebpf_abi::{
    ARGS_MAX, Client, Counter, ENVIRONMENT_MAX, EnvironmentFact, ExecFact, FactKind, MARKS, PATH_MAX,
    ProbedCall, TARGET_BORN_TAPPED, TARGET_POOLER, TARGET_PROBED_GSS, TARGET_PROBED_TLS, Target, TaskFact,
    TaskPlace, Walk,
};

use crate::{
    client, emit,
    kernel::{self, Address, Place as _, offset},
    maps::{MARKED, POOLER_NAMES, TARGETS, THREADS},
    pooler,
};

pub fn forked(ctx: &BtfTracePointContext) {
    let parent = Address::of(ctx.arg::<*const task_struct>(0));
    let child = Address::of(ctx.arg::<*const task_struct>(1));
    let _ = try_forked(parent, child);
}

#[inline(always)]
fn try_forked(parent: Address, child: Address) -> Option<()> {
    let tgid: u32 = child.read(offset!(task_tgid))?;
    if child.read::<u32>(offset!(task_pid))? != tgid {
        return None; // a thread
    }
    let parent_tgid: u32 = parent.read(offset!(task_tgid))?;
    // SAFETY: the copied value is used at once, so that a concurrent change cannot tear it.
    if let Some(target) = unsafe { TARGETS.get(parent_tgid) } {
        // A pooler's probes are in one process, and not in those that it forks.
        let inherited = match target.flags & TARGET_POOLER {
            0 => target.flags & (TARGET_PROBED_TLS | TARGET_PROBED_GSS),
            _ => TARGET_POOLER,
        };
        mark(tgid, target.server, TARGET_BORN_TAPPED | inherited);
    }
    emit::fact(&describe(child, FactKind::Fork)?);
    Some(())
}

pub fn executed(ctx: &BtfTracePointContext) {
    let bprm = Address(unsafe { *ctx.as_ptr().cast::<u64>().add(2) });
    let _ = try_executed(bprm);
}

#[inline(always)]
fn try_executed(bprm: Address) -> Option<()> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // Marked by name here, so that the first query cannot be missed; the agent looks at the executable itself
    // and takes the mark back if it is no PostgreSQL server.
    let name = bpf_get_current_comm().ok()?;
    let mut marked = 0;
    if is_postgres(&name) {
        marked = TARGET_BORN_TAPPED;
    } else if kernel::follows_poolers() && is_pooler(&name) {
        pooler::seen();
        marked = TARGET_BORN_TAPPED | TARGET_POOLER;
    }
    if marked == 0 {
        let _ = TARGETS.remove(tgid);
    } else {
        mark(tgid, tgid, marked);
    }
    // SAFETY: the helper has no precondition.
    let task = Address(unsafe { bpf_get_current_task() });
    emit::fact_with(|room| describe_exec(task, bprm, marked, room));
    if kernel::tells_environments() {
        let _ = tell_environment(task, tgid);
    }
    Some(())
}

/// Environments vary from a few hundred bytes to many KiB: records of three sizes.
#[inline(always)]
fn tell_environment(task: Address, tgid: u32) -> Option<()> {
    let memory = task.follow(offset!(task_mm))?;
    let start: u64 = memory.read(offset!(mm_env_start))?;
    let original = memory.read::<u64>(offset!(mm_env_end))?.wrapping_sub(start);
    let mut length = original;
    if length > ENVIRONMENT_MAX as u64 {
        length = ENVIRONMENT_MAX as u64;
    }
    let fact = EnvironmentFact {
        kind: FactKind::Environment as u32,
        tgid,
        start: task
            .follow(offset!(task_group_leader))?
            .read(offset!(task_start_boottime))?,
        length: length as u32,
        original: original as u32,
    };
    emit::environment(&fact, start)
}

#[inline(always)]
fn describe_exec(task: Address, bprm: Address, marked: u32, room: &mut MaybeUninit<ExecFact>) -> Option<()> {
    // SAFETY: all bit patterns are valid, and every field but the unused ends of the texts is written here.
    let fact = unsafe { &mut *room.as_mut_ptr() };
    fact.task = describe(task, FactKind::Exec)?;
    fact.is_pooler = u32::from(marked & TARGET_POOLER != 0);
    fact.inode = bprm
        .follow(offset!(binprm_file))
        .and_then(|file| file.follow(offset!(file_inode)))
        .and_then(|inode| inode.read(offset!(inode_ino)))
        .unwrap_or(0);

    let name = bprm.follow(offset!(binprm_filename))?;
    // SAFETY: the destination is as long as is said, and the helper copies with fault handling.
    let length = unsafe {
        bpf_probe_read_kernel_str(fact.path.as_mut_ptr().cast(), PATH_MAX as u32, name.0 as *const _)
    };
    // The length counts the closing NUL.
    fact.path_length = if length > 0 { length as u32 - 1 } else { 0 };

    let memory = task.follow(offset!(task_mm))?;
    let start: u64 = memory.read(offset!(mm_arg_start))?;
    let end: u64 = memory.read(offset!(mm_arg_end))?;
    let original = end.wrapping_sub(start);
    let wanted = if original > ARGS_MAX as u64 {
        ARGS_MAX as u32
    } else {
        original as u32
    };
    // Masked behind the compiler's back: older verifiers forget the bound on the way.
    let mut bounded = core::hint::black_box(wanted) & (2 * ARGS_MAX as u32 - 1);
    if bounded > ARGS_MAX as u32 {
        bounded = ARGS_MAX as u32;
    }
    // SAFETY: as above; the bound was just made.
    let copied = unsafe { bpf_probe_read_user(fact.args.as_mut_ptr().cast(), bounded, start as *const _) };
    fact.args_length = if copied == 0 { wanted } else { 0 };
    fact.args_original = original as u32;
    Some(())
}

/// Marks a process as one of a server's, with no client yet.
#[inline(always)]
fn mark(tgid: u32, server: u32, flags: u32) {
    // Field by field: the verifier wants every byte of the stack written.
    let target = Target {
        server,
        flags,
        client: Client::default(),
        call: ProbedCall::default(),
        walk: Walk::default(),
    };
    if let Some(marked) = marked(tgid) {
        // SAFETY: a byte that the lookup proved.
        unsafe { ptr::write_volatile(marked, 1) };
    }
    if TARGETS.insert(tgid, target, u64::from(BPF_ANY)).is_err() {
        emit::count(Counter::TargetsFull, 1);
    }
}

/// Whether a process may have an entry in `TARGETS`.
#[inline(always)]
pub fn may_be_marked(tgid: u32) -> bool {
    // SAFETY: a byte that the lookup proved. Without a place for it nobody knows.
    marked(tgid).is_none_or(|marked| unsafe { ptr::read_volatile(marked) } != 0)
}

#[inline(always)]
fn marked(tgid: u32) -> Option<*mut u8> {
    let page = MARKED.get_ptr_mut(tgid / MARKS)?.cast::<u8>();
    // SAFETY: within the page.
    Some(unsafe { page.add((tgid % MARKS) as usize) })
}

pub fn exited(ctx: &BtfTracePointContext) {
    let task = Address::of(ctx.arg::<*const task_struct>(0));
    let _ = try_exited(task);
}

#[inline(always)]
fn try_exited(task: Address) -> Option<()> {
    if kernel::follows_poolers() {
        let _ = THREADS.remove(task.read::<u32>(offset!(task_pid))?);
    }
    // `do_exit` has already counted this thread out: 0 means that the process is over, in whatever order its
    // threads ended.
    let signal = task.follow(offset!(task_signal))?;
    if signal.read::<i32>(offset!(signal_live))? != 0 {
        return None;
    }
    let fact = describe(task, FactKind::Exit)?;
    if let Some(target) = TARGETS.get_ptr_mut(fact.tgid) {
        // SAFETY: the lookup proved the value; this is the process' last thread.
        client::end(task, unsafe { &mut *target });
        let _ = TARGETS.remove(fact.tgid);
    }
    if let Some(marked) = marked(fact.tgid)
        // SAFETY: a byte that the lookup proved. Not written where it need not be: others read what is beside it.
        && unsafe { ptr::read_volatile(marked) } != 0
    {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(marked, 0) };
    }
    emit::fact(&fact);
    Some(())
}

/// The process that `task` belongs to.
#[inline(always)]
fn describe(task: Address, kind: FactKind) -> Option<TaskFact> {
    let leader = task.follow(offset!(task_group_leader))?;
    let parent = leader.follow(offset!(task_real_parent))?;
    let parent_leader = parent.follow(offset!(task_group_leader))?;
    let cred = task.follow(offset!(task_cred))?;
    Some(TaskFact {
        kind: kind as u32,
        tgid: task.read(offset!(task_tgid))?,
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        start: leader.read(offset!(task_start_boottime))?,
        parent_start: parent_leader.read(offset!(task_start_boottime))?,
        parent: parent_leader.read(offset!(task_tgid))?,
        uid: cred.read(offset!(cred_uid))?,
        login_uid: login_uid(task),
        audit_session: match offset!(task_sessionid) {
            0 => u32::MAX,
            offset => task.read(offset).unwrap_or(u32::MAX),
        },
        cgroup_id: cgroup_id(task).unwrap_or(0),
        comm: task.read(offset!(task_comm)).unwrap_or([0; 16]),
        place: match kind {
            FactKind::Exit => TaskPlace::default(),
            _ => place(task),
        },
    })
}

/// What cannot be read stays zero.
#[inline(always)]
fn place(task: Address) -> TaskPlace {
    let mut place = TaskPlace::default();
    if let Some(signal) = task.follow(offset!(task_signal)) {
        /// `include/linux/pid_types.h`
        const PIDTYPE_SID: u32 = 3;
        place.session = signal
            .follow(offset!(signal_pids) + PIDTYPE_SID * 8)
            .and_then(|leader| leader.read(offset!(pid_numbers)))
            .unwrap_or(0);
        if let Some(tty) = signal.follow(offset!(signal_tty)) {
            place.tty = tty.read(offset!(tty_name)).unwrap_or([0; 16]);
        }
    }
    if let Some(spaces) = task.follow(offset!(task_nsproxy)) {
        place.net_ns = inum(spaces, offset!(nsproxy_net), offset!(net_ns_inum));
        place.mnt_ns = inum(spaces, offset!(nsproxy_mnt), offset!(mnt_ns_inum));
    }
    let _ = pid_namespace(task, &mut place);
    place
}

#[inline(always)]
fn inum(spaces: Address, member: u32, number: u32) -> u32 {
    spaces
        .follow(member)
        .and_then(|space| space.read(number))
        .unwrap_or(0)
}

/// The namespace that the process itself is in: the innermost that its id has a number in.
#[inline(always)]
fn pid_namespace(task: Address, place: &mut TaskPlace) -> Option<()> {
    /// `struct upid { int nr; struct pid_namespace *ns; }`
    const UPID: u32 = 16;
    const UPID_NS: u32 = 8;
    let pid = task.follow(offset!(task_thread_pid))?;
    let level: u32 = pid.read(offset!(pid_level))?;
    let space = pid.follow(offset!(pid_numbers) + level * UPID + UPID_NS)?;
    place.pid_ns = space.read(offset!(pid_ns_inum))?;
    let first = space.follow(offset!(pid_ns_child_reaper))?;
    place.pid_ns_first = first.read(offset!(task_tgid))?;
    Some(())
}

/// `u32::MAX` where none was set or the kernel keeps none.
#[inline(always)]
pub fn login_uid(task: Address) -> u32 {
    match offset!(task_loginuid) {
        0 => u32::MAX,
        offset => task.read(offset).unwrap_or(u32::MAX),
    }
}

/// Id of the task's cgroup in the unified hierarchy.
#[inline(always)]
pub fn cgroup_id(task: Address) -> Option<u64> {
    task.follow(offset!(task_cgroups))?
        .follow(offset!(css_set_dfl_cgrp))?
        .follow(offset!(cgroup_kn))?
        .read(offset!(kernfs_node_id))
}

/// Whether a program is named like a pooler's; the agent looks at its executable.
#[inline(always)]
fn is_pooler(name: &[u8; 16]) -> bool {
    // SAFETY: the value is not looked at.
    unsafe { POOLER_NAMES.get(name).is_some() }
}

#[inline(always)]
fn is_postgres(comm: &[u8; 16]) -> bool {
    // SAFETY: both halves lie inside the 16 bytes.
    let (first, second) = unsafe {
        let words = ptr::from_ref(comm).cast::<u64>();
        (words.read_unaligned(), words.add(1).read_unaligned())
    };
    first == u64::from_ne_bytes(*b"postgres") && second & 0xff == 0
        || first == u64::from_ne_bytes(*b"postmast") && second == u64::from_ne_bytes(*b"er\0\0\0\0\0\0")
}
