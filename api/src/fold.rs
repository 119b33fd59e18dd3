//! Names that differ in a number only, as one: `web-[1-3,7]`.

use std::collections::{BTreeMap, BTreeSet};

/// Most groups of digits of a name that are tried.
const MAX_GROUPS: usize = 8;

/// A name around one of its numbers.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Template<'a> {
    before: &'a str,
    after: &'a str,
    /// Digits of its numbers where some have leading zeros; 0 where none have.
    width: usize,
}

/// The names as a list without repetition, ordered, with numbers folded into ranges where that is shorter. Of the numbers
/// in a name, the one is folded that leaves the fewest entries.
pub fn fold_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let folded = (0..MAX_GROUPS).map(|group| fold_group(&names, group));
    folded.min_by_key(Vec::len).unwrap_or_default().join(",")
}

/// Folds the group of digits with this index, counted from the end of the name.
fn fold_group(names: &[&str], group: usize) -> Vec<String> {
    let mut numbered: BTreeMap<Template<'_>, Vec<u64>> = BTreeMap::new();
    let mut folded: Vec<(String, u64)> = Vec::new();
    let is_padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');
    let split = |name| split(name, group);
    let padded: BTreeSet<Template<'_>> = names
        .iter()
        .filter_map(|name| split(name))
        .filter(|(_, digits, _)| is_padded(digits))
        .map(|(before, digits, after)| Template { before, after, width: digits.len() })
        .collect();
    let numbered_in = |name| {
        let (before, digits, after) = split(name)?;
        let as_padded = Template { before, after, width: digits.len() };
        let template =
            if padded.contains(&as_padded) { as_padded } else { Template { before, after, width: 0 } };
        Some((template, digits.parse().ok()?))
    };
    for name in names {
        match numbered_in(name) {
            Some((template, number)) => numbered.entry(template).or_default().push(number),
            None => folded.push(((*name).to_owned(), 0)),
        }
    }
    for (template, mut numbers) in numbered {
        numbers.sort_unstable();
        numbers.dedup();
        let Template { before, after, width } = template;
        let first = numbers[0];
        let text = match numbers[..] {
            [only] => format!("{before}{only:0width$}{after}"),
            _ => format!("{before}[{}]{after}", ranges(&numbers, width)),
        };
        folded.push((text, first));
    }
    folded.sort();
    folded.dedup();
    folded.into_iter().map(|(text, _)| text).collect()
}

/// What precedes the group of digits with this index from the end, the digits, and what follows.
fn split(name: &str, group: usize) -> Option<(&str, &str, &str)> {
    let (start, end) = *digit_groups(name).iter().rev().nth(group)?;
    Some((&name[..start], &name[start..end], &name[end..]))
}

/// Where the groups of digits in a name begin and end.
fn digit_groups(name: &str) -> Vec<(usize, usize)> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for (at, _) in name.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()) {
        match groups.last_mut() {
            Some((_, end)) if *end == at => *end += 1,
            _ => groups.push((at, at + 1)),
        }
    }
    groups
}

fn ranges(numbers: &[u64], width: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    for range in numbers.chunk_by(|one, next| one + 1 == *next) {
        let (first, last) = (range[0], range[range.len() - 1]);
        match last - first {
            0 => parts.push(format!("{first:0width$}")),
            1 => parts.extend([format!("{first:0width$}"), format!("{last:0width$}")]),
            _ => parts.push(format!("{first:0width$}-{last:0width$}")),
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_the_number_in_which_names_differ() {
        for (names, expected) in [
            (vec!["web-1", "web-3", "web-2", "web-43"], "web-[1-3,43]"),
            (vec!["web-1", "web-2"], "web-[1,2]"),
            (vec!["web-1"], "web-1"),
            (vec!["web-016", "web-017", "web-018", "web-112"], "web-[016-018,112]"),
            (vec!["web-9", "web-10", "web-009"], "web-009,web-[9,10]"),
            (vec!["ip-10-0-1-5.ec2.internal", "ip-10-0-1-6.ec2.internal"], "ip-10-0-1-[5,6].ec2.internal"),
            (vec!["n1-a", "n2-a", "n1-b"], "n1-b,n[1,2]-a"),
            (vec!["db", "web", "db"], "db,web"),
            (vec!["node-99999999999999999999"], "node-99999999999999999999"),
            (vec!["ä1", "ä2", "ä3"], "ä[1-3]"),
            (vec![], ""),
        ] {
            assert_eq!(fold_names(names.clone()), expected, "{names:?}");
        }
    }
}
