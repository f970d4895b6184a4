//! Tables by socket cookie.
//!
//! Owns the hash: several look-ups for each segment must cost next to nothing.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A table by the kernel's socket cookies.
pub type ByCookie<T> = HashMap<u64, T, BuildHasherDefault<Mix>>;

/// A table by process or thread ids, which the kernel counts up, too.
pub(crate) type ById<T> = HashMap<u32, T, BuildHasherDefault<Mix>>;

/// Spreads a cookie over all bits. The kernel counts cookies up, and no peer chooses them: a table of them needs no
/// protection from chosen keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio; the upper half, where the product is mixed best, is brought down, too.
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
