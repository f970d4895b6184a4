//! The life of cgroups: a new one's id and path.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_probe_read_kernel_str, programs::BtfTracePointContext,
};
use ebpf_abi::{CGROUP_PATH_MAX, FactKind};

use crate::{
    emit,
    kernel::{Address, offset},
    maps::CGROUP_SCRATCH,
};

pub fn made(ctx: &BtfTracePointContext) {
    // SAFETY: the context is an array of the prototype's two arguments.
    let (cgroup, path) = unsafe {
        let arguments = ctx.as_ptr().cast::<u64>();
        (Address(*arguments), *arguments.add(1))
    };
    let _ = try_made(cgroup, path);
}

fn try_made(cgroup: Address, path: u64) -> Option<()> {
    // Version 1 hierarchies have other ids; the unified one is number 0.
    if cgroup
        .follow(offset!(cgroup_root))?
        .read::<u32>(offset!(cgroup_root_hierarchy))?
        != 0
    {
        return None;
    }
    let scratch = CGROUP_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the lookup proved the slot, and this program has it to itself on this CPU.
    let fact = unsafe { &mut (*scratch).fact };
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
    emit::fact(fact);
    Some(())
}
