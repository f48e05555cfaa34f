//! A module is named by what it does; a name that fits everything collects everything.

use super::tree::Tree;

const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let empty = |path: &&str| path.trim_end_matches(".rs").split('/').any(|part| EMPTY_NAMES.contains(&part));
    let paths = tree.rust().map(|file| file.path.as_str());
    paths.filter(empty).map(|path| format!("{path}: name it by what it does")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_says_nothing_is_found() {
        let tree = Tree::of(&[
            ("txn/src/utils.rs", ""),
            ("saga/tests/common/mod.rs", ""),
            ("txn/src/utility_token.rs", ""),
        ]);
        let found = check(&tree);
        assert_eq!(
            found,
            [
                "txn/src/utils.rs: name it by what it does",
                "saga/tests/common/mod.rs: name it by what it does"
            ]
        );
    }
}
