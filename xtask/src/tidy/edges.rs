//! Siblings are strangers: which package of the workspace may depend on which.

use cargo_metadata::{DependencyKind, Metadata};

use crate::workspace::PUBLISHED;

/// A dependency of one of our packages on another.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    from: String,
    to: String,
    for_tests: bool,
}

/// The edges between the packages of the workspace.
pub(crate) fn of(metadata: &Metadata) -> Vec<Edge> {
    let ours = |name: &str| metadata.packages.iter().any(|package| package.name.as_str() == name);
    let edges = metadata.packages.iter().flat_map(|package| {
        package.dependencies.iter().map(|dependency| Edge {
            from: package.name.to_string(),
            to: dependency.name.clone(),
            for_tests: dependency.kind == DependencyKind::Development,
        })
    });
    edges.filter(|edge| ours(&edge.to)).collect()
}

pub(crate) fn check(edges: &[Edge]) -> Vec<String> {
    edges
        .iter()
        .filter_map(|edge| forbidden(edge).map(|why| format!("{} -> {}: {why}", edge.from, edge.to)))
        .collect()
}

fn forbidden(edge: &Edge) -> Option<&'static str> {
    let (from, to) = (edge.from.as_str(), edge.to.as_str());
    if to == "xtask" {
        return Some("nothing depends on xtask");
    }
    if from == "testkit" {
        return Some("testkit knows none of our crates, or they would be compiled twice for their own tests");
    }
    if from == "xtask" && to != "testkit" {
        return Some("xtask is compiled before anything can be shown, so it takes no more than testkit");
    }
    if PUBLISHED.contains(&from) {
        if PUBLISHED.contains(&to) {
            return Some("siblings are strangers: the glue is three lines in an example");
        }
        if to == "testkit" && edge.for_tests {
            return None;
        }
        return Some("a published crate takes nothing unpublished, except testkit for its tests");
    }
    (to == "testkit" && !edge.for_tests && from != "benches" && from != "xtask")
        .then_some("testkit is for tests and measurements")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(from: &str, to: &str, for_tests: bool) -> bool {
        check(&[Edge { from: from.to_owned(), to: to.to_owned(), for_tests }]).is_empty()
    }

    #[test]
    fn siblings_never_depend_on_each_other_not_even_for_tests() {
        assert!(!is_allowed("probity-saga", "probity-txn", false));
        assert!(!is_allowed("probity-saga", "probity-idempotency", true));
    }

    #[test]
    fn testkit_serves_tests_and_knows_nobody() {
        assert!(is_allowed("probity-txn", "testkit", true));
        assert!(is_allowed("benches", "testkit", false));
        assert!(!is_allowed("probity-txn", "testkit", false));
        assert!(!is_allowed("payment-gateway", "testkit", false));
        assert!(!is_allowed("testkit", "probity-txn", true));
    }

    #[test]
    fn published_crates_take_nothing_unpublished() {
        assert!(!is_allowed("probity-txn", "service-shell", true));
        assert!(is_allowed("payment-gateway", "probity-txn", false));
    }

    #[test]
    fn xtask_stays_small_and_nobody_needs_it() {
        assert!(is_allowed("xtask", "testkit", false));
        assert!(!is_allowed("xtask", "probity-saga", false));
        assert!(!is_allowed("benches", "xtask", true));
    }
}
