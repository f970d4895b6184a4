//! A filter that stands for many tokens: it says "not among them" for sure, and "among them" wrongly for fewer than one
//! token in a thousand. A Bloom filter in its plainest form: tokens are uniformly random already, so they need no
//! hashing, and the form is short enough to be read by anybody, which is why no library is in between.
//!
//! The form, as it stands in events:
//!
//! | byte | |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | bits set for a token, `k` |
//! | 2… | bits; bit `n` is bit `n % 8`, the lowest first, of byte `n / 8` |
//!
//! With `m` bits, `a` and `b` the first and last eight bytes of a token as little-endian numbers, and `b` made odd, a token's bits
//! are `(a + i * b) mod 2^64 mod m` for `i` from 0 to `k - 1`.

use crate::key::Token;

/// Version of the form.
const VERSION: u8 = 1;
/// Bits set for a token.
const HASHES: u8 = 10;
/// Bits for each token: with ten set for each, one in 1,270 others is taken for one of them
/// ((1 - e^(-10/15))^10, Bloom 1970).
const BITS_EACH: usize = 15;
/// Bits that may be asked for each token, by whatever wrote the filter.
const MOST_HASHES: u8 = 64;

/// Stands for the tokens that it was made of.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter {
    /// In the form above.
    bytes: Vec<u8>,
}

impl Filter {
    /// Tokens that are not in it and yet seem to be: fewer than this share.
    pub const FALSE_POSITIVES: f64 = 0.001;

    /// A filter of these tokens.
    pub fn of(tokens: impl ExactSizeIterator<Item = Token>) -> Self {
        let length = tokens.len().saturating_mul(BITS_EACH).div_ceil(8).max(1);
        let mut bytes = vec![0; HEAD + length];
        bytes
            .iter_mut()
            .zip([VERSION, HASHES])
            .for_each(|(to, from)| *to = from);
        for token in tokens {
            for (byte, bit) in places(token, HASHES, length) {
                if let Some(byte) = bytes.get_mut(HEAD + byte) {
                    *byte |= bit;
                }
            }
        }
        Self { bytes }
    }

    /// Reads the form; `None` if it is none, or one of a later version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [VERSION, 1..=MOST_HASHES, _, ..] => Some(Self {
                bytes: bytes.to_vec(),
            }),
            _ => None,
        }
    }

    /// The form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the token may be among them. `false` is sure.
    #[must_use]
    pub fn contains(&self, token: Token) -> bool {
        let Some(([_, hashes], bits)) = self.bytes.split_first_chunk::<HEAD>() else {
            return false;
        };
        places(token, *hashes, bits.len())
            .all(|(byte, bit)| bits.get(byte).is_some_and(|byte| byte & bit != 0))
    }
}

/// Version and number of bits set.
const HEAD: usize = 2;

/// The bits of a token, each as a byte and the bit in it.
fn places(token: Token, hashes: u8, length: usize) -> impl Iterator<Item = (usize, u8)> {
    let Token([a, b, c, d, e, f, g, h, rest @ ..]) = token;
    let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let step = u64::from_le_bytes(rest) | 1;
    let bits = (length as u64).saturating_mul(8).max(1);
    (0..u64::from(hashes)).map(move |index| {
        let bit = first.wrapping_add(index.wrapping_mul(step)) % bits;
        (usize::try_from(bit / 8).unwrap_or(usize::MAX), 1 << (bit % 8))
    })
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Key};

    fn tokens(from: u32, count: u32) -> Vec<Token> {
        let key = Key::new("k", &std::array::from_fn(|index| index as u8)).expect("a key");
        (from..from + count)
            .map(|number| key.token(Family::Integer, number.to_string().as_bytes()))
            .collect()
    }

    #[test]
    fn what_is_in_it_is_found_and_little_else() {
        for count in [1, 2, 100, 20_000] {
            let inside = tokens(0, count);
            let filter = Filter::of(inside.iter().copied());
            let read = Filter::from_bytes(filter.as_bytes()).expect("its own form");
            assert_eq!(read, filter);
            assert!(inside.iter().all(|token| read.contains(*token)));
            assert_eq!(filter.as_bytes().len(), 2 + (count as usize * 15).div_ceil(8));
            let others = tokens(1_000_000, 100_000);
            let wrong = others.iter().filter(|token| read.contains(**token)).count();
            // A filter of one token has 16 bits, which are as good as can be asked of so few.
            if count >= 100 {
                assert!(
                    (wrong as f64) < 100_000.0 * Filter::FALSE_POSITIVES,
                    "{wrong} of 100,000, {count} inside"
                );
            }
        }
    }

    #[test]
    fn what_is_no_filter_is_none() {
        for bytes in [
            &[][..],
            &[1],
            &[1, 10],
            &[2, 10, 0],
            &[1, 0, 0],
            &[1, 65, 0],
            &[0, 10, 0],
        ] {
            assert_eq!(Filter::from_bytes(bytes), None, "{bytes:?}");
        }
        let empty = Filter::from_bytes(&[1, 10, 0]).expect("a filter");
        assert!(!tokens(0, 100).iter().any(|token| empty.contains(*token)));
    }

    /// So that other programs can read what this one wrote.
    #[test]
    fn the_form_stays() {
        let token = Token([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        // a = 1, b = 3, 16 bits: 1, 4, 7, 10, 13, 0, 3, 6, 9, 12.
        let filter = Filter::of([token].into_iter());
        assert_eq!(filter.as_bytes(), [1, 10, 0b1101_1011, 0b0011_0110]);
    }
}
