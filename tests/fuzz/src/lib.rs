//! Mutations that know where messages and packets begin: they are moved, repeated and dropped as wholes, which random
//! changes of bytes hardly ever do. Half of the time libFuzzer's own mutations run.

use std::ops::Range;

/// Where the parts of an input are.
pub type Parts = fn(&[u8]) -> Vec<Range<usize>>;

/// A byte of settings, then steps: what, a length, and so many bytes (`pg-wire`).
pub const STEPS: Parts = |data| {
    let mut parts = Vec::new();
    let mut from = 1;
    while let Some(&length) = data.get(from + 1) {
        let to = (from + 2 + usize::from(length)).min(data.len());
        parts.push(from..to);
        from = to;
    }
    parts
};

/// Five bytes for each packet (`recording`).
pub const PACKETS: Parts = |data| (0..data.len() / 5).map(|part| part * 5..part * 5 + 5).collect();

/// Changes the first `size` bytes of `data`, up to `max_size`, and gives the new size.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, parts: Parts) -> usize {
    let parts = parts(&data[..size]);
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |count: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % count
    };
    if parts.len() < 2 || below(2) == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let front = data[..parts[0].start].to_vec();
    let behind = data[parts[parts.len() - 1].end..size].to_vec();
    let mut all: Vec<Vec<u8>> = parts.iter().map(|part| data[part.clone()].to_vec()).collect();
    let one = below(all.len());
    match below(5) {
        0 => {
            let other = below(all.len());
            all.swap(one, other);
        }
        1 => {
            let copy = all[one].clone();
            all.insert(below(all.len() + 1), copy);
        }
        2 => drop(all.remove(one)),
        // A run of them again.
        3 => {
            let run = all[one..(one + 1 + below(8)).min(all.len())].to_vec();
            let at = below(all.len() + 1);
            all.splice(at..at, run);
        }
        // Everything behind is gone: the connection was lost.
        _ => all.truncate(one + 1),
    }
    let mut changed = [front, all.concat(), behind].concat();
    changed.truncate(max_size);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
}
