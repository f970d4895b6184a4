//! The life of cgroups: a new one's id and path.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_probe_read_kernel_str, programs::BtfTracePointContext,
};
use ebpf_abi::{CGROUP_PATH_MAX, CgroupFact, FactKind};

use crate::{
    emit,
    kernel::{Address, Place as _, offset},
};

pub fn made(ctx: &BtfTracePointContext) {
    // SAFETY: the context is an array of the prototype's two arguments.
    let (cgroup, path) = unsafe {
        let arguments = ctx.as_ptr().cast::<u64>();
        (Address(*arguments), *arguments.add(1))
    };
    // Version 1 hierarchies have other ids; the unified one is number 0.
    if hierarchy(cgroup) == Some(0) {
        emit::fact_with(|room| describe(cgroup, path, room));
    }
}

#[inline(always)]
fn hierarchy(cgroup: Address) -> Option<u32> {
    cgroup
        .follow(offset!(cgroup_root))?
        .read(offset!(cgroup_root_hierarchy))
}

#[inline(always)]
fn describe(cgroup: Address, path: u64, room: &mut MaybeUninit<CgroupFact>) -> Option<()> {
    // SAFETY: all bit patterns are valid, and every field but the unused end of the path is written here.
    let fact = unsafe { &mut *room.as_mut_ptr() };
    fact.kind = FactKind::Cgroup as u32;
    fact.id = cgroup.follow(offset!(cgroup_kn))?.read(offset!(kernfs_node_id))?;
    // SAFETY: the destination is as long as is said, and the helper copies with fault handling.
    let length = unsafe {
        bpf_probe_read_kernel_str(
            fact.path.as_mut_ptr().cast(),
            CGROUP_PATH_MAX as u32,
            path as *const _,
        )
    };
    // The length counts the closing NUL.
    fact.path_length = if length > 0 { length as u32 - 1 } else { 0 };
    Some(())
}
