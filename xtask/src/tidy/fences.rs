//! Code in Markdown is compiled, or says what it is instead.
//!
//! A fence is compiled if a crate includes its file into its documentation; so a file with Rust fences must be included
//! by some `include_str!`, and every fence must name its language.

use std::collections::BTreeSet;

use super::tree::{Tree, resolve};

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let included = included(tree);
    let mut findings = Vec::new();
    for file in tree.markdown() {
        let path = &file.path;
        let mut has_rust = false;
        for (line, language) in fences(&file.text) {
            match language.split([',', ' ']).next().unwrap_or("") {
                "" => findings
                    .push(format!("{path}:{line}: this fence must name its language: rust, text, sh, ...")),
                "rust" if language.contains("ignore") => {
                    findings.push(format!(
                        "{path}:{line}: an ignored fence compiles never; make it no_run, or text"
                    ));
                }
                "rust" => has_rust = true,
                _ => {}
            }
        }
        if has_rust && !included.contains(path) {
            findings.push(format!(
                "{path} has Rust code that is never compiled: include it by #[doc = include_str!(..)]"
            ));
        }
    }
    findings
}

/// The line and the language of every opening fence.
pub(super) fn fences(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut open: Option<&str> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let language = line.trim_start_matches('`');
        let ticks = &line[..line.len() - language.len()];
        if ticks.len() < 3 {
            continue;
        }
        match open {
            None => {
                found.push((number + 1, language.trim()));
                open = Some(ticks);
            }
            Some(opening) if ticks.len() >= opening.len() && language.trim().is_empty() => open = None,
            Some(_) => {}
        }
    }
    found
}

/// The Markdown files that some crate includes.
fn included(tree: &Tree) -> BTreeSet<String> {
    let mut included = BTreeSet::new();
    for file in tree.rust() {
        for rest in file.text.split("include_str!(").skip(1) {
            let path = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
            included.extend(path.and_then(|(path, _)| resolve(file.folder(), path)));
        }
    }
    included
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_that_nobody_compiles_is_found() {
        let include = "#![doc = include_str!(\"../../README.md\")]";
        let tree = Tree::of(&[
            ("README.md", "```rust\nlet a = 1;\n```\n"),
            ("docs/src/lib.rs", include),
            ("docs/lost.md", "text\n\n```rust\nlet a = ;\n```\n"),
        ]);
        assert_eq!(
            check(&tree),
            ["docs/lost.md has Rust code that is never compiled: include it by #[doc = include_str!(..)]"]
        );
    }

    #[test]
    fn a_fence_without_a_language_is_found_and_its_end_is_no_fence() {
        let tree = Tree::of(&[("a.md", "```sh\ncargo demo\n```\n\n```\nwhat is this\n```\n")]);
        assert_eq!(check(&tree), ["a.md:5: this fence must name its language: rust, text, sh, ..."]);
    }

    #[test]
    fn a_fence_inside_a_longer_fence_is_text() {
        assert_eq!(fences("````text\n```\n```rust\n````\n```sql\n```\n"), [(1, "text"), (5, "sql")]);
    }

    #[test]
    fn an_ignored_fence_is_found() {
        let tree = Tree::of(&[("a.md", "```rust,ignore\nlet a = ;\n```\n")]);
        assert_eq!(check(&tree), ["a.md:1: an ignored fence compiles never; make it no_run, or text"]);
    }
}
