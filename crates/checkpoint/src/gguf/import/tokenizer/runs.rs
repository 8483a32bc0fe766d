//! Pieces of one score that are runs of one character.
//!
//! With the leftmost pair first, a run of the character grows from its left end one by one until its piece is no part of a longer one.
//! What follows grows in the same steps, so it is never longer than what stands before it, and the leftmost pair is always the one
//! with the longest left part. Pairs in that order therefore do the same wherever they stand.

use std::cmp::Reverse;

/// The pairs in the order that gives what the leftmost pair first gives, if the pieces are such runs.
pub(super) fn ordered<'a>(
    pieces: &[&str],
    mut pairs: Vec<[&'a str; 2]>,
) -> Option<Vec<[&'a str; 2]>> {
    let character = pieces.first()?.chars().next()?;
    let run = |piece: &&str| piece.chars().all(|c| c == character);
    // Parts are of this score too, or the character alone.
    let inside = |part: &&str| part.chars().nth(1).is_none() || pieces.contains(part);
    if !pieces.iter().all(run) || !pairs.iter().flatten().all(inside) {
        return None;
    }
    pairs.sort_by_key(|[left, _]| Reverse(left.len()));
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the pieces of a run of single characters, when the pair with the largest weight goes first, the leftmost of equals.
    fn merged(run: usize, sizes: &[usize], weight: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut parts = vec![1; run];
        loop {
            let pairs = parts.windows(2).enumerate();
            let known = pairs.filter(|(_, pair)| sizes.contains(&(pair[0] + pair[1])));
            // Of equals the last is taken: the leftmost, from the right.
            let next = known.rev().max_by_key(|(_, pair)| weight(pair[0]));
            let Some((at, _)) = next else { return parts };
            parts[at] += parts.remove(at + 1);
        }
    }

    #[test]
    fn the_longest_left_part_is_the_leftmost_pair() {
        assert_eq!(merged(7, &[2, 3, 4], |_| 0), [4, 3]);
        // Every set of sizes from 2 to 9, and Mistral's runs of spaces.
        let sets = (1u32..256).map(|bits| (2..10).filter(move |size| bits >> (size - 2) & 1 == 1));
        let mut sets: Vec<Vec<usize>> = sets.map(Iterator::collect).collect();
        sets.push(vec![2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16]);
        for sizes in sets {
            for run in 2..40 {
                let (leftmost, longest) =
                    (merged(run, &sizes, |_| 0), merged(run, &sizes, |left| left));
                assert_eq!(leftmost, longest, "{sizes:?} in a run of {run}");
            }
        }
    }

    #[test]
    fn pairs_with_a_longer_left_part_go_first() {
        let pairs = vec![["a", "a"], ["a", "aa"], ["aa", "a"]];
        let expected = vec![["aa", "a"], ["a", "a"], ["a", "aa"]];
        assert_eq!(ordered(&["aa", "aaa"], pairs), Some(expected));
        assert_eq!(ordered(&["aa", "ab"], vec![["a", "a"], ["a", "b"]]), None);
        assert_eq!(ordered(&["aaa"], vec![["aa", "a"]]), None);
    }
}
