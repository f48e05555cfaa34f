//! A doc comment begins with a plain sentence or with the name of the thing.
//!
//! "What a claim answers with." is a riddle: it has no verb, and the reader has to find the noun. "The answer to a claim."
//! names the thing, and "Renews the lease every third of its length." says what happens. So does the first sentence of each
//! later paragraph, and of each section. The rule finds the paragraphs whose first word begins a riddle.

use super::tree::{File, Tree};

const WORDS: [&str; 13] = [
    "What", "Who", "So", "As", "Those", "How", "Whether", "Where", "Why", "Whoever", "Whatever", "Nothing",
    "Nobody",
];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let riddles = |file: &File| -> Vec<String> {
        let riddles = firsts(file).filter(|(_, text)| is_riddle(text));
        riddles.map(|(line, text)| format!("{}:{line}: say it plainly: {text}", file.path)).collect()
    };
    tree.rust().flat_map(riddles).collect()
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
    fn each_paragraph_that_begins_a_riddle_is_found() {
        let tree = Tree::of(&[("saga/src/a.rs", TWO), ("txn/a.md", TWO)]);
        assert_eq!(
            check(&tree),
            [
                "1: say it plainly: Who comes first.",
                "7: say it plainly: As before.",
                "9: say it plainly: Nobody knows.",
                "12: say it plainly: What it is."
            ]
            .map(|riddle| format!("saga/src/a.rs:{riddle}"))
        );
    }

    #[test]
    fn a_word_that_only_begins_like_one_is_none() {
        assert!(is_riddle("Whether it holds.") && is_riddle("How"));
        assert!(!is_riddle("Something") && !is_riddle("Assigns a number.") && !is_riddle("`What`"));
    }
}
