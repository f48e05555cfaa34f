//! The rule against leftovers: unfinished code, tests that are switched off, and paths of one machine.

use super::tree::Tree;

/// Words that must not stand in the tree, and the remedy for each. Written in halves, or this file would find itself.
const UNWANTED: [(&str, &str, &str); 6] = [
    ("TO", "DO", "open an issue, or say under what we do not promise that it is missing"),
    ("FIX", "ME", "fix it, or open an issue"),
    ("to", "do!(", "write it, or leave it out"),
    ("unimple", "mented!(", "write it, or leave it out"),
    ("#[ig", "nore", "a test that does not run proves nothing; delete it or let it run"),
    ("```ig", "nore", "a fence that is never compiled; make it no_run, or text"),
];

/// Folders of one machine.
const PLACES: [(&str, &str); 4] = [("/ho", "me/"), ("/Use", "rs/"), ("/ro", "ot/"), ("/wo", "rk/")];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.files().iter().filter(|file| file.path != "Cargo.lock") {
        for (number, line) in file.text.lines().enumerate() {
            let found = |what: String| format!("{}:{}: {what}", file.path, number + 1);
            for (first, second, instead) in UNWANTED {
                let word = format!("{first}{second}");
                if has_word(line, &word) {
                    findings.push(found(format!("{word:?}: {instead}")));
                }
            }
            for (first, second) in PLACES {
                let place = format!("{first}{second}");
                if has_path(line, &place) {
                    findings.push(found(format!("a path of one machine: {place}")));
                }
            }
        }
    }
    findings
}

/// Tells whether `word` stands in `line`, not as a part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let bounded = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let is_open_ended = !word.ends_with(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let starts = !word.starts_with(char::is_alphanumeric) || bounded(before.chars().next_back());
        starts && (is_open_ended || bounded(after.chars().next()))
    })
}

/// Tells whether a path in `line` starts with `place`.
fn has_path(line: &str, place: &str) -> bool {
    let starts = |c: char| c.is_whitespace() || "\"'`(=:<[,".contains(c);
    line.match_indices(place).any(|(at, _)| line[..at].chars().next_back().is_none_or(starts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(line: &str) -> usize {
        check(&Tree::of(&[("a.rs", line)])).len()
    }

    #[test]
    fn what_is_unfinished_or_switched_off_is_found() {
        for (first, second, _) in UNWANTED {
            assert_eq!(findings(&format!("    {first}{second}")), 1, "{first}{second}");
        }
        assert_eq!(findings("mastodon, methods, autodo!"), 0);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for (first, second) in PLACES {
            assert_eq!(findings(&format!("open(\"{first}{second}me/x\")")), 1, "{first}{second}");
            assert_eq!(findings(&format!("https://example.org{first}{second}x")), 0, "part of an address");
        }
    }
}
