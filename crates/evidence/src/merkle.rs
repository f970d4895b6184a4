//! The Merkle tree of RFC 6962 section 2.1, grown leaf by leaf in logarithmic memory.
//!
//! Owns the node rules. Proofs are `path`'s.

use sha2::{Digest, Sha256};

use crate::{batch::Hash, sha};

/// RFC 6962 hash of a log entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha::digest([&[0], entry])
}

/// RFC 6962 hash of an inner node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha::digest([&[1], left, right])
}

/// The right edge of a tree: the roots of its perfect subtrees, largest first; one for each bit of `size`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Adds a leaf hash at the right.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut carries = self.size.trailing_ones();
        while carries > 0 {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            carries -= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root over all leaves so far; of no leaves, the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Sha256::digest([]).into(),
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recursive definition of RFC 6962 section 2.1, word for word.
    fn definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&definition(&leaves[..split]), &definition(&leaves[split..]))
            }
        }
    }

    #[test]
    fn agrees_with_the_definition_at_every_size() {
        let mut tree = Frontier::default();
        let mut leaves = Vec::new();
        for n in 0_u32..600 {
            assert_eq!(tree.root(), definition(&leaves), "at size {n}");
            assert_eq!(tree.size(), u64::from(n));
            let leaf = leaf_hash(&n.to_be_bytes());
            leaves.push(leaf);
            tree.push(leaf);
        }
    }
}
