//! Names that look like a missing one, for error messages.
//!
//! Edit distance over characters; only names within a third of the wanted name's length are offered, best first.

const MAX_NAMES: usize = 20_000;
const MAX_LENGTH: usize = 200;
const OFFERED: usize = 3;

/// Up to three of `names` that are nearest to `wanted`.
pub(super) fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<char> = wanted.chars().take(MAX_LENGTH).collect();
    let limit = (wanted.len() / 3).max(2);
    let mut found: Vec<(usize, &str)> = names
        .take(MAX_NAMES)
        .filter(|name| name.len() <= MAX_LENGTH)
        .map(|name| (distance(&wanted, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    found.sort_unstable();
    found
        .into_iter()
        .take(OFFERED)
        .map(|(_, name)| name.to_owned())
        .collect()
}

fn distance(wanted: &[char], name: &str) -> usize {
    let mut row: Vec<usize> = (0..=wanted.len()).collect();
    for (i, b) in name.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &a) in wanted.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[wanted.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        let wanted: Vec<char> = "kitten".chars().collect();
        assert_eq!(distance(&wanted, "sitting"), 3);
        assert_eq!(distance(&wanted, "kitten"), 0);
        assert_eq!(distance(&wanted, ""), 6);
    }

    #[test]
    fn the_nearest_comes_first() {
        let names = [
            "a.q_proj.weight",
            "a.k_proj.weight",
            "a.q_norm.weight",
            "unrelated",
        ];
        assert_eq!(
            near("a.q_proj.weigth", names.into_iter())[0],
            "a.q_proj.weight"
        );
        assert!(near("zzz", names.into_iter()).is_empty());
    }
}
