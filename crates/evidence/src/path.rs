//! Proofs in a tree: that it has a leaf (RFC 6962 section 2.1.1), and that it goes on from an older one (section 2.1.2).
//!
//! Owns making and checking both. Where a tree's hashes come from is the caller's: it is asked for roots of perfect
//! subtrees, as tiles hold them. Own code because the published crate `tlog_tiles` 0.2 panics on sizes that a peer could
//! choose; it serves the tests as the other opinion.

use crate::{
    batch::Hash,
    merkle::{Frontier, node_hash},
};

/// Most hashes in a proof: one for each bit of a tree's size (C2SP tlog-witness says the same).
pub const MAX_PATH: usize = 63;

/// The hashes that lead from leaf `index` to the root of the first `size` leaves, the leaf's neighbour first.
///
/// `node(level, n)` gives the root over leaves `n << level` to `(n + 1) << level`; its errors are passed on. A leaf that is
/// not in the tree has no path: the result is empty.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut path = Vec::new();
    if index < size {
        descend(index, 0, size, node, &mut path)?;
    }
    Ok(path)
}

/// The hashes that show the first `old` of `size` leaves to be an older state of the same tree. Empty where there is
/// nothing to show: `old` is 0 or `size`.
///
/// `node` is as for [`inclusion`].
pub fn consistency<E>(
    old: u64,
    size: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut path = Vec::new();
    if old > 0 && old < size {
        subproof(old, 0, size, true, node, &mut path)?;
    }
    Ok(path)
}

/// The root that a path leads to from this leaf (RFC 9162 section 2.1.3.2); `None` where it is no path of such a tree.
#[must_use]
pub fn root_by(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for beside in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(beside, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Whether the tree of `size` leaves goes on from the one of `old` leaves (RFC 9162 section 2.1.4.2).
#[must_use]
pub fn is_consistent(old: u64, old_root: &Hash, size: u64, root: &Hash, path: &[Hash]) -> bool {
    if old == 0 {
        return path.is_empty() && *old_root == Frontier::default().root();
    }
    if old == size {
        return path.is_empty() && old_root == root;
    }
    if old > size {
        return false;
    }
    // Of a perfect subtree the path leaves out the root: it is the old one.
    let (first, rest) = match path.split_first() {
        _ if old.is_power_of_two() => (*old_root, path),
        Some((first, rest)) => (*first, rest),
        None => return false,
    };
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut before, mut now) = (first, first);
    for beside in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            before = node_hash(beside, &before);
            now = node_hash(beside, &now);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            now = node_hash(&now, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old_root && now == *root
}

/// The path of leaf `index` among these; empty where it is not one of them.
#[must_use]
pub fn inclusion_among(leaves: &[Hash], index: usize) -> Vec<Hash> {
    let root = |level: u32, n: u64| -> Result<Hash, std::convert::Infallible> {
        let place = |n: u64| usize::try_from(n << level).unwrap_or(usize::MAX);
        let mut tree = Frontier::default();
        let below = leaves.get(place(n)..place(n + 1)).unwrap_or_default();
        below.iter().for_each(|leaf| tree.push(*leaf));
        Ok(tree.root())
    };
    let mut root = root;
    inclusion(index as u64, leaves.len() as u64, &mut root).unwrap_or_default()
}

/// Down to the leaf; what stands beside the way is noted on the way back.
fn descend<E>(
    leaf: u64,
    from: u64,
    to: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
    path: &mut Vec<Hash>,
) -> Result<(), E> {
    if to - from == 1 {
        return Ok(());
    }
    let middle = from + split(to - from);
    let beside = if leaf < middle {
        descend(leaf, from, middle, node, path)?;
        root_of(middle, to, node)?
    } else {
        descend(leaf, middle, to, node, path)?;
        root_of(from, middle, node)?
    };
    path.push(beside);
    Ok(())
}

/// SUBPROOF of RFC 6962: leaves `from` to `from + old` within `from` to `to`.
fn subproof<E>(
    old: u64,
    from: u64,
    to: u64,
    known: bool,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
    path: &mut Vec<Hash>,
) -> Result<(), E> {
    if old == to - from {
        if !known {
            path.push(root_of(from, to, node)?);
        }
        return Ok(());
    }
    let half = split(to - from);
    let middle = from + half;
    let beside = if old <= half {
        subproof(old, from, middle, known, node, path)?;
        root_of(middle, to, node)?
    } else {
        subproof(old - half, middle, to, false, node, path)?;
        root_of(from, middle, node)?
    };
    path.push(beside);
    Ok(())
}

/// Root over leaves `from` to `to`, where `from` is a place at which a subtree of that many begins.
fn root_of<E>(from: u64, to: u64, node: &mut impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    let count = to - from;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return node(level, from >> level);
    }
    let middle = from + split(count);
    let left = root_of(from, middle, node)?;
    Ok(node_hash(&left, &root_of(middle, to, node)?))
}

/// The largest power of two that is smaller than `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf_hash;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    fn root(leaves: &[Hash]) -> Hash {
        let mut tree = Frontier::default();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        tree.root()
    }

    fn consistency_among(leaves: &[Hash], old: u64) -> Vec<Hash> {
        consistency(old, leaves.len() as u64, &mut |level, n| {
            let place = |n: u64| (n << level) as usize;
            Ok::<_, ()>(root(&leaves[place(n)..place(n + 1)]))
        })
        .unwrap()
    }

    #[test]
    fn every_leaf_of_every_tree_has_a_path_and_no_other_leaf_has_it() {
        for size in 1..70 {
            let leaves = leaves(size);
            let root = root(&leaves);
            for index in 0..size {
                let path = inclusion_among(&leaves, index as usize);
                let leaf = &leaves[index as usize];
                assert_eq!(root_by(leaf, index, size, &path), Some(root), "{index} of {size}");
                assert!(path.len() <= 7);
                let mut cut = path.clone();
                if cut.pop().is_some() {
                    assert_ne!(root_by(leaf, index, size, &cut), Some(root));
                    assert_ne!(root_by(leaf, index ^ 1, size, &path), Some(root));
                }
                let longer = [path.as_slice(), &[[0; 32]]].concat();
                assert_eq!(root_by(leaf, index, size, &longer), None);
                assert_eq!(root_by(leaf, size, size, &path), None);
            }
        }
        assert!(inclusion_among(&leaves(4), 4).is_empty());
    }

    #[test]
    fn every_older_tree_is_proven_and_no_other_is() {
        let all = leaves(70);
        for size in 1..=70_u64 {
            let (now, root_now) = (&all[..size as usize], root(&all[..size as usize]));
            for old in 0..=size {
                let before = root(&all[..old as usize]);
                let path = consistency_among(now, old);
                assert!(
                    is_consistent(old, &before, size, &root_now, &path),
                    "{old} of {size}"
                );
                let mut other = before;
                other[3] ^= 1;
                assert!(!is_consistent(old, &other, size, &root_now, &path));
                assert!(!is_consistent(old, &before, size, &other, &path) || old == 0);
                let longer = [path.as_slice(), &[[0; 32]]].concat();
                assert!(!is_consistent(old, &before, size, &root_now, &longer));
                for at in 0..path.len() {
                    let mut changed = path.clone();
                    changed[at][31] ^= 0x80;
                    assert!(!is_consistent(old, &before, size, &root_now, &changed));
                    let mut cut = path.clone();
                    cut.remove(at);
                    assert!(!is_consistent(old, &before, size, &root_now, &cut));
                }
            }
            assert!(!is_consistent(size + 1, &root_now, size, &root_now, &[]));
        }
    }

    /// The example of RFC 6962 section 2.1.3, whose tree has seven leaves: paths by the letters that it gives to nodes.
    #[test]
    fn the_rfc_s_example() {
        let d = leaves(7);
        let (g, h, i) = (
            node_hash(&d[0], &d[1]),
            node_hash(&d[2], &d[3]),
            node_hash(&d[4], &d[5]),
        );
        let (j, k) = (d[6], node_hash(&g, &h));
        let l = node_hash(&i, &j);
        let (a, b, c, e, f) = (d[0], d[1], d[2], d[4], d[5]);
        assert_eq!(inclusion_among(&d, 0), [b, h, l]);
        assert_eq!(inclusion_among(&d, 3), [c, g, l]);
        assert_eq!(inclusion_among(&d, 4), [f, j, k]);
        assert_eq!(inclusion_among(&d, 6), [i, k]);
        assert_eq!(consistency_among(&d, 3), [c, d[3], g, l]);
        assert_eq!(consistency_among(&d, 4), [l]);
        assert_eq!(consistency_among(&d, 6), [i, j, k]);
        assert_eq!((a, e), (d[0], d[4]));
    }
}
