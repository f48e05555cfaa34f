//! Every crate forbids unsafe code, in its own root, where a reader looks.

use cargo_metadata::Metadata;

use super::tree::Tree;

const FORBID: &str = "#![forbid(unsafe_code)]";

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
    roots.iter().filter(lacks).map(|root| format!("{root} lacks {FORBID}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_allows_unsafe_code_is_found() {
        let tree =
            Tree::of(&[("a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n"), ("b/src/lib.rs", "//! B.\n")]);
        let roots = ["a/src/lib.rs".to_owned(), "b/src/lib.rs".to_owned()];
        assert_eq!(check(&tree, &roots), ["b/src/lib.rs lacks #![forbid(unsafe_code)]"]);
    }
}
