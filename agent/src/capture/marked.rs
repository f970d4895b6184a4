//! Which processes may be tapped ones, a byte for each process id, in memory that the kernel side reads before it looks for more.
//!
//! A byte is set before the process is marked, and taken back by the kernel side alone, at the process' end: so there is none of
//! a marked process that is not set.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::{AtomicU8, Ordering},
};

use aya::{
    maps::{Map, MapError},
    sys::SyscallError,
};
use ebpf_abi::MARKS;

/// The bytes, as the kernel side sees them.
pub(super) struct Marked {
    bytes: *mut u8,
    length: usize,
}

// SAFETY: the mapping belongs to no thread, and its bytes are only used as atomics.
unsafe impl Send for Marked {}

/// Pages that the process ids of this host take: `proc(5)`, `/proc/sys/kernel/pid_max`. Ids beyond, if that grows later, are
/// looked for in any case.
pub(super) fn pages() -> u32 {
    /// The most that a kernel gives.
    const MOST: u32 = 1 << 22;
    let most = fs::read_to_string("/proc/sys/kernel/pid_max");
    let most = most.ok().and_then(|text| text.trim().parse().ok());
    most.unwrap_or(MOST).clamp(1, MOST).div_ceil(MARKS)
}

impl TryFrom<Map> for Marked {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        let Map::Array(map) = map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let length = map.info()?.max_entries() as usize * MARKS as usize;
        // SAFETY: a new mapping at a place that the kernel chooses; it aliases nothing of ours.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(MapError::SyscallError(SyscallError {
                call: "mmap",
                io_error: io::Error::last_os_error(),
            }));
        }
        Ok(Self {
            bytes: mapped.cast(),
            length,
        })
    }
}

impl Marked {
    pub(super) fn mark(&self, tgid: u32) {
        let at = tgid as usize;
        if at < self.length {
            // SAFETY: within the mapping, which lasts as long as this, and the kernel side writes single bytes, too.
            unsafe { AtomicU8::from_ptr(self.bytes.add(at)) }.store(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, which nothing refers to any more.
        unsafe { libc::munmap(self.bytes.cast(), self.length) };
    }
}
