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
//!
//! The circles that stand today are counted in `circles.txt`: a line for each crate with the number of its files that lie
//! on a circle. `cargo xtask tidy circles` prints them all.

mod graph;
mod modules;

use std::collections::BTreeMap;

use super::ratchet;
use super::tree::Tree;
use graph::Circle;
use modules::Import;
pub(crate) use modules::without_tests;

pub(crate) const RATCHET: &str = "xtask/src/tidy/circles.txt";

/// The crates without circles, by the folders of their sources.
const CRATES: [&str; 4] = ["txn", "idempotency", "saga", "testkit"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let text = tree.get(RATCHET).map_or("", |file| &file.text);
    let counts = match counts(tree) {
        Ok(counts) => counts,
        Err(error) => return vec![error],
    };
    let mut findings = Vec::new();
    for (name, before, now) in ratchet::grown(text, &counts) {
        findings
            .push(format!("{name} has {now} files that import each other in circles, {before} are allowed"));
        findings.extend(of(tree, name).unwrap_or_default().iter().map(shown));
    }
    findings.extend(ratchet::fallen(RATCHET, text, &counts));
    findings
}

/// The number of files on circles, for each crate.
pub(crate) fn counts(tree: &Tree) -> Result<BTreeMap<String, usize>, String> {
    let count = |name: &&str| {
        let files = of(tree, name)?.iter().map(|circle| circle.files.len()).sum();
        Ok(((*name).to_owned(), files))
    };
    CRATES.iter().map(count).collect()
}

/// Every circle of every crate, for people.
pub(crate) fn list(tree: &Tree) -> Result<String, String> {
    let mut text = String::new();
    for name in CRATES {
        let circles = of(tree, name)?;
        text.push_str(&format!("{name}: {} circles\n", circles.len()));
        text.extend(circles.iter().map(|circle| format!("{}\n", shown(circle))));
    }
    Ok(text)
}

fn of(tree: &Tree, name: &str) -> Result<Vec<Circle>, String> {
    let root = format!("{name}/src/lib.rs");
    match tree.get(&root) {
        Some(_) => Ok(graph::circles(&modules::imports(tree, &root)?)),
        None => Ok(Vec::new()),
    }
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

    fn tree(files: &[(&str, &str)], ratchet: &str) -> Tree {
        Tree::of(&[files, &[(RATCHET, ratchet)]].concat())
    }

    const THREE: [(&str, &str); 4] = [
        ("txn/src/lib.rs", "mod a;\nmod b;\nmod c;\npub use a::A;\n"),
        ("txn/src/a.rs", "use crate::b::B;\n"),
        ("txn/src/b.rs", "use std::fmt;\nuse crate::c::C;\n"),
        ("txn/src/c.rs", "fn c() -> crate::a::A {}\n"),
    ];

    #[test]
    fn a_circle_is_found_with_the_lines_that_close_it() {
        let found = check(&tree(&THREE, ""));
        assert_eq!(
            found,
            [
                "txn has 3 files that import each other in circles, 0 are allowed",
                "a circle of 3 files: txn/src/a.rs, txn/src/b.rs, txn/src/c.rs\n    around:\n      \
                 txn/src/a.rs:1 crate::b::B -> txn/src/b.rs\n      \
                 txn/src/b.rs:2 crate::c::C -> txn/src/c.rs\n      \
                 txn/src/c.rs:1 crate::a::A -> txn/src/a.rs\n    no circle without one of these:\n      \
                 txn/src/a.rs:1 crate::b::B -> txn/src/b.rs\n      \
                 txn/src/b.rs:2 crate::c::C -> txn/src/c.rs\n      \
                 txn/src/c.rs:1 crate::a::A -> txn/src/a.rs"
            ]
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
        let found = check(&tree(&files, ""));
        let cuts = "no circle without one of these:\n      txn/src/c.rs:1 crate::a::A -> txn/src/a.rs";
        assert!(found[1].ends_with(cuts), "{found:?}");
    }

    #[test]
    fn the_ratchet_only_falls() {
        assert_eq!(check(&tree(&THREE, "# why\ntxn 3\n")), [""; 0]);
        assert_eq!(check(&tree(&THREE, "txn 4\n")).len(), 1);
        assert_eq!(check(&tree(&THREE, "txn 2\n")).len(), 2);
    }

    #[test]
    fn who_imports_from_the_root_has_the_root_in_a_circle() {
        let files = [
            ("saga/src/lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            ("saga/src/a.rs", "use crate::b;\n"),
            ("saga/src/b.rs", "use crate::A;\n"),
        ];
        assert_eq!(counts(&tree(&files, "")).expect("counts")["saga"], 3);
    }

    #[test]
    fn the_parts_of_a_module_may_name_its_file() {
        let files = [
            ("saga/src/lib.rs", "mod a;\nmod b;\n"),
            ("saga/src/a.rs", "mod part;\npub use part::Part;\nuse crate::b::B;\n"),
            ("saga/src/a/part.rs", "use super::A;\nuse crate::b::B;\n"),
            ("saga/src/b.rs", "pub struct B;\n"),
        ];
        assert_eq!(counts(&tree(&files, "")).expect("counts")["saga"], 0);
    }

    #[test]
    fn a_circle_through_a_part_is_found() {
        let files = [
            ("saga/src/lib.rs", "mod a;\nmod b;\n"),
            ("saga/src/a.rs", "mod part;\nuse part::Part;\n"),
            ("saga/src/a/part.rs", "use crate::b::B;\n"),
            ("saga/src/b.rs", "use crate::a::A;\n"),
        ];
        assert_eq!(counts(&tree(&files, "")).expect("counts")["saga"], 3);
    }
}
