//! A number for each name that may only fall.
//!
//! A ratchet file has a line `name number` for each name that is above zero; lines that start with `#` explain. A number
//! that grew is a finding. A number that fell is a finding, too, until the file says it, or it could grow back unseen.
//! `cargo xtask tidy lower` writes the lower numbers.

use std::collections::BTreeMap;

/// The numbers of a ratchet file.
pub(crate) fn read(text: &str) -> BTreeMap<&str, usize> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
        .collect()
}

/// The names whose numbers grew, with the number before.
pub(crate) fn grown<'a>(text: &str, counts: &'a BTreeMap<String, usize>) -> Vec<(&'a str, usize, usize)> {
    let allowed = read(text);
    let before = |name: &str| allowed.get(name).copied().unwrap_or(0);
    let all = counts.iter().map(|(name, count)| (name.as_str(), before(name), *count));
    all.filter(|(_, before, count)| count > before).collect()
}

/// The findings about numbers that fell without the file `path` saying it.
pub(crate) fn fallen(path: &str, text: &str, counts: &BTreeMap<String, usize>) -> Vec<String> {
    let now = |name: &str| counts.get(name).copied().unwrap_or(0);
    let fell = read(text).into_iter().filter(|(name, before)| now(name) < *before);
    fell.map(|(name, before)| {
        format!("{name} fell from {before} to {}; `cargo xtask tidy lower` writes that in {path}", now(name))
    })
    .collect()
}

/// The text of a ratchet file with the lower numbers. A number that grew stays as it is, and zero goes away.
pub(crate) fn lowered(text: &str, counts: &BTreeMap<String, usize>) -> String {
    let line = |line: &str| {
        let Some((name, before)) = read(line).into_iter().next() else { return format!("{line}\n") };
        match counts.get(name).copied().unwrap_or(0).min(before) {
            0 => String::new(),
            now => format!("{name} {now}\n"),
        }
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Why.\ntxn 3\n#\nsaga 2\n";

    fn counts(txn: usize, saga: usize) -> BTreeMap<String, usize> {
        [("txn", txn), ("saga", saga)].map(|(name, count)| (name.to_owned(), count)).into()
    }

    #[test]
    fn a_number_may_stay_and_not_grow() {
        assert_eq!(grown(TEXT, &counts(3, 2)), []);
        assert_eq!(grown(TEXT, &counts(4, 2)), [("txn", 3, 4)]);
        assert_eq!(grown("", &counts(0, 1)), [("saga", 0, 1)]);
    }

    #[test]
    fn a_number_that_fell_has_to_be_written() {
        let found = fallen("a.txt", TEXT, &counts(3, 1));
        assert_eq!(found, ["saga fell from 2 to 1; `cargo xtask tidy lower` writes that in a.txt"]);
        assert_eq!(fallen("a.txt", TEXT, &counts(3, 2)), [""; 0]);
    }

    #[test]
    fn lowering_writes_lower_numbers_and_no_higher_ones() {
        assert_eq!(lowered(TEXT, &counts(9, 1)), "# Why.\ntxn 3\n#\nsaga 1\n");
        assert_eq!(lowered(TEXT, &counts(0, 2)), "# Why.\n#\nsaga 2\n");
    }
}
