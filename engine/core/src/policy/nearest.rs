//! Suggests the keyword that was probably meant.

/// The candidate with the smallest edit distance, if the distance is at most a third of the word's length.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    const LONGEST: usize = 64;
    let word: Vec<char> = word.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let allowed = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let other: Vec<char> = candidate
                .chars()
                .take(LONGEST)
                .flat_map(char::to_lowercase)
                .collect();
            (distance(&word, &other), candidate)
        })
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance (optimal string alignment): insertions, deletions, substitutions, and transpositions of
/// adjacent characters.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut best = (row[j] + usize::from(x != y))
                .min(row[j + 1] + 1)
                .min(next[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && y == a[i - 1] {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_words_are_suggested() {
        let known = ["action", "except", "ports", "protocols", "process"];
        assert_eq!(nearest("acton", known), Some("action"));
        assert_eq!(nearest("prots", known), Some("ports"));
        assert_eq!(nearest("Protocol", known), Some("protocols"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
