//! Every crate forbids unsafe code, in its own root, where a reader looks; and the root of a published crate has few names.

use cargo_metadata::Metadata;

use super::tree::Tree;

const FORBID: &str = "#![forbid(unsafe_code)]";

/// The roots that a user of the crates reads first.
const PUBLISHED: [&str; 3] = ["txn/src/lib.rs", "idempotency/src/lib.rs", "saga/src/lib.rs"];

/// A reader keeps no more names in mind. What only a signature needs, or an author of a store, has a module.
const NAMES_MAX: usize = 34;

/// The root files of the workspace's libraries and programs, from the workspace's root.
pub(crate) fn of(metadata: &Metadata) -> Vec<String> {
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    let roots = targets.filter(|target| target.is_lib() || target.is_bin());
    roots
        .filter_map(|target| Some(target.src_path.strip_prefix(&metadata.workspace_root).ok()?.to_string()))
        .collect()
}

pub(crate) fn check(tree: &Tree, roots: &[String]) -> Vec<String> {
    let lacks = |root: &&String| {
        !tree.get(root).is_some_and(|file| file.text.lines().any(|line| line.trim() == FORBID))
    };
    let lacking = roots.iter().filter(lacks).map(|root| format!("{root} lacks {FORBID}"));
    lacking.chain(PUBLISHED.iter().filter_map(|root| crowded(root, &tree.get(root)?.text))).collect()
}

fn crowded(root: &str, text: &str) -> Option<String> {
    let names = names(text).len();
    (names > NAMES_MAX).then(|| format!("{root} exports {names} names; at most {NAMES_MAX} are for a root"))
}

/// The names that a root exports: `pub use a::{B, C as D};` exports `B` and `D`. An import inside a module is indented.
fn names(text: &str) -> Vec<&str> {
    let exports = text.split("\npub use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let items = exports.flat_map(|(path, _)| path.rsplit_once('{').map_or(path, |(_, list)| list).split(','));
    let names =
        items.map(|item| item.rsplit([':', ' ']).next().unwrap_or(item).trim_matches(['}', '\n', ' ']));
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_root_is_found() {
        let few = "mod a;\npub use a::B;\npub mod c {\n    pub use crate::a::D;\n}\npub use a::{\n    E, F as G,\n};\n";
        assert_eq!(names(few), ["B", "E", "G"]);
        assert_eq!(crowded("a/src/lib.rs", few), None);
        let many = format!("mod a;\npub use a::{{{}}};\n", vec!["X"; NAMES_MAX + 1].join(", "));
        let found = crowded("a/src/lib.rs", &many);
        assert_eq!(found.as_deref(), Some("a/src/lib.rs exports 35 names; at most 34 are for a root"));
    }

    #[test]
    fn a_root_that_allows_unsafe_code_is_found() {
        let tree =
            Tree::of(&[("a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n"), ("b/src/lib.rs", "//! B.\n")]);
        let roots = ["a/src/lib.rs".to_owned(), "b/src/lib.rs".to_owned()];
        assert_eq!(check(&tree, &roots), ["b/src/lib.rs lacks #![forbid(unsafe_code)]"]);
    }
}
