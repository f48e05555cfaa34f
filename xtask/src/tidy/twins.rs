//! A file that stands in several crates is the same file, byte for byte.
//!
//! The published crates do not depend on each other, so what all of them need stands in each of them. A twin that was
//! mended in one crate only is a defect that was found and kept.

use super::tree::Tree;

/// The paths of each set of twins. The crates' folders differ, the text does not.
const TWINS: &[&[&str]] = &[
    &["txn/src/shield.rs", "idempotency/src/shield.rs", "saga/src/shield.rs"],
    &["txn/src/sqlstate.rs", "idempotency/src/sqlstate.rs", "saga/src/sqlstate.rs"],
];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    differences(tree, TWINS)
}

fn differences(tree: &Tree, twins: &[&[&str]]) -> Vec<String> {
    let mut findings = Vec::new();
    for set in twins {
        let missing = set.iter().filter(|path| tree.get(path).is_none());
        findings.extend(missing.map(|path| format!("{path} is missing; its twins are {}", set.join(", "))));
        let mut files = set.iter().filter_map(|path| tree.get(path));
        let Some(first) = files.next() else { continue };
        for other in files.filter(|other| other.text != first.text) {
            let difference = difference(&first.text, &other.text);
            findings.push(format!("{} and {} differ:\n{difference}", first.path, other.path));
        }
    }
    findings
}

/// The lines from the first that differs to the last that does, `-` for the first text and `+` for the second.
fn difference(first: &str, second: &str) -> String {
    let (one, two): (Vec<&str>, Vec<&str>) =
        (first.split_inclusive('\n').collect(), second.split_inclusive('\n').collect());
    let same =
        |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(one, two)| one == two).count();
    let head = same(&mut one.iter().zip(&two));
    let tail = same(&mut one[head..].iter().rev().zip(two[head..].iter().rev()));
    let lines = |sign: char, lines: &[&str]| -> String {
        let marked = |line: &&str| format!("      {sign} {}\n", line.trim_end_matches('\n'));
        lines[head..lines.len() - tail].iter().map(marked).collect()
    };
    format!("      line {}\n{}{}", head + 1, lines('-', &one), lines('+', &two))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: [&str; 3] = ["txn/src/a.rs", "idempotency/src/a.rs", "saga/src/a.rs"];

    fn findings(texts: [&str; 3]) -> Vec<String> {
        let files: Vec<(&str, &str)> = SET.into_iter().zip(texts).collect();
        differences(&Tree::of(&files), &[&SET])
    }

    #[test]
    fn twins_are_the_same_byte_for_byte() {
        assert_eq!(findings(["a\nb\n"; 3]), [""; 0]);
        assert_eq!(findings(["//! One.\nb\n", "//! Two.\nb\n", "//! One.\nb\n"]).len(), 1);
        assert_eq!(findings(["a\n", "a", "a\n"]).len(), 1);
        assert_eq!(findings(["a\n", "a\r\n", "a \n"]).len(), 2);
    }

    #[test]
    fn the_lines_that_differ_are_shown() {
        let found = findings(["a\nb\nc\nd\n", "a\nb\nc\nd\n", "a\nx\ny\nc\nd\n"]);
        assert_eq!(
            found,
            ["txn/src/a.rs and saga/src/a.rs differ:\n      line 2\n      - b\n      + x\n      + y\n"]
        );
        assert_eq!(difference("a\nb\n", "a\nb\nb\n"), "      line 3\n      + b\n");
    }

    #[test]
    fn a_twin_that_is_gone_is_found() {
        let tree = Tree::of(&[(SET[0], "a"), (SET[1], "a")]);
        let all = SET.join(", ");
        assert_eq!(differences(&tree, &[&SET]), [format!("saga/src/a.rs is missing; its twins are {all}")]);
    }

    #[test]
    fn every_set_has_two_files_with_one_name() {
        for set in TWINS {
            let names: Vec<_> = set.iter().map(|path| path.rsplit('/').next()).collect();
            assert!(set.len() > 1 && names.iter().all(|name| *name == names[0]), "{set:?}");
        }
    }
}
