//! A doc comment begins with a plain sentence or with the name of the thing.
//!
//! "What a claim answers with." is a riddle: it has no verb, and the reader has to find the noun. "The answer to a claim."
//! names the thing, and "Renews the lease every third of its length." says what happens. So does the first sentence of each
//! later paragraph, and of each section. The rule counts, for each folder of the workspace's root, the paragraphs whose
//! first word begins a riddle. The numbers of today stand in
//! `first_sentences.txt` and may only fall; `cargo xtask tidy first-sentences` prints the comments.

use std::collections::BTreeMap;

use super::ratchet;
use super::tree::{File, Tree};

pub(crate) const RATCHET: &str = "xtask/src/tidy/first_sentences.txt";

const WORDS: [&str; 13] = [
    "What", "Who", "So", "As", "Those", "How", "Whether", "Where", "Why", "Whoever", "Whatever", "Nothing",
    "Nobody",
];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let text = tree.get(RATCHET).map_or("", |file| &file.text);
    let counts = counts(tree);
    let mut findings = Vec::new();
    for (folder, before, now) in ratchet::grown(text, &counts) {
        findings.push(format!(
            "{folder} has {now} paragraphs of doc comments that begin with {}; {before} are allowed",
            WORDS.join(", ")
        ));
        findings.extend(of(tree).filter(|(other, _)| *other == folder).map(|(_, place)| place));
    }
    findings.extend(ratchet::fallen(RATCHET, text, &counts));
    findings
}

/// The number of riddles in each folder of the root.
pub(crate) fn counts(tree: &Tree) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (folder, _) in of(tree) {
        *counts.entry(folder.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Every riddle, a line each.
pub(crate) fn list(tree: &Tree) -> String {
    of(tree).map(|(_, place)| place + "\n").collect()
}

/// The riddles, each with its folder.
fn of(tree: &Tree) -> impl Iterator<Item = (&str, String)> {
    tree.rust().flat_map(|file| {
        let folder = file.path.split('/').next().unwrap_or_default();
        firsts(file)
            .filter(|(_, text)| is_riddle(text))
            .map(move |(line, text)| (folder, format!("{}:{line}: {text}", file.path)))
    })
}

/// The first line of each paragraph of a doc comment, with its number.
fn firsts(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let mut before = None;
    file.text.lines().enumerate().filter_map(move |(number, line)| {
        let text = doc(line);
        let is_first = std::mem::replace(&mut before, text).is_none_or(ends_a_paragraph);
        text.filter(|_| is_first).map(|text| (number + 1, text.trim_start()))
    })
}

/// Tells whether this line of a doc comment is empty or a heading.
fn ends_a_paragraph(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// The text of a line of a doc comment.
fn doc(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
}

fn is_riddle(text: &str) -> bool {
    let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    WORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "//! Who comes first.\n//! What follows is no beginning.\n\n/// Renews the lease.\n///\n/// # Errors\n/// As before.\n///\n/// Nobody knows.\nfn renew() {}\n\n    /// \
                       What it is.\n    struct It;\n// What a plain comment says\n/// Something. What else?\n/// Sometimes.\n";

    #[test]
    fn riddles_are_counted_for_each_folder() {
        let tree =
            Tree::of(&[("saga/src/a.rs", TWO), ("txn/src/a.rs", "/// As it was.\n"), ("txn/a.md", TWO)]);
        assert_eq!(counts(&tree), [("saga".to_owned(), 4), ("txn".to_owned(), 1)].into());
        assert_eq!(
            list(&tree),
            "saga/src/a.rs:1: Who comes first.\nsaga/src/a.rs:7: As before.\nsaga/src/a.rs:9: Nobody knows.\nsaga/src/a.rs:12: What it is.\n\
             txn/src/a.rs:1: As it was.\n"
        );
    }

    #[test]
    fn a_riddle_more_is_found_and_one_less_is_written_down() {
        let with = |ratchet: &str| check(&Tree::of(&[("saga/src/a.rs", TWO), (RATCHET, ratchet)]));
        assert_eq!(with("saga 4\n"), [""; 0]);
        assert_eq!(with("saga 3\n").len(), 5);
        assert_eq!(with("saga 5\n").len(), 1);
    }

    #[test]
    fn a_word_that_only_begins_like_one_is_none() {
        assert!(is_riddle("Whether it holds.") && is_riddle("How"));
        assert!(!is_riddle("Something") && !is_riddle("Assigns a number.") && !is_riddle("`What`"));
    }
}
