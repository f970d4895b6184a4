//! SHA-256 of the short messages that trees are made of.
//!
//! Owns their padding (FIPS 180-4, 5.1.1), so that a message's blocks are put together once: an event costs three such hashes,
//! and what a general hasher does around each takes as long as the hash. Any other digest is `sha2::Digest`'s.

use sha2::{
    compress256,
    digest::generic_array::{GenericArray, typenum::U64},
};

use crate::batch::Hash;

/// Bytes of a block.
const BLOCK: usize = 64;

/// Where the length begins in a last block.
const LENGTH: usize = BLOCK - size_of::<u64>();

/// FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The digest of these parts, one behind the other.
#[inline]
pub(crate) fn digest<const PARTS: usize>(parts: [&[u8]; PARTS]) -> Hash {
    let mut state = INITIAL;
    let mut block = [0_u8; BLOCK];
    let (mut length, mut filled) = (0_u64, 0);
    for mut part in parts {
        length += part.len() as u64;
        loop {
            if filled == 0 {
                let (whole, rest) = part.as_chunks::<BLOCK>();
                whole.iter().for_each(|whole| compress(&mut state, whole));
                part = rest;
            }
            let room = block.get_mut(filled..).unwrap_or_default();
            let (now, later) = part.split_at(part.len().min(room.len()));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            filled += now.len();
            if filled < BLOCK {
                break;
            }
            compress(&mut state, &block);
            (filled, part) = (0, later);
        }
    }
    let rest = block.get_mut(filled..).unwrap_or_default();
    rest.fill(0);
    if let Some(first) = rest.first_mut() {
        *first = 0x80;
    }
    if filled >= LENGTH {
        compress(&mut state, &block);
        block = [0; BLOCK];
    }
    if let Some(bits) = block.last_chunk_mut() {
        *bits = (length * 8).to_be_bytes();
    }
    compress(&mut state, &block);
    let mut hash = Hash::default();
    for (to, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    hash
}

fn compress(state: &mut [u32; 8], block: &[u8; BLOCK]) {
    compress256(
        state,
        std::slice::from_ref(GenericArray::<u8, U64>::from_slice(block)),
    );
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn agrees_with_the_hasher_at_every_length() {
        let message: Vec<u8> = (0..=u8::MAX).cycle().take(16 * BLOCK).collect();
        for length in 0..message.len() {
            let (whole, _) = message.split_at(length);
            let (front, back) = whole.split_at(length / 3);
            let expected: Hash = Sha256::digest(whole).into();
            assert_eq!(digest([whole]), expected, "{length} bytes");
            assert_eq!(digest([front, &[], back]), expected, "{length} bytes in parts");
        }
    }
}
