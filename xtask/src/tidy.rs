//! `cargo xtask tidy`: rules that are cheap to obey and that no compiler checks.
//!
//! A rule is a pure function from the tree's text (or cargo's view of it) to findings, and each has a test that shows
//! it failing. It allows no old cases. A rule that needs a person to interpret it does not belong here.

mod benchmarks;
mod circles;
mod decisions;
mod edges;
mod fences;
mod first_sentences;
mod leftovers;
mod lengths;
mod links;
mod names;
mod paths;
mod promises;
mod published;
mod pure;
mod readmes;
mod roots;
mod tree;
mod twins;

use crate::{say, workspace};
use tree::Tree;

/// Runs every rule and fails if one found something.
pub(crate) fn run() -> Result<(), String> {
    let metadata = workspace::metadata()?;
    let tree = read()?;
    let findings: Vec<String> = [
        ("edges", edges::check(&edges::of(&metadata))),
        ("roots", roots::check(&tree, &roots::of(&metadata))),
        ("lengths", lengths::check(&tree)),
        ("circles", circles::check(&tree)),
        ("first_sentences", first_sentences::check(&tree)),
        ("promises", promises::check(&tree)),
        ("decisions", decisions::check(&tree)),
        ("fences", fences::check(&tree)),
        ("paths", paths::check(&tree)),
        ("links", links::check(&tree)),
        ("published", published::check(&tree)),
        ("pure", pure::check(&tree)),
        ("twins", twins::check(&tree)),
        ("readmes", readmes::check(&tree)),
        ("benchmarks", benchmarks::check(&tree)),
        ("names", names::check(&tree)),
        ("leftovers", leftovers::check(&tree)),
    ]
    .into_iter()
    .flat_map(|(rule, found)| found.into_iter().map(move |finding| format!("  {rule}: {finding}")))
    .collect();
    if findings.is_empty() {
        say::line(&format!("{} files are tidy.", tree.files().len()));
        return Ok(());
    }
    Err(format!("the tree is not tidy:\n\n{}", findings.join("\n")))
}

/// The paths of the pure files of the published crates.
pub(crate) fn pure_files() -> Result<Vec<String>, String> {
    Ok(pure::files(&read()?).map(|file| file.path.clone()).collect())
}

fn read() -> Result<Tree, String> {
    Tree::read(&workspace::root()).map_err(|error| format!("failed to read the tree: {error}"))
}
