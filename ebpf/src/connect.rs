//! The life of TCP connections: who opened one is recorded in the connecting process itself, before it can be gone.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_task, bpf_ktime_get_boot_ns},
    },
    programs::BtfTracePointContext,
};
use ebpf_abi::{Counter, FactKind, OwnerFact};

use crate::{
    emit,
    kernel::{self, Address, Place as _, offset},
    maps::{OWNERS, Owner, TAKEN_CHANGES},
    pooled, process, sockets,
};

/// `enum` in `include/net/tcp_states.h`.
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;

/// Which of the two programs at a change of state: the kernel runs them one behind the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    First,
    Second,
}

/// An interrupt can change another socket's state while one of the two is at work, and the kernel then skips the run of that
/// one for it. Interrupts of this kind do not interrupt each other, so that the other program is free: none is lost. The first
/// leaves behind whose change it took, and the second takes what the first did not.
#[inline(always)]
pub fn state_changed(ctx: &BtfTracePointContext, place: Place) {
    let Some(taken) = TAKEN_CHANGES.get_ptr_mut(0) else {
        return;
    };
    let sock = Address::of(ctx.arg::<*const core::ffi::c_void>(0)).0;
    // SAFETY: a slot that the lookup proved, of this processor alone. Who interrupts puts its own in front, and may leave it there:
    // it is pushed out by the next ones.
    unsafe {
        let newest = ptr::addr_of_mut!((*taken)[0]);
        let other = ptr::addr_of_mut!((*taken)[1]);
        if place == Place::First {
            ptr::write_volatile(other, ptr::read_volatile(newest));
            ptr::write_volatile(newest, sock);
        } else if ptr::read_volatile(newest) == sock {
            return ptr::write_volatile(newest, 0);
        } else if ptr::read_volatile(other) == sock {
            return ptr::write_volatile(other, 0);
        } else if kernel::is_alone() {
            return;
        } else {
            emit::count(Counter::TakenByOther, 1);
        }
    }
    changed(ctx);
}

#[inline(always)]
fn changed(ctx: &BtfTracePointContext) {
    let sock = Address::of(ctx.arg::<*const core::ffi::c_void>(0));
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    match new {
        TCP_SYN_SENT => {
            let _ = connecting(sock);
        }
        TCP_ESTABLISHED if old == TCP_SYN_SENT => {
            let _ = established(sock);
        }
        TCP_CLOSE => {
            let _ = OWNERS.remove(sock.0);
            if kernel::follows_poolers() {
                let _ = pooled::closed(ctx);
            }
        }
        _ => {}
    }
}

/// Runs in the process that calls `connect`.
#[inline(always)]
fn connecting(sock: Address) -> Option<()> {
    // SAFETY: the helper has no precondition.
    let task = Address(unsafe { bpf_get_current_task() });
    let leader = task.follow(offset!(task_group_leader))?;
    let owner = Owner {
        start: leader.read(offset!(task_start_boottime))?,
        // SAFETY: the helper has no precondition.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: bpf_get_current_uid_gid() as u32,
        ports: 0,
        sequence: 0,
        answer: 0,
        login_uid: process::login_uid(task),
        comm: bpf_get_current_comm().ok()?,
    };
    // A socket can be connected again: the newest owner counts.
    if OWNERS.insert(sock.0, owner, u64::from(BPF_ANY)).is_err() {
        emit::count(Counter::OwnersFull, 1);
    }
    Some(())
}

#[inline(always)]
fn established(sock: Address) -> Option<()> {
    let kept = OWNERS.get_ptr_mut(sock.0)?;
    // SAFETY: the lookup proved the value, and nobody else changes it while the socket connects.
    let owner = unsafe { &mut *kept };
    owner.ports = sockets::ports(sock)?;
    // Nothing but the SYNs was sent yet.
    owner.sequence = sock.read(offset!(tcp_write_seq))?;
    owner.answer = sock.read(offset!(tcp_rcv_nxt))?;
    tell(sock, owner, FactKind::Owner)
}

/// The first that was said over a connection is how a client of PostgreSQL begins.
#[inline(always)]
pub fn speaks(sock: Address) -> Option<()> {
    // SAFETY: as above; the connection is the calling process' own.
    let owner = unsafe { &*OWNERS.get_ptr_mut(sock.0)? };
    if sockets::ports(sock)? != owner.ports {
        // The address may have been another socket's, had its end gone unseen.
        return None;
    }
    tell(sock, owner, FactKind::Flow)
}

#[inline(always)]
fn tell(sock: Address, owner: &Owner, kind: FactKind) -> Option<()> {
    let family = sock.read(offset!(sock_family))?;
    let mut fact = OwnerFact {
        kind: kind as u32,
        tgid: owner.tgid,
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        start: owner.start,
        cgroup_id: owner.cgroup_id,
        uid: owner.uid,
        netns: sockets::netns(sock)?,
        family,
        local_port: sock.read(offset!(sock_num))?,
        remote_port: u16::from_be(sock.read(offset!(sock_dport))?),
        reserved: 0,
        sequence: owner.sequence,
        answer: owner.answer,
        login_uid: owner.login_uid,
        unused: 0,
        local: [0; 16],
        remote: [0; 16],
        comm: owner.comm,
    };
    sockets::addresses(sock, family, &mut fact.local, &mut fact.remote)?;
    emit::fact(&fact);
    Some(())
}
