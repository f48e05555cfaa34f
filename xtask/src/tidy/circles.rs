//! No module of a crate imports itself by way of others.
//!
//! Files that import each other in a circle can only be understood, moved and tested together. The rule reads the paths
//! that start at `crate`, `self`, `super` or the name of a module in the files of each crate, and finds the files that
//! reach each other. Three points decide which paths count:
//!
//! - A module may name the file of its direct parent: a folder is one thing, and Rust lets its parts see what the parent
//!   keeps to itself. A parent that names its children counts, and so does every module that names the crate's root.
//! - `pub use child::Name` counts as an import by the parent. A module is imported from the file that defines the name, not
//!   by way of a parent or the crate's root that shows it to others.
//! - Items under `#[cfg(test)]`, comments and documentation do not count.

mod graph;
mod modules;

use super::tree::Tree;
use graph::Circle;
use modules::Import;
pub(crate) use modules::without_tests;

/// The crates without circles, by the folders of their sources.
const CRATES: [&str; 4] = ["txn", "idempotency", "saga", "testkit"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let of = |name: &&str| match of(tree, name) {
        Ok(circles) => circles.iter().map(shown).collect(),
        Err(error) => vec![error],
    };
    CRATES.iter().flat_map(of).collect()
}

fn of(tree: &Tree, name: &str) -> Result<Vec<Circle>, String> {
    Ok(graph::circles(&modules::imports(tree, &format!("{name}/src/lib.rs"))?))
}

/// The files of a circle, and the lines that close it.
fn shown(circle: &Circle) -> String {
    let files: Vec<&str> = circle.files.iter().map(String::as_str).collect();
    let mut text = format!("a circle of {} files: {}", files.len(), files.join(", "));
    let lines = |head: &str, imports: &[Import]| -> String {
        let line = |import: &Import| {
            format!("\n      {}:{} {} -> {}", import.from, import.line, import.path, import.to)
        };
        format!("\n    {head}:") + &imports.iter().map(line).collect::<String>()
    };
    let mut ways = circle.ways.iter().map(|way| lines("around", way));
    if circle.cuts.is_empty() {
        text.extend(ways);
    } else {
        text.extend(ways.next());
        text.push_str(&lines("no circle without one of these", &circle.cuts));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a tree in which the other crates are empty.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let roots = CRATES.map(|name| format!("{name}/src/lib.rs"));
        let others = roots.iter().filter(|root| !files.iter().any(|(path, _)| path == root));
        let others = others.map(|root| (root.as_str(), ""));
        check(&Tree::of(&files.iter().copied().chain(others).collect::<Vec<_>>()))
    }

    /// The number of files in the first line about a circle.
    fn size(files: &[(&str, &str)]) -> usize {
        found(files)
            .first()
            .map_or(0, |circle| circle.lines().next().unwrap_or_default().matches(".rs").count())
    }

    const THREE: [(&str, &str); 4] = [
        ("txn/src/lib.rs", "mod a;\nmod b;\nmod c;\npub use a::A;\n"),
        ("txn/src/a.rs", "use crate::b::B;\n"),
        ("txn/src/b.rs", "use std::fmt;\nuse crate::c::C;\n"),
        ("txn/src/c.rs", "fn c() -> crate::a::A {}\n"),
    ];

    #[test]
    fn a_circle_is_found_with_the_lines_that_close_it() {
        assert_eq!(
            found(&THREE),
            ["a circle of 3 files: txn/src/a.rs, txn/src/b.rs, txn/src/c.rs\n    around:\n      \
                 txn/src/a.rs:1 crate::b::B -> txn/src/b.rs\n      \
                 txn/src/b.rs:2 crate::c::C -> txn/src/c.rs\n      \
                 txn/src/c.rs:1 crate::a::A -> txn/src/a.rs\n    no circle without one of these:\n      \
                 txn/src/a.rs:1 crate::b::B -> txn/src/b.rs\n      \
                 txn/src/b.rs:2 crate::c::C -> txn/src/c.rs\n      \
                 txn/src/c.rs:1 crate::a::A -> txn/src/a.rs"]
        );
    }

    #[test]
    fn the_import_that_closes_every_way_is_named() {
        let files = [
            ("txn/src/lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("txn/src/a.rs", "use crate::b::B;\nuse crate::c::C;\n"),
            ("txn/src/b.rs", "use crate::c::C;\n"),
            ("txn/src/c.rs", "use crate::a::A;\n"),
        ];
        let found = found(&files);
        let cuts = "no circle without one of these:\n      txn/src/c.rs:1 crate::a::A -> txn/src/a.rs";
        assert!(found[0].ends_with(cuts), "{found:?}");
    }

    #[test]
    fn a_crate_that_is_gone_is_found() {
        assert_eq!(check(&Tree::of(&THREE)).len(), 1 + 3);
    }

    #[test]
    fn who_imports_from_the_root_has_the_root_in_a_circle() {
        let files = [
            ("saga/src/lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            ("saga/src/a.rs", "use crate::b;\n"),
            ("saga/src/b.rs", "use crate::A;\n"),
        ];
        assert_eq!(size(&files), 3);
    }

    #[test]
    fn the_parts_of_a_module_may_name_its_file() {
        let files = [
            ("saga/src/lib.rs", "mod a;\nmod b;\n"),
            ("saga/src/a.rs", "mod part;\npub use part::Part;\nuse crate::b::B;\n"),
            ("saga/src/a/part.rs", "use super::A;\nuse crate::b::B;\n"),
            ("saga/src/b.rs", "pub struct B;\n"),
        ];
        assert_eq!(size(&files), 0);
    }

    #[test]
    fn a_circle_through_a_part_is_found() {
        let files = [
            ("saga/src/lib.rs", "mod a;\nmod b;\n"),
            ("saga/src/a.rs", "mod part;\nuse part::Part;\n"),
            ("saga/src/a/part.rs", "use crate::b::B;\n"),
            ("saga/src/b.rs", "use crate::a::A;\n"),
        ];
        assert_eq!(size(&files), 3);
    }
}
