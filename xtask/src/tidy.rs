//! `cargo xtask tidy`: rules that are cheap to obey and that no compiler checks.
//!
//! A rule is a pure function from the tree's text (or cargo's view of it) to findings, and each has a test that shows
//! it failing. A rule that needs a person to interpret it does not belong here.

mod decisions;
mod edges;
mod fences;
mod leftovers;
mod lengths;
mod links;
mod names;
mod promises;
mod roots;
mod tree;

use crate::{say, workspace};
use tree::Tree;

/// Runs every rule and fails if one found something.
pub(crate) fn run() -> Result<(), String> {
    let metadata = workspace::metadata()?;
    let tree = Tree::read(&workspace::root()).map_err(|error| format!("failed to read the tree: {error}"))?;
    let findings: Vec<String> = [
        ("edges", edges::check(&edges::of(&metadata))),
        ("roots", roots::check(&tree, &roots::of(&metadata))),
        ("lengths", lengths::check(&tree)),
        ("promises", promises::check(&tree)),
        ("decisions", decisions::check(&tree)),
        ("fences", fences::check(&tree)),
        ("links", links::check(&tree)),
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
