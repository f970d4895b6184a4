//! Looking at what the kernel keeps beside the maps: how full a ring is, and which runs of our programs it skipped.

use std::{
    fs,
    num::NonZeroUsize,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::Ebpf;

use super::{
    Ring,
    hooks::{Hook, LIFE},
};

impl Ring {
    /// Bytes that are written and not yet taken; `None` if the kernel does not show them.
    pub fn used(&self) -> Option<u64> {
        let page = usize::try_from(procfs::page_size())
            .ok()
            .and_then(NonZeroUsize::new)?
            .get();
        // Page 0 holds the reader's position, page 1 the writer's (kernel/bpf/ringbuf.c, `struct bpf_ringbuf`).
        // SAFETY: a new read-only mapping at a place that the kernel chooses; it aliases nothing of ours.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                2 * page,
                libc::PROT_READ,
                libc::MAP_SHARED,
                self.0.as_fd().as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let position = |at: usize| {
            // SAFETY: both places are within the mapping of two pages, aligned to a page, and hold an `unsigned long` that
            // other threads and the kernel write: read as an atomic. 64 bits, as on every architecture that has BTF here.
            unsafe { AtomicU64::from_ptr(mapped.cast::<u8>().add(at).cast()) }.load(Ordering::Acquire)
        };
        let (taken, written) = (position(0), position(page));
        // SAFETY: the mapping made above, which nothing refers to any more.
        unsafe { libc::munmap(mapped, 2 * page) };
        Some(written.saturating_sub(taken))
    }
}

/// Runs of the programs that the kernel skipped, because one ran on that processor already (since Linux 5.12; 0 before).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Of those that take payload.
    pub payload: u64,
    /// Of all others.
    pub facts: u64,
}

pub(super) fn skipped(programs: &Ebpf) -> Skipped {
    let mut skipped = Skipped::default();
    let loaded = programs
        .programs()
        .filter_map(|(name, program)| Some((name, program.fd().ok()?)));
    for (name, fd) in loaded {
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()));
        let runs = about.ok().and_then(|about| field(&about, "recursion_misses:"));
        let hook = LIFE.iter().find(|hook| hook.program == name);
        if hook.is_some_and(Hook::is_second) {
            continue;
        }
        *if hook.is_some() {
            &mut skipped.facts
        } else {
            &mut skipped.payload
        } += runs.unwrap_or(0);
    }
    skipped
}

fn field(about: &str, name: &str) -> Option<u64> {
    about
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_of_a_program_is_read() {
        // From a kernel 6.18.
        let about = "pos:\t0\nflags:\t02000002\nprog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t7\nverified_insns:\t351\n";
        assert_eq!(field(about, "recursion_misses:"), Some(7));
        assert_eq!(field("pos:\t0\n", "recursion_misses:"), None);
    }
}
