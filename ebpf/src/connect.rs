//! The life of TCP connections: who opened one is recorded in the connecting process itself, before it can be gone.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{
            bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_get_socket_cookie,
            bpf_ktime_get_boot_ns, bpf_sk_storage_delete, bpf_sk_storage_get,
        },
    },
    programs::BtfTracePointContext,
};
use ebpf_abi::{CloseFact, FactKind, OwnerFact};

use crate::{
    emit,
    kernel::{Address, offset},
    maps::{CONNECTING, SOCKETS, SocketState},
    sockets::{self, Sock},
};

/// `enum` in `include/net/tcp_states.h`.
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;

pub fn state_changed(ctx: &BtfTracePointContext) {
    let sk: Sock = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    match new {
        TCP_SYN_SENT => {
            let _ = connecting(sk);
        }
        TCP_ESTABLISHED if old == TCP_SYN_SENT => {
            let _ = established(sk);
        }
        TCP_CLOSE => {
            let _ = closed(sk);
        }
        _ => {}
    }
}

/// Runs in the process that calls `connect`.
#[inline(always)]
fn connecting(sk: Sock) -> Option<()> {
    // SAFETY: the helper has no precondition.
    let task = Address::of(unsafe { bpf_get_current_task_btf() }.cast_const());
    let leader = task.follow(offset!(task_group_leader))?;
    let mut owner = OwnerFact {
        kind: FactKind::Owner as u32,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        start: leader.read(offset!(task_start_boottime))?,
        // SAFETY: the helper has no precondition.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        uid: bpf_get_current_uid_gid() as u32,
        comm: bpf_get_current_comm().ok()?,
        ..OwnerFact::default()
    };
    // SAFETY: `sk` is the tracepoint's own trusted argument.
    unsafe {
        let storage = ptr::from_ref(&CONNECTING).cast_mut().cast();
        // A socket can be connected again: the newest owner counts.
        bpf_sk_storage_delete(storage, sk.cast());
        bpf_sk_storage_get(
            storage,
            sk.cast(),
            ptr::from_mut(&mut owner).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        );
    }
    Some(())
}

#[inline(always)]
fn established(sk: Sock) -> Option<()> {
    // SAFETY: as above; the storage holds an initialised value if it is there.
    let kept = unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(&CONNECTING).cast_mut().cast(),
            sk.cast(),
            ptr::null_mut(),
            0,
        )
        .cast::<OwnerFact>()
        .as_ref()?
    };
    let mut owner = *kept;
    // SAFETY: as above.
    owner.at = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: as above.
    owner.cookie = unsafe { bpf_get_socket_cookie(sk.cast()) };
    let sock = Address::of(sk.cast_const());
    owner.family = sock.read(offset!(sock_family))?;
    // Nothing but the SYN was sent yet.
    owner.sequence = sock.read(offset!(tcp_write_seq))?;
    owner.netns = sockets::netns(sock)?;
    owner.local_port = sock.read(offset!(sock_num))?;
    owner.remote_port = u16::from_be(sock.read(offset!(sock_dport))?);
    sockets::addresses(sock, owner.family, &mut owner.local, &mut owner.remote)?;
    emit::fact(&owner);
    Some(())
}

#[inline(always)]
fn closed(sk: Sock) -> Option<()> {
    // SAFETY: as above.
    let state = unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(&SOCKETS).cast_mut().cast(),
            sk.cast(),
            ptr::null_mut(),
            0,
        )
        .cast::<SocketState>()
        .as_ref()?
    };
    if state.cookie == 0 {
        return None;
    }
    emit::fact(&CloseFact {
        kind: FactKind::Close as u32,
        reserved: 0,
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: state.cookie,
        received: state.received,
        sent: state.sent,
    });
    Some(())
}
