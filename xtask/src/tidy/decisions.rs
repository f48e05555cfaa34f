//! Every decision record is in the index, and the index lists no other.

use std::collections::BTreeSet;

use super::tree::Tree;

const FOLDER: &str = "docs/decisions/";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let names = tree.markdown().filter_map(|file| file.path.strip_prefix(FOLDER));
    let records: BTreeSet<&str> = names.filter(|name| *name != "README.md").collect();
    let index = tree.get(&format!("{FOLDER}README.md")).map_or("", |file| &file.text);
    let mut findings = Vec::new();
    let mut numbers = BTreeSet::new();
    for record in &records {
        if !index.contains(&format!("({record})")) {
            findings.push(format!("{FOLDER}{record} is not in {FOLDER}README.md"));
        }
        match number(record) {
            None => findings.push(format!("{FOLDER}{record} must be named NNNN-what-was-decided.md")),
            Some(number) if !numbers.insert(number) => {
                findings.push(format!("two decisions have the number {number}"))
            }
            Some(_) => {}
        }
    }
    findings
}

fn number(record: &str) -> Option<&str> {
    let (number, _) = record.split_once('-')?;
    (number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_listed_numbered_and_unique() {
        let index = "- [1](0001-strangers.md)\n- [no number](strangers.md)\n- [1 again](0001-again.md)\n";
        let tree = Tree::of(&[
            ("docs/decisions/0001-again.md", ""),
            ("docs/decisions/0001-strangers.md", ""),
            ("docs/decisions/0002-forgotten.md", ""),
            ("docs/decisions/README.md", index),
            ("docs/decisions/strangers.md", ""),
        ]);
        assert_eq!(
            check(&tree),
            [
                "two decisions have the number 0001",
                "docs/decisions/0002-forgotten.md is not in docs/decisions/README.md",
                "docs/decisions/strangers.md must be named NNNN-what-was-decided.md",
            ]
        );
    }
}
