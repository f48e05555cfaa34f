//! The unit tests of a published crate need nothing that is not published: `cargo test` works inside the package.

use super::tree::Tree;

/// The folders of published sources. The tests beside them are left out of the packages.
const PUBLISHED: [&str; 3] = ["txn/src/", "idempotency/src/", "saga/src/"];

/// The crates that are only in the workspace.
const UNPUBLISHED: [&str; 1] = ["testkit"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let published = tree.rust().filter(|file| PUBLISHED.iter().any(|folder| file.path.starts_with(folder)));
    published
        .flat_map(|file| file.text.lines().enumerate().map(move |(at, line)| (file, at, line)))
        .filter(|(_, _, line)| UNPUBLISHED.iter().any(|name| line.contains(name)))
        .map(|(file, at, _)| {
            let path = &file.path;
            format!("{path}:{}: names a crate that is not published; move the test to tests/", at + 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_source_that_names_an_unpublished_crate_is_found() {
        let names = "fn test() {\n    testkit::time_limit();\n}\n";
        let tree = Tree::of(&[("saga/src/a.rs", names), ("saga/tests/a.rs", names)]);
        let expected = "saga/src/a.rs:2: names a crate that is not published; move the test to tests/";
        assert_eq!(check(&tree), [expected]);
    }
}
