//! Two sequences laid side by side: what is in both, and what is in one of them only.
//!
//! Owns the alignment that every comparison of a log with a record begins with. Pure; it refuses to know what it aligns.

/// One step of an alignment: positions in both sequences.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) logged: Option<usize>,
    pub(crate) recorded: Option<usize>,
    pub(crate) equal: bool,
}

/// Aligns two sequences by their longest common subsequence. Between two equal stretches, leftovers of both sides are
/// paired as the same request with another text; what remains on one side only is missing or extra.
pub(crate) fn align<L, R>(logged: &[L], recorded: &[R], same: impl Fn(&L, &R) -> bool) -> Vec<Step> {
    let head = logged
        .iter()
        .zip(recorded)
        .take_while(|(a, b)| same(a, b))
        .count();
    let (rest_l, rest_r) = (
        logged.get(head..).unwrap_or_default(),
        recorded.get(head..).unwrap_or_default(),
    );
    let tail = rest_l
        .iter()
        .rev()
        .zip(rest_r.iter().rev())
        .take_while(|(a, b)| same(a, b))
        .count();
    let middle_l = rest_l.get(..rest_l.len() - tail).unwrap_or_default();
    let middle_r = rest_r.get(..rest_r.len() - tail).unwrap_or_default();

    let mut matched: Vec<(usize, usize)> = (0..head).map(|index| (index, index)).collect();
    matched.extend(
        common(middle_l, middle_r, same)
            .into_iter()
            .map(|(l, r)| (l + head, r + head)),
    );
    matched.extend(
        (0..tail)
            .rev()
            .map(|back| (logged.len() - 1 - back, recorded.len() - 1 - back)),
    );

    let mut steps = Vec::with_capacity(logged.len().max(recorded.len()));
    let (mut next_l, mut next_r) = (0, 0);
    for (l, r) in matched
        .into_iter()
        .map(Some)
        .chain([None])
        .map(|m| m.unwrap_or((logged.len(), recorded.len())))
    {
        let (mut left_l, mut left_r) = (next_l..l, next_r..r);
        loop {
            let step = Step {
                logged: left_l.next(),
                recorded: left_r.next(),
                equal: false,
            };
            if step.logged.is_none() && step.recorded.is_none() {
                break;
            }
            steps.push(step);
        }
        if l < logged.len() && r < recorded.len() {
            steps.push(Step {
                logged: Some(l),
                recorded: Some(r),
                equal: true,
            });
        }
        (next_l, next_r) = (l + 1, r + 1);
    }
    steps
}

/// The longest common subsequence by the textbook table; beyond the table's size, nothing is common and everything
/// between head and tail is paired by position.
fn common<L, R>(left: &[L], right: &[R], same: impl Fn(&L, &R) -> bool) -> Vec<(usize, usize)> {
    if left.len().saturating_mul(right.len()) > TABLE {
        return Vec::new();
    }
    let width = right.len() + 1;
    let mut table = vec![0_u32; (left.len() + 1) * width];
    let at = |table: &[u32], l: usize, r: usize| table.get(l * width + r).copied().unwrap_or_default();
    for (l, a) in left.iter().enumerate().rev() {
        for (r, b) in right.iter().enumerate().rev() {
            let length = if same(a, b) {
                at(&table, l + 1, r + 1) + 1
            } else {
                at(&table, l + 1, r).max(at(&table, l, r + 1))
            };
            if let Some(cell) = table.get_mut(l * width + r) {
                *cell = length;
            }
        }
    }
    let (mut l, mut r, mut pairs) = (0, 0, Vec::new());
    while let (Some(a), Some(b)) = (left.get(l), right.get(r)) {
        if same(a, b) {
            pairs.push((l, r));
            (l, r) = (l + 1, r + 1);
        } else if at(&table, l + 1, r) >= at(&table, l, r + 1) {
            l += 1;
        } else {
            r += 1;
        }
    }
    pairs
}

/// Cells of the alignment table: 64 MiB.
const TABLE: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_statement_in_the_middle_is_not_a_chain_of_wrong_texts() {
        let keys = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let steps = align(
            &keys(&["a", "b", "c", "d", "e"]),
            &keys(&["a", "c", "x", "e"]),
            |a, b| a == b,
        );
        let shape: Vec<_> = steps.iter().map(|s| (s.logged, s.recorded, s.equal)).collect();
        assert_eq!(
            shape,
            [
                (Some(0), Some(0), true),
                (Some(1), None, false),
                (Some(2), Some(1), true),
                (Some(3), Some(2), false),
                (Some(4), Some(3), true)
            ]
        );
    }
}
