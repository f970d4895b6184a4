//! Giving freed memory back to the system. It is here because the agent's `unsafe` has one home.

/// Gives back what is free in the middle of the heap, too: the allocator by itself gives back the end only
/// (malloc_trim(3)). Takes milliseconds; for when memory is short.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; the allocator locks its own arenas.
    unsafe {
        libc::malloc_trim(0);
    }
}
